"""The HTML report as a browser draws it; skips aloud where there is no Chromium."""

import html
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from report_page import edit, light_fixture, run_fixture  # noqa: F401 (found by name)
from vesu.report import write_report

# A headless window has a least width, a frame has none: the page is measured, all unfolded, in a frame.
PROBE = """<script>
const root = document.documentElement;
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const inside = [...document.querySelectorAll("main *")].filter((each) => !each.closest(".scroll, pre, svg"));
const right = Math.max(...inside.map((each) => each.getBoundingClientRect().right));
const letters = [...document.querySelectorAll("svg text")].map((each) => {
  const svg = each.ownerSVGElement;
  return parseFloat(getComputedStyle(each).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
});
parent.document.documentElement.dataset.probe = [innerWidth, root.scrollWidth, right, Math.min(...letters)].join(" ");
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
    inner, scroll, right, letter = (float(value) for value in dom.split('data-probe="')[1].split('"')[0].split())
    assert inner == width
    assert scroll <= inner and right <= inner, (inner, scroll, right)
    assert 8 <= letter <= 16  # of every chart, in pixels of the screen


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
