"""Types of the Rust core. Public functions with documentation live in the modules that wrap these."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEATURE_MOMENT_CHUNK",
    "LedgerLog",
    "ProxSolver",
    "ScoreLabel",
    "__version__",
    "_gate_probe",
    "betti_matching",
    "betti_matching_octants",
    "betti_numbers",
    "betti_unmatched",
    "blake3_array",
    "blake3_bytes",
    "blake3_file",
    "component_sizes",
    "component_stats",
    "component_topology",
    "connected_components",
    "connected_components_multilabel",
    "distance_transform",
    "euler_number",
    "extract_features",
    "extreme_voxels",
    "feature_families",
    "feature_moment_sums",
    "feature_moments",
    "feature_plan",
    "fill_holes",
    "gather_features",
    "hysteresis",
    "ledger_canonical",
    "ledger_open",
    "ledger_prove_consistency",
    "ledger_prove_inclusion",
    "ledger_record_leaf",
    "ledger_tree_head",
    "ledger_tree_head_at",
    "ledger_verify",
    "ledger_verify_consistency",
    "ledger_verify_inclusion",
    "median",
    "morphology",
    "nx46_score",
    "nx47_score",
    "patch_sheets",
    "plug_holes",
    "probability_histogram",
    "prox_column_sums",
    "prox_cross_entropy_of",
    "prox_evaluate",
    "prox_evaluation_sums",
    "prox_lipschitz",
    "prox_lipschitz_of",
    "prox_moment_sums",
    "prox_predict",
    "prox_predict_volume",
    "prox_standardise",
    "prox_tasks",
    "remove_dust",
    "score_area_table",
    "score_surface",
    "score_voi",
    "simd_path",
    "smooth_z",
    "thread_count",
    "tiff_encode",
    "tiff_inspect",
    "tiff_inspect_bytes",
    "tiff_read",
    "tiff_read_bytes",
    "tiff_write",
]

__version__: str

# ---- gate ----
def thread_count() -> int: ...
def _gate_probe(
    behaviour: Literal["sleep", "panic", "no_space"] | str, seconds: float = 0.0, n_threads: int | None = None
) -> int: ...

# ---- digest ----
def blake3_bytes(data: bytes, n_threads: int | None = None) -> str: ...
def blake3_array(array: NDArray[Any], n_threads: int | None = None) -> str: ...
def blake3_file(path: str | PathLike[str], n_threads: int | None = None) -> str: ...

# ---- tiff ----
def tiff_inspect(path: str) -> dict[str, Any]: ...
def tiff_inspect_bytes(data: bytes, name: str) -> dict[str, Any]: ...
def tiff_read(path: str, max_bytes: int, n_threads: int | None = None) -> NDArray[Any]: ...
def tiff_read_bytes(data: bytes, name: str, max_bytes: int, n_threads: int | None = None) -> NDArray[Any]: ...
def tiff_encode(volume: NDArray[Any], compression: str, n_threads: int | None = None) -> bytes: ...
def tiff_write(path: str, volume: NDArray[Any], compression: str, n_threads: int | None = None) -> None: ...

# ---- baselines ----
def nx46_score(
    volume: NDArray[Any], score_blend_3d_weight: float, z_smoothing_radius: int, n_threads: int | None = None
) -> NDArray[np.float32]: ...
def nx47_score(
    volume: NDArray[Any],
    sigma_base: float,
    sigma_gain: float,
    percentile_base: float,
    percentile_gain: float,
    percentile_max: float,
    percentile_gap: float,
    percentile_floor: float,
    n_threads: int | None = None,
) -> NDArray[np.float32]: ...

# ---- features ----
def feature_families() -> list[str]: ...
def feature_plan(scales: list[float], families: list[str]) -> tuple[list[str], int]: ...
def extract_features(
    volume: NDArray[Any],
    scales: list[float],
    families: list[str],
    normalise: bool,
    z_range: tuple[int, int] | None,
    max_bytes: int,
    n_threads: int | None = None,
) -> NDArray[np.float32]: ...
def gather_features(
    values: NDArray[np.float32], flat_index: NDArray[np.int64], n_threads: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def feature_moment_sums(
    x: NDArray[np.float32], centre: list[float] | None, n_threads: int | None = None
) -> NDArray[np.float64]: ...

FEATURE_MOMENT_CHUNK: int

def feature_moments(
    x: NDArray[np.float32], n_threads: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

# ---- prox ----
def simd_path(simd: str | None = None) -> str: ...
def prox_standardise(
    x: NDArray[np.float32], n_threads: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def prox_lipschitz(
    x: NDArray[np.float32],
    y: NDArray[np.uint8],
    gradient: NDArray[np.float32] | None,
    mean: list[float],
    scale: list[float],
    class_weight: tuple[float, float] = ...,
    n_threads: int | None = None,
) -> float: ...
def prox_evaluate(
    x: NDArray[np.float32],
    y: NDArray[np.uint8],
    gradient: NDArray[np.float32] | None,
    mean: list[float],
    scale: list[float],
    params: NDArray[np.float64],
    thresholds: list[float],
    simd: str | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]: ...
def prox_tasks(n_samples: int) -> list[int]: ...
def prox_column_sums(
    x: NDArray[np.float32], centre: list[float] | None, first: int, n_samples: int, n_threads: int | None = None
) -> NDArray[np.float64]: ...
def prox_moment_sums(
    x: NDArray[np.float32],
    y: NDArray[np.uint8],
    gradient: NDArray[np.float32] | None,
    mean: list[float],
    scale: list[float],
    class_weight: tuple[float, float],
    first: int,
    n_samples: int,
    n_threads: int | None = None,
) -> NDArray[np.float64]: ...
def prox_lipschitz_of(moment: list[float], n_samples: int) -> float: ...
def prox_evaluation_sums(
    x: NDArray[np.float32],
    y: NDArray[np.uint8],
    gradient: NDArray[np.float32] | None,
    mean: list[float],
    scale: list[float],
    params: NDArray[np.float64],
    thresholds: list[float],
    simd: str | None,
    first: int,
    n_samples: int,
    n_threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]: ...
def prox_cross_entropy_of(loss: list[float], n_samples: int) -> NDArray[np.float64]: ...
def prox_predict(
    x: NDArray[np.float32],
    gradient: NDArray[np.float32] | None,
    mean: list[float],
    scale: list[float],
    params: NDArray[np.float64],
    simd: str | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def prox_predict_volume(
    values: NDArray[np.float32],
    uses_gradient: bool,
    mean: list[float],
    scale: list[float],
    params: NDArray[np.float64],
    simd: str | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...

@final
class ProxSolver:
    def __new__(
        cls,
        mean: list[float],
        scale: list[float],
        uses_gradient: bool,
        meta_neurons: int,
        l1: list[float],
        l2: list[float],
        learning_rate: float,
        seed: int,
        init_scale: float,
        bootstrap: bool = True,
        class_weight: tuple[float, float] = ...,
        simd: str | None = None,
        method: Literal["ista", "fista", "prox_newton"] | str = "ista",
        tol: float = 1e-6,
    ) -> ProxSolver: ...
    def step(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]: ...
    def gradient_points(self) -> NDArray[np.float64]: ...
    def partial_sums(
        self,
        points: NDArray[np.float64],
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None,
        first: int,
        n_samples: int,
        n_threads: int | None = None,
    ) -> NDArray[np.float64]: ...
    def advance(
        self, sums: NDArray[np.float64], n_samples: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]: ...
    def certify(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.uint8],
        gradient: NDArray[np.float32] | None = None,
        n_threads: int | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
    def state(self) -> dict[str, Any]: ...
    def set_state(self, state: Mapping[str, Any]) -> None: ...
    @property
    def converged(self) -> NDArray[np.bool_]: ...
    @property
    def method(self) -> str: ...
    @property
    def iteration(self) -> int: ...
    @property
    def simd(self) -> str: ...

# ---- volume ----
def connected_components(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.uint32], int]: ...
def component_sizes(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> NDArray[np.int64]: ...
def connected_components_multilabel(
    labels: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32] | NDArray[np.bool_],
    connectivity: int,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint32], int]: ...
def component_stats(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]: ...
def remove_dust(
    mask: NDArray[np.uint8] | NDArray[np.bool_],
    min_voxels: int,
    connectivity: int,
    keep_largest: int | None = None,
    spare_border: bool = False,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint8], int, int]: ...
def fill_holes(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.uint8], int]: ...
def hysteresis(
    probability: NDArray[np.float32], low: float, high: float, connectivity: int, n_threads: int | None = None
) -> tuple[NDArray[np.uint8], int, int]: ...
def extreme_voxels(
    probability: NDArray[np.float32],
    at_least: float,
    top_k: int | None = None,
    after: tuple[float, int] | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint32], NDArray[np.float32], int]: ...
def smooth_z(volume: NDArray[np.float32], radius: int, n_threads: int | None = None) -> NDArray[np.float32]: ...
def median(
    volume: NDArray[np.uint8] | NDArray[np.bool_] | NDArray[np.float32], n_threads: int | None = None
) -> NDArray[Any]: ...
def morphology(
    volume: NDArray[np.uint8] | NDArray[np.bool_] | NDArray[np.float32],
    operation: Literal["dilation", "erosion", "opening", "closing"] | str,
    radius: tuple[int, int, int],
    shape: Literal["ball", "box"] | str,
    n_threads: int | None = None,
) -> NDArray[Any]: ...
def probability_histogram(
    probability: NDArray[np.float32], label: NDArray[np.uint8] | None, n_bins: int, n_threads: int | None = None
) -> NDArray[np.int64]: ...

# ---- Betti matching ----
# Rows: dimension 0, 1, 2; columns: matched, of the prediction, of the label.
def betti_matching(
    prediction: NDArray[np.uint8] | NDArray[np.bool_],
    label: NDArray[np.uint8] | NDArray[np.bool_],
    n_threads: int | None = None,
) -> NDArray[np.int64]: ...
def betti_matching_octants(
    prediction: NDArray[np.uint8] | NDArray[np.bool_],
    label: NDArray[np.uint8] | NDArray[np.bool_],
    n_threads: int | None = None,
) -> NDArray[np.int64]: ...

# ---- distance ----
def distance_transform(
    mask: NDArray[np.uint8] | NDArray[np.bool_],
    spacing: tuple[float, float, float],
    squared: bool,
    n_threads: int | None = None,
) -> NDArray[np.float32]: ...

# ---- score ----
def score_surface(
    prediction: NDArray[np.uint8] | NDArray[np.bool_],
    label: NDArray[np.uint8] | NDArray[np.bool_],
    spacing: tuple[float, float, float],
    tolerance: float,
    n_threads: int | None = None,
) -> tuple[float, float, float, float, float]: ...
def score_voi(
    prediction: NDArray[np.uint8] | NDArray[np.bool_],
    label: NDArray[np.uint8] | NDArray[np.bool_],
    n_threads: int | None = None,
) -> tuple[float, float, int, int]: ...
def score_area_table(spacing: tuple[float, float, float]) -> list[float]: ...

@final
class ScoreLabel:
    """A label's surface and components, for any number of predictions."""

    def __new__(cls, label: NDArray[np.uint8] | NDArray[np.bool_], n_threads: int | None = None) -> ScoreLabel: ...
    def surface(
        self,
        prediction: NDArray[np.uint8] | NDArray[np.bool_],
        spacing: tuple[float, float, float],
        tolerance: float,
        n_threads: int | None = None,
    ) -> tuple[float, float, float, float, float]: ...
    def voi(
        self, prediction: NDArray[np.uint8] | NDArray[np.bool_], n_threads: int | None = None
    ) -> tuple[float, float, int, int]: ...

# ---- volume: topology and sheets ----
def euler_number(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> int: ...
def betti_numbers(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> tuple[int, int, int]: ...
def component_topology(
    mask: NDArray[np.uint8] | NDArray[np.bool_], connectivity: int, n_threads: int | None = None
) -> list[NDArray[np.int64]]: ...
def plug_holes(
    mask: NDArray[np.uint8] | NDArray[np.bool_], n_threads: int | None = None
) -> tuple[NDArray[np.uint8], int, int]: ...
def patch_sheets(
    mask: NDArray[np.uint8] | NDArray[np.bool_],
    connectivity: int,
    min_voxels: int,
    max_gap: int,
    max_residual: float,
    n_threads: int | None = None,
) -> tuple[NDArray[np.uint8], dict[str, Any]]: ...

# For the prediction and for the label, one array of (z, y, x) per dimension.
def betti_unmatched(
    prediction: NDArray[np.uint8] | NDArray[np.bool_],
    label: NDArray[np.uint8] | NDArray[np.bool_],
    n_threads: int | None = None,
    octants: bool = True,
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]: ...

# ---- ledger ----
@final
class LedgerLog:
    def append(self, name: str, fields: dict[str, Any], ts_ns: int | None = None) -> int: ...
    def append_many(self, events: list[tuple[str, dict[str, Any]]], ts_ns: int | None = None) -> int: ...
    def append_iterations(
        self,
        name: str,
        iteration: int,
        max_iter: int,
        candidate_first: int,
        loss: NDArray[np.float64],
        gradient_norm: NDArray[np.float64],
        nonzero: NDArray[np.int64],
        common: dict[str, Any],
        ts_ns: int | None = None,
    ) -> int: ...
    def append_table(
        self,
        name: str,
        columns: dict[str, NDArray[np.int64] | NDArray[np.float64]],
        common: dict[str, Any],
        ts_ns: int | None = None,
    ) -> int: ...
    def flush(self) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...
    def durable_tree_head(self) -> tuple[int, str]: ...
    @property
    def closed(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def root(self) -> str: ...
    @property
    def head(self) -> str: ...
    @property
    def torn_bytes(self) -> int: ...

def ledger_open(path: str, durable: tuple[int, str] | None = None) -> LedgerLog: ...
def ledger_verify(path: str) -> dict[str, Any]: ...
def ledger_canonical(value: Any) -> bytes: ...
def ledger_tree_head(entries: list[bytes]) -> str: ...
def ledger_tree_head_at(path: str, size: int | None = None) -> tuple[int, str]: ...
def ledger_prove_inclusion(path: str, index: int, size: int | None = None) -> dict[str, Any]: ...
def ledger_prove_consistency(path: str, first: int, second: int | None = None) -> dict[str, Any]: ...
def ledger_record_leaf(record: str) -> tuple[int, str]: ...
def ledger_verify_inclusion(leaf: str, index: int, size: int, path: list[str], root: str) -> None: ...
def ledger_verify_consistency(first: int, second: int, path: list[str], first_root: str, second_root: str) -> None: ...
