//! Removal of small components.

use std::cmp::Reverse;

use super::components::Components;
use super::measure::OnBorder;
use super::{Connectivity, Shape, painting};
use crate::{Cancel, Result};

/// A mask without its dust.
pub struct Dust {
    /// 0 or 1.
    pub mask: Vec<u8>,
    pub n_components: u32,
    pub n_removed: u32,
}

/// Which components go.
#[derive(Clone, Copy, Debug, Default)]
pub struct DustRule {
    /// Those of strictly fewer voxels go, as in cc3d's `dust`.
    pub min_voxels: u64,
    /// Of the others only so many largest stay; of equally large ones those that appear first in C order.
    pub keep_largest: Option<u64>,
    /// Components with a voxel on a face of the volume stay whatever their size, and are not counted as largest.
    pub spare_border: bool,
}

/// Remove the components that `rule` names.
pub fn remove_dust(
    mask: &[u8],
    shape: Shape,
    rule: DustRule,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<Dust> {
    let mut components = Components::of_mask(mask, shape, connectivity, cancel)?;
    if rule.keep_largest.is_some() {
        components.number_by_appearance(cancel)?;
    }
    let sizes = components.sizes(cancel)?;
    let mut keep: Vec<bool> = sizes.iter().map(|&size| u64::from(size) >= rule.min_voxels).collect();
    let spared = if rule.spare_border { components.measure(&OnBorder { shape }, cancel)? } else { Vec::new() };
    for (keep, spared) in keep.iter_mut().zip(&spared) {
        *keep &= !spared;
    }
    if let Some(k) = rule.keep_largest {
        keep_largest(&mut keep, &sizes, usize::try_from(k).unwrap_or(usize::MAX));
    }
    for (keep, spared) in keep.iter_mut().zip(&spared) {
        *keep |= spared;
    }
    let n_removed = keep.iter().filter(|&&kept| !kept).count() as u32;
    let mask = painting::mask(&components, &keep, |_, kept| kept, cancel)?;
    Ok(Dust { mask, n_components: components.count, n_removed })
}

/// Of those that `keep` has true, leave the `k` largest; ties go to the lower index.
fn keep_largest(keep: &mut [bool], sizes: &[u32], k: usize) {
    let mut kept: Vec<usize> = (0..keep.len()).filter(|&i| keep[i]).collect();
    if k < kept.len() {
        kept.select_nth_unstable_by_key(k, |&i| (Reverse(sizes[i]), i));
        for &i in &kept[k..] {
            keep[i] = false;
        }
    }
}
