"""Kernels on 3-D masks and probabilities: components, dust, cavities, hysteresis, smoothing along z.

Axes are (z, y, x). A mask is uint8 or bool and any non-zero voxel is foreground. Strided, Fortran-ordered and
read-only arrays are accepted. Results are the same bits on any number of threads, and Ctrl-C is answered within
half a second.
"""

from vesu.volume.arguments import Mask
from vesu.volume.components import (
    ComponentStats,
    component_sizes,
    component_stats,
    connected_components,
    connected_components_multilabel,
    hysteresis,
    hysteresis_counted,
    remove_dust,
    remove_dust_counted,
)
from vesu.volume.holes import fill_holes, fill_holes_counted
from vesu.volume.morphology import closing, dilation, erosion, median, opening
from vesu.volume.smoothing import smooth_z

__all__ = [
    "ComponentStats",
    "Mask",
    "closing",
    "component_sizes",
    "component_stats",
    "connected_components",
    "connected_components_multilabel",
    "fill_holes",
    "fill_holes_counted",
    "dilation",
    "erosion",
    "hysteresis",
    "hysteresis_counted",
    "median",
    "opening",
    "remove_dust",
    "remove_dust_counted",
    "smooth_z",
]
