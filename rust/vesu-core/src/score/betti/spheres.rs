//! Which squares close a sphere: a surface without rim of squares up to them.
//!
//! By duality these are the edges of a spanning forest. Cubes and the outside are the nodes, the squares between them the
//! edges, taken from the last to the first; an edge that joins two parts closes the sphere around one of them.

use super::block::{Block, ahead, set_bits};
use super::columns::Square;
use super::forest::{Forest, filled};
use crate::{Cancel, Result};

/// The node of all outside the block.
const OUTSIDE: u32 = 0;
/// A cube not yet joined to any.
const FRESH: u32 = u32::MAX;

/// For each of `squares`, which lie outside the union and are in order, whether it closes a sphere.
///
/// They must be all those that no edge settles (see [`columns`](super::columns)); the rest close none, or the cube before
/// them, which here shows as cubes being joined along z.
pub fn closes_sphere(block: &Block, squares: &[Square], cancel: &Cancel) -> Result<Vec<bool>> {
    let [nz, ny, nx] = block.shape;
    let mut closes = vec![false; squares.len()];
    if block.shape.contains(&1) {
        return Ok(closes);
    }
    let mut forest = Forest::new(1)?;
    // By cube of the present slice; a row is nx long, though its last cube lies outside.
    let mut nodes = filled("cubes of a slice", ny * nx, OUTSIDE)?;
    let mut rest = squares.len();
    for z in (0..nz - 1).rev() {
        cancel.check()?;
        separate(&mut nodes, block, z + 1);
        let base = z * ny * nx;
        while rest > 0 && squares[rest - 1].voxel as usize >= base {
            rest -= 1;
            let square = squares[rest];
            let at = square.voxel as usize - base;
            let (y, x) = (at / nx, at % nx);
            let mut node = |cube: Option<usize>, forest: &mut Forest| match cube {
                None => OUTSIDE,
                Some(cube) => {
                    if nodes[cube] == FRESH {
                        nodes[cube] = forest.push();
                    }
                    nodes[cube]
                }
            };
            let (low, high) = match square.normal {
                0 => (None, Some(at)),
                1 => ((y > 0).then(|| at - nx), (y + 1 < ny).then_some(at)),
                _ => ((x > 0).then(|| at - 1), (x + 1 < nx).then_some(at)),
            };
            let (low, high) = (node(low, &mut forest), node(high, &mut forest));
            closes[rest] = forest.unite(low, high).is_some();
        }
    }
    Ok(closes)
}

/// Cubes under a square of the union, in slice `z`, start afresh; the others belong to what is above.
fn separate(nodes: &mut [u32], block: &Block, z: usize) {
    let [_, ny, nx] = block.shape;
    for y in 0..ny - 1 {
        let rows = [block.row(z * ny + y), block.row(z * ny + y + 1)];
        let both = |i: usize| rows.iter().map(|row| row.get(i).map_or(0, |[a, b]| a | b)).fold(u64::MAX, |a, b| a & b);
        for i in 0..block.row_words {
            let inside = both(i) & ahead(both(i), both(i + 1));
            for bit in set_bits(inside) {
                nodes[y * nx + 64 * i + bit] = FRESH;
            }
        }
    }
}
