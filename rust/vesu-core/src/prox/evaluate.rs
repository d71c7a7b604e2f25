//! Scores of every candidate on labelled samples, in one pass: cross-entropy and the counts behind a threshold scan.

use std::f64::consts::{LN_2, LOG2_E};

use super::design::Design;
use super::kernel::Scratch;
use super::lanes::Lanes;
use super::pass::{Part, check_memory, fold, for_tasks};
use super::simd::Isa;
use crate::{Cancel, Error, Result};

/// Scores of all candidates.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// (n_candidates,): mean logistic loss, no weights and no penalty.
    pub cross_entropy: Vec<f64>,
    /// (n_candidates, 2, n_thresholds): samples of class 0 and of class 1 whose probability reaches the threshold.
    pub reached: Vec<u64>,
}

/// What an evaluation adds up.
#[derive(Clone, Debug)]
pub struct EvaluationSums {
    /// (n_candidates,) of each task that is held: base-2 loss.
    pub loss: Vec<Vec<f64>>,
    /// As in [`Evaluation`], of all samples that are held.
    pub reached: Vec<u64>,
}

/// Evaluate `params` (n_candidates, n_coefficients + 1) at ascending `thresholds`.
pub fn evaluate(design: &Design, params: &[f64], thresholds: &[f32], isa: Isa, cancel: &Cancel) -> Result<Evaluation> {
    let sums = evaluation_sums(design, params, thresholds, isa, cancel)?;
    let cross_entropy = cross_entropy_of(&fold(sums.loss), design.n_samples());
    Ok(Evaluation { cross_entropy, reached: sums.reached })
}

/// Mean logistic loss of each candidate from the sum of all tasks' base-2 losses.
pub fn cross_entropy_of(loss: &[f64], n_samples: usize) -> Vec<f64> {
    loss.iter().map(|loss| LN_2 * loss / n_samples as f64).collect()
}

/// The sums behind [`evaluate`], which go together with those of the samples that other processes hold.
pub fn evaluation_sums(
    design: &Design,
    params: &[f64],
    thresholds: &[f32],
    isa: Isa,
    cancel: &Cancel,
) -> Result<EvaluationSums> {
    if design.labels().is_none() {
        return Err(Error::argument("y", "no labels", "labels 0 and 1"));
    }
    let width = design.n_coefficients() + 1;
    check_params(params, width)?;
    if thresholds.is_empty() || !thresholds.is_sorted_by(|a, b| a < b) {
        return Err(Error::argument("thresholds", format!("{thresholds:?}"), "ascending numbers, at least one"));
    }
    let n = params.len() / width;
    let lanes = Lanes::new(isa, n, n);
    let bins = thresholds.len() + 1;
    let per_candidate = (width + 2 * bins).checked_add(super::kernel::block_len(width));
    check_memory("the evaluation's working memory", per_candidate.and_then(|c| c.checked_mul(8 * lanes.padded())))?;
    let weights = lanes.pack(params, width, LOG2_E);
    let partial = for_tasks(design.held(), width, Part::ALL, |task| {
        let mut scratch = Scratch::new(&lanes, width);
        let mut loss = vec![0.0; lanes.padded()];
        let mut histogram = vec![0u64; n * 2 * bins];
        for block in task.blocks(cancel) {
            let (first, len) = block?;
            design.fill_rows(first, len, &mut scratch.rows);
            lanes.run(&weights, len, &mut scratch, &mut loss);
            let labels = design.labels_of(first, len).unwrap_or_default();
            for (candidate, counts) in histogram.chunks_exact_mut(2 * bins).enumerate() {
                let (at, step) = lanes.position(candidate, scratch.block);
                for (i, &label) in labels.iter().enumerate() {
                    // The residual is the probability of the wrong class.
                    let wrong = scratch.residuals[at + i * step];
                    let probability = if label == 1 { 1.0 - wrong } else { wrong };
                    let bin = thresholds.partition_point(|&threshold| threshold <= probability);
                    counts[usize::from(label) * bins + bin] += 1;
                }
            }
        }
        loss.truncate(n); // behind the candidates' lanes are empty ones
        Ok((loss, histogram))
    })?;
    let (loss, histograms): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
    Ok(EvaluationSums { loss, reached: reached(histograms, n * 2 * bins, bins) })
}

/// Samples at or above each threshold, from the histograms between thresholds.
fn reached(histograms: Vec<Vec<u64>>, len: usize, bins: usize) -> Vec<u64> {
    let mut total = vec![0u64; len];
    for histogram in &histograms {
        total.iter_mut().zip(histogram).for_each(|(t, h)| *t += h);
    }
    total
        .chunks_exact(bins)
        .flat_map(|counts| {
            let mut above = counts.iter().sum::<u64>();
            counts[..bins - 1]
                .iter()
                .map(|below| {
                    above -= below;
                    above
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

pub(super) fn check_params(params: &[f64], width: usize) -> Result<()> {
    if params.is_empty() || !params.len().is_multiple_of(width) {
        let accepted = format!("n_candidates x {width}: the coefficients and the intercept");
        return Err(Error::argument("params", format!("{} values", params.len()), accepted));
    }
    if params.iter().any(|value| !value.is_finite()) {
        return Err(Error::argument("params", "NaN or infinite values", "finite values"));
    }
    Ok(())
}
