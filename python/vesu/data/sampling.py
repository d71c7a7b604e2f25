"""Class-balanced, seeded voxel sampling (R16).

The draw is a pure function of ``(seed, volume_id, draw, class)``: a counter-based generator (Philox-4x64,
Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011) is keyed by the digest of seed and volume
id, and draw number and class stand in the upper words of its counter. No state is carried, so volumes may be
sampled in any order, on any worker, and again after a resume. Only the generator's raw bits are used, which NumPy
never changes; its distributions may change between releases.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vesu import _core
from vesu.errors import ArgumentError, DataError

BACKGROUND, SURFACE, UNLABELLED = 0, 1, 2


def sample_voxels(
    label: NDArray[np.uint8],
    n: int,
    *,
    seed: int,
    volume_id: str,
    margin: int = 0,
    draw: int = 0,
    allow_single_class: bool = False,
) -> NDArray[np.int64]:
    """Draw `n` labelled voxels of one volume, half of them surface, without replacement.

    Parameters
    ----------
    label : ndarray, shape (z, y, x), uint8
        0 background, 1 surface, 2 unlabelled (never drawn).
    n : int
        Voxels to draw, at least 1. An odd `n` gives the odd one to the background. A class with too few voxels
        gives all that it has and the other class fills up, so fewer than `n` come back only when the volume
        holds fewer.
    seed : int
        The run's seed, 0 or more.
    volume_id : str
        Name of the volume: each volume has its own stream of draws.
    margin : int
        Distance in voxels kept from all six faces (for features with a halo).
    draw : int
        Number of the draw: another one for each epoch gives a fresh, independent sample.
    allow_single_class : bool
        Accept a volume where one of the two classes is absent, and draw `n` of the other.

    Returns
    -------
    ndarray, shape (m,), int64
        Sorted unique flat C-order indices into `label`, ``m <= n``.

    Raises
    ------
    ArgumentError
        A wrong type, shape or range of an argument.
    DataError
        Nothing to draw, or one class is absent; the message carries the counts.

    Notes
    -----
    Requirement R16. Uniform within each class. Memory: the sample, plus one slice of the volume.

    Examples
    --------
    >>> import numpy as np
    >>> from vesu.data.sampling import sample_voxels
    >>> label = np.zeros((8, 8, 8), np.uint8)
    >>> label[4] = 1
    >>> index = sample_voxels(label, 10, seed=0, volume_id="1407735")
    >>> np.bincount(label.ravel()[index])
    array([5, 5])
    """
    _check(label, n, seed=seed, volume_id=volume_id, margin=margin, draw=draw)
    inner = label[tuple(slice(margin, length - margin) for length in label.shape)]
    available = {cls: _slice_counts(inner, cls) for cls in (BACKGROUND, SURFACE)}
    totals = {cls: int(counts.sum()) for cls, counts in available.items()}
    if sum(totals.values()) == 0 or (0 in totals.values() and not allow_single_class):
        raise DataError(
            f"volume {volume_id}: got {totals[BACKGROUND]} background and {totals[SURFACE]} surface voxels at "
            f"margin {margin} of {label.size} voxels; accepted: at least one of each to sample from"
        )
    parts = []
    for cls, wanted in _shares(n, totals[BACKGROUND], totals[SURFACE]).items():
        generator = _generator(seed, volume_id, draw, cls)
        ranks = _ranks(generator, wanted, totals[cls])
        parts.append(_locate(inner, cls, ranks, available[cls], label.shape, margin))
    return np.sort(np.concatenate(parts))


@dataclass(frozen=True)
class Coverage:
    """How much of the discovered pairs went into the training sample (R16, R40).

    Attributes
    ----------
    pair_count_discovered, pair_count_selected_for_training : int
    train_pair_coverage_pct_effective : float
        In percent, 0 to 100.
    n_voxels : int
        Voxels sampled, all volumes together.
    missing : tuple of str
        Ids of discovered pairs without a single sampled voxel, sorted.
    """

    pair_count_discovered: int
    pair_count_selected_for_training: int
    train_pair_coverage_pct_effective: float
    n_voxels: int
    missing: tuple[str, ...]


def coverage(discovered: Iterable[str], sampled: Mapping[str, int]) -> Coverage:
    """Compare the discovered pairs with what was sampled.

    Parameters
    ----------
    discovered : iterable of str
        Ids of all discovered pairs.
    sampled : mapping of str to int
        Voxels drawn from each volume.

    Returns
    -------
    Coverage

    Raises
    ------
    ArgumentError
        `sampled` names a volume that was never discovered, or has a negative count.

    Examples
    --------
    >>> from vesu.data.sampling import coverage
    >>> coverage(["a", "b"], {"a": 40_000})
    Coverage(pair_count_discovered=2, pair_count_selected_for_training=1, train_pair_coverage_pct_effective=50.0,
    n_voxels=40000, missing=('b',))
    """
    ids = set(discovered)
    if strangers := sorted(set(sampled) - ids):
        raise ArgumentError(f"sampled: got {strangers[0]!r}; accepted: ids among the {len(ids)} discovered pairs")
    if any(count < 0 for count in sampled.values()):
        raise ArgumentError("sampled: got a negative count; accepted: 0 or more voxels for each volume")
    missing = tuple(sorted(volume_id for volume_id in ids if not sampled.get(volume_id)))
    selected = len(ids) - len(missing)
    percent = 100.0 * selected / len(ids) if ids else 0.0
    return Coverage(len(ids), selected, percent, sum(sampled.values()), missing)


def _check(label: NDArray[np.uint8], n: int, *, seed: int, volume_id: str, margin: int, draw: int) -> None:
    if not isinstance(label, np.ndarray) or label.dtype != np.uint8 or label.ndim != 3 or label.size == 0:
        got = f"{label.dtype} of shape {label.shape}" if isinstance(label, np.ndarray) else type(label).__name__
        raise ArgumentError(f"label: got {got}; accepted: a 3-D numpy array of uint8 with no axis of length 0")
    if not isinstance(volume_id, str) or not volume_id:
        raise ArgumentError(f"volume_id: got {volume_id!r}; accepted: a non-empty string")
    whole = {"n": (n, 1), "seed": (seed, 0), "margin": (margin, 0), "draw": (draw, 0)}
    for name, (value, least) in whole.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value < 2**63:
            raise ArgumentError(f"{name}: got {value!r}; accepted: an integer from {least} to 2^63 - 1")
    if 2 * margin >= min(label.shape):
        raise ArgumentError(f"margin: got {margin}; accepted: less than half of the shortest axis of {label.shape}")


def _slice_counts(inner: NDArray[np.uint8], cls: int) -> NDArray[np.int64]:
    return np.array([np.count_nonzero(plane == cls) for plane in inner], dtype=np.int64)


def _shares(n: int, n_background: int, n_surface: int) -> dict[int, int]:
    surface = min(n // 2, n_surface)
    background = min(n - surface, n_background)
    return {BACKGROUND: background, SURFACE: min(n - background, n_surface)}


def _generator(seed: int, volume_id: str, draw: int, cls: int) -> np.random.Philox:
    digest = _core.blake3_bytes(f"vesu.sampling.v1;{int(seed)};{volume_id}".encode())
    # The lowest counter word counts the generated numbers; the two upper ones keep the streams apart.
    return np.random.Philox(key=int(digest[:32], 16), counter=[0, 0, cls, int(draw)])


def _ranks(generator: np.random.Philox, k: int, total: int) -> NDArray[np.int64]:
    """`k` different numbers of ``range(total)``, each subset equally likely, sorted."""
    if k == total:
        return np.arange(total, dtype=np.int64)
    if 2 * k > total:
        keys = np.atleast_1d(generator.random_raw(total))
        return np.sort(np.argsort(keys, kind="stable")[:k])
    # Draw until k different ones have come, in the order of coming: the expected number of rounds is below two.
    drawn = np.empty(0, np.int64)
    while True:
        raw = np.atleast_1d(generator.random_raw(k))
        uniform = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
        drawn = np.concatenate([drawn, np.minimum(uniform * total, total - 1).astype(np.int64)])
        distinct, first_seen = np.unique(drawn, return_index=True)
        if distinct.size >= k:
            return np.sort(drawn[np.sort(first_seen)[:k]])


def _locate(
    inner: NDArray[np.uint8],
    cls: int,
    ranks: NDArray[np.int64],
    slice_counts: NDArray[np.int64],
    shape: tuple[int, ...],
    margin: int,
) -> NDArray[np.int64]:
    """Flat indices into the whole volume of the voxels of `cls` with these ranks (counted in C order)."""
    ends = np.cumsum(slice_counts)
    borders = np.searchsorted(ranks, np.concatenate([[0], ends]))
    found = []
    for z in np.flatnonzero(np.diff(borders)):
        local = ranks[borders[z] : borders[z + 1]] - (ends[z] - slice_counts[z])
        in_plane = np.flatnonzero(inner[z] == cls)[local]
        y, x = np.divmod(in_plane, inner.shape[2])
        found.append(((z + margin) * shape[1] + (y + margin)) * shape[2] + (x + margin))
    return np.concatenate(found) if found else np.empty(0, np.int64)
