//! Sizes, bounding boxes and border contact of components.

use super::components::Components;
use super::measure::{Both, BoundingBox, OnBorder, Size};
use super::{Connectivity, Shape};
use crate::{Cancel, Result};

/// One component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComponentStats {
    pub voxels: u32,
    /// Per axis, half open.
    pub bounding_box: [[u32; 2]; 3],
    /// Whether it has a voxel on a face of the volume.
    pub touches_border: bool,
}

/// Statistics of each component, in the order of [`connected_components`](super::connected_components)' labels: entry 0
/// belongs to label 1.
pub fn component_stats(
    mask: &[u8],
    shape: Shape,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<Vec<ComponentStats>> {
    let mut components = Components::of_mask(mask, shape, connectivity, cancel)?;
    components.number_by_appearance(cancel)?;
    let stats = components.measure(&Both(Size, Both(BoundingBox, OnBorder { shape })), cancel)?;
    let named = |(voxels, (bounding_box, touches_border))| ComponentStats { voxels, bounding_box, touches_border };
    Ok(stats.into_iter().map(named).collect())
}
