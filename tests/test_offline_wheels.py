"""R06: a wheelhouse's manifest, and `vesu wheels manifest` and `check`."""

import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from vesu.cli import main
from vesu.errors import DataError, FileError, FormatError
from vesu.offline import MANIFEST_NAME, build_manifest, check_wheelhouse, read_manifest, read_wheel
from wheel_factory import make_wheel, write_manifest

OTHER_PYTHON = f"cp3{sys.version_info.minor + 1}-cp3{sys.version_info.minor + 1}-manylinux_2_17_x86_64"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder of wheels: vesu with what it needs installed, one that fits nobody here, one that needs another."""
    folder = tmp_path / "house"
    make_wheel(folder, "vesu", requires=["numpy>=1.26", "nothing-of-the-kind; extra == 'report'"])
    make_wheel(folder, "for-another", tags=[OTHER_PYTHON])
    make_wheel(folder, "on-top", requires=["beneath>=2"])
    make_wheel(folder, "beneath", "2.1")
    make_wheel(folder, "beneath", "1.0")
    write_manifest(folder)
    return folder


def test_the_manifest_says_what_the_wheels_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R06
    path = make_wheel(
        tmp_path,
        "a-package",
        "1.2.post1",
        tags=["py2-none-any", "py3-none-any"],
        requires=["numpy>=2"],
        requires_python=">=3",
    )
    make_wheel(tmp_path, "Zoo")
    assert main(["wheels", "manifest", str(tmp_path)]) == 0
    assert "2 wheels" in capsys.readouterr().out
    record = json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert record["format"] == "vesu-wheelhouse/1"
    assert [wheel["file"] for wheel in record["wheels"]] == sorted(wheel["file"] for wheel in record["wheels"])
    (wheel,) = [each for each in record["wheels"] if each["name"] == "a-package"]
    assert wheel == {
        "file": path.name,
        "name": "a-package",
        "version": "1.2.post1",
        "tags": ["py2-none-any", "py3-none-any"],
        "requires_python": ">=3",
        "requires": ["numpy>=2"],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
    }
    assert read_manifest(tmp_path) == build_manifest(tmp_path)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"file_tag": "cp311-abi3-manylinux_2_17_x86_64"}, "its name says the tags"),  # pip goes by the name
        ({"metadata_name": "other"}, "its METADATA other"),
    ],
)
def test_a_wheel_whose_name_lies_is_refused(tmp_path: Path, how: Any, said: str) -> None:  # R06
    with pytest.raises(FormatError, match=said):
        read_wheel(make_wheel(tmp_path, "liar", **how))


def test_what_is_no_whole_wheel_is_refused(tmp_path: Path) -> None:  # R06
    whole = make_wheel(tmp_path, "whole").read_bytes()
    cut = tmp_path / "cut-1.0-py3-none-any.whl"
    empty = tmp_path / "empty-1.0-py3-none-any.whl"
    cut.write_bytes(whole[: len(whole) // 2])
    zipfile.ZipFile(empty, "w").close()
    for path in (cut, empty):
        with pytest.raises(FormatError, match=f"{path.name}: not a whole wheel"):
            read_wheel(path)
    with pytest.raises(FormatError, match=r"accepted: NAME-VERSION"):
        read_wheel(tmp_path / "no_wheel.whl")
    with pytest.raises(FileError):
        read_wheel(tmp_path / "gone-1.0-py3-none-any.whl")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no wheel"):
        build_manifest(tmp_path / "none")


GOOD = {
    "file": "a-1-py3-none-any.whl",
    "name": "a",
    "version": "1",
    "tags": ["py3-none-any"],
    "requires_python": None,
    "requires": [],
    "sha256": "0" * 64,
    "size": 1,
}
BAD_FILES = ("../a.whl", "b/a.whl", "b\\a.whl", ".whl", "a.tar", "")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"format": "vesu-wheelhouse/2", "wheels": []}, "format 'vesu-wheelhouse/2'"),
        ([], "format None"),
        ({"format": "vesu-wheelhouse/1"}, "no list 'wheels'"),
        *[
            ([{**GOOD, "file": name}], "without a folder")
            for name in ("../a.whl", "b/a.whl", "b\\a.whl", ".whl", "a.tar", "")
        ],
        *[([{k: v for k, v in GOOD.items() if k != key}], f"the key '{key}' is missing") for key in GOOD],
        ([{**GOOD, "size": True}], "size"),
        ([{**GOOD, "sha256": "0" * 63 + "G"}], "sha256"),
        ([{**GOOD, "tags": []}], "tags"),
        ([GOOD, GOOD], "twice"),
        ([7], "an object"),
    ],
)
def test_a_manifest_is_refused_by_name(tmp_path: Path, record: Any, said: str) -> None:  # R06
    whole = {"format": "vesu-wheelhouse/1", "wheels": record} if isinstance(record, list) and record else record
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(whole))
    with pytest.raises(FormatError) as caught:
        read_manifest(tmp_path)
    assert said in str(caught.value) and MANIFEST_NAME in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:  # R06
    for text in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / MANIFEST_NAME).write_bytes(text)
        with pytest.raises(FormatError, match="not JSON"):
            read_manifest(tmp_path)
    with pytest.raises(FileError):
        read_manifest(tmp_path / "none")


def test_check_says_what_would_install_and_why_the_rest_not(  # R06
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wheels", "check", str(house)]) == 0
    said = {line.split()[1].rstrip(":"): line for line in capsys.readouterr().out.splitlines()[1:]}
    assert said["vesu-1.0-py3-none-any.whl"].startswith("installs")
    assert said["on_top-1.0-py3-none-any.whl"].endswith("with beneath-2.1-py3-none-any.whl")
    assert said["beneath-2.1-py3-none-any.whl"].startswith("installs")
    assert "2.1 of" in said["beneath-1.0-py3-none-any.whl"] and "is taken" in said["beneath-1.0-py3-none-any.whl"]
    other = next(line for file, line in said.items() if file.startswith("for_another"))
    assert other.startswith("rejected") and f"3.{sys.version_info.minor + 1}".replace("3.", "cp3") in other


def test_check_fails_where_what_is_needed_would_not_install(  # R06
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wheels", "check", str(house), "--need", "for-another"]) == 2
    assert "for-another: no wheel of it would install" in capsys.readouterr().err
    report = check_wheelhouse(house, ("vesu", "no-wheel-at-all"))
    assert not report.ok and "no-wheel-at-all" in report.faults[0]
    assert "no-wheel-at-all" in report._repr_html_() and "<table>" in report._repr_html_()


def test_check_fails_on_a_damaged_and_on_a_missing_file(house: Path) -> None:  # R06
    damaged, missing = house / "vesu-1.0-py3-none-any.whl", house / "beneath-1.0-py3-none-any.whl"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    missing.unlink()
    make_wheel(house, "stranger")
    report = check_wheelhouse(house)
    assert not report.ok
    reasons = {each.file: each.reason for each in report.wheels}
    assert "damaged: MANIFEST.json lists sha256" in reasons[damaged.name]
    assert "not there" in reasons[missing.name]
    assert "not in MANIFEST.json" in reasons["stranger-1.0-py3-none-any.whl"]
    assert any(damaged.name in fault for fault in report.faults)
    assert any("vesu: no wheel" in fault for fault in report.faults)


@pytest.mark.parametrize(
    ("wheel", "reason"),
    [
        ({"requires_python": "<3"}, "needs Python <3"),
        ({"requires_python": "three"}, "cannot be read"),
        ({"requires": ["numpy<1"]}, "is never replaced"),
        ({"requires": ["no-such-thing"]}, "neither installed nor to be had"),
        ({"requires": ["???"]}, "cannot be read"),
        ({"tags": ["py3-none-win_amd64"]}, "built for win_amd64"),
        ({"version": "x.y"}, "its version 'x.y' cannot be read"),
        ({"name": "numpy", "version": "99.0"}, "numpy is never installed from a wheelhouse"),
    ],
)
def test_a_wheel_is_rejected_for_its_reason(tmp_path: Path, wheel: Any, reason: str) -> None:  # R06
    make_wheel(tmp_path, **{"name": "candidate", **wheel})
    write_manifest(tmp_path)
    (checked,) = check_wheelhouse(tmp_path).wheels
    assert checked.status == "rejected" and reason in checked.reason


def test_needs_that_go_in_a_circle_end(tmp_path: Path) -> None:  # R06
    make_wheel(tmp_path, "one", requires=["two"])
    make_wheel(tmp_path, "two", requires=["one", "One>=0.5"])
    write_manifest(tmp_path)
    assert [each.status for each in check_wheelhouse(tmp_path).wheels] == ["installs", "installs"]
