"""Every JSON file that vesu takes values out of, with each entry in turn replaced by something hostile (R02, R54)."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import vesu
from vesu.ablation import leave_one_out
from vesu.autotune.state import Bounds, Decision, ParameterState, Trial, TunerState
from vesu.campaign.plan import read_kept_plan
from vesu.campaign.record import FIGURES, RECORD_FORMAT, RunRecord, examine, keep_record, kept_record
from vesu.errors import MISPLACED
from vesu.run.costs import Costs
from vesu.run.folder import check_claimable
from vesu.run.gates import judge
from vesu.run.gates.best import BestRecorded, RecordedScore
from vesu.run.parts.adopting import read_masks
from vesu.run.parts.merging import FORMAT
from vesu.run.parts.plan import Plan, Volume
from vesu.run.parts.record import read_part, sealed
from vesu.run.pipeline import RunResult
from vesu.run.tuning_source import run_id_of

Where: TypeAlias = tuple[str | int, ...]

HERE = "put it here"
DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE = ["null", "[]", "{}", '"x"', "-1", "1e999", "-1e999", "NaN", str(2**70), '"\\ud800"', '[[[{"a": [1]}]]]', DEEP]


def places(value: Any, where: Where = ()) -> Iterator[Where]:
    """Of everything in a document, the document itself included."""
    yield where
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*where, key))


def put(value: Any, where: Where) -> Any:
    """The document with a mark at this place."""
    if not where:
        return HERE
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[where[0]] = put(copied[where[0]], where[1:])
    return copied


def damaged(document: Any, most: int | None = None) -> Iterator[tuple[str, str]]:
    """Texts in which one entry is hostile or missing, or the end is; and where."""
    for where in list(places(document))[:most]:
        text = json.dumps(put(document, where))
        for hostile in HOSTILE:
            yield text.replace(f'"{HERE}"', hostile), f"{where}: {hostile[:20]}"
        if where and isinstance(where[-1], str):
            yield text.replace(f'"{where[-1]}": "{HERE}"', '"other": 1'), f"{where}: missing"
    yield json.dumps(document)[:-1], "the end"
    yield "", "everything"


def survives(read: Callable[[], object], what: str) -> None:
    """A reader takes it or says what is wrong with it."""
    try:
        read()
    except vesu.VesuError:
        pass
    except MISPLACED as error:
        pytest.fail(f"{what}: {error!r}")


@pytest.fixture(scope="module")
def quick(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run without a search: its log is read in no time."""
    config = vesu.load_config(overrides=["pipeline=nx46"], environment={})
    return vesu.run(dataset, tmp_path_factory.mktemp("quick"), config=config, display="none")


def test_the_best_recorded_scores(tmp_path: Path) -> None:
    book = BestRecorded(tmp_path / "best.json")
    mine = RecordedScore("score", {"7": ("a", "b")}, 0.5, "run", "vesu", "1", 0, "digest", "root")
    book.record(mine)
    assert book.best("score", mine.volumes) == mine
    for text, what in damaged(json.loads(book.path.read_text())):
        book.path.write_text(text)
        survives(lambda: book.best("score", mine.volumes), what)
        survives(book.count, what)


def test_the_scores_of_an_ablation(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"

    def ablate() -> object:
        return leave_one_out(["a", "b"], [0, 1], lambda kept, seed: {"v": len(kept) + 0.1 * seed}, path=path)

    ablate()
    for text, what in damaged(json.loads(path.read_text())):
        path.write_text(text)
        survives(ablate, what)


def test_the_plan_of_a_campaign(tmp_path: Path) -> None:
    path = tmp_path / "campaign.json"
    survives(lambda: read_kept_plan(tmp_path), "nothing")
    document = {"format": "vesu-campaign-plan/1", "data": {"scored": ["1"], "learned": ["2"]}, "runs": {"a/seed-0": {}}}
    for text, what in damaged(document):
        path.write_text(text)
        survives(lambda: read_kept_plan(tmp_path), what)


def test_the_record_of_a_campaigns_run(tmp_path: Path) -> None:
    figures = dict.fromkeys(FIGURES, 0.5)
    record = RunRecord("a", 0, "finished", "", {"7": figures}, submission_sha256="s", root="r", seconds=1.0)
    keep_record(tmp_path, record)
    kept = kept_record(tmp_path, replace(record, volumes={}))
    assert kept is not None and kept.volumes == record.volumes
    (path,) = tmp_path.rglob("seed-0.json")
    document = json.loads(path.read_text())
    assert document["format"] == RECORD_FORMAT
    for text, what in damaged(document):
        path.write_text(text)
        for found in (record, RunRecord("a", 0, "missing", "not begun")):
            survives(lambda found=found: kept_record(tmp_path, found), what)


def test_the_files_of_a_run_that_a_campaign_examines(quick: RunResult, tmp_path: Path) -> None:
    for name in ("events.jsonl", "submission.zip", "config.json"):
        shutil.copyfile(quick.folder / name, tmp_path / name)
    (tmp_path / "summary.json").write_text(json.dumps({**quick.summary, "status": "failed"}))
    failure = tmp_path / "failure.json"
    for text, what in damaged({"error": "DataError", "message": "no label"}):
        failure.write_text(text)
        survives(lambda: examine(tmp_path, ("a", 0), {}, ("1",)), what)
    failure.unlink()
    document = {name: quick.summary[name] for name in ("run_id", "status", "ledger", "submission", "seed")}
    for text, what in damaged(document):
        (tmp_path / "summary.json").write_text(text)
        found = examine(tmp_path, ("a", 0), {}, ("1",))
        assert not found.finished, what


def test_what_a_run_folder_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / ".vesu-run").touch()
    for text, what in damaged({"status": "unfinished"}):
        (tmp_path / "summary.json").write_text(text)
        survives(lambda: check_claimable(tmp_path), what)


def test_the_kept_tree_heads_that_gates_read(quick: RunResult, tmp_path: Path) -> None:
    for name in ("events.jsonl", "submission.zip"):
        shutil.copyfile(quick.folder / name, tmp_path / name)
    for name in ("go_no_go.json", "summary.json"):
        document = {"ledger": json.loads((quick.folder / name).read_text())["ledger"], "verdict": "GO"}
        for text, what in damaged(document):
            (tmp_path / name).write_text(text)
            survives(lambda: judge(tmp_path), f"{name}: {what}")
        (tmp_path / name).unlink()


def test_the_coverage_report_that_a_gate_reads(finished: RunResult, tmp_path: Path) -> None:
    for name in ("events.jsonl", "submission.zip"):
        shutil.copyfile(finished.folder / name, tmp_path / name)
    name = "v3_train_coverage_report.json"
    for text, what in damaged(json.loads((finished.folder / name).read_text()), most=1):
        (tmp_path / name).write_text(text)
        assert "coverage" in judge(tmp_path).failed, what


def test_the_costs_of_earlier_runs(tmp_path: Path) -> None:
    costs = Costs(tmp_path / "costs.json")
    costs.record({"fit": 10.0}, {"fit": "fit"}, {"fit": 30.0})
    costs.remember("inputs")
    costs.write()
    for text, what in damaged(json.loads(costs.path.read_text())):
        costs.path.write_text(text)
        survives(lambda: Costs(costs.path).expected({"fit": 20.0}, {"fit": "fit"}), what)
        survives(lambda: Costs(costs.path).spreads({"fit": "fit"}), what)


def test_the_model(finished: RunResult, tmp_path: Path) -> None:
    shutil.copyfile(finished.folder / "model.npz", tmp_path / "model.npz")
    for text, what in damaged(json.loads((finished.folder / "model.json").read_text())):
        (tmp_path / "model.json").write_text(text)
        survives(lambda: vesu.SurfaceModel.load(tmp_path), what)


PLAN = Plan("segment", 2, 0, (Volume("7", 64, ("a",)),), {"seed": 0}, {"version": "1"}, {"model.npz": "b"}, {})
VOLUME = {"volume_id": "7", "sources": {"7": "a"}, "files": {"masks/7.tif": "b"}, "facts": {"shape": [4, 4, 4]}}
PART = {**PLAN.to_json(), "volumes": [VOLUME], "log": {"run_id": "r", "entries": 1, "root": "00"}}
MERGE = {"format": FORMAT, "phase": "segment", "volumes": {"7": VOLUME}, "model": {}, "vesu": {}, "log": PART["log"]}


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize(
    ("name", "document", "read"), [("part.json", PART, read_part), ("merge.json", MERGE, read_masks)]
)
def test_what_parts_and_their_merge_seal(
    name: str, document: dict[str, Any], read: Callable[[Path], object], forged: bool, tmp_path: Path
) -> None:
    assert Plan.of_json(PLAN.to_json(), "plan") == PLAN
    for text, what in damaged({**document, "digest": sealed(document)}):
        if forged:  # the seal is that of the damage
            try:
                values = json.loads(text)
                values.pop("digest", None)
                text = json.dumps({**values, "digest": sealed(values)})
            except MISPLACED:
                continue
        (tmp_path / name).write_text(text)
        survives(lambda: read(tmp_path), what)


def test_the_state_of_an_auto_tuning() -> None:
    parameter = ParameterState(0.05, Bounds(0.01, 0.4), trial=Trial(0.1, 0.5, 2))
    decision = Decision("mutation_noise", 2, "lower", 0.1, 0.05, "no better", {"objective": 0.5})
    state = TunerState({"mutation_noise": parameter}, (decision,), (0.5, 0.4), (8, 8))
    assert TunerState.from_json(state.to_json()) == state
    for text, what in damaged(json.loads(json.dumps(state.to_json()))):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            continue
        survives(lambda values=values: TunerState.from_json(values), what)


def test_what_a_tuning_reads_of_a_run(tmp_path: Path) -> None:
    for text, what in damaged({"run_id": "r", "status": "finished"}):
        (tmp_path / "summary.json").write_text(text)
        survives(lambda: run_id_of(tmp_path), what)
