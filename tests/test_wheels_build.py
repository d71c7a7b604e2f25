"""wheels-offline/: the lock is consistent, the build's parts do what they say, wheels hold nothing foreign (R06)."""

import importlib
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "wheels-offline"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


lock, audit, build = load("lock"), load("audit"), load("build")


def wheel(folder: Path, file: str, *requires: str) -> Path:
    """A wheel with METADATA and nothing else."""
    name, version = file.split("-")[:2]
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return folder / file


# ---- the lock ----


def test_the_lock_holds_what_the_image_lacks_and_nothing_that_it_has() -> None:  # R06
    pins = lock.read_lock()
    assert set(pins) == {"blake3", "imagecodecs", "monai", "typing-extensions"}
    assert not set(pins) & lock.NEVER
    assert pins["imagecodecs"].version == "2026.3.6"  # later ones want a newer numpy than the image's
    assert len(pins["blake3"].hashes) == len(lock.PYTHONS)  # one wheel for each Python: no abi3
    hashes = [one for pin in pins.values() for one in pin.hashes]
    assert len(hashes) == len(set(hashes)) >= len(pins)


def test_the_lock_is_as_the_script_writes_it() -> None:
    text = lock.HEADER + "".join(f"{pin}\n" for pin in lock.read_lock().values())
    assert lock.LOCK.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text",
    [
        "blake3>=1\n",
        "blake3==1 --hash=md5:00\n",
        "blake3==1 --hash=sha256:00\n",
        "blake3==1\nBlake3==1\n",
        "-r other\n",
    ],
)
def test_a_lock_that_does_not_pin_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(ValueError, match=r"is not NAME==VERSION|stands there twice"):
        lock.read_lock(tmp_path / "lock")


def test_fetched_wheels_are_held_against_the_lock(tmp_path: Path) -> None:  # R06
    good = wheel(tmp_path, "one-1.0-py3-none-any.whl")
    pins = {"one": lock.Pin("one", "1.0", (lock.sha256(good),))}
    assert list(lock.lock_problems([good], pins)) == []

    assert list(lock.lock_problems([], pins)) == [f"one==1.0: no wheel with sha256 {lock.sha256(good)}"]
    foreign = wheel(tmp_path, "two-1.0-py3-none-any.whl")
    assert "two-1.0-py3-none-any.whl: not in the lock" in next(iter(lock.lock_problems([foreign], pins)))
    numpy = wheel(tmp_path, "numpy-2.0.2-py3-none-any.whl")
    assert any("the image's own numpy must stay" in text for text in lock.lock_problems([good, numpy], pins))
    good.write_bytes(good.read_bytes() + b"\0")
    assert len(list(lock.lock_problems([good], pins))) == 2  # the file is not the locked one, which is missing


@pytest.mark.parametrize("right", [True, False])
def test_pip_takes_no_file_with_another_hash(tmp_path: Path, right: bool) -> None:  # R06
    folder, into = build.fresh(tmp_path / "from"), build.fresh(tmp_path / "into")
    one = wheel(folder, "one-1.0-py3-none-any.whl")
    pin = lock.Pin("one", "1.0", (lock.sha256(one) if right else "0" * 64,))
    (tmp_path / "lock").write_text(f"{pin}\n")
    options = ("--require-hashes", "--no-index", "--find-links", str(folder))
    if right:
        lock.download(tmp_path / "lock", "3.12", into, *options)
    else:
        with pytest.raises(subprocess.CalledProcessError):
            lock.download(tmp_path / "lock", "3.12", into, *options)
    assert [path.name for path in into.iterdir()] == ([one.name] if right else [])


@pytest.mark.parametrize(
    ("requires", "problem"),
    [
        ("numpy>=2.0", None),
        ("numpy>=2.1", "here is 2.0.2"),
        ("torch>=2.8", None),
        ("tifffile ; extra == 'all'", None),
        ("tifffile", "neither in the lock nor known of the image"),
        ("backports ; python_version < '3.11'", None),
        ("backports ; python_version < '3.12'", "neither in the lock"),
        ("Typing_Extensions>=4", "neither in the lock"),
    ],
)
def test_every_requirement_is_met_by_the_wheelhouse_or_the_image(
    tmp_path: Path, requires: str, problem: str | None
) -> None:
    found = list(lock.closure_problems([wheel(tmp_path, "one-1.0-py3-none-any.whl", requires)]))
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_a_wheel_meets_another_ones_requirement(tmp_path: Path) -> None:
    both = [
        wheel(tmp_path, "one-1.0-py3-none-any.whl", "Two.Parts>=4"),
        wheel(tmp_path, "two_parts-4.1-py3-none-any.whl"),
    ]
    assert list(lock.closure_problems(both)) == []


# ---- the build ----


def test_the_sources_are_all_that_the_build_reads_and_nothing_that_lies_about(tmp_path: Path) -> None:  # R06
    source = build.copy_sources(tmp_path / "source")
    project = tomllib.loads((source / "pyproject.toml").read_text())
    assert (source / project["project"]["readme"]).is_file()
    assert (source / project["tool"]["maturin"]["manifest-path"]).is_file()
    assert len(list(source.glob(project["project"]["license-files"][0]))) == 2
    assert (source / "Cargo.lock").is_file()  # the build is --locked
    files = [path for path in source.rglob("*") if path.is_file()]
    assert not {".so", ".pyc", ".whl", ".npz"} & {path.suffix for path in files}
    assert (source / "python" / "vesu" / "py.typed") in files
    assert not [path for path in files if path.name.startswith(".")]


def test_the_environment_does_not_reach_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTFLAGS", "-C target-cpu=native")
    monkeypatch.setenv("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-cpu=native")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    environment = build.build_environment(Path("/a folder/source"), Path("/t"))
    assert not any("native" in value for value in environment.values())
    assert "--remap-path-prefix=/a folder/source=/vesu" in environment["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
    assert environment["SOURCE_DATE_EPOCH"] == "315532800"
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert build.build_environment(Path("/s"), Path("/t"))["SOURCE_DATE_EPOCH"] == "1700000000"


def test_a_missing_target_is_said_unless_it_is_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(arch: str, source: Path, target_dir: Path, into: Path) -> Path:
        return into / f"{arch}.whl"

    monkeypatch.setattr(build, "build_vesu", pretend)
    monkeypatch.setattr(build, "has_target", lambda triple: triple.startswith("x86_64"))
    built, missing = build.build_all(tmp_path, tmp_path)
    assert list(built) == ["x86_64"]
    assert "rustup target add aarch64-unknown-linux-gnu" in missing["aarch64"]
    monkeypatch.setattr(build, "has_target", lambda triple: False)
    with pytest.raises(SystemExit, match="rustup target add x86_64"):
        build.build_all(tmp_path, tmp_path)


@pytest.mark.parametrize("same", [True, False])
def test_building_twice_compares_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    first = tmp_path / "vesu-1-x86_64.whl"
    first.write_bytes(b"first")
    umask_before = os.umask(0o022)

    def second(arch: str, source: Path, target_dir: Path, into: Path) -> Path:
        assert source != build.ROOT and (source / "Cargo.toml").is_file()
        (into / first.name).write_bytes(b"first" if same else b"other")
        return into / first.name

    monkeypatch.setattr(build, "build_vesu", second)
    assert build.build_again({"x86_64": first}, tmp_path / "work") == {"x86_64": same}
    assert os.umask(umask_before) == 0o022  # the caller's umask is back


def test_publishing_replaces_what_was_there_and_describes_it(tmp_path: Path) -> None:  # R06
    made, out = build.fresh(tmp_path / "made"), build.fresh(tmp_path / "out")
    wheel(out, "stale-1.0-py3-none-any.whl")
    (out / "README.md").write_text("stays")
    build.publish([wheel(made, "one-1.0-py3-none-any.whl")], out)
    assert sorted(path.name for path in out.iterdir()) == ["MANIFEST.json", "README.md", "one-1.0-py3-none-any.whl"]
    (entry,) = json.loads((out / "MANIFEST.json").read_text())["wheels"]
    assert entry["sha256"] == lock.sha256(out / "one-1.0-py3-none-any.whl")


# ---- the audit ----


def test_the_processor_is_read_from_the_library() -> None:
    library = next((ROOT / "python" / "vesu").glob("_core*.so"))
    assert audit.elf_machine(library.read_bytes()[:64]) == os.uname().machine
    assert audit.elf_machine(b"\x7fELF" + bytes(14) + (183).to_bytes(2, "little")) == "aarch64"
    with pytest.raises(ValueError, match="not an ELF"):
        audit.elf_machine(b"PK\x03\x04")


def test_instruction_sets_are_counted() -> None:
    text = (
        "\n0000000000001000 <.text>:\n"
        "    1000:\tc5 fc 57 c0          \tvxorps %ymm0,%ymm0,%ymm0\n"
        "    1004:\t62 f1 7c 48 57 c0    \tvxorps %zmm0,%zmm0,%zmm0\n"
        "    100a:\tc3                   \tret\n"
    )
    assert audit.count_instructions(text) == {"all": 3, "avx2": 1, "avx512": 1}


CLEAN = {
    "machine": "x86_64",
    "manylinux": "manylinux_2_17_x86_64",
    "told_folders": [],
    "instructions": {"all": 9, "avx2": 2, "avx512": 1},
}
STABLE = {"is_abi3": True, "is_abi3_baseline_compatible": True, "non_abi3_symbols": []}
INSIDE = ["vesu/__init__.py", "vesu/_core.abi3.so"]


def test_a_clean_wheel_has_no_problem() -> None:
    assert audit.problems(CLEAN, INSIDE, "x86_64", STABLE) == []


@pytest.mark.parametrize(
    ("found", "inside", "stable", "says"),
    [
        ({"machine": "aarch64"}, [], {}, "built for aarch64"),
        ({"manylinux": "manylinux_2_28_x86_64"}, [], {}, "wanted manylinux_2_17_x86_64"),
        ({"told_folders": ["vesu/_core.abi3.so"]}, [], {}, "folders of this machine stand in"),
        ({"instructions": {"all": 9, "avx2": 2, "avx512": 0}}, [], {}, "dispatch is missing"),
        ({}, ["vesu/_core.cpython-311-x86_64-linux-gnu.so"], {}, "libraries inside"),
        ({}, [], {"non_abi3_symbols": ["_PyLong_New"]}, "_PyLong_New"),
        ({}, [], {"is_abi3_baseline_compatible": False}, "abi3audit"),
    ],
)
def test_each_fault_of_a_wheel_is_named(
    found: dict[str, object], inside: list[str], stable: dict[str, object], says: str
) -> None:
    (problem,) = audit.problems(CLEAN | found, INSIDE + inside, "x86_64", STABLE | stable)
    assert says in problem


def test_a_folder_of_the_builder_is_found_in_a_wheel(tmp_path: Path) -> None:
    one = wheel(tmp_path, "one-1.0-py3-none-any.whl", "two @ file:///home/someone/two")
    with zipfile.ZipFile(one) as archive:
        assert audit.telling(archive, (Path("/home/someone"), Path("/nowhere"))) == ["one-1.0.dist-info/METADATA"]
        assert audit.telling(archive, (Path("/nowhere"),)) == []


def test_the_smoke_program_runs_every_path_of_this_machine() -> None:
    ran = audit.smoke(ROOT / "python")
    assert "scalar" in ran["search"]
    fused = {digest for path, digest in ran["search"].items() if path != "scalar"}
    assert len(fused) <= 1  # AVX2, AVX-512 and NEON give the same bits
    assert len(ran["kernels"]) == 64


def test_the_smoke_program_must_run_the_wheel_and_not_another_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The folder given holds no vesu; the development copy that the path finds later must not pass for it.
    monkeypatch.setattr(audit, "SMOKE", tmp_path / "smoke.py")
    (tmp_path / "smoke.py").write_text("""print('{"core": "/elsewhere/vesu/_core.abi3.so"}')""")
    with pytest.raises(RuntimeError, match="not what ran, but /elsewhere"):
        audit.smoke(tmp_path / "site")


# ---- the folder ----


def test_tools_are_pinned_and_binaries_stay_out_of_the_history() -> None:
    tools = [line for line in (FOLDER / "tools.txt").read_text().splitlines() if not line.startswith("#")]
    assert {Requirement(line).name for line in tools} >= {"maturin", "ziglang", "auditwheel", "abi3audit"}
    assert all(str(Requirement(line).specifier).startswith("==") for line in tools)
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"/wheels-offline/*.whl", "/wheels-offline/MANIFEST.json"} <= set(ignored)


def test_the_recipes_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\nwheels: " in makefile and "\nwheels-twice: " in makefile
    assert "wheels-offline/build.py --twice" in makefile


def test_the_wheel_tells_no_source_folder() -> None:
    """maturin's list of crates holds the path of the folder that it was built in: two builds would differ."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["maturin"]["sbom"] == {"rust": False}
