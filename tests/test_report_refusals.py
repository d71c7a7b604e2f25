"""The HTML report on hostile text, malformed files, bad arguments and absent packages."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from make_run_folder import Spec, make_run_folder
from report_page import Page, edit, light_fixture, run_fixture  # noqa: F401 (found by name)
from vesu.errors import ArgumentError, DataError, FileError, FormatError, VesuError
from vesu.report import MissingExtraError, write_report
from vesu.report.views import read_views

# ---- hostile text ----

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% raw %}", "$\\frac{$", "</style><b>",
    "javascript:alert(1)", "\ud800\u202e\x00",
)  # fmt: skip


def test_hostile_text_is_inert_everywhere(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", Spec(ids=HOSTILE[:1], shape=(12, 12, 12), neurons=1, iterations=2))

    def poison(value: Any, words: str) -> Any:
        """The same value with every free text replaced, keys of open-ended tables included."""
        if isinstance(value, dict):
            return {key: poison(inner, words) for key, inner in value.items()} | {words: words}
        if isinstance(value, list):
            return [poison(inner, words) for inner in value]
        return words if isinstance(value, str) and not value.isdecimal() else value

    def run_poisoned(words: str) -> Page:
        target = tmp_path / "poisoned"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        for path in (*target.glob("*.json"), *(target / "segment").glob("*.json")):
            if path.name == "leaderboard.json":
                continue
            value = poison(json.loads(path.read_text()), words)
            if path.name == "summary.json":
                value["validation"]["baselines"].pop(words)
            if "probability_percentiles" in value:
                value["probability_percentiles"][words] = 0.5
            path.write_text(json.dumps(value))
        return Page(write_report(target))

    calm = run_poisoned("calm")
    tags = sorted({tag for tag, _ in calm.tags})
    for words in HOSTILE:
        page = run_poisoned(words)
        assert sorted({tag for tag, _ in page.tags}) == tags, words
        assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
        assert [a.get("href") for a in page.all("a")] == [a.get("href") for a in calm.all("a")]
        assert not words.isascii() or words in page.text or "\x00" in words  # shown as it stands


# ---- what is malformed ----


@pytest.mark.parametrize("name", ["summary.json", "config.json", "inventory.json", "preflight.json", "leaderboard.json",
                                  "segment/1407735.json", "failure.json", "post_mortem.json",
                                  "RUN_PROFILE_SUMMARY.json", "v3_train_coverage_report.json"])  # fmt: skip
@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"3", b"\xff\xfe", b'{"a": NaN}', b"9" * 10_000],
                         ids=["empty", "open", "deep", "number", "bytes", "nan", "long"])  # fmt: skip
def test_malformed_json_names_the_file(run: Path, name: str, data: bytes) -> None:
    (run / name).write_bytes(data)
    before = sorted(run.iterdir())
    with pytest.raises(VesuError, match=Path(name).name):
        write_report(run)
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("summary.json", {"elapsed_s": "soon"}, "elapsed_s: got 'soon'; accepted: a number"),
        ("summary.json", {"elapsed_s": 10**400}, "elapsed_s"),
        ("summary.json", {"run_id": 7}, "run_id: got 7; accepted: a string"),
        ("summary.json", {"phases": {"fit": 1}}, "phases: got .* a list"),
        ("summary.json", {"phases": [3]}, r"phases\[0\]: got int; accepted: a JSON object"),
        ("summary.json", {"validation": {"volumes": [1]}}, "volumes: got .* a list of strings"),
        ("summary.json", {"validation": {"calibration": {"raw": {"bins": [{"count": 0.5}]}}}}, "count: got 0.5"),
        ("summary.json", {"validation": {"calibration": {"uncertainty": {"auroc": "high"}}}}, "auroc: got 'high'"),
        ("summary.json", {"started_ns": True}, "started_ns"),
        (
            "summary.json",
            {"validation": {"by_volume": [{"topology": "good"}]}},
            r"by_volume\[0\]: topology: got 'good'",
        ),
        ("summary.json", {"validation": {"by_volume": [{"tunnels": {"label": 0.5}}]}}, "tunnels: label: got 0.5"),
        ("summary.json", {"validation": {"baselines": {"a": {"by_volume": 3}}}}, "by_volume: got 3; accepted: a list"),
        ("segment/1407735.json", {"ink_ratio_by_slice": ["x"]}, "ink_ratio_by_slice: 0: got 'x'"),
        ("post_mortem.json", {"reached_pct": "half"}, "reached_pct: got 'half'; accepted: a number"),
        ("RUN_PROFILE_SUMMARY.json", {"phases": [{"shares": {"io": "much"}}]}, r"phases\[0\]: shares: io: got 'much'"),
        (
            "v3_train_coverage_report.json",
            {"coverage_gap_is_justified": 1},
            "justified: got 1; accepted: true or false",
        ),
        ("preflight.json", {"checked_pairs": 1.5}, "checked_pairs: got 1.5; accepted: a whole number"),
    ],
)
def test_a_wrong_type_names_file_and_field(run: Path, name: str, change: dict[str, Any], match: str) -> None:
    edit(run / name, lambda value: value.update(change))
    with pytest.raises(FormatError, match=match) as caught:
        write_report(run)
    assert Path(name).name in str(caught.value)


def test_a_damaged_log_line_is_named(run: Path) -> None:
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run / "events.jsonl").write_bytes(b"".join([*lines[:4], b"{oops}\n", *lines[4:]]))
    with pytest.raises(FormatError, match=r"events\.jsonl: line 5"):
        write_report(run)


def _members(run: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(run / "segment" / "1407735_views.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


BAD_ARRAYS = {
    "three axes": ("z_mask", _npy(np.zeros((2, 2, 2)))),
    "another shape": ("y_probability", _npy(np.zeros((3, 3), np.float32))),
    "text": ("z_volume", _npy(np.full((48, 56), "a"))),
    "objects": ("z_volume", _npy(np.array([[None]]))),
    "vector index": ("x_index", _npy(np.arange(3))),
    "float index": ("x_index", _npy(np.float64(3))),
    "no header": ("z_volume", b"\x93NUMPY"),
    "bad header": ("z_volume", b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': '<f4',"),
    "a 60000 x 60000 header over few bytes": (
        "z_volume",
        _npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(60000, 60000)"),
    ),
    "truncated": ("z_volume", _npy(np.zeros((56, 64), np.uint8))[:-9]),
    "too long": ("z_volume", _npy(np.zeros((56, 64), np.uint8)) + b"more"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_bad_array_names_file_and_array(run: Path, case: str) -> None:
    name, data = BAD_ARRAYS[case]
    path = run / "segment" / "1407735_views.npz"
    with_bad = _members(run) | {f"{name}.npy": data}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in with_bad.items():
            archive.writestr(member, content)
    with pytest.raises(FormatError, match=rf"1407735_views\.npz: {name}"):
        write_report(run)


BAD_STEPS: dict[str, tuple[str, Any]] = {
    "no index": ("index", None),
    "vector index": ("index", np.arange(2)),
    "volume of three axes": ("volume", np.zeros((2, 3, 4))),
    "empty volume": ("volume", np.zeros((0, 4))),
    "masks of another shape": ("masks", np.zeros((4, 3, 3), np.uint8)),
    "one mask": ("masks", np.zeros((1, 20, 24), np.uint8)),
    "too many masks": ("masks", np.zeros((40, 20, 24), np.uint8)),
    "masks of two axes": ("masks", np.zeros((20, 24), np.uint8)),
    "float masks": ("masks", np.zeros((4, 20, 24))),
    "objects": ("masks", np.array([[[None]]])),
}


@pytest.mark.parametrize("case", BAD_STEPS)
def test_a_bad_array_of_steps_names_file_and_array(run: Path, case: str) -> None:  # R29, R54
    name, array = BAD_STEPS[case]
    path = run / "segment" / "1407735_steps.npz"
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    np.savez(path, **arrays)
    with pytest.raises(FormatError, match=rf"1407735_steps\.npz: {name}"):
        write_report(run)


BAD_MARKED: dict[str, tuple[str, Any]] = {
    "no reach": ("reach", None),
    "no found": ("x_found", None),
    "float index": ("z_index", np.float64(3)),
    "volume of three axes": ("z_volume", np.zeros((2, 3, 4), np.uint8)),
    "float mask": ("z_mask", np.zeros((20, 24))),
    "label of another shape": ("y_label", np.zeros((3, 3), np.uint8)),
    "marks of three columns": ("z_marks", np.zeros((4, 3), np.int32)),
    "float marks": ("z_marks", np.zeros((4, 4))),
    "too many marks": ("z_marks", np.zeros((20_001, 4), np.int8)),
    "a third side": ("z_marks", np.array([[2, 0, 0, 0]])),
    "a fourth dimension": ("z_marks", np.array([[0, 3, 0, 0]])),
    "a mark beyond": ("z_marks", np.array([[0, 0, 20, 0]])),
    "a negative mark": ("z_marks", np.array([[0, 0, 0, -1]])),
    "objects": ("z_marks", np.array([[None]])),
}


@pytest.mark.parametrize("case", BAD_MARKED)
def test_a_bad_array_of_marked_slices_names_file_and_array(run: Path, case: str) -> None:  # R45, R54
    name, array = BAD_MARKED[case]
    path = run / "validation" / "3281388561.npz"
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    np.savez(path, **arrays)
    with pytest.raises(FormatError, match=rf"3281388561\.npz: {name}"):
        write_report(run)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_marked_slices_are_named(run: Path, keep: float) -> None:  # R45, R54
    path = run / "validation" / "3281388561.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(FormatError, match=r"3281388561\.npz"):
        write_report(run)


@pytest.mark.parametrize("stem", ["views", "steps"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_npz_is_named(run: Path, keep: float, stem: str) -> None:
    path = run / "segment" / f"1407735_{stem}.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(FormatError, match=rf"1407735_{stem}\.npz"):
        write_report(run)


def test_a_damaged_npz_never_escapes_the_error_classes(run: Path) -> None:
    path = run / "segment" / "1407735_views.npz"
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        flipped = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            read_views(path)
        except VesuError as error:
            assert path.name in str(error)


def test_a_missing_layer_is_named(run: Path) -> None:
    members = _members(run)
    del members["y_uncertainty.npy"]
    with zipfile.ZipFile(run / "segment" / "1407735_views.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(FormatError, match="y_uncertainty: no such array"):
        write_report(run)


# ---- arguments, files, optional packages ----


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="accepted: a run folder"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="accepted: an existing folder"):
        write_report(tmp_path / "none")
    with pytest.raises(ArgumentError, match="run_folder"):
        write_report(3)  # type: ignore[arg-type]


def test_a_refused_write_leaves_nothing(run: Path) -> None:
    with pytest.raises(FileError, match="none"):
        write_report(run, run / "none" / "report.html")
    assert write_report(str(run), str(run / "other.html")) == run / "other.html"
    assert not list(run.glob("*.tmp")) and not (run / "report.html").exists()


@pytest.mark.parametrize("name", ["matplotlib", "matplotlib.figure", "jinja2", "PIL.Image"])
def test_a_missing_package_is_named_with_its_cure(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # what an absent package looks like to import
    with pytest.raises(MissingExtraError, match=r"pip install vesu\[report\]") as caught:
        write_report(run)
    assert isinstance(caught.value, ImportError) and not (run / "report.html").exists()


def test_importing_the_report_loads_no_optional_package() -> None:
    code = "import sys, vesu.report; print([m for m in ('matplotlib', 'jinja2', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
