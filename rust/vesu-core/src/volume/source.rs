//! Where rows of foreground come from.

use super::bits::{WORD, at_least, low_bits, nonzero_bits};

/// Rows of a volume as bits. Row `z * ny + y` is given in pieces of whole words.
pub(super) trait Source: Sync {
    /// Whether neighbouring foreground voxels may differ, and then do not join.
    const MANY_VALUES: bool = false;

    /// Fill `words` with the row's foreground from word `first` on; bits beyond the row's end are 0.
    ///
    /// # Safety
    /// As for [`Work::run`](super::wide::Work::run).
    unsafe fn words<const WIDE: bool>(&self, row: usize, first: usize, words: &mut [u64]);

    /// Voxels of `row` that equal the voxel `step` places further along x in row `other`, foreground only, as word
    /// `word`. Asked only where there are many values.
    fn equal(&self, _row: usize, _other: usize, _step: isize, _word: usize) -> u64 {
        unreachable!("a mask's contacts follow from its bits")
    }
}

/// The voxels of a mask that are not zero.
pub(super) struct Foreground<'m> {
    pub mask: &'m [u8],
    pub row_length: usize,
}

impl Source for Foreground<'_> {
    #[inline(always)]
    unsafe fn words<const WIDE: bool>(&self, row: usize, first: usize, words: &mut [u64]) {
        let voxels = &self.mask[row * self.row_length..][..self.row_length][first * WORD..];
        for (word, bytes) in words.iter_mut().zip(voxels.chunks(WORD)) {
            // SAFETY: WIDE is handed on.
            *word = unsafe { nonzero_bits::<WIDE>(bytes) };
        }
    }
}

/// The voxels of a mask that are zero.
pub(super) struct Background<'m> {
    pub mask: &'m [u8],
    pub row_length: usize,
}

impl Source for Background<'_> {
    #[inline(always)]
    unsafe fn words<const WIDE: bool>(&self, row: usize, first: usize, words: &mut [u64]) {
        // SAFETY: WIDE is handed on.
        unsafe { Foreground { mask: self.mask, row_length: self.row_length }.words::<WIDE>(row, first, words) };
        for (word, at) in words.iter_mut().zip((first * WORD..).step_by(WORD)) {
            *word = !*word & low_bits(self.row_length - at);
        }
    }
}

/// The voxels of a probability that reach a threshold.
pub(super) struct AtLeast<'p> {
    pub probability: &'p [f32],
    pub row_length: usize,
    pub threshold: f32,
}

impl Source for AtLeast<'_> {
    #[inline(always)]
    unsafe fn words<const WIDE: bool>(&self, row: usize, first: usize, words: &mut [u64]) {
        let voxels = &self.probability[row * self.row_length..][..self.row_length][first * WORD..];
        for (word, values) in words.iter_mut().zip(voxels.chunks(WORD)) {
            // SAFETY: WIDE is handed on.
            *word = unsafe { at_least::<WIDE>(values, self.threshold) };
        }
    }
}

/// A volume of labels: 0 is background, neighbours join only if they have the same value.
pub(super) struct Labels<'l, T> {
    pub labels: &'l [T],
    pub row_length: usize,
}

impl<T: Copy + Default + PartialEq + Sync> Labels<'_, T> {
    fn row(&self, row: usize) -> &[T] {
        &self.labels[row * self.row_length..][..self.row_length]
    }
}

impl<T: Copy + Default + PartialEq + Sync> Source for Labels<'_, T> {
    const MANY_VALUES: bool = true;

    #[inline(always)]
    unsafe fn words<const WIDE: bool>(&self, row: usize, first: usize, words: &mut [u64]) {
        for (word, values) in words.iter_mut().zip(self.row(row)[first * WORD..].chunks(WORD)) {
            *word = bits_where(values, |_, value| value != T::default());
        }
    }

    #[inline(always)]
    fn equal(&self, row: usize, other: usize, step: isize, word: usize) -> u64 {
        let (mine, others, at) = (self.row(row), self.row(other), word * WORD);
        let values = &mine[at..mine.len().min(at + WORD)];
        match others.get(at.wrapping_add_signed(step)..) {
            // The whole word has partners: no check a voxel.
            Some(others) if others.len() >= values.len() => {
                bits_where(values, |i, value| value != T::default() && value == others[i])
            }
            _ => bits_where(values, |i, value| {
                value != T::default() && others.get((at + i).wrapping_add_signed(step)) == Some(&value)
            }),
        }
    }
}

#[inline(always)]
fn bits_where<T: Copy>(values: &[T], set: impl Fn(usize, T) -> bool) -> u64 {
    values.iter().enumerate().fold(0, |bits, (i, &value)| bits | u64::from(set(i, value)) << i)
}
