//! The voxels of greatest probability, in a total order: the score descending, then z, y, x.
//!
//! A voxel's place in that order is one whole number, its *rank*: the inverted bits of the score above the voxel's
//! index. So the best `top_k` voxels are those of the smallest ranks, equal scores included, and no thread has a say in
//! which they are.
//!
//! One pass finds them. Whoever holds `top_k` ranks knows a limit that no later rank may exceed, and tells the others;
//! most blocks of voxels are then done with after three comparisons a voxel. Memory is a few times that of the answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::Shape;
use super::check::{outside_unit_interval, refusal, same_length};
use crate::{Cancel, Error, Result};

const CHUNK: usize = 1 << 18;

/// Voxels that are looked at together: enough for wide registers, few enough to be searched for one good voxel.
const BLOCK: usize = 256;

/// Ranks that are kept at least before the best are selected.
const MIN_KEPT: usize = 1 << 12;

/// The best voxels in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Extremes {
    /// Indices into the volume, C order.
    pub voxels: Vec<u32>,
    pub scores: Vec<f32>,
    /// How many voxels there were to choose from.
    pub qualifying: u64,
}

/// The first `top_k` voxels with `probability >= at_least` in the order of score (descending) and index (ascending).
///
/// `None` takes all of them. With `after`, the score and index of a voxel, only what comes behind it counts: so a list
/// of any length is had in pieces. Of the two zeros, -0 counts as 0.
pub fn extreme_voxels(
    probability: &[f32],
    shape: Shape,
    at_least: f32,
    top_k: Option<usize>,
    after: Option<(f32, u32)>,
    cancel: &Cancel,
) -> Result<Extremes> {
    same_length("probability", probability.len(), shape)?;
    for (name, score) in [("at_least", Some(at_least)), ("after", after.map(|(score, _)| score))] {
        if let Some(score) = score.filter(|&score| outside_unit_interval(score)) {
            return Err(Error::argument(name, score, "a score in [0, 1]"));
        }
    }
    let first = after.map_or(rank(1.0, 0), |(score, voxel)| rank(score, voxel as usize).saturating_add(1));
    let top_k = top_k.unwrap_or(usize::MAX);
    let limit = AtomicU64::new(if top_k == 0 { first } else { u64::MAX });
    let search = Search { probability, at_least, first, top_k, limit, cancel };
    let Found { mut ranks, qualifying, bad } = search.all()?;
    if bad > 0 {
        return Err(refusal("probability", probability, shape, bad, outside_unit_interval, "float32 in [0, 1]"));
    }
    keep_smallest(&mut ranks, top_k);
    ranks.par_sort_unstable();
    let voxels = ranks.iter().map(|&rank| rank as u32).collect();
    let scores = ranks.iter().map(|&rank| score(rank)).collect();
    Ok(Extremes { voxels, scores, qualifying })
}

/// The smaller, the earlier in the order. Scores lie in [0, 1], where the bits of a float grow with it.
fn rank(score: f32, voxel: usize) -> u64 {
    let without_sign_of_zero = score + 0.0;
    u64::from(!without_sign_of_zero.to_bits()) << 32 | voxel as u64
}

fn score(rank: u64) -> f32 {
    f32::from_bits(!((rank >> 32) as u32))
}

fn index(rank: u64) -> usize {
    rank as u32 as usize
}

/// What is looked for, and how far the search has come.
struct Search<'a> {
    probability: &'a [f32],
    at_least: f32,
    /// The smallest rank that counts.
    first: u64,
    /// How many are wanted.
    top_k: usize,
    /// That many lie below it: no rank from here on is among the best. Any thread may lower it.
    limit: AtomicU64,
    cancel: &'a Cancel,
}

/// What some of the voxels hold.
#[derive(Default)]
struct Found {
    /// Those that may be among the best `top_k`, in no order.
    ranks: Vec<u64>,
    qualifying: u64,
    /// How many scores are none.
    bad: usize,
}

impl Found {
    fn joined(self, other: Self) -> Self {
        let (mut ranks, few) =
            if self.ranks.len() < other.ranks.len() { (other.ranks, self.ranks) } else { (self.ranks, other.ranks) };
        ranks.extend(few);
        Self { ranks, qualifying: self.qualifying + other.qualifying, bad: self.bad + other.bad }
    }
}

impl Search<'_> {
    fn all(&self) -> Result<Found> {
        (0..self.probability.len().div_ceil(CHUNK))
            .into_par_iter()
            .try_fold(Found::default, |mut found, chunk| {
                self.cancel.check()?;
                let start = chunk * CHUNK;
                let end = (start + CHUNK).min(self.probability.len());
                // Within each part, all voxels lie on the same side of the one that the search goes on from.
                let middle = index(self.first).clamp(start, end);
                for (start, end) in [(start, middle), (middle, end)] {
                    for block in (start..end).step_by(BLOCK) {
                        self.look(block, (block + BLOCK).min(end), &mut found);
                    }
                }
                Ok(found)
            })
            .try_reduce(Found::default, |one, other| {
                let mut found = one.joined(other);
                self.thin_out(&mut found.ranks);
                Ok(found)
            })
    }

    /// Voxels start to end, all before or all from the index of `first` on.
    fn look(&self, start: usize, end: usize, found: &mut Found) {
        let limit = self.limit.load(Relaxed);
        let highest = if start < index(self.first) { below(score(self.first)) } else { score(self.first) };
        let better_from = if start < index(limit) { score(limit) } else { above(score(limit)) }.max(self.at_least);
        let (mut sound, mut qualifying, mut better) = (0, 0, 0);
        for &score in &self.probability[start..end] {
            sound += u32::from(!outside_unit_interval(score));
            qualifying += u32::from(score >= self.at_least && score <= highest);
            better += u32::from(score >= better_from && score <= highest);
        }
        found.bad += end - start - sound as usize;
        found.qualifying += u64::from(qualifying);
        if better == 0 {
            return;
        }
        for (voxel, &score) in (start..end).zip(&self.probability[start..end]) {
            if score >= self.at_least && score <= highest && rank(score, voxel) < limit {
                found.ranks.push(rank(score, voxel));
            }
        }
        if found.ranks.len() >= self.top_k.saturating_mul(2).max(MIN_KEPT) {
            self.thin_out(&mut found.ranks);
        }
    }

    /// Leave no more ranks than can be needed, and lower the limit.
    fn thin_out(&self, ranks: &mut Vec<u64>) {
        keep_smallest(ranks, self.top_k);
        if ranks.len() == self.top_k
            && let Some(&worst) = ranks.iter().max()
        {
            self.limit.fetch_min(worst + 1, Relaxed);
        }
    }
}

fn keep_smallest(ranks: &mut Vec<u64>, n: usize) {
    if n < ranks.len() {
        ranks.select_nth_unstable(n);
        ranks.truncate(n);
    }
}

/// The next smaller score; below 0 there is none, and none reaches what this gives.
fn below(score: f32) -> f32 {
    if score > 0.0 { f32::from_bits(score.to_bits() - 1) } else { -1.0 }
}

/// The next greater float: beyond 1 there is no score.
fn above(score: f32) -> f32 {
    f32::from_bits(score.to_bits() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious way: sort everything.
    fn sorted(probability: &[f32], at_least: f32) -> Vec<(f32, u32)> {
        let mut all: Vec<_> =
            (0..).zip(probability).filter(|&(_, &p)| p >= at_least).map(|(i, &p)| (p + 0.0, i)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all
    }

    fn found(extremes: &Extremes) -> Vec<(f32, u32)> {
        extremes.scores.iter().copied().zip(extremes.voxels.iter().copied()).collect()
    }

    fn volume() -> impl Strategy<Value = (Vec<f32>, Shape)> {
        // Ties of all kinds: few levels, neighbouring floats, both zeros.
        let near = (0u32..4).prop_map(|step| f32::from_bits(0x3F40_0000 + step * 0x4000));
        let score = prop_oneof![(0u8..=4).prop_map(|level| f32::from(level) / 4.0), near, Just(-0.0f32), 0f32..=1.0,];
        [1usize..6, 1usize..6, 1usize..20].prop_flat_map(move |shape| {
            (prop::collection::vec(score.clone(), shape.iter().product::<usize>()), Just(shape))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_best_are_the_first_of_all_sorted((p, shape) in volume(), at in 0usize..4, k in 0usize..700) { // R31
            let at_least = [0.0, 0.25, 0.7512, 1.0][at];
            let expected = sorted(&p, at_least);
            let ours = extreme_voxels(&p, shape, at_least, Some(k), None, &Cancel::new()).unwrap();
            prop_assert_eq!(ours.qualifying, expected.len() as u64);
            prop_assert_eq!(found(&ours), expected[..k.min(expected.len())].to_vec());
            let all = extreme_voxels(&p, shape, at_least, None, None, &Cancel::new()).unwrap();
            prop_assert_eq!(found(&all), expected);
        }

        #[test]
        fn pieces_make_the_whole((p, shape) in volume(), k in 1usize..50) { // R31
            let (mut whole, mut after) = (Vec::new(), None);
            loop {
                let piece = extreme_voxels(&p, shape, 0.0, Some(k), after, &Cancel::new()).unwrap();
                prop_assert_eq!(piece.qualifying as usize, p.len() - whole.len());
                if piece.voxels.is_empty() {
                    break;
                }
                whole.extend(found(&piece));
                after = whole.last().copied();
            }
            prop_assert_eq!(whole, sorted(&p, 0.0));
        }
    }

    #[test]
    fn ties_over_several_chunks_go_by_their_place() {
        // R31
        let shape = [3, 1 << 9, 1 << 9];
        let p = vec![1.0; 3 << 18];
        let k = (2 << 18) + 5;
        let ours = extreme_voxels(&p, shape, 0.5, Some(k), None, &Cancel::new()).unwrap();
        assert_eq!(ours.voxels, (0..k as u32).collect::<Vec<_>>());
        assert_eq!(ours.qualifying, 3 << 18);
    }

    #[test]
    fn rising_and_falling_scores_over_several_chunks() {
        // R31: every voxel is better than all before it, or none is; both fill the lists of kept ranks again and again.
        let shape = [3, 1 << 9, 1 << 9];
        let rising: Vec<f32> = (0..3u32 << 18).map(|voxel| (voxel / 3) as f32 / (1 << 18) as f32).collect();
        let falling: Vec<f32> = rising.iter().rev().copied().collect();
        for p in [&rising, &falling] {
            let expected = sorted(p, 0.25);
            for k in [1, 999, 5_000, 600_000] {
                let ours = extreme_voxels(p, shape, 0.25, Some(k), None, &Cancel::new()).unwrap();
                assert_eq!(ours.qualifying, expected.len() as u64);
                assert_eq!(found(&ours), expected[..k.min(expected.len())]);
                let (score, voxel) = expected[70_000];
                let ours = extreme_voxels(p, shape, 0.25, Some(k), Some((score, voxel)), &Cancel::new()).unwrap();
                assert_eq!(ours.qualifying, expected.len() as u64 - 70_001);
                assert_eq!(found(&ours), expected[70_001..(70_001 + k).min(expected.len())]);
            }
        }
    }

    #[test]
    fn nothing_comes_behind_the_last_voxel_of_all() {
        // R31
        for after in [(0.0, u32::MAX), (-0.0, 1)] {
            let ours = extreme_voxels(&[0.0, 0.0], [1, 1, 2], 0.0, None, Some(after), &Cancel::new()).unwrap();
            assert_eq!((ours.qualifying, ours.voxels), (0, vec![]));
        }
    }

    #[test]
    fn what_is_no_score_is_refused() {
        let (p, shape) = ([0.5, f32::NAN], [1, 1, 2]);
        let bad = |p: &[f32], at_least, after| {
            extreme_voxels(p, shape, at_least, None, after, &Cancel::new()).unwrap_err().to_string()
        };
        assert!(bad(&p, 0.0, None).contains("(z, y, x) = (0, 0, 1)"));
        assert!(bad(&[0.5; 2], 1.5, None).starts_with("at_least: got 1.5"));
        assert!(bad(&[0.5; 2], 0.5, Some((f32::NAN, 0))).starts_with("after: got NaN"));
        assert!(bad(&[0.5; 3], 0.5, None).starts_with("probability"));
    }

    #[test]
    fn a_cancelled_search_stops() {
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(extreme_voxels(&[0.5], [1, 1, 1], 0.0, None, None, &cancel), Err(Error::Cancelled)));
    }
}
