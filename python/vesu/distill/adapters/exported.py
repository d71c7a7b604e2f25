"""Programs of ``torch.export``: read without the pickles and the code that torch would take from the archive (R18)."""

import ast
import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

from vesu.distill.adapters import check_finite, check_patch, names, verified_bytes
from vesu.distill.adapters.safetensors import TorchNetwork
from vesu.distill.teacher_spec import TeacherSpec
from vesu.distill.weights_file import refuse_kind
from vesu.errors import FormatError, VesuError

if TYPE_CHECKING:
    import torch

__all__ = ["open_network", "without_code"]

MAX_JSON_BYTES = 256 << 20
MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
TABLES = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id|\.format_version"
    r"|\.storage_alignment|data/weights/weight_\d+|data/constants/tensor_\d+"
)
"""Members that hold numbers or a word."""
OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.\w+\.\w+")
ARITHMETIC = {f"_operator.{name}" for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg")}
ARITHMETIC |= {f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem")}
FILES = re.compile(r"from_file|save|load|script|python|jit", re.IGNORECASE)
"""Operators that would touch files or code."""
NAMED_SIZE = re.compile(r"[su]\d+")
SYMPY = {"Symbol", "Integer", "Add", "Mul", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv"}
SYMPY |= {"CeilToInt", "TruncToInt", "FloorToInt", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"}
"""What the text of a symbolic size may call."""
NODES = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
)


def open_network(spec: TeacherSpec, device: str, *, verify: bool) -> TorchNetwork:
    """Take the code out of the archive, load it, check shapes and weights.

    Raises
    ------
    FormatError
        Another digest, another kind of file, pickled members, foreign operators, another shape than the
        specification's, weights that are not finite, or a program of a torch that this one does not read.
    """
    import torch

    refuse_kind(spec.weights_path, "torch.export")
    data = verified_bytes(spec, verify=verify)
    try:
        program = torch.export.load(io.BytesIO(without_code(data)))
    except VesuError as error:
        raise FormatError(f"{spec.weights_path}: {error}") from error
    except Exception as error:  # whatever its reader raises on bytes from outside
        raise FormatError(f"{spec.weights_path}: this torch cannot read it: {type(error).__name__}: {error}") from error
    check_finite(spec, program.state_dict | {k: v for k, v in program.constants.items() if hasattr(v, "isfinite")})
    check_patch(spec, _image_sizes(spec, program))
    n_parameters = sum(parameter.numel() for parameter in program.parameters())
    return TorchNetwork(program.module(), device, n_parameters)


def without_code(data: bytes) -> bytes:
    """The archive with its numbers and its graph alone: no sample inputs (a pickle), guards (code) or metadata.

    Raises
    ------
    FormatError
        A member, an operator or an expression that is not known to be harmless.

    Notes
    -----
    What ``torch.export.load`` would run otherwise: pickles of samples, weights and constants; Python text of guards;
    text of symbolic sizes through sympy; operators that read and write files.
    """
    kept = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(kept, "w") as clean:
            for member in archive.infolist():
                root, _, name = member.filename.partition("/")
                clean.writestr(f"{root}/{name}", _harmless(archive, member, name))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, KeyError, OSError) as error:
        if isinstance(error, VesuError):
            raise
        raise FormatError(f"not an archive of torch.export: {error}") from error
    return kept.getvalue()


def _harmless(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise FormatError(f"{member.filename}: compressed; accepted: archives as torch.export.save writes them")
    if name == SAMPLES:
        return b""
    if name in TABLES:
        return _checked_table(archive.read(member), member.filename)
    if name == MODEL:
        return _checked_model(archive.read(member))
    if PLAIN.fullmatch(name):
        return archive.read(member)
    raise FormatError(f"{member.filename}: not accepted: it could hold code; export the module anew, on the CPU")


def _checked_table(data: bytes, name: str) -> bytes:
    for tensor, record in json.loads(data[:MAX_JSON_BYTES])["config"].items():
        if record["use_pickle"] or not PLAIN.fullmatch(
            f"{name.partition('/')[2].rpartition('/')[0]}/{record['path_name']}"
        ):
            raise FormatError(f"{name}: {tensor} is pickled; accepted: plain tensors")
    return data


def _checked_model(data: bytes) -> bytes:
    if len(data) > MAX_JSON_BYTES:
        raise FormatError(f"{MODEL}: more than {MAX_JSON_BYTES} bytes")
    document = json.loads(data)
    document["guards_code"] = []
    _check_tree(document)
    return json.dumps(document).encode()


def _check_tree(node: Any) -> None:
    """Operators and symbolic expressions, wherever they stand; what only describes the origin is emptied."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if "target" in here and "inputs" in here:
                _check_operator(str(here["target"]))
                here["metadata"] = {}
            if isinstance(text := here.get("expr_str"), str) and not _is_arithmetic(text):
                raise FormatError(f"{MODEL}: got the size {text!r}; accepted: arithmetic of symbols")
            if here.get("as_custom_obj") or here.get("as_graph"):
                raise FormatError(
                    f"{MODEL}: holds objects or inner graphs; export without them (no torch.no_grad inside)"
                )
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here


def _is_arithmetic(text: str) -> bool:
    """Whether sympy, which evaluates the text, would find numbers, symbols and :data:`SYMPY`'s functions alone."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if len(text) > 4096 or not all(isinstance(node, NODES) for node in nodes):
        return False
    called = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    symbols = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    others = [node.value for node in nodes if isinstance(node, ast.Constant) and not isinstance(node.value, str)]
    named = {node.id for node in nodes if isinstance(node, ast.Name)} - SYMPY
    return (
        len(called) == sum(isinstance(node, ast.Call) for node in nodes)
        and set(called) <= SYMPY
        and all(NAMED_SIZE.fullmatch(name) for name in [*symbols, *named])
        and all(isinstance(value, bool | int | float) and abs(value) < 1 << 53 for value in others)
    )


def _check_operator(target: str) -> None:
    if target not in ARITHMETIC and (not OPERATOR.fullmatch(target) or FILES.search(target)):
        raise FormatError(f"{MODEL}: got the operator {target!r}; accepted: torch.ops.aten and arithmetic")


def _image_sizes(spec: TeacherSpec, program: "torch.export.ExportedProgram") -> tuple[int | None, ...]:
    """(z, y, x) that the program is fixed to, None where it takes any."""
    wanted = program.graph_signature.user_inputs
    shapes = [
        node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted
    ]
    if len(wanted) != 1 or len(shapes) != 1:
        raise FormatError(f"{spec.weights_path}: {len(wanted)} inputs ({names(map(str, wanted))}); accepted: one")
    sizes = [size if isinstance(size, int) else None for size in shapes[0]]
    place = 1 if spec.input.channels == "first" else -1
    if len(sizes) != 5 or sizes[place] not in (1, None):
        raise FormatError(f"{spec.weights_path}: its input is {sizes}; accepted: five axes, one channel at {place}")
    if sizes[0] is not None:
        raise FormatError(f"{spec.weights_path}: fixed to batches of {sizes[0]}; export it with a dynamic first axis")
    return tuple(sizes[2:] if place == 1 else sizes[1:4])
