"""A run in several sessions: the same bits, or a refusal that names what differs (R33, R36, R37)."""

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from conftest import SMALL
from cuts import Cut, result_of, snapshots
from kill_run import campaign
from vesu.errors import ArgumentError, DataError, EvidenceError, FileError, FormatError, ResumeIncompatible
from vesu.ledger import iter_events, verify
from vesu.run import learning, opening, rng
from vesu.run import session as session_module
from vesu.run.checkpoint import CheckpointStore
from vesu.run.clock import Clock
from vesu.run.interrupts import StopRequested
from vesu.run.pipeline import RunResult


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


@pytest.fixture(scope="module")
def mini() -> vesu.RunConfig:
    """Two epochs, so that the cuts lie in both, and between them."""
    return vesu.load_config(overrides=[*SMALL, "search.supervised_epochs=2", "seed=4"], environment={})


@pytest.fixture(scope="module")
def whole(
    dataset: Path, mini: vesu.RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, Path, list[Path]]:
    """An uninterrupted run, its cache, and copies of its folder at every checkpoint."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder, cache, cuts = (tmp_path_factory.mktemp(name) for name in ("whole", "cache", "cuts"))
        with snapshots(monkeypatch, cuts) as taken:
            result = vesu.run(dataset, folder / "run", config=mini, display="none", cache=cache)
        return result, cache, taken


def test_checkpoints_come_when_they_are_due(whole: tuple[RunResult, Path, list[Path]]) -> None:  # R36
    result, _, taken = whole
    written = events(result.folder, "CHECKPOINT_WRITTEN")
    assert len(written) == len(taken)
    fit = [(row["epoch"], row["iter"], row["kind"]) for row in written if row["phase"] == "fit" and row["iter"]]
    for epoch in (0, 1):
        assert [(epoch, i, "light") for i in range(10, 120, 10)] == [
            row for row in fit if row[0] == epoch and row[2] == "light"
        ]
        assert (epoch, 120, "full") in fit
    assert {row["phase"] for row in written if row["kind"] == "full"} >= {
        "discovery",
        "load",
        "fit",
        "segment",
        "package",
    }


def test_the_manifest_holds_what_the_contract_names(whole: tuple[RunResult, Path, list[Path]]) -> None:  # R36
    result, _, _ = whole
    newest = CheckpointStore(result.folder / "checkpoints").latest()
    assert newest is not None
    content = json.loads((newest.path / "ckpt_manifest.json").read_bytes())
    assert content.keys() >= {
        *("ts_ns", "run_id", "version", "git_sha", "epoch", "candidate_index", "candidate_total", "iter", "max_iter"),
        *("model_state", "optimizer_state", "rng_states", "distillation_state", "best_metrics", "data_cursor"),
        *("dataset_context", "merkle_prev", "merkle_curr", "sha512_payload"),
    }
    assert (content["candidate_index"], content["candidate_total"], content["max_iter"]) == (134, 135, 120)
    assert (
        content["data_cursor"]["volumes_segmented"] == ["3", "4"]
        or len(content["data_cursor"]["volumes_segmented"]) == 2
    )
    assert len(content["dataset_context"]["train"]) + len(content["dataset_context"]["validation"]) == 3
    assert len(content["compat"]) >= 20
    assert content["best_metrics"]["rank"] == 1


def test_a_run_cut_at_any_checkpoint_ends_with_the_same_bits(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    result, cache, taken = whole
    expected = result_of(result.folder)
    chosen = sorted({0, len(taken) - 1, *range(3, len(taken), 6)})
    for original in (taken[index] for index in chosen):
        cut = shutil.copytree(original, tmp_path / original.name)
        found = vesu.run(dataset, cut, config=mini, display="none", cache=cache, resume="latest")
        assert result_of(cut) == expected, cut.name
        assert found.finished and found.summary["run_id"] == result.summary["run_id"]
        (resumed,) = events(cut, "RESUME_EXACT_OK")
        assert int(resumed["source_ts_ns"]) < int(resumed["target_ts_ns"])
        report = verify(cut / "events.jsonl")  # one log over both sessions
        assert report.entries == found.summary["ledger"]["entries"]


def test_no_iteration_is_lost_or_done_twice(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37 R51
    result, cache, taken = whole
    cut = next(path for path in taken if path.name.endswith("fit-070"))
    folder = shutil.copytree(cut, tmp_path / "run")
    vesu.resume(dataset, folder, config=mini, display="none", cache=cache)
    rows = [(row["epoch"], row["iter"], row["candidate"]) for row in events(folder, "TRAIN_ITERATION")]
    assert len(rows) == len(set(rows)) == 2 * 120 * 135
    losses = {(r["epoch"], r["iter"], r["candidate"]): r["loss"] for r in events(folder, "TRAIN_ITERATION")}
    once = {(r["epoch"], r["iter"], r["candidate"]): r["loss"] for r in events(result.folder, "TRAIN_ITERATION")}
    assert losses == once


def test_a_damaged_newest_checkpoint_costs_one_interval(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R36 R37
    result, cache, taken = whole
    cut = next(path for path in taken if path.name.endswith("fit-050"))
    folder = shutil.copytree(cut, tmp_path / "run")
    newest = sorted((folder / "checkpoints").glob("ckpt-*"))[-1]
    state = newest / "search.npz"
    damaged = bytearray(state.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    state.write_bytes(damaged)
    vesu.run(dataset, folder, config=mini, display="none", cache=cache, resume="latest")
    (refused,) = events(folder, "CHECKPOINT_REFUSED")
    assert newest.name in refused["path"]
    (resumed,) = events(folder, "RESUME_EXACT_OK")
    assert resumed["iter"] == 40
    assert result_of(folder) == result_of(result.folder)


def test_other_masks_than_the_sealed_ones_are_made_again(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    result, cache, taken = whole
    folder = shutil.copytree(taken[-1], tmp_path / "run")
    first, second = sorted((folder / "masks").glob("*.tif"))
    first.write_bytes(second.read_bytes())
    vesu.run(dataset, folder, config=mini, display="none", cache=cache, resume="latest")
    assert result_of(folder) == result_of(result.folder)
    assert [row["volume_id"] for row in events(folder, "VOLUME_KEPT")] == [second.stem]


def test_a_checkpoint_goes_on_in_a_folder_of_its_own(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    result, _, taken = whole
    cut = next(path for path in taken if path.name.endswith("fit-090"))
    vesu.run(dataset, tmp_path / "new", config=mini, display="none", resume=cut)
    assert result_of(tmp_path / "new") == result_of(result.folder)
    assert events(tmp_path / "new", "LEDGER_CONTINUED_ELSEWHERE")


CHANGES = {
    "seed": "seed=5",
    "sampling.voxels_per_volume": "sampling.voxels_per_volume=1600",
    "sampling.validation_fraction": "sampling.validation_fraction=0.5",
    "sampling.margin": "sampling.margin=1",
    "sampling.max_train_volumes": "sampling.max_train_volumes=1",
    "sampling.max_val_volumes": "sampling.max_val_volumes=1",
    "features.scales": "features.scales=[1.0, 2.0]",
    "features.max_correlation": "features.max_correlation=0.9",
    "features.min_variance": "features.min_variance=1e-6",
    "features.top_k": "features.top_k=6",
    "search.meta_neurons": "search.meta_neurons=10",
    "search.l1": "search.l1=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]",
    "search.l2": "search.l2=[1e-4, 1e-3, 1e-2, 1e-1]",
    "search.max_iter": "search.max_iter=130",
    "search.learning_rate": "search.learning_rate=0.01",
    "search.class_weight": "search.class_weight='balanced'",
    "search.solver": "search.solver='fista'",
    "search.supervised_epochs": "search.supervised_epochs=3",
    "search.mutation_noise": "search.mutation_noise=0.1",
    "search.prune_quantile": "search.prune_quantile=0.2",
    "search.ensemble_size": "search.ensemble_size=5",
    "segment.dust.min_voxels": "segment.dust.min_voxels=31",
    "segment.calibration.metric": "segment.calibration.metric='f1'",
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_changes_the_result_is_refused_by_name(
    field: str, whole: tuple[RunResult, Path, list[Path]], dataset: Path, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    folder = shutil.copytree(next(path for path in taken if path.name.endswith("fit-020")), tmp_path / "run")
    overrides = [*SMALL, "search.supervised_epochs=2", "seed=4", CHANGES[field]]
    other = vesu.load_config(overrides=overrides, environment={})
    with pytest.raises(
        ResumeIncompatible, match=rf"^RESUME_INCOMPATIBLE: field {field}: checkpoint has .*this run has"
    ):
        vesu.run(dataset, folder, config=other, display="none", cache=cache, resume="latest")
    assert CheckpointStore(folder / "checkpoints").latest() is not None  # nothing was lost by the refusal


def test_other_data_is_refused(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    folder = shutil.copytree(next(path for path in taken if path.name.endswith("fit-020")), tmp_path / "run")
    data = shutil.copytree(dataset, tmp_path / "data")
    image = sorted((data / "train_images").glob("*.tif"))[0]
    changed = vesu.read_volume(image)
    changed[0, 0, 0] ^= 1
    vesu.write_volume(image, changed)
    with pytest.raises(ResumeIncompatible, match=r"RESUME_INCOMPATIBLE: field data\."):
        vesu.run(data, folder, config=mini, display="none", cache=cache, resume="latest")


def test_a_benign_change_is_no_reason_to_refuse(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    result, cache, taken = whole
    folder = shutil.copytree(next(path for path in taken if path.name.endswith("fit-110")), tmp_path / "run")
    other = dataclasses.replace(
        mini,
        n_threads=1,
        cache_gib=4.0,
        max_feature_gib=0.01,
        time=dataclasses.replace(mini.time, limit_s=20_000.0, margin_s=300.0),
        checkpoint=dataclasses.replace(mini.checkpoint, every_iterations=7, keep=2),
    )
    data = shutil.copytree(dataset, tmp_path / "moved")  # the same files elsewhere
    vesu.run(data, folder, config=other, display="none", cache=cache, resume="latest")
    assert result_of(folder) == result_of(result.folder)


def test_a_retrain_that_was_asked_for_does_what_depends_on_the_change(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    overrides = [*SMALL, "search.supervised_epochs=2", "seed=4", "segment.dust.min_voxels=300"]
    other = vesu.load_config(overrides=overrides, environment={})
    folder = shutil.copytree(taken[-1], tmp_path / "run")
    vesu.run(dataset, folder, config=other, display="none", cache=cache, resume="latest", retrain_changed=True)
    (said,) = events(folder, "RESUME_PARTIAL_RETRAIN")
    assert (said["scope"], said["fields"]) == ("segment", ["segment.dust.min_voxels"])
    fresh = vesu.run(dataset, tmp_path / "fresh", config=other, display="none", cache=cache)
    assert result_of(folder) == result_of(fresh.folder)


def test_an_unfinished_run_is_not_thrown_away(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    _, cache, taken = whole
    cut = next(path for path in taken if path.name.endswith("fit-030"))
    folder = shutil.copytree(cut, tmp_path / "run")
    with pytest.raises(DataError, match=r"holds an unfinished run \(phase fit, epoch 0, iteration 30 of 120\)"):
        vesu.run(dataset, folder, config=mini, display="none", cache=cache)
    assert (folder / "checkpoints").is_dir()
    vesu.run(dataset, folder, config=mini, display="none", cache=cache, restart=True)
    assert not events(folder, "RESUME_EXACT_OK")


def test_the_generators_go_on_where_they_stood(
    whole: tuple[RunResult, Path, list[Path]],
    dataset: Path,
    mini: vesu.RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # R36 R37
    _, cache, taken = whole
    folder = shutil.copytree(next(path for path in taken if path.name.endswith("fit-060")), tmp_path / "run")
    newest = CheckpointStore(folder / "checkpoints").latest()
    assert newest is not None
    rng.restore(json.loads(newest.read("rng.json")))
    expected = [random.random(), np.random.random()]  # noqa: NPY002  # the global generator
    found: list[float] = []

    def drawing(*args: Any, **kwargs: Any) -> Any:
        found.extend([random.random(), np.random.random()])  # noqa: NPY002
        raise Cut

    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    monkeypatch.setattr(learning, "prepare", drawing)
    with pytest.raises(Cut):
        vesu.run(dataset, folder, config=mini, display="none", cache=cache, resume="latest")
    assert found == expected


@pytest.mark.parametrize("change", [{"python": None}, {"numpy": {"kind": "MT19937"}}, {"python": {"version": 3}}])
def test_states_that_are_none_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="not the states of generators"):
        rng.restore(rng.capture() | change)


def test_a_disk_that_refuses_a_checkpoint_does_not_end_the_run(
    whole: tuple[RunResult, Path, list[Path]],
    dataset: Path,
    mini: vesu.RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # R36
    result, cache, _ = whole
    save, calls = CheckpointStore.save, []

    def refusing(self: CheckpointStore, *args: Any) -> Any:
        calls.append(args)
        if len(calls) % 3 == 0:
            raise FileError(errno.ENOSPC, "No space left on device", str(self.folder))
        return save(self, *args)

    monkeypatch.setattr(CheckpointStore, "save", refusing)
    vesu.run(dataset, tmp_path / "run", config=mini, display="none", cache=cache)
    assert len(events(tmp_path / "run", "CHECKPOINT_FAILED")) == len(calls) // 3 > 5
    assert result_of(tmp_path / "run") == result_of(result.folder)


def test_a_published_checkpoint_goes_on_where_the_folder_is_gone(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R36 R37
    result, cache, _ = whole
    checkpoint = dataclasses.replace(mini.checkpoint, publish=str(tmp_path / "model"))
    config = dataclasses.replace(mini, checkpoint=checkpoint)
    vesu.run(dataset, tmp_path / "first", config=config, display="none", cache=cache)
    assert events(tmp_path / "first", "CHECKPOINT_PUBLISHED")
    vesu.run(dataset, tmp_path / "second", config=config, display="none", cache=cache, resume="latest")
    (source,) = [row for row in events(tmp_path / "second", "LATEST_VALID_CKPT") if row.get("source")]
    assert source["source"] == "model artefact"
    assert result_of(tmp_path / "second") == result_of(result.folder)
    shutil.copy(tmp_path / "first" / "results.zip", tmp_path / "kept.zip")
    vesu.run(dataset, tmp_path / "third", config=mini, display="none", cache=cache, resume=tmp_path / "kept.zip")
    assert result_of(tmp_path / "third") == result_of(result.folder)


def test_nothing_to_go_on_from_is_said(dataset: Path, mini: vesu.RunConfig, tmp_path: Path) -> None:  # R37
    with pytest.raises(ArgumentError, match="resume_from_checkpoint: got 'latest', and no valid checkpoint is there"):
        vesu.run(dataset, tmp_path / "run", config=mini, display="none", resume="latest")


def test_another_log_is_refused(
    whole: tuple[RunResult, Path, list[Path]], finished: RunResult, dataset: Path, mini: vesu.RunConfig, tmp_path: Path
) -> None:  # R37 R38
    _, cache, taken = whole
    folder = shutil.copytree(next(path for path in taken if path.name.endswith("fit-020")), tmp_path / "run")
    shutil.copy(finished.folder / "events.jsonl", folder / "events.jsonl")
    with pytest.raises(EvidenceError, match="does not begin with the tree that was durable"):
        vesu.run(dataset, folder, config=mini, display="none", cache=cache, resume="latest")


def test_the_tree_head_in_the_manifest_is_the_logs(whole: tuple[RunResult, Path, list[Path]]) -> None:  # R38
    result, _, _ = whole
    newest = CheckpointStore(result.folder / "checkpoints").latest()
    assert newest is not None
    head = vesu.ledger.parse_checkpoint(newest.manifest.tree_head)
    assert head.size == newest.manifest.merkle_size
    assert head.root == newest.manifest.merkle_curr == vesu.ledger.root_at(result.folder / "events.jsonl", head.size)


# ---- the end of the time, signals


def test_the_deadline_leaves_a_valid_zip_and_a_run_that_goes_on(
    whole: tuple[RunResult, Path, list[Path]],
    dataset: Path,
    mini: vesu.RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # R33 R36
    result, cache, _ = whole
    iterated = session_module.Session.iterated

    def out_of_time(self: session_module.Session, record: Any) -> None:
        iterated(self, record)
        if (record.epoch, record.iteration) == (1, 33):
            raise StopRequested("DEADLINE")

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(session_module.Session, "iterated", out_of_time)
        stopped = vesu.run(dataset, folder, config=mini, display="none", cache=cache)
    assert not stopped.finished and stopped.summary["status"] == "stopped"
    vesu.check_submission(folder / "submission.zip", dataset / "test_images")
    assert events(folder, "PRETIMEOUT_FLUSH") and events(folder, "RUNTIME_BUDGET_FINAL")
    (last,) = events(folder, "SAFE_SUBMISSION_WRITTEN")[-1:]
    assert last["origins"] == {"provisional": 2}  # the search as it stood
    newest = CheckpointStore(folder / "checkpoints").latest()
    assert newest is not None
    assert (newest.manifest.kind, newest.manifest.epoch, newest.manifest.iter) == ("pretimeout", 1, 33)
    vesu.run(dataset, folder, config=mini, display="none", cache=cache, resume="latest")
    assert result_of(folder) == result_of(result.folder)


def test_a_zip_is_there_before_the_search(dataset: Path, small_config: vesu.RunConfig, tmp_path: Path) -> None:  # R33
    def cut(*args: Any, **kwargs: Any) -> Any:
        raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "prepare", cut)
        with pytest.raises(Cut):
            vesu.run(dataset, tmp_path / "run", config=small_config, display="none")
    vesu.check_submission(tmp_path / "run" / "submission.zip", dataset / "test_images")
    origins = [event["origins"] for event in events(tmp_path / "run", "SAFE_SUBMISSION_WRITTEN")]
    assert origins == [{"empty": 2}, {"scorer": 2}]
    for mask in (tmp_path / "run" / "fallback").glob("*.tif"):
        assert np.any(vesu.read_volume(mask))


def test_the_zip_is_valid_at_every_checkpoint_after_preflight(
    whole: tuple[RunResult, Path, list[Path]], dataset: Path
) -> None:  # R33
    _, _, taken = whole
    later = [cut for cut in taken if "-discovery-" not in cut.name]
    assert len(later) > 20
    for cut in later:
        vesu.check_submission(cut / "submission.zip", dataset / "test_images")


class LateClock(Clock):
    """A clock on which every iteration of the search takes five seconds."""

    skipped_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + LateClock.skipped_s

    def ts_ns(self) -> int:
        return super().ts_ns() + int(1e9 * LateClock.skipped_s)


def test_nine_hours_end_with_a_valid_zip_and_go_on(
    whole: tuple[RunResult, Path, list[Path]],
    dataset: Path,
    mini: vesu.RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # R33 R36
    result, cache, _ = whole
    iterated, folder = session_module.Session.iterated, tmp_path / "run"
    checked = 0

    def slowly(self: session_module.Session, record: Any) -> None:
        nonlocal checked
        LateClock.skipped_s += 5.0
        vesu.check_submission(folder / "submission.zip", dataset / "test_images")  # a kill may come now
        checked += 1
        iterated(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "Clock", LateClock)
        patch.setattr(session_module.Session, "iterated", slowly)
        patch.setenv("VESU_SESSION_START", str(time.time() - 31_300))  # the platform's session is 8.7 hours old
        stopped = vesu.run(dataset, folder, config=mini, display="none", cache=cache)
    assert not stopped.finished and checked >= 10
    (final,) = events(folder, "RUNTIME_BUDGET_FINAL")
    assert 8.7 < final["elapsed_session_h"] < 9 and final["runtime_margin_to_9h"] > 0
    (asked,) = events(folder, "STOP_REQUESTED")[:1]
    assert asked["reason"] == "DEADLINE"
    vesu.check_submission(folder / "submission.zip", dataset / "test_images")
    rows = events(folder, "TRAIN_ITERATION")
    assert 135 * 10 < len(rows) < 135 * 240  # it was cut in the midst, and every iteration so far is in the log
    LateClock.skipped_s = 0.0
    vesu.resume(dataset, folder, config=mini, display="none", cache=cache)
    assert result_of(folder) == result_of(result.folder)
    assert len(events(folder, "TRAIN_ITERATION")) == 135 * 240


def test_a_session_that_begins_too_late_leaves_a_valid_zip(
    dataset: Path, mini: vesu.RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R33
    monkeypatch.setenv("VESU_SESSION_START", str(time.time() - 32_399))
    stopped = vesu.run(dataset, tmp_path / "run", config=mini, display="none")
    assert not stopped.finished
    vesu.check_submission(tmp_path / "run" / "submission.zip", dataset / "test_images")
    assert verify(tmp_path / "run" / "events.jsonl").entries == stopped.summary["ledger"]["entries"]


def test_random_kills_of_the_real_command(tmp_path: Path) -> None:  # R37
    found = campaign(3, seed=1, folder=tmp_path)
    assert found["kills"] == 3


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_leaves_in_time(
    sent: signal.Signals,
    code: int,
    whole: tuple[RunResult, Path, list[Path]],
    dataset: Path,
    mini: vesu.RunConfig,
    tmp_path: Path,
) -> None:  # R33 R36
    result, cache, _ = whole
    folder = tmp_path / "run"
    settings = [*SMALL, "search.supervised_epochs=2", "seed=4"]
    command = [
        sys.executable,
        "-m",
        "vesu",
        "run",
        str(dataset),
        "--out",
        str(folder),
        "--cache",
        str(cache),
        "--quiet",
    ]
    for setting in settings:
        command += ["--set", setting]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    deadline = time.monotonic() + 60
    while not list((folder / "checkpoints").glob("ckpt-*")) or not _iterations(folder):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(sent)
    running.communicate(timeout=30)
    assert running.returncode == code
    (stopping,) = events(folder, "RUN_STOPPING")
    (stopped,) = events(folder, "RUN_STOPPED")
    assert stopping["reason"] == stopped["reason"] == sent.name
    # What was flushed is the last iteration that the log knows, not the last interval's.
    newest = CheckpointStore(folder / "checkpoints").latest()
    assert newest is not None
    last = events(folder, "TRAIN_ITERATION")[-1]
    assert (newest.manifest.epoch, newest.manifest.iter) == (last["epoch"], last["iter"])
    vesu.run(dataset, folder, config=mini, display="none", cache=cache, resume="latest")
    assert result_of(folder) == result_of(result.folder)


def _iterations(folder: Path) -> int:
    text = (folder / "events.jsonl").read_bytes() if (folder / "events.jsonl").exists() else b""
    return text.count(b'"event":"TRAIN_ITERATION"')
