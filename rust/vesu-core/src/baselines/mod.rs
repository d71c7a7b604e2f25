//! The historical scorers as baselines: NX46 and NX47 V61 (docs/baselines.md has the formulas and what is ours in them).
//!
//! Axes are (z, y, x), arrays C-contiguous. A volume is scaled to [0, 1] by its own extremes; one without any contrast
//! shows no surface: its score is 0 throughout. Work is cut into pieces whose size follows from the shape alone, and no
//! sum crosses a piece, so the bits agree on any number of threads.

mod nx46;
mod nx47;
mod scale;
#[cfg(test)]
mod tests;

pub use nx46::Nx46;
pub use nx47::Nx47;

use crate::features::Voxel;
use crate::volume::{Shape, voxel_count};
use crate::{Cancel, Error, Result};

/// One of the scorers, with its parameters.
#[derive(Clone, Copy, Debug)]
pub enum Scorer {
    Nx46(Nx46),
    Nx47(Nx47),
}

impl Scorer {
    /// The score of every voxel; NX47's lies in [0, 1].
    pub fn score<T: Voxel>(&self, volume: &[T], shape: Shape, cancel: &Cancel) -> Result<Vec<f32>> {
        if voxel_count("volume", shape)? != volume.len() {
            return Err(Error::argument(
                "shape",
                format!("{shape:?}"),
                format!("three axes of {} voxels", volume.len()),
            ));
        }
        match self {
            Self::Nx46(settings) => settings.score(volume, shape, cancel),
            Self::Nx47(settings) => settings.score(volume, shape, cancel),
        }
    }
}
