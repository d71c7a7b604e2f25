//! The solver: every candidate of a grid at once, one fused pass over the samples an iteration.

use super::bootstrap::{Bootstrap, initial_coefficients};
use super::certificate::{Certificate, certify, fenchel_gap, stationarity};
use super::design::Design;
use super::grid::Grid;
use super::hessian::{Curvature, subsample};
use super::newton;
use super::objective::Objective;
use super::pass::Part;
use super::path::Path;
use super::proximal::{IterationStats, advance, gradient_points, observe};
use super::simd::Isa;
use super::state::{Memory, Method, State};
use crate::{Cancel, Error, Result};

/// Proximal Newton certifies when every candidate seems to be there, and every so many iterations those that do.
const CERTIFY_EVERY: u64 = 8;

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub method: Method,
    /// Step length of every candidate at the start.
    pub learning_rate: f64,
    pub seed: u64,
    /// Standard deviation of the initial coefficients.
    pub init_scale: f64,
    /// Poisson(1) weights for each meta-neuron; without, every neuron sees the samples once each.
    pub bootstrap: bool,
    /// Loss factor of class 0 and class 1.
    pub class_weight: [f64; 2],
    /// Relative duality gap at which proximal Newton calls a candidate converged; where l2 = 0, the stationarity.
    pub tol: f64,
}

impl Settings {
    fn check(&self) -> Result<()> {
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(Error::argument("learning_rate", self.learning_rate, "a finite number above 0"));
        }
        if !(self.tol.is_finite() && self.tol > 0.0) {
            return Err(Error::argument("tol", self.tol, "a finite number above 0"));
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

/// All candidates of a grid. [`step`](Self::step) is one iteration, and a solver made again from [`state`](Self::state)
/// goes on with the same bits.
#[derive(Clone, Debug)]
pub struct Solver {
    grid: Grid,
    settings: Settings,
    objective: Objective,
    bootstrap: Option<Bootstrap>,
    width: usize,
    state: State,
}

impl Solver {
    pub fn new(grid: Grid, settings: Settings, n_coefficients: usize, isa: Isa) -> Result<Self> {
        settings.check()?;
        let n = grid.len();
        let width = n_coefficients + 1;
        let bootstrap = settings.bootstrap.then(|| Bootstrap::new(settings.seed, grid.n_neurons()));
        let objective = Objective::new(isa, n, grid.per_neuron(), width, bootstrap.clone(), settings.class_weight)?;
        let mut params = vec![0.0; n * width];
        for (candidate, row) in params.chunks_exact_mut(width).enumerate() {
            let coefficients = &mut row[..n_coefficients];
            initial_coefficients(settings.seed, grid.neuron(candidate), settings.init_scale, coefficients);
        }
        let state = State::new(settings.method, params, n, settings.learning_rate);
        Ok(Self { grid, settings, objective, bootstrap, width, state })
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Go on from a state taken earlier from a solver of the same method, grid and width.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        self.state.check_successor(&state)?;
        self.state = state;
        Ok(())
    }

    /// (n_candidates, n_coefficients + 1), the intercept last.
    pub fn params(&self) -> &[f64] {
        &self.state.params
    }

    /// Iterations done.
    pub fn iteration(&self) -> u64 {
        self.state.iteration
    }

    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Coefficients of a candidate and its intercept.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Length of what one task of a pass adds up.
    pub fn n_sums(&self) -> usize {
        self.objective.n_sums()
    }

    pub fn isa(&self) -> Isa {
        self.objective.isa()
    }

    /// (n_candidates,): proximal Newton's candidates whose certificate is within the tolerance.
    pub fn converged(&self) -> Vec<bool> {
        self.state.converged()
    }

    /// Objective and duality gap of the params on these samples: one pass over all of them and one with the negative
    /// class alone.
    pub fn certify(&self, design: &Design, cancel: &Cancel) -> Result<Certificate> {
        let total = self.objective.evaluate(design, &self.state.params, Part::ALL, cancel)?;
        self.certificate_of(&self.state.params, design, &total, cancel)
    }

    /// `total` are the means over all samples at `params`.
    fn certificate_of(&self, params: &[f64], design: &Design, total: &[f64], cancel: &Cancel) -> Result<Certificate> {
        let mut negative_class = self.objective.clone();
        negative_class.set_class_weight([self.settings.class_weight[0], 0.0]);
        let negative = negative_class.evaluate(design, params, Part::ALL, cancel)?;
        let rows = params.chunks_exact(self.width).zip(total.chunks_exact(self.width + 1));
        let (objective, gap) = rows
            .zip(negative.chunks_exact(self.width + 1))
            .enumerate()
            .map(|(candidate, ((params, total), negative))| {
                certify(self.grid.penalty(candidate), params, total, negative)
            })
            .unzip();
        Ok(Certificate { objective, gap })
    }

    /// One iteration of every candidate. After an error, a cancel included, the state is as before the call.
    pub fn step(&mut self, design: &Design, cancel: &Cancel) -> Result<IterationStats> {
        let mut state = self.state.clone();
        state.begin(self.width);
        let stats = match self.settings.method {
            Method::Ista | Method::Fista => self.proximal_step(&mut state, design, cancel)?,
            Method::ProxNewton => self.newton_step(&mut state, design, cancel)?,
        };
        state.iteration += 1;
        self.state = state;
        Ok(stats)
    }

    fn proximal_step(&self, state: &mut State, design: &Design, cancel: &Cancel) -> Result<IterationStats> {
        let points = gradient_points(state, self.width);
        let means = self.objective.evaluate(design, &points, Part::ALL, cancel)?;
        Ok(self.proximal_advance(state, &points, &means))
    }

    fn proximal_advance(&self, state: &mut State, points: &[f64], means: &[f64]) -> IterationStats {
        let (stats, steps) = observe(&self.grid, self.width, state, points, means);
        advance(state, self.width, points, &steps);
        stats
    }

    /// (n_candidates, n_coefficients + 1): where the next [`step`](Self::step) takes its gradients. With
    /// [`partial_sums`](Self::partial_sums) and [`advance`](Self::advance), a step in three pieces for processes that share
    /// the samples: one asks, all sum up the tasks whose samples they hold, one goes on with the sum of all tasks in order.
    pub fn gradient_points(&self) -> Result<Vec<f64>> {
        self.check_one_pass()?;
        let mut state = self.state.clone();
        state.begin(self.width);
        Ok(gradient_points(&state, self.width))
    }

    /// What each task that is held adds to the pass at `points`; the state does not matter.
    pub fn partial_sums(&self, design: &Design, points: &[f64], cancel: &Cancel) -> Result<Vec<Vec<f64>>> {
        if points.len() != self.state.params.len() {
            let accepted = format!("{} x {}", self.grid.len(), self.width);
            return Err(Error::argument("points", format!("{} values", points.len()), accepted));
        }
        self.objective.partial_sums(design, points, Part::ALL, cancel)
    }

    /// The rest of the step, from the sum of all tasks over all `n_samples`.
    pub fn advance(&mut self, sums: &[f64], n_samples: usize) -> Result<IterationStats> {
        self.check_one_pass()?;
        if sums.len() != self.objective.n_sums() || n_samples == 0 {
            let got = format!("{} values of {n_samples} samples", sums.len());
            return Err(Error::argument("sums", got, format!("{} values", self.objective.n_sums())));
        }
        let mut state = self.state.clone();
        state.begin(self.width);
        let points = gradient_points(&state, self.width);
        let means = self.objective.means(sums, n_samples);
        let stats = self.proximal_advance(&mut state, &points, &means);
        state.iteration += 1;
        self.state = state;
        Ok(stats)
    }

    fn check_one_pass(&self) -> Result<()> {
        match self.settings.method {
            Method::Ista | Method::Fista => Ok(()),
            Method::ProxNewton => {
                Err(Error::argument("solver", "prox_newton", "ista or fista where processes share the samples"))
            }
        }
    }

    fn newton_step(&self, state: &mut State, design: &Design, cancel: &Cancel) -> Result<IterationStats> {
        if state.iteration == 0 {
            let part = subsample(design.n_samples(), self.width, 0.0);
            let curvature = self.curvature(design, part, cancel)?;
            self.path(design, part, &curvature).solve(&self.grid, &mut state.params, cancel)?;
            state.begin(self.width);
        }
        let means = self.objective.evaluate(design, &state.params, Part::ALL, cancel)?;
        let points = state.params.clone();
        let (stats, _) = observe(&self.grid, self.width, state, &points, &means);
        let frozen = self.freeze(state, design, &means, cancel)?;
        if frozen.iter().all(|&frozen| frozen) {
            return Ok(stats);
        }
        let mut trials: Vec<newton::Trial> = (0..self.grid.len()).map(|candidate| state.trial(candidate)).collect();
        let moving = trials.iter().zip(&frozen).filter(|(_, frozen)| !**frozen);
        let doublings = moving.map(|(trial, _)| trial.doublings).fold(0.0, f64::max);
        let part = subsample(design.n_samples(), self.width, doublings);
        let curvature = self.curvature(design, part, cancel)?;
        newton::advance(&mut trials, &frozen, &means, &self.grid, &curvature, cancel)?;
        for (candidate, trial) in trials.into_iter().enumerate() {
            state.set_trial(candidate, trial);
        }
        Ok(stats)
    }

    fn curvature(&self, design: &Design, part: Part, cancel: &Cancel) -> Result<Curvature> {
        let (neurons, bootstrap) = (self.grid.n_neurons(), self.bootstrap.as_ref());
        Curvature::new(design, part, neurons, bootstrap, self.settings.class_weight, self.isa(), cancel)
    }

    fn path<'a>(&'a self, design: &'a Design<'a>, part: Part, curvature: &'a Curvature) -> Path<'a> {
        let (bootstrap, class_weight, isa) = (self.bootstrap.as_ref(), self.settings.class_weight, self.isa());
        Path { design, part, curvature, bootstrap, class_weight, isa }
    }

    /// Certify what seems to be at its optimum, when that is due, and say who does not move: the diverged, the converged
    /// and those that wait for their certificate.
    fn freeze(&self, state: &mut State, design: &Design, means: &[f64], cancel: &Cancel) -> Result<Vec<bool>> {
        let mut frozen = state.diverged.clone();
        let Memory::ProxNewton { converged, .. } = &mut state.memory else { return Ok(frozen) };
        let rows = state.params.chunks_exact(self.width).zip(means.chunks_exact(self.width + 1));
        let near: Vec<bool> =
            rows.enumerate().map(|(candidate, (params, mean))| self.seems_optimal(candidate, params, mean)).collect();
        let out = |candidate: usize, converged: &[bool]| frozen[candidate] || converged[candidate];
        let waiting = (0..near.len()).filter(|&c| near[c] && !out(c, converged)).count();
        let moving = (0..near.len()).filter(|&c| !near[c] && !out(c, converged)).count();
        let due = waiting > 0 && (moving == 0 || (state.iteration + 1).is_multiple_of(CERTIFY_EVERY));
        if due {
            let found = self.certificate_of(&state.params, design, means, cancel)?;
            for (candidate, &near) in near.iter().enumerate() {
                let exempt = self.grid.penalty(candidate).l2 == 0.0;
                let certified = exempt || found.gap[candidate] <= self.settings.tol * found.objective[candidate];
                converged[candidate] |= near && certified;
            }
        }
        for candidate in 0..near.len() {
            frozen[candidate] |= converged[candidate] || (near[candidate] && !due);
        }
        Ok(frozen)
    }

    /// Without the sums of one class alone the intercept's part of the gap can only be estimated.
    fn seems_optimal(&self, candidate: usize, params: &[f64], mean: &[f64]) -> bool {
        let (penalty, tol) = (self.grid.penalty(candidate), self.settings.tol);
        let (gradient, loss) = (&mean[..self.width], mean[self.width]);
        if penalty.l2 == 0.0 {
            return stationarity(penalty, params, gradient) <= tol;
        }
        let (coef, free) = (&params[..self.width - 1], self.width - 1);
        let gap = fenchel_gap(penalty, coef, &gradient[..free], loss) + 2.0 * gradient[free].abs();
        gap <= 0.5 * tol * (loss + penalty.value(coef))
    }
}
