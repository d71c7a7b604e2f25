"""vesu installs and runs from a folder of wheels without a network (R06), on one Python; `make wheels-test` has all."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vesu
from offline import images, interpreters, sandbox
from offline.cases import SETTINGS, Case, Outcome, generate, run_session
from offline.interpreters import Interpreter
from offline.pack import pack, stale_members
from offline.results import problems, summarise, table
from offline.session import STEPS, Session, perform
from offline.zstd_tiff import encode, zstd_frame

WITHOUT_OTHER_WHEELS = [step for step in STEPS if step not in ("check_wheels", "meet_a_compression")]
"""What needs a wheelhouse with more than vesu in it is proved by `make wheels-test`."""


@pytest.fixture(scope="module")
def namespaces() -> tuple[str, ...]:
    """How a network namespace is made here; the test skips aloud where none may be."""
    try:
        return sandbox.form()
    except sandbox.Refused as error:
        pytest.skip(str(error))


def outcome(case: str = "3.12-kaggle", mask: str = "a" * 64, failed: dict[str, str] | None = None) -> Outcome:
    steps = {"hash_results": {"sha256": {"masks/1.tif": mask}, "seconds": 0.1}}
    return Outcome(case, "3.12.1", "kaggle", "folder", steps=steps, failed=failed)


def test_the_wheel_runs_without_a_network(namespaces: tuple[str, ...], tmp_path: Path) -> None:  # R06
    data = generate(tmp_path / "data")
    wheelhouse, folder = tmp_path / "wheels", tmp_path / "case"
    wheelhouse.mkdir()
    wheel = pack(Path(vesu._core.__file__), wheelhouse)
    python = images.make_environment(Interpreter(Path(sys.executable), "this one"), [], folder / "environment")
    images.borrow("numpy", python)
    assert stale_members(wheel) == []
    begun = Outcome("this", sys.version.split()[0], "numpy alone", "kaggle")
    seen = run_session(begun, python, wheelhouse, data, folder, WITHOUT_OTHER_WHEELS)
    assert seen.failed is None, seen.failed
    assert list(seen.steps) == WITHOUT_OTHER_WHEELS
    assert seen.steps["network_is_gone"]["interfaces"] == ["lo"]
    assert seen.steps["import_vesu"]["wheel"] == wheel.name
    assert seen.steps["install"]["beside"].keys() <= {"numpy", "pip", "setuptools", "wheel"}
    assert any("/kaggle/working/run/submission.zip is valid" in line for line in seen.steps["run_pipeline"]["said"])
    here = vesu.run(data.plain, tmp_path / "here", config=vesu.load_config(overrides=SETTINGS), display="none")
    assert here.finished
    masks = {f"masks/{path.name}" for path in (tmp_path / "here" / "masks").glob("*.tif")}
    hashes = seen.steps["hash_results"]["sha256"]
    assert masks and masks | {"model.npz"} == set(hashes)
    same = outcome("here")
    same.steps["hash_results"]["sha256"] = hashes_of(tmp_path / "here", hashes)
    assert problems([seen, same]) == []  # the wheel in its namespace and this checkout give the same bits


def hashes_of(run: Path, names: dict[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}


def test_the_namespace_holds_what_it_promises(namespaces: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_text("a")
    (tmp_path / "working").mkdir()
    mounts = [
        sandbox.Mount(tmp_path / "wheels", Path("/kaggle/input/wheels")),
        sandbox.Mount(tmp_path / "working", Path("/kaggle/working"), read_only=False),
    ]
    program = (
        "import json, os, pathlib, socket\n"
        "try: pathlib.Path('/kaggle/input/wheels/b').write_text('b')\n"
        "except OSError as error: refusal = error.strerror\n"
        "pathlib.Path('made').write_text('')\n"
        "files = [str(p) for p in pathlib.Path('/kaggle').rglob('*') if p.is_file()]\n"
        "print(json.dumps([socket.if_nameindex(), refusal, sorted(files), sorted(os.environ)]))\n"
    )
    before = Path("/kaggle").exists()
    answer = sandbox.run(
        [sys.executable, "-I", "-c", program], environment={"ONLY": "1"}, cwd=Path("/kaggle/working"), mounts=mounts
    )
    assert answer.returncode == 0, answer.stderr
    network, refusal, files, variables = json.loads(answer.stdout)
    assert network == [[1, "lo"]]
    assert refusal == os.strerror(errno.EROFS)
    assert files == ["/kaggle/input/wheels/a.whl", "/kaggle/working/made"]
    assert "ONLY" in variables and not {"HOME", "PATH", "PYTHONPATH"} & set(variables)
    assert (tmp_path / "working" / "made").exists()
    assert Path("/kaggle").exists() == before  # the machine itself was not touched


@pytest.mark.skipif(not Path("/proc/self/ns/net").is_symlink(), reason="this system has no network namespaces")
def test_with_a_network_the_proof_fails(tmp_path: Path) -> None:
    plan = {"wheelhouse": "w", "out": "o", "steps": list(STEPS)}
    here = perform(plan | {"outer_namespace": Path("/proc/self/ns/net").readlink().name})
    assert here["failed"]["step"] == "network_is_gone" and here["steps"] == {}
    reached = Session(plan | {"outer_namespace": "another"})
    if len(list(Path("/sys/class/net").iterdir())) > 1:
        with pytest.raises(AssertionError, match="interfaces"):
            reached.network_is_gone()


def test_a_machine_without_namespaces_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "FORMS", (("false", "--net"), ("no-such-command",)))
    sandbox.form.cache_clear()
    try:
        with pytest.raises(sandbox.Refused, match=r"false --net: .*no-such-command: no such command"):
            sandbox.form()
    finally:
        sandbox.form.cache_clear()


def test_a_missing_interpreter_is_said(tmp_path: Path) -> None:
    broken, other = tmp_path / "python3.97", tmp_path / "other"
    broken.write_text("#!/bin/sh\necho no ensurepip here >&2\nexit 1\n")
    other.write_text("#!/bin/sh\necho pypy; echo 3.97.1; echo /nowhere\n")
    for script in (broken, other):
        script.chmod(0o755)
    minor = ".".join(map(str, sys.version_info[:2]))
    environment = {"VESU_PYTHONS": f"{other}:{sys.executable}", "PATH": str(tmp_path), "HOME": str(tmp_path)}
    found, missing = interpreters.find(("3.97", minor), environment)
    assert [each.minor for each in found] == [minor] and found[0].path.samefile(sys.executable)
    assert set(missing) == {"3.97"}
    assert f"{broken} (no ensurepip here)" in missing["3.97"] and "pypy, not CPython" in missing["3.97"]


def test_the_image_is_pinned_and_deviations_are_said() -> None:
    asked, notes = images.requirements("kaggle", "3.12")
    assert {"numpy==2.0.2", "tifffile==2026.4.11"} <= set(asked) and notes == []
    asked, notes = images.requirements("kaggle", "3.13")
    assert "numpy==2.0.2" not in asked and len(notes) == 1 and "numpy 2.0.2 has no wheel" in notes[0]
    assert "numpy" in images.requirements("newest", "3.12")[0]


def test_an_environment_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    case = Case(Interpreter(tmp_path / "no-python", "3.12.0"), "kaggle", "folder")
    with pytest.raises(OSError, match="no-python"):
        images.make_environment(case.interpreter, [], tmp_path / "environment")
    assert case.name == "3.12-kaggle"


def test_differing_bits_and_failures_are_problems(tmp_path: Path) -> None:
    assert problems([outcome(), outcome("3.13-kaggle")]) == []
    assert problems([]) == ["nothing was proved: no interpreter"]
    other = problems([outcome(), outcome("3.13-kaggle", mask="b" * 64)])
    assert other == ["3.13-kaggle: other bits than 3.12-kaggle in masks/1.tif"]
    failed = outcome(failed={"step": "install", "error": "no wheel"})
    assert problems([failed]) == ["3.12-kaggle: install: no wheel"]
    assert "FAILED install" in table([failed]) and "aaaaaaaa" in table([outcome()])
    whole = summarise([failed], {"3.11": "not there"}, tmp_path)
    assert whole["missing"] == {"3.11": "not there"} and len(whole["problems"]) == 1
    json.dumps(whole)


def test_zstandard_pages_are_what_other_readers_read(tmp_path: Path) -> None:
    imagecodecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
    assert imagecodecs.zstd_decode(zstd_frame(bytes(300_000))) == bytes(300_000)  # more than one block
    volume = np.random.default_rng(0).integers(0, 255, (3, 5, 7), dtype=np.uint8)
    (tmp_path / "1.tif").write_bytes(encode(volume))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "1.tif"), volume)


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    command = Path(__file__).with_name("offline") / "prove_offline.py"
    words = [sys.executable, command, "--wheelhouse", tmp_path, "--out", tmp_path / "out.json"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "holds no vesu wheel: `make wheels` builds it" in answer.stderr
    assert not (tmp_path / "out.json").exists()
