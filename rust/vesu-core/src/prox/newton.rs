//! Proximal Newton on every candidate at once: one pass over the samples judges all trials and gives the gradients of the
//! next ones; Hessians come from a subsample.

use rayon::prelude::*;

use super::grid::Grid;
use super::hessian::Curvature;
use super::penalty::ElasticNet;
use super::quadratic::minimise;
use crate::{Cancel, Result};

/// Share of the foretold decrease that a trial must bring (Lee, Sun and Saunders 2014)...
const SUFFICIENT: f64 = 1e-4;
/// ...or a rise, relative to the objective, that is the noise of a float32 pass and no reason to step back.
const NOISE: f64 = 1e-7;
/// Bounds of the factor by which a rejected step shrinks.
const SHRINK: (f64, f64) = (0.01, 0.5);
/// Damping after a first rejection; each further one makes it four times larger, each acceptance four times smaller.
const FIRST_DAMPING: f64 = 1e-3;
/// A Hessian that is good enough makes the foretold decrease fall at least so fast from one trial to the next.
const CONTRACTION: f64 = 0.1;

/// One candidate between two passes.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// What the next pass judges.
    pub params: Vec<f64>,
    /// The last accepted params, and the objective there; NaN before the first pass.
    pub previous: Vec<f64>,
    pub previous_loss: f64,
    /// Decrease that the model foretells, <= 0.
    pub decrease: f64,
    pub damping: f64,
    /// How often the Hessian's subsample was doubled, because too small a one overshoots: heavy-tailed columns have
    /// directions whose curvature comes from a few samples.
    pub doublings: f64,
}

impl Trial {
    pub fn new(params: Vec<f64>) -> Self {
        Self { previous: params.clone(), params, previous_loss: f64::NAN, decrease: 0.0, damping: 0.0, doublings: 0.0 }
    }

    fn is_rejected(&self, loss: f64) -> bool {
        let bound = self.previous_loss + SUFFICIENT * self.decrease + NOISE * self.previous_loss.abs();
        !self.previous_loss.is_nan() && (loss.is_nan() || loss > bound)
    }

    /// Step back to the minimum of the parabola through what is known, and make the next Hessian a better one.
    fn step_back(&mut self, loss: f64) {
        let factor = -self.decrease / (2.0 * (loss - self.previous_loss - self.decrease));
        let factor = if factor.is_finite() { factor.clamp(SHRINK.0, SHRINK.1) } else { SHRINK.0 };
        for (param, previous) in self.params.iter_mut().zip(&self.previous) {
            *param = previous + factor * (*param - previous);
        }
        self.decrease *= factor;
        self.damping = (4.0 * self.damping).max(FIRST_DAMPING);
        self.doublings += 1.0;
    }

    fn accept(&mut self, loss: f64) {
        self.damping = if self.damping > FIRST_DAMPING { 0.25 * self.damping } else { 0.0 };
        self.previous.copy_from_slice(&self.params);
        self.previous_loss = loss;
    }

    /// Go to `next`, unless the model has nothing to offer.
    fn propose(&mut self, next: Vec<f64>, gradient: &[f64], penalty: ElasticNet) {
        let free = next.len() - 1;
        let slope: f64 = (0..=free).map(|k| gradient[k] * (next[k] - self.params[k])).sum();
        let decrease = slope + penalty.value(&next[..free]) - penalty.value(&self.params[..free]);
        if self.decrease < 0.0 && decrease < CONTRACTION * self.decrease {
            self.doublings += 1.0;
        }
        self.decrease = 0.0;
        if decrease < 0.0 && decrease.is_finite() && next.iter().all(|value| value.is_finite()) {
            (self.params, self.decrease) = (next, decrease);
        }
    }
}

/// Judge each trial that is not frozen by its `means` (gradient, loss), of rows `width + 1` long, and make the next.
pub(super) fn advance(
    trials: &mut [Trial],
    frozen: &[bool],
    means: &[f64],
    grid: &Grid,
    curvature: &Curvature,
    cancel: &Cancel,
) -> Result<()> {
    let n_rows = means.len() / trials.len();
    let work = trials.par_iter_mut().zip(means.par_chunks_exact(n_rows)).enumerate();
    work.filter(|(candidate, _)| !frozen[*candidate]).try_for_each(|(candidate, (trial, mean))| {
        let penalty = grid.penalty(candidate);
        let (gradient, width) = (&mean[..n_rows - 1], n_rows - 1);
        let loss = mean[width] + penalty.value(&trial.params[..width - 1]);
        if trial.is_rejected(loss) {
            trial.step_back(loss);
            return Ok(());
        }
        trial.accept(loss);
        let hessian = curvature.hessian(grid.neuron(candidate), &trial.params, cancel)?;
        let next = minimise(hessian, gradient, &trial.params, penalty, trial.damping, cancel)?;
        trial.propose(next, gradient, penalty);
        Ok(())
    })
}
