"""R06: from a package that is needed to one that is importable, or to every reason why not."""

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vesu.offline import OfflineError, Resolution, require, resolve
from vesu.offline import resolver as module_under_test
from vesu.offline.install import Outcome, run_python
from wheel_factory import make_wheel, write_manifest

NEXT = f"cp3{sys.version_info.minor + 1}"


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What a test adds to the path is gone after it; no folder of this machine's user is touched."""
    before = list(sys.path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VESU_WHEELHOUSE", raising=False)
    yield
    sys.path[:] = before


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Resolution]:
    def ask(package: str, **how: Any) -> Resolution:
        given = {"kaggle_root": tmp_path / "input", "target": tmp_path / "target"}
        return resolve(package, **{**given, **how})

    return ask


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return tmp_path / "input/datasets/owner/wheels"


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip is replaced by a record of what it was asked: it succeeds and leaves the module that was asked for."""
    asked: list[list[str]] = []

    def install(plan: Any, place: Path, limit_s: float) -> Outcome:
        asked.append([offer.path.name for offer in plan.wheels])
        place.mkdir(parents=True)
        for offer in plan.wheels:
            module = offer.wheel.name.replace("-", "_")
            broken = "raise ImportError('broken')" if offer.wheel.version.endswith(".666") else ""
            (place / f"{module}.py").write_text(f"__version__ = {offer.wheel.version!r}\n{broken}")
        return Outcome(True, "", 0.0)

    monkeypatch.setattr(module_under_test, "install", install)
    return asked


def names(found: Resolution) -> list[str]:
    return [name for name, _ in found.decisions]


def test_what_is_importable_is_left_alone(ask: Callable[..., Resolution], house: Path) -> None:  # R06
    make_wheel(house, "numpy", "99.0")
    write_manifest(house)
    found = ask("numpy")
    assert (found.status, found.folder, found.searched) == ("present", None, ())
    assert names(found) == ["OFFLINE_PRESENT", "OFFLINE_RESOLVED"]


def test_a_package_is_installed_from_kaggles_mounts(  # R06
    ask: Callable[..., Resolution], house: Path, tmp_path: Path
) -> None:
    """With pip itself, with what the wheel needs, every decision told; a second process finds it installed."""
    make_wheel(house, "vesu-probe-top", requires=["vesu-probe-below>=1"], body="import vesu_probe_below\n")
    make_wheel(house, "vesu-probe-below", "1.5")
    write_manifest(house)
    heard: list[str] = []
    found = ask("vesu-probe-top", emit=lambda name, fields: heard.append(name))
    assert found.status == "installed", found
    steps = ["SEARCH", "WHEEL_CHOSEN", "INSTALL", "IMPORT_CHECK", "PATH_ADDED", "RESOLVED"]
    assert names(found) == heard == [f"OFFLINE_{step}" for step in steps]
    assert found.folder is not None and found.folder.is_relative_to(tmp_path / "target")
    assert sys.path[-1] == str(found.folder)
    assert importlib.import_module("vesu_probe_top").__version__ == "1.0"
    del sys.modules["vesu_probe_top"]
    sys.path.remove(str(found.folder))
    again = ask("vesu-probe-top")
    assert (again.status, again.folder) == ("installed", found.folder)
    assert "OFFLINE_INSTALL" not in names(again)
    assert [each.name for each in found.folder.parent.iterdir()] == [found.folder.name]  # nothing half-made beside it


def test_of_two_versions_the_newest_that_fits(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]]
) -> None:
    make_wheel(house, "vesu-probe", "1.10")
    make_wheel(house, "vesu-probe", "1.9")
    make_wheel(house, "vesu-probe", "2.0", tags=[f"{NEXT}-{NEXT}-manylinux_2_17_x86_64"])
    make_wheel(house, "vesu-probe", "3.0", requires_python="<3")
    write_manifest(house)
    found = ask("vesu-probe")
    assert (found.status, found.version) == ("installed", "1.10")
    reasons = {each.path.name.split("-")[1]: each.reason for each in found.rejections}
    assert reasons.keys() == {"1.9", "2.0", "3.0"}
    assert "1.10 of" in reasons["1.9"]
    assert f"built for the Pythons {NEXT}" in reasons["2.0"] or "built for" in reasons["2.0"]
    assert "needs Python <3" in reasons["3.0"]
    assert names(found).count("OFFLINE_WHEEL_REJECTED") == 3


def test_a_wheel_that_cannot_be_imported_gives_way_to_the_next(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]], tmp_path: Path
) -> None:
    make_wheel(house, "vesu-probe", "2.666")
    make_wheel(house, "vesu-probe", "1.0")
    write_manifest(house)
    found = ask("vesu-probe")
    assert (found.status, found.version) == ("installed", "1.0")
    assert len(no_pip) == 2
    (rejected,) = found.rejections
    assert rejected.reason == "installed, it cannot be imported: ImportError: broken"
    assert not list((tmp_path / "target").rglob("vesu-probe-2.666*"))  # what failed leaves no trace


def test_a_wrong_hash_is_never_installed(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]]
) -> None:
    good, bad = make_wheel(house, "vesu-probe", "1.0"), make_wheel(house, "vesu-probe", "2.0")
    write_manifest(house)
    make_wheel(house, "vesu-probe", "2.0", body="ANSWER = 666\n")
    found = ask("vesu-probe")
    assert (found.version, found.wheel) == ("1.0", good)
    assert "damaged: MANIFEST.json lists sha256" in {each.path: each.reason for each in found.rejections}[bad]
    assert no_pip == [[good.name]]


def test_no_wheel_fits_and_everything_is_said(  # R06
    ask: Callable[..., Resolution], house: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_wheel(house, "vesu-probe", tags=["py3-none-win32"])
    monkeypatch.setenv("VESU_WHEELHOUSE", str(tmp_path / "nowhere"))
    found = ask("vesu-probe", wheelhouse=tmp_path / "given")
    assert found.status == "unavailable"
    with pytest.raises(OfflineError) as caught:
        found.raise_if_unavailable()
    said = str(caught.value)
    for part in ("given", "nowhere", "VESU_WHEELHOUSE", str(house), "win32", "no such folder", "vesu_probe"):
        assert part in said
    assert "win32" in found._repr_html_()
    with pytest.raises(OfflineError, match="no wheel of it was found"):
        require("vesu-probe-other", kaggle_root=tmp_path / "input")
    assert isinstance(caught.value, ImportError)


def test_a_target_that_cannot_be_written_gives_way_to_the_users_own(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]], tmp_path: Path
) -> None:
    make_wheel(house, "vesu-probe")
    write_manifest(house)
    (tmp_path / "file").write_text("no folder")
    found = ask("vesu-probe", target=tmp_path / "file")
    assert found.folder is not None and found.folder.is_relative_to(tmp_path / "cache/vesu/packages")
    refused = [fields for name, fields in found.decisions if name == "OFFLINE_TARGET_REFUSED"]
    assert [each["folder"] for each in refused] == [str(tmp_path / "file")] and "cannot be written" in refused[0][
        "reason"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a folder that it cannot write to itself")
def test_a_read_only_mount(tmp_path: Path) -> None:  # R06
    """A mount that is read-only for root too, as /kaggle/input is: in a namespace of its own."""
    program = "from vesu.offline.install import refusal; import pathlib, sys; print(refusal(pathlib.Path(sys.argv[1])))"
    mounted = f"mount -t tmpfs none {tmp_path} && mount -o remount,ro {tmp_path}"
    script = f'{mounted} && exec {sys.executable} -c "$0" {tmp_path}'
    answer = subprocess.run(["unshare", "-m", "sh", "-c", script, program], capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip(f"no mount namespace here: {answer.stderr.strip()[-100:]}")
    assert "Read-only file system" in answer.stdout


def test_pip_is_ended_after_its_time(  # R06
    ask: Callable[..., Resolution], house: Path, tmp_path: Path
) -> None:
    make_wheel(house, "vesu-probe")
    write_manifest(house)
    found = ask("vesu-probe", install_s=0.01)
    assert found.status == "unavailable"
    assert "ended after 0.01 s" in found.rejections[-1].reason
    assert not [path for path in (tmp_path / "target").rglob("*") if path.is_file()]


def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:  # R06
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(mark)!r}).touch()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    outcome = run_python(["-c", program], 0.4)
    assert not outcome.ok and "ended after 0.4 s" in outcome.text
    time.sleep(1.6)
    assert not mark.exists()


def test_an_installed_version_is_never_replaced(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]]
) -> None:
    """numpy 1 is needed, and a wheel of it is there: the numpy that is installed stays."""
    make_wheel(house, "vesu-probe", requires=["numpy<1"])
    make_wheel(house, "numpy", "0.9")
    write_manifest(house)
    found = ask("vesu-probe")
    assert found.status == "unavailable" and no_pip == []
    assert "is installed, and is never replaced" in found.rejections[0].reason


def test_installed_but_broken_is_said_and_not_installed_over(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/vesu_probe.py").write_text("import no_such_thing")
    sys.path.append(str(tmp_path / "site"))
    make_wheel(house, "vesu-probe")
    write_manifest(house)
    found = ask("vesu-probe")
    assert found.status == "unavailable" and no_pip == []
    assert "No module named 'no_such_thing'" in str(found)


def test_threads_that_need_one_package_install_it_once(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]]
) -> None:
    make_wheel(house, "vesu-probe")
    write_manifest(house)
    found: list[Resolution] = []
    threads = [threading.Thread(target=lambda: found.append(ask("vesu-probe"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.status for each in found) == ["installed", "present", "present"]
    assert len(no_pip) == 1


def test_without_a_manifest_a_wheel_describes_itself(  # R06
    ask: Callable[..., Resolution], house: Path, no_pip: list[list[str]]
) -> None:
    make_wheel(house, "vesu-probe")
    found = ask("vesu-probe")
    assert found.status == "installed"
    (chosen,) = [fields for name, fields in found.decisions if name == "OFFLINE_WHEEL_CHOSEN"]
    assert chosen["verified"] == ["no manifest"]
    (house / "MANIFEST.json").write_text("{}")  # a manifest that is refused vouches for nothing
    sys.path.pop()
    refused = ask("vesu-probe", target=house.parent / "elsewhere")
    assert refused.status == "unavailable" and "not used" in refused.rejections[0].reason
