"""The order of a student's training: stages, steps, validations, saves, and the events of each (R19, R20, R22, R36)."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch

from vesu.config import StudentConfig
from vesu.distill.device import BatchLimit, gpu_memory_snapshot
from vesu.distill.learner import Gradient, Learner
from vesu.distill.memory import BEST_PART, MEMORY_PART, Memory, identity, require_same
from vesu.distill.parallel import Ranks
from vesu.distill.patches import PreparedVolume, standardise
from vesu.distill.stages import DISTIL, Stage, plan_stages
from vesu.distill.student import build_student
from vesu.distill.trained import TrainedStudent, predict_volume
from vesu.distill.training_state import capture, restore
from vesu.distill.validation import N_BINS, EarlyStop, ValidationScore, count_bins, score_bins
from vesu.distill.values import Emit
from vesu.distill.weights import digest_of, pack_weights, unpack_weights
from vesu.errors import DataError, FormatError, VesuError

__all__ = ["Save", "Trainer", "TrainingDiverged"]

Save: TypeAlias = Callable[[dict[str, bytes], Mapping[str, Any]], object]

MAX_FAILURES = 4
"""Steps in a row that may be skipped for a loss or gradient that is not finite."""
MAX_SCALE_FAILURES = 24
"""The same in fp16, where the loss scale is found by halving it."""


class TrainingDiverged(VesuError, ArithmeticError):
    """Loss or gradient stayed infinite or NaN; the message says in which stage and step, and of which terms."""


class Trainer:
    """The order of a training; the work is the learner's, the state the memory's."""

    def __init__(
        self,
        volumes: Sequence[PreparedVolume],
        validation: Sequence[PreparedVolume],
        config: StudentConfig,
        *,
        seed: int,
        ranks: Ranks,
        emit: Emit,
        save: Save | None,
        on_step: Callable[[float], object] | None,
        poll: Callable[[], object] | None,
        save_due: Callable[[], bool] | None,
        guard: Callable[[], AbstractContextManager[object]],
        n_workers: int,
    ) -> None:
        self._validation = validation
        self._config = config
        self._seed = seed
        self._ranks = ranks
        self._save_parts = save
        self._on_step = on_step
        self._poll = poll
        self._save_due = save_due
        self._guard = guard
        self._n_workers = n_workers
        self._stages = plan_stages(config, volumes)
        self._identity = identity(config, seed, {"train": volumes, "validation": validation})
        teachers = sorted({t for v in volumes if v.volume.soft is not None for t in v.volume.soft.teachers})
        self._is_distillation = any(volume.volume.soft is not None for volume in volumes)
        self._sent = emit
        self._about = {
            "seed": seed,
            "device": str(ranks.device),
            "world": ranks.world,
            "volumes": len(volumes),
            "volumes_labelled": sum(volume.volume.label is not None for volume in volumes),
            "volumes_soft": sum(volume.volume.soft is not None for volume in volumes),
            "validation": len(validation),
            "teachers": teachers,
            "stages": [stage.name for stage in self._stages],
        }
        self._model = build_student(config, seed=seed).to(ranks.device)
        if ranks.device.type == "cuda":
            self._model = self._model.to(memory_format=torch.channels_last_3d)
        self._limit = BatchLimit(config.batch, self._emit)
        self._memory = Memory(EarlyStop(config.patience), batch=config.batch)
        self._learner: Learner
        self._is_between_steps = False
        self._is_unsaved = False

    def run(self, resume: Mapping[str, bytes] | None) -> TrainedStudent:
        start = time.monotonic()
        torch.manual_seed(self._seed)
        self._begin(resume)
        try:
            while not self._memory.is_finished:
                self._train_stage()
                self._end_stage()
        except BaseException:
            self._keep_what_is_done()
            raise
        finally:
            self._learner.close()
        assert self._memory.best is not None
        self._emit("DISTILLATION_END", self._result(time.monotonic() - start))
        unpack_weights(self._memory.best, self._model, BEST_PART)
        score = self._memory.best_score
        return TrainedStudent(
            self._model.requires_grad_(False).eval(),
            self._config,
            self._seed,
            tuple(self._memory.history),
            None if score is None else score["threshold"],
            self._memory.distilled,
        )

    # ---- beginning

    def _begin(self, resume: Mapping[str, bytes] | None) -> None:
        if resume is None:
            about = self._about | {"weights_digest": digest_of(pack_weights(self._model))}
            self._emit("DISTILLATION_START", about)
            self._enter(0, None)
            return
        self._memory, saved = Memory.from_parts(resume)
        require_same(saved, self._identity)
        if not 0 <= self._memory.stage < len(self._stages):
            raise FormatError(f"{MEMORY_PART}: stage {self._memory.stage}; accepted: 0 to {len(self._stages) - 1}")
        self._limit.size = self._memory.batch
        self._make_learner(self._memory.stage)
        learner = self._learner
        restore(
            resume,
            self._model,
            learner.optimizer,
            None,
            learner.scaler if learner.scaler.is_enabled() else None,
            ema=learner.ema,
            emit=lambda name, **fields: self._sent(name, fields),
        )
        digest = digest_of(pack_weights(learner.ema.module))
        at = {"stage": learner.stage.name, "step": self._memory.step, "weights_digest": digest}
        self._emit("DISTILLATION_RESUMED", self._about | at)
        self._is_between_steps = True

    def _enter(self, number: int, weights: bytes | None) -> None:
        """Begin a stage, from these weights or from those that are there."""
        self._is_between_steps = False
        if weights is not None:
            unpack_weights(weights, self._model, BEST_PART)
        self._memory.enter(number, self._config.patience)
        self._make_learner(number)
        stage = self._learner.stage
        trained = sum(p.numel() for p in self._model.parameters() if p.requires_grad)
        self._sent(
            "STUDENT_STAGE_START",
            {
                "stage": stage.name,
                "steps": stage.steps,
                "learning_rate": stage.top,
                "volumes": len(stage.volumes),
                "parameters": trained,
                "weights_digest": digest_of(pack_weights(self._model)),
            },
        )
        gpu_memory_snapshot(self._ranks.device, self._sent, f"student: stage {stage.name} begins")
        self._is_between_steps = True

    def _make_learner(self, number: int) -> None:
        self._learner = Learner(
            self._stages[number],
            self._model,
            self._ranks,
            seed=self._seed,
            limit=self._limit,
            n_workers=self._n_workers,
        )

    # ---- a stage

    def _train_stage(self) -> None:
        memory, stage = self._memory, self._learner.stage
        while True:
            if self._is_validation_due():
                self._validate()
            if memory.validated >= stage.steps or memory.early_stop.is_over:
                return
            self._step()

    def _is_validation_due(self) -> bool:
        """Every so many steps and at the end; never of weights that the last step did not change."""
        memory = self._memory
        if memory.failures or memory.step == memory.validated:
            return False
        is_end = memory.step >= self._learner.stage.steps
        return is_end or memory.step - memory.validated >= self._config.validate_every

    def _step(self) -> None:
        memory, learner = self._memory, self._learner
        gradient = learner.gradient(memory.step, self._emit, self._poll)
        with self._guard():
            self._is_between_steps = False
            taken = learner.apply(gradient, memory.step)
            memory.step += 1
            memory.batch = self._limit.size
            self._tell(gradient, taken)
            self._is_between_steps = self._is_unsaved = True
            if self._ranks.first_says(self._save_due is not None and self._save_due()):
                self._save()
        limit = MAX_SCALE_FAILURES if learner.scaler.is_enabled() else MAX_FAILURES
        if memory.failures >= limit:
            bad = [name for name, value in gradient.terms.items() if not np.isfinite(value)]
            raise TrainingDiverged(
                f"stage {learner.stage.name}, step {memory.step}: {memory.failures} steps in a row without a finite "
                f"gradient (terms not finite: {', '.join(bad) or 'none'}); a lower learning_rate may help"
            )
        if self._on_step is not None:
            planned = [stage.steps for stage in self._stages]
            done = sum(planned[: memory.stage]) + min(memory.step, planned[memory.stage])
            self._on_step(done / sum(planned))

    def _tell(self, gradient: Gradient, taken: bool) -> None:
        """The events of a step, and what the history keeps of it."""
        memory, stage = self._memory, self._learner.stage
        at = {"stage": stage.name, "step": memory.step}
        rate = stage.learning_rate(memory.step - 1)
        step = {"terms": dict(gradient.terms), "grad_norm": gradient.norm, "learning_rate": rate}
        self._emit("DISTILLATION_LOSS_STEP", at | step | {"taken": taken})
        if not taken:
            memory.failures += 1
            fields = {"failures": memory.failures, "loss_scale": self._learner.scaler.get_scale()}
            self._emit("STUDENT_STEP_SKIPPED", at | step | fields)
            return
        memory.failures = 0
        memory.add_losses(gradient.terms)
        digest = digest_of(pack_weights(self._learner.ema.module)) if self._is_validation_due() else None
        self._emit("DISTILLATION_STUDENT_UPDATE", at | {"weights_digest": digest})

    def _validate(self) -> None:
        """Judge the averaged weights, and keep them if they are the best."""
        memory, learner = self._memory, self._learner
        score = self._score() if self._validation else None
        with self._guard():
            self._is_between_steps = False
            gain = score is None or memory.early_stop.update(score)
            weights = pack_weights(learner.ema.module)
            if gain:
                memory.best, memory.best_score = weights, None if score is None else dict(vars(score))
            memory.validated = memory.step
            entry = {"stage": learner.stage.name, "step": memory.step, "losses": memory.take_losses()}
            entry |= {} if score is None else vars(score) | {"change": memory.early_stop.change}
            memory.history.append(entry)
            self._is_between_steps = self._is_unsaved = True
            told = entry | {"gain": gain, "without_gain": memory.early_stop.without_gain}
            if score is not None:
                self._sent("STUDENT_VALIDATED", told | {"weights_digest": digest_of(weights)})
            self._save()

    def _score(self) -> ValidationScore:
        n = len(self._validation)
        with self._ranks.together():
            own = [self._bins(self._validation[number]) for number in self._ranks.share(n)]
        return score_bins(self._ranks.all_rows(np.array(own, np.int64).reshape(len(own), 2, N_BINS), n))

    def _bins(self, prepared: PreparedVolume) -> Any:
        image = standardise(prepared.volume.image, prepared.mean, prepared.deviation)
        predict = partial(predict_volume, self._learner.ema.module, image, self._config, device=self._ranks.device)
        try:
            logit = predict(flips=False, batch=self._limit.size, poll=self._poll, emit=self._emit)[0]
        except DataError as error:  # the volume was checked: it is the answer that is not finite
            place = f"stage {self._learner.stage.name}, step {self._memory.step}"
            raise TrainingDiverged(f"{place}: the student's answer for {prepared.volume.volume_id}: {error}") from error
        return count_bins(torch.from_numpy(logit).sigmoid().numpy(), prepared.volume)

    def _end_stage(self) -> None:
        """Keep what the stage made, and begin the next one from the best weights."""
        memory, stage = self._memory, self._learner.stage
        with self._guard():
            if memory.is_stage_over:  # and saved: the training goes on from there
                is_saved = self._save_parts is not None
            else:
                self._is_between_steps = False
                self._close_stage(stage)
                self._is_between_steps = True
                is_saved = self._save()
            if self._is_transfer(stage) and is_saved:
                assert memory.distilled is not None
                kept = {"weights_digest": digest_of(memory.distilled), "bytes": len(memory.distilled)}
                self._sent("TRANSFER_MEMORY_PERSISTED", kept)
            if memory.is_finished:
                return
            self._learner.close()
            self._enter(stage.number + 1, memory.best)
            if self._is_transfer(stage):
                loaded = digest_of(pack_weights(self._model))  # of what the network holds now
                begun = {"weights_digest": loaded, "stage": self._learner.stage.name}
                self._sent("TRANSFER_MEMORY_RELOADED_FOR_FINETUNE", begun)

    def _close_stage(self, stage: Stage) -> None:
        memory = self._memory
        assert memory.best is not None
        if stage.name == DISTIL:
            memory.distilled = memory.best
        memory.is_stage_over = True
        memory.is_finished = stage.number + 1 == len(self._stages)
        reason = "early stop" if memory.step < stage.steps else "steps"
        ended = {"stage": stage.name, "steps": memory.step, "reason": reason, "weights_digest": digest_of(memory.best)}
        best = {} if memory.best_score is None else {"f_beta": memory.best_score["f_beta"]}
        gpu_memory_snapshot(self._ranks.device, self._sent, f"student: stage {stage.name} ends")
        self._sent("STUDENT_STAGE_END", ended | best)

    def _is_transfer(self, stage: Stage) -> bool:
        return self._is_distillation and stage.name == DISTIL

    # ---- state and evidence

    def _save(self) -> bool:
        self._is_unsaved = False
        if self._save_parts is None:
            return False
        memory, learner = self._memory, self._learner
        cursor: dict[str, Any] = {"epoch": memory.stage, "index": memory.step, "seed": self._seed}
        cursor |= {"stage": learner.stage.name, "steps": learner.stage.steps}
        scaler = learner.scaler if learner.scaler.is_enabled() else None
        parts = capture(self._model, learner.optimizer, None, scaler, cursor=cursor, ema=learner.ema)
        parts |= memory.parts(self._identity)
        if self._save_parts(parts, cursor) is False:
            return False
        size = sum(map(len, parts.values()))
        at = {"stage": learner.stage.name, "step": memory.step, "parts": len(parts), "bytes": size}
        self._emit("DISTILLATION_CHECKPOINT_WRITTEN", at)
        return True

    def _keep_what_is_done(self) -> None:
        """The work is broken off: between two steps the state is whole, and worth keeping."""
        if self._is_between_steps and self._is_unsaved:
            with self._guard():
                self._save()

    def _result(self, seconds: float) -> dict[str, Any]:
        memory = self._memory
        assert memory.best is not None
        result = {"weights_digest": digest_of(memory.best), "validations": len(memory.history), "seconds": seconds}
        return result if memory.best_score is None else result | memory.best_score

    def _emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """Without teachers nothing is distilled, and no event says so."""
        self._sent(name if self._is_distillation else name.replace("DISTILLATION_", "TRAINING_", 1), fields)
