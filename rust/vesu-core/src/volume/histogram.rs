//! Histograms of probabilities by label: all that a threshold scan needs.

use rayon::prelude::*;

use super::Shape;
use super::check::{outside_unit_interval, refusal, same_length};
use crate::{Cancel, Error, Result};

/// Label values 0 (background), 1 (surface) and 2 (unlabelled).
pub const CLASSES: usize = 3;

pub const MAX_BINS: usize = 1 << 16;

const CHUNK: usize = 1 << 18;

/// Counts of `probability` in `bins` equal bins of [0, 1), and one more for exactly 1, for each label value.
///
/// `bins` is a power of two, so `p * bins` is exact and bin k holds just the voxels with k / bins <= p < (k + 1) / bins:
/// the sum from bin k on is the number of voxels with p >= k / bins. Entry `class * (bins + 1) + k` is bin k of `class`;
/// without a label everything counts as class 0.
pub fn probability_histogram(
    probability: &[f32],
    label: Option<&[u8]>,
    shape: Shape,
    bins: usize,
    cancel: &Cancel,
) -> Result<Vec<u64>> {
    same_length("probability", probability.len(), shape)?;
    if !(bins.is_power_of_two() && bins <= MAX_BINS) {
        return Err(Error::argument("n_bins", bins, format!("a power of two, 1 to {MAX_BINS}")));
    }
    if let Some(label) = label {
        same_length("label", label.len(), shape)?;
    }
    let chunks = probability.len().div_ceil(CHUNK);
    let total = (0..chunks)
        .into_par_iter()
        .map(|chunk| {
            cancel.check()?;
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(probability.len());
            Ok(Counts::of(&probability[range.clone()], label.map(|label| &label[range]), bins))
        })
        // Whole numbers: the order of the additions does not matter.
        .try_reduce(|| Counts::empty(bins), |a, b| Ok(a.plus(&b)))?;
    if total.bad_probabilities > 0 {
        let count = total.bad_probabilities;
        return Err(refusal("probability", probability, shape, count, outside_unit_interval, "float32 in [0, 1]"));
    }
    if let (Some(label), 1..) = (label, total.bad_labels) {
        let accepted = "0 (background), 1 (surface) or 2 (unlabelled)";
        return Err(refusal("label", label, shape, total.bad_labels, unknown_label, accepted));
    }
    Ok(total.counts)
}

fn unknown_label(value: u8) -> bool {
    usize::from(value) >= CLASSES
}

struct Counts {
    counts: Vec<u64>,
    bad_probabilities: usize,
    bad_labels: usize,
}

impl Counts {
    fn empty(bins: usize) -> Self {
        Self { counts: vec![0; CLASSES * (bins + 1)], bad_probabilities: 0, bad_labels: 0 }
    }

    fn of(probability: &[f32], label: Option<&[u8]>, bins: usize) -> Self {
        let mut counts = Self::empty(bins);
        let scale = bins as f32;
        let mut count = |p: f32, class: u8| {
            if outside_unit_interval(p) {
                counts.bad_probabilities += 1;
            } else if unknown_label(class) {
                counts.bad_labels += 1;
            } else {
                counts.counts[usize::from(class) * (bins + 1) + (p * scale) as usize] += 1;
            }
        };
        match label {
            Some(label) => probability.iter().zip(label).for_each(|(&p, &class)| count(p, class)),
            None => probability.iter().for_each(|&p| count(p, 0)),
        }
        counts
    }

    fn plus(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.bad_probabilities += other.bad_probabilities;
        self.bad_labels += other.bad_labels;
        self
    }
}
