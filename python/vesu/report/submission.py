"""The submission: what the run recorded of it, and the file that lies in the folder now."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vesu.errors import FileError
from vesu.report.jsonfile import Node

WRITTEN_EVENT = "SAFE_SUBMISSION_WRITTEN"
DEFAULT_NAME = "submission.zip"


@dataclass(frozen=True)
class Member:
    """One mask in the submission."""

    name: str
    shape: tuple[int, ...]
    ink_ratio: float | None


@dataclass(frozen=True)
class Written:
    """The newest submission that the log tells of."""

    sha256: str | None
    origins: Mapping[str, int]
    """How many masks came from where: final, provisional, scorer, empty."""


@dataclass(frozen=True)
class Submission:
    """The submission as recorded, and the digest of the file that lies in the folder now (None: no file)."""

    name: str
    sha256: str | None
    n_bytes: int | None
    members: tuple[Member, ...]
    sha256_now: str | None
    origins: Mapping[str, int]

    @property
    def n_masks(self) -> int | None:
        """How many masks it holds, by the summary or else by the log; None where neither tells."""
        return len(self.members) or sum(self.origins.values()) or None

    @property
    def density(self) -> float | None:
        """Mean share of surface in its masks; None where none is recorded."""
        found = [member.ink_ratio for member in self.members if member.ink_ratio is not None]
        return sum(found) / len(found) if found else None


def read_written(event: Node) -> Written:
    """What one ``SAFE_SUBMISSION_WRITTEN`` tells.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names it.
    """
    origins = event.child("origins")
    counts = {} if origins is None else {name: origins.integer(name) or 0 for name in origins.values}
    return Written(event.text("sha256"), {name: count for name, count in counts.items() if count > 0})


def read_submission(summary: Node | None, written: Written | None, folder: Path) -> Submission | None:
    """What the summary records, else (of a run that could not write one) what the log does; None without either.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names it.
    FileError
        The file cannot be read.
    """
    node = None if summary is None else summary.child("submission")
    if node is None and written is None:
        return None
    node = node or Node({}, str(folder))
    # Only a file of that name in the run folder counts: a recorded path may be another machine's.
    name = Path(node.text("path") or DEFAULT_NAME).name
    sha256 = node.text("sha256") or (written.sha256 if written else None)
    n_bytes, sha256_now = _present(folder / name)
    return Submission(
        name=name,
        sha256=sha256,
        n_bytes=node.integer("n_bytes") or n_bytes,
        members=tuple(
            Member(each.text("name") or "(no name)", each.shape(), each.number("ink_ratio"))
            for each in node.children("members")
        ),
        sha256_now=sha256_now,
        # The log's newest counts only if it is of this very file.
        origins=written.origins if written and written.sha256 == sha256 else {},
    )


def _present(path: Path) -> tuple[int | None, str | None]:
    """Bytes and SHA-256 of the file; None twice where there is none."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), digest
    except (FileNotFoundError, IsADirectoryError, ValueError):  # ValueError: no file can have such a name
        return None, None
    except OSError as error:
        raise FileError(error.errno, error.strerror, str(path)) from error
