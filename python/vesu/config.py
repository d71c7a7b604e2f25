"""The run's configuration: frozen dataclasses from TOML, the environment (``VESU_*``) and the command line.

Unknown keys are refused, and the grid's floor is the client's law (R50, R52): at least nine meta-neurons, the
default l1 and l2 values, 120 iterations. Larger is always accepted.
"""

import dataclasses
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from vesu.errors import ArgumentError, FileError
from vesu.segmentation import DEFAULT_STEPS, DENSITY_RANGE, STEPS, SegmentConfig, Step, parameters, steps_from_tables
from vesu.segmentation.threshold import Mode, ThresholdRule

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
    "load_config",
]

Pipeline: TypeAlias = Literal["vesu", "nx46", "nx47"]
"""What gives every voxel its score: the search, or one of the historical scorers (R32)."""

L1_FLOOR = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
L2_FLOOR = (1e-4, 1e-3, 1e-2)
META_NEURONS_FLOOR = 9
MAX_ITER_FLOOR = 120

OTHER_VARIABLES = {"VESU_NUM_THREADS", "VESU_SIMD", "VESU_DATA", "VESU_DATA_ROOT", "VESU_BENCH_FULL"}
"""Variables of vesu that are no configuration keys (docs/configuration.md)."""


@dataclass(frozen=True)
class SamplingConfig:
    """Which voxels are learned from (R16)."""

    voxels_per_volume: int = 40_000
    """Class-balanced voxels drawn from each labelled volume."""
    validation_fraction: float = 0.2
    """Share of the labelled volumes kept whole for validation (at least one; in (0, 1))."""
    margin: int = 0
    """Voxels next to the volume's faces that are never drawn."""

    def __post_init__(self) -> None:
        _require("sampling.voxels_per_volume", self.voxels_per_volume, self.voxels_per_volume >= 2, "2 or more")
        _require(
            "sampling.validation_fraction",
            self.validation_fraction,
            0 < self.validation_fraction < 1,
            "a number between 0 and 1, both excluded",
        )
        _require("sampling.margin", self.margin, self.margin >= 0, "0 or more voxels")


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
        _require("features.scales", self.scales, good, "one or more positive numbers of voxels")
        _require("features.max_correlation", self.max_correlation, 0 < self.max_correlation <= 1, "in (0, 1]")
        _require("features.min_variance", self.min_variance, 0 <= self.min_variance < math.inf, "0 or more")
        _require("features.top_k", self.top_k, self.top_k is None or self.top_k >= 1, "1 or more, or none")


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
        _require(
            "search.meta_neurons",
            self.meta_neurons,
            self.meta_neurons >= META_NEURONS_FLOOR,
            f"{META_NEURONS_FLOOR} or more, {floor}",
        )
        _require(
            "search.max_iter", self.max_iter, self.max_iter >= MAX_ITER_FLOOR, f"{MAX_ITER_FLOOR} or more, {floor}"
        )
        for name, values in (("search.l1", self.l1), ("search.l2", self.l2)):
            good = all(math.isfinite(v) and v >= 0 for v in values) and len(set(values)) == len(values)
            _require(name, values, good, "distinct finite numbers, 0 or more")
        _require("search.l1", self.l1, set(L1_FLOOR) <= set(self.l1), f"at least the values {L1_FLOOR}, {floor}")
        _require("search.l2", self.l2, set(L2_FLOOR) <= set(self.l2), f"at least the values {L2_FLOOR}, {floor}")
        rate = self.learning_rate
        good = rate == "auto" or (isinstance(rate, float) and math.isfinite(rate) and rate > 0)
        _require("search.learning_rate", rate, good, "'auto' or a positive number")
        _require("search.tol", self.tol, 0 < self.tol < 1, "above 0, below 1")
        lows = {"ensemble_size": 1, "supervised_epochs": 0, "patience": 1, "max_epochs": 1, "stagnation_epochs": 1}
        for name, low in {**lows, "meta_neurons_growth": 0}.items():
            value = getattr(self, name)
            _require(f"search.{name}", value, low <= value <= 1 << 20, f"{low} to {1 << 20}")
        pool, least = self.ranking_pool, self.ensemble_size
        _require(
            "search.ranking_pool",
            pool,
            pool is None or least <= pool <= 1 << 20,
            f"none, or the ensemble's {least} or more",
        )
        for name in ("min_delta", "mutation_noise"):
            value = getattr(self, name)
            _require(f"search.{name}", value, 0 <= value < math.inf, "0 or more")
        _require("search.prune_quantile", self.prune_quantile, 0 <= self.prune_quantile < 1, "0 or more, below 1")


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
        _require(f"{name}.modes", self.modes, bool(self.modes), "one or more modes")
        good = all(0 < factor <= 1 for factor in self.low_factors)
        _require(f"{name}.low_factors", self.low_factors, good, "numbers in (0, 1]")


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
            _require(f"nx46.{name}", value, 0 <= value <= 1, "0 to 1")
        radius = self.z_smoothing_radius
        _require("nx46.z_smoothing_radius", radius, 0 <= radius < 1 << 23, f"0 to {(1 << 23) - 1} slices")


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
        _require("nx47.sigma_base", self.sigma_base, 0 < self.sigma_base <= 64, "above 0, up to 64 voxels")
        _require("nx47.sigma_gain", self.sigma_gain, 0 <= self.sigma_gain <= 64, "0 to 64 voxels")
        _require("nx47.percentile_gain", self.percentile_gain, 0 <= self.percentile_gain <= 1e6, "0 to 1000000")
        _require("nx47.percentile_gap", self.percentile_gap, 0 <= self.percentile_gap <= 100, "0 to 100")
        _require("nx47.blend_threshold", self.blend_threshold, 0 < self.blend_threshold <= 1, "above 0, up to 1")
        levels = (self.percentile_floor, self.percentile_base, self.percentile_max)
        good = 0 <= levels[0] <= levels[1] <= levels[2] <= 100
        _require(
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
    nx46: NX46Config = field(default_factory=NX46Config)
    nx47: NX47Config = field(default_factory=NX47Config)

    def __post_init__(self) -> None:
        names = get_args(Pipeline)
        _require("pipeline", repr(self.pipeline), self.pipeline in names, " or ".join(map(repr, names)))
        _require("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        _require(
            "n_threads", self.n_threads, self.n_threads is None or 1 <= self.n_threads <= 1024, "1 to 1024, or none"
        )
        _require("cache_gib", self.cache_gib, 0 <= self.cache_gib < 2**30, "0 or more GiB")
        _require("max_feature_gib", self.max_feature_gib, 0 < self.max_feature_gib < 2**30, "a positive number of GiB")

    def to_json(self) -> dict[str, Any]:
        """Plain dict of every value, nested by section."""
        return dataclasses.asdict(self)


def load_config(
    path: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> RunConfig:
    """Read a configuration; later sources win: defaults, TOML file, environment, overrides.

    Parameters
    ----------
    path : path, optional
        TOML file with top-level keys and the tables ``[sampling]``, ``[features]``, ``[search]``, ``[segment]``,
        ``[nx46]``, ``[nx47]``, and below ``[segment]`` the table ``[segment.calibration]`` and one for each step:
        ``[segment.dust]``.
    overrides : sequence of str
        ``"section.key=value"`` (or ``"seed=3"``, ``"segment.dust.min_voxels=1000"``); the value is read as TOML, a
        bare word as text.
    environment : mapping, optional
        Default ``os.environ``. ``VESU_SEARCH_META_NEURONS=12`` sets ``search.meta_neurons``, ``VESU_SEED=3`` the seed,
        ``VESU_SEGMENT_DUST_MIN_VOXELS=1000`` a parameter of a step.

    Raises
    ------
    ArgumentError
        An unknown key, a value of the wrong type, or one outside its range (R50: never below the grid's floor).
    FileError
        The file cannot be read.

    Examples
    --------
    >>> load_config(overrides=["search.meta_neurons=12"], environment={}).search.meta_neurons
    12
    >>> [step.name for step in load_config(overrides=["segment.steps=threshold,dust"], environment={}).segment.steps]
    ['threshold', 'dust']
    """
    values: dict[str, Any] = {}
    if path is not None:
        _merge(values, _read_toml(Path(path)), str(path))
    _merge(values, _from_environment(os.environ if environment is None else environment), "environment")
    for text in overrides:
        key, separator, raw = text.partition("=")
        _require("override", repr(text), bool(separator and key.strip()), "'section.key=value'")
        nested: Any = _toml_value(raw)
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, nested, f"override {text!r}")
    _make_steps(values.get("segment", {}))
    built: RunConfig = _build(RunConfig, values, "")
    return built


def _require(name: str, got: object, good: bool, accepted: str) -> None:
    if not good:
        raise ArgumentError(f"{name}: got {got}; accepted: {accepted}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path}: got bytes that are not UTF-8; accepted: a TOML file") from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ArgumentError(f"{path}: got {error}; accepted: a TOML file") from error


def _toml_value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw.strip()}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return raw.strip()


def _sections() -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(RunConfig).items() if dataclasses.is_dataclass(kind)}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {"VESU_" + "_".join(path).upper(): path for path in _paths(RunConfig)}
    values: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith("VESU_") or name in OTHER_VARIABLES:
            continue
        _require("environment", name, name in known, f"one of {', '.join(_akin(name, known))}")
        nested: Any = _toml_value(environment[name])
        for part in reversed(known[name]):
            nested = {part: nested}
        _merge(values, nested, "environment")
    return values


def _paths(kind: Any) -> Iterator[tuple[str, ...]]:
    """Every key that may be set, from the top: ("seed",), ("search", "l1"), ("segment", "dust", "min_voxels")."""
    hints = get_type_hints(kind)
    for name, hint in ((each.name, hints[each.name]) for each in dataclasses.fields(kind)):
        if dataclasses.is_dataclass(hint):
            yield from ((name, *path) for path in _paths(hint))
        else:
            yield (name,)
    if kind is SegmentSettings:
        for name, step in STEPS.items():
            for key in parameters(step):
                nested = _paths(ThresholdRule) if key == "rule" else [()]
                yield from ((name, key, *path) for path in nested)


def _akin(name: str, known: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Of the known variables those of the same section, or else the top-level ones and those that are no keys."""
    section = name.split("_")[1].lower()
    akin = [each for each, path in known.items() if path[0] == section]
    return sorted(akin or [each for each, path in known.items() if len(path) == 1] + [*OTHER_VARIABLES])


def _merge(into: dict[str, Any], new: Mapping[str, Any], source: str) -> None:
    for key in _sections().keys() & new.keys():
        if not isinstance(new[key], Mapping):
            raise ArgumentError(f"{source}: {key}: got {new[key]!r}; accepted: a table of keys")
    try:
        _update(into, new)
    except RecursionError as error:
        raise ArgumentError(f"{source}: got tables nested too deeply; accepted: section.step.key") from error


def _update(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Table by table, so that a later source changes only the keys it names."""
    for key, value in new.items():
        if isinstance(value, Mapping):
            table = into.get(key)
            into[key] = dict(table) if isinstance(table, Mapping) else {}
            _update(into[key], value)
        else:
            into[key] = value


def _make_steps(segment: dict[str, Any]) -> None:
    """Replace the names of the steps and their tables by the steps themselves."""
    known = [*(field_.name for field_ in dataclasses.fields(SegmentSettings)), *STEPS]
    for key in segment:
        _require("configuration key", f"segment.{key}", key in known, ", ".join(f"segment.{name}" for name in known))
    tables = {name: segment.pop(name) for name in STEPS if name in segment}
    if not tables and "steps" not in segment:
        return
    try:
        segment["steps"] = steps_from_tables(segment.get("steps"), tables)
    except ArgumentError as error:
        raise ArgumentError(f"segment.{error}") from None


def _build(kind: Any, values: Mapping[str, Any], prefix: str) -> Any:
    hints = get_type_hints(kind)
    known = [field_.name for field_ in dataclasses.fields(kind)]
    built = {}
    for key, value in values.items():
        _require("configuration key", prefix + key, key in known, ", ".join(prefix + name for name in known))
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            built[key] = _build(hint, value, f"{prefix}{key}.")
        else:
            built[key] = _coerce(prefix + key, value, hint)
    return kind(**built)


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` says, without guessing: an int serves as a float, "none" as None, a list as a tuple."""
    if get_origin(hint) is tuple:
        _require(name, repr(value), isinstance(value, list | tuple), "a list")
        return tuple(_coerce(name, item, get_args(hint)[0]) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type):
        good = isinstance(value, hint) and not (hint is not bool and isinstance(value, bool))
        _require(name, repr(value), good, hint.__name__)
        return value
    if get_origin(hint) is Literal:
        _require(name, repr(value), value in get_args(hint), " or ".join(map(repr, get_args(hint))))
        return value
    options = get_args(hint)
    if type(None) in options and (value is None or value == "none"):
        return None
    for option in options:
        if option is not type(None):
            try:
                return _coerce(name, value, option)
            except ArgumentError:
                continue
    accepted = " or ".join("none" if option is type(None) else str(option) for option in options)
    raise ArgumentError(f"{name}: got {value!r}; accepted: {accepted}")
