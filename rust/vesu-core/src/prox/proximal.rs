//! ISTA and FISTA: one proximal gradient step of every candidate, and what an iteration reports.

use std::f64::consts::LN_2;

use super::grid::Grid;
use super::state::{Memory, State};

/// A candidate whose objective exceeds this many times its start's has diverged. ISTA within its step bound never
/// increases the objective.
const DIVERGENCE: f64 = 10.0;

/// What one iteration saw, each (n_candidates,), all at the point where the gradient was taken.
#[derive(Clone, Debug)]
pub struct IterationStats {
    /// The whole objective: weighted mean logistic loss plus penalty.
    pub loss: Vec<f64>,
    /// Norm of the proximal gradient mapping (t - t_next) / learning_rate, intercept included: zero exactly at the
    /// optimum.
    pub gradient_norm: Vec<f64>,
    /// Coefficients that are not zero, without the intercept.
    pub nonzero: Vec<i64>,
}

/// Where the next gradient is taken, (n_candidates, width): the params, for FISTA extrapolated.
pub(super) fn gradient_points(state: &State, width: usize) -> Vec<f64> {
    let mut points = state.params.clone();
    if let Memory::Fista { previous, momentum } = &state.memory {
        for ((point, previous), &t) in points.chunks_exact_mut(width).zip(previous.chunks_exact(width)).zip(momentum) {
            let factor = (t - 1.0) / next_momentum(t);
            point.iter_mut().zip(previous).for_each(|(x, p)| *x += factor * (*x - p));
        }
    }
    points
}

fn next_momentum(t: f64) -> f64 {
    0.5 * (1.0 + (1.0 + 4.0 * t * t).sqrt())
}

/// Report on `points`, where the pass found `means` (n_candidates, width + 1), and mark candidates that have diverged.
/// Also returns the proximal gradient step of each point.
pub(super) fn observe(
    grid: &Grid,
    width: usize,
    state: &mut State,
    points: &[f64],
    means: &[f64],
) -> (IterationStats, Vec<f64>) {
    let n = grid.len();
    let mut stats = IterationStats {
        loss: Vec::with_capacity(n),
        gradient_norm: Vec::with_capacity(n),
        nonzero: Vec::with_capacity(n),
    };
    let mut steps = vec![0.0; n * width];
    for (candidate, next) in steps.chunks_exact_mut(width).enumerate() {
        let mean = &means[candidate * (width + 1)..][..width + 1];
        let penalty = grid.penalty(candidate);
        let point = &points[candidate * width..][..width];
        let (coef, intercept) = point.split_at(width - 1);

        let loss = mean[width] + penalty.value(coef);
        let rate = state.learning_rate[candidate];
        for (k, &t) in coef.iter().enumerate() {
            next[k] = penalty.step(t, mean[k], rate);
        }
        next[width - 1] = intercept[0] - rate * mean[width - 1];
        let squares = point.iter().zip(&*next).map(|(t, u)| ((t - u) / rate) * ((t - u) / rate)).sum::<f64>();

        stats.loss.push(loss);
        stats.gradient_norm.push(squares.sqrt());
        stats.nonzero.push(coef.iter().filter(|&&t| t != 0.0).count() as i64);

        let start = &mut state.start_loss[candidate];
        let first = start.is_nan();
        if first {
            *start = loss;
        }
        // A Newton trial may be bad: it is then taken back, so only its first point can be a lost one.
        let judged = first || !matches!(state.memory, Memory::ProxNewton { .. });
        let bounded = loss.is_finite() && loss <= DIVERGENCE * start.max(LN_2);
        if judged && (!bounded || next.iter().any(|value| !value.is_finite())) {
            state.diverged[candidate] = true;
        }
    }
    (stats, steps)
}

/// Move every candidate to its step. A diverged one stays where it last was finite: reported, frozen, excluded.
pub(super) fn advance(state: &mut State, width: usize, points: &[f64], steps: &[f64]) {
    for candidate in 0..state.diverged.len() {
        if state.diverged[candidate] {
            continue;
        }
        let row = candidate * width..(candidate + 1) * width;
        let (point, step, params) = (&points[row.clone()], &steps[row.clone()], &mut state.params[row.clone()]);
        if let Memory::Fista { previous, momentum } = &mut state.memory {
            // Restart when the step turns against the movement (O'Donoghue and Candes' gradient scheme).
            let against = (0..width).map(|k| (point[k] - step[k]) * (step[k] - params[k])).sum::<f64>() > 0.0;
            let t = &mut momentum[candidate];
            *t = if against { 0.0 } else { next_momentum(*t) };
            previous[row].copy_from_slice(if against { step } else { params });
        }
        params.copy_from_slice(step);
    }
}
