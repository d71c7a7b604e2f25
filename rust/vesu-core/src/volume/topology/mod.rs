//! Topology of a mask: Euler number, components, tunnels, cavities, of the whole and of each component.
//!
//! The foreground is 6-connected and the background 26-connected, or the other way round; other pairs have no
//! consistent topology. Tunnels = components + cavities - Euler number.

pub(super) mod bits;
mod component;
mod euler;

pub use component::{ComponentTopology, component_topology};
pub use euler::euler_number;
pub(super) use euler::euler_of_bits;

use super::check::same_length;
use super::components::Components;
use super::measure::OnBorder;
use super::relations::Plan;
use super::source::Background;
use super::{Connectivity, Shape};
use crate::{Cancel, Error, Result};
use bits::Bits;

/// Betti numbers of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BettiNumbers {
    /// Connected components of the foreground (dimension 0).
    pub components: u64,
    /// Independent loops (dimension 1).
    pub tunnels: u64,
    /// Background components that the foreground encloses (dimension 2).
    pub cavities: u64,
}

/// Betti numbers of the foreground at connectivity 6 (background 26) or 26 (background 6). What lies outside the volume
/// is background.
pub fn betti_numbers(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<BettiNumbers> {
    check_connectivity(connectivity)?;
    let euler = euler_of_bits(&Bits::of_mask(mask, shape, cancel)?, connectivity, cancel)?;
    let components = i64::from(Components::of_mask(mask, shape, connectivity, cancel)?.count);
    let (_, open) = background(mask, shape, connectivity, cancel)?;
    let cavities = open.iter().filter(|&&open| !open).count() as i64;
    Ok(BettiNumbers {
        components: components as u64,
        tunnels: (components + cavities - euler) as u64,
        cavities: cavities as u64,
    })
}

/// The background's components at the connectivity dual to the foreground's, and which of them reach the volume's faces.
pub(super) fn background(
    mask: &[u8],
    shape: Shape,
    foreground: Connectivity,
    cancel: &Cancel,
) -> Result<(Components, Vec<bool>)> {
    same_length("mask", mask.len(), shape)?;
    let dual = if foreground == Connectivity::Faces { Connectivity::Corners } else { Connectivity::Faces };
    let source = Background { mask, row_length: shape[2] };
    let components = Components::find(&source, shape, Plan::of_mask(dual), cancel)?;
    let open = components.measure(&OnBorder { shape }, cancel)?;
    Ok((components, open))
}

fn check_connectivity(connectivity: Connectivity) -> Result<()> {
    match connectivity {
        Connectivity::Edges => Err(Error::argument("connectivity", 18, "6 or 26")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
