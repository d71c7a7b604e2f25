"""A student's training: what it learns, what it says of itself, when it stops, what it refuses (R19, R20, R22)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training_case import one_thread_fixture  # noqa: F401
from training_volumes import Events, config, sheet, train
from vesu.distill import learner
from vesu.distill.losses import LossTerms
from vesu.distill.parallel import flat_gradient
from vesu.distill.trained import TrainedStudent
from vesu.distill.training import TrainingDiverged
from vesu.distill.weights import digest_of, pack_weights
from vesu.errors import ArgumentError, FileError, FormatError, MemoryLimitError


def kept_in(saves: list[dict[str, bytes]]):
    return lambda parts, cursor: saves.append(parts)


def test_the_student_learns_its_sheet() -> None:  # R19
    settings = config(preset="P1", channels=(4, 8), steps=25, validate_every=25, accumulate=1, learning_rate=2e-2)
    student = train(settings)
    answer = student.predict(sheet("new", seed=7).image)
    truth = sheet("new", seed=7).label
    assert answer.probability[truth == 1].mean() > 2 * answer.probability[truth == 0].mean()
    assert student.history[-1]["f_beta"] > 0.8
    untrained = student.untrained().predict(sheet("new", seed=7).image).probability
    assert abs(untrained[truth == 1].mean() - untrained[truth == 0].mean()) < 0.05


def test_every_piece_of_the_work_is_told_in_its_order() -> None:  # R22, R23
    events, saves = Events(), []
    student = train(emit=events, save=kept_in(saves))
    assert events.names[:2] == ["DISTILLATION_START", "STUDENT_STAGE_START"]
    assert events.names[-1] == "DISTILLATION_END"
    stages = [fields["stage"] for fields in events.named("STUDENT_STAGE_END")]
    assert stages == ["distil", "head", "decoder"]
    for stage in stages:
        steps = [f["step"] for f in events.named("DISTILLATION_LOSS_STEP") if f["stage"] == stage]
        assert steps == [1, 2]
    assert len(events.named("DISTILLATION_CHECKPOINT_WRITTEN")) == len(saves)
    assert len(events.named("DISTILLATION_BATCH_BEGIN")) == len(events.named("DISTILLATION_BATCH_END")) == 6
    distil, *_ = events.named("DISTILLATION_LOSS_STEP")
    assert distil["terms"]["soft"] > 0
    digests = [fields["weights_digest"] for fields in events.named("DISTILLATION_STUDENT_UPDATE")]
    before = events.named("DISTILLATION_START")[0]["weights_digest"]
    assert len({before, *digests}) == 1 + len(digests)
    (end,) = events.named("DISTILLATION_END")
    assert end["weights_digest"] in digests
    assert end["weights_digest"] == student.weights_digest
    assert before == student.untrained().weights_digest


def test_fine_tuning_begins_from_the_persisted_memory() -> None:  # R23
    events = Events()
    student = train(emit=events, save=lambda parts, cursor: None)
    (kept,), (loaded,) = (events.named(f"TRANSFER_MEMORY_{what}") for what in ("PERSISTED", "RELOADED_FOR_FINETUNE"))
    assert kept["weights_digest"] == loaded["weights_digest"] == digest_of(student.distilled_weights)
    assert student.distilled().weights_digest == kept["weights_digest"]
    order = events.names
    assert order.index("TRANSFER_MEMORY_PERSISTED") < order.index("TRANSFER_MEMORY_RELOADED_FOR_FINETUNE")
    first_tuning = next(i for i, (n, f) in enumerate(events) if n == "DISTILLATION_LOSS_STEP" and f["stage"] == "head")
    assert order.index("TRANSFER_MEMORY_RELOADED_FOR_FINETUNE") < first_tuning


def test_what_nobody_keeps_is_not_called_persisted() -> None:  # R22
    events = Events()
    train(config(preset="P1"), emit=events)
    assert "TRANSFER_MEMORY_PERSISTED" not in events.names
    assert "DISTILLATION_CHECKPOINT_WRITTEN" not in events.names


def test_a_save_that_failed_is_not_told_as_one() -> None:  # R22
    events = Events()
    train(config(preset="P1"), emit=events, save=lambda parts, cursor: False)
    assert "TRANSFER_MEMORY_PERSISTED" not in events.names
    assert "DISTILLATION_CHECKPOINT_WRITTEN" not in events.names


def test_without_teachers_nothing_is_called_distillation() -> None:  # R22
    events = Events()
    train(config(preset="P1"), train=[sheet("a", soft=False)], emit=events, save=lambda parts, cursor: None)
    assert not [name for name in events.names if name.startswith(("DISTILLATION", "TRANSFER"))]
    assert events.names[0] == "TRAINING_START"
    assert {"TRAINING_LOSS_STEP", "TRAINING_STUDENT_UPDATE", "TRAINING_CHECKPOINT_WRITTEN"} <= set(events.names)


def test_a_stage_trains_its_own_parts_only() -> None:  # R20
    saves = []
    train(config(steps=1), save=lambda parts, cursor: saves.append((cursor["stage"], parts)))
    weights = {stage: parts["training_model.safetensors"] for stage, parts in saves}  # the last of each stage
    from safetensors.torch import load

    distil, head, decoder = (load(weights[stage]) for stage in ("distil", "head", "decoder"))
    best_of_distil = load(next(parts for stage, parts in saves if stage == "head")["training_distilled.safetensors"])

    def changed(a, b) -> set[str]:
        return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}

    assert changed(best_of_distil, head) == {"head"}
    assert changed(best_of_distil, decoder) >= {"decoder"}
    assert "encoder" not in changed(best_of_distil, decoder)
    assert distil.keys() == head.keys()


def test_a_stage_without_gain_ends_early() -> None:  # R20
    events = Events()
    settings = config(preset="P1", steps=20, validate_every=1, patience=2, learning_rate=1e-12)
    train(settings, emit=events)
    first, second = events.named("STUDENT_STAGE_END")
    assert first["reason"] == second["reason"] == "early stop"
    assert (first["steps"], second["steps"]) == (3, 2)  # the first validation is a gain over nothing


def test_the_best_weights_are_kept_and_restored() -> None:  # R20
    events = Events()
    student = train(config(steps=4), emit=events)
    validated = events.named("STUDENT_VALIDATED")
    gains = [fields for fields in validated if fields["gain"]]
    assert gains[-1]["weights_digest"] == student.weights_digest
    assert gains[-1]["f_beta"] == max(fields["f_beta"] for fields in gains)
    assert student.threshold == gains[-1]["threshold"]


def test_without_validation_the_last_weights_are_the_student() -> None:  # R20
    events = Events()
    student = train(config(preset="P1"), validation=[], emit=events)
    assert "STUDENT_VALIDATED" not in events.names
    assert events.named("DISTILLATION_STUDENT_UPDATE")[-1]["weights_digest"] == student.weights_digest
    assert student.threshold is None


def test_pseudo_targets_alone_teach_too() -> None:  # R19
    events = Events()
    pseudo = [sheet("a", labelled=False)]
    train(config(preset="P1"), train=pseudo, validation=pseudo, emit=events)
    assert events.named("DISTILLATION_START")[0]["volumes_labelled"] == 0
    steps = events.named("DISTILLATION_LOSS_STEP")
    assert all(fields["terms"]["soft"] > 0 and fields["terms"]["bce"] == 0 for fields in steps)
    assert all(fields["grad_norm"] > 0 for fields in steps)


def test_the_seed_decides_everything_and_nothing_else_does() -> None:  # R19
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = train(config(preset="P1"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(5)  # noqa: NPY002
    assert train(config(preset="P1")).weights_digest == one.weights_digest
    assert train(config(preset="P1"), seed=4).weights_digest != one.weights_digest


def test_progress_goes_from_nothing_to_all() -> None:
    parts = []
    train(on_step=parts.append)
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert len(parts) == 6


# ---- when it goes wrong


def test_a_training_that_diverges_is_refused_by_name() -> None:
    events = Events()
    with pytest.raises(TrainingDiverged, match=r"stage distil, step \d+: 4 steps in a row .* not finite: .*total"):
        train(config(steps=20, validate_every=20, learning_rate=1e30), emit=events)
    skipped = events.named("STUDENT_STEP_SKIPPED")
    assert [fields["failures"] for fields in skipped] == [1, 2, 3, 4]
    assert [f["taken"] for f in events.named("DISTILLATION_LOSS_STEP")][-4:] == [False] * 4
    with pytest.raises(
        TrainingDiverged, match=r"stage distil, step 1: the student's answer for held out: .*not finite"
    ):
        train(config(learning_rate=1e30))


def test_a_step_without_a_finite_loss_is_skipped_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class FailsOnce(learner.DistillationLoss):
        def __call__(self, output, target):
            loss = super().__call__(output, target)
            calls.append(None)
            return LossTerms(loss.total * float("nan"), loss.terms) if len(calls) == 2 else loss

    monkeypatch.setattr(learner, "DistillationLoss", FailsOnce)
    events = Events()
    student = train(config(preset="P1"), emit=events)
    (skipped,) = events.named("STUDENT_STEP_SKIPPED")
    assert (skipped["stage"], skipped["step"]) == ("distil", 2)
    steps = [f["step"] for f in events.named("DISTILLATION_STUDENT_UPDATE") if f["stage"] == "distil"]
    assert steps == [1, 3]  # a stage never ends with a step that was not taken
    assert all(torch.isfinite(p).all() for p in student.model.parameters())


def test_out_of_memory_takes_smaller_batches_aloud(monkeypatch: pytest.MonkeyPatch) -> None:  # R27
    whole = learner.Learner._pass

    def small_only(self, patches, chunk):
        if chunk > 1:
            raise MemoryError("no room")
        return whole(self, patches, chunk)

    monkeypatch.setattr(learner.Learner, "_pass", small_only)
    events, saves = Events(), []
    student = train(config(preset="P1"), emit=events, save=kept_in(saves))
    (smaller,) = events.named("OUT_OF_MEMORY_SMALLER_BATCH")
    assert (smaller["batch"], smaller["next"]) == (2, 1)
    assert {fields["chunk"] for fields in events.named("DISTILLATION_BATCH_END")} == {1}
    resumed = Events()
    assert train(config(preset="P1"), emit=resumed, resume=saves[0]).weights_digest == student.weights_digest
    assert "OUT_OF_MEMORY_SMALLER_BATCH" not in resumed.names
    monkeypatch.setattr(learner.Learner, "_pass", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryLimitError, match="single item"):
        train(config(preset="P1"))


def test_half_a_batch_at_a_time_is_the_same_step() -> None:  # R27
    gradients = []
    for chunk in (1, 2):
        made = _learner()
        made._limit.size = chunk
        gradients.append(made.gradient(0, lambda *_: None, None))
        made.close()
    one, two = gradients
    assert torch.allclose(one.flat, two.flat, atol=1e-6)
    assert one.terms == pytest.approx(two.terms, rel=1e-5)


def test_a_loss_scale_changes_no_step_but_skips_what_overflows() -> None:  # R19, fp16
    plain, scaled = _learner(), _learner()
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
    gradients = [made.gradient(0, lambda *_: None, None) for made in (plain, scaled)]
    assert torch.equal(gradients[1].flat, 1024 * gradients[0].flat)
    assert gradients[1].norm == gradients[0].norm
    assert plain.apply(gradients[0], 0) and scaled.apply(gradients[1], 0)
    after = [pack_weights(made.model) for made in (plain, scaled)]
    assert after[0] == after[1]
    overflow = replace(gradients[1], flat=gradients[1].flat * float("inf"), norm=float("inf"))
    assert not scaled.apply(overflow, 1)
    assert scaled.scaler.get_scale() == 512
    assert pack_weights(scaled.model) == after[1]
    assert not plain.apply(replace(gradients[0], norm=float("nan")), 1)
    assert pack_weights(plain.model) == after[0]


def test_gradients_are_clipped_to_norm_one() -> None:
    made = _learner()
    gradient = made.gradient(0, lambda *_: None, None)
    assert gradient.norm == pytest.approx(float(torch.linalg.vector_norm(gradient.flat.double())))
    seen = []
    made.optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(flat_gradient(made._trained)))
    made.apply(replace(gradient, flat=gradient.flat * 100, norm=gradient.norm * 100), 0)
    made.apply(replace(gradient, flat=gradient.flat * (0.5 / gradient.norm), norm=0.5), 1)
    assert [float(torch.linalg.vector_norm(flat)) for flat in seen] == pytest.approx([1.0, 0.5], rel=1e-4)


def _learner() -> learner.Learner:
    from vesu.distill.device import BatchLimit
    from vesu.distill.parallel import Ranks
    from vesu.distill.patches import PreparedVolume
    from vesu.distill.stages import plan_stages
    from vesu.distill.student import build_student

    settings = config(preset="P1")
    (stage, *_) = plan_stages(settings, [PreparedVolume(sheet("a"))])
    return learner.Learner(
        stage, build_student(settings, seed=0), Ranks(), seed=0, limit=BatchLimit(settings.batch), n_workers=0
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": []}, "train: got no volume"),
        ({"train": [sheet("x", labelled=False, soft=False)]}, "volume x with neither label nor soft labels"),
        ({"seed": -1}, "seed: got -1"),
        ({"seed": True}, "seed: got True"),
    ],
)
def test_bad_arguments_are_named(options, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(**options)


# ---- the student's files


@pytest.fixture(scope="module", name="student")
def student_fixture() -> TrainedStudent:
    return train(config(preset="P1"))


def test_a_saved_student_answers_the_same(student: TrainedStudent, tmp_path) -> None:  # R19
    student.save(tmp_path / "student")
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == ["student.json", "student.safetensors"]
    loaded = TrainedStudent.load(tmp_path / "student")
    assert loaded.config == student.config
    assert loaded.history == student.history
    assert loaded.threshold == student.threshold
    image = sheet("new", seed=8, shape=(9, 13, 10)).image
    ours, theirs = student.predict(image), loaded.predict(image)
    assert np.array_equal(ours.probability, theirs.probability)
    assert np.array_equal(ours.uncertainty, theirs.uncertainty)
    for array in (ours.probability, ours.uncertainty):
        assert array.shape == image.shape
        assert array.dtype == np.float32
        assert 0 <= array.min() <= array.max() <= 1
    with pytest.raises(FormatError, match="kept by the training only"):
        loaded.distilled()
    with pytest.raises(FileError):
        student.save(tmp_path / "student")


def test_damaged_files_are_refused_by_name(student: TrainedStudent, tmp_path) -> None:
    student.save(tmp_path / "student")
    document, weights = tmp_path / "student" / "student.json", tmp_path / "student" / "student.safetensors"
    text, data = document.read_text(), weights.read_bytes()

    def refused(message: str, error: type[Exception] = FormatError) -> None:
        with pytest.raises(error, match=message):
            TrainedStudent.load(tmp_path / "student")
        document.write_text(text)
        weights.write_bytes(data)

    document.write_text(text.replace("vesu-student/1", "vesu-student/9"))
    refused("format 'vesu-student/9'")
    document.write_text(text.replace('"threshold"', '"treshold"'))
    refused("student.json: .*: missing|not expected")
    document.write_text(text.replace('"stem": "2.5d"', '"stem": "4d"').replace('"patience": 3', '"patience": 0'))
    refused("config: ")
    document.write_text("{")
    refused("not JSON")
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused("digest .* accepted: ")
    weights.unlink()
    refused("No such file", FileError)
    bad = replace(student, model=student.untrained().model)
    next(bad.model.parameters()).data.fill_(float("nan"))
    bad.save(tmp_path / "bad")
    with pytest.raises(FormatError, match=r"encoder.*: got values that are NaN"):
        TrainedStudent.load(tmp_path / "bad")
    assert pack_weights(student.model) == data
