"""From measured runs to one that nobody has time to try: 786 volumes of 320^3, phase by phase.

What grows with a volume comes from a run on a few volumes of the real size, what grows with the samples from the run
on many small volumes, which has the real number of them. Seconds are the process's own, so that other work on the
machine does not enter: shared by two cores without loss they are the low end, on one core alone the high end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CORES = 2
BUDGET_S = 32_400.0
"""Nine hours: the platform's session."""
CALIBRATION_VOLUMES = 8
"""Held-out volumes that fit the threshold, however many there are."""


@dataclass(frozen=True)
class Scaled:
    """One phase of the run to come."""

    phase: str
    cpu_s: float
    arithmetic: str
    """How the seconds came about, in figures."""

    @property
    def low_s(self) -> float:
        """Both cores busy all the time."""
        return self.cpu_s / CORES

    @property
    def high_s(self) -> float:
        """One core alone."""
        return self.cpu_s


def scaled(run: Mapping[str, Any], size: Mapping[str, Any], n_train: int, n_test: int) -> list[Scaled]:
    """The phases of a run on so many volumes of the size that ``size`` was measured on."""
    small, large = _cpu(run), _cpu(size)
    wall = {row["phase"]: row["wall_s"] for row in size["phases"]}
    busy = large["segment"] / wall["segment"]  # the log splits the phase by wall seconds
    samples = n_train / run["pairs"]
    width = size["features"] / run["features"]

    def per(phase: str, cpu_s: float, units: int, wanted: int, unit: str) -> Scaled:
        each = cpu_s / units
        return Scaled(phase, each * wanted, f"{each:.2f} s a {unit} x {wanted}")

    def rest(phase: str, factor: float, why: str) -> Scaled:
        return Scaled(phase, small[phase] * factor, f"{small[phase]:.1f} s x {factor:.2f} {why}")

    rows = [
        per("preflight", large["preflight"], size["tests"], n_test, "test volume, its labelled ones included"),
        per("load", large["load"], size["pairs"], n_train, "pair"),
        per("features", large["features"], size["pairs"], n_train, "pair"),
        rest("train_data", samples, "(samples)"),
        rest("fit", samples * width, "(samples x features)"),
    ]
    segment = size["segment"]
    if segment["calibration_s"] is None:
        units = segment["volumes"] + size["tests"]
        rows.append(
            per("segment", large["segment"], units, CALIBRATION_VOLUMES + n_test, "volume, calibrated or segmented")
        )
    else:
        rows += [
            per("calibration", segment["calibration_s"] * busy, segment["volumes"], CALIBRATION_VOLUMES, "volume"),
            per("segment", segment["test_s"] * busy, size["tests"], n_test, "test volume"),
        ]
    return [
        *rows,
        per("package", large["package"], size["tests"], n_test, "test volume"),
        rest("after the phases", 1.0, "(report, verification, results.zip of as many volumes)"),
    ]


def _cpu(found: Mapping[str, Any]) -> dict[str, float]:
    return {row["phase"]: row["cpu_s"] for row in found["phases"]}


def memory_bytes(run: Mapping[str, Any], size: Mapping[str, Any], n_train: int) -> int:
    """At most: the samples of the rehearsal's features, and beside them what a run on a few large volumes held."""
    return round(run["whole"]["peak_bytes"] * n_train / run["pairs"]) + int(size["whole"]["peak_bytes"])
