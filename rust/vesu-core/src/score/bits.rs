//! Volumes of one bit a voxel, rows of whole 64-bit words.

use rayon::prelude::*;

use crate::pages::zeroed;
use crate::volume::Shape;
use crate::{Cancel, Result};

/// Bit x % 64 of word x / 64 of a row is voxel x; bits beyond the row's end are 0.
pub(super) struct Bits {
    /// Rows in a slice.
    pub ny: usize,
    pub words: usize,
    values: Vec<u64>,
}

impl Bits {
    /// Fill each slice of a volume of `shape` with `slice(z, rows)`; slices come in any order.
    pub fn fill(shape: Shape, cancel: &Cancel, slice: impl Fn(usize, &mut [u64]) + Sync) -> Result<Self> {
        let [nz, ny, nx] = shape;
        let words = nx.div_ceil(64);
        let mut values = zeroed("bits of a mask", nz * ny * words)?;
        values.par_chunks_mut(ny * words).enumerate().try_for_each(|(z, rows)| {
            cancel.check()?;
            slice(z, rows);
            Ok(())
        })?;
        Ok(Self { ny, words, values })
    }

    /// The foreground (non-zero bytes) of `mask`.
    pub fn of_mask(mask: &[u8], shape: Shape, cancel: &Cancel) -> Result<Self> {
        let [_, ny, nx] = shape;
        Self::fill(shape, cancel, |z, rows| {
            let voxels = &mask[z * ny * nx..][..ny * nx];
            for (row, words) in voxels.chunks_exact(nx).zip(rows.chunks_exact_mut(nx.div_ceil(64))) {
                for (word, bytes) in words.iter_mut().zip(row.chunks(64)) {
                    for (i, bytes) in bytes.chunks(8).enumerate() {
                        *word |= nonzero_bits(bytes) << (8 * i);
                    }
                }
            }
        })
    }

    pub fn slices(&self) -> usize {
        self.values.len() / (self.ny * self.words)
    }

    pub fn row(&self, z: usize, y: usize) -> &[u64] {
        &self.values[(z * self.ny + y) * self.words..][..self.words]
    }

    /// Row (z, y), or None outside the volume.
    pub fn row_at(&self, z: isize, y: isize) -> Option<&[u64]> {
        let (z, y) = (usize::try_from(z).ok()?, usize::try_from(y).ok()?);
        (z < self.slices() && y < self.ny).then(|| self.row(z, y))
    }

    pub fn get(&self, z: usize, y: usize, x: usize) -> bool {
        self.row(z, y)[x / 64] >> (x % 64) & 1 == 1
    }
}

/// Bit i is set when byte i of at most eight is not zero.
#[inline]
fn nonzero_bits(bytes: &[u8]) -> u64 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let eight = match bytes.try_into() {
        Ok(eight) => u64::from_le_bytes(eight),
        Err(_) => bytes.iter().rev().fold(0, |eight, &byte| eight << 8 | u64::from(byte)),
    };
    // Bit 7 of each byte tells whether the byte is zero; one multiplication gathers those bits in the top byte.
    let nonzero = (((eight & LOW_BITS) + LOW_BITS) | eight) >> 7 & 0x0101_0101_0101_0101;
    nonzero.wrapping_mul(0x0102_0408_1020_4080) >> 56
}
