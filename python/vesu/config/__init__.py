"""The run's configuration: frozen dataclasses from TOML, the environment (``VESU_*``) and the command line.

What is searched, segmented and scored stands in ``sections``, teachers and student in ``learned``, what keeps a long
run in ``keeping``, what a submission must pass in ``gates``, a phase of its own in a module of its name; ``loading``
reads all, ``writing`` writes it, ``aliases`` knows the history's variables.
"""

from vesu.config.aliases import ALIASES, Alias, AliasUse
from vesu.config.autotune import AutoTuneConfig
from vesu.config.gates import GatesConfig
from vesu.config.guided import GuidedConfig
from vesu.config.keeping import CheckpointConfig, Fallback, MemoryConfig, TimeConfig
from vesu.config.learned import PRESETS, StudentConfig, TeacherConfig
from vesu.config.loading import OTHER_VARIABLES, config_from_json, load_config, load_ladder
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
from vesu.config.writing import config_toml, toml_value

__all__ = [
    "ALIASES",
    "OTHER_VARIABLES",
    "PRESETS",
    "Alias",
    "AliasUse",
    "AutoTuneConfig",
    "CalibrationSettings",
    "CheckpointConfig",
    "Fallback",
    "FeatureConfig",
    "GatesConfig",
    "GuidedConfig",
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
    "config_from_json",
    "config_toml",
    "load_config",
    "load_ladder",
    "toml_value",
]
