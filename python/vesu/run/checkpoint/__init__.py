"""Checkpoints: a state that is there whole or not at all, and the way back to it (R36, R37)."""

from vesu.run.checkpoint.files import Checkpoint, load_checkpoint
from vesu.run.checkpoint.manifest import EMPTY_ROOT, MANIFEST, Manifest
from vesu.run.checkpoint.store import CheckpointStore

__all__ = ["EMPTY_ROOT", "MANIFEST", "Checkpoint", "CheckpointStore", "Manifest", "load_checkpoint"]
