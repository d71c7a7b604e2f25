//! Hysteresis threshold: weak voxels stay where they hang together with a strong one.

use super::check::{same_length, unit_interval};
use super::components::Components;
use super::measure::Reaches;
use super::relations::Plan;
use super::source::AtLeast;
use super::{Connectivity, Shape, painting};
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
    let weak = AtLeast { probability, row_length: shape[2], threshold: low };
    let components = Components::find(&weak, shape, Plan::of_mask(connectivity), cancel)?;
    let keep = components.measure(&Reaches { probability, shape, threshold: high }, cancel)?;
    let mask = painting::mask(&components, &keep, |_, kept| kept, cancel)?;
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
