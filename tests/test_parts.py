"""A run in parts: the same model, masks and zip as in one process, and parts that go on after a kill."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vesu
from conftest import SMALL
from cuts import Cut, result_of
from parts_case import SEGMENTED, files_of, made
from vesu.cli import main
from vesu.errors import ArgumentError, DataError, EvidenceError
from vesu.ledger import iter_events, verify
from vesu.run import ending
from vesu.run.parts import MergeReport, PartReport, assign, make_part, merge, read_part
from vesu.run.parts.adopting import adopt, read_masks
from vesu.run.pipeline import RunResult


def events(folder: Path, *names: str) -> list[dict[str, Any]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] in names]


@pytest.fixture(scope="module", autouse=True)
def without_report() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "_report", lambda *_: (None, "left out"))
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def sampled(dataset: Path, small_config: vesu.RunConfig, work: Path) -> list[PartReport]:
    return made(dataset, work / "features", small_config, "features")


@pytest.fixture(scope="module")
def gathered(sampled: list[PartReport], work: Path) -> MergeReport:
    return merge([part.folder for part in reversed(sampled)], work / "gathered")


@pytest.fixture(scope="module")
def searched(dataset: Path, small_config: vesu.RunConfig, gathered: MergeReport, work: Path) -> RunResult:
    cache = gathered.folder / "cache"
    return vesu.run(dataset, work / "run", config=small_config, display="none", cache=cache, phase="search")


@pytest.fixture(scope="module")
def segmented(dataset: Path, small_config: vesu.RunConfig, searched: RunResult, work: Path) -> list[PartReport]:
    return made(dataset, work / "segment", small_config, "segment", model=searched.folder)


@pytest.fixture(scope="module")
def merged(segmented: list[PartReport], work: Path) -> MergeReport:
    return merge([part.folder for part in segmented], work / "merged")


def small_words() -> list[str]:
    """The mini run's settings on a command line."""
    return [word for text in SMALL for word in ("--set", text)]


# ---- who does what


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=30), st.integers(1, 9))
def test_every_volume_falls_to_one_part_and_none_has_much_more(sizes: list[int], num_parts: int) -> None:
    voxels = {str(i): size for i, size in enumerate(sizes)}
    parts = assign(voxels, num_parts)
    assert len(parts) == num_parts
    assert sorted(name for part in parts for name in part) == sorted(voxels)
    assert all(part == tuple(sorted(part)) for part in parts)
    assert assign(dict(sorted(voxels.items(), reverse=True)), num_parts) == parts  # no order counts but that of ids
    loads = [sum(voxels[name] for name in part) for part in parts]
    assert max(loads) - min(loads) <= max(voxels.values(), default=0)


# ---- the same bits


def test_parts_give_the_bits_of_one_process(
    dataset: Path,
    small_config: vesu.RunConfig,
    finished: RunResult,
    gathered: MergeReport,
    searched: RunResult,
    merged: MergeReport,
) -> None:  # R05 R09 R37 R53
    assert not searched.finished and searched.done and "the model is ready" in str(searched)
    assert searched.summary["validation"] == finished.summary["validation"]
    expected = result_of(finished.folder)
    found = result_of_merged(merged.folder)
    assert found == {name: value for name, value in expected.items() if name != "leaderboard.json"}
    assert merged.submission is not None and merged.submission.sha256 == finished.submission.sha256
    vesu.check_submission(merged.folder / "submission.zip", dataset / "test_images")
    for name in SEGMENTED:
        for path in sorted(finished.folder.glob(name)):
            assert (merged.folder / path.relative_to(finished.folder)).read_bytes() == path.read_bytes(), path.name
    # The run whose model it was takes the masks, instead of making them again, and ends as any other.
    again = vesu.run(
        dataset,
        searched.folder,
        config=small_config,
        display="none",
        cache=gathered.folder / "cache",
        resume="latest",
        masks=merged.folder,
    )
    assert again.finished and result_of(again.folder) == expected
    assert len(events(again.folder, "MASK_FROM_PARTS")) == 2 and not events(again.folder, "VOLUME_SEGMENTED")
    assert events(again.folder, "MASKS_FROM_PARTS")[0]["root"] == merged.root
    assert again.summary["validation"] == finished.summary["validation"]


def result_of_merged(folder: Path) -> dict[str, str]:
    beside = folder / "leaderboard.json"
    beside.write_text("{}")  # of the search alone: there is none in a merge
    found = result_of(folder)
    beside.unlink()
    return {name: value for name, value in found.items() if name != "leaderboard.json"}


def test_a_search_takes_every_row_from_the_merged_cache(searched: RunResult, gathered: MergeReport) -> None:  # R09
    hits = {event["key"] for event in events(searched.folder, "CACHE_HIT")}
    keys = {key for part in gathered.parts for each in part.records for key in each.facts["arrays"].values()}
    assert len(keys) == gathered.n_arrays == 3 and keys <= hits
    assert gathered.n_bytes > 0 and f"--cache {gathered.folder / 'cache'} --set cache_gib=8" in str(gathered)


def test_a_historical_scorer_needs_no_model(dataset: Path, small_config: vesu.RunConfig, tmp_path: Path) -> None:  # R32
    config = vesu.load_config(overrides=[*SMALL, "pipeline=nx46"], environment={})
    whole = vesu.run(dataset, tmp_path / "run", config=config, display="none")
    parts = made(dataset, tmp_path / "part", config, "segment", num_parts=3)  # one more than there are volumes
    assert [len(part.records) for part in parts] == [1, 1, 0]
    both = merge([part.folder for part in parts], tmp_path / "merged")
    assert both.submission is not None and both.submission.sha256 == whole.submission.sha256


# ---- evidence


def test_a_part_says_what_it_holds_and_its_log_verifies(segmented: list[PartReport], dataset: Path) -> None:  # R38
    held = []
    for number, part in enumerate(segmented):
        assert read_part(part.folder) == part
        log = verify(part.folder / "events.jsonl")
        assert (log.entries, log.root) == (part.entries, part.root)
        names = [event["event"] for event in iter_events(part.folder / "events.jsonl")]
        assert (names[0], names[-1]) == ("PART_START", "PART_END")
        assert {"VOLUME_SEGMENTED", "MEMORY_HEALTH"} <= set(names)
        content = json.loads((part.folder / "part.json").read_bytes())
        assert content["part_id"] == number and content["num_parts"] == 2 and content["digest"] == part.digest
        assert set(content["model"]) == {"model.json", "model.npz"}
        held += [record.volume_id for record in part.records]
    assert sorted(held) == [test.volume_id for test in vesu.discover(dataset).tests]


def test_a_merge_names_the_log_of_each_part(merged: MergeReport, segmented: list[PartReport]) -> None:  # R38
    named = events(merged.folder, "MERGE_PART")
    assert [event["log"]["root"] for event in named] == [part.root for part in segmented]
    content = json.loads((merged.folder / "merge.json").read_bytes())
    log = verify(merged.folder / "events.jsonl")
    assert (
        content["log"] == {"entries": log.entries, "root": log.root} == {"entries": merged.entries, "root": merged.root}
    )
    assert [part["digest"] for part in content["parts"]] == [part.digest for part in segmented]
    assert "2 parts" in str(merged) and "masks" in merged._repr_html_() and "part" in segmented[0]._repr_html_()


def test_a_part_of_features_holds_rows_and_nothing_else(sampled: list[PartReport]) -> None:  # R07 R16
    for part in sampled:
        keys = {key for record in part.records for key in record.facts["arrays"].values()}
        assert {path.name for path in (part.folder / "arrays").iterdir()} == keys
        told = {event["volume_id"]: event["voxels"] for event in events(part.folder, "VOXELS_SAMPLED")}
        assert told == {record.volume_id: record.facts["voxels_sampled"][0] for record in part.records}


# ---- going on


def test_a_part_that_was_cut_goes_on_with_what_it_has(
    sampled: list[PartReport], dataset: Path, small_config: vesu.RunConfig, tmp_path: Path
) -> None:  # R37
    whole = next(part for part in sampled if len(part.records) > 1)
    words: dict[str, Any] = {"phase": "features", "num_parts": 2, "part_id": whole.plan.part_id, "config": small_config}

    def cut(volume_id: str, done: int, total: int) -> None:
        raise Cut

    with pytest.raises(Cut):
        make_part(dataset, tmp_path, **words, on_volume=cut)
    assert not (tmp_path / "part.json").exists()
    seen = []
    part = make_part(dataset, tmp_path, **words, on_volume=lambda *told: seen.append(told))
    assert [event["volume_id"] for event in events(tmp_path, "PART_VOLUME_KEPT")] == [whole.records[0].volume_id]
    assert files_of(part) == files_of(whole)
    assert [done for _, done, _ in seen] == list(range(1, len(whole.records) + 1))
    (resumed,) = events(tmp_path, "PART_RESUMED")
    assert resumed["run_id"] == events(tmp_path, "PART_START")[0]["run_id"]
    # A whole part is not done again.
    assert make_part(dataset, tmp_path, **words, on_volume=cut) == part


def test_a_stop_leaves_what_is_done(
    segmented: list[PartReport], dataset: Path, small_config: vesu.RunConfig, searched: RunResult, tmp_path: Path
) -> None:  # R33
    words: dict[str, Any] = {"phase": "segment", "config": small_config, "model": searched.folder}
    for number, raised in ((signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)):
        with pytest.raises(raised):
            make_part(dataset, tmp_path, **words, on_volume=lambda *_, number=number: signal.raise_signal(number))
    stops = events(tmp_path, "PART_STOPPED")
    assert [(event["reason"], event["done"]) for event in stops] == [("SIGTERM", 1), ("SIGINT", 1)]
    part = make_part(dataset, tmp_path, **words)
    assert files_of(part) == files_of(*segmented)


def test_a_killed_part_goes_on(
    segmented: list[PartReport], dataset: Path, searched: RunResult, tmp_path: Path
) -> None:  # R36 R37
    words = ["run", str(dataset), "--out", str(tmp_path), "--phase", "segment", "--model", str(searched.folder)]
    words += small_words()
    with subprocess.Popen([sys.executable, "-m", "vesu", *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("segment 1/2")
        process.kill()
    whole_before = (tmp_path / "part.json").exists()  # on a busy machine the part may be quicker than the kill
    assert main(words) == 0
    assert whole_before or events(tmp_path, "PART_VOLUME_KEPT")
    assert verify(tmp_path / "events.jsonl").entries == read_part(tmp_path).entries
    assert files_of(read_part(tmp_path)) == files_of(*segmented)


def test_a_file_that_was_lost_is_made_again(
    segmented: list[PartReport], dataset: Path, small_config: vesu.RunConfig, searched: RunResult, tmp_path: Path
) -> None:  # R09
    folder = shutil.copytree(segmented[0].folder, tmp_path / "part")
    mask = next((folder / "masks").glob("*.tif"))
    content = mask.read_bytes()
    mask.write_bytes(content[:-1])
    part = make_part(
        dataset, folder, phase="segment", num_parts=2, part_id=0, config=small_config, model=searched.folder
    )
    assert mask.read_bytes() == content and files_of(part) == files_of(segmented[0])


def test_masks_of_another_model_are_not_taken(
    merged: MergeReport, searched: RunResult, dataset: Path, tmp_path: Path
) -> None:  # R37
    told: list[str] = []
    log = SimpleNamespace(emit=lambda name, **_: told.append(name))
    place = SimpleNamespace(folder=tmp_path, log=log)
    for name in ("model.json", "model.npz"):
        shutil.copy(searched.folder / name, tmp_path / name)
    tests = vesu.discover(dataset).tests
    masks = read_masks(merged.folder)
    assert len(adopt(place, tests, masks)) == 2  # type: ignore[arg-type]
    # Of another CT under the same name, nothing is taken.
    swapped = [dataclasses.replace(test, image=tests[1 - i].image) for i, test in enumerate(tests)]
    assert adopt(place, swapped, masks) == {} and told.count("MASK_NOT_FROM_PARTS") == 2  # type: ignore[arg-type]
    damaged = dataclasses.replace(masks, folder=Path(shutil.copytree(merged.folder, tmp_path / "damaged")))
    (tmp_path / "damaged" / "masks" / f"{tests[0].volume_id}.tif").write_bytes(b"")
    with pytest.raises(EvidenceError, match=f"{tests[0].volume_id}.tif: its content is not"):
        adopt(place, tests, damaged)  # type: ignore[arg-type]
    (tmp_path / "model.json").write_text((tmp_path / "model.json").read_text() + " ")
    with pytest.raises(DataError, match="made with another model than this run's"):
        adopt(place, tests, masks)  # type: ignore[arg-type]


# ---- the command line


def test_the_commands_do_the_same(
    dataset: Path, sampled: list[PartReport], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("0", "1"):
        part = ["--phase", "features", "--num-parts", "2", "--part-id", number]
        assert main(["run", str(dataset), "--out", str(tmp_path / number), *part, *small_words()]) == 0
    shown = capsys.readouterr().out
    assert "features 1/" in shown and "part        1 of 2, phase features" in shown
    assert [files_of(read_part(tmp_path / number)) for number in ("0", "1")] == [files_of(part) for part in sampled]
    assert main(["merge", str(tmp_path / "0"), str(tmp_path / "1"), "--out", str(tmp_path / "both")]) == 0
    assert "merged      2 parts, phase features: 3 volumes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--num-parts", "2"], "--num-parts"),
        (["--phase", "search", "--part-id", "0"], "--part-id"),
        (["--model", "run"], "--model"),
        (["--phase", "features", "--model", "run"], "--model"),
        (["--phase", "features", "--cache", "c"], "--cache"),
        (["--phase", "segment", "--masks", "m"], "--masks"),
        (["--phase", "features", "--retrain-changed"], "--retrain-changed"),
        (["--phase", "segment"], "model: got none"),
        (["--phase", "features", "--num-parts", "2", "--part-id", "2"], "part_id: got 2"),
        (["--phase", "features", "--num-parts", "0"], "num_parts: got 0"),
        (["--phase", "features", "--part-id", "-1"], "part_id: got -1"),
        (["--phase", "features", "--pipeline", "nx46"], "learns nothing"),
        (["--phase", "search", "--pipeline", "nx46"], "phase: got 'search'"),
        (["--phase", "segment", "--pipeline", "nx47", "--model", "run"], "model: got one"),
        (["--phase", "segment", "--pipeline", "nx47", "--student", "on"], "student.use"),
    ],
)
def test_words_that_do_not_go_together_are_refused(
    words: list[str], named: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(dataset), "--out", str(tmp_path / "out"), *words]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_refuses_what_no_command_says(dataset: Path, small_config: vesu.RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="phase: got 'half'"):
        vesu.run(dataset, tmp_path / "run", config=small_config, display="none", phase="half")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="phase: got 'search'"):
        make_part(dataset, tmp_path / "part", phase="search", config=small_config)  # type: ignore[arg-type]
