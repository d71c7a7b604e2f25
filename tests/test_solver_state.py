"""The solver's state, threads, bad input, Ctrl-C: the same for every method."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from solver_cases import L2, METHODS, bits, converge, make, run, samples
from vesu.errors import ArgumentError


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1500, 70_000])
def test_a_run_split_anywhere_gives_the_same_bits(method, n):
    # R37's ground
    data = samples(n, 3)
    options = {"l1": [1e-3, 1e-2], "l2": [1e-3]}
    whole = make(data, method, **options)
    states = [whole.state()]
    for _ in range(6):
        expected = run(whole, data, 1, 2)
        states.append(whole.state())
    for split in range(6):
        second = make(data, method, **options)
        second.set_state(states[split])
        assert bits(second.state()) == bits(states[split])
        stats = run(second, data, 6 - split, 3)
        assert [s.tobytes() for s in stats] == [s.tobytes() for s in expected]
        assert bits(second.state()) == bits(states[-1])


@pytest.mark.parametrize("method", METHODS)
def test_bits_do_not_depend_on_threads(method):
    data = samples(45_011, 4)
    runs = []
    for threads in (1, 2, 3, 8):
        solver = make(data, method, l1=[1e-3, 1e-2], l2=[1e-3])
        run(solver, data, 3, threads)
        certified = solver.certify(*data, threads)
        runs.append((bits(solver.state()), [array.tobytes() for array in certified]))
    assert all(other == runs[0] for other in runs[1:])


@pytest.mark.parametrize("method", METHODS)
def test_the_state_is_arrays_with_the_candidate_first(method):
    data = samples(300, 2)
    solver = make(data, method)
    state = solver.state()
    assert (state["iteration"], solver.iteration, solver.method) == (0, 0, method)
    arrays = {name: value for name, value in state.items() if name != "iteration"}
    assert {len(value) for value in arrays.values()} == {12}
    assert state["params"].shape == (12, 7) and state["learning_rate"].shape == (12,)
    assert {value.dtype.name for value in arrays.values()} <= {"float64", "bool"}
    assert np.isnan(state["start_loss"]).all() and solver.converged.shape == (12,)
    state["params"][:] = 9  # a copy: the solver keeps its own
    assert not (solver.state()["params"] == 9).any()


def test_each_candidate_has_its_own_learning_rate():
    # R15: adaptation writes it into the state
    data = samples(500, 2)
    solver, slow, fast = (make(data, "ista", rate=rate) for rate in (0.01, 0.01, 0.05))
    state = solver.state()
    state["learning_rate"][::2] = 0.05
    solver.set_state(state)
    for each in (solver, slow, fast):
        run(each, data, 5)
    params = solver.state()["params"]
    assert params[::2].tobytes() == fast.state()["params"][::2].tobytes()
    assert params[1::2].tobytes() == slow.state()["params"][1::2].tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_draw_of_samples_starts_from_the_own_state(method):
    # R14: start_loss NaN says that other samples follow
    first, second = samples(4000, 3, 1), samples(4000, 3, 2)
    solver = make(first, method)
    run(solver, first, 10)
    state = solver.state()
    state["start_loss"][:] = np.nan
    solver.set_state(state)
    loss, _, _ = run(solver, second, 1)
    assert (solver.state()["start_loss"] == loss).all()
    fresh = make(second, method)
    if method == "prox_newton":
        converge(solver, second)
        converge(fresh, second)
        assert solver.converged.all()
        # each was standardised by its own data; the objective it certifies is its own
        objective, gap = solver.certify(*second)
        assert (gap <= 1e-6 * objective).all()
    else:
        cold, _, _ = run(fresh, second, 1)
        assert (loss < cold).all()


def test_a_huge_step_is_marked_and_frozen():
    data = samples(500, 2)
    for method in ("ista", "fista"):
        solver = make(data, method, rate=1e6)
        run(solver, data, 30)
        state = solver.state()
        assert state["diverged"].all() and np.isfinite(state["params"]).all()
        before = state["params"].tobytes()
        run(solver, data, 1)
        assert solver.state()["params"].tobytes() == before


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_an_unknown_method_and_a_silly_tolerance_are_refused():
    data = samples(50, 2)
    with pytest.raises(ArgumentError, match=r"method: got \"newton\"; accepted: ista, fista, prox_newton"):
        make(data, "newton")
    for tol in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="tol"):
            make(data, "prox_newton", tol=tol)


@pytest.mark.parametrize(("method", "other"), [("ista", "fista"), ("fista", "prox_newton"), ("prox_newton", "ista")])
def test_a_state_of_another_method_is_refused(method, other):
    data = samples(50, 2)
    solver = make(data, method)
    before = bits(solver.state())
    with pytest.raises(ArgumentError, match="state: got"):
        solver.set_state(make(data, other).state())
    assert bits(solver.state()) == before


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("params", lambda v: np.full_like(v, np.nan)),
        ("params", lambda v: v[:, :-1]),
        ("params", lambda v: v[:-1]),
        ("params", lambda v: v.astype(np.float32)),
        ("params", lambda v: v.tolist()),
        ("previous", lambda v: np.full_like(v, np.inf)),
        ("momentum", lambda v: v - 1),
        ("learning_rate", lambda v: 0 * v),
        ("learning_rate", lambda v: np.full_like(v, np.nan)),
        ("learning_rate", lambda v: v[:, None]),
        ("start_loss", lambda v: np.full_like(v, -np.inf)),
        ("diverged", lambda v: v.astype(np.uint8)),
        ("iteration", lambda v: -1),
        ("iteration", lambda v: 1.5),
        ("iteration", lambda v: None),
    ],
)
def test_a_damaged_state_is_refused_by_name(field, change):
    data = samples(50, 2)
    solver = make(data, "fista")
    before = bits(solver.state())
    state = solver.state()
    state[field] = change(state[field])
    with pytest.raises(ArgumentError, match=field):
        solver.set_state(state)
    assert bits(solver.state()) == before


def test_a_candidate_that_blew_up_at_once_can_be_put_back():
    solver = make(samples(50, 2), "ista")
    state = solver.state()
    state["start_loss"][0], state["diverged"][0] = np.inf, True
    solver.set_state(state)
    assert bits(solver.state()) == bits(state)


def test_missing_and_unknown_entries_are_refused_by_name():
    solver = make(samples(50, 2), "prox_newton")
    for name in solver.state():
        state = solver.state()
        del state[name]
        with pytest.raises(ArgumentError, match=name):
            solver.set_state(state)
    with pytest.raises(ArgumentError, match="surprise"):
        solver.set_state({**solver.state(), "surprise": 1})
    for silly in (None, 3, [1, 2]):
        with pytest.raises(ArgumentError, match="state"):
            solver.set_state(silly)


@pytest.mark.parametrize("call", ["step", "certify"])
def test_ctrl_c_is_answered_within_half_a_second(call):
    data = samples(400_000, 16)
    l1 = np.geomspace(1e-4, 1e-2, 10).tolist()
    solver = make(data, "prox_newton", neurons=20, l1=l1, l2=L2)
    before = bits(solver.state())
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        getattr(solver, call)(*data)
    assert time.monotonic() - start < 0.3 + 0.5
    assert bits(solver.state()) == before
