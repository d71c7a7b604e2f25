//! The two masks of one block: a byte a voxel, and a bit a voxel.

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
    /// Words of 64 voxels that make up a row.
    pub row_words: usize,
    /// Each mask's foreground; bits past a row's end are 0.
    words: Vec<[u64; 2]>,
}

impl Block {
    /// Voxels `from..to` of two masks of shape `shape`.
    pub fn cut(prediction: &[u8], label: &[u8], shape: Shape, from: Shape, to: Shape, cancel: &Cancel) -> Result<Self> {
        let [_, ny, nx] = shape;
        let cut: Shape = array::from_fn(|axis| to[axis] - from[axis]);
        let mut codes = zeroed("the masks' block", cut.iter().product())?;
        let row_words = cut[2].div_ceil(64);
        let mut words = Vec::with_capacity(cut[0] * cut[1] * row_words);
        for (row, codes) in codes.chunks_exact_mut(cut[2]).enumerate() {
            cancel.check()?;
            let (z, y) = (from[0] + row / cut[1], from[1] + row % cut[1]);
            let at = (z * ny + y) * nx + from[2];
            let voxels = prediction[at..].iter().zip(&label[at..]);
            for (code, (&prediction, &label)) in codes.iter_mut().zip(voxels) {
                *code = (u8::from(prediction != 0) * MASK_BIT[0]) | (u8::from(label != 0) * MASK_BIT[1]);
            }
            words.extend(codes.chunks(64).map(packed));
        }
        Ok(Self { codes, shape: cut, row_words, words })
    }

    pub fn slice(&self, z: usize) -> &[u8] {
        let area = self.shape[1] * self.shape[2];
        &self.codes[z * area..][..area]
    }

    /// (z, y, x) of voxels of this block, whose first voxel is `from`.
    pub fn places(&self, voxels: &[u32], from: Shape) -> Vec<Shape> {
        let [_, ny, nx] = self.shape;
        let place = |voxel: usize| [from[0] + voxel / (ny * nx), from[1] + voxel / nx % ny, from[2] + voxel % nx];
        voxels.iter().map(|&voxel| place(voxel as usize)).collect()
    }

    /// Both masks' words of row `row` (z * ny + y).
    pub fn row(&self, row: usize) -> &[[u64; 2]] {
        &self.words[row * self.row_words..][..self.row_words]
    }

    /// Euler number of each mask's cubical complex: vertices - edges + squares - cubes.
    pub fn euler_numbers(&self, cancel: &Cancel) -> Result<[i64; 2]> {
        let [nz, ny, _] = self.shape;
        let empty = vec![[0; 2]; self.row_words];
        let row = |z: usize, y: usize| if z < nz && y < ny { self.row(z * ny + y) } else { &empty };
        let mut sum = [0; 2];
        for z in 0..nz {
            for y in 0..ny {
                cancel.check()?;
                let rows = [row(z, y), row(z, y + 1), row(z + 1, y), row(z + 1, y + 1)];
                sum = array::from_fn(|mask| sum[mask] + euler_of_row(rows, mask));
            }
        }
        Ok(sum)
    }
}

/// Up to 64 codes as bits, the first voxel lowest.
fn packed(codes: &[u8]) -> [u64; 2] {
    const LOWEST_OF_EACH: u64 = 0x0101_0101_0101_0101;
    // The product's top byte gathers the lowest bit of byte i as bit i.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut words = [0; 2];
    for (i, eight) in codes.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..eight.len()].copy_from_slice(eight);
        let codes = u64::from_le_bytes(bytes);
        for (mask, word) in words.iter_mut().enumerate() {
            *word |= ((codes >> mask & LOWEST_OF_EACH).wrapping_mul(GATHER) >> 56) << (8 * i);
        }
    }
    words
}

/// The bits of `words` moved down by one voxel: bit x tells of voxel x + 1 (`next` being the word after).
#[inline]
pub fn ahead(word: u64, next: u64) -> u64 {
    word >> 1 | next << 63
}

/// The positions of a word's set bits.
pub fn set_bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        (bit < 64).then(|| {
            word &= word - 1;
            bit as usize
        })
    })
}

/// The cells whose lowest voxel lies in the first of four rows, the others being the next in y, in z and in both.
/// A cell is in a mask if all its voxels are.
fn euler_of_row([row, below, behind, diagonal]: [&[[u64; 2]]; 4], mask: usize) -> i64 {
    let across = |i: usize| {
        let [row, below, behind, diagonal] =
            [row, below, behind, diagonal].map(|words| words.get(i).map_or(0, |w| w[mask]));
        [row, row & below, row & behind, row & below & behind & diagonal]
    };
    let signed = |[vertex, edge_y, edge_z, square]: [u64; 4]| {
        let count = |word: u64| i64::from(word.count_ones());
        count(vertex) - count(edge_y) - count(edge_z) + count(square)
    };
    let mut here = across(0);
    let mut sum = 0;
    for i in 0..row.len() {
        let next = across(i + 1);
        let along_x = array::from_fn(|cell| here[cell] & ahead(here[cell], next[cell]));
        sum += signed(here) - signed(along_x);
        here = next;
    }
    sum
}
