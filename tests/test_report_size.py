"""One page stays one page: 120 volumes, a contact sheet of them, and folders that no run would leave."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from make_run_folder import Spec, make_run_folder, sheets
from report_page import Page, edit, light_fixture, plain_fixture, run_fixture, unpictured_fixture  # noqa: F401 (found by name)
from vesu.report import write_report
from vesu.report.contact import by_density, contact_sheet, spread
from vesu.report.limits import MAX_PAGE_BYTES, Limits
from vesu.report.loader import load_run
from vesu.report.pictures import MAX_SIDE, fitted, make_gallery
from vesu.report.views import View

SIZE = 320


def large_views() -> dict[str, Any]:
    """Slices of a full-size volume: sheets, made one slice thin."""
    views: dict[str, Any] = {}
    for axis, name in enumerate("zyx"):
        shape = tuple(1 if each == axis else SIZE for each in range(3))
        made = sheets(shape, np.random.default_rng(axis))  # type: ignore[arg-type]
        views[f"{name}_index"] = np.int64(160)
        for layer in ("volume", "probability", "mask", "uncertainty"):
            views[f"{name}_{layer}"] = made[layer].take(0, axis)
    return views


def test_a_hundred_and_twenty_volumes_are_one_page(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", Spec(n_volumes=120, shape=(8, 8, 8), neurons=9, iterations=2))
    views = large_views()
    first, *others = sorted((folder / "segment").glob("*_views.npz"))
    np.savez(first, **views)
    masks = np.stack([views["z_mask"]] * 7)
    steps = [path.with_name(path.name.replace("_views", "_steps")) for path in (first, *others)]
    np.savez(steps[0], index=np.int64(160), volume=views["z_volume"], masks=masks)
    for number, path in enumerate(others, start=1):
        path.unlink()
        path.hardlink_to(first)
        steps[number].unlink()
        steps[number].hardlink_to(steps[0])
    for number, path in enumerate(sorted((folder / "segment").glob("*.json"))):
        by_slice = np.full(SIZE, number / 1000).tolist()
        edit(path, lambda v, by=by_slice, n=number: v.update(ink_ratio_global=n / 1000, ink_ratio_by_slice=by))
    out = write_report(folder)
    page = Page(out)
    assert out.stat().st_size <= MAX_PAGE_BYTES < 10e6
    assert len(page.all("img")) == 120 + 12 * (3 * 4 + 6) + 3
    assert "12 of 120 volumes in full" in page.text
    densities = [svg for svg in page.all("svg") if (svg.get("aria-label") or "").startswith("Surface density of 120")]
    assert len(densities) == 1
    links = [link["href"] for link in page.all("a") if (link["href"] or "").startswith("#volume-")]
    assert links == [f"#volume-{number}" for number in range(12)]  # the sheet's order is that of the full pictures


def test_the_sparsest_and_the_densest_are_among_the_pictured(run: Path) -> None:  # R30
    (volume,) = load_run(run).volumes
    many = [dataclasses.replace(volume, volume_id=str(n), ink_ratio_global=(7 * n % 30) / 30) for n in range(30)]
    shown = [each.ink_ratio_global for each in spread(many, 12)]
    assert shown == sorted(shown) and len(set(shown)) == 12  # type: ignore[type-var]
    assert (shown[0], shown[-1]) == (0.0, 29 / 30)
    assert spread(many[:12], 12) == many[:12]
    unknown = dataclasses.replace(volume, ink_ratio_global=None)
    assert by_density([volume, unknown]) == [unknown, volume]


def test_a_volume_without_slices_is_on_the_sheet_all_the_same(run: Path) -> None:
    (volume,) = load_run(run).volumes
    gone = dataclasses.replace(volume, views_path=run / "none.npz")
    (without, with_it) = contact_sheet([gone, volume])
    assert without.picture is None and with_it.picture is not None
    assert max(with_it.picture.width, with_it.picture.height) <= 112


def test_a_picture_is_never_larger_than_the_page_can_show() -> None:
    ((_, width, height),), scale = fitted([np.zeros((4, 9000, 3), np.uint8)], 10**6)
    assert (width, height, scale) == (MAX_SIDE, 1, 1.0)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    encoded, scale = fitted([noise] * 3, 60_000)
    assert sum(len(data) for data, _, _ in encoded) <= 60_000 and scale < 1


@pytest.mark.parametrize("letter", ["a", "<", "\u202e"])
def test_a_folder_beyond_all_measure_still_gives_a_page(plain: Path, letter: str) -> None:  # R54
    long = 300 * letter
    findings = [{"code": long, "severity": "warning", "path": long, "message": long, "n": n} for n in range(4000)]
    (plain / "preflight.json").write_text(json.dumps({"findings": findings}))
    edit(plain / "summary.json", lambda s: s["submission"].update(members=[{"name": long}] * 4000))
    edit(plain / "summary.json", lambda s: s.update(machine={f"{long}{n}": long for n in range(3000)}))
    edit(plain / "inventory.json", lambda v: v.update(orphan_images=[long] * 6000))
    out = write_report(plain)
    assert out.stat().st_size <= MAX_PAGE_BYTES
    assert "cut here, the file holds the rest" in out.read_text(encoding="utf-8")


def test_many_volumes_keep_the_page_small(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", Spec(n_volumes=20, shape=(12, 12, 12), neurons=1, iterations=2))
    rng = np.random.default_rng(0)
    noise = {f"{axis}_{layer}": rng.random((320, 320), np.float32) for axis in "zyx" for layer in
             ("probability", "uncertainty")}  # fmt: skip
    for axis in "zyx":
        noise |= {f"{axis}_index": np.int64(160), f"{axis}_mask": rng.integers(0, 2, (320, 320), np.uint8)}
        noise[f"{axis}_volume"] = rng.integers(0, 256, (320, 320), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **noise)
    for path in sorted((folder / "segment").glob("*_views.npz")):
        path.write_bytes(buffer.getvalue())
    steps = {"index": np.int64(160), "volume": noise["z_volume"], "masks": rng.integers(0, 2, (4, 320, 320), np.uint8)}
    for path in sorted((folder / "segment").glob("*_steps.npz")):
        np.savez(path, **steps)
    out = write_report(folder)
    page = Page(out)
    assert out.stat().st_size < 10e6  # the worst case: nothing but noise
    assert len(page.all("img")) == 20 + 12 * (3 * 4 + 3) + 3  # the contact sheet, twelve in full, the unmatched
    assert "12 of 20 volumes in full" in page.text and "of their size" in page.text
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


def test_limits_end_somewhere() -> None:
    limits = Limits()
    seen = 0
    while not limits.tightest:
        limits, seen = limits.tightened(), seen + 1
    assert seen < 10 and limits.rows == 8
