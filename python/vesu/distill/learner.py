"""One stage's model, optimizer and average, and one step of them (R19)."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch

from vesu.config import StudentConfig
from vesu.distill.device import BatchLimit
from vesu.distill.ema import averaged_model
from vesu.distill.loading import PatchLoader, collate
from vesu.distill.losses import DistillationLoss
from vesu.distill.parallel import Ranks, flat_gradient, set_gradient
from vesu.distill.patches import Patch, PatchSampler
from vesu.distill.stages import Stage
from vesu.distill.student import stage_parameters
from vesu.distill.trained import autocast_for
from vesu.distill.values import Emit

__all__ = ["Gradient", "Learner", "torch_settings"]

WEIGHT_DECAY = 1e-2
"""Of kernels; biases and norms have none."""
MAX_GRADIENT_NORM = 1.0
NORM_CHUNK = 1024


@dataclass(frozen=True)
class Gradient:
    """What the forward and backward passes of a step gave."""

    flat: torch.Tensor
    """Sum over the passes, times the loss scale."""
    terms: Mapping[str, float]
    """Mean over the step's patches of each term of the loss, and their weighted sum ``total``."""
    norm: float
    """Before clipping."""

    @property
    def is_finite(self) -> bool:
        """Whether the step can be taken."""
        return bool(np.isfinite([self.norm, *self.terms.values()]).all())


class Learner:
    """Model, averaged model, optimizer, loss scale and patches of one stage.

    Parameters
    ----------
    stage : Stage
    model : torch.nn.Module
        On its device; what the stage does not train is frozen.
    ranks : Ranks
        Who shares the passes of a step.
    seed : int
    limit : BatchLimit
        Patches at a time, kept over stages.
    n_workers : int
        Threads that cut patches ahead.

    Notes
    -----
    AdamW (Loshchilov, Hutter: arXiv 1711.05101). A step is ``accumulate`` passes of ``batch`` patches; their
    gradients are added in the passes' order, so that any number of processes gives the bits of one.
    """

    def __init__(
        self, stage: Stage, model: torch.nn.Module, ranks: Ranks, *, seed: int, limit: BatchLimit, n_workers: int
    ) -> None:
        self.stage = stage
        self.model = model
        self._ranks = ranks
        self._limit = limit
        self._trained = _unfreeze(model, stage.name)
        kernels = [parameter for parameter in self._trained if parameter.ndim > 1]
        others = [parameter for parameter in self._trained if parameter.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=stage.top)
        self.ema = averaged_model(model, stage.config.ema_decay)
        on_gpu = ranks.device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda", enabled=on_gpu and stage.config.precision == "fp16")
        self._forward: Callable[[torch.Tensor], Any] = (
            torch.compile(model) if stage.config.compile and on_gpu else model
        )
        self._loss = DistillationLoss(stage.config)
        self._sampler = PatchSampler(stage.volumes, stage.config.patch, seed=seed, stage=stage.name)
        self._loader = PatchLoader(self._sampler, n_workers if on_gpu else 0)
        self._n_passes = stage.steps * stage.config.accumulate
        self._n_ahead = 1 + 2 * n_workers // stage.config.batch

    def close(self) -> None:
        """End the threads that cut patches."""
        self._loader.__exit__(None, None, None)

    def gradient(self, step: int, emit: Emit, poll: Callable[[], object] | None) -> Gradient:
        """Forward and backward passes of a step; no weight is changed, it may be broken off.

        Parameters
        ----------
        step : int
            From 0.
        emit : callable
            Gets ``DISTILLATION_BATCH_BEGIN`` and ``_END`` around each pass of this process.
        poll : callable, optional
            Called before each pass.

        Returns
        -------
        Gradient
        """
        config = self.stage.config
        names: tuple[str, ...] = ()
        total: torch.Tensor | None = None
        for number in self._ranks.share(config.accumulate):
            with self._ranks.together():
                if poll is not None:
                    poll()
                fields = {"stage": self.stage.name, "step": step + 1, "pass": number, "patches": config.batch}
                patches = self._patches(step, number)
                emit("DISTILLATION_BATCH_BEGIN", fields | {"volumes": [patch.volume_id for patch in patches]})
                (terms, names), chunk = self._limit.run(partial(self._pass, patches), len(patches))
                emit("DISTILLATION_BATCH_END", fields | {"chunk": chunk})
            total = self._ranks.fold(torch.cat([flat_gradient(self._trained), terms]), total)
        assert total is not None
        flat, terms = total[: -len(names)], total[-len(names) :]
        values = dict(zip(names, (terms / config.accumulate).tolist(), strict=True))
        return Gradient(flat, values, _norm(flat) / self.scaler.get_scale())

    def apply(self, gradient: Gradient, step: int) -> bool:
        """Clip, step, average; whether a step was taken (a loss scale that was too large is only made smaller)."""
        rate = self.stage.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        factor = min(1.0, MAX_GRADIENT_NORM / max(gradient.norm, 1e-12)) if gradient.is_finite else 1.0
        set_gradient(self._trained, gradient.flat * factor)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # looks for infinities itself
            self.scaler.update()
        elif gradient.is_finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if gradient.is_finite:
            self.ema.update_parameters(self.model)
        return gradient.is_finite

    def _patches(self, step: int, number: int) -> list[Patch]:
        """Of a pass; those of this process' next passes are announced, so that every worker has something to cut."""
        this = step * self.stage.config.accumulate + number
        following = range(this + self._ranks.world, self._n_passes, self._ranks.world)[: self._n_ahead]
        return self._loader.take(self._indices(this), chain.from_iterable(map(self._indices, following)))

    def _indices(self, number: int) -> range:
        return range(number * self.stage.config.batch, (number + 1) * self.stage.config.batch)

    def _pass(self, patches: list[Patch], chunk: int) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Gradients of the mean loss over the patches, seen `chunk` at a time; the terms' means and names."""
        config, device = self.stage.config, self._ranks.device
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: torch.Tensor | None = None
        names: tuple[str, ...] = ()
        for first in range(0, len(patches), chunk):
            part = patches[first : first + chunk]
            weight = len(part) / len(patches)
            image, target = collate(part, device)
            if device.type == "cuda":
                image = image.to(memory_format=torch.channels_last_3d)
            with autocast_for(device, config):
                output = self._forward(image)
            loss = self._loss(output, target)
            torch.autograd.backward(self.scaler.scale(loss.total * (weight / config.accumulate)))
            terms = {**loss.terms, "total": loss.total.detach()}
            names = tuple(terms)
            values = torch.stack([terms[name].float() for name in names]) * weight
            sums = values if sums is None else sums + values
        assert sums is not None
        return sums, names


def _unfreeze(model: torch.nn.Module, stage: str) -> list[torch.nn.Parameter]:
    trained = stage_parameters(model, stage)
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    return trained


def _norm(flat: torch.Tensor) -> float:
    """Euclidean norm; rows of a fixed length are added up apart, so that threads change no bit."""
    padded = torch.nn.functional.pad(flat.double(), (0, -len(flat) % NORM_CHUNK))
    rows = padded.reshape(-1, NORM_CHUNK).square().sum(1)
    return float(np.sqrt(rows.cpu().numpy().sum()))


@contextmanager
def torch_settings(device: torch.device, config: StudentConfig, n_threads: int | None) -> Iterator[None]:
    """Threads, and on a GPU deterministic kernels without TF32 in float32; all put back afterwards.

    Parameters
    ----------
    device : torch.device
    config : StudentConfig
    n_threads : int or None
        Of torch on the CPU; None leaves them.
    """
    threads = torch.get_num_threads()
    with ExitStack() as undo:
        if n_threads is not None:
            torch.set_num_threads(n_threads)
            undo.callback(torch.set_num_threads, threads)
        undo.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks of who wants determinism
            was = torch.are_deterministic_algorithms_enabled()
            warn = torch.is_deterministic_algorithms_warn_only_enabled()
            undo.callback(torch.use_deterministic_algorithms, was, warn_only=warn)
            torch.use_deterministic_algorithms(True, warn_only=True)
            tf32 = config.precision != "fp32"
            undo.enter_context(
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)
            )
        yield
