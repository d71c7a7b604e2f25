//! The largest or smallest of several rows of numbers.

use crate::features::simd::multiversion;

/// Which of two values stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Best {
    Largest,
    Smallest,
}

impl Best {
    /// What any other value beats: of voxels outside the volume.
    pub fn bottom(self) -> f32 {
        match self {
            Self::Largest => f32::NEG_INFINITY,
            Self::Smallest => f32::INFINITY,
        }
    }
}

/// `target[i]` becomes the best of all `sources[..][i]`; of equal values (zeros of either sign) the first source's.
/// There is at least one source, and all are as long as the target.
pub(super) fn join(best: Best, target: &mut [f32], sources: &[&[f32]]) {
    match best {
        Best::Largest => join_largest(target, sources),
        Best::Smallest => join_smallest(target, sources),
    }
}

multiversion! {
    fn join_largest(target: &mut [f32], sources: &[&[f32]]) {
        join_by(target, sources, |best, other| if other > best { other } else { best });
    }
}

multiversion! {
    fn join_smallest(target: &mut [f32], sources: &[&[f32]]) {
        join_by(target, sources, |best, other| if other < best { other } else { best });
    }
}

/// Values that stay in registers while the sources are gone through.
const BLOCK: usize = 32;

#[inline(always)]
fn join_by(target: &mut [f32], sources: &[&[f32]], better: impl Fn(f32, f32) -> f32) {
    let length = target.len();
    if length < BLOCK {
        for (i, target) in target.iter_mut().enumerate() {
            *target = sources[1..].iter().fold(sources[0][i], |best, source| better(best, source[i]));
        }
        return;
    }
    for start in (0..length).step_by(BLOCK) {
        let start = start.min(length - BLOCK); // the last block may overlap the one before
        let block = |source: &[f32]| -> [f32; BLOCK] { *source[start..].first_chunk().expect("as long as the target") };
        let mut best = block(sources[0]);
        for source in &sources[1..] {
            let other = block(source);
            for (best, other) in best.iter_mut().zip(other) {
                *best = better(*best, other);
            }
        }
        target[start..start + BLOCK].copy_from_slice(&best);
    }
}
