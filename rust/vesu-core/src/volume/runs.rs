//! Rows of a volume as runs of foreground, found 64 voxels at a time.

use super::Shape;
use crate::{Cancel, Result};

/// Voxels `start..end` of one row, all foreground, with background or the row's ends around them.
///
/// 32 bits a bound: a row may be as long as the largest volume accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub start: u32,
    pub end: u32,
}

impl Run {
    pub fn length(self) -> u32 {
        self.end - self.start
    }

    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Where rows of foreground come from; non-zero bytes are foreground.
pub(super) trait Rows: Sync {
    /// Row `index` (z * ny + y). `scratch` is one row long, for sources that have no bytes of their own.
    fn row<'a>(&'a self, index: usize, scratch: &'a mut [u8]) -> &'a [u8];
}

/// The rows of a mask, as they lie.
pub(super) struct MaskRows<'m> {
    pub mask: &'m [u8],
    pub row_length: usize,
}

impl Rows for MaskRows<'_> {
    fn row<'a>(&'a self, index: usize, _scratch: &'a mut [u8]) -> &'a [u8] {
        &self.mask[index * self.row_length..][..self.row_length]
    }
}

/// The runs of some whole slices, row after row.
pub(super) struct Slab {
    pub runs: Vec<Run>,
    /// `row_starts[r]..row_starts[r + 1]` are row r's runs; rows count from the slab's first.
    pub row_starts: Vec<u32>,
}

impl Slab {
    /// The runs of slices `first_slice..first_slice + slices`.
    pub fn extract(rows: &impl Rows, shape: Shape, first_slice: usize, slices: usize, cancel: &Cancel) -> Result<Self> {
        let [_, ny, nx] = shape;
        let mut scratch = vec![0; nx];
        let mut slab = Self { runs: Vec::new(), row_starts: Vec::with_capacity(slices * ny + 1) };
        slab.row_starts.push(0);
        for index in first_slice * ny..(first_slice + slices) * ny {
            append_runs(rows.row(index, &mut scratch), &mut slab.runs, cancel)?;
            slab.row_starts.push(slab.runs.len() as u32);
        }
        Ok(slab)
    }

    pub fn rows(&self) -> usize {
        self.row_starts.len() - 1
    }

    /// Indices into `runs` of row `row`.
    pub fn run_range(&self, row: usize) -> std::ops::Range<usize> {
        self.row_starts[row] as usize..self.row_starts[row + 1] as usize
    }
}

/// Voxels looked at between two polls of the cancel token.
const POLL: usize = 1 << 18;

fn append_runs(row: &[u8], runs: &mut Vec<Run>, cancel: &Cancel) -> Result<()> {
    let mut scan = Scan::default();
    for (part, piece) in row.chunks(POLL).enumerate() {
        cancel.check()?;
        let base = part * POLL;
        for (i, voxels) in piece.chunks(64).enumerate() {
            let word = match voxels.try_into() {
                Ok(whole) => nonzero_bits(whole),
                Err(_) => {
                    let mut padded = [0; 64];
                    padded[..voxels.len()].copy_from_slice(voxels);
                    nonzero_bits(&padded)
                }
            };
            scan.word(word, (base + 64 * i) as u32, runs);
        }
    }
    if scan.last == 1 {
        runs.push(Run { start: scan.start, end: row.len() as u32 });
    }
    Ok(())
}

/// The state between two words of a row.
#[derive(Default)]
struct Scan {
    /// The last voxel seen: 1 while a run is open.
    last: u64,
    /// Where the open run began.
    start: u32,
}

impl Scan {
    /// Take 64 voxels, bit i being voxel `base + i`; every place where the bit changes begins or ends a run.
    #[inline]
    fn word(&mut self, word: u64, base: u32, runs: &mut Vec<Run>) {
        let mut changes = word ^ (word << 1 | self.last);
        self.last = word >> 63;
        while changes != 0 {
            let bit = changes.trailing_zeros();
            changes &= changes - 1;
            if word >> bit & 1 == 1 {
                self.start = base + bit;
            } else {
                runs.push(Run { start: self.start, end: base + bit });
            }
        }
    }
}

/// Bit i is set when byte i is not zero.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn nonzero_bits(bytes: &[u8; 64]) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
    let mut zeros = 0u64;
    for lane in 0..4 {
        // SAFETY: SSE2 is part of every x86-64; the unaligned load reads bytes 16 * lane .. 16 * lane + 16 of 64.
        let mask = unsafe {
            let vector = _mm_loadu_si128(bytes.as_ptr().add(16 * lane).cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(vector, _mm_setzero_si128()))
        };
        zeros |= u64::from(mask as u32) << (16 * lane);
    }
    !zeros
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn nonzero_bits(bytes: &[u8; 64]) -> u64 {
    nonzero_bits_portable(bytes)
}

/// The same with eight bytes in a register: bit 7 of each byte tells whether it is zero, one multiplication packs them.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn nonzero_bits_portable(bytes: &[u8; 64]) -> u64 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut bits = 0;
    for i in 0..8 {
        let eight = u64::from_le_bytes(std::array::from_fn(|k| bytes[8 * i + k]));
        let nonzero = ((((eight & LOW_BITS) + LOW_BITS) | eight) & !LOW_BITS) >> 7;
        bits |= (nonzero.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs_of(row: &[u8]) -> Vec<Run> {
        let mut runs = Vec::new();
        append_runs(row, &mut runs, &Cancel::new()).unwrap();
        runs
    }

    #[test]
    fn bounds_beyond_16_bits_survive() {
        let mut row = vec![0; 200_000];
        row[65_530..65_540].fill(1);
        row[199_999] = 255;
        assert_eq!(runs_of(&row), [Run { start: 65_530, end: 65_540 }, Run { start: 199_999, end: 200_000 }]);
    }

    #[test]
    fn a_run_may_cross_a_poll() {
        assert_eq!(runs_of(&vec![1; POLL + 100]), [Run { start: 0, end: POLL as u32 + 100 }]);
    }

    proptest! {
        #[test]
        fn runs_paint_the_row_back(row in prop::collection::vec(prop::sample::select(vec![0u8, 0, 1, 2, 255]), 1..400)) {
            let runs = runs_of(&row);
            let mut painted = vec![false; row.len()];
            for run in &runs {
                prop_assert!(run.start < run.end);
                painted[run.range()].fill(true);
            }
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(painted, row.iter().map(|&byte| byte != 0).collect::<Vec<_>>());
        }

        #[test]
        fn both_bit_packers_agree(bytes in prop::array::uniform32(any::<u8>()), sparse in any::<u64>()) {
            let mut word = [0; 64];
            for i in 0..64 {
                word[i] = if sparse >> i & 1 == 1 { bytes[i % 32] } else { 0 };
            }
            prop_assert_eq!(nonzero_bits(&word), nonzero_bits_portable(&word));
        }
    }
}
