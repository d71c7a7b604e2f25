"""The run's configuration: frozen dataclasses from TOML, the environment (``VESU_*``) and the command line.

What is searched, segmented and scored stands in ``sections``, teachers and student in ``learned``, what keeps a long
run in ``keeping``; ``loading`` reads all.
"""

from vesu.config.keeping import CheckpointConfig, Fallback, MemoryConfig, TimeConfig
from vesu.config.learned import PRESETS, StudentConfig, TeacherConfig
from vesu.config.loading import OTHER_VARIABLES, load_config
from vesu.config.nonces import NonceConfig
from vesu.config.sections import (
    CalibrationSettings,
    FeatureConfig,
    NX46Config,
    NX47Config,
    Pipeline,
    RunConfig,
    SamplingConfig,
    SearchConfig,
    SegmentSettings,
)

__all__ = [
    "OTHER_VARIABLES",
    "PRESETS",
    "CalibrationSettings",
    "CheckpointConfig",
    "Fallback",
    "FeatureConfig",
    "MemoryConfig",
    "NX46Config",
    "NX47Config",
    "NonceConfig",
    "Pipeline",
    "RunConfig",
    "SamplingConfig",
    "SearchConfig",
    "SegmentSettings",
    "StudentConfig",
    "TeacherConfig",
    "TimeConfig",
    "load_config",
]
