"""Teachers in Keras 3 weights: medicai's networks by recipe, in a process of their own (R18)."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="teachers need torch: pip install 'vesu[distill]'")
h5py = pytest.importorskip("h5py", reason="Keras teachers need it: pip install 'vesu[teachers]'")

from teacher_cases import MEMBERS  # noqa: E402
from vesu.distill.adapters.keras import KerasNetwork  # noqa: E402
from vesu.distill.adapters.keras_worker import Refused, _compare, h5_arrays  # noqa: E402
from vesu.distill.teacher import InputSpec, OutputSpec, TeacherSpec, load_teacher, write_teacher  # noqa: E402
from vesu.errors import ArgumentError, DataError, FormatError  # noqa: E402

PATCH = (32, 32, 32)
COMMON: dict[str, Any] = {"input_shape": [*PATCH, 1], "num_classes": 3}
RECIPES: dict[str, dict[str, Any]] = {
    "TransUNet": COMMON
    | {"encoder_name": "efficientnet_b0", "encoder_depth": 3, "num_vit_layers": 1, "num_heads": 2, "num_queries": 4}
    | {"embed_dim": 32, "mlp_dim": 32, "decoder_filters": [8, 8, 8]},
    "SegFormer": COMMON
    | {"encoder_name": "mit_b0", "decoder_head_embedding_dim": 16, "classifier_activation": "softmax"},
}
REFERENCE = """
import json, sys
import numpy as np, torch
import medicai.models
recipes, folder = json.loads(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
windows = np.random.default_rng(0).normal(size=(2, 32, 32, 32, 1)).astype("float32")
for name, kwargs in recipes.items():
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    network = getattr(medicai.models, name)(**kwargs)
    network.save_weights(f"{folder}/{name}.weights.h5")
    with torch.no_grad():
        np.save(f"{folder}/{name}.npy", network(windows, training=False).numpy())
np.save(f"{folder}/windows.npy", windows)
"""


@pytest.fixture(scope="module", name="made")
def made_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both networks' weights and what they answer, made by medicai itself in a process of its own."""
    for package in ("keras", "medicai"):  # not imported: without a backend they are refused
        if find_spec(package) is None:
            pytest.skip(f"Keras teachers need {package}: pip install 'vesu[teachers]'")
    folder = tmp_path_factory.mktemp("keras")
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", REFERENCE, json.dumps(RECIPES), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def keras_teacher(folder: Path, weights: bytes, name: str = "TransUNet", **members: Any) -> TeacherSpec:
    architecture = {"module": "medicai.models", "class": name, "kwargs": RECIPES[name]}
    given = {"architecture": architecture, "input": InputSpec(PATCH, True, "last"), "name": name}
    return write_teacher(folder, weights, framework="keras", **MEMBERS | given | members)


def answers(made: Path, name: str) -> Any:
    """(b, 3, z, y, x) of the network itself."""
    return torch.from_numpy(np.load(made / f"{name}.npy")).movedim(-1, 1)


def test_medicais_networks_answer_as_themselves(made: Path, tmp_path: Path) -> None:  # R18
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _compare_and_refuse(made, tmp_path)
    finally:
        torch.set_num_threads(before)


def _compare_and_refuse(made: Path, tmp_path: Path) -> None:
    """One process for everything: Keras takes seconds to be imported."""
    trans, seg = ((made / f"{name}.weights.h5").read_bytes() for name in ("TransUNet", "SegFormer"))
    seen = torch.from_numpy(np.load(made / "windows.npy")).movedim(-1, 1)
    teacher = load_teacher(keras_teacher(tmp_path / "t", trans))
    assert teacher.n_parameters > 1_000_000
    logits = answers(made, "TransUNet")
    assert torch.equal(teacher.logits(seen), logits[:, 1:2] - logits[:, :1]) and logits.std() > 0

    network: Any = teacher._network
    assert isinstance(network, KerasNetwork)
    recipe = {"module": "medicai.models", "class": "SegFormer", "kwargs": RECIPES["SegFormer"], "threads": 1}

    def load(data: bytes, **changed: Any) -> Any:
        path = tmp_path / "x.weights.h5"
        path.write_bytes(data)
        return network.load(recipe | {"weights": str(path)} | changed)

    load(edited(seg, lambda file: file.create_dataset("optimizer/vars/0", data=[1.0])))  # a training's, and no weight
    given = OutputSpec(3, 1, "probabilities", ignored_class=2)
    teacher.spec = keras_teacher(tmp_path / "s", seg, "SegFormer", output=given)
    share = answers(made, "SegFormer")
    torch.testing.assert_close(teacher.logits(seen), share[:, 1:2].log() - share[:, :1].log(), rtol=1e-5, atol=1e-5)

    with pytest.raises(FormatError, match="NaN or infinite weights in /"):
        load(edited(seg, lambda file: file[first_array(file)].__setitem__(..., np.nan)))
    with pytest.raises(FormatError, match="refuses kwargs"):
        load(seg, kwargs={"colour": 1})
    with pytest.raises(FormatError, match="architecture: got os"):
        load(seg, module="os", **{"class": "system"})

    with pytest.raises(DataError, match="took more than 0 s"):
        network(seen.movedim(1, -1), limit_s=0.0)
    with pytest.raises(DataError, match="ended after a failure; load it again"):
        teacher.logits(seen)
    assert network._process.poll() is not None


def first_array(file: Any) -> str:
    found: list[str] = []
    file.visititems(lambda name, member: found.append(name) if isinstance(member, h5py.Dataset) else None)
    return found[0]


def edited(data: bytes, change: Any) -> bytes:
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


# ---- without Keras ----


@pytest.fixture
def plain() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 3), np.float32)
    return buffer.getvalue()


def test_hdf5_files_are_plain_arrays(plain: bytes, tmp_path: Path) -> None:  # R18
    assert [name for name, _ in h5_arrays(io.BytesIO(plain))] == ["/layers/dense/vars/0"]
    target = h5py.VirtualLayout((2,), "f4")
    target[:] = h5py.VirtualSource("other.h5", "a", (2,))
    outside = [(str(tmp_path / "raw"), 0, 8)]
    refusals = {
        "/a: a link": lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/")),
        "/b: a link": lambda file: file.__setitem__("b", h5py.SoftLink("/layers")),
        "/c: accepted": lambda file: file.create_virtual_dataset("c", target),
        "/d: accepted": lambda file: file.create_dataset("d", (2,), "f4", external=outside),
        "/e: accepted": lambda file: file.create_dataset("e", data=np.zeros(9), compression="gzip"),
        "/f: accepted": lambda file: file.create_dataset("f", data=["text"], dtype=h5py.string_dtype()),
        "Keras 2": lambda file: file.attrs.__setitem__("model_config", "{}"),
    }
    for told, change in refusals.items():
        with pytest.raises(Refused, match=told):
            list(h5_arrays(io.BytesIO(edited(plain, change))))
    with pytest.raises(Refused, match="not an HDF5 file"):
        list(h5_arrays(io.BytesIO(plain[:100])))


def test_what_was_loaded_is_compared_with_the_file(plain: bytes, tmp_path: Path) -> None:  # R18
    given, loaded = tmp_path / "given.weights.h5", tmp_path / "loaded.weights.h5"
    loaded.write_bytes(plain)
    more = edited(plain, lambda file: file.create_dataset("extra/vars/0", data=[1.0]))
    refusals = {
        r"1 arrays .* differ: /extra/vars/0: file \(1,\), network lacks it": more,
        r"2 arrays .*/other: file \(2, 3\), network lacks it": edited(
            plain, lambda file: file.move(first_array(file), "other")
        ),
        "did not take /layers/dense/vars/0": edited(
            plain, lambda file: file[first_array(file)].__setitem__((0, 0), 1e-30)
        ),
    }
    for told, data in refusals.items():
        given.write_bytes(data)
        with pytest.raises(Refused, match=told):
            _compare(given, loaded)
    given.write_bytes(plain)
    _compare(given, loaded)
    loaded.write_bytes(more)
    with pytest.raises(Refused, match=r"/extra/vars/0: file lacks it, network \(1,\)"):
        _compare(given, loaded)


def test_recipes_and_files_are_refused_before_any_process(
    plain: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # R18
    monkeypatch.setattr("vesu.distill.adapters.keras._start", lambda *_: pytest.fail("a process was started"))
    for module, name in (("os", "system"), ("medicai.models", "Lambda"), ("keras.layers", "Lambda")):
        spec = keras_teacher(tmp_path, plain, architecture={"module": module, "class": name, "kwargs": {}})
        with pytest.raises(ArgumentError, match=r"accepted: medicai\.models: AttentionUNet"):
            load_teacher(spec)
    spec = keras_teacher(tmp_path, plain)
    spec.weights_path.write_bytes(plain + b"\0")
    with pytest.raises(FormatError, match="its digest is"):
        load_teacher(spec)
    spec = keras_teacher(tmp_path, b"\x80\x04}.")
    with pytest.raises(FormatError, match="vesu teacher convert"):
        load_teacher(spec)


def test_a_killed_worker_is_an_error(plain: bytes, tmp_path: Path) -> None:
    network = KerasNetwork(keras_teacher(tmp_path, plain), "cpu")
    os.kill(network._process.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="ended with code -9"):
        network.load({"weights": "none"})
    network.close()
    network.close()


def test_the_worker_dies_with_its_parent(plain: bytes, tmp_path: Path) -> None:
    keras_teacher(tmp_path, plain)
    program = (
        "import sys, time; from vesu.distill.adapters.keras import KerasNetwork;"
        "from vesu.distill.teacher import TeacherSpec;"
        f"network = KerasNetwork(TeacherSpec.load({str(tmp_path)!r}), 'cpu');"
        "print(network._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(worker)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
