//! Voxels as bits: 64 bytes packed into a word, and a word spread to bytes or labels again.

/// Voxels of one word; bit i of word w of a row is its voxel 64 w + i.
pub(super) const WORD: usize = 64;

/// A word with the lowest `n` bits set; all of them for 64 and more.
#[inline(always)]
pub(super) fn low_bits(n: usize) -> u64 {
    if n >= WORD { u64::MAX } else { (1 << n) - 1 }
}

/// Bit i is set when byte i is not zero; bytes that are missing count as zero.
///
/// # Safety
/// As for [`Work::run`](super::wide::Work::run).
#[inline(always)]
pub(super) unsafe fn nonzero_bits<const WIDE: bool>(bytes: &[u8]) -> u64 {
    let mut padded = [0; WORD];
    let whole: &[u8; WORD] = match bytes.try_into() {
        Ok(whole) => whole,
        Err(_) => {
            padded[..bytes.len()].copy_from_slice(bytes);
            &padded
        }
    };
    #[cfg(target_arch = "x86_64")]
    if WIDE {
        // SAFETY: WIDE promises AVX2.
        return unsafe { x86::nonzero_bits(whole) };
    }
    pack(whole)
}

/// Eight bytes in a register: bit 7 of each tells whether it is zero, one multiplication packs them.
#[inline(always)]
fn pack(bytes: &[u8; WORD]) -> u64 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut bits = 0;
    for i in 0..8 {
        let eight = u64::from_le_bytes(std::array::from_fn(|k| bytes[8 * i + k]));
        let nonzero = ((((eight & LOW_BITS) + LOW_BITS) | eight) & !LOW_BITS) >> 7;
        bits |= (nonzero.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    bits
}

/// Bit i is set when value i is at least `threshold`; at most 64 values.
///
/// # Safety
/// As for [`Work::run`](super::wide::Work::run).
#[inline(always)]
pub(super) unsafe fn at_least<const WIDE: bool>(values: &[f32], threshold: f32) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if WIDE && let Ok(whole) = values.try_into() {
        // SAFETY: WIDE promises AVX2.
        return unsafe { x86::at_least(whole, threshold) };
    }
    values.iter().enumerate().fold(0, |bits, (i, &value)| bits | u64::from(value >= threshold) << i)
}

/// Write bit i as byte i, 0 or 1; at most 64 bytes.
///
/// # Safety
/// As for [`Work::run`](super::wide::Work::run).
#[inline(always)]
pub(super) unsafe fn spread<const WIDE: bool>(bits: u64, bytes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if WIDE && let Ok(whole) = bytes.try_into() {
        // SAFETY: WIDE promises AVX2.
        return unsafe { x86::spread(bits, whole) };
    }
    for (i, eight) in bytes.chunks_mut(8).enumerate() {
        // Byte k takes the multiplicand's bit k at its own bit 7: 8 bits, 9 places apart.
        let seven = (bits >> (8 * i) & 0x7f).wrapping_mul(0x0000_0408_1020_4081) & 0x0001_0101_0101_0101;
        let all = seven | (bits >> (8 * i + 7) & 1) << 56;
        eight.copy_from_slice(&all.to_le_bytes()[..eight.len()]);
    }
}

/// Room before and after the labels that [`spread_labels`] reads.
pub(super) const LABELS_BEFORE: usize = 1;
pub(super) const LABELS_AFTER: usize = 8;

/// Write each set bit's label, 0 for the others. The label of a bit is `labels[rank + n]`, n being the number of
/// `starts` up to and with the bit; `labels` has room for [`LABELS_AFTER`] beyond the last one needed.
///
/// # Safety
/// As for [`Work::run`](super::wide::Work::run).
#[inline(always)]
pub(super) unsafe fn spread_labels<const WIDE: bool>(
    bits: u64,
    starts: u64,
    labels: &[u32],
    rank: usize,
    voxels: &mut [u32],
) {
    let last = rank + starts.count_ones() as usize;
    let labels = &labels[rank..last + LABELS_AFTER];
    #[cfg(target_arch = "x86_64")]
    if WIDE && let Ok(whole) = voxels.try_into() {
        // SAFETY: WIDE promises AVX2; a group's window of 8 begins at most at `labels[starts]` and ends before the room's end.
        return unsafe { x86::spread_labels(bits, starts, labels, whole) };
    }
    let mut at = 0;
    for (i, voxel) in voxels.iter_mut().enumerate() {
        at += (starts >> i & 1) as usize;
        *voxel = if bits >> i & 1 == 1 { labels[at] } else { 0 };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::WORD;

    /// # Safety
    /// AVX2.
    #[inline(always)]
    pub unsafe fn nonzero_bits(bytes: &[u8; WORD]) -> u64 {
        // SAFETY: AVX2 by contract; the unaligned loads read bytes 0..32 and 32..64.
        unsafe {
            let half = |at: usize| {
                let vector = _mm256_loadu_si256(bytes.as_ptr().add(at).cast());
                let zeros = _mm256_cmpeq_epi8(vector, _mm256_setzero_si256());
                u64::from(_mm256_movemask_epi8(zeros) as u32)
            };
            !(half(0) | half(32) << 32)
        }
    }

    /// # Safety
    /// AVX2.
    #[inline(always)]
    pub unsafe fn at_least(values: &[f32; WORD], threshold: f32) -> u64 {
        let mut bits = 0;
        for i in 0..8 {
            // SAFETY: AVX2 by contract; the unaligned load reads values 8 i .. 8 i + 8 of 64.
            let eight = unsafe {
                let vector = _mm256_loadu_ps(values.as_ptr().add(8 * i));
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(vector, _mm256_set1_ps(threshold)))
            };
            bits |= u64::from(eight as u32) << (8 * i);
        }
        bits
    }

    /// # Safety
    /// AVX2.
    #[inline(always)]
    pub unsafe fn spread(bits: u64, bytes: &mut [u8; WORD]) {
        // SAFETY: AVX2 by contract; the unaligned stores write bytes 0..32 and 32..64.
        unsafe {
            // Byte k of a half gets the eight bits that its own is among, then keeps its own.
            let which = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            for half in 0..2 {
                let all = _mm256_set1_epi32((bits >> (32 * half)) as i32);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, which), own), own);
                let ones = _mm256_and_si256(set, _mm256_set1_epi8(1));
                _mm256_storeu_si256(bytes.as_mut_ptr().add(32 * half).cast(), ones);
            }
        }
    }

    /// For each byte of starts, how many of them up to and with each bit, less bit 0's.
    static PLACES: [u64; 256] = {
        let mut table = [0; 256];
        let mut starts = 0;
        while starts < 256 {
            let (mut bit, mut n) = (1, 0);
            while bit < 8 {
                n += (starts as u64 >> bit) & 1;
                table[starts] |= n << (8 * bit);
                bit += 1;
            }
            starts += 1;
        }
        table
    };

    /// # Safety
    /// AVX2; `labels` has 8 values from the number of `starts` on.
    #[inline(always)]
    pub unsafe fn spread_labels(bits: u64, starts: u64, labels: &[u32], voxels: &mut [u32; WORD]) {
        // SAFETY: AVX2 by contract. `at` is at most the number of starts, and eight labels follow it; store i writes
        // voxels 8 i .. 8 i + 8 of 64.
        unsafe {
            let own = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let mut at = 0;
            for i in 0..8 {
                let (bits, starts) = ((bits >> (8 * i)) as u8, (starts >> (8 * i)) as u8);
                let window = _mm256_loadu_si256(labels.as_ptr().add(at + usize::from(starts & 1)).cast());
                let places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(PLACES[usize::from(starts)] as i64));
                let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), own), own);
                let eight = _mm256_and_si256(_mm256_permutevar8x32_epi32(window, places), set);
                _mm256_storeu_si256(voxels.as_mut_ptr().add(8 * i).cast(), eight);
                at += starts.count_ones() as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::volume::wide::{Work, dispatch};

    /// Everything of this file on one word, on one path.
    struct All<'a> {
        bytes: &'a [u8],
        values: &'a [f32],
        bits: u64,
        starts: u64,
        labels: &'a [u32],
    }

    impl Work for All<'_> {
        type Output = (u64, u64, Vec<u8>, Vec<u32>);

        #[inline(always)]
        unsafe fn run<const WIDE: bool>(self) -> Self::Output {
            let (mut spread_bytes, mut spread_words) = (vec![9; self.bytes.len()], vec![9; self.bytes.len()]);
            // SAFETY: WIDE is handed on.
            unsafe {
                spread::<WIDE>(self.bits, &mut spread_bytes);
                spread_labels::<WIDE>(self.bits, self.starts, self.labels, 3, &mut spread_words);
                let packed = (nonzero_bits::<WIDE>(self.bytes), at_least::<WIDE>(self.values, 0.5));
                (packed.0, packed.1, spread_bytes, spread_words)
            }
        }
    }

    proptest! {
        #[test]
        fn both_paths_do_what_the_obvious_loop_does(
            bytes in prop::collection::vec(prop::sample::select(vec![0u8, 0, 1, 2, 128, 255]), 1..=WORD),
            bits in any::<u64>(),
            starts in any::<u64>(),
        ) {
            let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 4.0).collect();
            let labels: Vec<u32> = (100..200).collect();
            let work = || All { bytes: &bytes, values: &values, bits, starts, labels: &labels };
            let places = 0..bytes.len();
            let word = |set: &dyn Fn(usize) -> bool| {
                places.clone().fold(0u64, |word, i| word | u64::from(set(i)) << i)
            };
            let expected = (
                word(&|i| bytes[i] != 0),
                word(&|i| values[i] >= 0.5),
                places.clone().map(|i| (bits >> i & 1) as u8).collect::<Vec<_>>(),
                places.clone().map(|i| {
                    let rank = (starts & low_bits(i + 1)).count_ones();
                    if bits >> i & 1 == 1 { 103 + rank } else { 0 }
                }).collect::<Vec<_>>(),
            );
            prop_assert_eq!(&dispatch(work()), &expected);
            // SAFETY: the narrow path promises nothing.
            prop_assert_eq!(&unsafe { work().run::<false>() }, &expected);
        }
    }
}
