"""`vesu teacher convert`: tensors out of files that may be hostile, in a sandbox (R18)."""

import ast
import io
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="teachers need torch: pip install 'vesu[distill]'")

from teacher_cases import MEMBERS, SMALL, small_network, small_teacher  # noqa: E402
from vesu.cli import main  # noqa: E402
from vesu.distill.convert import convert_teacher  # noqa: E402
from vesu.distill.teacher import TeacherSpec, load_teacher  # noqa: E402
from vesu.errors import ArgumentError, FormatError  # noqa: E402

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "vesu"


def members() -> dict[str, Any]:
    """As a person writes them into a file for ``--spec``."""
    example = TeacherSpec(
        **MEMBERS
        | {"name": "c", "framework": "safetensors", "weights": "m.safetensors", "digest": "blake3:" + 64 * "0"},
        architecture={"name": "UNet", "kwargs": SMALL["UNet"]},
    )
    names = ("name", "architecture", "input", "normalisation", "output", "licence", "source")
    return {name: example.to_json()[name] for name in names}


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_checkpoint_becomes_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # R18
    network = small_network(seed=5)
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    moments = {0: {"exp_avg": torch.zeros(3)}}
    source = tmp_path / "trained.ckpt"
    torch.save({"state_dict": state, "epoch": 3, "optimizer": {"state": moments}}, source)
    (tmp_path / "spec.json").write_text(json.dumps(members()))
    words = ["teacher", "convert", str(source), str(tmp_path / "c"), "--spec", str(tmp_path / "spec.json")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"{len(state)} tensors taken out in a sandbox" in told and "left out prefix 'module.'" in told
    assert "sandbox  limits: no file opened" in told and "fill in" not in told
    seen = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        answer = network(seen)
    assert torch.equal(load_teacher(TeacherSpec.load(tmp_path / "c")).logits(seen), answer[:, 1:2] - answer[:, :1])
    assert main(words) == 2 and "holds a teacher already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "key", "found"),
    [
        ({"w": torch.ones(2)}, None, ""),
        ({"net": {"w": torch.ones(2)}, "step": 3, "adam": {"state": {0: {"m": torch.ones(1)}}}}, None, "net"),
        ({"model": {"w": torch.ones(2)}, "ema": {"shadow": {"w": torch.zeros(3)}}}, "ema.shadow", "ema.shadow"),
    ],
)
def test_the_set_of_tensors_is_found(content: Any, key: str | None, found: str) -> None:
    from vesu.distill.convert_worker import _state_of

    where, state = _state_of(content, key)
    assert where == found and "w" in state


@pytest.mark.parametrize(
    ("content", "key", "told"),
    [
        ({"model": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2)}}, None, "2 sets of tensors ('model', 'ema')"),
        ({"model": {"w": torch.ones(2)}}, "ema", "--key: got 'ema'; accepted: 'model'"),
        ([torch.ones(2)], None, "no tensors by name"),
        ({"epoch": 3}, "model", "none: it has no tensors"),
    ],
)
def test_what_has_no_single_set_of_tensors_is_refused(content: Any, key: str | None, told: str) -> None:
    from vesu.distill.convert_worker import Unfit, _state_of

    with pytest.raises(Unfit) as caught:
        _state_of(content, key)
    assert told in str(caught.value)


def test_a_hostile_pickle_does_nothing_and_says_what_it_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # R18
    witness = tmp_path / "witness"
    source = tmp_path / "evil.pth"
    torch.save({"weight": torch.zeros(2), "more": Touch(witness)}, source)
    assert main(["teacher", "convert", str(source), str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "holds more than tensors and plain values: it asks for" in told and "Traceback" not in told
    assert not witness.exists() and not (tmp_path / "out").exists()
    torch.load(source, weights_only=False)  # and it was hostile indeed
    assert witness.exists()


WALLS = """
import json, os, socket, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import sandbox
walls = sandbox.leave_network()
walls += sandbox.shut(memory_bytes=64 << 20, cpu_seconds=20)
tried = {}
def attempt(name, action):
    try:
        action()
        tried[name] = "done"
    except (OSError, MemoryError) as error:
        tried[name] = type(error).__name__
target = Path(sys.argv[2])
attempt("write", lambda: (target / "new").write_text("x"))
attempt("read", lambda: (target / "old").read_text())
attempt("folder", lambda: (target / "made").mkdir())
attempt("remove", lambda: (target / "old").unlink())
attempt("rename", lambda: (target / "old").rename(target / "moved"))
attempt("link", lambda: (target / "link").symlink_to("old"))
attempt("socket", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 2))
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("memory", lambda: bytearray(512 << 20))
print(json.dumps({"walls": walls, "tried": tried}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the walls are Linux's")
def test_the_walls_hold_without_the_unpickler(tmp_path: Path) -> None:  # R18
    import socket

    (tmp_path / "old").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = [sys.executable, "-I", "-c", WALLS, str(PACKAGE / "distill"), str(tmp_path), str(port)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    tried = answer["tried"]
    assert tried["memory"] == "MemoryError"
    refused = {"write", "read", "socket"}  # everywhere: no descriptor is left
    if any(wall.startswith("landlock") for wall in answer["walls"]):
        refused |= {"folder", "remove", "rename", "link", "program"}
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert {name for name, end in tried.items() if end == "done"} & refused == set(), answer


def test_torchscript_gives_its_tensors_and_leaves_its_code(tmp_path: Path) -> None:  # R18
    network = torch.nn.Conv3d(1, 2, 3)
    source = tmp_path / "s.pt"
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and it is out there
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 8, 8, 8)), str(source))
    done = convert_teacher(source, tmp_path / "s")
    assert done.missing == ("name", "architecture", "input", "normalisation", "output", "licence", "source")
    with pytest.raises(FormatError, match=r"teacher\.json"):  # until it is filled in
        TeacherSpec.load(tmp_path / "s")
    assert (done.framework, done.n_tensors, done.dropped) == ("safetensors", 2, ("its code",))
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "s" / "model.safetensors")["weight"], network.weight)


def keras_archive(path: Path, layers: list[Any], kwargs: dict[str, Any]) -> bytes:
    h5py = pytest.importorskip("h5py", reason="Keras teachers need it: pip install 'vesu[teachers]'")
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = [1.0, 2.0]
    config = {"class_name": "TransUNet", "config": {"encoder": {"config": {"layers": layers}}, **kwargs}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())
    return weights.getvalue()


def test_a_keras_archive_gives_its_weights_and_its_recipe(tmp_path: Path) -> None:  # R18
    code = {"class_name": "Lambda", "config": {"name": "sneaky", "function": {"code": "..."}}}
    kwargs = {"encoder_name": "resnet18", "input_shape": [32, 32, 32, 1], "num_classes": 3}
    weights = keras_archive(tmp_path / "m.keras", [code], kwargs)
    done = convert_teacher(tmp_path / "m.keras", tmp_path / "k")
    assert done.dropped == ("Lambda layer 'sneaky': its code",) and done.n_tensors == 1
    assert (tmp_path / "k" / "model.weights.h5").read_bytes() == weights
    document = json.loads((tmp_path / "k" / "teacher.json").read_text())
    assert document["architecture"] == {"module": "medicai.models", "class": "TransUNet", "kwargs": kwargs}
    assert "architecture" not in done.missing and "input" in done.missing


def test_safe_files_are_copied_and_others_refused(tmp_path: Path) -> None:
    spec = small_teacher(tmp_path / "t")
    done = convert_teacher(spec.weights_path, tmp_path / "copy", members=members())
    assert (done.n_tensors, done.walls, done.missing) == (None, (), ())
    assert TeacherSpec.load(tmp_path / "copy").digest == spec.digest
    bad = {"input": members()["input"] | {"patch": [0, 1, 2]}}
    with pytest.raises(ArgumentError, match=r"input\.patch"):
        convert_teacher(spec.weights_path, tmp_path / "bad", members=members() | bad)
    with pytest.raises(ArgumentError, match="got digest"):
        convert_teacher(spec.weights_path, tmp_path / "bad", members={"digest": "x"})
    for name, content in {"a.pt": b"", "b.zip": b"PK\x03\x04 no", "c.bin": b"text"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match="accepted"):
            convert_teacher(tmp_path / name, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_sandbox_that_breaks_is_told(tmp_path: Path) -> None:
    source = tmp_path / "a.pth"
    source.write_bytes(b"\x80\x02" + bytes(100))
    with pytest.raises(FormatError, match="took more than 0 s"):
        convert_teacher(source, tmp_path / "a", limit_s=0)


def test_torch_load_stands_in_the_sandbox_alone() -> None:  # R18
    """`torch.load` and `torch.jit.load` are called in one file, restricted, and nothing imports that file."""
    worker = PACKAGE / "distill" / "convert_worker.py"
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                assert "convert_worker" not in ast.unparse(node), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.jit.load"):
                found.append((path, node))
    assert [path for path, _ in found] == [worker] * 3
    for _, call in found:
        if ast.unparse(call.func) == "torch.load":
            assert {ast.unparse(keyword) for keyword in call.keywords} >= {"weights_only=True"}


def test_the_sandbox_gets_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def spy(command: list[str], **options: Any) -> Any:
        seen.update(options, command=command)
        raise OSError("not started")

    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setattr("vesu.distill.convert.subprocess.Popen", spy)
    (tmp_path / "a.pth").write_bytes(b"\x80\x02}.")
    with pytest.raises(OSError, match="not started"):
        convert_teacher(tmp_path / "a.pth", tmp_path / "a")
    assert "SECRET" not in seen["env"] and "PYTHONPATH" not in seen["env"] and seen["cwd"] == os.sep
    assert "-I" in seen["command"]
