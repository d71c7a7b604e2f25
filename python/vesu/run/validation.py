"""What a run's masks are worth on labelled volumes: voxel scores, the competition's score, trivial baselines beside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vesu.scoring import ScoreReport, UnmatchedFeatures, score, unmatched_features
from vesu.scoring.report import DIMENSION_NAMES
from vesu.segmentation.confusion import confusion

__all__ = ["OnScored", "ScoredVolume", "brightest", "pooled_density", "scores", "validation_entry"]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ScoredVolume:
    """A labelled volume, the mask that was scored on it, and where its features have no partner."""

    volume_id: str
    image: Array
    mask: Array
    label: Array
    unmatched: UnmatchedFeatures


OnScored: TypeAlias = Callable[[ScoredVolume], None]


def validation_entry(
    masks: Mapping[str, Array],
    labels: Mapping[str, Array],
    images: Mapping[str, Array],
    *,
    n_threads: int | None = None,
    on_scored: OnScored | None = None,
) -> dict[str, Any]:
    """The validation entry of ``summary.json``: means over the volumes, and the competition's score volume by volume.

    Parameters
    ----------
    masks, labels, images : mapping of str to ndarray, each (z, y, x)
        By volume id; the labels' ids are the ones that are scored.
    n_threads : int, optional
        Threads; None takes all cores. Does not change the result.
    on_scored : callable, optional
        Gets each volume of `masks` with its unmatched features, which are looked for only then.

    Returns
    -------
    dict
        The masks' and the trivial baselines' scores alike, so that the rows compare.
    """
    density = pooled_density(list(labels.values()), list(labels.values()))
    baselines: dict[str, Callable[[str], Array]] = {
        "all_background": lambda name: np.zeros(labels[name].shape, np.uint8),
        "intensity_quantile": lambda name: brightest(images[name], density),
    }
    found = _scored(masks.__getitem__, labels, n_threads)
    if on_scored is not None:
        for name, label in labels.items():
            unmatched = unmatched_features(masks[name], label, n_threads=n_threads)
            on_scored(ScoredVolume(name, images[name], masks[name], label, unmatched))
    return {
        "volumes": list(labels),
        **found,
        "density_label": density,
        "density_mask": pooled_density([masks[name] for name in labels], list(labels.values())),
        "baselines": {name: _scored(mask_of, labels, n_threads) for name, mask_of in baselines.items()},
    }


def brightest(image: Array, density: float) -> NDArray[np.uint8]:
    """The trivial baseline: the brightest ``density`` share of the voxels is called surface."""
    mask: NDArray[np.uint8] = (image > np.quantile(image, 1 - density)).astype(np.uint8)
    return mask


def scores(mask: Array, label: Array) -> dict[str, float]:
    """Voxel scores of a mask against a label; label 2 counts nowhere."""
    found = confusion(mask, label)
    return {
        "f1": found.f1,
        "f_beta": found.f_beta,
        "iou": found.iou,
        "precision": found.precision,
        "recall": found.recall,
    }


def pooled_density(masks: Sequence[Array], labels: Sequence[Array]) -> float:
    """The share of surface among the labelled voxels of all volumes together."""
    surface = sum(int(((mask == 1) & (label != 2)).sum()) for mask, label in zip(masks, labels, strict=True))
    return surface / max(1, sum(int((label != 2).sum()) for label in labels))


def _scored(mask_of: Callable[[str], Array], labels: Mapping[str, Array], n_threads: int | None) -> dict[str, Any]:
    """Means over the volumes, as the leaderboard averages, and each volume's; one mask is made at a time."""
    rows, by_volume = [], []
    for name, label in labels.items():
        mask = mask_of(name)
        report = score(mask, label, n_threads=n_threads)
        rows.append({**scores(mask, label), "score": report.score, **report.terms})
        by_volume.append(_volume_entry(name, report))
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return {**means, "by_volume": by_volume}


def _volume_entry(volume_id: str, report: ScoreReport) -> dict[str, Any]:
    counts = {
        name: {"matched": each.matched, "predicted": each.predicted, "label": each.label}
        for name, each in zip(DIMENSION_NAMES, report.topology.dimensions, strict=True)
    }
    return {"volume_id": volume_id, "score": report.score, **report.terms, **counts}
