"""The golden nonces of a run: an event each, a timeline that says the same, whatever the run was cut at (R31)."""

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vesu
from cuts import Cut
from vesu import baselines
from vesu.cli import main
from vesu.errors import ResumeIncompatible
from vesu.ledger import canonical_json, iter_events, verify
from vesu.report import write_report
from vesu.run import ending, nonces
from vesu.run.events import EventLog
from vesu.run.parts import make_part, merge
from vesu.run.pipeline import RunResult

ASKED = ["pipeline=nx46", "nonces.use=true", "nonces.threshold=0.4", "nonces.top_k=150"]
CONFIG = vesu.load_config(overrides=ASKED, environment={})


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


def timeline(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / nonces.TIMELINE).read_bytes().splitlines()]


def places(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["volume_id"], row["z"], row["y"], row["x"], row["score"]) for row in rows]


def expected(data: Path, threshold: float = 0.4, top_k: int = 150) -> list[tuple[Any, ...]]:
    """Of each volume, by NumPy's sort of its score."""
    found = []
    for test in vesu.discover(data).tests:
        score = baselines.score(vesu.read_volume(test.image), "nx46")
        order = np.argsort(-score.ravel(), kind="stable")  # stable: of equal scores the first in C order
        order = order[score.ravel()[order] >= np.float32(threshold)][: top_k or None]
        z, y, x = (axis.tolist() for axis in np.unravel_index(order, score.shape))
        found += list(zip(itertools.repeat(test.volume_id), z, y, x, score.ravel()[order].tolist(), strict=False))
    return found


@pytest.fixture(scope="module")
def data(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test volumes alone: a scorer needs no more."""
    folder = tmp_path_factory.mktemp("tests")
    shutil.copytree(dataset / "test_images", folder / "test_images")
    return folder


@pytest.fixture(scope="module", autouse=True)
def without_report() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "_report", lambda *_: (None, "left out"))
        yield


@pytest.fixture(scope="module")
def ran(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return vesu.run(data, tmp_path_factory.mktemp("run") / "run", config=CONFIG, display="none")


def test_log_and_timeline_hold_the_extremes_in_their_order(ran: RunResult, data: Path) -> None:  # R31
    found = events(ran.folder, nonces.FOUND)
    assert places(found) == expected(data) and len(found) == 300
    own = ("ts_ns", "volume_id", "z", "y", "x", "score")
    lines = (ran.folder / nonces.TIMELINE).read_bytes().splitlines()
    assert lines == [canonical_json({key: event[key] for key in own}) for event in found]
    (final,) = events(ran.folder, nonces.FINAL)
    digest = hashlib.sha256((ran.folder / nonces.TIMELINE).read_bytes()).hexdigest()
    counts = {test.volume_id: 150 for test in vesu.discover(data).tests}
    assert {key: final[key] for key in ("top_k", "found", "volumes", "timeline_sha256")} == {
        "top_k": 150, "found": 300, "volumes": counts, "timeline_sha256": digest,
    }  # fmt: skip
    assert final["seq"] > max(event["seq"] for event in found)
    assert verify(ran.folder / "events.jsonl").entries == ran.summary["ledger"]["entries"]


def test_a_plain_run_has_none_and_the_same_masks(ran: RunResult, data: Path, tmp_path: Path) -> None:  # R31 R32
    plain = vesu.run(data, tmp_path, config=vesu.load_config(overrides=ASKED[:1], environment={}), display="none")
    assert plain.submission.sha256 == ran.submission.sha256
    names = {event["event"] for event in iter_events(tmp_path / "events.jsonl")}
    assert not {name for name in names if "NONCE" in name}
    assert not (tmp_path / nonces.TIMELINE).exists() and not list((tmp_path / "segment").glob("*nonce*"))


def test_unlimited_takes_all_that_qualify(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # R31
    monkeypatch.setattr(nonces, "BATCH", 700)
    config = dataclasses.replace(CONFIG, n_threads=1, nonces=dataclasses.replace(CONFIG.nonces, top_k=0))
    vesu.run(data, tmp_path, config=config, display="none")
    everything = expected(data, top_k=0)
    assert places(timeline(tmp_path)) == everything and len(everything) > 2000


@pytest.mark.parametrize("threshold", [1.0, 0.4])
def test_no_nonce_at_all_is_an_empty_timeline(data: Path, tmp_path: Path, threshold: float) -> None:  # R31
    high = dataclasses.replace(CONFIG.nonces, threshold=threshold)
    config = dataclasses.replace(CONFIG, nonces=high)
    result = vesu.run(data, tmp_path, config=config, display="none")
    (final,) = events(tmp_path, nonces.FINAL)
    assert final["found"] == len(timeline(tmp_path)) == len(expected(data, threshold))
    page = write_report(result.folder).read_text(encoding="utf-8")
    assert "Golden nonces" in page and ("No voxel qualifies" in page) == (final["volumes"][min(final["volumes"])] == 0)


# ---- cut and gone on with


@pytest.mark.parametrize("batches", [0, 1, 3, 4, 6])
def test_a_run_cut_among_its_nonces_leaves_the_same_timeline(
    ran: RunResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:  # R31 R37
    monkeypatch.setattr(nonces, "BATCH", 40)  # four batches a volume
    emit, left = EventLog.emit_table, itertools.count(-batches)

    def cutting(self: EventLog, *arguments: Any, **fields: Any) -> int:
        if next(left) >= 0:
            raise Cut
        return emit(self, *arguments, **fields)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(EventLog, "emit_table", cutting)
        vesu.run(data, tmp_path, config=CONFIG, display="none")
    written = len(events(tmp_path, nonces.FOUND))
    assert written == (0, 40, 120, 150, 230)[(0, 1, 3, 4, 6).index(batches)]
    result = vesu.run(data, tmp_path, config=CONFIG, display="none", resume="latest")
    assert result.finished and len(events(tmp_path, nonces.START)) == 1
    assert places(timeline(tmp_path)) == places(timeline(ran.folder))
    assert places(events(tmp_path, nonces.FOUND)) == places(timeline(ran.folder))  # none twice
    assert len(events(tmp_path, nonces.FINAL)) == 1


def test_a_lost_or_forged_timeline_is_written_again_from_the_log(
    ran: RunResult, data: Path, tmp_path: Path
) -> None:  # R31 R54
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    (folder / nonces.TIMELINE).write_text("{}\n")
    vesu.run(data, folder, config=CONFIG, display="none", resume="latest")
    assert (folder / nonces.TIMELINE).read_bytes() == (ran.folder / nonces.TIMELINE).read_bytes()
    assert len(events(folder, nonces.FINAL)) == 1 and len(events(folder, nonces.FOUND)) == 300


def test_lost_nonces_are_found_again(ran: RunResult, data: Path, tmp_path: Path) -> None:  # R31 R37
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    gone = min((folder / "segment").glob("*_nonces.npy"))
    before = gone.read_bytes()
    gone.unlink()
    vesu.run(data, folder, config=CONFIG, display="none", resume="latest")
    assert gone.read_bytes() == before and len(events(folder, "VOLUME_KEPT")) == 1
    assert (folder / nonces.TIMELINE).read_bytes() == (ran.folder / nonces.TIMELINE).read_bytes()


def test_a_damaged_list_costs_the_timeline_and_not_the_run(ran: RunResult, data: Path, tmp_path: Path) -> None:  # R31
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    (folder / nonces.TIMELINE).unlink()
    damaged = min((folder / "segment").glob("*_nonces.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    result = vesu.run(data, folder, config=CONFIG, display="none", resume="latest")
    assert result.finished and not (folder / nonces.TIMELINE).exists()
    (failed,) = events(folder, nonces.FAILED)
    assert damaged.name in failed["reason"]


def test_a_disk_without_room_costs_the_timeline_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R31
    monkeypatch.setattr(nonces, "BYTES_EACH", 1 << 50)
    assert vesu.run(data, tmp_path, config=CONFIG, display="none").finished
    (failed,) = events(tmp_path, nonces.FAILED)
    assert "300 of them" in failed["reason"] and "nonces.top_k" in failed["reason"]
    assert not events(tmp_path, nonces.FOUND, nonces.FINAL)


def test_other_settings_are_refused_or_begin_a_timeline_anew(
    ran: RunResult, data: Path, tmp_path: Path
) -> None:  # R31 R37
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    other = dataclasses.replace(CONFIG, nonces=dataclasses.replace(CONFIG.nonces, top_k=20))
    with pytest.raises(ResumeIncompatible, match=r"nonces\.top_k: checkpoint has 150, this run has 20"):
        vesu.run(data, folder, config=other, display="none", resume="latest")
    vesu.run(data, folder, config=other, display="none", resume="latest", retrain_changed=True)
    (retrain,) = events(folder, "RESUME_PARTIAL_RETRAIN")
    assert retrain["scope"] == "segment"
    first, second = events(folder, nonces.START)
    assert places(timeline(folder)) == expected(data, top_k=20)
    behind = [event for event in events(folder, nonces.FOUND) if event["seq"] > second["seq"]]
    assert places(behind) == places(timeline(folder)) and first["plan"]["top_k"] == 150


def test_masks_made_again_have_a_timeline_of_their_own(ran: RunResult, data: Path, tmp_path: Path) -> None:  # R31 R54
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    other = vesu.load_config(overrides=[*ASKED, "segment.dust.min_voxels=30"], environment={})
    vesu.run(data, folder, config=other, display="none", resume="latest", retrain_changed=True)
    (retrain,) = events(folder, "RESUME_PARTIAL_RETRAIN")
    behind = [event for event in events(folder, nonces.FOUND, nonces.FINAL) if event["seq"] > retrain["seq"]]
    assert len(behind) == 301 and places(behind[:-1]) == places(timeline(folder)) == expected(data)
    assert [row["ts_ns"] for row in timeline(folder)] == [event["ts_ns"] for event in behind[:-1]]


def test_other_volumes_begin_a_timeline_anew(ran: RunResult, data: Path, tmp_path: Path) -> None:  # R31 R37
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    swapped = tmp_path / "swapped"
    shutil.copytree(data, swapped)
    min((swapped / "test_images").glob("*.tif")).unlink()
    vesu.run(swapped, folder, config=CONFIG, display="none", resume="latest")
    assert len(events(folder, nonces.START)) == 2 and places(timeline(folder)) == expected(swapped)


# ---- parts, the command line, the report


def test_parts_find_the_same_nonces(ran: RunResult, data: Path, tmp_path: Path) -> None:  # R31
    parts = [
        make_part(data, tmp_path / str(k), phase="segment", num_parts=2, part_id=k, config=CONFIG).folder
        for k in range(2)
    ]
    merge(parts, tmp_path / "merged")
    lists = sorted((tmp_path / "merged" / "segment").glob("*_nonces.npy"))
    assert [path.read_bytes() for path in lists] == [
        path.read_bytes() for path in sorted((ran.folder / "segment").glob("*_nonces.npy"))
    ]
    assert len(lists) == 2


def test_the_flag_switches_them_on(data: Path, tmp_path: Path) -> None:  # R31 R32
    words = ["run", str(data), "--out", str(tmp_path), "--pipeline", "nx46", "--nonces", "--quiet"]
    assert main([*words, "--set", "nonces.threshold=0.4"]) == 0
    assert len(timeline(tmp_path)) == min(2000, len(expected(data, top_k=1000)))


def test_the_report_marks_them_on_the_slices(ran: RunResult) -> None:  # R31
    page = write_report(ran.folder).read_text(encoding="utf-8")
    section = page[page.index('id="nonces"') : page.index('id="dashboard"')]
    assert section.count("<img") == 2 * 3 and "300 of them" in section
    assert "of the best 150" in section and 'href="#nonces"' in page
    with np.load(min((ran.folder / "segment").glob("*_nonce_views.npz"))) as views:
        assert len(views["z_marks"]) > 0 and (views["z_marks"] < views["z_volume"].shape).all()


def test_a_run_without_them_has_no_such_section(finished: RunResult) -> None:  # R54
    page = write_report(finished.folder).read_text(encoding="utf-8")
    assert "Golden nonces" not in page and "#nonces" not in page
