"""3-D multi-scale sheet features of a CT volume, their rows at sampled voxels, and the selection of channels.

``docs/features.md`` has the formula of every channel.
"""

from vesu.features.extraction import (
    DEFAULT_MAX_BYTES,
    FAMILIES,
    FeatureSpec,
    FeatureVolume,
    extract_features,
    gather,
)
from vesu.features.selection import FeatureSelection, select_features, select_features_of

__all__ = [
    "DEFAULT_MAX_BYTES",
    "FAMILIES",
    "FeatureSelection",
    "FeatureSpec",
    "FeatureVolume",
    "extract_features",
    "gather",
    "select_features",
    "select_features_of",
]
