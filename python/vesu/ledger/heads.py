"""Tree heads as text: the C2SP tlog-checkpoint format."""

import base64
import re
from dataclasses import dataclass

from vesu.errors import ArgumentError, FormatError

__all__ = ["DEFAULT_ORIGIN", "TreeHead", "check_origin", "parse_checkpoint"]

#: Which log a checkpoint text speaks of, where nothing else is said: a run's.
DEFAULT_ORIGIN = "vesu/run"

_CONTROL = re.compile(r"[\x00-\x1f]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,19}")
_SIGNATURE = re.compile(r"— [^\s+]+ [A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class TreeHead:
    """Size and root of a log's Merkle tree: all that must be kept elsewhere to know the log again.

    Attributes
    ----------
    origin : str
        Which log it is of.
    size : int
        Number of records.
    root : str
        Merkle root (RFC 9162, SHA-256), 64 hexadecimal digits.
    """

    origin: str
    size: int
    root: str

    def checkpoint(self) -> str:
        """The head as C2SP tlog-checkpoint text, without a signature; :func:`parse_checkpoint` reads it back.

        Examples
        --------
        >>> print(TreeHead("example.com/log", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        ...     .checkpoint(), end="")
        example.com/log
        0
        47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
        """
        return f"{self.origin}\n{self.size}\n{base64.b64encode(bytes.fromhex(self.root)).decode()}\n"


def check_origin(origin: str) -> None:
    """Refuse an origin that cannot be the first line of a checkpoint text."""
    if not isinstance(origin, str) or not origin or _CONTROL.search(origin) or not _is_utf8(origin):
        raise ArgumentError(
            f"origin: got {origin!r}; accepted: one line of text, not empty, without control characters"
        )


def parse_checkpoint(text: str) -> TreeHead:
    """Read a tree head from C2SP tlog-checkpoint text.

    Parameters
    ----------
    text : str
        Origin, size in decimal and root in base64, a line each; extension lines may follow, and, behind an empty line,
        signature lines.

    Returns
    -------
    TreeHead
        Signatures and extension lines are checked for their form and left out: vesu verifies no signature, so a text
        is worth as much as the place that it came from.

    Raises
    ------
    FormatError
        Anything else; the message names the line.

    Notes
    -----
    Requirement R38.

    Examples
    --------
    >>> parse_checkpoint("vesu/run\\n0\\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\\n").size
    0
    >>> parse_checkpoint("vesu/run\\n00\\n")
    Traceback (most recent call last):
    ...
    vesu.errors.FormatError: checkpoint text: 2 lines; accepted: origin, size, root, a line each
    """
    if not isinstance(text, str) or not text.endswith("\n"):
        raise _malformed("its last line has no end" if isinstance(text, str) else f"got {type(text).__name__}", "text")
    note, gap, signatures = text.rpartition("\n\n")
    lines = (note if gap else text[:-1]).split("\n")
    for number, line in enumerate(lines, 1):
        if not line or _CONTROL.search(line) or not _is_utf8(line):
            raise _malformed(f"line {number} is {line!r}", "lines of text, none empty, without control characters")
    if gap and not all(_SIGNATURE.fullmatch(line) for line in signatures[:-1].split("\n")):
        raise _malformed("a line behind the empty one is no signature", "'— NAME BASE64'")
    if len(lines) < 3:
        raise _malformed(f"{len(lines)} lines", "origin, size, root, a line each")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size) or int(size) >= 2**64:
        raise _malformed(f"the size is {size!r}", "a decimal number below 2^64 without leading zeros")
    return TreeHead(origin, int(size), _root(root))


def _root(line: str) -> str:
    try:
        root = base64.b64decode(line, validate=True)
    except ValueError:
        root = b""
    # Decoding forgives spare bits and digits; the text of a root is one only.
    if len(root) != 32 or base64.b64encode(root).decode() != line:
        raise _malformed(f"the root is {line!r}", "32 bytes in base64")
    return root.hex()


def _is_utf8(text: str) -> bool:
    return not re.search("[\ud800-\udfff]", text)


def _malformed(problem: str, accepted: str) -> FormatError:
    return FormatError(f"checkpoint text: {problem}; accepted: {accepted}")
