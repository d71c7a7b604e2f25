"""Copies of checkpoints where they outlive this machine: a versioned folder, a Kaggle model (R36)."""

import errno
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from vesu.data.storage import make_folder, remove_abandoned, remove_tree_atomic
from vesu.errors import ArgumentError, FileError, VesuError
from vesu.run.checkpoint.events import Emit, teller
from vesu.run.checkpoint.files import Checkpoint, import_checkpoint, is_damage, load_checkpoint, write_checkpoint

__all__ = ["FolderPublisher", "KaggleModelPublisher", "Publisher", "publisher_from"]

_VERSION = re.compile(r"version-([0-9]{8})")
_HANDLE = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){3}")
_NOT_FOUND = 404
_OLDER_VERSIONS = 3
"""How many to look at where the newest one is damaged."""
_ABANDONED_S = 3600.0
"""Other runs may be writing to the same folder: what is younger may be theirs."""


class Publisher(Protocol):
    """Where checkpoints are duplicated to, each as a version of its own."""

    @property
    def name(self) -> str:
        """What events and messages call it."""

    def publish(self, checkpoint: Checkpoint) -> str:
        """Add a version; its name. Raises anything: the caller makes an event of it."""

    def fetch_latest(self, into: Path) -> Path | None:
        """The newest version that verifies as a checkpoint's folder inside ``into``; None where there is no version."""


class FolderPublisher:
    """A folder of versions, ``FOLDER/version-00000001`` and so on, none ever overwritten.

    Parameters
    ----------
    folder : path-like
        Made at the first version. May be another disk, or a mounted share.
    keep : int
        The newest versions that stay.
    emit : callable, optional
        Takes ``CHECKPOINT_REFUSED`` for each damaged version.

    Raises
    ------
    ArgumentError
        ``keep`` is no positive integer.

    Notes
    -----
    R36. The local twin of :class:`KaggleModelPublisher`.

    Examples
    --------
    >>> FolderPublisher("no/such/share").fetch_latest(Path("checkpoints")) is None  # no version yet
    True
    """

    def __init__(self, folder: str | Path, keep: int = 3, *, emit: Emit | None = None) -> None:
        if type(keep) is not int or keep < 1:
            raise ArgumentError(f"keep: got {keep!r}; accepted: an integer, 1 or more")
        self.folder = Path(folder)
        self.keep = keep
        self._tell = teller(emit)

    @property
    def name(self) -> str:
        return str(self.folder)

    def publish(self, checkpoint: Checkpoint) -> str:
        """Copy the checkpoint, verified, into the next version.

        Raises
        ------
        FileError
            The operating system refused a step; the versions so far are untouched.
        FormatError
            The checkpoint is not what was saved.
        """
        make_folder(self.folder)
        number = max(self._versions(), default=0) + 1
        while True:
            try:
                write_checkpoint(self._path(number), checkpoint.manifest, checkpoint.read)
                break
            except FileError as error:
                # Another run took the number first.
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not self._path(number).exists():
                    raise
                number += 1
        for old in self._versions()[self.keep :]:
            remove_tree_atomic(self._path(old))
        remove_abandoned(self.folder, older_than_s=_ABANDONED_S)
        return self._path(number).name

    def fetch_latest(self, into: Path) -> Path | None:
        """See :meth:`Publisher.fetch_latest`; a damaged version is an event, and the one before is taken.

        Raises
        ------
        FileError, FormatError
            The operating system refused a step; or there are versions, and none of them verifies.
        """
        return _first_valid(map(self._path, self._versions()), into, self._tell)

    def _path(self, number: int) -> Path:
        return self.folder / f"version-{number:08d}"

    def _versions(self) -> list[int]:
        """The newest first."""
        try:
            matches = [_VERSION.fullmatch(path.name) for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FileError(error.errno, error.strerror or str(error), str(self.folder)) from error
        return sorted((int(match[1]) for match in matches if match), reverse=True)


class KaggleModelPublisher:
    """Versions of a Kaggle model, through kagglehub.

    Parameters
    ----------
    handle : str
        ``OWNER/MODEL/FRAMEWORK/VARIATION``; the model is made, private, where it does not exist.
    license_name : str, optional
        Given to Kaggle with the first version.
    emit : callable, optional
        Takes ``CHECKPOINT_REFUSED`` for each damaged version.

    Raises
    ------
    ArgumentError
        A handle of another form.

    Notes
    -----
    R36. kagglehub is imported when a version is published or fetched, finds the credentials itself, and needs the
    network: a notebook without internet publishes nothing, and says so by an event.

    Examples
    --------
    >>> KaggleModelPublisher("me/vesu/other")
    Traceback (most recent call last):
    ...
    vesu.errors.ArgumentError: handle: got 'me/vesu/other'; accepted: OWNER/MODEL/FRAMEWORK/VARIATION, ...
    """

    def __init__(self, handle: str, *, license_name: str | None = None, emit: Emit | None = None) -> None:
        if not isinstance(handle, str) or not _HANDLE.fullmatch(handle):
            raise ArgumentError(f"handle: got {handle!r}; accepted: OWNER/MODEL/FRAMEWORK/VARIATION, without a version")
        self.handle = handle
        self.license_name = license_name
        self._tell = teller(emit)

    @property
    def name(self) -> str:
        return f"kaggle:{self.handle}"

    def publish(self, checkpoint: Checkpoint) -> str:
        """Upload the checkpoint's files as the model's next version; Kaggle gives the number.

        Raises
        ------
        ArgumentError
            kagglehub is not installed.
        Exception
            Whatever kagglehub raises: no network, no credentials, no room.
        """
        manifest = checkpoint.manifest
        note = f"checkpoint {manifest.sequence} ({manifest.kind}) of run {manifest.run_id}: epoch {manifest.epoch}"
        _kagglehub().model_upload(
            self.handle,
            str(checkpoint.path),
            license_name=self.license_name,
            version_notes=f"{note}, iteration {manifest.iter}",
        )
        return note

    def fetch_latest(self, into: Path) -> Path | None:
        """See :meth:`Publisher.fetch_latest`; where the newest version is damaged, a few older ones are tried.

        Raises
        ------
        ArgumentError
            kagglehub is not installed.
        FileError, FormatError
            The operating system refused a step; or no version that was looked at verifies.
        Exception
            Whatever kagglehub raises.
        """
        return _first_valid(self._versions(_kagglehub().model_download), into, self._tell)

    def _versions(self, download: Callable[[str], str]) -> Iterator[Path]:
        """Folders of the newest version and of a few before it, each fetched when it is asked for."""
        handle = self.handle
        for _ in range(1 + _OLDER_VERSIONS):
            try:
                folder = Path(download(handle))
            except Exception as error:
                if getattr(getattr(error, "response", None), "status_code", None) == _NOT_FOUND:
                    return  # no version was ever published, or none before the last
                raise
            yield folder
            # kagglehub names a version's folder by its number.
            number = int(folder.name) if folder.name.isdecimal() else 1
            if number == 1:
                return
            handle = f"{self.handle}/{number - 1}"


def publisher_from(text: str, *, keep: int = 3, emit: Emit | None = None) -> Publisher | None:
    """The publisher that a configuration's text names.

    Parameters
    ----------
    text : str
        ``""`` for none, ``kaggle:OWNER/MODEL/FRAMEWORK/VARIATION``, or a folder's path.
    keep : int
        Versions that stay in a folder; Kaggle keeps all.
    emit : callable, optional
        As for the publishers.

    Raises
    ------
    ArgumentError
        A handle of another form.

    Examples
    --------
    >>> publisher_from("kaggle:me/vesu/other/checkpoints").name
    'kaggle:me/vesu/other/checkpoints'
    """
    if not text:
        return None
    if text.startswith("kaggle:"):
        return KaggleModelPublisher(text.removeprefix("kaggle:"), emit=emit)
    return FolderPublisher(text, keep, emit=emit)


def _first_valid(folders: Iterable[Path], into: Path, tell: Emit) -> Path | None:
    refused = None
    for folder in folders:
        try:
            checkpoint = load_checkpoint(folder)
        except VesuError as error:
            if not is_damage(error):
                raise
            refused = error
            tell("CHECKPOINT_REFUSED", path=folder, reason=str(error))
            continue
        return import_checkpoint(checkpoint.manifest, checkpoint.read, into)
    if refused is not None:
        raise refused
    return None


def _kagglehub() -> Any:
    try:
        return importlib.import_module("kagglehub")
    except ImportError as error:
        raise ArgumentError(
            "publish: got a Kaggle model; accepted where kagglehub is installed (vesu[kaggle])"
        ) from error
