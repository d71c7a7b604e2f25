"""Tuned searches: each policy on the run it is for, rollback to the very state, every cut gives the same bits (R39)."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from vesu.autotune import EPOCH_POLICIES, Bounds, ParameterState, Proposal, TunerState, TuningRules
from vesu.errors import ArgumentError
from vesu.grid_search import ElasticNetLogisticGrid, EpochSettings, NextEpochs, Samples, SearchState
from vesu.run.autotuning import TunedEpochs

GRID = {"meta_neurons": 3, "l1": (1e-3, 1e-2), "l2": (1e-3,), "max_iter": 12}
BOUNDS = {"mutation_noise": (0.0125, 0.4), "convergence_patience": (1, 12), "meta_neurons": (3, 12)}


def linear(epoch, n=400, flip=0.0):
    """Samples that a plane divides, some labels wrong; a fresh draw each epoch."""
    rng = np.random.default_rng([7, epoch])
    x = rng.standard_normal((n, 3)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0.1) ^ (rng.random(n) < flip)
    return Samples(x, y.astype(np.uint8), np.abs(x))


def crossed(epoch):
    """Samples that no candidate can tell apart: the sign of a product (R12 has squares, but no products)."""
    samples = linear(epoch, 4000)
    return Samples(samples.x, (samples.x[:, 0] * samples.x[:, 1] > 0).astype(np.uint8), samples.gradient)


def tuned(settings, events=None, policies=None, tolerance=1e-4, **bounds):
    """What tunes a small grid; its events go into a list."""
    starts = {
        "mutation_noise": settings.mutation_noise,
        "convergence_patience": settings.patience,
        "meta_neurons": GRID["meta_neurons"],
    }
    parameters = {name: ParameterState(starts[name], Bounds(*(BOUNDS | bounds)[name])) for name in starts}
    emit = (lambda *_: None) if events is None else (lambda *event: events.append(event))
    rules = TuningRules(tolerance=tolerance)
    return TunedEpochs(
        settings, GRID["meta_neurons"], TunerState(parameters), rules, emit, policies=policies or EPOCH_POLICIES
    )


def fitted(tuner, draw=linear, state=None, on_iteration=None, events=None, **options):
    grid = ElasticNetLogisticGrid(**{**GRID, **options})
    return grid.fit_samples(
        draw,
        tuner.settings,
        validation=draw(99),
        on_iteration=on_iteration,
        on_event=None if events is None else lambda *event: events.append(event),
        on_epoch=tuner.on_epoch,
        state=state,
    )


def of(events, name):
    return [fields for event, fields in events if event == name]


def changes(events):
    return [(fields["parameter"], fields["action"]) for fields in of(events, "AUTO_TUNE_PARAM_UPDATE")]


# ---- what each policy is for


def test_a_stagnating_search_gets_more_noise():  # R39
    events = []
    settings = EpochSettings(epochs=0, min_delta=1e-3, patience=4, max_epochs=5, stagnation_epochs=1)
    tuner = tuned(settings, events, meta_neurons=(3, 3))
    fitted(tuner, lambda epoch: linear(epoch // 99, flip=0.2), max_iter=150, solver="fista", events=events)
    first = next(fields for fields in of(events, "AUTO_TUNE_PARAM_UPDATE") if fields["parameter"] == "mutation_noise")
    assert (first["action"], first["before"], first["after"]) == ("raise", 0.05, 0.1)
    at = first["epoch"]
    decision = of(events, "AUTO_TUNE_POLICY_DECISION")[first["number"]]
    assert decision["evidence"]["stagnant_epochs"] >= 1 and decision["reason"].startswith("no better objective")
    noise = {fields["epoch"]: fields["noise"] for fields in of(events, "MUTATION_APPLIED") if fields["candidate"] == 0}
    assert noise[at + 1] > 1.5 * noise.get(at, 0)  # it acts


def test_a_diverging_search_gets_less_noise():  # R39
    events = []
    settings = EpochSettings(epochs=3, mutation_noise=0.1)
    fitted(tuned(settings, events), learning_rate=0.08, l2=(1e-3, 100.0), events=events)  # 8 of 2 at the most
    first = of(events, "AUTO_TUNE_PARAM_UPDATE")[0]
    assert (first["parameter"], first["action"], first["after"]) == ("mutation_noise", "lower", 0.05)
    decision = of(events, "AUTO_TUNE_POLICY_DECISION")[first["number"]]
    evidence = decision["evidence"]
    assert evidence["diverged"] == 6 and evidence["candidates"] == 12
    assert decision["reason"].startswith("the search diverges")


def test_a_slow_but_positive_search_goes_on():  # R39
    settings = EpochSettings(epochs=0, min_delta=0.02, patience=2, max_epochs=8, mutation_noise=0)
    slow = {"learning_rate": 2e-4, "max_iter": 12}
    plain = ElasticNetLogisticGrid(**{**GRID, **slow}).fit_samples(linear, settings, validation=linear(99))
    events = []
    patient = fitted(tuned(settings, events, meta_neurons=(3, 3)), events=events, **slow)
    expanded = of(events, "CONVERGENCE_PATIENCE_EXPANDED")
    assert expanded[0]["before"] == 2 < expanded[0]["after"]
    assert "slow but positive" in expanded[0]["reason"]
    assert patient.n_epochs_ > plain.n_epochs_
    assert patient.leaderboard_["objective"][0] < plain.leaderboard_["objective"][0]


def test_a_search_without_the_capacity_grows():  # R39 R52
    events = []
    settings = EpochSettings(epochs=4, mutation_noise=0, min_delta=0.05)
    grid = fitted(tuned(settings, events), crossed, max_iter=40, events=events)
    assert ("meta_neurons", "raise") in changes(events)
    grown = of(events, "META_NEURONS_GROWN")
    assert grown[0]["before"] == 3 and grown[0]["after"] == 4 and grid.meta_neurons_ >= 4
    neurons = [fields["meta_neurons"] for fields in of(events, "EPOCH_START")]
    assert neurons == sorted(neurons)


def test_a_search_that_learns_by_heart_does_not_grow():  # R39
    events = []

    def few(epoch):
        return linear(0, 4000, flip=0.45) if epoch == 99 else linear(0, 24, flip=0.45)

    settings = EpochSettings(epochs=4, mutation_noise=0, min_delta=0.5)
    fitted(tuned(settings, events), few, max_iter=200, events=events, solver="fista")
    decisions = of(events, "AUTO_TUNE_POLICY_DECISION")
    reasons = [each["reason"] for each in decisions if each["parameter"] == "meta_neurons"]
    assert any(reason.startswith("over-fitting") for reason in reasons) and not of(events, "META_NEURONS_GROWN")


# ---- rollback


def worsening(epoch):
    """From epoch 2 on the labels are the wrong way round: whatever is learned there is worse."""
    samples = linear(epoch)
    return replace_labels(samples) if 2 <= epoch < 99 else samples


def replace_labels(samples):
    return Samples(samples.x, 1 - samples.y, samples.gradient)


def doubling(name, at):
    """A policy that wants twice of it at the end of one epoch."""
    return {name: lambda state, evidence: Proposal(state.value * (2 if evidence.epoch == at else 1), "once")}


@pytest.mark.parametrize("name", ["mutation_noise", "meta_neurons", "convergence_patience"])
def test_a_rollback_restores_the_identical_state(name):  # R39: bits
    settings, events, ends = EpochSettings(epochs=4, stagnation_epochs=9, min_delta=0.5, prune_quantile=0), [], []
    tuner = tuned(settings, events, doubling(name, 1))
    seen = tuner.on_epoch

    def on_epoch(end):
        following = seen(end)
        ends.append((end.state(), following.restore))
        return following

    tuner.on_epoch = on_epoch
    grid = fitted(tuner, worsening, events=events)
    assert changes(events) == [(name, "raise"), (name, "rollback")]
    decided, (_, restored) = ends[1][0], ends[2]
    for array in ("params", "learning_rate", "diverged"):
        assert restored.solver[array].tobytes() == decided.solver[array].tobytes()
        n = len(decided.solver[array])  # and the epoch before last ended somewhere else
    assert ends[2][0].solver["params"][:n].tobytes() != decided.solver["params"].tobytes()
    update = of(events, "AUTO_TUNE_PARAM_UPDATE")[1]
    decision = of(events, "AUTO_TUNE_POLICY_DECISION")[0]
    raised = next(each for each in of(events, "AUTO_TUNE_POLICY_DECISION") if each["action"] == "raise")
    assert update["restored_state"] == raised["evidence"]["state"] != decision["evidence"]["state"]
    if name == "meta_neurons":  # a grid never shrinks: the old ones go back, the new ones stay
        assert grid.meta_neurons_ == 6 and tuner.state.parameters[name].value == 6
    else:
        assert tuner.state.parameters[name].value == tuned(settings).state.parameters[name].value


def test_the_search_ends_where_the_rollback_took_it():  # R39: bits, and the leaderboard is of the restored state
    settings = EpochSettings(epochs=3, mutation_noise=0.05, stagnation_epochs=9, min_delta=0.5, prune_quantile=0)
    short = replace(settings, epochs=2)
    grid = fitted(tuned(settings, policies=doubling("mutation_noise", 1)), worsening)
    two = ElasticNetLogisticGrid(**GRID).fit_samples(worsening, short, validation=worsening(99))
    assert grid.coef_.tobytes() == two.coef_.tobytes() and grid.intercept_.tobytes() == two.intercept_.tobytes()
    assert grid.leaderboard_.tobytes() == two.leaderboard_.tobytes()


def test_what_was_remembered_of_each_candidate_goes_back_too():  # R39
    settings = EpochSettings(epochs=4, stagnation_epochs=9, min_delta=0.5, prune_quantile=0)
    states = {}

    def on_epoch(end):
        states[end.epoch] = end.state()
        return NextEpochs(end.settings, states[1] if end.epoch == 2 else None)

    seen = {}
    grid = ElasticNetLogisticGrid(**GRID)
    grid.fit_samples(
        worsening,
        settings,
        validation=worsening(99),
        on_epoch=on_epoch,
        on_iteration=lambda record: seen.setdefault(record.epoch, record.state()),
    )
    memory, before = seen[3].memory, states[1].memory
    assert memory["best"].tobytes() == before["best"].tobytes()
    assert memory["search_stagnant"][0] == before["search_stagnant"][0] + 1  # that epoch was spent


def test_settings_that_must_stay_are_refused():  # R39
    def on_epoch(end):
        return NextEpochs(replace(end.settings, min_delta=0.3))

    with pytest.raises(ArgumentError, match=r"on_epoch: got min_delta 0\.3; accepted: 0\.0001, which stays as it is"):
        ElasticNetLogisticGrid(**GRID).fit_samples(linear, EpochSettings(epochs=2), on_epoch=on_epoch)


# ---- nothing when off, the same bits when cut


def test_a_hook_that_changes_nothing_changes_no_bit():  # R32
    settings = EpochSettings(epochs=3, meta_neurons_growth=1)
    plain, hooked = [], []
    first = ElasticNetLogisticGrid(**GRID).fit_samples(linear, settings, on_event=lambda *event: plain.append(event))
    second = ElasticNetLogisticGrid(**GRID).fit_samples(
        linear, settings, on_event=lambda *event: hooked.append(event), on_epoch=lambda end: NextEpochs(end.settings)
    )
    assert plain == hooked and first.coef_.tobytes() == second.coef_.tobytes()
    assert first.leaderboard_.tobytes() == second.leaderboard_.tobytes()


def test_a_tuned_search_cut_at_any_iteration_has_the_same_bits_and_trace():  # R36 R37 R39
    settings = EpochSettings(epochs=0, min_delta=0.02, patience=4, max_epochs=7, stagnation_epochs=3)
    options = {"max_iter": 4, "learning_rate": 0.05}
    policies = EPOCH_POLICIES | doubling("mutation_noise", 1)
    kept = []
    tuner = tuned(settings, policies=policies)

    def keep(record):
        # What a checkpoint holds: the search and the tuning beside it, as bytes and JSON.
        buffers = [io.BytesIO(), io.BytesIO()]
        record.state().save(buffers[0])
        if tuner.before is not None:
            tuner.before.save(buffers[1])
        kept.append((json.dumps(tuner.state.to_json(), allow_nan=False), *(each.getvalue() for each in buffers)))

    whole = fitted(tuner, worsening, on_iteration=keep, **options)
    actions = {each.action for each in tuner.state.decisions}
    assert actions >= {"raise", "rollback"} and len(kept) >= 16  # there is something to get wrong
    for text, search, before in kept:
        again = tuned(settings, policies=policies)
        again.state = TunerState.from_json(json.loads(text))
        again.before = SearchState.load(io.BytesIO(before)) if before else None
        grid = fitted(again, worsening, state=SearchState.load(io.BytesIO(search)), **options)
        assert grid.coef_.tobytes() == whole.coef_.tobytes()
        assert grid.leaderboard_.tobytes() == whole.leaderboard_.tobytes()
        assert again.state == tuner.state


@pytest.mark.parametrize("answer", [math.nan, None])
def test_a_policy_that_gives_nan_leaves_the_search_as_it_is(answer):  # R39, bad input
    settings = EpochSettings(epochs=3)
    events = []
    broken = {"mutation_noise": lambda *_: Proposal(answer, "broken")}
    grid = fitted(tuned(settings, events, broken), events=events)
    plain = ElasticNetLogisticGrid(**GRID).fit_samples(linear, settings, validation=linear(99))
    assert grid.coef_.tobytes() == plain.coef_.tobytes()
    decisions = of(events, "AUTO_TUNE_POLICY_DECISION")
    assert [each["action"] for each in decisions] == ["refuse"] * 3 and not changes(events)
