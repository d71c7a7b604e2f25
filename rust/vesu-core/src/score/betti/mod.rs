//! Betti matching of two binary volumes (Stucki et al., arXiv 2407.04683): which components, tunnels and cavities of a
//! prediction lie where those of a label do.
//!
//! Each mask is a filtration of two steps: first its foreground as a cubical complex (voxels are vertices, so foreground
//! is 6-connected and background 26-connected), then the whole box. The comparison is the union of the two masks. With
//! only two steps everything but the matched count is plain homology: the features of a mask are its Betti numbers
//! (in dimension 0 less the component that never dies). A matched feature is one of the union's that is present in the
//! image of both masks' homology and dies there at the same cell of the box, cells being ordered by (step, z, y, x,
//! type). So of all orders only that of the cells outside the union matters:
//!
//! - dimension 0 ([`components`]): walk those edges in order, joining components of the union; an edge that joins two
//!   parts which both hold foreground of both masks is a match;
//! - dimension 2 ([`cavities`]): a cavity of the union is matched if in each mask it lies in a cavity and is that cavity's
//!   last one;
//! - dimension 1 ([`tunnels`]): a square outside the union is a match if, for each mask, it closes a surface whose rim
//!   lies in that mask while no such closed surface without rim exists.
//!
//! Axes are (z, y, x), z the slowest; a cell is named by its lowest voxel and a type. Edges of type 0, 1, 2 run along
//! z, y, x; squares of type 0, 1, 2 have their normal along z, y, x.

mod block;
mod cavities;
mod columns;
mod components;
mod forest;
mod reduction;
mod runs;
mod spheres;
#[cfg(test)]
mod tests;
mod tunnels;

use rayon::prelude::*;

use crate::volume::{Shape, voxel_count};
use crate::{Cancel, Error, Result};
use block::Block;

/// What Betti matching counts in one dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Features of the prediction and of the label that are matched with one another.
    pub matched: u64,
    /// Features of the prediction, matched or not.
    pub prediction: u64,
    /// Features of the label, matched or not.
    pub label: u64,
}

/// Components, tunnels and cavities.
pub type Matchings = [Matching; 3];

/// Betti matching of two whole masks; every non-zero voxel is foreground.
///
/// Volumes of fewer than 2^31 voxels only.
pub fn betti_matching(prediction: &[u8], label: &[u8], shape: Shape, cancel: &Cancel) -> Result<Matchings> {
    check(prediction, label, shape)?;
    match_block(&Block::cut(prediction, label, shape, [0; 3], shape, cancel)?, cancel)
}

/// Betti matching of each of the 2x2x2 octants by itself, summed. The first half of an odd axis is the longer one.
pub fn betti_matching_octants(prediction: &[u8], label: &[u8], shape: Shape, cancel: &Cancel) -> Result<Matchings> {
    check(prediction, label, shape)?;
    let octants = octants(shape)
        .into_par_iter()
        .map(|(from, to)| match_block(&Block::cut(prediction, label, shape, from, to, cancel)?, cancel))
        .collect::<Result<Vec<_>>>()?;
    let mut sum = Matchings::default();
    for octant in octants {
        for (total, part) in sum.iter_mut().zip(octant) {
            total.matched += part.matched;
            total.prediction += part.prediction;
            total.label += part.label;
        }
    }
    Ok(sum)
}

fn check(prediction: &[u8], label: &[u8], shape: Shape) -> Result<()> {
    let voxels = voxel_count("prediction", shape)?;
    if i32::try_from(voxels).is_err() {
        return Err(Error::argument("prediction", format!("shape {shape:?}"), "at most 2147483647 voxels"));
    }
    for (name, mask) in [("prediction", prediction), ("label", label)] {
        if mask.len() != voxels {
            return Err(Error::argument(
                name,
                format!("{} values", mask.len()),
                format!("as many as shape {shape:?} holds"),
            ));
        }
    }
    Ok(())
}

/// First and past-the-end voxel of every octant that holds a voxel.
fn octants(shape: Shape) -> Vec<(Shape, Shape)> {
    let halves = shape.map(|length| [(0, length.div_ceil(2)), (length.div_ceil(2), length)]);
    (0..8)
        .map(|octant| [0, 1, 2].map(|axis: usize| halves[axis][octant >> (2 - axis) & 1]))
        .filter(|bounds| bounds.iter().all(|(from, to)| from < to))
        .map(|bounds| (bounds.map(|(from, _)| from), bounds.map(|(_, to)| to)))
        .collect()
}

fn match_block(block: &Block, cancel: &Cancel) -> Result<Matchings> {
    let (components, cavities) =
        rayon::join(|| components::match_components(block, cancel), || cavities::match_cavities(block, cancel));
    let (components, cavities) = (components?, cavities?);
    let euler = block.euler_numbers(cancel)?;
    // Euler-Poincare: chi = components - tunnels + cavities.
    let tunnels_of = |mask: usize| (components.count[mask] as i64 + cavities.count[mask] as i64 - euler[mask]) as u64;
    let tunnels = [tunnels_of(0), tunnels_of(1)];
    let matched = if tunnels.contains(&0) { 0 } else { tunnels::match_tunnels(block, cancel)? };
    let features = components.count.map(|count| count.saturating_sub(1));
    Ok([
        Matching { matched: components.matched, prediction: features[0], label: features[1] },
        Matching { matched, prediction: tunnels[0], label: tunnels[1] },
        Matching { matched: cavities.matched, prediction: cavities.count[0], label: cavities.count[1] },
    ])
}
