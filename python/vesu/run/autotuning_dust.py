"""The smallest component that is kept, tuned after the calibration on the volumes that it was fitted on (R39)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vesu.autotune import (
    Bounds,
    Decision,
    DustEvidence,
    ParameterState,
    TunerState,
    judge_dust,
    propose_dust,
)
from vesu.config import RunConfig
from vesu.run.autotuning import record, rules_of, write_trace
from vesu.run.session import Session
from vesu.run.stages import AdjustLadder, Array, Arrays
from vesu.scoring import score
from vesu.segmentation import BETA, Dust, SegmentConfig, segment
from vesu.segmentation.confusion import confusion
from vesu.volume import connected_components

__all__ = ["dust_evidence", "dust_tuner"]

N_SIZES = 40
"""Sizes to try, evenly on a logarithmic scale over the bounds."""


def dust_tuner(session: Session) -> AdjustLadder | None:
    """What tunes the dust step of a fitted ladder; None where that is not asked for."""
    settings = session.config.auto_tune
    if not (settings.use and "dust_min_size" in settings.parameters):
        return None

    def adjust(ladder: SegmentConfig, probabilities: Arrays, labels: Arrays, spreads: Arrays) -> SegmentConfig:
        tuning = session.state.tuning
        assert tuning is not None  # the search is done
        decisions, tuned = _tuned(session.config, ladder, probabilities, labels, spreads, _last_epoch(session))
        made = len(TunerState.from_json(tuning.final or tuning.search).decisions)
        record(session.tell, decisions, made, None)
        session.state.tuning = replace(tuning, calibration=tuple(each.to_json() for each in decisions))
        write_trace(session)
        return tuned

    return adjust


def dust_evidence(
    masks: Mapping[str, Array], labels: Arrays, dust: Dust, sizes: Sequence[int], n_threads: int | None = None
) -> DustEvidence:
    """What the components of masks are, by their size.

    Parameters
    ----------
    masks : mapping of str to ndarray of uint8 0/1, each (z, y, x)
        As they come to the dust step, by volume id.
    labels : mapping of str to ndarray of uint8 0/1/2
        Of the same ids at least; 2 counts nowhere.
    dust : Dust
        Its connectivity, and whether it spares what touches a face.
    sizes : sequence of int
        Smallest sizes to try, ascending.
    n_threads : int, optional
        Threads; the result does not depend on it.
    """
    found = [_components(mask, labels[name], dust, n_threads) for name, mask in masks.items()]
    size, surface, background = (np.concatenate([each[i] for each in found]) for i in range(3))
    below = [size < least for least in sizes]
    false = background > surface
    counts = [confusion(mask, labels[name]) for name, mask in masks.items()]
    return DustEvidence(
        sizes=tuple(int(each) for each in sizes),
        components=tuple(int(each.sum()) for each in below),
        false_components=tuple(int((each & false).sum()) for each in below),
        true_voxels=tuple(int(surface[each].sum()) for each in below),
        false_voxels=tuple(int(background[each].sum()) for each in below),
        tp=sum(each.tp for each in counts),
        fp=sum(each.fp for each in counts),
        fn=sum(each.fn for each in counts),
        beta=BETA,
    )


def _tuned(
    config: RunConfig, ladder: SegmentConfig, probabilities: Arrays, labels: Arrays, spreads: Arrays, epoch: int
) -> tuple[list[Decision], SegmentConfig]:
    """Decide on one half of the volumes, judge on the other; the very same ladder where nothing came of it."""
    place = next((i for i, step in enumerate(ladder.steps) if isinstance(step, Dust)), None)
    if place is None:
        reason = "the ladder has no dust step"
        return [Decision("dust_min_size", epoch, "keep", 0, 0, reason, {}, "calibration")], ladder
    dust = ladder.steps[place]
    assert isinstance(dust, Dust)
    names = list(labels)
    decided_on, judged_on = names[::2], names[1::2] or names
    state = ParameterState(dust.min_voxels, Bounds(*config.auto_tune.dust_min_size))
    before = replace(ladder, steps=ladder.steps[:place])
    masks = {name: _mask(probabilities[name], before, spreads.get(name), config) for name in decided_on}
    evidence = dust_evidence(masks, labels, dust, _sizes(state), config.n_threads)

    def objective(each: SegmentConfig) -> float:
        measure = _measure(config)
        made = ((_mask(probabilities[name], each, spreads.get(name), config), labels[name]) for name in judged_on)
        return 1.0 - float(np.mean([measure(mask, label) for mask, label in made]))

    state, decision = propose_dust(state, evidence, epoch, objective(ladder))
    used = {"decided_on": decided_on, "judged_on": judged_on}
    decisions = [replace(decision, evidence={**decision.evidence, **used})]
    if not decision.changed:
        return decisions, ladder
    steps = (*ladder.steps[:place], replace(dust, min_voxels=int(state.value)), *ladder.steps[place + 1 :])
    tuned = replace(ladder, steps=steps)
    reached = objective(tuned)
    _, ended = judge_dust(state, epoch, reached, rules_of(config), {"objective": reached, **used})
    assert ended is not None
    return [*decisions, ended], ladder if ended.action == "rollback" else tuned


def _sizes(state: ParameterState) -> list[int]:
    """The sizes to try: over the bounds, and the one in force."""
    low, high = max(1.0, state.bounds.low), max(1.0, state.bounds.high)
    tried = {int(each) for each in np.geomspace(low, high, N_SIZES).round()}
    return sorted({*tried, int(state.bounds.low), int(state.value)})


def _components(
    mask: Array, label: Array, dust: Dust, n_threads: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each component that the dust step may remove: voxels, those of the surface, those of the background."""
    numbers, n = connected_components(mask, dust.connectivity, n_threads=n_threads)
    counted = [
        np.bincount(numbers[where].ravel(), minlength=n + 1)[1:] for where in (numbers > 0, label == 1, label == 0)
    ]
    if dust.spare_border:
        faces = [np.take(numbers, (0, -1), axis=axis) for axis in range(3)]
        spared = np.unique(np.concatenate([face.ravel() for face in faces]))
        counted = [np.delete(each, spared[spared > 0] - 1) for each in counted]
    return counted[0], counted[1], counted[2]


def _mask(probability: Array, ladder: SegmentConfig, spread: Array | None, config: RunConfig) -> Array:
    return segment(probability, ladder, uncertainty=spread, n_threads=config.n_threads).mask


def _measure(config: RunConfig) -> Callable[[Array, Array], float]:
    """What the calibration maximises."""
    metric = config.segment.calibration.metric
    if metric == "score":
        return lambda mask, label: score(mask, label, n_threads=config.n_threads).score
    return lambda mask, label: float(getattr(confusion(mask, label), metric))


def _last_epoch(session: Session) -> int:
    return 0 if session.state.search is None else session.state.search.epoch
