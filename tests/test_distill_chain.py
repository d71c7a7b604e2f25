"""The whole chain: nine teachers, their soft labels, a student, the proof. The student is better than its teachers are
singly, and it is the teachers' answers that it learned from (R18, R19, R20, R22)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from teacher_factory import make_teachers, phantom_volumes, recipes
from vesu.config import StudentConfig, TeacherConfig
from vesu.data.cache import ArrayCache
from vesu.distill.ensemble import teacher_ensemble_infer
from vesu.distill.fusion import surface_f_beta
from vesu.distill.proof import require_distilled
from vesu.distill.teacher import TeacherSpec, find_teachers
from vesu.distill.trained import TrainedStudent
from vesu.distill.training import train_student_distilled
from vesu.distill.values import SoftLabels, TrainingVolume
from vesu.errors import DistillationNotExecuted
from vesu.ledger import iter_events, verify
from vesu.run.events import EventLog

ASK = TeacherConfig(overlap=0.0, flips=False)
STUDENT = StudentConfig(
    preset="P1",
    channels=(4, 8, 16),
    patch=(32, 32, 32),
    steps=90,
    validate_every=45,
    patience=1,
    learning_rate=2e-2,
    ema_decay=0.9,
    overlap=0.0,
    flips=False,
)


@dataclass(frozen=True, eq=False)
class Chain:
    """What the teachers' part left behind."""

    specs: tuple[TeacherSpec, ...]
    train: tuple[TrainingVolume, ...]
    """Soft labels, and no true one: all that the student knows comes from the teachers."""
    validation: tuple[TrainingVolume, ...]
    held_out: tuple[TrainingVolume, ...]
    single: Mapping[str, float]
    """Held-out score of each teacher."""
    ensemble: float
    log: Path


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def probability(soft: SoftLabels) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-soft.mean_logit.astype(np.float32))), np.float32)


def score(answers: Mapping[str, NDArray[np.float32]], volumes: tuple[TrainingVolume, ...]) -> float:
    """Mean F-beta (0.5) at each volume's best threshold."""
    return float(np.mean([surface_f_beta(answers[volume.volume_id], volume.label) for volume in volumes]))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    train, held_out = phantom_volumes(4), phantom_volumes(2, seed=100)
    make_teachers(folder / "teachers", train, recipes=recipes(steps=0.75))
    specs = find_teachers(folder / "teachers").teachers
    cache = ArrayCache(folder / "cache", max_bytes=1 << 30)
    log = folder / "events.jsonl"

    def ask(teachers: tuple[TeacherSpec, ...], volumes: tuple[TrainingVolume, ...], emit: Any = None):
        images = {volume.volume_id: volume.image for volume in volumes}
        return teacher_ensemble_infer(teachers, images, cache=cache, config=ASK, emit=emit, reload_cached=bool(emit))

    with EventLog(log, run_id="chain") as events:
        soft = ask(specs, train[:3], lambda name, fields: events.emit(name, **fields))
    of_held_out = {spec.name: ask((spec,), held_out) for spec in specs}
    single = {
        name: score({key: probability(s) for key, s in answers.items()}, held_out)
        for name, answers in of_held_out.items()
    }
    ensemble = score({key: probability(s) for key, s in ask(specs, held_out).items()}, held_out)
    taught = tuple(replace(volume, label=None, soft=soft[volume.volume_id]) for volume in train[:3])
    return Chain(specs, taught, phantom_volumes(1, side=32, seed=50), held_out, single, ensemble, log)


def teach(train: tuple[TrainingVolume, ...], chain: Chain, emit: Any = None) -> TrainedStudent:
    return train_student_distilled(
        train,
        chain.validation,
        STUDENT,
        seed=0,
        device="cpu",
        emit=emit or (lambda name, fields: None),
        save=lambda parts, cursor: None,
        resume=None,
        n_threads=1,
    )


def held_out_score(student: TrainedStudent, chain: Chain) -> float:
    """In one window, as the teachers saw the volumes: a seam costs more than anything learned here gains."""
    asked = replace(student, config=replace(student.config, patch=chain.specs[0].patch))
    answers = {volume.volume_id: asked.predict(volume.image).probability for volume in chain.held_out}
    return score(answers, chain.held_out)


@pytest.fixture(scope="module")
def student(chain: Chain) -> TrainedStudent:
    with EventLog(chain.log, run_id="chain") as events:
        return teach(chain.train, chain, lambda name, fields: events.emit(name, **fields))


def shuffled(soft: SoftLabels, seed: int) -> SoftLabels:
    """The same answers, each for another voxel."""
    order = np.random.default_rng(seed).permutation(soft.mean_logit.size)
    fields = {name: getattr(soft, name) for name in ("mean_logit", "variance", "disagreement")}
    return replace(soft, **{name: np.ravel(array)[order].reshape(array.shape) for name, array in fields.items()})


def test_the_teachers_are_truly_different(chain: Chain) -> None:  # R18
    assert len(chain.specs) == 9
    assert len({spec.architecture["name"] for spec in chain.specs}) == 4
    assert len({spec.digest for spec in chain.specs}) == 9
    assert {spec.output.n_classes for spec in chain.specs} == {2, 3}
    assert len({(spec.normalisation.kind, spec.normalisation.scope) for spec in chain.specs}) == 3
    soft = chain.train[0].soft
    assert soft is not None and len(soft.teachers) == 9
    assert float(soft.disagreement.astype(np.float32).mean()) > 0.01
    assert float(np.ptp(list(chain.single.values()))) > 0.05


def test_the_student_beats_the_mean_of_its_teachers(chain: Chain, student: TrainedStudent) -> None:  # R19
    found, mean = held_out_score(student, chain), float(np.mean(list(chain.single.values())))
    print(f"student {found:.3f}, teachers' mean {mean:.3f}, ensemble {chain.ensemble:.3f}, each {dict(chain.single)}")
    assert found > mean + 0.02


def test_shuffled_soft_labels_teach_nothing(chain: Chain, student: TrainedStudent) -> None:  # R19, R22
    """As many surfaces, as sure, as much in agreement, but in other places."""
    lied_to = teach(tuple(replace(v, soft=shuffled(v.soft, seed)) for seed, v in enumerate(chain.train)), chain)
    found, without = held_out_score(student, chain), held_out_score(lied_to, chain)
    print(f"student {found:.3f}, taught with shuffled soft labels {without:.3f}")
    assert without < 0.5 * found


def test_the_log_proves_it(chain: Chain, student: TrainedStudent) -> None:  # R22
    assert verify(chain.log).entries > 100
    digests = {spec.name: spec.digest for spec in chain.specs}
    proof = require_distilled(iter_events(chain.log), teachers=digests, due=True)
    assert proof.verdict == "GO" and proof.student_last == student.weights_digest
    with pytest.raises(DistillationNotExecuted, match="DISTILLATION_NOT_EXECUTED_HARD_FAIL"):
        events = [event for event in iter_events(chain.log) if event["event"] != "DISTILLATION_STUDENT_UPDATE"]
        require_distilled(events, teachers=digests, due=True)
