"""The workloads and judges of the checkpoint store: first save, rotation, resume."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.disk import snapshot
from faults.workloads import Acknowledge, is_temporary, number, promise
from vesu.run.checkpoint import EMPTY_ROOT, Checkpoint, CheckpointStore, find_checkpoint

KEEP = 2


def parts(sequence: int, n_bytes: int = 6000) -> dict[str, bytes]:
    """What checkpoint number ``sequence`` holds; no two are alike."""
    stream = b"".join(hashlib.sha512(b"%d %d" % (sequence, i)).digest() for i in range(-(-n_bytes // 64)))
    return {"search.npz": stream[:n_bytes], "segment.json": b'{"masks": %d}' % sequence}


def fields(sequence: int) -> dict[str, Any]:
    """A manifest's fields for it."""
    state = {"part": "search.npz"}
    return {
        "run_id": "faults", "git_sha": None, "phase": "fit", "epoch": 0, "iter": sequence, "max_iter": 120,
        "candidate_index": 134, "candidate_total": 135, "model_state": state, "optimizer_state": state,
        "rng_states": {}, "distillation_state": {}, "best_metrics": {}, "data_cursor": {}, "dataset_context": {},
        "merkle_curr": EMPTY_ROOT,
    }  # fmt: skip


def save(store: CheckpointStore, kind: Any, sequence: int) -> Checkpoint:
    """Save number ``sequence``, which must be the store's next."""
    return store.save(kind, fields(sequence), parts(sequence))


class Store:
    """What the three have in common: the folder, and the promises of a store after whatever happened to it."""

    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    """Kinds of the checkpoints saved before and during the act."""

    def folder(self, root: Path) -> Path:
        return root / "out" / "checkpoints"

    def prepare(self, root: Path) -> None:
        if self.old:
            store = CheckpointStore(self.folder(root), keep=KEEP)
            for sequence, kind in enumerate(self.old, 1):
                save(store, kind, sequence)

    def act(self, root: Path, acknowledge: Acknowledge) -> None:
        store = CheckpointStore(self.folder(root), keep=KEEP)
        for sequence, kind in enumerate(self.new, len(self.old) + 1):
            save(store, kind, sequence)
            acknowledge(f"kept {sequence}")

    def remember(self, root: Path) -> None:
        found = CheckpointStore(self.folder(root)).latest()
        last = len(self.old) + len(self.new)
        promise(found is not None and found.manifest.sequence == last, "a run without a fault left another state")

    def judge(self, root: Path, acks: Sequence[str]) -> str:
        events: list[tuple[str, dict[str, Any]]] = []
        store = CheckpointStore(self.folder(root), keep=KEEP, emit=lambda name, /, **more: events.append((name, more)))
        found, before = store.latest(), snapshot(root)
        promised, last = max(len(self.old), number(acks, "kept")), len(self.old) + len(self.new)
        sequence = found.manifest.sequence if found is not None else 0
        promise(sequence >= promised, f"checkpoint {promised} was acknowledged, number {sequence} was found")
        promise(sequence <= last, f"number {sequence} was never saved")
        if found is not None:
            holds_what_was_saved(found)
        self._visible_are_whole(root, events, sequence)
        again = CheckpointStore(self.folder(root), keep=KEEP).latest()
        promise(again == found and snapshot(root) == before, "a second look found another state")
        self._goes_on(root, store, sequence)
        return f"checkpoint {sequence}"

    def again(self, root: Path, acknowledge: Acknowledge) -> None:
        store = CheckpointStore(self.folder(root), keep=KEEP)
        found = store.latest()
        sequence = found.manifest.sequence + 1 if found is not None else 1
        save(store, "full", sequence)
        acknowledge(f"kept {sequence}")

    def judge_again(self, root: Path, acks: Sequence[str]) -> str:
        found = CheckpointStore(self.folder(root), keep=KEEP).latest()
        sequence = found.manifest.sequence if found is not None else 0
        promise(sequence >= number(acks, "kept"), f"{acks} was acknowledged, number {sequence} was found")
        if found is not None:
            holds_what_was_saved(found)
        return "all there"

    def _visible_are_whole(self, root: Path, events: Sequence[tuple[str, Any]], sequence: int) -> None:
        """Whatever bears a checkpoint's name is one, and the promised generations are there."""
        folder = self.folder(root)
        names = sorted(path.name for path in folder.iterdir() if not is_temporary(path.name)) if folder.exists() else []
        for name in names:
            holds_what_was_saved(CheckpointStore(folder).load(folder / name))
        promise(not any(name == "CHECKPOINT_REFUSED" for name, _ in events), f"half a checkpoint is visible: {events}")
        kept = {f"ckpt-{number:08d}" for number in range(max(1, sequence - KEEP + 1), sequence + 1)}
        promise(kept <= set(names), f"{names} are left; promised were {KEEP} generations, {sorted(kept)}")

    def _goes_on(self, root: Path, store: CheckpointStore, sequence: int) -> None:
        """The next save works, is the newest, and clears away what a killed process left."""
        promise(
            save(store, "light", sequence + 1).manifest.sequence == sequence + 1, "the next save has a wrong number"
        )
        found = CheckpointStore(self.folder(root)).latest()
        promise(found is not None and found.manifest.sequence == sequence + 1, "the next save is not the newest")
        left = [path.name for path in self.folder(root).iterdir() if is_temporary(path.name)]
        promise(not left, f"left behind for good: {left}")


def holds_what_was_saved(checkpoint: Checkpoint) -> None:
    """Every part byte for byte."""
    sequence = checkpoint.manifest.sequence
    for part, data in parts(sequence).items():
        promise(checkpoint.read(part) == data, f"{part} of checkpoint {sequence} has other bytes")
    promise(checkpoint.manifest.iter == sequence, f"the manifest of checkpoint {sequence} says otherwise")


class FirstSave(Store):
    """The first checkpoint of a run, whose folders are not there yet."""

    name = "first save"
    new = ("full",)


class Rotation(Store):
    """More checkpoints than are kept, full and light ones, over what a killed process left."""

    name = "rotation"
    old = ("full", "light", "light")
    new = ("light", "full", "light", "full")

    def prepare(self, root: Path) -> None:
        super().prepare(root)
        left = self.folder(root) / ".ckpt-00000009.0123456789ab.tmp"
        left.mkdir()
        (left / "search.npz").write_bytes(b"half")


class Resume(Store):
    """Asks for the newest checkpoint; the looking itself is what fails."""

    name = "resume"
    old = ("full", "light")

    def act(self, root: Path, acknowledge: Acknowledge) -> None:
        told: list[str] = []
        # It raises where it finds none: a run never starts from zero in silence.
        found = find_checkpoint("latest", output=root / "out", emit=lambda name, /, **more: told.append(name))
        holds_what_was_saved(found)
        older = found.manifest.sequence < len(self.old)
        promise(not older or "CHECKPOINT_REFUSED" in told, "an older checkpoint was taken in silence")
        acknowledge("resumed")
