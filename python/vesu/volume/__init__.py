"""Kernels on 3-D masks and probabilities: components, dust, hysteresis, smoothing along z.

Axes are (z, y, x). A mask is uint8 or bool and any non-zero voxel is foreground. Strided, Fortran-ordered and
read-only arrays are accepted. Results are the same bits on any number of threads, and Ctrl-C is answered within
half a second.
"""

from vesu.volume.arguments import Mask
from vesu.volume.components import (
    component_sizes,
    connected_components,
    hysteresis,
    hysteresis_counted,
    remove_dust,
    remove_dust_counted,
)
from vesu.volume.morphology import closing, dilation, erosion, median, opening
from vesu.volume.smoothing import smooth_z

__all__ = [
    "Mask",
    "closing",
    "component_sizes",
    "connected_components",
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
