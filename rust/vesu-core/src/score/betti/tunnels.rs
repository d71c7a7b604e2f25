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
use super::columns::RelativeMatrix;
use super::reduction::dependent_columns;
use super::spheres::closes_sphere;
use crate::{Cancel, Result};

pub fn match_tunnels(block: &Block, cancel: &Cancel) -> Result<u64> {
    let relative = |bit| RelativeMatrix::of(block, bit, cancel);
    let (first, second) = rayon::join(|| relative(MASK_BIT[0]), || relative(MASK_BIT[1]));
    let (first, second) = (first?, second?);
    let spheres = closes_sphere(block, &first.squares, cancel)?;
    let (first, second) =
        rayon::join(|| dependent_columns(&first, &spheres, cancel), || dependent_columns(&second, &spheres, cancel));
    Ok(first?.iter().zip(second?).filter(|&(&first, second)| first && second).count() as u64)
}
