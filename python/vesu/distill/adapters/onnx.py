"""ONNX graphs, run by onnxruntime (R18)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vesu.distill.adapters import check_patch, names, verified_bytes
from vesu.distill.packages import need_package
from vesu.distill.teacher_spec import TeacherSpec
from vesu.distill.weights_file import refuse_kind
from vesu.errors import ArgumentError, DataError, FormatError

if TYPE_CHECKING:
    import torch

__all__ = ["OnnxNetwork", "open_network"]

ELEMENTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator domains that onnxruntime itself has; others would want a library of somebody's code."""


class OnnxNetwork:
    """A session of onnxruntime."""

    tensors_on = "cpu"

    def __init__(self, session: Any, device: str, n_parameters: int, fixed_batch: int | None) -> None:
        self.device = device
        self.n_parameters = n_parameters
        self._session = session
        self._input = session.get_inputs()[0]
        self._fixed_batch = fixed_batch

    def __call__(self, windows: "torch.Tensor") -> "torch.Tensor":
        import torch

        given = windows.numpy().astype(ELEMENTS[self._input.type], copy=False)
        size = self._fixed_batch or len(given)
        if len(given) % size:
            raise ArgumentError(
                f"windows: got {len(given)}; accepted: a multiple of {size}, which this graph is fixed to"
            )
        parts = [self._run(given[start : start + size]) for start in range(0, len(given), size)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32, copy=False))

    def close(self) -> None:
        self._session = None

    def _run(self, windows: NDArray[Any]) -> NDArray[Any]:
        try:
            (answer,) = self._session.run(None, {self._input.name: windows})
        except Exception as error:  # its errors have no common base but this
            if "allocate memory" in str(error) and self.device != "cpu":
                import torch

                raise torch.OutOfMemoryError(str(error)) from error
            raise DataError(f"onnxruntime: {error}") from error
        if not isinstance(answer, np.ndarray):
            raise DataError(f"onnxruntime: the graph's output is a {type(answer).__name__}; accepted: a tensor")
        return answer


def open_network(spec: TeacherSpec, device: str, *, verify: bool) -> OnnxNetwork:
    """Check the graph, then give its bytes to onnxruntime.

    Raises
    ------
    FormatError
        Another digest, no ONNX, weights outside the file, weights that are not finite, foreign operators, more than one
        input or output, another shape than the specification's.
    ArgumentError
        A GPU, and an onnxruntime that computes on none.
    MissingPackageError
        onnx or onnxruntime is not installed.
    """
    onnx = need_package("onnx", "teachers")
    runtime = need_package("onnxruntime", "teachers")
    refuse_kind(spec.weights_path, "unknown")  # an ONNX file has no magic bytes; what has some is something else
    data = verified_bytes(spec, verify=verify)
    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:  # protobuf's own
        raise FormatError(f"{spec.weights_path}: not an ONNX file: {error}") from error
    n_parameters = _check_graph(spec, graph, onnx)
    providers = _providers(runtime, device)
    try:
        session = runtime.InferenceSession(data, _options(runtime), providers=providers)
    except Exception as error:  # its errors have no common base but this
        raise FormatError(f"{spec.weights_path}: onnxruntime refuses it: {error}") from error
    if device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ArgumentError(f"device: got {device!r}, but onnxruntime fell back to {session.get_providers()[0]}")
    batch = _check_shapes(spec, session)
    return OnnxNetwork(session, device, n_parameters, batch)


def _check_graph(spec: TeacherSpec, graph: Any, onnx: Any) -> int:
    """Weights inside the file and finite, operators known; gives the number of weights."""
    outside, bad, foreign = [], [], []
    n_parameters = 0
    for name, tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            outside.append(name)
            continue
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
            values = onnx.numpy_helper.to_array(tensor)
            n_parameters += values.size
            if not np.isfinite(values).all():
                bad.append(name)
    foreign = [node.op_type for node in _nodes(graph) if node.domain not in STANDARD]
    if outside:
        raise FormatError(f"{spec.weights_path}: keeps {names(outside)} in other files; save it with all data inside")
    if foreign:
        raise FormatError(f"{spec.weights_path}: has operators that onnxruntime lacks: {names(set(foreign))}")
    if bad:
        raise FormatError(f"{spec.weights_path}: NaN or infinite weights in {names(bad)}")
    if not n_parameters:
        raise FormatError(f"{spec.weights_path}: no weights in it")
    return n_parameters


def _nodes(graph: Any) -> Iterator[Any]:
    """Nodes, those of branches and loop bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _nodes(inner)


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    """Every tensor that the graph holds, in whatever part of it."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    yield from ((sparse.values.name, sparse.values) for sparse in graph.sparse_initializer)
    for node in _nodes(graph):
        for attribute in node.attribute:
            tensors = [attribute.t] if attribute.HasField("t") else []
            tensors += [*attribute.tensors, *(sparse.values for sparse in attribute.sparse_tensors)]
            yield from ((f"{node.name}.{attribute.name}", tensor) for tensor in tensors)
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from ((tensor.name, tensor) for tensor in inner.initializer)


def _options(runtime: Any) -> Any:
    import torch

    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    return options


def _providers(runtime: Any, device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        way_out = "pip install onnxruntime-gpu in the place of onnxruntime, or device='cpu' for this teacher"
        raise ArgumentError(f"device: got {device!r}, but this onnxruntime computes on no GPU; {way_out}")
    number = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]


def _check_shapes(spec: TeacherSpec, session: Any) -> int | None:
    """One image in, one tensor out, of the specification's sizes; gives the batch that the graph is fixed to."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise FormatError(
            f"{spec.weights_path}: {len(inputs)} inputs and {len(outputs)} outputs; accepted: one of each"
        )
    if inputs[0].type not in ELEMENTS:
        raise FormatError(f"{spec.weights_path}: its input is {inputs[0].type}; accepted: {', '.join(ELEMENTS)}")
    batch, image = _split(spec, "input", inputs[0].shape, 1)
    check_patch(spec, image)
    _split(spec, "output", outputs[0].shape, spec.output.n_classes)
    return batch


def _split(spec: TeacherSpec, what: str, shape: list[Any], channels: int) -> tuple[int | None, tuple[int | None, ...]]:
    """(batch, (z, y, x)) of a shape, None for what is free."""
    sizes = [size if isinstance(size, int) else None for size in shape]
    place = 1 if spec.input.channels == "first" else -1
    if len(sizes) != 5 or sizes[place] not in (channels, None):
        layout = f"{channels} channels {spec.input.channels}"
        raise FormatError(f"{spec.weights_path}: its {what} is {shape}, but teacher.json says five axes, {layout}")
    image = sizes[2:] if place == 1 else sizes[1:4]
    return sizes[0], tuple(image)
