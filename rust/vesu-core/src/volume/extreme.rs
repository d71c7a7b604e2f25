//! The voxels of greatest probability, in a total order: the score descending, then z, y, x.
//!
//! A voxel's place in that order is one whole number, its *rank*: the inverted bits of the score above the voxel's
//! index. So the best `top_k` voxels are those of the smallest ranks, equal scores included, and no thread has a say in
//! which they are. They are found by counting, never by sorting the volume: memory is that of the answer.

use rayon::prelude::*;

use super::Shape;
use super::check::{outside_unit_interval, same_length, unit_interval};
use crate::{Cancel, Error, Result};

const CHUNK: usize = 1 << 18;

/// What is above a rank's lower 48 bits for the score 1, the smallest that there is.
const FIRST_COARSE: u64 = (!1f32.to_bits() >> 16) as u64;
const COARSE: usize = (1 << 16) - FIRST_COARSE as usize;
const FINE: usize = 1 << 16;

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
    unit_interval("probability", probability, shape, cancel)?;
    let first = after.map_or(0, |(score, voxel)| rank(score, voxel as usize) + 1);
    let all = Ranks { probability, at_least, first, cancel };
    let coarse = all.counts(COARSE, |rank| Some(coarse_bin(rank)))?;
    let qualifying = coarse.iter().sum();
    let last = match top_k {
        Some(0) => None,
        Some(k) if (k as u64) < qualifying => Some(all.nth(k as u64, &coarse)?),
        _ => Some(u64::MAX),
    };
    let ranks = last.map_or(Ok(Vec::new()), |last| all.up_to(last))?;
    let voxels = ranks.iter().map(|&rank| rank as u32).collect();
    let scores = ranks.iter().map(|&rank| f32::from_bits(!((rank >> 32) as u32))).collect();
    Ok(Extremes { voxels, scores, qualifying })
}

/// The smaller, the earlier in the order. Scores lie in [0, 1], where the bits of a float grow with it.
fn rank(score: f32, voxel: usize) -> u64 {
    let without_sign_of_zero = score + 0.0;
    u64::from(!without_sign_of_zero.to_bits()) << 32 | voxel as u64
}

fn coarse_bin(rank: u64) -> usize {
    ((rank >> 48) - FIRST_COARSE) as usize
}

/// The ranks of a volume's voxels that count.
struct Ranks<'a> {
    probability: &'a [f32],
    at_least: f32,
    /// The smallest rank that counts.
    first: u64,
    cancel: &'a Cancel,
}

impl Ranks<'_> {
    fn n_chunks(&self) -> usize {
        self.probability.len().div_ceil(CHUNK)
    }

    /// In the order of the voxels.
    fn of_chunk(&self, chunk: usize) -> impl Iterator<Item = u64> {
        let start = chunk * CHUNK;
        let end = (start + CHUNK).min(self.probability.len());
        let reached = (start..end).zip(&self.probability[start..end]).filter(|&(_, &score)| score >= self.at_least);
        reached.map(|(voxel, &score)| rank(score, voxel)).filter(|&rank| rank >= self.first)
    }

    /// How many ranks fall into each bin.
    fn counts(&self, bins: usize, bin: impl Fn(u64) -> Option<usize> + Sync) -> Result<Vec<u64>> {
        (0..self.n_chunks())
            .into_par_iter()
            .try_fold(
                || vec![0u64; bins],
                |mut counts, chunk| {
                    self.cancel.check()?;
                    self.of_chunk(chunk).filter_map(&bin).for_each(|bin| counts[bin] += 1);
                    Ok(counts)
                },
            )
            // Whole numbers: the order of the additions does not matter.
            .try_reduce(
                || vec![0u64; bins],
                |mut sum, counts| {
                    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                    Ok(sum)
                },
            )
    }

    /// The n-th smallest rank, n from 1 on; `coarse` are the counts of [`coarse_bin`].
    ///
    /// First the upper half of the score, then the lower half, then the voxel among those of that very score.
    fn nth(&self, n: u64, coarse: &[u64]) -> Result<u64> {
        let (upper, n) = find(coarse, n);
        let fine = self.counts(FINE, |rank| (coarse_bin(rank) == upper).then_some((rank >> 32) as usize % FINE))?;
        let (lower, n) = find(&fine, n);
        let score = (upper as u64 + FIRST_COARSE) << 16 | lower as u64;
        let ties = (0..self.n_chunks())
            .into_par_iter()
            .map(|chunk| {
                self.cancel.check()?;
                Ok(self.of_chunk(chunk).filter(|rank| rank >> 32 == score).count() as u64)
            })
            .collect::<Result<Vec<u64>>>()?;
        let (chunk, n) = find(&ties, n);
        let found = self.of_chunk(chunk).filter(|rank| rank >> 32 == score).nth(n as usize - 1);
        Ok(found.unwrap_or(u64::MAX)) // counted just now, so it is there
    }

    /// The ranks up to `last`, sorted.
    fn up_to(&self, last: u64) -> Result<Vec<u64>> {
        let chunks = (0..self.n_chunks())
            .into_par_iter()
            .map(|chunk| {
                self.cancel.check()?;
                Ok(self.of_chunk(chunk).filter(|&rank| rank <= last).collect())
            })
            .collect::<Result<Vec<Vec<u64>>>>()?;
        let mut ranks = chunks.concat();
        ranks.par_sort_unstable();
        Ok(ranks)
    }
}

/// The bin that holds the n-th item, n from 1 on, and which of the bin's it is.
fn find(counts: &[u64], mut n: u64) -> (usize, u64) {
    for (bin, &count) in counts.iter().enumerate() {
        if n <= count {
            return (bin, n);
        }
        n -= count;
    }
    (counts.len() - 1, n)
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
