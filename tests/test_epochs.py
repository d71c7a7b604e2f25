"""Epochs, evolution and growth: against plain NumPy, and every decision followed from its event."""

import math

import numpy as np
import pytest

import reference_prox as reference
from test_grid_search import data
from vesu import _core
from vesu.errors import ArgumentError
from vesu.grid_search import ElasticNetLogisticGrid, EpochSettings
from vesu.grid_search.evolution import unit_noise

METHODS = ("ista", "fista", "prox_newton")
SMALL = {"meta_neurons": 3, "l1": (1e-3, 1e-2), "l2": (1e-3,)}


def draw(epoch):
    return data(600, 3, seed=epoch)


def validation(seed=99):
    x, y, g = data(500, 3, seed=seed)
    return {"X_val": x, "y_val": y, "gradient_val": g}


def followed(settings, method="ista", draw=draw, **options):
    """A finished search, its events and its records."""
    events, records = [], []
    grid = ElasticNetLogisticGrid(**{**SMALL, "max_iter": 10, "solver": method, **options})
    grid.fit_epochs(
        draw, settings, **validation(), on_iteration=records.append, on_event=lambda *event: events.append(event)
    )
    return grid, events, records


def of(events, *names):
    return [fields for name, fields in events if name in names]


# ---- epochs


@pytest.mark.parametrize("with_gradient", [True, False])
def test_epochs_match_float64(with_gradient):
    # R14: own state, the first epoch's standardisation, bootstrap weights by position in the new draw
    options = {"meta_neurons": 2, "l1": (1e-3, 1e-2), "l2": (1e-3,), "max_iter": 15, "learning_rate": 0.05}
    grid = ElasticNetLogisticGrid(**options)
    first_x, _, first_g = draw(0)
    _, mean, scale = reference.design(first_x, first_g)
    weights = [
        (reference.initial_coefficients(0, neuron, 9 if with_gradient else 6, 0.01), 0.0) for neuron in (0, 0, 1, 1)
    ]
    for epoch in range(3):
        x, y, g = draw(epoch)
        grid.partial_fit(x, y, g if with_gradient else None)
        standard = (x.astype(np.float64) - mean) / scale
        rows = np.concatenate([standard, standard**2] + ([g / scale] if with_gradient else []), axis=1)
        for candidate, (t, b) in enumerate(weights):
            v, l1 = reference.bootstrap_weights(0, candidate // 2, len(y)), options["l1"][candidate % 2]
            for _ in range(15):
                residual = v * (1 / (1 + np.exp(-(rows @ t + b))) - y)
                step = t - 0.05 * (rows.T @ residual / len(y) + 1e-3 * t)
                t, b = np.sign(step) * np.maximum(np.abs(step) - 0.05 * l1, 0), b - 0.05 * residual.mean()
            weights[candidate] = t, b
        np.testing.assert_allclose(grid.coef_, [t for t, _ in weights], atol=2e-6)
        np.testing.assert_allclose(grid.intercept_, [b for _, b in weights], atol=2e-6)
        assert (grid.n_epochs_, grid.n_iter_) == (epoch + 1, 15)


@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_number_of_epochs_without_evolution_is_partial_fit_after_partial_fit(method):
    # R14
    plain = EpochSettings(epochs=3, adapt_learning_rate=False, mutation_noise=0, prune_quantile=0)
    grid, events, records = followed(plain, method)
    other = ElasticNetLogisticGrid(**SMALL, max_iter=10, solver=method)
    for epoch in range(3):
        other.partial_fit(*draw(epoch), **validation())
    assert other.coef_.tobytes() == grid.coef_.tobytes()
    assert other.leaderboard_.tobytes() == grid.leaderboard_.tobytes()
    assert [fields["epoch"] for fields in of(events, "EPOCH_START")] == [0, 1, 2] == sorted({r.epoch for r in records})
    assert of(events, "EPOCHS_DONE") == [{"epochs": 3, "reason": "as many epochs as asked for"}]
    assert of(events, "EPOCH_END")[-1]["best_objective"] == grid.leaderboard_["objective"][0]
    assert grid.selection_data_ == "validation" and of(events, "EPOCH_END")[0]["judged_on"] == "validation"


def test_one_epoch_is_the_plain_fit():
    # R14: runs stay as they are
    grid, events, _ = followed(EpochSettings())
    fit = ElasticNetLogisticGrid(**SMALL, max_iter=10).fit(*draw(0), **validation())
    assert grid.coef_.tobytes() == fit.coef_.tobytes() and grid.leaderboard_.tobytes() == fit.leaderboard_.tobytes()
    assert [name for name, _ in events] == ["EPOCH_START", "EPOCH_END", "EPOCHS_DONE"]


def test_later_epochs_improve_the_objective():
    # R14: 120 iterations more on fresh draws go on where the first stopped
    grid, events, _ = followed(EpochSettings(epochs=4), max_iter=30)
    objectives = [fields["best_objective"] for fields in of(events, "EPOCH_END")]
    assert objectives[-1] < objectives[0] - 0.01
    assert not of(events, "RESTART") and not grid.diverged_.any()


def test_until_convergence_with_patience():
    # R14
    settings = EpochSettings(epochs=0, patience=2, min_delta=0.02, max_epochs=30, mutation_noise=0)
    _, events, _ = followed(settings)
    ends = of(events, "EPOCH_END")
    best, stagnant = math.inf, 0
    for end in ends:
        better = end["best_objective"] < best - 0.02
        best, stagnant = (end["best_objective"], 0) if better else (best, stagnant + 1)
        assert end["epochs_without_improvement"] == stagnant
        assert (stagnant >= 2) == (end is ends[-1])
    assert 3 <= len(ends) < 30
    assert of(events, "EPOCHS_DONE")[0] == {"epochs": len(ends), "reason": "no better objective for 2 epochs"}


def test_the_cap_of_a_search_until_convergence():
    # R14
    _, events, _ = followed(EpochSettings(epochs=0, min_delta=0.0, patience=99, max_epochs=3))
    assert of(events, "EPOCHS_DONE") == [{"epochs": 3, "reason": "the cap of 3 epochs"}]


def test_fista_starts_each_epoch_without_momentum():
    # the same samples again: an epoch of fista begins like a fresh solver at the point reached
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=10, solver="fista").partial_fit(*draw(0))
    problem, state = grid.search_.problem, grid.search_.state
    solver = problem.solver(3)
    solver.set_state({**solver.state(), "params": state["params"]})
    for _ in range(10):
        solver.step(*draw(1))
    assert (
        grid.partial_fit(*draw(1)).coef_.tobytes() == np.ascontiguousarray(solver.state()["params"][:, :-1]).tobytes()
    )


def test_prox_newton_is_certified_on_each_epochs_samples():
    # R14: a certificate of the first draw proves nothing about the second
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=100, solver="prox_newton")
    records = []
    for epoch in range(2):
        grid.partial_fit(*draw(epoch), on_iteration=records.append)
        assert (grid.gap_ <= 1e-6).all() and grid.n_iter_ < 100
        np.testing.assert_allclose(grid.optimality_gap(*draw(epoch)), grid.gap_, rtol=1e-6, atol=1e-12)
    assert (grid.optimality_gap(*draw(0)) > 1e-4).all()
    assert {record.epoch for record in records} == {0, 1}


def test_the_gap_bounds_what_is_left():
    # deliverable 3: any solver, and nothing claimed where nothing was certified
    samples = data(2000, 4)
    ista = ElasticNetLogisticGrid(**SMALL).fit(*samples)
    newton = ElasticNetLogisticGrid(**SMALL, solver="prox_newton", tol=1e-8).fit(*samples)
    assert np.isnan(ista.gap_).all() and (newton.gap_ <= 1e-8).all()
    objective = {grid: grid.search_.solver().certify(*samples)[0] for grid in (ista, newton)}
    left = (objective[ista] - objective[newton]) / objective[ista]
    assert (left <= ista.optimality_gap(*samples) * (1 + 1e-6)).all() and (left > 1e-4).any()


def test_partial_fit_refuses_other_data():
    x, y, g = draw(0)
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=2).partial_fit(x, y, g, classes=[0, 1])
    for samples, message in [
        ((x[:, :2], y, g[:, :2]), "X has 2 features, but .* is expecting 3"),
        ((x, y, None), "gradient: got None; accepted: as in the fit"),
        ((x, y + 1, g), r"y: got classes 1, 2; accepted: \[0, 1\]"),
    ]:
        kept = grid.coef_
        with pytest.raises(ArgumentError, match=message):
            grid.partial_fit(*samples)
        assert grid.coef_ is kept and grid.n_epochs_ == 1
    with pytest.raises(ArgumentError, match="classes: got 3 class"):
        ElasticNetLogisticGrid().partial_fit(x, y, g, classes=[0, 1, 2])


def test_a_first_part_of_one_class():
    x, _, _ = draw(0)
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=2).partial_fit(x, np.zeros(600), classes=[0, 1])
    grid.partial_fit(x, np.ones(600)).partial_fit(*draw(1)[:2])
    assert grid.classes_.tolist() == [0, 1] and grid.n_epochs_ == 3


# ---- evolution


def test_step_lengths_follow_the_objective():
    # R15: from a step beyond the bound, what rose is halved; what only fell grows, never beyond 1 / (L + l2)
    settings = EpochSettings(epochs=5, mutation_noise=0, prune_quantile=0)
    grid, events, records = followed(settings, learning_rate="auto", l2=(1e-3, 0.5))
    adapted = of(events, "LEARNING_RATE_ADAPTED")
    assert adapted and {fields["reason"] for fields in adapted} <= {"objective fell steadily", "objective rose"}
    losses = {e: np.array([r.loss for r in records if r.epoch == e]) for e in range(5)}
    bound = 1 / (grid.lipschitz_ + grid.candidates_["l2"])
    for fields in adapted:
        course = losses[fields["epoch"] - 1][:, fields["candidate"]]
        before, after = fields["before"], fields["after"]
        if fields["reason"] == "objective fell steadily":
            assert (np.diff(course) <= 1e-6 * course[:-1]).all() and before < after
            assert after == pytest.approx(min(before * 1.25, bound[fields["candidate"]]))
        else:
            assert course[-1] > course[0] and after == before / 2
    rates = grid.search_.state["learning_rate"]
    assert (rates <= bound).all() and (rates > grid.learning_rate_).any()


def test_a_users_own_step_is_never_exceeded():
    # R15
    grid, events, _ = followed(EpochSettings(epochs=3, mutation_noise=0, prune_quantile=0), learning_rate=0.8)
    rates = grid.search_.state["learning_rate"]
    assert 1 / grid.lipschitz_ < 0.8 and (rates <= 0.8).all()
    assert all(fields["after"] <= 0.8 for fields in of(events, "LEARNING_RATE_ADAPTED"))


def test_a_diverged_candidate_gets_another_start_with_half_the_step():
    # R15 R50: nothing leaves the grid
    settings = EpochSettings(epochs=2, mutation_noise=0, prune_quantile=0)
    grid, events, _ = followed(settings, l2=(1e-3, 100.0), learning_rate=0.025, init_scale=1.0, max_iter=40)
    ends = of(events, "EPOCH_END")
    assert ends[0]["diverged"] == 6 and ends[1]["diverged"] == 0 and not grid.diverged_.any()
    restarted = [fields for fields in of(events, "LEARNING_RATE_ADAPTED") if fields["restarted"]]
    assert [fields["candidate"] for fields in restarted] == [1, 3, 5, 7, 9, 11]
    assert all((f["before"], f["after"], f["reason"]) == (0.025, 0.0125, "diverged") for f in restarted)
    assert len(grid.leaderboard_) == 12


def test_newton_has_no_step_to_adapt():
    _, events, _ = followed(EpochSettings(epochs=3), "prox_newton")
    assert not of(events, "LEARNING_RATE_ADAPTED")


@pytest.mark.parametrize("method", METHODS)
def test_mutations_are_kept_only_when_they_are_no_worse(method):
    # R15: min_delta so large that everybody stagnates, noise so large that some mutations must fail
    settings = EpochSettings(epochs=4, stagnation_epochs=1, min_delta=0.3, mutation_noise=3.0, prune_quantile=0)
    grid, events, _ = followed(settings, method, max_iter=3)
    applied, judged = of(events, "MUTATION_APPLIED"), of(events, "MUTATION_KEPT", "MUTATION_ROLLED_BACK")
    key = [(fields["epoch"], fields["candidate"]) for fields in applied]
    assert key and key == [(fields["epoch"], fields["candidate"]) for fields in judged]
    for name, fields in events:
        if name.startswith("MUTATION_") and name != "MUTATION_APPLIED":
            assert (fields["objective"] <= fields["parent_objective"]) == (name == "MUTATION_KEPT")
    if method != "prox_newton":  # it reaches the optimum from anywhere
        assert of(events, "MUTATION_ROLLED_BACK")
    # After the decisions of an epoch nobody scores worse than the better of the two.
    final = {fields["candidate"]: fields for fields in judged if fields["epoch"] == 3}
    for row in grid.leaderboard_:
        if row["candidate"] in final:
            fields = final[row["candidate"]]
            assert row["objective"] == min(fields["objective"], fields["parent_objective"])


def test_a_rolled_back_candidate_stands_where_its_parent_stood():
    # R15
    settings = EpochSettings(epochs=3, stagnation_epochs=1, min_delta=9.0, mutation_noise=50.0, prune_quantile=0)
    params = {}

    def keep(record):
        params[record.epoch, record.iteration] = record.state()

    grid, events = ElasticNetLogisticGrid(**SMALL, max_iter=2), []
    grid.fit_epochs(draw, settings, **validation(), on_iteration=keep, on_event=lambda *event: events.append(event))
    back = [fields["candidate"] for fields in of(events, "MUTATION_ROLLED_BACK") if fields["epoch"] == 2]
    assert back
    for candidate in back:
        parent = params[2, 1].memory["parent"][candidate]
        np.testing.assert_array_equal(grid.coef_[candidate], parent[:-1])
        assert grid.intercept_[candidate] == parent[-1]


def test_noise_depends_on_seed_epoch_and_candidate_alone():
    # R15: counter-based, frozen for ever
    noise = unit_noise(7, 3, 5, 200_000)
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01 and np.abs(noise).max() <= math.sqrt(3)
    np.testing.assert_array_equal(noise[:50], unit_noise(7, 3, 5, 50))
    for other in ((8, 3, 5), (7, 4, 5), (7, 3, 6)):
        assert abs(np.corrcoef(noise, unit_noise(*other, 200_000))[0, 1]) < 0.02
    assert unit_noise(2**64 - 1, 0, 0, 1).shape == (1,)
    np.testing.assert_array_equal(
        unit_noise(0, 0, 0, 3),
        math.sqrt(12) * ((np.random.Philox(key=0).random_raw(3) >> np.uint64(11)) * 2.0**-53 - 0.5),
    )


@pytest.mark.parametrize(("quantile", "accepted"), [(0.05, True), (0.4, False), (0.99, False)])
def test_the_winner_is_pruned_only_where_that_does_not_worsen(quantile, accepted):
    # R15
    plain = {"mutation_noise": 0, "adapt_learning_rate": False}
    before, _, _ = followed(EpochSettings(epochs=2, prune_quantile=0, **plain))
    grid, events, _ = followed(EpochSettings(epochs=2, prune_quantile=quantile, **plain))
    ((name, fields),) = [event for event in events if event[0].startswith("WINNER_")]
    winner = before.best_index_
    assert fields["candidate"] == winner and fields["objective_before"] == before.leaderboard_["objective"][0]
    sizes = np.abs(before.coef_[winner])
    kept = sizes > np.quantile(sizes[sizes > 0], quantile, method="lower")
    assert (fields["nonzero_before"], fields["nonzero_after"]) == (np.count_nonzero(sizes), kept.sum())
    pruned = np.where(kept, before.coef_[winner], 0)
    assert accepted == (name == "WINNER_PRUNED") == (fields["objective_after"] <= fields["objective_before"])
    np.testing.assert_array_equal(grid.coef_[winner], pruned if accepted else before.coef_[winner])
    others = np.delete(np.arange(len(grid.coef_)), winner)
    np.testing.assert_array_equal(grid.coef_[others], before.coef_[others])
    row = grid.leaderboard_[grid.leaderboard_["candidate"] == winner][0]
    assert row["objective"] == fields["objective_after" if accepted else "objective_before"]
    assert row["n_nonzero"] == fields["nonzero_after" if accepted else "nonzero_before"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_events(method):
    # R15: bit for bit, on any number of threads
    settings = EpochSettings(epochs=3, stagnation_epochs=1, min_delta=0.05, meta_neurons_growth=1)
    runs = [followed(settings, method, n_threads=n) for n in (1, 2, 3)]
    for grid, events, _ in runs[1:]:
        assert events == runs[0][1]
        assert grid.coef_.tobytes() == runs[0][0].coef_.tobytes()
        assert grid.leaderboard_.tobytes() == runs[0][0].leaderboard_.tobytes()
    other, _, _ = followed(settings, method, seed=1)
    assert other.coef_.tobytes() != runs[0][0].coef_.tobytes()


# ---- growth


@pytest.mark.parametrize("method", METHODS)
def test_growth_keeps_the_old_candidates_and_adds_different_learners(method):
    # R12 R50 R52: the old ones go on as if nothing had grown
    options = {**SMALL, "max_iter": 8, "solver": method}
    grown = ElasticNetLogisticGrid(**options).partial_fit(*draw(0)).grow(5).partial_fit(*draw(1))
    plain = ElasticNetLogisticGrid(**options).partial_fit(*draw(0)).partial_fit(*draw(1))
    assert len(grown.coef_) == 10 and grown.meta_neurons_ == 5 and grown.meta_neurons == 3
    assert grown.coef_[:6].tobytes() == plain.coef_.tobytes()
    np.testing.assert_array_equal(grown.candidates_[:6], plain.candidates_)
    assert len(np.unique(grown.coef_, axis=0)) == 10
    if method == "ista":  # a new neuron is the learner that it would have been from the start
        alone = ElasticNetLogisticGrid(**{**options, "meta_neurons": 5}).fit(*draw(0))
        start = reference.initial_coefficients(0, 4, 9, 0.01)
        fresh = alone.search_.problem.solver(5).state()["params"][-1, :-1]
        np.testing.assert_allclose(fresh, start, rtol=1e-12)


def test_hundreds_of_candidates_are_ordinary():
    # R52: 24 neurons grow to 40, 360 candidates to 600
    grid = ElasticNetLogisticGrid(meta_neurons=24, max_iter=5)
    grid.fit_epochs(draw, EpochSettings(epochs=3, meta_neurons_growth=8), **validation())
    assert len(grid.leaderboard_) == 600 and grid.meta_neurons_ == 40
    assert set(grid.candidates_["neuron"]) == set(range(40)) and np.isfinite(grid.coef_).all()
    assert len(np.unique(grid.coef_, axis=0)) == 600


def test_a_grid_never_shrinks():
    # R50
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=2)
    with pytest.raises(ArgumentError, match=r"grow: .*not fitted"):
        grid.grow(5)
    grid.fit(*draw(0))
    with pytest.raises(ArgumentError, match="meta_neurons: got 2; accepted: 3 to"):
        grid.grow(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs: got -1"),
        ({"epochs": 1.5}, "epochs: got 1.5"),
        ({"patience": 0}, "patience: got 0"),
        ({"max_epochs": 0}, "max_epochs: got 0"),
        ({"min_delta": -1e-3}, "min_delta: got -0.001"),
        ({"min_delta": math.nan}, "min_delta: got nan"),
        ({"meta_neurons_growth": -1}, "meta_neurons_growth: got -1"),
        ({"mutation_noise": -0.1}, "mutation_noise: got -0.1"),
        ({"stagnation_epochs": 0}, "stagnation_epochs: got 0"),
        ({"prune_quantile": 1.0}, "prune_quantile: got 1.0"),
        ({"adapt_learning_rate": "yes"}, "adapt_learning_rate: got 'yes'"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ArgumentError, match=message):
        EpochSettings(**change)


def test_a_draw_that_fails_ends_the_search_and_leaves_nothing_half_done():
    def broken(epoch):
        if epoch == 1:
            raise OSError("gone")
        return draw(epoch)

    grid = ElasticNetLogisticGrid(**SMALL, max_iter=2)
    with pytest.raises(OSError, match="gone"):
        grid.fit_epochs(broken, EpochSettings(epochs=2))
    assert not hasattr(grid, "coef_")


# ---- devices


def test_a_fallback_is_an_event(monkeypatch):
    # R27: asked for whatever is there, and told what was taken
    monkeypatch.setattr("vesu.grid_search.solver.gpu_problem", lambda: "the GPU is on holiday")
    events = []
    grid = ElasticNetLogisticGrid(**SMALL, max_iter=2, device="auto")
    grid.fit(*draw(0), on_event=lambda *event: events.append(event))
    assert grid.device_ == "cpu"
    assert events == [("GPU_FALLBACK_DETECTED", {"asked": "auto", "used": "cpu", "reason": "the GPU is on holiday"})]
    with pytest.raises(ArgumentError, match="device: got 'cuda', but the GPU is on holiday"):
        ElasticNetLogisticGrid(**SMALL, device="cuda").fit(*draw(0))
    with pytest.raises(ArgumentError, match="device: got 'tpu'; accepted: one of cpu"):
        ElasticNetLogisticGrid(**SMALL, device="tpu").fit(*draw(0))
    assert ElasticNetLogisticGrid(**SMALL, max_iter=1).fit(*draw(0)).device_ == "cpu"


def test_newton_runs_on_the_cpu_alone(monkeypatch):
    # R27: told even where there is a GPU
    monkeypatch.setattr("vesu.grid_search.solver.gpu_problem", lambda: None)
    events, options = [], {**SMALL, "max_iter": 2, "solver": "prox_newton"}
    grid = ElasticNetLogisticGrid(**options, device="auto")
    grid.fit(*draw(0), on_event=lambda *event: events.append(event))
    assert grid.device_ == "cpu" and "runs on the CPU alone" in events[0][1]["reason"]
    with pytest.raises(ArgumentError, match="device: got 'cuda', but the solver 'prox_newton' runs on the CPU alone"):
        ElasticNetLogisticGrid(**options, device="cuda").fit(*draw(0))


def test_a_solver_that_is_not_there_is_named():
    with pytest.raises(ArgumentError, match="solver: got 'adam'; accepted: one of ista, fista, prox_newton"):
        ElasticNetLogisticGrid(solver="adam").fit(*draw(0))
    for tol in (0.0, 1.0, math.nan):
        with pytest.raises(ArgumentError, match="tol: got"):
            ElasticNetLogisticGrid(tol=tol).fit(*draw(0))
    assert _core.ProxSolver([0.0], [1.0], False, 1, [0.0], [0.0], 0.1, 0, 0.0).method == "ista"
