//! Removal of small components.

use super::components::Components;
use super::{Connectivity, Shape};
use crate::{Cancel, Result};

/// A mask without its dust.
pub struct Dust {
    /// 0 or 1.
    pub mask: Vec<u8>,
    pub n_components: u32,
    pub n_removed: u32,
}

/// Remove every component of fewer than `min_voxels` voxels; one of exactly `min_voxels` stays, as in cc3d's `dust`.
pub fn remove_dust(
    mask: &[u8],
    shape: Shape,
    min_voxels: u64,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<Dust> {
    let components = Components::of_mask(mask, shape, connectivity, cancel)?;
    let sizes = components.sizes(cancel)?;
    let keep = |label: u32| u64::from(sizes[label as usize]) >= min_voxels;
    let n_removed = (1..=components.count).filter(|&label| !keep(label)).count() as u32;
    let mask = components.paint(|label| u8::from(keep(label)), cancel)?;
    Ok(Dust { mask, n_components: components.count, n_removed })
}
