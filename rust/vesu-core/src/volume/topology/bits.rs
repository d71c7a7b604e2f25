//! A mask as bits, 64 voxels of a row to a word: neighbourhoods of 64 voxels become a few logical operations.

use rayon::prelude::*;

use crate::pages::zeroed;
use crate::volume::bits::{WORD, nonzero_bits};
use crate::volume::check::same_length;
use crate::volume::wide::{Work, dispatch};
use crate::volume::{SLAB_SLICES, Shape};
use crate::{Cancel, Result};

/// Rows of bits; bit x % 64 of word x / 64 is voxel x, bits beyond the row's end are 0.
#[derive(Clone)]
pub(in crate::volume) struct Bits {
    pub shape: Shape,
    pub words_per_row: usize,
    pub words: Vec<u64>,
    /// What lies outside the volume.
    outside: Vec<u64>,
}

impl Bits {
    pub fn of_mask(mask: &[u8], shape: Shape, cancel: &Cancel) -> Result<Self> {
        same_length("mask", mask.len(), shape)?;
        let words_per_row = shape[2].div_ceil(64);
        let mut words = zeroed("the mask's bits", shape[0] * shape[1] * words_per_row)?;
        let rows = mask.par_chunks(shape[2]);
        words.par_chunks_mut(words_per_row).zip(rows).with_min_len(SLAB_SLICES).try_for_each(|(words, row)| {
            cancel.check()?;
            dispatch(Pack { row, words });
            Ok(())
        })?;
        Ok(Self { shape, words_per_row, words, outside: vec![0; words_per_row] })
    }

    /// Row (z, y); a row outside the volume is background.
    #[inline]
    pub fn row(&self, z: Option<usize>, y: Option<usize>) -> &[u64] {
        match (z, y) {
            (Some(z), Some(y)) if z < self.shape[0] && y < self.shape[1] => {
                &self.words[(z * self.shape[1] + y) * self.words_per_row..][..self.words_per_row]
            }
            _ => &self.outside,
        }
    }

    /// The four rows of the 2x2x2 windows that begin one slice and one row before (z, y): they meet at that corner.
    /// In the order (z - 1, y - 1), (z - 1, y), (z, y - 1), (z, y).
    #[inline]
    pub fn four_rows(&self, z: usize, y: usize) -> [&[u64]; 4] {
        let (before, above) = (z.checked_sub(1), y.checked_sub(1));
        [self.row(before, above), self.row(before, Some(y)), self.row(Some(z), above), self.row(Some(z), Some(y))]
    }

    /// Back to bytes, 0 or 1.
    pub fn to_mask(&self, cancel: &Cancel) -> Result<Vec<u8>> {
        let nx = self.shape[2];
        let mut mask = zeroed("the result", self.shape.iter().product())?;
        let rows = self.words.par_chunks(self.words_per_row);
        mask.par_chunks_mut(nx).zip(rows).with_min_len(SLAB_SLICES).try_for_each(|(row, words)| {
            cancel.check()?;
            for (voxels, &word) in row.chunks_mut(64).zip(words) {
                if word != 0 {
                    for (x, voxel) in voxels.iter_mut().enumerate() {
                        *voxel = (word >> x & 1) as u8;
                    }
                }
            }
            Ok(())
        })?;
        Ok(mask)
    }
}

/// The words of one row.
struct Pack<'a> {
    row: &'a [u8],
    words: &'a mut [u64],
}

impl Work for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) {
        for (bytes, word) in self.row.chunks(WORD).zip(self.words) {
            // SAFETY: WIDE is handed on.
            *word = unsafe { nonzero_bits::<WIDE>(bytes) };
        }
    }
}

/// Bits x - 1, x and x + 1 of a row, as bits 0, 1 and 2.
#[inline]
pub(in crate::volume) fn three(row: &[u64], x: usize) -> usize {
    let (i, bit) = (x / 64, x % 64);
    let word = row[i];
    let before = if bit > 0 { word >> (bit - 1) & 1 } else { i.checked_sub(1).map_or(0, |i| row[i] >> 63) };
    let after = if bit < 63 { word >> (bit + 1) & 1 } else { row.get(i + 1).map_or(0, |next| next & 1) };
    (before | (word >> bit & 1) << 1 | after << 2) as usize
}
