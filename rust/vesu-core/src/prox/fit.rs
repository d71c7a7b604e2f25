//! The solver: ISTA on every candidate of a grid at once, one fused pass over the samples an iteration.

use std::f64::consts::LN_2;

use super::bootstrap::{Bootstrap, initial_coefficients};
use super::design::Design;
use super::grid::Grid;
use super::objective::Objective;
use super::pass::Part;
use super::simd::Isa;
use crate::{Cancel, Error, Result};

/// A candidate whose objective exceeds this many times its start's has diverged. ISTA within its step bound never
/// increases the objective.
const DIVERGENCE: f64 = 10.0;

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub learning_rate: f64,
    pub seed: u64,
    /// Standard deviation of the initial coefficients.
    pub init_scale: f64,
    /// Poisson(1) weights for each meta-neuron; without, every neuron sees the samples once each.
    pub bootstrap: bool,
    /// Loss factor of class 0 and class 1.
    pub class_weight: [f64; 2],
}

impl Settings {
    fn check(&self) -> Result<()> {
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(Error::argument("learning_rate", self.learning_rate, "a finite number above 0"));
        }
        if !(self.init_scale.is_finite() && self.init_scale >= 0.0) {
            return Err(Error::argument("init_scale", self.init_scale, "a finite number >= 0"));
        }
        if self.class_weight.iter().any(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let got = format!("{:?}", self.class_weight);
            return Err(Error::argument("class_weight", got, "two finite numbers >= 0"));
        }
        Ok(())
    }
}

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

/// Everything that the next iteration depends on besides the grid, the settings and the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// (n_candidates, n_coefficients + 1), the intercept last.
    pub params: Vec<f64>,
    pub iteration: u64,
    pub diverged: Vec<bool>,
    /// Objective of each candidate at its first iteration; NaN before it.
    pub start_loss: Vec<f64>,
}

/// All candidates of a grid. [`step`](Self::step) is one iteration, and a solver made again from [`state`](Self::state)
/// goes on with the same bits.
#[derive(Clone, Debug)]
pub struct Solver {
    grid: Grid,
    settings: Settings,
    objective: Objective,
    width: usize,
    state: State,
}

impl Solver {
    pub fn new(grid: Grid, settings: Settings, n_coefficients: usize, isa: Isa) -> Result<Self> {
        settings.check()?;
        let n = grid.len();
        let width = n_coefficients + 1;
        let bootstrap = settings.bootstrap.then(|| Bootstrap::new(settings.seed, grid.n_neurons()));
        let objective = Objective::new(isa, n, grid.per_neuron(), width, bootstrap, settings.class_weight)?;
        let mut params = vec![0.0; n * width];
        for (candidate, row) in params.chunks_exact_mut(width).enumerate() {
            let coefficients = &mut row[..n_coefficients];
            initial_coefficients(settings.seed, grid.neuron(candidate), settings.init_scale, coefficients);
        }
        let state = State { params, iteration: 0, diverged: vec![false; n], start_loss: vec![f64::NAN; n] };
        Ok(Self { grid, settings, objective, width, state })
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Go on from a state taken earlier from a solver of the same grid and width.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        let n = self.grid.len();
        let lengths = (state.params.len(), state.diverged.len(), state.start_loss.len());
        if lengths != (n * self.width, n, n) {
            let accepted = format!("lengths {:?}", (n * self.width, n, n));
            return Err(Error::argument("state", format!("lengths {lengths:?}"), accepted));
        }
        if state.params.iter().any(|value| !value.is_finite()) {
            return Err(Error::argument("state", "params with NaN or infinite values", "finite params"));
        }
        self.state = state;
        Ok(())
    }

    /// (n_candidates, n_coefficients + 1), the intercept last.
    pub fn params(&self) -> &[f64] {
        &self.state.params
    }

    /// Replace the params alone: the start of another epoch, a mutation.
    pub fn set_params(&mut self, params: Vec<f64>) -> Result<()> {
        self.set_state(State { params, ..self.state.clone() })
    }

    /// Iterations done.
    pub fn iteration(&self) -> u64 {
        self.state.iteration
    }

    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    pub fn isa(&self) -> Isa {
        self.objective.isa()
    }

    /// One iteration of every candidate. After an error, a cancel included, the state is as before the call.
    pub fn step(&mut self, design: &Design, cancel: &Cancel) -> Result<IterationStats> {
        let means = self.objective.evaluate(design, &self.state.params, Part::ALL, cancel)?;
        Ok(self.update(&means))
    }

    fn update(&mut self, means: &[f64]) -> IterationStats {
        let n = self.grid.len();
        let mut stats = IterationStats {
            loss: Vec::with_capacity(n),
            gradient_norm: Vec::with_capacity(n),
            nonzero: Vec::with_capacity(n),
        };
        let mut next = vec![0.0; self.width];
        for candidate in 0..n {
            let mean = &means[candidate * (self.width + 1)..][..self.width + 1];
            let penalty = self.grid.penalty(candidate);
            let params = &mut self.state.params[candidate * self.width..][..self.width];
            let (coef, intercept) = params.split_at(self.width - 1);

            let loss = mean[self.width] + penalty.value(coef);
            let rate = self.settings.learning_rate;
            for (k, &t) in coef.iter().enumerate() {
                next[k] = penalty.step(t, mean[k], rate);
            }
            next[self.width - 1] = intercept[0] - rate * mean[self.width - 1];
            let squares = params.iter().zip(&next).map(|(t, u)| ((t - u) / rate) * ((t - u) / rate)).sum::<f64>();

            stats.loss.push(loss);
            stats.gradient_norm.push(squares.sqrt());
            stats.nonzero.push(coef.iter().filter(|&&t| t != 0.0).count() as i64);

            let start = &mut self.state.start_loss[candidate];
            if start.is_nan() {
                *start = loss;
            }
            let bounded = loss.is_finite() && loss <= DIVERGENCE * start.max(LN_2);
            // A diverged candidate stays where it last was finite: reported, frozen, excluded.
            if !bounded || next.iter().any(|value| !value.is_finite()) {
                self.state.diverged[candidate] = true;
            }
            if !self.state.diverged[candidate] {
                params.copy_from_slice(&next);
            }
        }
        self.state.iteration += 1;
        stats
    }
}
