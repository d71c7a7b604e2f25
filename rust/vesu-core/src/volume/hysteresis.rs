//! Hysteresis threshold: weak voxels stay where they hang together with a strong one.

use super::check::{same_length, unit_interval};
use super::components::Components;
use super::runs::Rows;
use super::{Connectivity, Shape};
use crate::{Cancel, Error, Result};

/// The mask of a hysteresis threshold.
pub struct Hysteresis {
    /// 0 or 1.
    pub mask: Vec<u8>,
    /// Components of `probability >= low`.
    pub n_components: u32,
    /// Those among them that hold a voxel of `probability >= high`.
    pub n_kept: u32,
}

/// The components of `probability >= low` that hold at least one voxel of `probability >= high`.
///
/// Both comparisons include equality. Thresholds lie in [0, 1]; the `f32` next above 1 is accepted as well, and no
/// probability reaches it.
pub fn hysteresis(
    probability: &[f32],
    shape: Shape,
    low: f32,
    high: f32,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<Hysteresis> {
    check_thresholds(low, high)?;
    same_length("probability", probability.len(), shape)?;
    unit_interval("probability", probability, shape, cancel)?;
    let nx = shape[2];
    let rows = Thresholded { probability, row_length: nx, low };
    let components = Components::of_rows(&rows, shape, connectivity, cancel)?;
    // A fold without an early exit: the compiler turns it into vector compares.
    let strong = |row: usize, run: super::runs::Run| {
        probability[row * nx..][run.range()].iter().fold(false, |any, &p| any | (p >= high))
    };
    let keep = components.any_run(strong, cancel)?;
    let mask = components.paint(|label| u8::from(keep[label as usize]), cancel)?;
    let n_kept = keep.iter().filter(|&&kept| kept).count() as u32;
    Ok(Hysteresis { mask, n_components: components.count, n_kept })
}

fn check_thresholds(low: f32, high: f32) -> Result<()> {
    let top = 1.0 + f32::EPSILON; // the next f32 above 1
    for (name, value) in [("low", low), ("high", high)] {
        if !(0.0..=top).contains(&value) {
            return Err(Error::argument(name, value, "a threshold in [0, 1]"));
        }
    }
    if low > high {
        return Err(Error::argument("low", format!("{low} with high = {high}"), "low <= high"));
    }
    Ok(())
}

struct Thresholded<'p> {
    probability: &'p [f32],
    row_length: usize,
    low: f32,
}

impl Rows for Thresholded<'_> {
    fn row<'a>(&'a self, index: usize, scratch: &'a mut [u8]) -> &'a [u8] {
        let row = &self.probability[index * self.row_length..][..self.row_length];
        for (byte, &p) in scratch.iter_mut().zip(row) {
            *byte = u8::from(p >= self.low);
        }
        scratch
    }
}
