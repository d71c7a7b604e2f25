"""The generations of a run's checkpoints: saved atomically, rotated, the newest that verifies found (R36, R37)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesu import _core
from vesu.data.storage import make_folder, remove_abandoned, remove_tree_atomic
from vesu.errors import ArgumentError, FileError, VesuError
from vesu.run.checkpoint.background import BackgroundPublishing
from vesu.run.checkpoint.events import Emit, described, teller
from vesu.run.checkpoint.files import (
    Checkpoint,
    folder_name,
    is_damage,
    load_checkpoint,
    read_manifest,
    sequence_of,
    write_checkpoint,
)
from vesu.run.checkpoint.manifest import EMPTY_ROOT, Kind, Manifest, Part
from vesu.run.checkpoint.publisher import Publisher
from vesu.run.clock import Clock

__all__ = ["CheckpointStore"]

_FILLED = frozenset({"ts_ns", "version", "sequence", "kind", "parts", "nonfinite", "format"})
"""What the store itself puts into a manifest."""


class CheckpointStore:
    """Checkpoints of one run, in ``FOLDER/ckpt-00000001`` and so on.

    Parameters
    ----------
    folder : path-like
        Made at the first save.
    keep : int
        Generations: a checkpoint goes when ``keep`` newer ones are there, a full one (or a pre-timeout one) only when
        ``keep`` newer full ones are.
    emit : callable, optional
        Takes the events ``CHECKPOINT_WRITTEN``, ``LATEST_VALID_CKPT``, ``CHECKPOINT_REFUSED``,
        ``CHECKPOINT_ROTATION_FAILED``, ``CHECKPOINT_PUBLISHED``, ``CHECKPOINT_PUBLISH_FAILED`` and
        ``CHECKPOINT_PUBLISH_SUPERSEDED``; some of them from another thread.
    publishers : sequence of Publisher
        Get a copy of every checkpoint that is not light, in the background: a network that hangs, or a share that is
        full, is an event and no more.
    clock : Clock, optional
        Where ``ts_ns`` comes from.

    Raises
    ------
    ArgumentError
        ``keep`` is no positive integer.

    Notes
    -----
    R36, R37. One process at a time saves into a folder; any may read it.

    Examples
    --------
    >>> import tempfile
    >>> fields = dict(run_id="demo", git_sha=None, phase="fit", epoch=0, iter=10, max_iter=120, candidate_index=134,
    ...     candidate_total=135, model_state={"part": "search.npz"}, optimizer_state={"part": "search.npz"},
    ...     rng_states={}, distillation_state={}, best_metrics={}, data_cursor={}, dataset_context={},
    ...     merkle_curr=EMPTY_ROOT)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = CheckpointStore(folder)
    ...     _ = store.save("light", fields, {"search.npz": b"state"})
    ...     found = CheckpointStore(folder).latest()
    ...     found.path.name, found.manifest.iter, found.read("search.npz")
    ('ckpt-00000001', 10, b'state')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 3,
        emit: Emit | None = None,
        publishers: Sequence[Publisher] = (),
        clock: Clock | None = None,
    ) -> None:
        if type(keep) is not int or keep < 1:
            raise ArgumentError(f"keep: got {keep!r}; accepted: an integer, 1 or more")
        self.folder = Path(folder)
        self.keep = keep
        self._tell = teller(emit)
        self._publishing = BackgroundPublishing(publishers, self._tell)
        self._clock = clock or Clock()
        self._full: dict[str, bool | None] = {}
        """By folder name: full, light, or None for one that does not verify."""
        self._last: Manifest | None = None
        self._made = False

    def save(self, kind: Kind, fields: Mapping[str, Any], parts: Mapping[str, bytes]) -> Checkpoint:
        """Write the next checkpoint; on return it is durable.

        Parameters
        ----------
        kind : {"light", "full", "pretimeout"}
            What called for it.
        fields : mapping
            The fields of :class:`Manifest` except ``ts_ns``, ``version``, ``sequence``, ``kind`` and ``parts``, which
            are the store's; ``merkle_prev`` is by default that of the checkpoint which this store saved or loaded last.
        parts : mapping of str to bytes
            The files beside the manifest.

        Raises
        ------
        ArgumentError
            A field that is missing, unknown, of a wrong type or out of range; a part that is not bytes or whose name
            is no plain file name.
        FileError
            The operating system refused a step: the earlier checkpoints are untouched.
        """
        manifest = self._manifest(kind, fields, parts)
        started = self._clock.monotonic()
        if not self._made:
            make_folder(self.folder)
            self._made = True
        checkpoint = write_checkpoint(self.folder / folder_name(manifest.sequence), manifest, parts.__getitem__)
        self._last, self._full[checkpoint.path.name] = manifest, kind != "light"
        seconds = self._clock.monotonic() - started
        self._rotate()  # before the log asks for room
        self._tell("CHECKPOINT_WRITTEN", **described(checkpoint), seconds=seconds)
        if kind != "light":
            self._publishing.put(checkpoint)
        return checkpoint

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose manifest and parts all verify; None where there is none.

        Every refused one is an event ``CHECKPOINT_REFUSED`` with its path and the reason, the chosen one
        ``LATEST_VALID_CKPT``.

        Raises
        ------
        FileError
            The folder cannot be listed, or a file not be opened for a reason that says nothing about the checkpoint
            (no permission, no descriptors left): an older state in its place would be work lost in silence.
        """
        refused = 0
        for name in self._names():
            try:
                checkpoint = self.load(self.folder / name)
            except VesuError as error:
                if not is_damage(error):
                    raise
                refused += 1
                self._full[name] = None
                self._tell("CHECKPOINT_REFUSED", path=self.folder / name, reason=str(error))
                continue
            self._tell("LATEST_VALID_CKPT", **described(checkpoint), refused_newer=refused, fallback=refused > 0)
            return checkpoint
        return None

    def load(self, path: str | os.PathLike[str]) -> Checkpoint:
        """The checkpoint in this folder, verified.

        Raises
        ------
        FileError
            A file is missing or cannot be read.
        FormatError
            A file's content is not what was saved.
        """
        checkpoint = load_checkpoint(Path(path))
        self._last = checkpoint.manifest
        return checkpoint

    def drain(self, timeout_s: float) -> bool:
        """Wait, at most so many seconds, until every checkpoint is published or has failed to be; whether it is so."""
        return self._publishing.drain(timeout_s)

    def _manifest(self, kind: Kind, fields: Mapping[str, Any], parts: Mapping[str, bytes]) -> Manifest:
        for name, mapping in {"fields": fields, "parts": parts}.items():
            if not isinstance(mapping, Mapping):
                raise ArgumentError(f"{name}: got {type(mapping).__name__}; accepted: a mapping of names")
        for name, data in parts.items():
            if not isinstance(data, bytes):
                raise ArgumentError(f"parts[{name!r}]: got {type(data).__name__}; accepted: bytes")
        if taken := sorted(_FILLED & fields.keys()):
            raise ArgumentError(f"fields: got {taken}; accepted: not what the store fills in, {sorted(_FILLED)}")
        names = self._names()
        try:
            return Manifest(
                **{"merkle_prev": self._last.merkle_curr if self._last else EMPTY_ROOT, **fields},
                ts_ns=self._clock.ts_ns(),
                version=_core.__version__,
                sequence=(sequence_of(names[0]) or 0) + 1 if names else 1,
                kind=kind,
                parts={name: Part.of(data) for name, data in parts.items()},
            )
        except (TypeError, RecursionError) as error:  # a field too many or too few, or one that holds itself
            raise ArgumentError(f"fields: {error}") from error

    def _names(self) -> list[str]:
        """Names of the checkpoints' folders, valid or not, the newest first."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FileError(error.errno, error.strerror or str(error), str(self.folder)) from error
        return sorted((name for name in names if sequence_of(name) is not None), key=lambda n: -(sequence_of(n) or 0))

    def _rotate(self) -> None:
        """Remove what nobody will ask for, and what killed processes left; the newest was just made durable."""
        try:
            for path in self._beyond_keep():
                if not self._publishing.holds(path):
                    remove_tree_atomic(path)
            remove_abandoned(self.folder)
        except FileError as error:  # the checkpoint is safe: that is what counts
            self._tell("CHECKPOINT_ROTATION_FAILED", path=self.folder, reason=str(error))

    def _beyond_keep(self) -> list[Path]:
        newer = newer_full = 0
        old = []
        for name in self._names():
            full = self._is_full(name)
            if newer >= self.keep and not (full and newer_full < self.keep):
                old.append(self.folder / name)
            if full is not None:
                newer, newer_full = newer + 1, newer_full + full
        return old

    def _is_full(self, name: str) -> bool | None:
        """None for a checkpoint that was found damaged: it is no generation."""
        if name not in self._full:
            try:
                self._full[name] = read_manifest(self.folder / name).kind != "light"
            except VesuError as error:
                if not is_damage(error):
                    raise
                self._full[name] = None
        return self._full[name]
