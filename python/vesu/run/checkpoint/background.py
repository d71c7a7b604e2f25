"""Publishing that nobody waits for: a network that hangs must not stop the search."""

import threading
from collections.abc import Sequence
from pathlib import Path

from vesu.run.checkpoint.events import Emit, described
from vesu.run.checkpoint.files import Checkpoint
from vesu.run.checkpoint.publisher import Publisher

__all__ = ["BackgroundPublishing"]


class BackgroundPublishing:
    """Hands checkpoints to publishers one after the other on a daemon thread; the newest waiting one wins.

    Parameters
    ----------
    publishers : sequence of Publisher
        Each gets every checkpoint that is published.
    tell : callable
        Takes ``CHECKPOINT_PUBLISHED``, ``CHECKPOINT_PUBLISH_FAILED`` and ``CHECKPOINT_PUBLISH_SUPERSEDED``.
    """

    def __init__(self, publishers: Sequence[Publisher], tell: Emit) -> None:
        self._publishers = tuple(publishers)
        self._tell = tell
        self._changed = threading.Condition()
        self._waiting: Checkpoint | None = None
        self._working: Checkpoint | None = None
        self._started = False

    def put(self, checkpoint: Checkpoint) -> None:
        """Publish this one next; returns at once."""
        if not self._publishers:
            return
        with self._changed:
            superseded, self._waiting = self._waiting, checkpoint
            if not self._started:
                threading.Thread(target=self._work, name="vesu-publish", daemon=True).start()
                self._started = True
            self._changed.notify_all()
        if superseded is not None:
            self._tell("CHECKPOINT_PUBLISH_SUPERSEDED", **described(superseded), by=checkpoint.manifest.sequence)

    def holds(self, path: Path) -> bool:
        """Whether the checkpoint in this folder is still to be published."""
        with self._changed:
            return any(each is not None and each.path == path for each in (self._waiting, self._working))

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is left to publish; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is None and self._working is None, timeout_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                checkpoint, self._waiting = self._waiting, None
                self._working = checkpoint
            try:
                if checkpoint is not None:
                    for publisher in self._publishers:
                        self._publish(publisher, checkpoint)
            except Exception:  # noqa: BLE001  # the event log is closed, or its disk is full: there is nobody to tell
                pass
            finally:
                with self._changed:
                    self._working = None
                    self._changed.notify_all()

    def _publish(self, publisher: Publisher, checkpoint: Checkpoint) -> None:
        try:
            version = publisher.publish(checkpoint)
        except Exception as error:  # noqa: BLE001  # whatever a network service raises, the run goes on
            reason = f"{type(error).__name__}: {error}"
            self._tell("CHECKPOINT_PUBLISH_FAILED", **described(checkpoint), publisher=publisher.name, reason=reason)
        else:
            self._tell("CHECKPOINT_PUBLISHED", **described(checkpoint), publisher=publisher.name, version=version)
