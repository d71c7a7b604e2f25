"""The configuration's sections, each a frozen dataclass that refuses what is out of range.

The grid's floor is the client's law (R50, R52): at least nine meta-neurons, the default l1 and l2 values, 120
iterations. Larger is always accepted.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from vesu.config.aliases import AliasUse
from vesu.config.autotune import AutoTuneConfig
from vesu.config.checks import require
from vesu.config.gates import GatesConfig
from vesu.config.guided import GuidedConfig
from vesu.config.keeping import CheckpointConfig, MemoryConfig, TimeConfig
from vesu.config.learned import StudentConfig, TeacherConfig
from vesu.config.nonces import NonceConfig
from vesu.errors import ArgumentError
from vesu.segmentation import DEFAULT_STEPS, DENSITY_RANGE, Dust, SegmentConfig, Step
from vesu.segmentation.threshold import Mode

__all__ = [
    "CalibrationSettings",
    "FeatureConfig",
    "NX46Config",
    "NX47Config",
    "Pipeline",
    "RunConfig",
    "SamplingConfig",
    "SearchConfig",
    "SegmentSettings",
]

Pipeline: TypeAlias = Literal["vesu", "nx46", "nx47"]
"""What gives every voxel its score: the search, or one of the historical scorers (R32)."""

L1_FLOOR = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
L2_FLOOR = (1e-4, 1e-3, 1e-2)
META_NEURONS_FLOOR = 9
MAX_ITER_FLOOR = 120
MAX_TAG = 200


@dataclass(frozen=True)
class SamplingConfig:
    """Which voxels are learned from (R16)."""

    voxels_per_volume: int = 40_000
    """Class-balanced voxels drawn from each labelled volume."""
    validation_fraction: float = 0.2
    """Share of the labelled volumes kept whole for validation (at least one; in (0, 1))."""
    margin: int = 0
    """Voxels next to the volume's faces that are never drawn."""
    max_train_volumes: int | None = None
    """Train on at most so many volumes (R40); none takes all of them."""
    max_val_volumes: int | None = None
    """Validate on at most so many volumes (R40); none takes all that are held out."""

    def __post_init__(self) -> None:
        require("sampling.voxels_per_volume", self.voxels_per_volume, self.voxels_per_volume >= 2, "2 or more")
        require(
            "sampling.validation_fraction",
            self.validation_fraction,
            0 < self.validation_fraction < 1,
            "a number between 0 and 1, both excluded",
        )
        require("sampling.margin", self.margin, self.margin >= 0, "0 or more voxels")
        for name in ("max_train_volumes", "max_val_volumes"):
            cap = getattr(self, name)
            require(f"sampling.{name}", cap, cap is None or cap >= 1, "1 or more volumes, or none")


@dataclass(frozen=True)
class FeatureConfig:
    """Which feature channels are kept (R07, R08)."""

    scales: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Gaussian scales in voxels."""
    max_correlation: float = 0.97
    """A channel whose absolute correlation with an earlier kept one reaches this is dropped."""
    min_variance: float = 1e-8
    """A channel with less variance over the sampled voxels is dropped."""
    top_k: int | None = None
    """Keep only this many channels (6 is the history); none keeps all that survive."""

    def __post_init__(self) -> None:
        good = bool(self.scales) and all(math.isfinite(s) and s > 0 for s in self.scales)
        require("features.scales", self.scales, good, "one or more positive numbers of voxels")
        require("features.max_correlation", self.max_correlation, 0 < self.max_correlation <= 1, "in (0, 1]")
        require("features.min_variance", self.min_variance, 0 <= self.min_variance < math.inf, "0 or more")
        require("features.top_k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more, or none")


@dataclass(frozen=True)
class SearchConfig:
    """The candidate grid (R11, R12); never below the client's floor (R50, R52)."""

    meta_neurons: int = META_NEURONS_FLOOR
    """Genuinely different learners: own bootstrap weights, own start."""
    l1: tuple[float, ...] = L1_FLOOR
    """Weights of the absolute values."""
    l2: tuple[float, ...] = L2_FLOOR
    """Weights of the squares."""
    max_iter: int = MAX_ITER_FLOOR
    """Iterations of every candidate in each epoch."""
    learning_rate: float | Literal["auto"] = "auto"
    """Step length; "auto" is 0.08, or the inverse of the measured Lipschitz constant where 0.08 would diverge."""
    class_weight: Literal["balanced"] | None = None
    """'balanced' weighs each class by the inverse of its share."""
    ensemble_size: int = 9
    """How many of the best candidates form the mean probability and its spread (R17)."""
    ranking: Literal["objective", "score"] = "objective"
    """By what the ensemble is chosen: the validation objective, or the competition's score of each one's masks."""
    ranking_pool: int | None = None
    """How many of the best candidates by the objective 'score' ranks anew; none is twice the ensemble."""
    solver: Literal["ista", "fista", "prox_newton"] = "ista"
    """'ista' is the faithful proximal gradient, 'fista' its faster form, 'prox_newton' goes to certified optima."""
    tol: float = 1e-6
    """Relative duality gap at which prox_newton calls a candidate solved."""
    device: Literal["cpu", "cuda", "auto", "torch"] = "cpu"
    """'auto' takes CUDA where a kernel runs, else the CPU, and logs the fallback; 'torch' is torch on the CPU."""
    supervised_epochs: int = 1
    """Epochs, each on a fresh draw of voxels; 0 goes on until convergence."""
    patience: int = 3
    """Epochs without a better validation objective after which a search until convergence ends."""
    min_delta: float = 1e-4
    """A validation objective counts as better when it is lower by more than this."""
    max_epochs: int = 20
    """Cap of a search until convergence."""
    meta_neurons_growth: int = 0
    """Meta-neurons added before each later epoch."""
    adapt_learning_rate: bool = True
    """Between epochs, shorter steps for candidates whose objective rose, longer ones where it only fell."""
    mutation_noise: float = 0.05
    """Between epochs, noise on stagnating candidates, as a part of their coefficients' size; 0 switches it off."""
    stagnation_epochs: int = 2
    """Epochs without a better objective of its own after which a candidate mutates."""
    prune_quantile: float = 0.1
    """After the last of several epochs, the winner's smallest coefficients up to this quantile are tried as zeros."""

    def __post_init__(self) -> None:
        floor = "never below the default grid (R50, R52)"
        require(
            "search.meta_neurons",
            self.meta_neurons,
            self.meta_neurons >= META_NEURONS_FLOOR,
            f"{META_NEURONS_FLOOR} or more, {floor}",
        )
        require("search.max_iter", self.max_iter, self.max_iter >= MAX_ITER_FLOOR, f"{MAX_ITER_FLOOR} or more, {floor}")
        for name, values in (("search.l1", self.l1), ("search.l2", self.l2)):
            good = all(math.isfinite(v) and v >= 0 for v in values) and len(set(values)) == len(values)
            require(name, values, good, "distinct finite numbers, 0 or more")
        require("search.l1", self.l1, set(L1_FLOOR) <= set(self.l1), f"at least the values {L1_FLOOR}, {floor}")
        require("search.l2", self.l2, set(L2_FLOOR) <= set(self.l2), f"at least the values {L2_FLOOR}, {floor}")
        rate = self.learning_rate
        good = rate == "auto" or (isinstance(rate, float) and math.isfinite(rate) and rate > 0)
        require("search.learning_rate", rate, good, "'auto' or a positive number")
        require("search.tol", self.tol, 0 < self.tol < 1, "above 0, below 1")
        lows = {"ensemble_size": 1, "supervised_epochs": 0, "patience": 1, "max_epochs": 1, "stagnation_epochs": 1}
        for name, low in {**lows, "meta_neurons_growth": 0}.items():
            value = getattr(self, name)
            require(f"search.{name}", value, low <= value <= 1 << 20, f"{low} to {1 << 20}")
        pool, least = self.ranking_pool, self.ensemble_size
        require(
            "search.ranking_pool",
            pool,
            pool is None or least <= pool <= 1 << 20,
            f"none, or the ensemble's {least} or more",
        )
        for name in ("min_delta", "mutation_noise"):
            value = getattr(self, name)
            require(f"search.{name}", value, 0 <= value < math.inf, "0 or more")
        require("search.prune_quantile", self.prune_quantile, 0 <= self.prune_quantile < 1, "0 or more, below 1")


@dataclass(frozen=True)
class CalibrationSettings:
    """How the threshold is fitted on the validation volumes (R28)."""

    fit: bool = True
    """Fit the threshold's rule; false keeps the rule of [segment.threshold.rule] as it stands."""
    modes: tuple[Mode, ...] = ("quantile", "ratio", "fixed")
    """Modes to try; of those as good as the best, the first one listed wins."""
    low_factors: tuple[float, ...] = (0.85, 0.7, 0.5)
    """Hysteresis to try: the low threshold over the high one; none of them ([]) is a plain threshold."""
    metric: Literal["f_beta", "f1", "score"] = "f_beta"
    """What is maximised: F-beta with beta 0.5, F1, or the competition's score of the whole ladder's masks."""

    def __post_init__(self) -> None:
        name = "segment.calibration"
        require(f"{name}.modes", self.modes, bool(self.modes), "one or more modes")
        good = all(0 < factor <= 1 for factor in self.low_factors)
        require(f"{name}.low_factors", self.low_factors, good, "numbers in (0, 1]")


@dataclass(frozen=True)
class SegmentSettings:
    """From probability to mask (R28, R29): a ladder of steps, and how its threshold is fitted."""

    steps: tuple[Step, ...] = DEFAULT_STEPS
    """The steps in order; one that is not listed is off. Each has a table of parameters of its own."""
    density_range: tuple[float, float] = DENSITY_RANGE
    """Shares of surface that raise no warning; they never change a mask."""
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)

    def __post_init__(self) -> None:
        try:
            SegmentConfig(self.steps, self.density_range)
        except ArgumentError as error:
            raise ArgumentError(f"segment.{error}") from None

    @property
    def ladder(self) -> SegmentConfig:
        """The steps as :func:`vesu.segment` takes them."""
        return SegmentConfig(self.steps, self.density_range)


@dataclass(frozen=True)
class NX46Config:
    """The historical scorer NX46 (R32); docs/baselines.md has its formula."""

    threshold_quantile: float = 0.985
    """Quantile of the volume's score from which on a voxel is surface."""
    score_blend_3d_weight: float = 0.78
    """Weight of the 3-D energy; the rest is the energy projected along z."""
    z_smoothing_radius: int = 2
    """Slices on either side in the moving averages along z."""

    def __post_init__(self) -> None:
        for name in ("threshold_quantile", "score_blend_3d_weight"):
            value = getattr(self, name)
            require(f"nx46.{name}", value, 0 <= value <= 1, "0 to 1")
        radius = self.z_smoothing_radius
        require("nx46.z_smoothing_radius", radius, 0 <= radius < 1 << 23, f"0 to {(1 << 23) - 1} slices")


@dataclass(frozen=True)
class NX47Config:
    """The historical scorer NX47 V61 (R32); docs/baselines.md has its formula."""

    sigma_base: float = 0.4
    """Voxels of blur of a volume without contrast."""
    sigma_gain: float = 0.9
    """Voxels of blur more for each unit of the scaled volume's standard deviation."""
    percentile_base: float = 88.0
    """The high percentile of a slice without contrast."""
    percentile_gain: float = 6.0
    """How much higher it lies for each unit of the slice's contrast."""
    percentile_max: float = 96.0
    """The high percentile never lies above this one."""
    percentile_gap: float = 6.0
    """The low percentile lies so much below the high one."""
    percentile_floor: float = 80.0
    """The low percentile never lies below this one."""
    blend_threshold: float = 0.5
    """The soft blend from which on a voxel is surface."""

    def __post_init__(self) -> None:
        require("nx47.sigma_base", self.sigma_base, 0 < self.sigma_base <= 64, "above 0, up to 64 voxels")
        require("nx47.sigma_gain", self.sigma_gain, 0 <= self.sigma_gain <= 64, "0 to 64 voxels")
        require("nx47.percentile_gain", self.percentile_gain, 0 <= self.percentile_gain <= 1e6, "0 to 1000000")
        require("nx47.percentile_gap", self.percentile_gap, 0 <= self.percentile_gap <= 100, "0 to 100")
        require("nx47.blend_threshold", self.blend_threshold, 0 < self.blend_threshold <= 1, "above 0, up to 1")
        levels = (self.percentile_floor, self.percentile_base, self.percentile_max)
        good = 0 <= levels[0] <= levels[1] <= levels[2] <= 100
        require(
            "nx47.percentile_floor, percentile_base, percentile_max", levels, good, "0 <= floor <= base <= max <= 100"
        )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result, printed whole into its evidence.

    Examples
    --------
    >>> config = RunConfig()
    >>> config.search.meta_neurons * len(config.search.l1) * len(config.search.l2)
    135
    """

    pipeline: Pipeline = "vesu"
    """'vesu' searches and segments; 'nx46' and 'nx47' are the historical scorers, and train nothing."""
    tag: str = ""
    """A name for the run, for people: it stands in its log and summary and changes nothing."""
    dry_run: bool = False
    """Look at everything that a run would need, and run nothing (`vesu run --dry-run`)."""
    seed: int = 0
    """Seed of sampling, split, bootstrap and initialisation."""
    n_threads: int | None = None
    """Threads of the kernels; none is all cores. The result does not depend on it."""
    cache_gib: float = 8.0
    """Room for cached volumes and features; beyond it they are computed again, and the log says so."""
    max_feature_gib: float = 6.0
    """Feature volumes beyond this are computed slab by slab."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    teachers: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    auto_tune: AutoTuneConfig = field(default_factory=AutoTuneConfig)
    nonces: NonceConfig = field(default_factory=NonceConfig)
    time: TimeConfig = field(default_factory=TimeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    guided: GuidedConfig = field(default_factory=GuidedConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    nx46: NX46Config = field(default_factory=NX46Config)
    nx47: NX47Config = field(default_factory=NX47Config)
    aliases_used: tuple[AliasUse, ...] = field(default=(), compare=False, repr=False, metadata={"key": False})
    """No key: the historical variables that this was read with."""

    def __post_init__(self) -> None:
        names = get_args(Pipeline)
        require("pipeline", repr(self.pipeline), self.pipeline in names, " or ".join(map(repr, names)))
        good = len(self.tag) <= MAX_TAG and self.tag.isprintable()
        require("tag", repr(self.tag), good, f"printable text of at most {MAX_TAG} characters")
        require("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        require(
            "n_threads", self.n_threads, self.n_threads is None or 1 <= self.n_threads <= 1024, "1 to 1024, or none"
        )
        require("cache_gib", self.cache_gib, 0 <= self.cache_gib < 2**30, "0 or more GiB")
        require("max_feature_gib", self.max_feature_gib, 0 < self.max_feature_gib < 2**30, "a positive number of GiB")
        self.auto_tune.require_inside("convergence_patience", "search.patience", self.search.patience)
        self.auto_tune.require_inside("meta_neurons", "search.meta_neurons", self.search.meta_neurons)
        if self.search.mutation_noise:  # 0 switches mutation off, and tuning does not switch it on
            self.auto_tune.require_inside("mutation_noise", "search.mutation_noise", self.search.mutation_noise)
        for dust in (step for step in self.segment.steps if isinstance(step, Dust)):
            self.auto_tune.require_inside("dust_min_size", "segment.dust.min_voxels", dust.min_voxels)

    def to_json(self) -> dict[str, Any]:
        """Plain dict of every key's value, nested by section."""
        values = dataclasses.asdict(self)
        del values["aliases_used"]
        return values
