//! Kernels on 3-D masks and probabilities: connected components, dust removal, hysteresis threshold, z-smoothing and
//! the histograms behind threshold calibration.
//!
//! Axes are (z, y, x), arrays C-contiguous. Labels and dust are exact; every kernel gives the same bits on any number
//! of threads, because work is cut into slabs of a fixed number of slices and folded in order.

mod check;
mod components;
mod dust;
mod histogram;
mod hysteresis;
mod median;
mod morphology;
mod runs;
mod smooth;

pub use check::voxel_count;
pub use components::{component_sizes, connected_components};
pub use dust::{Dust, remove_dust};
pub use histogram::{CLASSES, MAX_BINS, probability_histogram};
pub use hysteresis::{Hysteresis, hysteresis};
pub use median::{median, median_mask};
pub use morphology::{
    ElementShape, MAX_RADIUS as MAX_ELEMENT_RADIUS, Operation, Structure, binary_morphology, grey_morphology,
};
pub use smooth::{MAX_RADIUS, smooth_z};

use crate::{Error, Result};

/// The three axes (z, y, x).
pub type Shape = [usize; 3];

/// Slices in one slab, the unit of parallel work. Fixed, so that no result can depend on the number of threads.
const SLAB_SLICES: usize = 16;

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

/// A row that comes before the present one in C order and may hold neighbours of its voxels.
struct EarlierRow {
    /// In the previous slice, else in the same one.
    previous_slice: bool,
    dy: isize,
    /// Whether voxels one step aside in x count as neighbours too.
    diagonal: bool,
}

impl Connectivity {
    fn earlier_rows(self) -> &'static [EarlierRow] {
        const fn row(previous_slice: bool, dy: isize, diagonal: bool) -> EarlierRow {
            EarlierRow { previous_slice, dy, diagonal }
        }
        const FACES: &[EarlierRow] = &[row(false, -1, false), row(true, 0, false)];
        const EDGES: &[EarlierRow] =
            &[row(false, -1, true), row(true, -1, false), row(true, 0, true), row(true, 1, false)];
        const CORNERS: &[EarlierRow] =
            &[row(false, -1, true), row(true, -1, true), row(true, 0, true), row(true, 1, true)];
        match self {
            Self::Faces => FACES,
            Self::Edges => EDGES,
            Self::Corners => CORNERS,
        }
    }
}

#[cfg(test)]
mod tests;
