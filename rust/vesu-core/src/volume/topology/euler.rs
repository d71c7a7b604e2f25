//! Euler number by counting cells.
//!
//! Foreground connectivity 6 (V-construction): voxels are vertices, pairs that share a face are edges, full 2x2 squares
//! faces and full 2x2x2 cubes cells. Foreground connectivity 26 (T-construction): voxels are closed unit cubes and every
//! square, edge and corner of them counts once. Either way the number is the alternating sum, and
//! components - tunnels + cavities.

use rayon::prelude::*;

use super::bits::Bits;
use super::check_connectivity;
use crate::volume::{Connectivity, Shape};
use crate::{Cancel, Result};

/// Euler number of the foreground at connectivity 6 (background 26) or 26 (background 6).
pub fn euler_number(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<i64> {
    check_connectivity(connectivity)?;
    let bits = Bits::of_mask(mask, shape, cancel)?;
    euler_of_bits(&bits, connectivity, cancel)
}

pub(in crate::volume) fn euler_of_bits(bits: &Bits, connectivity: Connectivity, cancel: &Cancel) -> Result<i64> {
    let [nz, ny, _] = bits.shape;
    let count = if connectivity == Connectivity::Faces { full_cells } else { touched_cells };
    // One step beyond the end in z and y: the last faces of closed cubes lie there.
    (0..=nz)
        .into_par_iter()
        .map(|z| {
            cancel.check()?;
            Ok((0..=ny).map(|y| count(bits.four_rows(z, y))).sum::<i64>())
        })
        .sum()
}

fn ones(word: u64) -> i64 {
    i64::from(word.count_ones())
}

/// V-construction: the cells whose last voxel lies in row `d`, full ones only.
fn full_cells([a, b, c, d]: [&[u64]; 4]) -> i64 {
    let mut euler = 0;
    let mut carry = [0; 4];
    for i in 0..d.len() {
        let row = d[i];
        // Pairs along y, pairs along z, squares across x.
        let (along_y, along_z) = (row & c[i], row & b[i]);
        let across = along_y & along_z & a[i];
        let mut pairs = |word: u64, which: usize| {
            let paired = ones(word & (word << 1 | carry[which]));
            carry[which] = word >> 63;
            paired
        };
        let voxels = ones(row) - pairs(row, 0);
        euler += voxels - ones(along_y) + pairs(along_y, 1) - ones(along_z) + pairs(along_z, 2) + ones(across)
            - pairs(across, 3);
    }
    euler
}

/// T-construction: the cells of closed cubes on the corner line, the two lower squares, and the cube of row `d`.
fn touched_cells([a, b, c, d]: [&[u64]; 4]) -> i64 {
    let mut euler = 0;
    let mut carry = [0; 4];
    for i in 0..d.len() {
        let row = d[i];
        let (face_y, face_z) = (row | c[i], row | b[i]);
        let line = face_y | face_z | a[i];
        // Positions between voxels, or at the row's beginning, with a set bit on either side.
        let mut between = |word: u64, which: usize| {
            let touched = ones(word | (word << 1 | carry[which]));
            carry[which] = word >> 63;
            touched
        };
        let cubes = ones(row) - between(row, 0);
        euler += between(line, 3) - ones(line) - between(face_y, 1) + ones(face_y) - between(face_z, 2) + ones(face_z)
            - cubes;
    }
    // Positions at the row's very end, when it fills its last word.
    let [row, face_y, face_z, line] = carry.map(|bit| bit as i64);
    euler + line - face_y - face_z + row
}
