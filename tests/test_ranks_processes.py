"""Processes that really share a search over gloo: the bits of one, and no hang when one of them fails (R11, R53)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rank_process
import vesu
from vesu.data.phantom import write_dataset
from vesu.errors import ArgumentError, DataError
from vesu.ledger import iter_events
from vesu.run.pipeline import RunResult
from vesu.run.ranks import TIMEOUT_VARIABLE, joined, require_divisible
from vesu.run.ranks_student import _Trainee

pytest.importorskip("torch", reason="processes meet by torch")

TESTS = Path(__file__).parent


def started(world: int, *command: str | Path, **more: str) -> list[subprocess.Popen[str]]:
    """Processes of one group, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    where |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ | where | more | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[list[str], str]]:
    """Lines of the standard output, and the standard error, of each; none may be left."""
    try:
        return [(out.splitlines(), err) for out, err in (process.communicate(timeout=300) for process in processes)]
    finally:
        for process in processes:
            process.kill()


def test_three_processes_search_the_bits_of_one_and_hear_of_each_others_end() -> None:
    processes = started(3, TESTS / "rank_process.py", **{TIMEOUT_VARIABLE: "4"})
    alone = rank_process.outcome(None)  # meanwhile
    (lines, errors), _, (served, _) = ended(processes)
    assert len(lines) == 6, errors
    assert lines[0] == lines[2] == alone
    assert lines[1] == "RankFailed: process 1 of 3: ValueError: no such luck"
    assert lines[3].startswith("RankFailed: process 1: gone, or no answer in 4 s")  # it died
    assert lines[4].startswith("RankFailed: process 2: gone, or no answer in 4 s")  # it sleeps
    assert float(lines[5]) < 60
    assert served[-1].startswith("RankFailed: process 0: gone, or no answer"), "who slept finds the first one gone"


def test_ctrl_c_ends_a_shared_run_which_then_goes_on_alone(
    finished: RunResult, dataset: Path, small_config: vesu.RunConfig, tmp_path: Path
) -> None:  # R37: a resume on another number of processes has the same bits
    out, settings = tmp_path / "run", tmp_path / "settings.toml"
    settings.write_text("sampling.voxels_per_volume = 1500\nsegment.dust.min_voxels = 30\n")
    processes = started(2, "-m", "vesu", "run", dataset, "--out", out, "--config", settings, "--quiet")
    log = out / "events.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and b'"TRAIN_ITERATION"' in log.read_bytes()):
        assert time.monotonic() < deadline and processes[0].poll() is None
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGINT)
    (_, errors), _ = ended(processes)
    assert "vesu: interrupted" in errors
    assert [process.returncode for process in processes] == [130, -signal.SIGINT]
    assert json.loads((out / "post_mortem.json").read_text())["cause"] == "stopped"
    result = vesu.resume(dataset, out, config=small_config, display="none")
    for name in ("model.npz", "leaderboard.json", "submission.zip"):
        assert (out / name).read_bytes() == (finished.folder / name).read_bytes(), name
    events = {event["event"]: event for event in iter_events(result.folder / "events.jsonl")}
    assert events["RANKS_JOINED"]["processes"] == 2 and "RESUME_EXACT_OK" in events


def test_a_shared_search_is_tuned_as_one(tmp_path: Path) -> None:  # R39 R53
    data = write_dataset(tmp_path / "set", n_train=4, n_test=1, shape=(24, 24, 24), seed=3)
    settings = ["sampling.voxels_per_volume=400", "sampling.validation_fraction=0.5", "segment.dust.min_voxels=30"]
    settings += ["search.learning_rate=2e-5", "search.supervised_epochs=4", "search.prune_quantile=0.0"]
    settings += ["search.min_delta=0.01", "search.stagnation_epochs=1", "search.mutation_noise=0.05"]
    settings += ["auto_tune.use=true"]
    alone = vesu.run(
        data, tmp_path / "one", config=vesu.load_config(overrides=settings, environment={}), display="none"
    )
    words = [word for setting in settings for word in ("--set", setting)]
    (_, errors), _ = ended(started(2, "-m", "vesu", "run", data, "--out", tmp_path / "two", "--quiet", *words))
    assert (tmp_path / "two" / "summary.json").exists(), errors
    for name in ("model.npz", "leaderboard.json", "submission.zip"):
        assert (tmp_path / "two" / name).read_bytes() == (alone.folder / name).read_bytes(), name
    paths = [tmp_path / name / "v3_autotune_trace.json" for name in ("one", "two")]
    ours, theirs = (json.loads(path.read_text()) | {"run_id": None} for path in paths)
    assert ours == theirs
    changed = {each["parameter"] for each in ours["decisions"] if each["before"] != each["after"]}
    assert {"mutation_noise"} <= changed, "the settings must make a policy act"


def test_what_processes_cannot_share_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for setting, message in (
        ("search.solver='prox_newton'", r"search\.solver: got 'prox_newton'; accepted: 'ista' or 'fista'"),
        ("search.device='cuda'", r"search\.device: got 'cuda'; accepted: 'cpu'"),
    ):
        config = vesu.load_config(overrides=[setting], environment={})
        with pytest.raises(ArgumentError, match=message), joined(config):
            pass
    with pytest.raises(ArgumentError, match=r"student\.accumulate: got 1; accepted: a multiple of the 2 processes"):
        require_divisible(2, vesu.RunConfig())
    monkeypatch.setenv(TIMEOUT_VARIABLE, "soon")
    with (
        pytest.raises(ArgumentError, match=f"{TIMEOUT_VARIABLE}: got 'soon'; accepted: seconds"),
        joined(vesu.RunConfig()),
    ):
        pass


@pytest.mark.parametrize("world", ["two", "", "0", "-1", "²"])
def test_a_number_of_processes_that_is_none_is_named(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(ArgumentError, match="WORLD_SIZE: got"), joined(vesu.RunConfig()):
        pass


def test_a_process_that_cannot_train_says_so_before_anyone_waits(tmp_path: Path) -> None:
    config, trainee = vesu.RunConfig(), _Trainee(vesu.RunConfig(), tmp_path / "cache")
    fields = {"config": json.loads(json.dumps(config.to_json())), "teachers": ["a"], "resume": [], "device": "cpu"}
    other = json.loads(json.dumps(vesu.load_config(overrides=["seed=5"], environment={}).to_json()))
    with pytest.raises(ArgumentError, match=r"config: got other settings than the first process' \(seed\)"):
        trainee.prepare(fields | {"config": other}, {})
    volume = tmp_path / "7.tif"
    vesu.write_volume(volume, np.zeros((4, 4, 4), np.uint8))
    entry = {
        "volume_id": "7",
        "image": str(volume),
        "label": str(volume),
        "ids": ["a" * 64, "b" * 64],
        "soft": "c" * 64,
    }
    with pytest.raises(DataError, match=r"7: the teachers' answer is not in .*cache: all processes must see one cache"):
        trainee.prepare(fields | {"train": [entry], "validation": []}, {})
