"""The HTML report: what it says, what it refuses, that hostile text stays text, and how it looks in a browser."""

import html
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vesu.errors import ArgumentError, DataError, FileError, FormatError, VesuError
from vesu.report import MissingExtraError, write_report
from vesu.report.pictures import make_gallery
from vesu.report.training import read_events
from vesu.report.views import View, read_views


def _sibling(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


builder = _sibling("make_run_folder")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = builder.make_run_folder(tmp_path_factory.mktemp("made") / "run")
    return folder


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = builder.Spec(n_volumes=1, shape=(16, 20, 24), neurons=2, iterations=3)
    folder: Path = builder.make_run_folder(tmp_path_factory.mktemp("light") / "run", spec)
    return folder


@pytest.fixture
def run(light: Path, tmp_path: Path) -> Path:
    """A small run folder of the test's own, to damage."""
    return Path(shutil.copytree(light, tmp_path / "run"))


@pytest.fixture(scope="module")
def page(made: Path) -> "Page":
    return Page(write_report(made, made.parent / "report.html"))


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._style = False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub("[ \n]+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


# ---- what it says ----


def test_outcome_evidence_and_baselines_are_told(made: Path, page: Page) -> None:  # item 10, R34
    summary = json.loads((made / "summary.json").read_text())
    for fact in (
        "finished",
        "0.712",
        "0.739",
        "0.553",
        "5.19\u202f%",
        "5.83\u202f%",
        "2\u00a0min 33\u00a0s",
        "F1 0.304 above the best trivial baseline (intensity quantile, 0.408)",
        "All background",
        "3281388561",
        summary["submission"]["sha256"],
        "the digest matches",
        "vesu check-submission submission.zip",
        summary["ledger"]["root"],
        "verifies, and its root is the recorded one",
        "vesu ledger verify events.jsonl",
        "1407735.tif",
        "ORPHAN_IMAGE",
        "41.2 GiB free",
        "Example CPU @ 3.8 GHz",
        "train_images/99.tif",
        '"meta_neurons": 9',
    ):
        assert fact in page.text, fact
    assert page.text.index("Validation F1") < page.text.index("1415654") < page.text.index("Leaderboard")


def test_every_volume_is_pictured_in_three_axes(page: Page) -> None:  # R30, item 10
    images = page.all("img")
    assert len(images) == 2 * 3 * 4
    for image in images:
        assert (image["src"] or "").startswith("data:image/jpeg;base64,")
        assert len(image["alt"] or "") > 20
    alts = " ".join(image["alt"] or "" for image in images)
    assert all(f"volume 1407735, slice {axis} = " in alts for axis in "zyx")
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(charts) == 2 + 5  # density of two volumes; heat map, three training charts, phases
    assert all(len(chart["aria-label"] or "") > 30 for chart in charts)


def test_the_full_leaderboard_is_there(made: Path, page: Page) -> None:  # R13
    rows = json.loads((made / "leaderboard.json").read_text())
    assert page.source.count(f"<td>{rows[0]['objective']:.4f}</td>") >= 2  # the top table and the full one
    assert all(f"<tr><td>{row['rank']}</td><td>{row['candidate']}</td>" in page.source for row in rows[1:])
    assert "All 135 candidates" in page.text
    heat = next(svg["aria-label"] or "" for svg in page.all("svg") if "Objective of" in (svg.get("aria-label") or ""))
    assert "134 candidates" in heat and f"best at neuron {rows[0]['neuron']}" in heat  # one diverged


TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "nav", "div", "p",
    "span", "b", "i", "h1", "h2", "h3", "h4", "a", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd",
    "ul", "li", "code", "pre", "details", "summary", "figure", "figcaption", "img", "svg", "g", "defs", "path",
    "text", "use", "clippath", "rect", "image", "tspan",
}  # fmt: skip


def test_nothing_is_loaded_and_nothing_runs(page: Page) -> None:
    assert {tag for tag, _ in page.tags} <= TAGS
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("#", "data:image/")), (tag, value)
    assert "url(http" not in page.source and "@import" not in page.source


def test_the_same_folder_gives_the_same_bytes(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run, run / "again.html").read_bytes()


def test_losing_to_a_baseline_is_said(run: Path) -> None:  # R54
    edit(run / "summary.json", lambda s: s["validation"].update(f1=0.3))
    assert "F1 0.108 below the best trivial baseline" in Page(write_report(run)).text


def test_a_changed_submission_is_noticed(run: Path) -> None:  # R54
    with (run / "submission.zip").open("ab") as file:
        file.write(b"!")
    assert "submission.zip differs from the recorded digest" in Page(write_report(run)).text


def test_a_changed_ledger_is_noticed(run: Path) -> None:  # R38
    path = run / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b'"epoch":0', b'"epoch":1')
    path.write_bytes(b"".join(lines))
    assert "does not verify" in Page(write_report(run)).text


def test_a_ledger_that_went_on_is_told_apart(run: Path) -> None:  # R38
    edit(run / "summary.json", lambda s: s["ledger"].update(entries=7))
    assert "entries where 7 are recorded" in Page(write_report(run)).text


def test_a_torn_last_line_is_told_not_fatal(run: Path) -> None:  # R38
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"TRAIN_ITER')
    assert "The last line of events.jsonl is torn" in Page(write_report(run)).text


def test_a_failed_run_says_so_first(run: Path) -> None:
    (run / "summary.json").unlink()
    (run / "failure.json").write_text(json.dumps({"error": "DataError", "message": "no pairs"}))
    text = Page(write_report(run)).text
    assert text.index("The run failed") < text.index("DataError: no pairs") < text.index("Validation")


def test_training_curves_summarise_every_record(made: Path) -> None:  # R51
    events = read_events(made / "events.jsonl", winner=3)
    assert events is not None and events.training is not None
    records = [json.loads(line) for line in (made / "events.jsonl").read_text().splitlines()]
    records = [record for record in records if record["event"] == "TRAIN_ITERATION"]
    assert events.training.n_records == len(records) == 135 * 30 == events.counts["TRAIN_ITERATION"]
    losses = [[r["loss"] for r in records if r["iter"] == i and r["loss"] is not None] for i in range(1, 31)]
    curve = events.training.curves["loss"]
    assert curve.minimum.tolist() == [min(values) for values in losses]
    assert curve.maximum.tolist() == [max(values) for values in losses]
    assert curve.median.tolist() == [np.median(values) for values in losses]
    assert curve.winner is not None
    assert curve.winner.tolist() == [r["loss"] for r in records if r["candidate"] == 3]
    assert events.training.n_not_finite == 15


# ---- many volumes, large slices ----


def test_many_volumes_keep_the_page_small(tmp_path: Path) -> None:
    folder = builder.make_run_folder(
        tmp_path / "run", builder.Spec(n_volumes=20, shape=(12, 12, 12), neurons=1, iterations=2)
    )
    rng = np.random.default_rng(0)
    noise = {f"{axis}_{layer}": rng.random((320, 320), np.float32) for axis in "zyx" for layer in
             ("probability", "uncertainty")}  # fmt: skip
    for axis in "zyx":
        noise |= {f"{axis}_index": np.int64(160), f"{axis}_mask": rng.integers(0, 2, (320, 320), np.uint8)}
        noise[f"{axis}_volume"] = rng.integers(0, 256, (320, 320), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **noise)
    for path in sorted((folder / "segment").glob("*.npz")):
        path.write_bytes(buffer.getvalue())
    out = write_report(folder)
    page = Page(out)
    assert out.stat().st_size < 10e6  # the worst case: nothing but noise
    assert len(page.all("img")) == 12 * 3 * 4
    assert "Pictures of the first 12 of 20 volumes" in page.text and "of their size" in page.text
    assert all(str(1407735 + 7919 * number) in page.text for number in range(20))


def _view(shape: tuple[int, int], value: float = 0.5) -> View:
    plain = np.full(shape, value, np.float32)
    return View("z", 0, plain.astype(np.uint8), plain, plain > 1, plain)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 7)])
@pytest.mark.parametrize("value", [0.0, 0.5, float("nan")])
def test_odd_slices_are_drawn(shape: tuple[int, int], value: float) -> None:
    with np.errstate(invalid="ignore"):
        view = _view(shape, value)
    gallery = make_gallery([("a", [view])], budget_bytes=1)  # reduced as far as it goes
    assert len(gallery.rows[0][0].panels) == 4


# ---- hostile text ----

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% raw %}", "$\\frac{$", "</style><b>",
    "javascript:alert(1)", "\ud800\u202e\x00",
)  # fmt: skip


def test_hostile_text_is_inert_everywhere(tmp_path: Path) -> None:
    folder = builder.make_run_folder(
        tmp_path / "run", builder.Spec(ids=HOSTILE[:1], shape=(12, 12, 12), neurons=1, iterations=2)
    )

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


# ---- what is missing ----

PARTS = {
    "summary.json": "Validation scores: not recorded",
    "config.json": "Configuration: not recorded",
    "events.jsonl": "Loss by iteration: not recorded",
    "inventory.json": "Orphans",
    "preflight.json": "Preflight: not recorded",
    "leaderboard.json": "Leaderboard: not recorded",
    "submission.zip": "submission.zip is not in this folder",
    "segment": "Segmented volumes: not recorded",
    "masks": "1407735",
}


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_is_not_invented(run: Path, name: str) -> None:  # R54
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert PARTS[name] in Page(write_report(run)).text


@pytest.mark.parametrize("name", sorted(set(PARTS) - {"submission.zip", "masks", "segment"}))
def test_one_file_alone_is_enough(run: Path, tmp_path: Path, name: str) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run / name, alone / name)
    assert "not recorded" in Page(write_report(alone)).text


def test_missing_fields_and_views_are_not_invented(run: Path) -> None:  # R54
    edit(
        run / "summary.json",
        lambda s: {"status": None, "validation": {}, "submission": {}, "ledger": {}, "phases": [{}]},
    )
    edit(run / "leaderboard.json", lambda rows: [{}, {"rank": 1}])
    edit(run / "preflight.json", lambda p: {"findings": [{}]})
    for path in (run / "segment").glob("*.json"):
        path.write_text("{}")
    for path in (run / "segment").glob("*.npz"):
        path.unlink()
    text = Page(write_report(run)).text
    for words in ("status not recorded", "Slices of this volume: not recorded", "Density by slice: not recorded"):
        assert words in text
    assert "nan" not in text.lower().split() and "None" not in text.split()


# ---- what is malformed ----


@pytest.mark.parametrize("name", ["summary.json", "config.json", "inventory.json", "preflight.json", "leaderboard.json",
                                  "segment/1407735.json", "failure.json"])  # fmt: skip
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
        ("summary.json", {"started_ns": True}, "started_ns"),
        ("segment/1407735.json", {"ink_ratio_by_slice": ["x"]}, "ink_ratio_by_slice: 0: got 'x'"),
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


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_npz_is_named(run: Path, keep: float) -> None:
    path = run / "segment" / "1407735_views.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(FormatError, match=r"1407735_views\.npz"):
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


# ---- in a browser ----

# A headless window has a least width, a frame has none: the page is measured, all unfolded, in a frame.
PROBE = """<script>
const root = document.documentElement;
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const inside = [...document.querySelectorAll("main *")].filter((each) => !each.closest(".scroll, pre, svg"));
const right = Math.max(...inside.map((each) => each.getBoundingClientRect().right));
parent.document.documentElement.dataset.probe = [innerWidth, root.scrollWidth, right].join(" ");
</script>"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine: the page is not looked at (apt-get install chromium)")
    profile = tmp_path_factory.mktemp("profile")

    def browse(page: Path, *options: str) -> str:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   f"--user-data-dir={profile}", *options, page.as_uri()]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            pytest.skip(f"chromium does not start here: {done.stderr[-300:]}")
        return done.stdout

    yield browse


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(run: Path, chromium: Callable[..., str], width: int) -> None:
    long_id = "a" * 300
    edit(run / "segment" / "1407735.json", lambda v: v.update(volume_id=long_id))
    edit(run / "summary.json", lambda s: s.update(run_id=long_id))
    edit(run / "preflight.json", lambda p: p["findings"][0].update(path=long_id, message=long_id))
    source = write_report(run).read_text(encoding="utf-8")
    probed = run / "probed.html"
    framed = html.escape(source.replace("http-equiv=", "data-was=").replace("</body>", PROBE + "</body>"))
    frame = f'<!doctype html><iframe width="{width}" height="900" style="border:0" srcdoc="{framed}"></iframe>'
    probed.write_text(frame, encoding="utf-8")
    dom = chromium(probed, "--window-size=1600,1000", "--dump-dom")
    inner, scroll, right = (float(value) for value in dom.split('data-probe="')[1].split('"')[0].split())
    assert inner == width
    assert scroll <= inner and right <= inner, (inner, scroll, right)


def test_the_page_is_drawn_in_light_and_dark(run: Path, tmp_path: Path, chromium: Callable[..., str]) -> None:
    from matplotlib.image import imread

    page = write_report(run)
    brightness = {}
    for scheme, code in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        options = (f"--blink-settings=preferredColorScheme={code}", "--window-size=1280,1600")
        chromium(page, *options, f"--screenshot={picture}")
        pixels = imread(picture)[..., :3]
        assert len(np.unique((pixels[::4, ::4] * 255).astype(int).reshape(-1, 3), axis=0)) > 500  # not blank
        brightness[scheme] = float(pixels[:, :40].mean())  # the page's margin
    assert brightness["dark"] < 0.2 < 0.8 < brightness["light"]
