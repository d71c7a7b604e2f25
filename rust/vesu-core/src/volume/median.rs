//! Median of 3x3x3 neighbourhoods, the volume's outermost voxels repeated beyond its faces.
//!
//! Masks: 64 voxels a word, neighbours counted by adders on bit planes. Numbers: min/max networks, one voxel a lane.

use rayon::prelude::*;

use super::check::same_length;
use super::morphology::packed::{pack_row, unpack_row, words_of};
use super::{SLAB_SLICES, Shape};
use crate::features::simd::multiversion;
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// 1 where at least 14 of the 27 voxels around are foreground.
pub fn median_mask(mask: &[u8], shape: Shape, cancel: &Cancel) -> Result<Vec<u8>> {
    same_length("volume", mask.len(), shape)?;
    let slice_length = shape[1] * shape[2];
    let mut median = zeroed("the median mask", mask.len())?;
    median.par_chunks_mut(SLAB_SLICES * slice_length).enumerate().try_for_each(|(slab, out)| {
        let first = slab * SLAB_SLICES;
        let mut sums = [SliceSums::new(shape)?, SliceSums::new(shape)?, SliceSums::new(shape)?];
        let slice = |z: usize| &mask[z * slice_length..][..slice_length];
        sums[0].fill(slice(first.saturating_sub(1)), shape, cancel)?;
        sums[1].fill(slice(first), shape, cancel)?;
        for (i, out) in out.chunks_exact_mut(slice_length).enumerate() {
            sums[2].fill(slice((first + i + 1).min(shape[0] - 1)), shape, cancel)?;
            write_majority(out, &sums, shape, cancel)?;
            sums.rotate_left(1);
        }
        Ok(())
    })?;
    Ok(median)
}

/// For each voxel of one slice, the foreground among its nine neighbours in the slice (itself included), as a binary
/// number whose digits stand in four planes of packed rows.
struct SliceSums {
    /// Of the three voxels in x: the digits 1 and 2.
    row_sums: [Vec<u64>; 2],
    digits: [Vec<u64>; 4],
    row: Vec<u64>,
}

impl SliceSums {
    fn new([_, ny, nx]: Shape) -> Result<Self> {
        let words = words_of(nx);
        let plane = || zeroed("the median's bit planes", ny * words);
        Ok(Self {
            row_sums: [plane()?, plane()?],
            digits: [plane()?, plane()?, plane()?, plane()?],
            row: zeroed("a packed row", words)?,
        })
    }

    fn fill(&mut self, slice: &[u8], [_, ny, nx]: Shape, cancel: &Cancel) -> Result<()> {
        let words = words_of(nx);
        for (y, voxels) in slice.chunks_exact(nx).enumerate() {
            cancel.check()?;
            pack_row(voxels, &mut self.row);
            let at = y * words..(y + 1) * words;
            let [ones, twos] = &mut self.row_sums;
            add_neighbours(&self.row, nx, &mut ones[at.clone()], &mut twos[at]);
        }
        let [ones, twos] = &self.row_sums;
        let [d1, d2, d4, d8] = &mut self.digits;
        for y in 0..ny {
            let row = |plane: &'_ Vec<u64>, y: usize, word: usize| plane[y * words + word];
            let (above, below) = (y.saturating_sub(1), (y + 1).min(ny - 1));
            for word in 0..words {
                let (sum, carry) = add3(row(ones, above, word), row(ones, y, word), row(ones, below, word));
                let (two, four) = add3(row(twos, above, word), row(twos, y, word), row(twos, below, word));
                let at = y * words + word;
                (d1[at], d2[at]) = (sum, two ^ carry);
                let carry = two & carry;
                (d4[at], d8[at]) = (four ^ carry, four & carry);
            }
        }
        Ok(())
    }
}

/// Sum and carry of three bits, 64 times.
#[inline(always)]
fn add3(a: u64, b: u64, c: u64) -> (u64, u64) {
    let either = a ^ b;
    (either ^ c, (a & b) | (either & c))
}

/// Digits of the sum of each voxel and its two neighbours in x, the row's end voxels repeated.
fn add_neighbours(row: &[u64], nx: usize, ones: &mut [u64], twos: &mut [u64]) {
    let last = row.len() - 1;
    let end = (nx - 1) % 64; // place of the row's last voxel in the last word
    for i in 0..row.len() {
        let word = row[i];
        let before = if i == 0 { word & 1 } else { row[i - 1] >> 63 };
        let after = if i == last { (word >> end & 1) << end } else { row[i + 1] << 63 };
        (ones[i], twos[i]) = add3(word << 1 | before, word, word >> 1 | after);
    }
}

/// Write the rows of the slice in the middle of three.
fn write_majority(out: &mut [u8], sums: &[SliceSums; 3], [_, _, nx]: Shape, cancel: &Cancel) -> Result<()> {
    let words = words_of(nx);
    let mut packed = zeroed("a packed row", words)?;
    for (y, out) in out.chunks_exact_mut(nx).enumerate() {
        cancel.check()?;
        for word in 0..words {
            let at = y * words + word;
            let digit = |d: usize| add3(sums[0].digits[d][at], sums[1].digits[d][at], sums[2].digits[d][at]);
            packed[word] = at_least_14([digit(0), digit(1), digit(2), digit(3)]);
        }
        unpack_row(&packed, out);
    }
    Ok(())
}

/// Whether sum + 2 carry, with digit d weighing 2^d, is 14 or more.
#[inline(always)]
fn at_least_14(columns: [(u64, u64); 4]) -> u64 {
    let [(d1, c2), (s2, c4), (s4, c8), (s8, c16)] = columns;
    let _ = d1; // 14 is even: the last digit decides nothing
    let (d2, carry4) = (s2 ^ c2, s2 & c2);
    let (d4, carry8) = add3(s4, c4, carry4);
    let (d8, carry16) = add3(s8, c8, carry8);
    c16 | carry16 | (d8 & d4 & d2)
}

/// Columns that are worked on at a time.
const TILE: usize = 512;

/// Voxels in lockstep: one vector of AVX2.
const LANES: usize = 8;

/// A tile's columns with one more at either side, in whole groups of lanes.
const PADDED: usize = TILE + 2 * LANES;

/// The values of several voxels, one network step for all.
type Lanes = [f32; LANES];

/// The nine values of each column (3 in z by 3 in y), sorted: row i holds the i-th smallest.
type Columns = [[f32; PADDED]; 9];

/// Median of the 27 values around each voxel. NaN is refused; infinities are values like others.
pub fn median(volume: &[f32], shape: Shape, cancel: &Cancel) -> Result<Vec<f32>> {
    same_length("volume", volume.len(), shape)?;
    super::morphology::refuse_nan(volume, shape, cancel)?;
    let [nz, ny, nx] = shape;
    let mut median = zeroed("the median volume", volume.len())?;
    median.par_chunks_mut(SLAB_SLICES * ny * nx).enumerate().try_for_each(|(slab, out)| {
        let mut columns: Columns = [[0.0; PADDED]; 9];
        for (i, out) in out.chunks_exact_mut(nx).enumerate() {
            let (z, y) = (slab * SLAB_SLICES + i / ny, i % ny);
            let row = |z: usize, y: usize| &volume[(z * ny + y) * nx..][..nx];
            let clamped = |at: usize, step: usize, end: usize| (at + step).saturating_sub(1).min(end - 1);
            for (tile, out) in out.chunks_mut(TILE).enumerate() {
                cancel.check()?;
                for (k, column) in columns.iter_mut().enumerate() {
                    load(column, row(clamped(z, k / 3, nz), clamped(y, k % 3, ny)), tile * TILE, out.len());
                }
                sort_columns(&mut columns, out.len() + 2);
                medians(out, &columns);
            }
        }
        Ok(())
    })?;
    Ok(median)
}

/// `width` values from `first`, and one more at either side, repeated where the row ends.
fn load(column: &mut [f32; PADDED], row: &[f32], first: usize, width: usize) {
    column[0] = row[first.saturating_sub(1)];
    column[1..=width].copy_from_slice(&row[first..first + width]);
    column[width + 1] = row[(first + width).min(row.len() - 1)];
}

#[inline(always)]
fn smaller(a: Lanes, b: Lanes) -> Lanes {
    let mut least = a;
    for i in 0..LANES {
        least[i] = if a[i] < b[i] { a[i] } else { b[i] };
    }
    least
}

/// Of equal values the one that [`smaller`] does not take: a pair stays a pair, also of zeros of two signs.
#[inline(always)]
fn larger(a: Lanes, b: Lanes) -> Lanes {
    let mut most = a;
    for i in 0..LANES {
        most[i] = if a[i] < b[i] { b[i] } else { a[i] };
    }
    most
}

/// The nine values of the columns from `at` on.
#[inline(always)]
fn nine(columns: &Columns, at: usize) -> [Lanes; 9] {
    let mut values = [[0.0; LANES]; 9];
    for k in 0..9 {
        values[k].copy_from_slice(&columns[k][at..at + LANES]);
    }
    values
}

/// Put each named pair of `values` in order.
macro_rules! in_order {
    ($values:ident: $($a:literal $b:literal),*) => {
        $( ($values[$a], $values[$b]) =
            (smaller($values[$a], $values[$b]), larger($values[$a], $values[$b])); )*
    };
}

/// Sort nine values, by 25 exchanges (the fewest known).
#[inline(always)]
fn sort9(mut v: [Lanes; 9]) -> [Lanes; 9] {
    in_order!(v: 0 3, 1 7, 2 5, 4 8);
    in_order!(v: 0 7, 2 4, 3 8, 5 6);
    in_order!(v: 0 2, 1 3, 4 5, 7 8);
    in_order!(v: 1 4, 3 6, 5 7);
    in_order!(v: 0 1, 2 4, 3 5, 6 8);
    in_order!(v: 2 3, 4 5, 6 7);
    in_order!(v: 1 2, 3 4, 5 6);
    v
}

multiversion! {
    /// Sort the nine values of the first `width` columns.
    fn sort_columns(columns: &mut Columns, width: usize) {
        for at in (0..width).step_by(LANES) {
            let sorted = sort9(nine(columns, at));
            for k in 0..9 {
                columns[k][at..at + LANES].copy_from_slice(&sorted[k]);
            }
        }
    }
}

multiversion! {
    /// The medians of three neighbouring sorted columns each.
    fn medians(out: &mut [f32], columns: &Columns) {
        for (group, out) in out.chunks_mut(LANES).enumerate() {
            let at = group * LANES;
            let median = median27(nine(columns, at), nine(columns, at + 1), nine(columns, at + 2));
            out.copy_from_slice(&median[..out.len()]);
        }
    }
}

/// The 14th of 27 values that come as three sorted columns.
///
/// Sort the three values of each rank among themselves: the smallest, the middle and the largest ones are then sorted
/// by rank too. At least (i + 1) * (j + 1) values are not above the j-th of rank i (both from 0), and (9 - i) * (3 - j)
/// not below it; where either is over 14 the value cannot be the median. What is left are four smallest, five middle
/// and four largest values, and the median is the seventh of these thirteen.
#[inline(always)]
fn median27(a: [Lanes; 9], b: [Lanes; 9], c: [Lanes; 9]) -> Lanes {
    let smallest = |i: usize| smaller(smaller(a[i], b[i]), c[i]);
    let largest = |i: usize| larger(larger(a[i], b[i]), c[i]);
    let middle = |i: usize| larger(smaller(a[i], b[i]), smaller(larger(a[i], b[i]), c[i]));
    // Merge the fours, each of which is sorted (odd-even merge).
    let mut v = [largest(0), largest(1), largest(2), largest(3), smallest(5), smallest(6), smallest(7), smallest(8)];
    in_order!(v: 0 4, 1 5, 2 6, 3 7);
    in_order!(v: 2 4, 3 5);
    in_order!(v: 1 2, 3 4, 5 6);
    // The seventh of two sorted lists: the smallest of all maxima of the i-th of one and the (7 - i)-th of the other.
    let m = [middle(2), middle(3), middle(4), middle(5), middle(6)];
    let low = smaller(smaller(v[6], larger(v[5], m[0])), larger(v[4], m[1]));
    let high = smaller(smaller(larger(v[3], m[2]), larger(v[2], m[3])), larger(v[1], m[4]));
    smaller(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network of minima and maxima that is right on all zeros and ones is right on all numbers.
    #[test]
    fn nine_zeros_and_ones_are_sorted() {
        for bits in 0..512u32 {
            let sorted = sort9(std::array::from_fn(|i| [(bits >> i & 1) as f32; LANES]));
            for (i, value) in sorted.iter().enumerate() {
                assert_eq!(value[0] == 1.0, i >= 9 - bits.count_ones() as usize);
            }
        }
    }

    #[test]
    fn any_three_sorted_columns_of_zeros_and_ones_give_the_median() {
        let column = |ones: usize| -> [Lanes; 9] { std::array::from_fn(|i| [f32::from(i >= 9 - ones); LANES]) };
        for code in 0..1000 {
            let ones = [code / 100, code / 10 % 10, code % 10];
            let [a, b, c] = ones.map(column);
            let median = median27(a, b, c);
            assert_eq!(median, [f32::from(ones.iter().sum::<usize>() >= 14); LANES], "{ones:?}");
        }
    }

    #[test]
    fn fourteen_of_twenty_seven_is_a_majority() {
        for sums in (0..1000).map(|code| [code / 100, code / 10 % 10, code % 10]) {
            let digit = |d: usize| {
                let bit = |sum: usize| (sum >> d & 1) as u64;
                add3(bit(sums[0]), bit(sums[1]), bit(sums[2]))
            };
            let majority = at_least_14([digit(0), digit(1), digit(2), digit(3)]);
            assert_eq!(majority == 1, sums.iter().sum::<usize>() >= 14, "{sums:?}");
        }
    }
}
