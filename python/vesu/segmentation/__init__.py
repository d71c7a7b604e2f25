"""From a probability volume to a mask by a ladder of named steps (R28, R29), and what each step did (R30)."""

from vesu.segmentation.config import DEFAULT_STEPS, DENSITY_RANGE, SegmentConfig, steps_from_tables
from vesu.segmentation.confusion import BETA, Confusion, confusion, f_score
from vesu.segmentation.diagnostics import DensityDiagnostics, StepReport
from vesu.segmentation.ladder import Segmentation, segment
from vesu.segmentation.registry import STEPS, parameters, step_from
from vesu.segmentation.step import Step
from vesu.segmentation.steps import (
    Closing,
    Dust,
    Fill,
    Median,
    Opening,
    Patch,
    Plug,
    SmoothZ,
    Suppress,
    Threshold,
)
from vesu.segmentation.threshold import ThresholdRule, Thresholds

__all__ = [
    "BETA",
    "DEFAULT_STEPS",
    "DENSITY_RANGE",
    "STEPS",
    "Closing",
    "Confusion",
    "DensityDiagnostics",
    "Dust",
    "Fill",
    "Median",
    "Opening",
    "Patch",
    "Plug",
    "SegmentConfig",
    "Segmentation",
    "SmoothZ",
    "Step",
    "StepReport",
    "Suppress",
    "Threshold",
    "ThresholdRule",
    "Thresholds",
    "confusion",
    "f_score",
    "parameters",
    "segment",
    "step_from",
    "steps_from_tables",
]
