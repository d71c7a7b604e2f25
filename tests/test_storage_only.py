"""No code but the storage layer opens a file for writing (issue 6: one storage layer)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "vesu"
LAYER = PACKAGE / "data" / "storage.py"
ALLOWED = {PACKAGE / "run" / "folder.py": 1}
"""The mark that is locked while a run writes: it holds nothing."""

# Methods and functions that open what they are given, whatever it is.
OPENING = {"write_text", "write_bytes", "touch", "tofile", "savetxt", "memmap", "open_memmap", "save_file"}
OPENING |= {"mkstemp", "NamedTemporaryFile", "copyfile", "copytree", "copy2"}  # a `TemporaryFile` leaves nothing
# These take an open file too, which must then come from the layer, or a buffer.
TAKING_FILES = {"save", "savez", "savez_compressed", "write_array", "ZipFile", "TarFile"}
SOURCES = {"atomic_write", "new_file", "BytesIO"}
WRITE_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def safe_names(tree: ast.AST) -> set[str]:
    """Names bound to a file of the layer or to a buffer."""
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.withitem):
            value, target = node.context_expr, node.optional_vars
        elif isinstance(node, ast.Assign):
            value, target = node.value, node.targets[0]
        else:
            continue
        if isinstance(value, ast.Call) and name_of(value.func) in SOURCES and isinstance(target, ast.Name):
            bound.add(target.id)
    return bound


def modes(call: ast.Call) -> list[ast.expr]:
    """What may be an `open`'s mode: of a path the first argument, of a name the second."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    place = 0 if isinstance(call.func, ast.Attribute) else 1
    return given + (call.args[place : place + 1] if len(call.args) == place + 1 else call.args[place + 1 : place + 2])


def _is_safetensors(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and name_of(node.func) == "_safetensors"


def writes(call: ast.Call, safe: set[str]) -> bool:
    function = name_of(call.func)
    owner = name_of(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if function == "save" and isinstance(call.func, ast.Attribute) and _is_safetensors(call.func.value):
        return False  # its `save` gives bytes; `save_file` would write
    if function in OPENING or (owner == "shutil" and function in ("copy", "move")):
        return True
    if function in TAKING_FILES and owner in ("np", "numpy", "torch", "zipfile", "tarfile", "format", ""):
        mode = call.args[1] if len(call.args) > 1 else None
        reading = function == "ZipFile" and (mode is None or ast.literal_eval(mode) == "r")
        is_safe = bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id in safe
        return not reading and not is_safe
    if owner == "os" and function == "open":
        return bool({node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)} & WRITE_FLAGS)
    member = owner.endswith("archive")  # of an archive, which is checked itself
    if function in ("open", "fdopen") and not member:
        return not all(isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rbt") for mode in modes(call))
    return False


def writers(source: str) -> list[int]:
    """Lines that open a file for writing."""
    tree = ast.parse(source)
    safe = safe_names(tree)
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and writes(node, safe)]


def test_only_the_storage_layer_opens_files_for_writing() -> None:
    paths = sorted(PACKAGE.rglob("*.py"))
    found = {path: writers(path.read_text(encoding="utf-8")) for path in paths}
    assert len(found.pop(LAYER)) >= 2
    for path, lines in found.items():
        assert len(lines) == ALLOWED.get(path, 0), f"{path}: lines {lines} open a file for writing"


@pytest.mark.parametrize(
    "line",
    [
        "open(name, 'w')",
        "open(name, mode='ab')",
        "open(name, mode)",
        "path.open('x')",
        "path.open('r+b')",
        "path.open(mode='w')",
        "path.open('rb' if old else 'wb')",
        "path.write_text('a')",
        "path.write_bytes(b'a')",
        "path.touch()",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "os.fdopen(descriptor, 'wb')",
        "np.save(path, array)",
        "np.savez(folder / 'a.npz', a=array)",
        "np.lib.format.write_array(path.open('xb'), array)",
        "np.memmap(path, mode='w+')",
        "array.tofile(path)",
        "zipfile.ZipFile(path, 'w')",
        "shutil.copy(a, b)",
        "shutil.copytree(a, b)",
        "save_file(tensors, path)",
        "torch.save(state, path)",
    ],
)
def test_the_check_sees(line: str) -> None:
    assert writers(line)


@pytest.mark.parametrize(
    "line",
    [
        "open(name)",
        "open(name, 'rb')",
        "path.open('rb')",
        "path.open(newline='', encoding='utf-8')",
        "os.open(path, os.O_RDONLY)",
        "with atomic_write(path) as file: np.savez(file, a=array)",
        "buffer = io.BytesIO(); np.save(buffer, array)",
        "zipfile.ZipFile(path)",
        "zipfile.ZipFile(path, 'r')",
        "model.save(folder)",
        "array.copy()",
    ],
)
def test_the_check_lets_pass(line: str) -> None:
    assert not writers(line)
