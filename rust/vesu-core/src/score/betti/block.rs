//! The two masks of one block, one byte a voxel.

use std::array;

use crate::pages::zeroed;
use crate::volume::Shape;
use crate::{Cancel, Result};

/// Bit of a voxel's code: foreground of the prediction (mask 0) or of the label (mask 1).
pub const MASK_BIT: [u8; 2] = [1, 2];

/// A box of voxels with the foreground of both masks; code 0 is outside their union.
pub struct Block {
    pub codes: Vec<u8>,
    pub shape: Shape,
}

impl Block {
    /// Voxels `from..to` of two masks of shape `shape`.
    pub fn cut(prediction: &[u8], label: &[u8], shape: Shape, from: Shape, to: Shape) -> Result<Self> {
        let [_, ny, nx] = shape;
        let cut = array::from_fn(|axis| to[axis] - from[axis]);
        let mut codes = zeroed("the masks' block", cut.iter().product())?;
        for (row, codes) in codes.chunks_exact_mut(cut[2]).enumerate() {
            let (z, y) = (from[0] + row / cut[1], from[1] + row % cut[1]);
            let at = (z * ny + y) * nx + from[2];
            let voxels = prediction[at..].iter().zip(&label[at..]);
            for (code, (&prediction, &label)) in codes.iter_mut().zip(voxels) {
                *code = u8::from(prediction != 0) * MASK_BIT[0] | u8::from(label != 0) * MASK_BIT[1];
            }
        }
        Ok(Self { codes, shape: cut })
    }

    pub fn slice(&self, z: usize) -> &[u8] {
        let area = self.shape[1] * self.shape[2];
        &self.codes[z * area..][..area]
    }

    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.codes.chunks_exact(self.shape[2])
    }

    /// Euler number of each mask's cubical complex: vertices - edges + squares - cubes.
    pub fn euler_numbers(&self, cancel: &Cancel) -> Result<[i64; 2]> {
        let [nz, ny, nx] = self.shape;
        let (row, empty) = (|z: usize, y: usize| &self.codes[(z * ny + y) * nx..][..nx], vec![0; nx]);
        let mut sum = [0; 2];
        for z in 0..nz {
            cancel.check()?;
            for y in 0..ny {
                let below = if y + 1 < ny { row(z, y + 1) } else { &empty };
                let behind = if z + 1 < nz { row(z + 1, y) } else { &empty };
                let diagonal = if y + 1 < ny && z + 1 < nz { row(z + 1, y + 1) } else { &empty };
                let part = euler_of_row(row(z, y), below, behind, diagonal);
                sum = array::from_fn(|mask| sum[mask] + part[mask]);
            }
        }
        Ok(sum)
    }
}

/// The cells whose lowest voxel lies in `row`, counted with their sign.
fn euler_of_row(row: &[u8], below: &[u8], behind: &[u8], diagonal: &[u8]) -> [i64; 2] {
    let nx = row.len();
    let mut sum = [0i64; 2];
    // A cell is in a mask if all its voxels are. Across x, a row of such columns gives vertices less edges.
    let across = |x: usize| {
        let column = row[x];
        let pairs = [column & below[x], column & behind[x]];
        (column, pairs, pairs[0] & behind[x] & diagonal[x])
    };
    let signed = |bit: u8, (column, pairs, quad): (u8, [u8; 2], u8)| {
        let is = |code: u8| i64::from(code & bit != 0);
        is(column) - is(pairs[0]) - is(pairs[1]) + is(quad)
    };
    for x in 0..nx {
        let here = across(x);
        for (sum, bit) in sum.iter_mut().zip(MASK_BIT) {
            *sum += signed(bit, here);
        }
        if x + 1 < nx {
            let next = across(x + 1);
            let both = (here.0 & next.0, [here.1[0] & next.1[0], here.1[1] & next.1[1]], here.2 & next.2);
            for (sum, bit) in sum.iter_mut().zip(MASK_BIT) {
                *sum -= signed(bit, both);
            }
        }
    }
    sum
}
