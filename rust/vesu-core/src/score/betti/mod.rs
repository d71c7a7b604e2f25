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
mod found;
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
use found::Found;

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

/// Where features are: (z, y, x) of one voxel each, in C order, for dimension 0, 1 and 2.
pub type Locations = [Vec<Shape>; 3];

/// The features that are not matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmatched {
    pub prediction: Locations,
    pub label: Locations,
}

/// What is matched as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// The whole masks.
    Whole,
    /// Each of the 2x2x2 octants by itself; results are put together. The first half of an odd axis is the longer one.
    Octants,
}

/// Betti matching of two masks; every non-zero voxel is foreground. At most 2^31 - 1 voxels.
pub fn betti_matching(
    prediction: &[u8],
    label: &[u8],
    shape: Shape,
    blocks: Blocks,
    cancel: &Cancel,
) -> Result<Matchings> {
    let parts = for_blocks(prediction, label, shape, blocks, cancel, |_, block| count(block, cancel))?;
    let mut sum = Matchings::default();
    for (total, part) in parts.iter().flat_map(|part| (0..3).zip(part)) {
        sum[total].matched += part.matched;
        sum[total].prediction += part.prediction;
        sum[total].label += part.label;
    }
    Ok(sum)
}

/// The features that [`betti_matching`] leaves unmatched. A component is given by its first voxel, a tunnel by the last
/// voxel of the loop that closes it, a cavity by its own last voxel.
pub fn betti_unmatched(
    prediction: &[u8],
    label: &[u8],
    shape: Shape,
    blocks: Blocks,
    cancel: &Cancel,
) -> Result<Unmatched> {
    let parts = for_blocks(prediction, label, shape, blocks, cancel, |from, block| {
        let found = [
            components::find_components(block, cancel)?.0,
            tunnels::find_tunnels(block, cancel)?,
            cavities::find_cavities(block, cancel)?,
        ];
        Ok([0, 1].map(|mask| found.each_ref().map(|found| block.places(&found.unmatched(mask), from))))
    })?;
    let mut unmatched = Unmatched::default();
    for [prediction, label] in parts {
        for (all, part) in [(&mut unmatched.prediction, prediction), (&mut unmatched.label, label)] {
            for (all, part) in all.iter_mut().zip(part) {
                all.extend(part);
            }
        }
    }
    for places in unmatched.prediction.iter_mut().chain(&mut unmatched.label) {
        places.sort_unstable();
    }
    Ok(unmatched)
}

/// Do `work` on every block, which it gets with its first voxel; results in the blocks' order.
fn for_blocks<T: Send>(
    prediction: &[u8],
    label: &[u8],
    shape: Shape,
    blocks: Blocks,
    cancel: &Cancel,
    work: impl Fn(Shape, &Block) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    check(prediction, label, shape)?;
    let bounds = if blocks == Blocks::Whole { vec![([0; 3], shape)] } else { octants(shape) };
    let do_block = |(from, to)| work(from, &Block::cut(prediction, label, shape, from, to, cancel)?);
    bounds.into_par_iter().map(do_block).collect()
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

fn count(block: &Block, cancel: &Cancel) -> Result<Matchings> {
    let (components, cavities) =
        rayon::join(|| components::find_components(block, cancel), || cavities::find_cavities(block, cancel));
    let ((components, count), cavities) = (components?, cavities?);
    let euler = block.euler_numbers(cancel)?;
    // Euler-Poincare: chi = components - tunnels + cavities.
    let tunnels = [0, 1].map(|mask| (count[mask] as i64 + cavities.births[mask].len() as i64 - euler[mask]) as u64);
    let matched = if tunnels.contains(&0) { 0 } else { tunnels::count_matched_tunnels(block, cancel)? };
    let tunnels = Matching { matched, prediction: tunnels[0], label: tunnels[1] };
    Ok([counted(&components), tunnels, counted(&cavities)])
}

fn counted(found: &Found) -> Matching {
    let [prediction, label] = [0, 1].map(|mask| found.births[mask].len() as u64);
    Matching { matched: found.matched[0].len() as u64, prediction, label }
}
