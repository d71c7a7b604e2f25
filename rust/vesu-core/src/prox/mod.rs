//! Elastic-net logistic regression, all candidates of a grid at once: ISTA, FISTA, proximal Newton.
//!
//! Objective of a candidate: mean of v_i c_i ln(1 + e^(s_i z_i)) plus l1 |t|_1 + (l2 / 2) |t|^2, with
//! z = x.w + x^2.alpha + g.beta + b, t = (w, alpha, beta), v_i the meta-neuron's bootstrap weights, c_i class weights
//! and s_i = -1 for the positive class, +1 for the other. b is free.
//!
//! [`Solver`] is the search, [`evaluate()`] the scores for selection, [`predict`] the mean and spread of an ensemble.

mod active;
mod bootstrap;
mod certificate;
mod datafit;
mod design;
mod evaluate;
mod grid;
mod hessian;
mod kernel;
mod lanes;
mod lipschitz;
mod newton;
mod objective;
mod pass;
mod path;
mod penalty;
pub mod predict;
mod proximal;
mod quadratic;
mod simd;
mod solver;
mod state;

pub use certificate::Certificate;
pub use design::{Design, Standardisation, column_sums};
pub use evaluate::{Evaluation, EvaluationSums, cross_entropy_of, evaluate, evaluation_sums};
pub use grid::{Grid, MAX_CANDIDATES};
pub use lipschitz::{lipschitz, lipschitz_of, moment_sums};
pub use pass::task_bounds;
pub use penalty::{ElasticNet, soft_threshold};
pub use proximal::IterationStats;
pub use simd::Isa;
pub use solver::{Settings, Solver};
pub use state::{Memory, Method, State, Values};

#[cfg(test)]
mod simd_tests;
#[cfg(test)]
mod tests;
