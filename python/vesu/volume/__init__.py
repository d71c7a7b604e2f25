"""Kernels on 3-D masks and probabilities: components, dust, cavities, hysteresis, smoothing, morphology, distance,
topology, the watertight plug and the patch of sheets.

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
from vesu.volume.distance import distance_transform
from vesu.volume.extreme import ExtremeVoxels, extreme_voxels, iter_extreme_voxels
from vesu.volume.holes import fill_holes, fill_holes_counted
from vesu.volume.morphology import closing, dilation, erosion, median, opening
from vesu.volume.sheets import PatchReport, patch_sheets, patch_sheets_counted
from vesu.volume.smoothing import smooth_z
from vesu.volume.topology import (
    BettiNumbers,
    ComponentTopology,
    betti_numbers,
    component_topology,
    euler_number,
    plug_holes,
    plug_holes_counted,
)

__all__ = [
    "BettiNumbers",
    "ComponentStats",
    "ComponentTopology",
    "ExtremeVoxels",
    "Mask",
    "PatchReport",
    "betti_numbers",
    "closing",
    "component_sizes",
    "component_stats",
    "component_topology",
    "connected_components",
    "connected_components_multilabel",
    "dilation",
    "distance_transform",
    "erosion",
    "euler_number",
    "extreme_voxels",
    "fill_holes",
    "fill_holes_counted",
    "hysteresis",
    "hysteresis_counted",
    "iter_extreme_voxels",
    "median",
    "opening",
    "patch_sheets",
    "patch_sheets_counted",
    "plug_holes",
    "plug_holes_counted",
    "remove_dust",
    "remove_dust_counted",
    "smooth_z",
]
