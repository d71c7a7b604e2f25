//! The event ledger's binding.

mod log;
mod proofs;
mod values;

use pyo3::prelude::*;

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<log::LedgerLog>()?;
    m.add_function(wrap_pyfunction!(log::ledger_open, m)?)?;
    m.add_function(wrap_pyfunction!(values::ledger_canonical, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_verify, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_tree_head, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_tree_head_at, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_prove_inclusion, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_prove_consistency, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_record_leaf, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_verify_inclusion, m)?)?;
    m.add_function(wrap_pyfunction!(proofs::ledger_verify_consistency, m)?)?;
    Ok(())
}
