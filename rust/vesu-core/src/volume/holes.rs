//! Cavities: background that reaches no face of the volume.

use super::check::same_length;
use super::components::Components;
use super::measure::OnBorder;
use super::relations::Plan;
use super::source::Background;
use super::{Connectivity, Shape, painting};
use crate::{Cancel, Result};

/// A mask without cavities.
pub struct Filled {
    /// 0 or 1.
    pub mask: Vec<u8>,
    /// Cavities that became foreground.
    pub n_filled: u32,
}

/// Turn every component of the background, at `connectivity`, that reaches no face of the volume into foreground.
pub fn fill_holes(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Filled> {
    same_length("mask", mask.len(), shape)?;
    let background = Background { mask, row_length: shape[2] };
    let components = Components::find(&background, shape, Plan::of_mask(connectivity), cancel)?;
    let open = components.measure(&OnBorder { shape }, cancel)?;
    let n_filled = open.iter().filter(|&&open| !open).count() as u32;
    let mask = painting::mask(&components, &open, |_, open| !open, cancel)?;
    Ok(Filled { mask, n_filled })
}
