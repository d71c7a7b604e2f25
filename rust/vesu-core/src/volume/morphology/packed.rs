//! Rows of a mask as bits: voxel x is bit x % 64 of word x / 64, the bits beyond the row's end are 0.

/// Words of a row of `nx` voxels.
pub fn words_of(nx: usize) -> usize {
    nx.div_ceil(64)
}

/// The bits of a row's last word that are voxels.
pub fn tail_mask(nx: usize) -> u64 {
    u64::MAX >> ((64 - nx % 64) % 64)
}

/// Non-zero voxels become set bits.
pub fn pack_row(voxels: &[u8], words: &mut [u64]) {
    let (whole, rest) = voxels.as_chunks::<64>();
    for (word, voxels) in words.iter_mut().zip(whole) {
        *word = nonzero_bits(voxels);
    }
    if !rest.is_empty() {
        let mut padded = [0; 64];
        padded[..rest.len()].copy_from_slice(rest);
        words[whole.len()] = nonzero_bits(&padded);
    }
}

/// Bits become bytes of 0 or 1.
pub fn unpack_row(words: &[u64], voxels: &mut [u8]) {
    let (eights, rest) = voxels.as_chunks_mut::<8>();
    let spread = |i: usize| SPREAD[usize::from((words[i / 8] >> (8 * (i % 8))) as u8)];
    for (i, eight) in eights.iter_mut().enumerate() {
        *eight = spread(i);
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&spread(eights.len())[..rest.len()]);
    }
}

/// The eight bits of each byte, lowest first.
const SPREAD: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut entry = 0;
    while entry < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[entry][bit] = (entry >> bit & 1) as u8;
            bit += 1;
        }
        entry += 1;
    }
    table
};

/// Bit i is set when byte i is not zero.
#[cfg(target_arch = "x86_64")]
#[inline]
fn nonzero_bits(bytes: &[u8; 64]) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
    let mut zeros = 0;
    for (lane, sixteen) in bytes.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: SSE2 is part of every x86-64; the unaligned load reads just these 16 bytes.
        let mask =
            unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128(sixteen.as_ptr().cast()), _mm_setzero_si128())) };
        zeros |= u64::from(mask as u32) << (16 * lane);
    }
    !zeros
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn nonzero_bits(bytes: &[u8; 64]) -> u64 {
    bytes.iter().rev().fold(0, |bits, &byte| bits << 1 | u64::from(byte != 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unpacking_undoes_packing(row in prop::collection::vec(prop::sample::select(vec![0u8, 0, 1, 2, 255]), 1..300)) {
            let mut words = vec![u64::MAX; words_of(row.len())];
            pack_row(&row, &mut words);
            prop_assert_eq!(words[words.len() - 1] & !tail_mask(row.len()), 0);
            let mut voxels = vec![9; row.len()];
            unpack_row(&words, &mut voxels);
            prop_assert_eq!(voxels, row.iter().map(|&byte| u8::from(byte != 0)).collect::<Vec<_>>());
        }
    }
}
