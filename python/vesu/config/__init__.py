"""The run's configuration: frozen dataclasses from TOML, the environment (``VESU_*``) and the command line.

What is learned, segmented and scored stands in ``sections``, what keeps a long run in ``keeping``; ``loading`` reads
both.
"""

from vesu.config.keeping import CheckpointConfig, Fallback, MemoryConfig, TimeConfig
from vesu.config.loading import OTHER_VARIABLES, load_config
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
    "CalibrationSettings",
    "CheckpointConfig",
    "Fallback",
    "FeatureConfig",
    "MemoryConfig",
    "NX46Config",
    "NX47Config",
    "Pipeline",
    "RunConfig",
    "SamplingConfig",
    "SearchConfig",
    "SegmentSettings",
    "TimeConfig",
    "load_config",
]
