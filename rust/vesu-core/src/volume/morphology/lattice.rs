//! What dilation needs to know of its values: how two are joined, and how a row is joined with itself shifted.

use crate::features::simd::multiversion;
use crate::pages::{Zeroable, zeroed};
use crate::{Cancel, Result};

/// Rows of cells, each one or several voxels, with a join (or, maximum, minimum).
pub trait Lattice {
    type Cell: Zeroable + Send + Sync;
    /// Joined with any value it gives that value: what lies outside the volume.
    const BOTTOM: Self::Cell;

    /// Cells of a row of `nx` voxels.
    fn cells(nx: usize) -> usize;

    /// Join `source` into `target`, cell by cell.
    fn join(target: &mut [Self::Cell], source: &[Self::Cell]);

    /// Cells of [`BOTTOM`](Self::BOTTOM) needed at either end of a row that is shifted by `step` voxels.
    fn margin(step: usize) -> usize;

    /// Join into `row` the voxels `step` before and `step` after each. `padded` is the row between its margins.
    fn join_shifted(row: &mut [Self::Cell], padded: &[Self::Cell], step: usize, nx: usize);
}

/// Cells copied between two polls of the cancel token.
const POLL: usize = 1 << 20;

/// Working memory of [`widen`].
pub struct Padded<L: Lattice> {
    cells: Vec<L::Cell>,
    row: usize,
}

impl<L: Lattice> Padded<L> {
    /// For rows of `nx` voxels that are widened to `width` at most.
    pub fn new(nx: usize, width: usize) -> Result<Self> {
        let row = L::cells(nx);
        Ok(Self { cells: zeroed("a padded row", if width == 0 { 0 } else { row + 2 * L::margin(width) })?, row })
    }

    /// Widen every row of `rows`, windows of half-width `from`, to half-width `to`.
    pub fn widen(&mut self, rows: &mut [L::Cell], nx: usize, from: usize, to: usize, cancel: &Cancel) -> Result<()> {
        let mut width = from;
        while width < to {
            // As in a box: windows set further apart than this would leave a gap at the volume's end.
            let step = (width + 1).min(to - width);
            let margin = L::margin(step);
            let padded = &mut self.cells[..self.row + 2 * margin];
            padded[..margin].fill(L::BOTTOM);
            padded[margin + self.row..].fill(L::BOTTOM);
            for row in rows.chunks_exact_mut(self.row) {
                for (copy, cells) in padded[margin..].chunks_mut(POLL).zip(row.chunks(POLL)) {
                    cancel.check()?;
                    copy[..cells.len()].copy_from_slice(cells);
                }
                L::join_shifted(row, padded, step, nx);
            }
            width += step;
        }
        Ok(())
    }
}

/// Masks, 64 voxels a cell: or.
pub struct Bits;

impl Lattice for Bits {
    type Cell = u64;
    const BOTTOM: u64 = 0;

    fn cells(nx: usize) -> usize {
        super::packed::words_of(nx)
    }

    fn join(target: &mut [u64], source: &[u64]) {
        or(target, source);
    }

    fn margin(step: usize) -> usize {
        step / 64 + 1
    }

    fn join_shifted(row: &mut [u64], padded: &[u64], step: usize, nx: usize) {
        or_shifted(row, padded, step);
        row[row.len() - 1] &= super::packed::tail_mask(nx);
    }
}

multiversion! {
    fn or(target: &mut [u64], source: &[u64]) {
        for (cell, &other) in target.iter_mut().zip(source) {
            *cell |= other;
        }
    }
}

multiversion! {
    fn or_shifted(row: &mut [u64], padded: &[u64], step: usize) {
        let (words, bits, n) = (step / 64, (step % 64) as u32, row.len());
        let carry = 63 - bits; // shifted by one more before, as a shift by 64 is none
        let before = (&padded[..n], &padded[1..n + 1]);
        let after = (&padded[2 * words + 1..][..n], &padded[2 * words + 2..][..n]);
        for i in 0..n {
            let up = before.1[i] << bits | before.0[i] >> 1 >> carry;
            let down = after.0[i] >> bits | after.1[i] << 1 << carry;
            row[i] |= up | down;
        }
    }
}

/// One voxel a cell. `max` and `min` rather than a comparison: of that a compiler makes stores of only the values that
/// change, which some processors do slowly. No value is NaN.
macro_rules! float_lattice {
    ($(#[$meta:meta])* $name:ident, $bottom:expr, $join:ident, $best:ident) => {
        $(#[$meta])*
        pub struct $name;

        impl Lattice for $name {
            type Cell = f32;
            const BOTTOM: f32 = $bottom;

            fn cells(nx: usize) -> usize {
                nx
            }

            fn join(target: &mut [f32], source: &[f32]) {
                $join(target, source);
            }

            fn margin(step: usize) -> usize {
                step
            }

            fn join_shifted(row: &mut [f32], padded: &[f32], step: usize, _nx: usize) {
                let n = row.len();
                $join(row, &padded[..n]);
                $join(row, &padded[2 * step..][..n]);
            }
        }

        multiversion! {
            fn $join(target: &mut [f32], source: &[f32]) {
                for (cell, &other) in target.iter_mut().zip(source) {
                    *cell = cell.$best(other);
                }
            }
        }
    };
}

float_lattice! {
    /// Dilation of numbers.
    Largest, f32::NEG_INFINITY, join_largest, max
}

float_lattice! {
    /// Erosion of numbers.
    Smallest, f32::INFINITY, join_smallest, min
}
