"""The policies and what guards them: bounds, rest, direction, rollback (R39)."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesu
from vesu.autotune import (
    EPOCH_POLICIES,
    Bounds,
    DustEvidence,
    EpochEvidence,
    ParameterState,
    Proposal,
    Trial,
    TunerState,
    TuningRules,
    convergence_patience,
    dust_min_size,
    judge_dust,
    meta_neurons,
    mutation_noise,
    propose_dust,
    tune_epoch,
)
from vesu.errors import ArgumentError, FormatError

HEALTHY = EpochEvidence(
    epoch=3,
    objective=0.30,
    previous=0.32,
    counted_best=0.30,
    stagnant_epochs=0,
    min_delta=1e-3,
    stagnation_epochs=2,
    candidates=135,
    diverged=0,
    rising=0.0,
    neurons=9,
    train_loss=0.40,
    fall=0.10,
    cross_entropy=0.41,
    until_convergence=True,
    patience=3,
    last=False,
)
STAGNATING = replace(HEALTHY, objective=0.30, previous=0.30, stagnant_epochs=2)
NOISE = ParameterState(0.05, Bounds(0.0125, 0.4))
PATIENCE = ParameterState(3, Bounds(1, 12))
NEURONS = ParameterState(9, Bounds(9, 27))


def state(**parameters):
    return TunerState(parameters)


def all_three():
    return state(mutation_noise=NOISE, convergence_patience=PATIENCE, meta_neurons=NEURONS)


# ---- policies


def test_noise_goes_up_on_stagnation_and_down_on_divergence():  # R39
    assert mutation_noise(NOISE, STAGNATING).value == 0.1
    assert mutation_noise(NOISE, replace(HEALTHY, diverged=1)).value == 0.025
    assert mutation_noise(NOISE, replace(HEALTHY, rising=0.5)).value == 0.025
    assert mutation_noise(NOISE, HEALTHY).value == 0.05
    # both: noise on a search that blows up makes it worse
    assert mutation_noise(NOISE, replace(STAGNATING, diverged=3)).value == 0.025
    off = replace(NOISE, value=0.0)  # switched off stays off, though its bounds begin above 0
    assert mutation_noise(off, STAGNATING).value == 0
    assert tune_epoch(state(mutation_noise=off), STAGNATING).decisions[0].action == "keep"


def test_patience_goes_up_when_slow_but_positive():  # R39
    slow = replace(HEALTHY, stagnant_epochs=3, counted_best=0.3006, objective=0.3, previous=0.3002)
    # 0.0002 an epoch: the sixth makes up the 0.001 that counts
    assert convergence_patience(PATIENCE, slow).value == 6
    assert convergence_patience(PATIENCE, replace(slow, stagnant_epochs=2)).value == 3  # it does not end yet
    assert convergence_patience(PATIENCE, replace(slow, objective=0.3006)).value == 3  # it does not fall
    assert convergence_patience(PATIENCE, replace(slow, previous=0.2999)).value == 3  # not any more
    assert convergence_patience(PATIENCE, replace(slow, previous=math.nan)).value == 3
    assert convergence_patience(PATIENCE, replace(slow, min_delta=0.1)).value == 3  # beyond the bound: not worth it
    assert convergence_patience(PATIENCE, replace(slow, until_convergence=False)).value == 3


def test_neurons_grow_on_under_capacity_alone():  # R39 R52
    under = replace(HEALTHY, stagnant_epochs=1, fall=0.001)
    assert meta_neurons(NEURONS, under).value == 12
    assert meta_neurons(NEURONS, replace(under, neurons=12)).value == 16
    assert meta_neurons(NEURONS, replace(under, stagnant_epochs=0)).value == 9
    assert meta_neurons(NEURONS, replace(under, fall=0.1)).value == 9  # still learning
    assert meta_neurons(NEURONS, replace(under, cross_entropy=0.6)).value == 9  # learned by heart
    assert meta_neurons(NEURONS, replace(under, fall=math.nan)).value == 9
    assert meta_neurons(NEURONS, replace(under, train_loss=0.0)).value == 9


DUST = DustEvidence(
    sizes=(0, 10, 100, 1000, 10_000),
    components=(0, 20, 25, 26, 30),
    false_components=(0, 20, 24, 24, 24),
    true_voxels=(0, 0, 90, 900, 9000),
    false_voxels=(0, 100, 1500, 1500, 1500),
    tp=20_000,
    fp=3000,
    fn=2000,
)


def test_dust_goes_where_the_components_are_false():  # R39
    now = ParameterState(0, Bounds(0, 100_000))
    assert dust_min_size(now, DUST).value == 100
    assert dust_min_size(replace(now, value=5000), DUST).value == 100  # down too
    assert dust_min_size(replace(now, bounds=Bounds(1000, 10_000)), DUST).value == 1000
    assert dust_min_size(replace(now, bounds=Bounds(3, 5)), DUST).value == 0  # nothing to try
    clean = replace(DUST, false_voxels=(0,) * 5, true_voxels=(0, 10, 90, 900, 9000))
    assert dust_min_size(now, clean).value == 0
    assert DUST.f_beta(0) == pytest.approx(1.25 * 20_000 / (1.25 * 20_000 + 0.25 * 2000 + 3000))


# ---- what guards them


def test_one_change_at_a_time_and_every_parameter_has_its_decision():  # R39
    under = replace(STAGNATING, fall=0.0)
    outcome = tune_epoch(all_three(), under)
    assert {each.parameter: each.action for each in outcome.decisions} == {
        "convergence_patience": "keep",
        "mutation_noise": "raise",
        "meta_neurons": "hold",
    }
    assert outcome.state.on_trial == "mutation_noise"
    assert outcome.decisions[2].reason.endswith("mutation_noise changes now: one at a time")
    assert all(each.evidence["stagnant_epochs"] == 2 for each in outcome.decisions)
    assert outcome.state.decisions == outcome.decisions and outcome.state.neurons == (9,)


def test_a_worse_objective_rolls_the_parameter_back_and_it_rests():  # R39
    rules = TuningRules(cooldown=2, tolerance=1e-3)
    tried = tune_epoch(state(mutation_noise=NOISE), STAGNATING, rules).state
    assert tried.parameters["mutation_noise"].trial == Trial(0.05, 0.30, 3)
    worse = replace(STAGNATING, epoch=4, objective=0.3011, previous=0.30, stagnant_epochs=3)
    outcome = tune_epoch(tried, worse, rules)
    assert outcome.rolled_back and [each.action for each in outcome.decisions] == ["rollback", "hold"]
    noise = outcome.state.parameters["mutation_noise"]
    assert (noise.value, noise.trial, noise.resting, noise.rollbacks) == (0.05, None, 4, 1)
    assert outcome.state.objectives == (0.30, 0.30)  # where the search stands now
    for epoch in range(5, 8):  # it rests
        outcome = tune_epoch(outcome.state, replace(STAGNATING, epoch=epoch), rules)
        assert outcome.decisions[-1].action == "hold" and "rests" in outcome.decisions[-1].reason
    assert tune_epoch(outcome.state, replace(STAGNATING, epoch=8), rules).decisions[-1].action == "raise"


def test_within_the_tolerance_a_change_is_kept():  # R39
    rules = TuningRules(tolerance=1e-3)
    tried = tune_epoch(state(mutation_noise=NOISE), STAGNATING, rules).state
    outcome = tune_epoch(tried, replace(STAGNATING, epoch=4, objective=0.3009), rules)
    assert [each.action for each in outcome.decisions] == ["accept", "hold"] and not outcome.rolled_back
    assert outcome.state.parameters["mutation_noise"].value == 0.1
    assert tune_epoch(tried, replace(STAGNATING, epoch=4, objective=math.nan), rules).rolled_back


def test_rollbacks_in_a_row_double_the_rest():  # R39
    assert [TuningRules(cooldown=3).rest(n) for n in range(4)] == [3, 6, 12, 24]


def test_a_parameter_turns_round_only_when_asked_twice():  # R39: flapping
    up = replace(NOISE, direction=1)
    once = tune_epoch(state(mutation_noise=up), replace(HEALTHY, diverged=1))
    assert once.decisions[0].action == "hold" and "once more" in once.decisions[0].reason
    twice = tune_epoch(once.state, replace(HEALTHY, diverged=1, epoch=4))
    assert twice.decisions[0].action == "lower"
    calm = tune_epoch(once.state, replace(HEALTHY, epoch=4))  # a word of something else in between
    assert tune_epoch(calm.state, replace(HEALTHY, diverged=1, epoch=5)).decisions[0].action == "hold"


def test_bounds_hold_and_integers_stay_integers():  # R39
    high = tune_epoch(state(mutation_noise=replace(NOISE, value=0.3)), STAGNATING)
    assert high.state.parameters["mutation_noise"].value == 0.4
    top = tune_epoch(state(mutation_noise=replace(NOISE, value=0.4)), STAGNATING)
    assert top.decisions[0].action == "keep" and "at its bound" in top.decisions[0].reason
    grown = tune_epoch(state(meta_neurons=replace(NEURONS, bounds=Bounds(9, 11))), replace(STAGNATING, fall=0.0))
    assert grown.state.parameters["meta_neurons"].value == 11


def test_the_grid_never_shrinks():  # R50 R52
    tried = tune_epoch(state(meta_neurons=NEURONS), replace(STAGNATING, fall=0.0)).state
    worse = replace(STAGNATING, epoch=4, objective=0.4, neurons=12)
    outcome = tune_epoch(tried, worse)
    assert outcome.rolled_back and outcome.state.parameters["meta_neurons"].value == 12
    shrinking = {"meta_neurons": lambda *_: Proposal(3, "fewer")}
    assert tune_epoch(state(meta_neurons=NEURONS), HEALTHY, policies=shrinking).decisions[0].after == 9
    # grown by meta_neurons_growth, beyond the bound even: what is there is there
    beyond = tune_epoch(state(meta_neurons=NEURONS), replace(HEALTHY, neurons=30))
    assert beyond.state.parameters["meta_neurons"].value == 30


def test_nothing_changes_when_no_epoch_follows_or_the_search_ends():  # R39 R54
    last = tune_epoch(all_three(), replace(STAGNATING, last=True))
    ends = tune_epoch(all_three(), replace(STAGNATING, stagnant_epochs=3))
    untuned = tune_epoch(state(mutation_noise=NOISE), replace(STAGNATING, stagnant_epochs=3))
    for outcome, words in ((last, "no epoch follows"), (ends, "the search ends here"), (untuned, "the search ends")):
        noise = next(each for each in outcome.decisions if each.parameter == "mutation_noise")
        assert noise.action == "hold" and words in noise.reason
    # and patience has its word first
    slow = replace(STAGNATING, stagnant_epochs=3, counted_best=0.3006, objective=0.3, previous=0.3002)
    assert tune_epoch(all_three(), slow).decisions[0].action == "raise"


@pytest.mark.parametrize("answer", [Proposal(math.nan, ""), Proposal(math.inf, ""), None, Proposal(True, ""), 7.0])
def test_a_policy_that_gives_no_number_changes_nothing(answer):  # R39, bad input
    outcome = tune_epoch(state(mutation_noise=NOISE), STAGNATING, policies={"mutation_noise": lambda *_: answer})
    (decision,) = outcome.decisions
    assert (decision.action, decision.before, decision.after) == ("refuse", 0.05, 0.05)
    assert outcome.state.parameters["mutation_noise"] == NOISE


@pytest.mark.parametrize("low, high", [(2, 1), (math.nan, 1), (0, math.inf), (-1, 1)])
def test_bounds_that_cross_are_refused(low, high):  # R39, bad input
    with pytest.raises(ArgumentError, match=r"bounds: got .* accepted: finite, 0 <= low <= high"):
        Bounds(low, high)


@pytest.mark.parametrize(
    "setting, words",
    [
        ("mutation_noise=[0.4,0.1]", "auto_tune.mutation_noise: got"),
        ("dust_min_size=[1]", "auto_tune.dust_min_size: got"),
        ("convergence_patience=[0,4]", "a low bound of 1 or more"),
        ("meta_neurons=[9,99999999999]", "auto_tune.meta_neurons"),
        ("parameters=['noise']", "auto_tune.parameters"),
        ("parameters=[]", "auto_tune.parameters: got"),
        ("parameters=['meta_neurons','meta_neurons']", "each once"),
        ("cooldown=-1", "auto_tune.cooldown"),
        ("tolerance=-0.1", "auto_tune.tolerance"),
        ("nothing=1", "auto_tune.nothing"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting, words):  # R39, bad input
    with pytest.raises(ArgumentError, match=words.replace(".", r"\.").replace("[", r"\[")):
        vesu.load_config(overrides=[f"auto_tune.{setting}"], environment={})


@pytest.mark.parametrize(
    "setting",
    ["search.patience=13", "search.meta_neurons=28", "search.mutation_noise=0.5", "segment.dust.min_voxels=100001"],
)
def test_a_start_outside_its_bounds_is_refused_where_it_is_tuned(setting):  # R39, bad input
    key, name = setting.split("=")[0], setting.split("=")[0].split(".")[1]
    with pytest.raises(ArgumentError, match=rf"{key}: got .* bounds of auto_tune\."):
        vesu.load_config(overrides=[setting, "auto_tune.use=true"], environment={})
    vesu.load_config(overrides=[setting], environment={})
    others = [each for each in ("mutation_noise", "convergence_patience") if name not in each]
    vesu.load_config(overrides=[setting, "auto_tune.use=true", f"auto_tune.parameters={others[:1]}"], environment={})
    off = vesu.load_config(overrides=["search.mutation_noise=0", "auto_tune.use=true"], environment={})
    assert off.search.mutation_noise == 0


def test_dust_is_judged_and_goes_back():  # R39
    start = ParameterState(0, Bounds(0, 100_000))
    tried, decision = propose_dust(start, DUST, 2, 0.2)
    assert (decision.action, decision.stage, tried.value) == ("raise", "calibration", 100)
    rules = TuningRules()
    back, ended = judge_dust(tried, 2, 0.21, rules, {})
    assert (ended.action, ended.before, ended.after, back.value, back.trial) == ("rollback", 100, 0, 0, None)
    kept, ended = judge_dust(tried, 2, 0.2, rules, {})
    assert (ended.action, kept.value) == ("accept", 100)
    assert judge_dust(start, 2, 0.1, rules, {})[1] is None


numbers = st.floats(0, 1) | st.just(math.nan) | st.just(math.inf)
evidences = st.builds(
    EpochEvidence,
    epoch=st.integers(0, 50),
    objective=numbers,
    previous=numbers,
    counted_best=numbers,
    stagnant_epochs=st.integers(0, 20),
    min_delta=st.floats(0, 0.1),
    stagnation_epochs=st.integers(1, 3),
    candidates=st.just(135),
    diverged=st.integers(0, 3),
    rising=st.floats(0, 1),
    neurons=st.just(9),
    train_loss=numbers,
    fall=numbers,
    cross_entropy=numbers,
    until_convergence=st.booleans(),
    patience=st.just(3),
    last=st.booleans(),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(evidences, min_size=1, max_size=6))
def test_whatever_happens_bounds_hold_and_the_state_survives_json(seen):  # R36 R37 R39 R52
    current = all_three()
    for evidence in seen:
        at = current.parameters["meta_neurons"].value
        outcome = tune_epoch(current, replace(evidence, neurons=at))
        stored = json.loads(json.dumps(outcome.state.to_json(), allow_nan=False))
        assert TunerState.from_json(stored) == outcome.state
        assert tune_epoch(current, replace(evidence, neurons=at)).state == outcome.state  # pure
        assert sum(each.action in ("raise", "lower") for each in outcome.decisions) <= 1
        for each in outcome.state.parameters.values():
            assert each.bounds.low <= each.value <= each.bounds.high
        assert outcome.state.parameters["meta_neurons"].value >= at
        current = outcome.state


def test_a_damaged_state_is_refused():  # R37
    for damage in ({}, {"parameters": []}, {**all_three().to_json(), "decisions": [{"x": 1}]}):
        with pytest.raises(FormatError, match="auto-tuning: a missing or misplaced entry"):
            TunerState.from_json(damage)


def test_the_policies_stand_in_the_order_in_which_they_act():
    assert list(EPOCH_POLICIES) == ["convergence_patience", "mutation_noise", "meta_neurons"]
