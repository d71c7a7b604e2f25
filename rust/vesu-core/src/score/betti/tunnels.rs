//! Dimension 1: tunnels.
//!
//! Let X be the box, F a mask and U the union. A tunnel of U dies at the square d outside U with which its filling is
//! complete, and it comes from F exactly if some surface of squares up to d, d among them, has its rim in F. In the
//! complex of X relative to F that is: the column of d depends on earlier columns. It must not depend on them in X
//! itself, where it would close a sphere and kill nothing. So for each mask one asks, square by square in order, which
//! columns of the relative boundary matrix are dependent; which rows come first does not matter.
//!
//! [`columns`](super::columns) takes from that matrix all that is settled by looking at neighbours, and
//! [`reduction`](super::reduction) reduces what is left.

use super::block::{Block, MASK_BIT};
use super::columns::{Edge, RelativeMatrix};
use super::found::Found;
use super::reduction::{Reduced, reduce};
use super::spheres::closes_sphere;
use crate::{Cancel, Result};

/// How many tunnels are matched.
pub fn count_matched_tunnels(block: &Block, cancel: &Cancel) -> Result<u64> {
    let [first, second] = reduce_both(block, false, cancel)?;
    Ok(first.dependent.iter().zip(second.dependent).filter(|&(&first, second)| first && second).count() as u64)
}

/// The tunnels, each at the higher end of the last edge of its loop.
pub fn find_tunnels(block: &Block, cancel: &Cancel) -> Result<Found> {
    let reduced = reduce_both(block, true, cancel)?;
    let [_, ny, nx] = block.shape;
    let strides = [ny * nx, nx, 1].map(|stride| stride as u32);
    let end = |edge: &Edge| edge.voxel + strides[usize::from(edge.axis)];
    let matched: Vec<_> = reduced[0].births.iter().zip(&reduced[1].births).filter_map(|(&a, &b)| a.zip(b)).collect();
    Ok(Found {
        births: [0, 1].map(|mask| reduced[mask].tunnels.iter().map(end).collect()),
        matched: [
            matched.iter().map(|(edge, _)| end(edge)).collect(),
            matched.iter().map(|(_, edge)| end(edge)).collect(),
        ],
    })
}

fn reduce_both(block: &Block, rims: bool, cancel: &Cancel) -> Result<[Reduced; 2]> {
    let matrix = |bit| RelativeMatrix::of(block, bit, rims, cancel);
    let (first, second) = rayon::join(|| matrix(MASK_BIT[0]), || matrix(MASK_BIT[1]));
    let (first, second) = (first?, second?);
    let spheres = closes_sphere(block, &first.squares, cancel)?;
    let (first, second) = rayon::join(|| reduce(&first, &spheres, cancel), || reduce(&second, &spheres, cancel));
    Ok([first?, second?])
}
