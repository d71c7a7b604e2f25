"""The best recorded score: one book for many runs, and what a run of the real pipeline makes of its gates (R44)."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest

import vesu
from vesu.cli import main
from vesu.data.phantom import write_dataset
from vesu.errors import ArgumentError, FileError, FormatError
from vesu.ledger import iter_events
from vesu.run import ending
from vesu.run.gates import BestRecorded, RecordedScore, judge
from vesu.run.pipeline import RunResult

MINE = RecordedScore("score", {"7": ("ct", "label")}, 0.5, "run", "vesu", "1", 0, "digest", "root")


def better(score: float, **changes: object) -> RecordedScore:
    return dataclasses.replace(MINE, score=score, **changes)  # type: ignore[arg-type]


def test_only_a_better_score_on_the_same_files_replaces_one(tmp_path: Path) -> None:  # R44
    book = BestRecorded(tmp_path / "new" / "best_recorded.json")
    other = {"7": ("ct", "another label")}
    assert (book.best("score", MINE.volumes), book.count()) == (None, 0)
    with book.held():
        written = [book.record(better(score)) for score in (0.5, 0.4, 0.5, 0.6)]
        assert written == [True, False, False, True]
        assert book.record(better(0.1, volumes=other)) and book.record(better(0.2, metric="f_beta"))
    assert book.count() == 3
    assert book.best("score", MINE.volumes) == better(0.6)
    assert book.best("score", other) == better(0.1, volumes=other)
    assert book.best("score", {**MINE.volumes, "8": ("ct", "label")}) is None


def test_runs_that_end_at_once_lose_no_score(tmp_path: Path) -> None:  # R44
    book, n = BestRecorded(tmp_path / "best_recorded.json"), 12

    def end(number: int) -> None:
        with BestRecorded(book.path).held():  # a run of its own: it opens the book itself
            BestRecorded(book.path).record(better(number / n))
            BestRecorded(book.path).record(better(0.5, volumes={f"v{number}": ("ct", "label")}))

    runs = [threading.Thread(target=end, args=(number,)) for number in range(n)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert book.best("score", MINE.volumes) == better((n - 1) / n)
    assert book.count() == n + 1


def test_a_book_that_another_run_holds_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    book = BestRecorded(tmp_path / "best_recorded.json")
    with (
        book.held(),
        pytest.raises(FileError, match="another run writes here"),
        BestRecorded(book.path).held(patience_s=0.1),
    ):
        pytest.fail("two held it")
    with book.held():
        assert book.record(MINE)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2, "records": []}', '{"format": 1, "records": [{"metric": "score"}]}']
)
def test_a_damaged_book_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "best_recorded.json"
    path.write_text(content)
    book = BestRecorded(path)
    with pytest.raises(FormatError, match=r"best_recorded\.json"):
        book.best("score", MINE.volumes)
    with book.held(), pytest.raises(FormatError):
        book.record(MINE)
    assert path.read_text() == content


@pytest.mark.parametrize(
    "setting", ["min_coverage_pct=90", "min_coverage_pct=101", "score_tolerance=-1", "score_tolerance=nan"]
)
def test_settings_out_of_range_are_refused(setting: str) -> None:  # R44
    with pytest.raises(ArgumentError, match=rf"gates\.{setting.split('=')[0]}: got"):
        vesu.load_config(overrides=[f"gates.{setting}"], environment={})


# ---- real runs


def found(folder: Path, name: str) -> list[dict[str, object]]:
    return [event for event in iter_events(folder / "events.jsonl") if event["event"] == name]


def test_a_finished_run_is_judged_again_alike(finished: RunResult) -> None:  # R44
    written = json.loads((finished.folder / "go_no_go.json").read_text())
    again = judge(finished.folder)
    assert finished.go and finished.summary["go_no_go"] == written
    assert (written["verdict"], written["submission_sha256"]) == ("GO", finished.submission.sha256)
    assert {name: dataclasses.asdict(gate) for name, gate in again.gates.items()} == written["gates"]
    (told,) = found(finished.folder, "GO_NO_GO")
    assert (told["verdict"], told["gates"]) == ("GO", written["gates"])
    assert (
        vesu.ledger.root_at(finished.folder / "events.jsonl", written["ledger"]["entries"])
        == (written["ledger"]["root"])
    )
    assert written["ledger"]["entries"] <= int(str(told["seq"]))
    assert "verdict     GO: no gate failed" in str(finished)
    (updated,) = found(finished.folder, "BEST_RECORDED_UPDATED")
    records = json.loads((finished.folder / "cache" / "best_recorded.json").read_text())["records"]
    # Other tests' runs use this cache: a better one of them may have taken its place since.
    assert any(each["run_id"] == finished.summary["run_id"] or each["score"] > updated["score"] for each in records)


def test_a_forged_verdict_changes_nothing(finished: RunResult, tmp_path: Path) -> None:  # R44 R54
    log = (finished.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(log) if b'"event":"TRAIN_COVERAGE_FINAL"' in line)
    (tmp_path / "events.jsonl").write_bytes(b"".join(log[:cut]))  # as a kill leaves it
    for name in ("submission.zip", "v3_train_coverage_report.json"):
        (tmp_path / name).write_bytes((finished.folder / name).read_bytes())
    (tmp_path / "go_no_go.json").write_text('{"verdict": "GO", "failed": []}')
    assert judge(tmp_path).failed == ("coverage", "files", "submission", "score")


def test_a_run_below_the_best_exits_with_4_and_a_valid_zip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # R44 R04
    monkeypatch.setattr(ending, "_report", lambda *_: (None, "left out"))
    data = write_dataset(tmp_path / "data", n_train=2, n_test=1, shape=(24, 24, 24), seed=3)
    book = tmp_path / "cache" / "best_recorded.json"

    def run(name: str, quantile: float, *settings: str) -> int | str | None:
        given = [f"nx46.threshold_quantile={quantile}", *settings]
        words = [word for setting in given for word in ("--set", setting)]
        paths = ["--out", str(tmp_path / name), "--cache", str(book.parent)]
        try:
            return main(["run", str(data), "--pipeline", "nx46", "--quiet", *paths, *words])
        except SystemExit as left:
            return left.code

    assert run("first", 0.6) == 0
    assert run("again", 0.6) == 0  # as good is not below
    before = book.read_bytes()
    capsys.readouterr()
    assert run("below", 0.985) == 4
    assert "verdict     NO-GO: score failed\n            score: score 0." in capsys.readouterr().out
    assert book.read_bytes() == before and not found(tmp_path / "below", "BEST_RECORDED_UPDATED")
    assert found(tmp_path / "first", "BEST_RECORDED_UPDATED") and found(tmp_path / "again", "BEST_RECORDED_KEPT")
    vesu.check_submission(tmp_path / "below" / "submission.zip", data / "test_images")
    assert json.loads((tmp_path / "below" / "go_no_go.json").read_text())["failed"] == ["score"]
    assert judge(tmp_path / "first").go and not judge(tmp_path / "below").go  # whatever came later
    assert run("off", 0.985, "gates.best_recorded=none") == 0
    book.write_text("damaged")
    assert run("damaged", 0.6) == 4
    assert "the best recorded score is not known" in judge(tmp_path / "damaged").gates["score"].reason
    assert book.read_text() == "damaged"
