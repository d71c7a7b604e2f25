"""Checkpoints: a state that is there whole or not at all, and the way back to it (R36, R37)."""

from vesu.run.checkpoint.archive import CHECKPOINTS, write_results_zip
from vesu.run.checkpoint.compat import Difference, compare_compat, require_compatible
from vesu.run.checkpoint.files import Checkpoint, load_checkpoint
from vesu.run.checkpoint.manifest import EMPTY_ROOT, MANIFEST, Manifest
from vesu.run.checkpoint.publisher import FolderPublisher, KaggleModelPublisher, Publisher, publisher_from
from vesu.run.checkpoint.sources import find_checkpoint
from vesu.run.checkpoint.store import CheckpointStore

__all__ = [
    "CHECKPOINTS",
    "EMPTY_ROOT",
    "MANIFEST",
    "Checkpoint",
    "CheckpointStore",
    "Difference",
    "FolderPublisher",
    "KaggleModelPublisher",
    "Manifest",
    "Publisher",
    "compare_compat",
    "find_checkpoint",
    "load_checkpoint",
    "publisher_from",
    "require_compatible",
    "write_results_zip",
]
