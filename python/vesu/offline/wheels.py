"""What a wheel says of itself: its name, its tags, what it needs; read from the archive, nothing is unpacked."""

import hashlib
import itertools
import re
import zipfile
import zlib
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

from vesu.errors import FileError, FormatError

__all__ = ["Wheel", "file_sha256", "filename_tags", "normalised", "read_wheel", "shown"]

_FILE_NAME = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(-[0-9][^-]*)?-(?P<tags>[^-]+-[^-]+-[^-]+)\.whl")
_MAX_METADATA_BYTES = 4 << 20
# What `zipfile` raises on damaged or hostile archives, beside OSError.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Wheel:
    """One wheel of a folder, as its manifest lists it.

    Attributes
    ----------
    file : str
        File name, without a folder.
    name, version : str
        Of the package, as its own METADATA spells them.
    tags : tuple of str
        Such as ``"cp311-abi3-manylinux_2_17_x86_64"``; one that fits an interpreter is enough.
    requires_python : str or None
        Such as ``">=3.11"``.
    requires : tuple of str
        ``Requires-Dist`` of the METADATA, PEP 508.
    sha256 : str
        Of the file, hexadecimal.
    size : int
        Of the file, in bytes.
    """

    file: str
    name: str
    version: str
    tags: tuple[str, ...]
    requires_python: str | None
    requires: tuple[str, ...]
    sha256: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """The wheel as its manifest's entry."""
        return {
            "file": self.file,
            "name": self.name,
            "version": self.version,
            "tags": list(self.tags),
            "requires_python": self.requires_python,
            "requires": list(self.requires),
            "sha256": self.sha256,
            "size": self.size,
        }


def read_wheel(path: Path) -> Wheel:
    """Describe a wheel by its METADATA and WHEEL, its size and its hash.

    Parameters
    ----------
    path : Path
        A ``.whl`` file.

    Returns
    -------
    Wheel

    Raises
    ------
    FormatError
        Not a wheel, damaged, or its file name says something else than what is inside.
    FileError
        The file cannot be read.

    Notes
    -----
    Requirement R06. pip chooses by a wheel's file name: a name that promises other tags than the wheel was built for
    would install what cannot be imported, so it is refused here.

    Examples
    --------
    >>> read_wheel(Path("dist/vesu-0.1.0-cp311-abi3-linux_x86_64.whl")).name  # doctest: +SKIP
    'vesu'
    """
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise FormatError(f"{path}: got the name {path.name!r}; accepted: NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
    try:
        metadata, wheel = _messages(path)
        digest, size = file_sha256(path), path.stat().st_size
    except OSError as error:
        raise FileError(error.errno, error.strerror or str(error), str(path)) from error
    except _DAMAGE as error:
        raise FormatError(f"{path}: not a whole wheel: {error}") from error
    name, version = str(metadata["Name"]), str(metadata["Version"])
    inside = (normalised(name), version.replace("-", "_"))
    if inside != (normalised(named["name"]), named["version"]):
        raise FormatError(f"{path}: its name says {named['name']} {named['version']}, its METADATA {name} {version}")
    tags, promised = sorted(map(str, wheel.get_all("Tag", []))), filename_tags(path.name)
    if tags != promised:
        raise FormatError(f"{path}: its name says the tags {promised}, its WHEEL {tags}")
    requires_python = metadata["Requires-Python"]
    return Wheel(
        file=path.name,
        name=name,
        version=version,
        tags=tuple(tags),
        requires_python=None if requires_python is None else str(requires_python),
        requires=tuple(map(str, metadata.get_all("Requires-Dist", []))),
        sha256=digest,
        size=size,
    )


def normalised(name: str) -> str:
    """A package's name as PEP 503 compares it: lower case, runs of ``-``, ``_``, ``.`` one hyphen.

    Examples
    --------
    >>> normalised("Ruamel.YAML_clib")
    'ruamel-yaml-clib'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def filename_tags(file: str) -> list[str]:
    """All tags that a wheel's file name stands for, sorted.

    Examples
    --------
    >>> filename_tags("a-1-py2.py3-none-any.whl")
    ['py2-none-any', 'py3-none-any']
    """
    named = _FILE_NAME.fullmatch(file)
    if named is None:
        return []
    return sorted(map("-".join, itertools.product(*(part.split(".") for part in named["tags"].split("-")))))


def shown(path: Path) -> str:
    """A path as text that every encoder takes: bytes that are no UTF-8 are shown as escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _messages(path: Path) -> tuple[Message, Message]:
    """METADATA and WHEEL of the one ``.dist-info`` folder."""
    with zipfile.ZipFile(path) as archive:
        folders = {name.split("/")[0] for name in archive.namelist() if name.count("/") == 1}
        infos = sorted(folder for folder in folders if folder.endswith(".dist-info"))
        if len(infos) != 1:
            raise ValueError(f"got {len(infos)} .dist-info folders; accepted: 1")
        metadata, wheel = (_message(archive, f"{infos[0]}/{name}") for name in ("METADATA", "WHEEL"))
    if metadata["Name"] is None or metadata["Version"] is None:
        raise ValueError("its METADATA lacks Name or Version")
    return metadata, wheel


def _message(archive: zipfile.ZipFile, member: str) -> Message:
    try:
        with archive.open(member) as file:
            text = file.read(_MAX_METADATA_BYTES + 1)
    except KeyError:
        raise ValueError(f"{member} is missing") from None
    if len(text) > _MAX_METADATA_BYTES:
        raise ValueError(f"{member} holds more than {_MAX_METADATA_BYTES} bytes")
    return Parser().parsestr(text.decode("utf-8"), headersonly=True)
