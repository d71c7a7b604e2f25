"""Teachers as ONNX graphs and torch.export programs: the same answers, and no code from their files (R18)."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="teachers need torch: pip install 'vesu[distill]'")

from teacher_cases import MEMBERS, PATCH  # noqa: E402
from vesu.distill.teacher import InputSpec, OutputSpec, TeacherSpec, load_teacher, write_teacher  # noqa: E402
from vesu.errors import ArgumentError, DataError, FormatError  # noqa: E402


class Small(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Strided down, up again: enough to have sizes in its graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = torch.nn.Conv3d(1, 4, 3, stride=2, padding=1)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.up = torch.nn.ConvTranspose3d(4, 4, 2, stride=2)
        self.head = torch.nn.Conv3d(4, 3, 1)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.up(self.norm(self.down(x)))))


def windows(n: int = 3, size: tuple[int, int, int] = PATCH) -> Any:
    return torch.randn(n, 1, *size, generator=torch.Generator().manual_seed(1))


def expected(seen: Any) -> Any:
    with torch.no_grad():
        answer = Small()(seen)
    return answer[:, 1:2] - answer[:, :1]


@pytest.fixture(scope="module", name="program")
def program_fixture() -> bytes:
    dynamic = {0: torch.export.Dim("b")} | dict.fromkeys((2, 3, 4), torch.export.Dim.AUTO)
    file = io.BytesIO()
    program = torch.export.export(Small().eval(), (windows(2),), dynamic_shapes=(dynamic,))
    torch.export.save(program, file)
    return file.getvalue()


def exported(folder: Path, data: bytes, **members: Any) -> TeacherSpec:
    return write_teacher(folder, data, name="e", framework="torch.export", **MEMBERS | members)


# ---- torch.export ----


def test_an_exported_program_answers_with_the_same_bits(program: bytes, tmp_path: Path) -> None:  # R18
    teacher = load_teacher(exported(tmp_path, program))
    assert torch.equal(teacher.logits(windows()), expected(windows()))
    other = windows(1, (8, 16, 20))
    assert torch.equal(teacher.logits(other), expected(other))
    assert teacher.n_parameters == sum(parameter.numel() for parameter in Small().parameters())


def test_a_program_of_one_size_says_so(tmp_path: Path) -> None:  # R18
    file = io.BytesIO()
    torch.export.save(torch.export.export(Small(), (windows(2),), dynamic_shapes=({0: torch.export.Dim("b")},)), file)
    with pytest.raises(FormatError, match=r"takes windows of \(16, 16, 16\) only; input.fixed_patch must be true"):
        load_teacher(exported(tmp_path, file.getvalue()))
    with pytest.raises(FormatError, match=r"takes windows of \(16, 16, 16\), but teacher.json says \(16, 16, 32\)"):
        load_teacher(exported(tmp_path, file.getvalue(), input=InputSpec((16, 16, 32), fixed_patch=True)))
    spec = exported(tmp_path, file.getvalue(), input=InputSpec(PATCH, fixed_patch=True))
    assert torch.equal(load_teacher(spec).logits(windows()), expected(windows()))
    with pytest.raises(FormatError, match="five axes, one channel at -1"):
        load_teacher(exported(tmp_path, file.getvalue(), input=InputSpec(PATCH, True, "last")))
    with pytest.raises(DataError, match=r"its answer is \(3, 3, 16, 16, 16\), but teacher.json says \(3, 2,"):
        load_teacher(exported(tmp_path, file.getvalue(), input=spec.input, output=OutputSpec(2))).logits(windows())


def rewritten(data: bytes, change: Callable[[str, bytes], bytes | None], *more: tuple[str, bytes]) -> bytes:
    """The archive with members changed (None takes one out), and more of them."""
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(kept, "w") as out:
        for name in archive.namelist():
            if (content := change(name.partition("/")[2], archive.read(name))) is not None:
                out.writestr(name, content)
        for name, content in more:
            out.writestr(name, content)
    return kept.getvalue()


def model_with(change: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
    def edit(name: str, data: bytes) -> bytes:
        if name != "models/model.json":
            return data
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return edit


def touching(path: Path) -> bytes:
    """A pickle that would make a file."""
    return b"cpathlib\nPath.touch\n(cpathlib\nPath\n(V" + str(path).encode() + b"\ntRtR."


def test_no_code_of_an_archive_is_run(program: bytes, tmp_path: Path) -> None:  # R18
    witness = tmp_path / "witness"
    python = f"__import__('pathlib').Path({str(witness)!r}).touch()"

    def hostile(name: str, data: bytes) -> bytes:
        if name == "data/sample_inputs/model.pt":
            return touching(witness)
        return model_with(lambda document: document.update(guards_code=[python]))(name, data)

    spec = exported(tmp_path / "t", rewritten(program, hostile))
    assert torch.equal(load_teacher(spec).logits(windows()), expected(windows()))
    assert not witness.exists()

    def first_size(document: dict[str, Any]) -> None:
        waiting: list[Any] = [document]
        while waiting:
            here = waiting.pop(0)
            if isinstance(here, dict) and "expr_str" in here:
                here["expr_str"] = python
                return
            waiting += here.values() if isinstance(here, dict) else here if isinstance(here, list) else []
        raise AssertionError("no size in the graph")

    def operator(name: str) -> Callable[[dict[str, Any]], None]:
        return lambda document: document["graph_module"]["graph"]["nodes"][0].update(target=name)

    def table(name: str, data: bytes) -> bytes:
        return data.replace(b'"use_pickle": false', b'"use_pickle": true') if name.endswith("_config.json") else data

    refusals = {
        "got the size": model_with(first_size),
        "got the operator 'torch.ops.aten.from_file.default'": model_with(operator("torch.ops.aten.from_file.default")),
        "got the operator 'torch.hub.load'": model_with(operator("torch.hub.load")),
        "got the operator 'os.system'": model_with(operator("os.system")),
        "is pickled": table,
    }
    for told, change in refusals.items():
        with pytest.raises(FormatError) as caught:
            load_teacher(exported(tmp_path / "t", rewritten(program, change)))
        assert told in str(caught.value)
    more = ("archive/data/constants/opaque_obj_0", touching(witness))
    with pytest.raises(FormatError, match="could hold code"):
        load_teacher(exported(tmp_path / "t", rewritten(program, lambda name, data: data, more)))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("Symbol('s92', positive=True, integer=True)", True),
        (
            "Add(Mul(Integer(2), FloorDiv(Add(Symbol('s92', positive=True), Integer(-1)), Integer(2))), Integer(2))",
            True,
        ),
        ("2*s0 + 1", True),
        ("s0.__class__", False),
        ("exec('1')", False),
        ("Symbol('s92')()", False),
        ("[s0 for s0 in s1]", False),
        ("Symbol('import os')", False),
        ("lambda: 0", False),
        ("f'{s0}'", False),
        ("9**9**9**9", False),
        ("Integer(" + "1" * 40 + ")", False),
        ("(" * 300 + ")" * 300, False),
    ],
)
def test_sizes_are_arithmetic(text: str, accepted: bool) -> None:
    from vesu.distill.adapters.exported import _is_arithmetic

    assert _is_arithmetic(text) == accepted


def test_damaged_programs_are_refused(program: bytes, tmp_path: Path) -> None:
    nan = np.float32(np.nan).tobytes()
    changes: dict[str, bytes] = {
        "NaN or infinite weights in": rewritten(
            program, lambda name, data: nan + data[4:] if name == "data/weights/weight_0" else data
        ),
        "cannot read it|not an archive": rewritten(
            program, lambda name, data: None if name == "data/weights/weight_0" else data
        ),
        "looks like unknown|zip archive of no known kind": program[:-200],
    }
    for told, data in changes.items():
        with pytest.raises(FormatError, match=told):
            load_teacher(exported(tmp_path, data))


def test_torchscript_is_refused_with_the_way_out(tmp_path: Path) -> None:  # R18
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"):
            archive.writestr(name, b"")
    with pytest.raises(FormatError, match=r"TorchScript archive, which carries code; `vesu teacher convert`"):
        load_teacher(exported(tmp_path, file.getvalue()))


# ---- ONNX ----


def graph_of(
    *, weights: Any = None, patch: Any = ("z", "y", "x"), domain: str = "", batch: Any = "b", inner: bool = False
) -> Any:
    """Small's head alone as an ONNX model: a convolution of 1 x 1 x 1, made with onnx's own helpers."""
    onnx = pytest.importorskip("onnx", reason="needs it: pip install 'vesu[teachers]'")
    pytest.importorskip("onnxruntime", reason="needs it: pip install 'vesu[teachers]'")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    values = np.arange(-3, 3, dtype=np.float32).reshape(3, 2)[:, :1] if weights is None else weights
    weight = numpy_helper.from_array(values.reshape(3, 1, 1, 1, 1), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], domain=domain)]
    initializers = [weight]
    if inner:  # the weight stands in a node's attribute
        nodes = [helper.make_node("Constant", [], ["w"], value=weight), *nodes]
        initializers = []
    ends = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 1, *patch])]
    ends.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 3, *patch]))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model


def onnx_teacher(folder: Path, model: Any, **members: Any) -> TeacherSpec:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return write_teacher(folder, data, name="o", framework="onnx", **MEMBERS | members)


@pytest.mark.parametrize("inner", [False, True])
def test_an_onnx_graph_answers(tmp_path: Path, inner: bool) -> None:  # R18
    teacher = load_teacher(onnx_teacher(tmp_path, graph_of(inner=inner)))
    seen = windows()
    torch.testing.assert_close(teacher.logits(seen), 2 * seen)  # weights -3, -1, 1: the second minus the first
    assert teacher.n_parameters == 3 and teacher.device == "cpu"
    assert teacher.logits(windows(1, (4, 6, 8))).shape == (1, 1, 4, 6, 8)


def test_an_exported_network_answers_through_onnx(tmp_path: Path) -> None:  # R18
    pytest.importorskip("onnxscript")
    dynamic = ({0: torch.export.Dim("b")},)
    made = torch.onnx.export(Small().eval(), (windows(2),), dynamic_shapes=dynamic, dynamo=True, verbose=False)
    spec = onnx_teacher(tmp_path, made.model_proto, input=InputSpec(PATCH, fixed_patch=True))
    torch.testing.assert_close(load_teacher(spec).logits(windows()), expected(windows()), rtol=1e-4, atol=1e-5)


def test_graphs_of_other_shapes_are_refused(tmp_path: Path) -> None:  # R18
    with pytest.raises(FormatError, match=r"takes windows of \(8, 8, 8\), but teacher.json says \(16, 16, 16\)"):
        load_teacher(onnx_teacher(tmp_path, graph_of(patch=(8, 8, 8))))
    with pytest.raises(FormatError, match="fixed_patch must be true"):
        load_teacher(onnx_teacher(tmp_path, graph_of(patch=PATCH)))
    with pytest.raises(FormatError, match="2 channels first"):
        load_teacher(onnx_teacher(tmp_path, graph_of(), output=OutputSpec(2)))
    with pytest.raises(FormatError, match="1 channels last"):
        load_teacher(onnx_teacher(tmp_path, graph_of(patch=PATCH), input=InputSpec(PATCH, True, "last")))
    one = load_teacher(onnx_teacher(tmp_path, graph_of(batch=1)))  # fixed to one window: asked one by one
    torch.testing.assert_close(one.logits(windows(2)), 2 * windows(2))


def test_graphs_that_bring_more_than_their_own_weights_are_refused(tmp_path: Path) -> None:  # R18
    onnx = pytest.importorskip("onnx")
    outside = graph_of()
    (weight,) = outside.graph.initializer
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value="/etc/passwd")
    bad = np.array([1, np.nan, 2], np.float32)
    refusals = {
        "keeps w in other files": outside,
        "has operators that onnxruntime lacks: Conv": graph_of(domain="somebody.else"),
        "NaN or infinite weights in w": graph_of(weights=bad),
        r"NaN or infinite weights in \.value": graph_of(weights=bad, inner=True),
        "not an ONNX file|no weights": b"\x08\x08garbage",
        "pickled checkpoint": b"\x80\x02}q\x00.",
    }
    for told, model in refusals.items():
        with pytest.raises(FormatError, match=told):
            load_teacher(onnx_teacher(tmp_path, model))


def test_no_silent_cpu(tmp_path: Path) -> None:  # R27
    spec = onnx_teacher(tmp_path, graph_of())
    if "CUDAExecutionProvider" in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("this onnxruntime has a GPU's provider")
    with pytest.raises(ArgumentError, match="computes on no GPU; pip install onnxruntime-gpu"):
        load_teacher(spec, device="cuda")
