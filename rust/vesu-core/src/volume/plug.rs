//! The watertight plug: one-voxel leaks closed by a table over 2x2x2 windows.
//!
//! A surface that hangs together at edges or corners only leaks at foreground connectivity 6 (background 26). For every
//! window whose foreground is not 6-connected within the window, the table adds the voxels that join it: all voxels of
//! all smallest sets that do. Taking every smallest set and not one of them makes the table commute with flips and axis
//! permutations, and is better besides: a single set closes the leak on one side and often opens a tunnel on the other
//! (docs of the Python function have the figures).

use std::sync::LazyLock;

use rayon::prelude::*;

use super::topology::bits::Bits;
use super::{SLAB_SLICES, Shape};
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// A plugged mask.
pub struct Plug {
    /// 0 or 1.
    pub mask: Vec<u8>,
    pub n_added: u64,
    /// Passes over the volume that added something.
    pub n_passes: u32,
}

/// Add voxels until the foreground of every 2x2x2 window is 6-connected within it.
///
/// Every pass looks up all windows in the mask as the pass found it, so no order matters; passes repeat, on the rows
/// that changed, until nothing changes. Windows reach over the volume's faces, with background beyond.
pub fn plug_holes(mask: &[u8], shape: Shape, cancel: &Cancel) -> Result<Plug> {
    let mut bits = Bits::of_mask(mask, shape, cancel)?;
    let (n_added, n_passes) = plug_bits(&mut bits, cancel)?;
    Ok(Plug { mask: bits.to_mask(cancel)?, n_added, n_passes })
}

/// The same in place; returns the voxels added and the passes that added some.
pub(super) fn plug_bits(bits: &mut Bits, cancel: &Cancel) -> Result<(u64, u32)> {
    let mut changed = vec![true; bits.shape[0] * bits.shape[1]];
    let mut additions = zeroed("the plug's bits", bits.words.len())?;
    let (mut n_added, mut n_passes) = (0, 0);
    loop {
        find_additions(bits, &changed, &mut additions, cancel)?;
        let added = take_over(bits, &mut changed, &mut additions);
        if added == 0 {
            return Ok((n_added, n_passes));
        }
        n_added += added;
        n_passes += 1;
    }
}

/// What the windows that touch a changed row add. Each slab looks at all windows that reach into it and writes its own rows.
fn find_additions(bits: &Bits, changed: &[bool], additions: &mut [u64], cancel: &Cancel) -> Result<()> {
    let [_, ny, nx] = bits.shape;
    let slab_words = SLAB_SLICES * ny * bits.words_per_row;
    additions.par_chunks_mut(slab_words).enumerate().try_for_each(|(slab, additions)| {
        let first = slab * SLAB_SLICES;
        let end = first + additions.len() / (ny * bits.words_per_row);
        for z in first..=end {
            cancel.check()?;
            for y in (0..=ny).filter(|&y| any_changed(changed, bits.shape, z, y)) {
                leaking_windows(bits.four_rows(z, y), |x, code| {
                    let added = ADDITIONS[code];
                    for corner in (0..8).filter(|corner| added >> corner & 1 == 1) {
                        // The window's corners are one step before (z, y, x) or there.
                        let [z, y, x] = [z + (corner >> 2), y + (corner >> 1 & 1), x + (corner & 1)];
                        // One more than the place, so that a step before the first stays a number.
                        if z > first && z <= end && (1..=ny).contains(&y) && (1..=nx).contains(&x) {
                            let row = (z - 1 - first) * ny + y - 1;
                            additions[row * bits.words_per_row + (x - 1) / 64] |= 1 << ((x - 1) % 64);
                        }
                    }
                });
            }
        }
        Ok(())
    })
}

/// Whether any of the four rows of the windows at (z, y) has changed.
fn any_changed(changed: &[bool], [nz, ny, _]: Shape, z: usize, y: usize) -> bool {
    (z.saturating_sub(1)..(z + 1).min(nz)).any(|z| (y.saturating_sub(1)..(y + 1).min(ny)).any(|y| changed[z * ny + y]))
}

/// Move the additions into the mask and mark their rows; returns how many there are.
fn take_over(bits: &mut Bits, changed: &mut [bool], additions: &mut [u64]) -> u64 {
    let rows = bits.words.par_chunks_mut(bits.words_per_row).zip(additions.par_chunks_mut(bits.words_per_row));
    rows.zip(changed)
        .with_min_len(256)
        .map(|((words, additions), changed)| {
            let mut added = 0;
            for (word, addition) in words.iter_mut().zip(additions) {
                added += u64::from((*addition & !*word).count_ones());
                *word |= *addition;
                *addition = 0;
            }
            *changed = added > 0;
            added
        })
        .sum()
}

/// Call `found(x, code)` for every window of these four rows, with corners at x - 1 and x, that is not 6-connected.
///
/// Corner 4 z + 2 y + x of a window is bit 4 z + 2 y + x of its code.
fn leaking_windows(rows: [&[u64]; 4], mut found: impl FnMut(usize, usize)) {
    let words = rows[0].len();
    let mut carry = [0; 4];
    for i in 0..=words {
        let mut planes = [0; 8];
        for (k, row) in rows.iter().enumerate() {
            let word = row.get(i).copied().unwrap_or(0);
            planes[2 * k] = word << 1 | carry[k];
            planes[2 * k + 1] = word;
            carry[k] = word >> 63;
        }
        if planes == [0; 8] {
            continue;
        }
        let mut leaking = disconnected(&planes);
        while leaking != 0 {
            let bit = leaking.trailing_zeros() as usize;
            leaking &= leaking - 1;
            let code = (0..8).fold(0, |code, k| code | (planes[k] >> bit & 1) << k);
            found(64 * i + bit, code as usize);
        }
    }
}

/// For 64 windows at once, whether the foreground is in several pieces.
///
/// Two pieces of two corners or more can only be two opposite edges; otherwise one of the pieces is a single corner.
#[inline]
fn disconnected(p: &[u64; 8]) -> u64 {
    let all = p.iter().fold(0, |any, plane| any | plane);
    if all == 0 {
        return 0;
    }
    let mut leaking = 0;
    for k in 0..8 {
        let alone = p[k] & !(p[k ^ 1] | p[k ^ 2] | p[k ^ 4]);
        leaking |= alone & (p[k ^ 3] | p[k ^ 5] | p[k ^ 6] | p[k ^ 7]);
    }
    for (axis, sideways, other) in [(1, 2, 4), (2, 1, 4), (4, 1, 2)] {
        for start in [0, sideways] {
            let (near, far) = (start, start ^ sideways ^ other);
            let edges = p[near] & p[near ^ axis] & p[far] & p[far ^ axis];
            let between = p[near ^ sideways] | p[near ^ sideways ^ axis] | p[near ^ other] | p[near ^ other ^ axis];
            leaking |= edges & !between;
        }
    }
    leaking
}

/// For each window the voxels to add, found by search.
static ADDITIONS: LazyLock<[u8; 256]> = LazyLock::new(|| std::array::from_fn(|code| additions_of(code as u8)));

/// All corners of all smallest sets that make the window 6-connected.
fn additions_of(code: u8) -> u8 {
    let joining = || (0..=u8::MAX).filter(|&extra| extra & code == 0 && is_connected(code | extra));
    let fewest = joining().map(u8::count_ones).min().unwrap_or(0);
    joining().filter(|extra| extra.count_ones() == fewest).fold(0, |all, extra| all | extra)
}

/// Whether a window's set corners are joined by faces.
fn is_connected(code: u8) -> bool {
    let mut reached = code & code.wrapping_neg();
    loop {
        // The neighbours along x, y and z: corners whose numbers differ in bit 0, 1 and 2.
        let along_x = (reached & 0x55) << 1 | reached >> 1 & 0x55;
        let along_y = (reached & 0x33) << 2 | reached >> 2 & 0x33;
        let further = (reached | along_x | along_y | reached.rotate_left(4)) & code;
        if further == reached {
            return reached == code;
        }
        reached = further;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitwise_test_is_the_search() {
        for code in 0..=u8::MAX {
            let planes = std::array::from_fn(|k| u64::from(code >> k & 1) << 17);
            assert_eq!(disconnected(&planes) != 0, !is_connected(code), "window {code:08b}");
        }
    }

    #[test]
    fn additions_join_every_window_and_are_disjoint_from_it() {
        for code in 0..=u8::MAX {
            let added = ADDITIONS[usize::from(code)];
            assert_eq!(added & code, 0);
            assert!(is_connected(code | added));
            assert_eq!(added == 0, is_connected(code));
        }
    }

    #[test]
    fn a_set_token_stops_the_plug() {
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(plug_holes(&[1; 8], [2, 2, 2], &cancel).is_err());
    }
}
