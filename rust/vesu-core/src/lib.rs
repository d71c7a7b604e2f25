//! The compute core of vesu: pure Rust, no Python in it.
//!
//! Every long function takes a [`Cancel`] token, polls it, and returns [`Error`] instead of panicking.
//! Results never depend on the number of threads: work is cut into chunks of fixed size and partial
//! results are folded in a fixed order.

pub mod baselines;
pub mod cancel;
pub mod digest;
pub mod error;
pub mod features;
pub mod ledger;
pub mod pages;
pub mod prox;
pub mod score;
pub mod tiff;
pub mod volume;

pub use cancel::Cancel;
pub use error::{Error, Result};
