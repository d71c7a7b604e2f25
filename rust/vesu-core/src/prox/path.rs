//! The start of proximal Newton: the subsampled problems along the regularisation path, from the largest l1 down, each
//! from its neighbour's solution (Friedman, Hastie and Tibshirani 2010).

use super::bootstrap::Bootstrap;
use super::design::Design;
use super::grid::Grid;
use super::hessian::Curvature;
use super::newton::{Trial, advance};
use super::objective::Objective;
use super::pass::Part;
use super::simd::Isa;
use crate::{Cancel, Result};

/// Enough for a cold start; a warm one takes two or three.
const MAX_ITERATIONS: usize = 30;
/// A foretold decrease, relative to the objective, that is far below what the subsample itself is wrong by.
const SMALL: f64 = 1e-6;

/// What every stage of the path shares.
pub(super) struct Path<'a> {
    pub design: &'a Design<'a>,
    pub part: Part,
    pub curvature: &'a Curvature,
    pub bootstrap: Option<&'a Bootstrap>,
    pub class_weight: [f64; 2],
    pub isa: Isa,
}

impl Path<'_> {
    /// Replace `params` (n_candidates, width) by solutions on the subsample; the first stage starts from `params`.
    pub fn solve(&self, grid: &Grid, params: &mut [f64], cancel: &Cancel) -> Result<()> {
        let width = params.len() / grid.len();
        let mut warm: Option<Vec<Trial>> = None;
        for stage in grid.path() {
            let starts = stage.candidates.iter().map(|&candidate| &params[candidate * width..][..width]);
            let trials: Vec<Trial> = match warm {
                Some(solved) => solved.into_iter().map(|trial| Trial::new(trial.params)).collect(),
                None => starts.map(|row| Trial::new(row.to_vec())).collect(),
            };
            let solved = self.stage(&stage.grid, trials, width, cancel)?;
            for (&candidate, trial) in stage.candidates.iter().zip(&solved) {
                params[candidate * width..][..width].copy_from_slice(&trial.params);
            }
            warm = Some(solved);
        }
        Ok(())
    }

    fn stage(&self, grid: &Grid, mut trials: Vec<Trial>, width: usize, cancel: &Cancel) -> Result<Vec<Trial>> {
        let bootstrap = self.bootstrap.cloned();
        let objective = Objective::new(self.isa, grid.len(), grid.per_neuron(), width, bootstrap, self.class_weight)?;
        let mut done = vec![false; grid.len()];
        for _ in 0..MAX_ITERATIONS {
            let params: Vec<f64> = trials.iter().flat_map(|trial| trial.params.iter().copied()).collect();
            let means = objective.evaluate(self.design, &params, self.part, cancel)?;
            advance(&mut trials, &done, &means, grid, self.curvature, cancel)?;
            for (done, trial) in done.iter_mut().zip(&trials) {
                *done = *done || -trial.decrease <= SMALL * trial.previous_loss || !trial.previous_loss.is_finite();
            }
            if done.iter().all(|&done| done) {
                break;
            }
        }
        Ok(trials)
    }
}
