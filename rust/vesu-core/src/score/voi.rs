//! Variation of information between the components of two masks.

use rayon::prelude::*;

use crate::volume::{Connectivity, Shape, connected_components};
use crate::{Cancel, Error, Result};

/// Voxels in a unit of parallel work.
const CHUNK: usize = 1 << 18;

/// Pairs or additions handled between two polls of the cancel token in serial loops.
const POLL: usize = 1 << 16;

/// Conditional entropies in bits; the variation of information is their sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entropies {
    /// H(prediction | label): label components that the prediction cuts.
    pub split: f64,
    /// H(label | prediction): label components that the prediction joins.
    pub merge: f64,
    /// Voxels in either foreground.
    pub union_voxels: u64,
    pub prediction_components: u32,
    pub label_components: u32,
}

/// The 26-connected components of a mask: what any number of comparisons share.
pub struct Segments {
    labels: Vec<u32>,
    count: u32,
}

impl Segments {
    pub fn of(mask: &[u8], shape: Shape, cancel: &Cancel) -> Result<Self> {
        let (labels, count) = connected_components(mask, shape, Connectivity::Corners, cancel)?;
        Ok(Self { labels, count })
    }
}

/// The entropies of the 26-connected components of `prediction` and `label` over the union of their foregrounds, the
/// background of either being one more segment there. All 0 when both are empty.
pub fn conditional_entropies(prediction: &[u8], label: &[u8], shape: Shape, cancel: &Cancel) -> Result<Entropies> {
    entropies_against(prediction, &Segments::of(label, shape, cancel)?, shape, cancel)
}

/// As [`conditional_entropies`], the label's components being known.
pub fn entropies_against(prediction: &[u8], label: &Segments, shape: Shape, cancel: &Cancel) -> Result<Entropies> {
    if prediction.len() != label.labels.len() {
        let accepted = format!("{}", label.labels.len());
        return Err(Error::argument("prediction", format!("{} voxels", prediction.len()), accepted));
    }
    let predicted = Segments::of(prediction, shape, cancel)?;
    let (prediction_components, label_components) = (predicted.count, label.count);
    let joint = joint_histogram(&predicted.labels, &label.labels, cancel)?;
    drop(predicted);
    let union_voxels = joint.iter().map(|&(_, count)| count).sum::<u64>();
    let mut shares = Vec::with_capacity(joint.len());
    let mut sizes = [vec![0.0; prediction_components as usize + 1], vec![0.0; label_components as usize + 1]];
    for &(pair, count) in &joint {
        let share = share(count, union_voxels, cancel)?;
        let (predicted, labelled) = unpack(pair);
        sizes[0][predicted] += share;
        sizes[1][labelled] += share;
        shares.push((predicted, labelled, share));
    }
    // Segment by segment, as the public scorer sums them: the order of additions is part of the number.
    let mut inner = sizes.clone().map(|sizes| vec![0.0; sizes.len()]);
    for pairs in shares.chunks(POLL) {
        cancel.check()?;
        for &(predicted, labelled, share) in pairs {
            inner[0][predicted] += x_log2_x(share * (1.0 / sizes[0][predicted]));
            inner[1][labelled] += x_log2_x(share * (1.0 / sizes[1][labelled]));
        }
    }
    let entropy = |k: usize| sizes[k].iter().zip(&inner[k]).map(|(size, inner)| size * -inner).fold(0.0, |a, b| a + b);
    let (split, merge) = (entropy(1), entropy(0));
    Ok(Entropies { split, merge, union_voxels, prediction_components, label_components })
}

/// `count / total` as the public scorer has it: 1 / total added once a voxel, in float64.
///
/// At full size those roundings add up to some 1e-11 of the entropies; the same additions give the same numbers.
fn share(count: u64, total: u64, cancel: &Cancel) -> Result<f64> {
    let one = 1.0 / total as f64;
    let mut share = 0.0;
    for done in (0..count).step_by(POLL) {
        cancel.check()?;
        for _ in done..count.min(done + POLL as u64) {
            share += one;
        }
    }
    Ok(share)
}

fn x_log2_x(x: f64) -> f64 {
    x * x.log2()
}

/// Two labels in one number, so that pairs sort as numbers do.
fn pack(predicted: u32, labelled: u32) -> u64 {
    u64::from(predicted) << 32 | u64::from(labelled)
}

fn unpack(pair: u64) -> (usize, usize) {
    ((pair >> 32) as usize, pair as u32 as usize)
}

/// How often each pair of labels occurs, both zero left out; in the order of the pairs.
fn joint_histogram(predicted: &[u32], labelled: &[u32], cancel: &Cancel) -> Result<Vec<(u64, u64)>> {
    let parts = predicted
        .par_chunks(CHUNK)
        .zip(labelled.par_chunks(CHUNK))
        .map(|(predicted, labelled)| {
            cancel.check()?;
            Ok(merged(runs_of_pairs(predicted, labelled)))
        })
        .collect::<Result<Vec<_>>>()?;
    cancel.check()?;
    Ok(merged(parts.concat()))
}

/// Pairs with the lengths of their runs.
fn runs_of_pairs(predicted: &[u32], labelled: &[u32]) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    let (mut open, mut length) = (0, 0);
    for (&predicted, &labelled) in predicted.iter().zip(labelled) {
        let pair = pack(predicted, labelled);
        if pair == open {
            length += 1;
        } else {
            if open != 0 {
                runs.push((open, length));
            }
            (open, length) = (pair, 1);
        }
    }
    if open != 0 {
        runs.push((open, length));
    }
    runs
}

fn merged(mut counts: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    counts.sort_unstable_by_key(|&(pair, _)| pair);
    counts.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 += later.1;
        }
        same
    });
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sheet_cut_in_two_is_one_bit_of_split() {
        let label = [1, 1, 1, 1, 1];
        let entropies = conditional_entropies(&[1, 1, 0, 1, 1], &label, [1, 1, 5], &Cancel::new()).unwrap();
        // Segments of 2, 2 and the gap's 1 voxel inside one label.
        let expected = 2.0 * 0.4 * 2.5f64.log2() + 0.2 * 5f64.log2();
        assert!((entropies.split - expected).abs() < 1e-14);
        assert_eq!(entropies.merge, 0.0);
        assert_eq!(entropies.union_voxels, 5);
    }

    #[test]
    fn two_empty_masks_have_no_entropy() {
        let entropies = conditional_entropies(&[0; 8], &[0; 8], [2, 2, 2], &Cancel::new()).unwrap();
        assert_eq!((entropies.split, entropies.merge, entropies.union_voxels), (0.0, 0.0, 0));
    }
}
