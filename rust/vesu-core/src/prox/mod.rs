//! Elastic-net logistic regression by proximal gradient, all candidates of a grid at once.
//!
//! Objective of a candidate: mean of v_i c_i ln(1 + e^(s_i z_i)) plus l1 |t|_1 + (l2 / 2) |t|^2, with
//! z = x.w + x^2.alpha + g.beta + b, t = (w, alpha, beta), v_i the meta-neuron's bootstrap weights, c_i class weights
//! and s_i = -1 for the positive class, +1 for the other. b is free.
//!
//! [`Solver`] is the search, [`evaluate()`] the scores for selection, [`predict`] the mean and spread of an ensemble.

mod active;
mod bootstrap;
mod datafit;
mod design;
mod evaluate;
mod fit;
mod grid;
mod kernel;
mod lanes;
mod lipschitz;
mod objective;
mod pass;
mod penalty;
pub mod predict;
mod simd;

pub use design::{Design, Standardisation};
pub use evaluate::{Evaluation, evaluate};
pub use fit::{IterationStats, Settings, Solver, State};
pub use grid::{Grid, MAX_CANDIDATES};
pub use lipschitz::lipschitz;
pub use penalty::{ElasticNet, soft_threshold};
pub use simd::Isa;

#[cfg(test)]
mod simd_tests;
#[cfg(test)]
mod tests;
