"""Where a resumed run finds its checkpoint, results.zip, and what a run may go on from (R36, R37)."""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from checkpoint_fields import Events, fields, parts
from test_checkpoint_publish import Failing
from vesu.errors import ArgumentError, FileError, FormatError, ResumeIncompatible, VesuError
from vesu.run.checkpoint import (
    MANIFEST,
    Checkpoint,
    CheckpointStore,
    Difference,
    FolderPublisher,
    compare_compat,
    find_checkpoint,
    require_compatible,
    write_results_zip,
)


@pytest.fixture
def events() -> Events:
    return Events()


def save(output: Path, n: int = 1, **changes: Any) -> Checkpoint:
    store = CheckpointStore(output / "checkpoints", keep=9)
    for _ in range(n):
        saved = store.save("full", fields(**changes), parts(300, len(str(changes))))
    return saved


def looked(events: Events) -> list[tuple[str, str]]:
    return [(each["source"], each["outcome"].split(" ")[0]) for each in events.of("CHECKPOINT_SOURCE")]


@pytest.fixture
def artefact(tmp_path: Path) -> FolderPublisher:
    publisher = FolderPublisher(tmp_path / "artefact")
    publisher.publish(save(tmp_path / "first", 2, phase="artefact"))
    return publisher


@pytest.fixture
def results(tmp_path: Path) -> Path:
    save(tmp_path / "zipped", 3, phase="zip")
    write_results_zip(tmp_path / "results.zip", tmp_path / "zipped")
    return tmp_path / "results.zip"


# R37: model artefact, output folder, results.zip, in this order
def test_sources_are_asked_in_order(tmp_path: Path, artefact: FolderPublisher, results: Path, events: Events) -> None:
    output = tmp_path / "out"
    found = find_checkpoint("latest", artefact=artefact, output=output, results_zip=results, emit=events)
    assert (found.manifest.phase, found.path) == ("artefact", output / "checkpoints" / "ckpt-00000002")
    assert looked(events) == [("model artefact", "found")]
    shutil.rmtree(output)
    save(output, 1, phase="own")
    shutil.rmtree(artefact.folder)
    found = find_checkpoint("latest", artefact=artefact, output=output, results_zip=results, emit=events)
    assert (found.manifest.phase, found.manifest.sequence) == ("own", 1)
    assert looked(events)[1:] == [("model artefact", "nothing"), ("output folder", "found")]
    shutil.rmtree(output)
    found = find_checkpoint("latest", artefact=artefact, output=output, results_zip=results, emit=events)
    assert (found.manifest.phase, found.path) == ("zip", output / "checkpoints" / "ckpt-00000003")
    assert found.read("search.npz")
    assert looked(events)[3:] == [
        *(("model artefact", "nothing"), ("output folder", "nothing"), ("results.zip", "found")),
    ]
    assert [each["source"] for each in events.of("LATEST_VALID_CKPT")] == [
        "model artefact",
        "output folder",
        "results.zip",
    ]


# R36, R37: what comes from elsewhere goes on with the next number
def test_numbers_go_on_after_a_fetch(tmp_path: Path, results: Path) -> None:
    found = find_checkpoint("latest", output=tmp_path / "out", results_zip=results)
    store = CheckpointStore(tmp_path / "out" / "checkpoints")
    assert store.load(found.path).manifest.sequence == 3
    saved = store.save("light", fields(), parts())
    assert (saved.manifest.sequence, saved.manifest.merkle_prev) == (4, found.manifest.merkle_curr)


# R37: a network that fails is an event, and the next source is asked
@pytest.mark.parametrize("error", [RuntimeError("no network"), OSError("x"), FormatError("damaged")])
def test_an_artefact_that_fails_is_an_event(tmp_path: Path, events: Events, error: Exception) -> None:
    save(tmp_path)
    found = find_checkpoint("latest", artefact=Failing(error), output=tmp_path, emit=events)
    assert found.manifest.sequence == 1
    first = events.of("CHECKPOINT_SOURCE")[0]
    assert type(error).__name__ in first["outcome"] and str(error) in first["outcome"]


# R37: a fallback inside a source
def test_a_damaged_newest_one_is_told(tmp_path: Path, events: Events) -> None:
    (save(tmp_path, 3).path / "search.npz").write_bytes(b"torn")
    found = find_checkpoint("latest", output=tmp_path, emit=events)
    assert found.manifest.sequence == 2
    assert events.names == ["CHECKPOINT_REFUSED", "CHECKPOINT_SOURCE", "LATEST_VALID_CKPT"]
    assert events.all[2][1]["fallback"] is True


# R37: never a silent restart from zero
def test_nothing_valid_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path, events: Events) -> None:
    for _ in range(2):
        (save(tmp_path).path / MANIFEST).write_bytes(b"{}")
    bad = tmp_path / "results.zip"
    bad.write_bytes(b"no zip")
    artefact = FolderPublisher(tmp_path / "none")
    with pytest.raises(ArgumentError) as caught:
        find_checkpoint("latest", artefact=artefact, output=tmp_path, results_zip=bad, emit=events)
    message = str(caught.value)
    assert message.startswith("resume_from_checkpoint: got 'latest'")
    for piece in ("model artefact", "nothing there", "2 refused", "ckpt-00000002", "results.zip", "damaged"):
        assert piece in message, piece
    assert len(events.of("CHECKPOINT_SOURCE")) == 3
    assert "LATEST_VALID_CKPT" not in events.names
    with pytest.raises(ArgumentError, match=r"output folder .*: nothing there"):
        find_checkpoint("latest", output=tmp_path / "empty")


# R37: the folder cannot be read, which says nothing about the checkpoints: no older source stands in
def test_an_output_folder_that_cannot_be_read_is_raised(tmp_path: Path, results: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").write_bytes(b"")
    with pytest.raises(FileError):
        find_checkpoint("latest", output=tmp_path / "out", results_zip=results)


# R37: --resume-from-checkpoint PATH, in each of its forms
@pytest.mark.parametrize("form", ["checkpoint", "store", "run", "zip", "text"])
def test_a_path_is_only_itself(tmp_path: Path, results: Path, events: Events, form: str) -> None:
    first = tmp_path / "zipped"
    asked: dict[str, Any] = {
        "checkpoint": first / "checkpoints" / "ckpt-00000002",
        "store": first / "checkpoints",
        "run": first,
        "zip": results,
        "text": str(first / "checkpoints" / "ckpt-00000002"),
    }
    output = tmp_path / "out"
    save(output, 5, phase="own")
    shutil.rmtree(output / "checkpoints" / "ckpt-00000002")
    shutil.rmtree(output / "checkpoints" / "ckpt-00000003")
    found = find_checkpoint(asked[form], output=output, emit=events)
    number = 2 if form in ("checkpoint", "text") else 3
    assert (found.manifest.phase, found.manifest.sequence) == ("zip", number)
    assert found.path == output / "checkpoints" / f"ckpt-0000000{number}"
    assert events.names == ["LATEST_VALID_CKPT"] and events.all[0][1]["source"] == "asked"


def test_an_own_older_checkpoint_may_be_asked_for(tmp_path: Path) -> None:
    save(tmp_path, 3)
    asked = tmp_path / "checkpoints" / "ckpt-00000001"
    assert find_checkpoint(asked, output=tmp_path).path == asked
    assert find_checkpoint(tmp_path, output=tmp_path).manifest.sequence == 3


# R37: a path that was asked for is never replaced by another checkpoint
def test_a_damaged_path_is_refused(tmp_path: Path) -> None:
    last = save(tmp_path, 3)
    (last.path / "search.npz").write_bytes(b"torn")
    with pytest.raises(FormatError, match=r"search\.npz"):
        find_checkpoint(last.path, output=tmp_path)
    for missing in (tmp_path / "none", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ArgumentError, match="with no valid checkpoint; accepted: 'latest'"):
            find_checkpoint(missing, output=tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(FormatError, match="damaged or truncated zip"):
        find_checkpoint(tmp_path / "text.zip", output=tmp_path)


# R36: results.zip holds the checkpoints and the JSON evidence, the same bytes each time
def test_results_zip_is_deterministic(tmp_path: Path) -> None:
    run = tmp_path / "run"
    saved = save(run, 2)
    for name in ("summary.json", "events.jsonl", "submission.zip", "results.zip", "report.html"):
        (run / name).write_text("{}\n")
    (run / "checkpoints" / ".ckpt-00000003.0123456789ab.tmp").mkdir()
    (run / "checkpoints" / ".ckpt-00000003.0123456789ab.tmp" / "half").write_text("")
    (run / "link.json").symlink_to("summary.json")
    write_results_zip(run / "results.zip", run)
    first = (run / "results.zip").read_bytes()
    names = zipfile.ZipFile(run / "results.zip").namelist()
    assert names == [
        *(f"checkpoints/ckpt-0000000{n}/{name}" for n in (1, 2) for name in (MANIFEST, "cursor.json", "search.npz")),
        "events.jsonl",
        "summary.json",
    ]
    for path in run.rglob("*"):
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    write_results_zip(run / "results.zip", run)
    assert (run / "results.zip").read_bytes() == first
    assert zipfile.ZipFile(run / "results.zip").testzip() is None
    assert find_checkpoint(run / "results.zip", output=tmp_path / "new").manifest == saved.manifest


def test_a_results_zip_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path)
    (tmp_path / "results.zip").write_bytes(b"old")
    with pytest.raises(VesuError):
        write_results_zip(tmp_path / "results.zip", tmp_path / "none")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(FileError):
        write_results_zip(tmp_path / "results.zip", tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "results.zip").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "results.zip"]


def rezipped(source: Path, target: Path, change: dict[str, bytes | None], prefix: str = "") -> Path:
    """The archive with some members changed or left out, all of them below a prefix."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change.get(name, old.read(name))
            if data is not None:
                new.writestr(prefix + name, data)
    return target


def test_damage_in_a_zip_is_told_and_the_one_before_taken(tmp_path: Path, results: Path, events: Events) -> None:
    newest = "checkpoints/ckpt-00000003/"
    manifest = zipfile.ZipFile(results).read(newest + MANIFEST)
    for number, change in enumerate(
        [
            {newest + "search.npz": b"torn"},
            {newest + "search.npz": bytes(300)},
            {newest + "search.npz": bytes(301)},
            {newest + "search.npz": None},
            {newest + MANIFEST: manifest[:-1]},
            {newest + MANIFEST: zipfile.ZipFile(results).read(f"checkpoints/ckpt-00000002/{MANIFEST}")},
        ]
    ):
        bad = rezipped(results, tmp_path / f"{number}.zip", change)
        found = find_checkpoint(bad, output=tmp_path / f"out{number}", emit=events)
        assert found.manifest.sequence == 2
        assert len(events.of("CHECKPOINT_REFUSED")) == number + 1
        assert "ckpt-00000003" in events.of("CHECKPOINT_REFUSED")[-1]["path"]


def test_every_truncation_of_a_zip_is_refused(tmp_path: Path, results: Path) -> None:
    data = results.read_bytes()
    bad = tmp_path / "bad.zip"
    for length in range(0, len(data), 97):
        bad.write_bytes(data[:length])
        with pytest.raises(FormatError):
            find_checkpoint(bad, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_zip_of_a_whole_folder_serves_too(tmp_path: Path, results: Path) -> None:
    deep = rezipped(results, tmp_path / "deep.zip", {}, "../../working/run/")
    assert find_checkpoint(deep, output=tmp_path / "out").path == tmp_path / "out" / "checkpoints" / "ckpt-00000003"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == sorted(
        ["checkpoints", "ckpt-00000003", MANIFEST, "cursor.json", "search.npz"]
    )


COMPAT = {
    "features": {"version": 3, "scales": [1.0, 2.0], "names": ["a", "b"]},
    "grid": {"meta_neurons": 9, "l1": [1e-4, 3e-4], "l2": [1e-4], "max_iter": 120},
    "seed": 2**60,
    "isa": "avx2",
    "stratified": True,
    "nothing": None,
    "empty": {},
}


# R37: no benign change is refused
@pytest.mark.parametrize(
    "now",
    [
        COMPAT,
        dict(reversed(COMPAT.items())),
        {**COMPAT, "seed": str(2**60)},
        {**COMPAT, "features": {"version": 3.0, "scales": (1, 2), "names": ("a", "b")}},
    ],
)
def test_what_is_the_same_in_json_is_no_difference(now: dict[str, Any]) -> None:
    assert compare_compat(COMPAT, now) == []
    require_compatible(COMPAT, now)


# R37: and after the way through a manifest
def test_a_saved_compat_equals_itself(tmp_path: Path) -> None:
    saved = CheckpointStore(tmp_path).save("light", fields(compat=COMPAT), parts())
    assert compare_compat(CheckpointStore(tmp_path).load(saved.path).manifest.compat, COMPAT) == []


# R37: field, old and new
@pytest.mark.parametrize(
    ("change", "name", "old", "new"),
    [
        ({"seed": 8}, "seed", str(2**60), 8),
        ({"isa": "neon"}, "isa", "avx2", "neon"),
        ({"stratified": 1}, "stratified", True, 1),
        ({"nothing": 0}, "nothing", None, 0),
        ({"empty": None}, "empty", {}, None),
        ({"grid": {**COMPAT["grid"], "l1": [3e-4, 1e-4]}}, "grid.l1", [1e-4, 3e-4], [3e-4, 1e-4]),  # type: ignore[dict-item]
        ({"grid": {**COMPAT["grid"], "l1": [True, 3e-4]}}, "grid.l1", [1e-4, 3e-4], [True, 3e-4]),  # type: ignore[dict-item]
        ({"more": 1}, "more", "(absent)", 1),
    ],
)
def test_a_difference_is_named_with_both_values(change: dict[str, Any], name: str, old: Any, new: Any) -> None:
    assert compare_compat(COMPAT, {**COMPAT, **change}) == [Difference(name, old, new)]
    assert compare_compat({**COMPAT, **change}, COMPAT) == [Difference(name, new, old)]


def test_the_refusal_names_every_field() -> None:
    now = {**COMPAT, "isa": "neon", "grid": {**COMPAT["grid"], "max_iter": 60}, "nothing": "x" * 500}  # type: ignore[dict-item]
    del now["seed"]
    with pytest.raises(ResumeIncompatible) as caught:
        require_compatible(COMPAT, now)
    message = str(caught.value)
    assert message.startswith(
        "RESUME_INCOMPATIBLE: field grid.max_iter: checkpoint has 120, this run has 60; "
        'field isa: checkpoint has "avx2", this run has "neon"; field nothing: checkpoint has null, this run has "xxx'
    )
    assert message.endswith(f'; field seed: checkpoint has "{2**60}", this run has (absent)')
    assert len(message) < 600
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, VesuError)


def test_values_that_json_cannot_hold_are_named() -> None:
    with pytest.raises(ArgumentError, match=r"now\.a: got <object"):
        compare_compat({}, {"a": object()})
