"""Teachers and student on a GPU, measured in one call: `python benches/distill_gpu.py` where a CUDA GPU, torch, MONAI
and vesu are. Writes distill_gpu.json and prints the figures; `--toy` is a smoke run on a CPU, its figures mean nothing.

Measured: a training step alone with its share of what a bf16 matrix product reaches on the same device; the whole
training with patches cut, logged and saved; a volume's prediction with its eight flips; whether a training that goes on
from its half gives the bits of the uninterrupted one; which phases ran on the GPU, two teachers' among them.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from vesu.config import StudentConfig, TeacherConfig
from vesu.data.cache import ArrayCache
from vesu.data.storage import write_json_atomic
from vesu.distill.device import ComputeDevice, DeviceUse, choose_compute_device
from vesu.distill.ensemble import teacher_ensemble_infer
from vesu.distill.losses import DistillationLoss, Target
from vesu.distill.student import build_student
from vesu.distill.trained import TrainedStudent, autocast_for
from vesu.distill.training import train_student_distilled
from vesu.distill.values import TrainingVolume
from vesu.errors import VesuError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from teacher_factory import make_teachers, phantom_volumes, recipes

TARGET_S = 2.0
"""First target for a 320^3 volume with flips on an H200."""


@dataclass(frozen=True)
class Size:
    """What is measured."""

    volume: int = 192
    """Side of the two training volumes, in voxels."""
    predicted: int = 320
    patch: int = 128
    channels: tuple[int, ...] = (32, 64, 128, 256)
    batch: int = 4
    steps: int = 40
    """Of each of the two stages of the training."""
    timed_steps: int = 20
    """Of the step alone, after as many for warming up."""
    windows: int = 8
    """Windows of a prediction's batch; flips count as windows."""
    matmul: int = 8192

    @classmethod
    def toy(cls) -> "Size":
        """For a CPU: that everything runs."""
        return cls(32, 24, 16, (2, 4), 1, 4, 1, 4, 64)

    def config(self, **changes: Any) -> StudentConfig:
        """The student's: P1, validated at the end of each stage alone."""
        side = (self.patch,) * 3
        plain = StudentConfig(preset="P1", channels=self.channels, patch=side, batch=self.batch, steps=self.steps)
        return replace(plain, validate_every=self.steps, precision="bf16", **changes)


class Machine:
    """The device, its clock, and which phases ran on it."""

    def __init__(self, asked: str) -> None:
        self.events: list[tuple[str, dict[str, Any], float]] = []
        self.use = DeviceUse(self.note)
        self.device: ComputeDevice = choose_compute_device(asked, self.use.emit)

    def note(self, name: str, fields: Mapping[str, Any]) -> None:
        self.events.append((name, dict(fields), time.perf_counter()))

    def times(self, name: str, stage: str) -> list[float]:
        return [at for event, fields, at in self.events if event == name and fields.get("stage") == stage]

    def synchronise(self) -> None:
        if self.device.kind == "cuda":
            torch.cuda.synchronize(str(self.device))

    def clock(self, work: Callable[[], object]) -> float:
        """Seconds until the device has done it all."""
        self.synchronise()
        start = time.perf_counter()
        work()
        self.synchronise()
        return time.perf_counter() - start

    def peak_gib(self) -> float | None:
        """The most that tensors have taken since the last call; None on a CPU."""
        if self.device.kind != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated(str(self.device)) / 2**30
        torch.cuda.reset_peak_memory_stats(str(self.device))
        return peak


def bf16_peak(on: Machine, size: Size) -> float:
    """TFLOP/s of a bf16 matrix product, the best of ten."""
    a = torch.randn(size.matmul, size.matmul, device=str(on.device), dtype=torch.bfloat16)
    seconds = min(on.clock(lambda: a @ a) for _ in range(10))
    return 2 * size.matmul**3 / seconds / 1e12


def step_alone(on: Machine, size: Size, peak_tflops: float, *, compiled: bool) -> dict[str, Any]:
    """Forward, loss, backward and AdamW on patches that are on the device."""
    config = size.config()
    model = build_student(config, seed=0).to(str(on.device)).train()
    image = torch.randn(size.batch, 1, *config.patch, device=str(on.device))
    if on.device.kind == "cuda":
        model, image = (each.to(memory_format=torch.channels_last_3d) for each in (model, image))
    label = (image > 1.5).to(torch.uint8)
    target = Target(label=label, soft_logit=image, confidence=torch.ones_like(image))
    loss = DistillationLoss(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    forward = torch.compile(model) if compiled else model

    def step(network: Callable[[torch.Tensor], Any] = forward) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast_for(torch.device(str(on.device)), config):
            output = network(image)
        loss(output, target).total.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step(model)
    for _ in range(size.timed_steps):
        step()
    on.peak_gib()
    seconds = on.clock(lambda: [step() for _ in range(size.timed_steps)]) / size.timed_steps
    tflops = counter.get_total_flops() / seconds / 1e12
    return {
        "compiled": compiled,
        "step_s": seconds,
        "patches_per_s": size.batch / seconds,
        "tflop_per_patch": counter.get_total_flops() / size.batch / 1e12,
        "tflops": tflops,
        "share_of_bf16_peak": tflops / peak_tflops,
        "peak_gib": on.peak_gib(),
    }


def soft_volumes(on: Machine, size: Size, folder: Path) -> tuple[TrainingVolume, ...]:
    """Two generated volumes with the soft labels of two small teachers, which ran on the device."""
    volumes = phantom_volumes(2, side=size.volume)
    two = [recipe for recipe in recipes(steps=0.1, side=16) if recipe.name in ("unet-b", "dynunet-a")]
    specs = make_teachers(folder / "teachers", volumes, recipes=two, patch=(size.patch,) * 3)
    with on.use.phase("teachers", on.device):
        soft = teacher_ensemble_infer(
            specs,
            {volume.volume_id: volume.image for volume in volumes},
            cache=ArrayCache(folder / "cache", max_bytes=8 << 30),
            config=TeacherConfig(batch=size.windows),
            device=on.device,
            emit=on.use.emit,
        )
    return tuple(replace(volume, soft=soft[volume.volume_id]) for volume in volumes)


def whole_training(
    on: Machine, size: Size, volumes: tuple[TrainingVolume, ...]
) -> tuple[TrainedStudent, dict[str, Any]]:
    """The training as a run does it, then again from its half: patches a second, and whether the bits are the same."""
    done = 0
    half: dict[str, bytes] = {}

    def count(part: float) -> None:
        nonlocal done
        done += 1

    def keep(parts: dict[str, bytes], cursor: object) -> None:
        if done == size.steps // 2:
            half.update(parts)

    def train(resume: Mapping[str, bytes] | None) -> TrainedStudent:
        return train_student_distilled(
            volumes[:1],
            volumes[1:],
            size.config(),
            seed=0,
            device=on.device,
            emit=on.use.emit,
            save=keep,
            save_due=lambda: done == size.steps // 2,
            on_step=count,
            resume=resume,
        )

    with on.use.phase("training", on.device):
        student = train(None)
    at = on.times("DISTILLATION_LOSS_STEP", "distil")
    with on.use.phase("training, resumed", on.device):
        resumed = train(half)
    late = at[len(at) // 2 :]  # the first steps choose kernels
    seconds = (late[-1] - late[0]) / max(1, len(late) - 1)
    found = {
        "step_s": seconds,
        "patches_per_s": size.batch / seconds if seconds else None,
        "steps": len(at),
        "resumed_from_step": size.steps // 2,
        "resume_has_the_same_bits": resumed.weights_digest == student.weights_digest,
        "weights_digest": student.weights_digest,
        "peak_gib": on.peak_gib(),
    }
    return student, found


def prediction(on: Machine, size: Size, student: TrainedStudent) -> list[dict[str, Any]]:
    """A whole volume, with and without flips, at two overlaps; the second call of each is timed."""
    volume = np.random.default_rng(0).integers(0, 256, (size.predicted,) * 3, dtype=np.uint8)
    rows = []
    for overlap, flips in ((0.5, True), (0.25, True), (0.5, False)):
        asked = replace(student, config=replace(student.config, overlap=overlap, flips=flips))

        def predict(asked: TrainedStudent = asked) -> object:
            return asked.predict(volume, device=on.device, batch=size.windows, emit=on.use.emit)

        with on.use.phase("prediction", on.device):
            predict()
            seconds = on.clock(predict)
        rows.append({"overlap": overlap, "flips": flips, "seconds": seconds, "peak_gib": on.peak_gib()})
    return rows


def measure(asked: str, size: Size, *, compiled: bool) -> dict[str, Any]:
    """Everything, as one JSON object."""
    on = Machine(asked)
    peak = bf16_peak(on, size)
    steps = [step_alone(on, size, peak, compiled=False)]
    if compiled:
        steps.append(step_alone(on, size, peak, compiled=True))
    with tempfile.TemporaryDirectory() as folder:
        volumes = soft_volumes(on, size, Path(folder))
        student, training = whole_training(on, size, volumes)
    return {
        "device": on.device.name,
        "kind": on.device.kind,
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "size": asdict(size),
        "bf16_matmul_tflops": peak,
        "step": steps,
        "training": training,
        "prediction": prediction(on, size, student),
        "kpis": on.use.kpis(),
        "out_of_memory_events": sum(name == "OUT_OF_MEMORY_SMALLER_BATCH" for name, _, _ in on.events),
    }


def show(found: Mapping[str, Any]) -> None:
    size = found["size"]
    print(f"{found['device']}, torch {found['torch']}: patches of {size['patch']}^3, {size['channels']} channels")
    for row in found["step"]:
        print(
            f"step alone{' (compiled)' if row['compiled'] else ''}: {row['patches_per_s']:.2f} patches/s, "
            f"{row['tflops']:.1f} TFLOP/s, {100 * row['share_of_bf16_peak']:.1f} % "
            f"of the {found['bf16_matmul_tflops']:.0f} of a bf16 matrix product"
        )
    training = found["training"]
    print(f"whole training: {training['patches_per_s']:.2f} patches/s")
    print(f"resumed with the same bits: {training['resume_has_the_same_bits']}")
    for row in found["prediction"]:
        flips = "eight flips" if row["flips"] else "no flips"
        print(f"{size['predicted']}^3, overlap {row['overlap']}, {flips}: {row['seconds']:.2f} s")
    print(f"first target of 320^3 with flips on an H200: {TARGET_S:.0f} s")
    print(json.dumps(found["kpis"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu", "auto"), help="default: cuda, with --toy cpu")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: that everything runs")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--out", type=Path, default=Path("distill_gpu.json"))
    defaults = asdict(Size())
    for name, value in defaults.items():
        many = isinstance(value, tuple)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, nargs="+" if many else None)
    given = parser.parse_args()
    asked = {name: getattr(given, name) for name in defaults if getattr(given, name) is not None}
    asked = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()}
    size = replace(Size.toy() if given.toy else Size(), **asked)
    device = given.device or ("cpu" if given.toy else "cuda")
    try:
        found = measure(device, size, compiled=not given.no_compile and device != "cpu")
    except VesuError as error:
        parser.error(str(error))
    write_json_atomic(given.out, found)
    show(found)
    print(f"written: {given.out}")
    return 0 if found["training"]["resume_has_the_same_bits"] else 1


if __name__ == "__main__":
    sys.exit(main())
