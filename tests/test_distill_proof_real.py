"""Real teachers' passes and a real training, written to a real log, prove themselves (R22, R23, R37)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vesu.config import StudentConfig, TeacherConfig
from vesu.data.cache import ArrayCache
from vesu.distill.ensemble import teacher_ensemble_infer
from vesu.distill.proof import EVENTS, Proof, examine_distillation, require_distilled
from vesu.distill.training import TrainedStudent, train_student_distilled
from vesu.distill.transfer import TeacherDistillation, TransferReport
from vesu.distill.values import TrainingVolume
from vesu.errors import DistillationNotExecuted
from vesu.ledger import LedgerWriter, iter_events, verify

CONFIG = StudentConfig(preset="P2", channels=(2, 4), patch=(8, 8, 8), batch=1, steps=3, validate_every=2, flips=False)
SIZE = 16
TEACHERS = {name: name * 64 for name in "abc"}


class Stopped(Exception):
    """A session's end."""


def specification(name: str) -> Any:
    fields = {"name": name, "digest": TEACHERS[name], "framework": "safetensors", "patch": (8, 8, 8)}
    return SimpleNamespace(**fields, to_json=lambda: fields)


def load(spec: Any, device: str) -> Any:
    """A teacher that sees what is bright, each with another threshold."""
    threshold = 80.0 + 10 * "abc".index(spec.name)
    return SimpleNamespace(
        prepare=lambda volume: (volume.astype(np.float32) - threshold) / 20,
        logits=lambda windows: windows,
        close=lambda: None,
    )


def pair(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    label = np.zeros((SIZE, SIZE, SIZE), np.uint8)
    label[:, 5 + seed : 7 + seed] = 1
    return (50 + 100 * label + rng.normal(0, 10, label.shape)).clip(0, 255).astype(np.uint8), label


class Run:
    """A distillation in sessions that share a log and the training's state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "events.jsonl"
        self.parts: dict[str, bytes] | None = None

    def session(self, stop_after: int | None = None) -> tuple[TrainedStudent, TransferReport]:
        """Go on, for so many steps at most."""
        with LedgerWriter(self.log) as ledger:

            def emit(name: str, fields: Mapping[str, Any]) -> None:
                ledger.append(name, {"run_id": "r1", **fields})

            account = TeacherDistillation(TEACHERS, nominal=9, emit=emit)
            train, validation = self.volumes(emit)
            account.covered((SIZE,) * 3, train.soft)
            student = train_student_distilled(
                [train],
                [validation],
                CONFIG,
                seed=1,
                emit=emit,
                save=self.keep,
                resume=self.parts,
                poll=_ends(stop_after),
                n_threads=1,
            )
            soft = validation.soft
            assert soft is not None
            moments = {"before": student.untrained(), "distilled": student.distilled(), "final": student}
            for moment, model in moments.items():
                account.measure(moment, [(soft, model.predict(validation.image).probability)])  # type: ignore[arg-type]
            ledger.flush()
            return student, account.finish(self.folder, events=iter_events(self.log))

    def volumes(self, emit: Callable[[str, Mapping[str, Any]], None]) -> list[TrainingVolume]:
        pairs = {f"v{seed}": pair(seed) for seed in (0, 1)}
        soft = teacher_ensemble_infer(
            [specification(name) for name in TEACHERS],
            {name: image for name, (image, _) in pairs.items()},
            cache=ArrayCache(self.folder / "cache", max_bytes=1 << 26),
            config=TeacherConfig(flips=False),
            emit=emit,
            load=load,
        )
        return [TrainingVolume(name, image, label, soft[name]) for name, (image, label) in pairs.items()]

    def keep(self, parts: dict[str, bytes], cursor: Mapping[str, Any]) -> None:
        self.parts = dict(parts)

    def proof(self) -> Proof:
        verify(self.log)
        return examine_distillation(iter_events(self.log), teachers=TEACHERS, due=True, run_id="r1")


def _ends(after: int | None) -> Callable[[], None]:
    passes = 0

    def poll() -> None:
        nonlocal passes
        passes += 1
        if after is not None and passes > after:
            raise Stopped

    return poll


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, TrainedStudent, TransferReport]:
    run = Run(tmp_path_factory.mktemp("whole"))
    return run, *run.session()


def test_a_real_distillation_proves_itself(whole: tuple[Run, TrainedStudent, TransferReport]) -> None:  # R22
    run, student, _ = whole
    proof = run.proof()
    assert proof.missing == ()
    assert (proof.verdict, proof.status) == ("GO", "proved")
    assert proof.steps == {"distil": 3, "head": 3, "decoder": 3}
    assert proof.student_last == student.weights_digest != proof.student_first == student.untrained().weights_digest
    assert [(each.name, each.digest, each.volumes) for each in proof.teachers] == [
        (name, digest, ("v0", "v1")) for name, digest in TEACHERS.items()
    ]


def test_the_kpis_of_a_real_distillation(whole: tuple[Run, TrainedStudent, TransferReport]) -> None:  # R23
    _, _, report = whole
    assert report.teacher_coverage_pct == pytest.approx(300 / 9) and report.voxel_coverage_pct == 100
    assert np.isfinite(list(report.kpis().values())).all()
    assert all(0 < each.mean < 1 for each in report.alignments)


def test_taking_any_kind_of_work_away_is_missed(whole: tuple[Run, TrainedStudent, TransferReport]) -> None:  # R22
    run, _, _ = whole
    events = list(iter_events(run.log))
    assert set(EVENTS) <= {event["event"] for event in events}
    for name in EVENTS:
        rest = [event for event in events if event["event"] != name]
        with pytest.raises(DistillationNotExecuted, match=name):
            require_distilled(rest, teachers=TEACHERS, due=True)


@pytest.mark.parametrize("cuts", [(1,), (4, 2, 3)])
def test_a_run_in_sessions_is_proved_once_it_is_through(
    cuts: tuple[int, ...], tmp_path: Path, whole: tuple[Run, TrainedStudent, TransferReport]
) -> None:  # R22, R37
    run = Run(tmp_path)
    for cut in cuts:
        with pytest.raises(Stopped):
            run.session(stop_after=cut)
        assert run.proof().verdict == "NO_GO_SUBMISSION"
    student, report = run.session()
    proof = run.proof()
    assert (proof.status, proof.missing) == ("proved", ())
    assert proof.steps == whole[0].proof().steps
    assert student.weights_digest == whole[1].weights_digest and report.kpis() == whole[2].kpis()
