"""MANIFEST.json: what a folder of wheels holds, written once where it was built and trusted where it is used."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesu.errors import DataError, FileError, FormatError
from vesu.offline.wheels import Wheel, read_wheel

__all__ = ["FORMAT", "MANIFEST_NAME", "Manifest", "build_manifest", "read_manifest"]

FORMAT = "vesu-wheelhouse/1"
MANIFEST_NAME = "MANIFEST.json"

_MAX_BYTES = 16 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """The wheels of a folder, sorted by file name."""

    wheels: tuple[Wheel, ...]

    def to_json(self) -> dict[str, Any]:
        """What stands in ``MANIFEST.json``: ``format``, and ``wheels`` with an entry each."""
        return {"format": FORMAT, "wheels": [wheel.to_json() for wheel in self.wheels]}


def build_manifest(folder: Path) -> Manifest:
    """Describe every wheel of a folder by what is inside it.

    Parameters
    ----------
    folder : Path
        Holds ``*.whl``; other files and folders below it are not looked at.

    Returns
    -------
    Manifest

    Raises
    ------
    DataError
        No such folder, or no wheel in it.
    FormatError
        A file that is not the wheel that its name says.
    FileError
        A wheel cannot be read.

    Notes
    -----
    Requirement R06. ``vesu wheels manifest DIR`` writes it as ``DIR/MANIFEST.json``.

    Examples
    --------
    >>> build_manifest(Path("wheels-offline")).to_json()["format"]  # doctest: +SKIP
    'vesu-wheelhouse/1'
    """
    wheels = sorted(path for path in folder.glob("*.whl") if not path.name.startswith("."))
    if not wheels:
        raise DataError(f"{folder}: got no wheel; accepted: a folder that holds *.whl")
    return Manifest(tuple(map(read_wheel, wheels)))


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a folder of wheels; the wheels themselves are not looked at.

    Parameters
    ----------
    folder : Path
        Holds ``MANIFEST.json``.

    Returns
    -------
    Manifest

    Raises
    ------
    FormatError
        Not JSON, of another format, an entry that lacks something, or a file name with a folder in it.
    FileError
        There is none, or it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, MANIFEST_NAME).write_text('{"format": "vesu-wheelhouse/1", "wheels": []}')
    ...     read_manifest(Path(folder))
    Manifest(wheels=())
    """
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    if len(text) > _MAX_BYTES:
        raise FormatError(f"{path}: got more than {_MAX_BYTES} bytes")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from None
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise FormatError(f"{path}: got the format {found!r}; accepted: {FORMAT!r}")
    entries = record.get("wheels")
    if not isinstance(entries, list):
        raise FormatError(f"{path}: got no list 'wheels'")
    wheels = tuple(_wheel(entry, f"{path}: wheels[{index}]") for index, entry in enumerate(entries))
    files = [wheel.file for wheel in wheels]
    if doubled := sorted({file for file in files if files.count(file) > 1}):
        raise FormatError(f"{path}: got {doubled[0]} twice")
    return Manifest(wheels)


def _wheel(entry: Any, place: str) -> Wheel:
    """A checked entry of a manifest."""
    if not isinstance(entry, dict):
        raise FormatError(f"{place}: got {type(entry).__name__}; accepted: an object")

    def field(name: str, good: Any, accepted: str) -> Any:
        if name not in entry:
            raise FormatError(f"{place}: the key {name!r} is missing")
        if not good(entry[name]):
            raise FormatError(f"{place}: {name}: got {entry[name]!r}; accepted: {accepted}")
        return entry[name]

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    def is_list(value: Any) -> bool:
        return isinstance(value, list) and all(map(is_text, value))

    def is_file(value: Any) -> bool:
        return is_text(value) and value.endswith(".whl") and value[0] != "." and not set(value) & set("/\\\0")

    def is_size(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    return Wheel(
        file=field("file", is_file, "the name of a .whl file without a folder"),
        name=field("name", is_text, "a text"),
        version=field("version", is_text, "a text"),
        tags=tuple(field("tags", lambda value: is_list(value) and value, "a list of tags, not empty")),
        requires_python=field("requires_python", lambda value: value is None or is_text(value), "a text or null"),
        requires=tuple(field("requires", is_list, "a list of texts")),
        sha256=field("sha256", lambda value: is_text(value) and _SHA256.fullmatch(value), "64 hexadecimal digits"),
        size=field("size", is_size, "bytes"),
    )
