//! Kernels on 3-D masks and probabilities: connected components, dust removal, hysteresis threshold, z-smoothing,
//! the histograms behind threshold calibration, and the voxels of greatest probability.
//!
//! Axes are (z, y, x), arrays C-contiguous. Labels and dust are exact; every kernel gives the same bits on any number
//! of threads, because work is cut into slabs of a fixed number of slices and folded in order.

mod bits;
mod check;
mod components;
pub(crate) mod distance;
mod dust;
mod extreme;
mod forest;
mod histogram;
mod holes;
mod hysteresis;
mod measure;
mod median;
mod meeting;
mod morphology;
mod painting;
mod plug;
mod relations;
mod runs;
mod sheets;
mod slab;
mod smooth;
mod source;
mod stats;
mod topology;
mod wide;

pub use check::voxel_count;
pub use components::{component_sizes, connected_components, connected_components_multilabel};
pub use distance::{SPACING_RANGE, distance_transform};
pub use dust::{Dust, DustRule, remove_dust};
pub use extreme::{Extremes, extreme_voxels};
pub use histogram::{CLASSES, MAX_BINS, probability_histogram};
pub use holes::{Filled, fill_holes};
pub use hysteresis::{Hysteresis, hysteresis};
pub use median::{median, median_mask};
pub use morphology::{
    ElementShape, MAX_RADIUS as MAX_ELEMENT_RADIUS, Operation, Structure, binary_morphology, grey_morphology,
};
pub use plug::{Plug, plug_holes};
pub use sheets::{Discarded, MAX_GAP, Patch, PatchOptions, patch_sheets};
pub use smooth::{MAX_RADIUS, smooth_z};
pub use stats::{ComponentStats, component_stats};
pub use topology::{BettiNumbers, ComponentTopology, betti_numbers, component_topology, euler_number};

use crate::{Error, Result};

/// The three axes (z, y, x).
pub type Shape = [usize; 3];

/// Slices in one slab, the unit of parallel work. Fixed, so that no result can depend on the number of threads.
const SLAB_SLICES: usize = 16;

/// Voxels, components or runs handled between two polls of the cancel token.
const POLL: usize = 1 << 16;

/// Which voxels of the 3x3x3 neighbourhood count as neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// 6: a shared face.
    Faces,
    /// 18: a shared face or edge.
    Edges,
    /// 26: a shared face, edge or corner.
    Corners,
}

impl TryFrom<i64> for Connectivity {
    type Error = Error;

    fn try_from(neighbours: i64) -> Result<Self> {
        match neighbours {
            6 => Ok(Self::Faces),
            18 => Ok(Self::Edges),
            26 => Ok(Self::Corners),
            other => Err(Error::argument("connectivity", other, "6, 18 or 26")),
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod exhaustive_tests;
