//! `vesu._core`: the thin binding. Every function here checks its arrays ([`args`]), passes through the one
//! gate ([`gate::enter`]) and calls the core; nothing is computed on this side.

mod args;
mod baselines;
mod betti;
mod digest;
mod features;
mod gate;
mod ledger;
mod prox;
mod score;
mod tiff;
mod volume;

use pyo3::prelude::*;

#[pymodule]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    gate::register(m)?;
    digest::register(m)?;
    tiff::register(m)?;
    features::register(m)?;
    baselines::register(m)?;
    prox::register(m)?;
    volume::register(m)?;
    betti::register(m)?;
    score::register(m)?;
    ledger::register(m)?;
    Ok(())
}
