//! Reading a log: verification, tree heads, proofs.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};
use vesu_core::Error;
use vesu_core::ledger::chain::record_leaf;
use vesu_core::ledger::merkle::leaf_hash;
use vesu_core::ledger::{self, Hash, Tree, hex, unhex};

use crate::gate::{self, argument_error};

#[pyfunction]
pub fn ledger_verify(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let report = gate::enter(py, None, |cancel| ledger::verify(&path, cancel))?;
    let result = PyDict::new(py);
    result.set_item("entries", report.entries)?;
    result.set_item("root", report.root)?;
    result.set_item("head", report.head)?;
    result.set_item("first_ts_ns", report.first_ts_ns)?;
    result.set_item("last_ts_ns", report.last_ts_ns)?;
    result.set_item("torn_bytes", report.torn_bytes)?;
    Ok(result)
}

#[pyfunction]
pub fn ledger_tree_head(py: Python<'_>, entries: Vec<Vec<u8>>) -> PyResult<String> {
    gate::enter(py, Some(1), |cancel| {
        let mut tree = Tree::new();
        for entry in &entries {
            cancel.check()?;
            tree.push(leaf_hash(entry));
        }
        Ok(hex(&tree.root()))
    })
}

/// Size and root of the tree over the first `size` records, or all.
#[pyfunction]
#[pyo3(signature = (path, size = None))]
pub fn ledger_tree_head_at(py: Python<'_>, path: PathBuf, size: Option<&Bound<'_, PyAny>>) -> PyResult<(u64, String)> {
    let size = size.map(|size| number("size", size)).transpose()?;
    let (size, root) = gate::enter(py, None, |cancel| ledger::tree_head(&path, size, cancel))?;
    Ok((size, hex(&root)))
}

#[pyfunction]
#[pyo3(signature = (path, index, size = None))]
pub fn ledger_prove_inclusion<'py>(
    py: Python<'py>,
    path: PathBuf,
    index: &Bound<'_, PyAny>,
    size: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (index, size) = (number("index", index)?, size.map(|size| number("size", size)).transpose()?);
    let proof = gate::enter(py, None, |cancel| ledger::prove_inclusion(&path, index, size, cancel))?;
    let result = PyDict::new(py);
    result.set_item("index", proof.index)?;
    result.set_item("size", proof.size)?;
    result.set_item("record", String::from_utf8(proof.record)?)?;
    result.set_item("path", proof.path.iter().map(hex).collect::<Vec<_>>())?;
    result.set_item("root", hex(&proof.root))?;
    Ok(result)
}

#[pyfunction]
#[pyo3(signature = (path, first, second = None))]
pub fn ledger_prove_consistency<'py>(
    py: Python<'py>,
    path: PathBuf,
    first: &Bound<'_, PyAny>,
    second: Option<&Bound<'_, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let (first, second) = (number("first", first)?, second.map(|size| number("second", size)).transpose()?);
    let proof = gate::enter(py, None, |cancel| ledger::prove_consistency(&path, first, second, cancel))?;
    let result = PyDict::new(py);
    result.set_item("first", proof.first)?;
    result.set_item("second", proof.second)?;
    result.set_item("path", proof.path.iter().map(hex).collect::<Vec<_>>())?;
    result.set_item("first_root", hex(&proof.first_root))?;
    result.set_item("second_root", hex(&proof.second_root))?;
    Ok(result)
}

/// Number and Merkle leaf of a record that stands alone.
#[pyfunction]
pub fn ledger_record_leaf(py: Python<'_>, record: &str) -> PyResult<(u64, String)> {
    let (sequence, leaf) = record_leaf(record.as_bytes())
        .map_err(|problem| gate::raise(py, Error::Proof(format!("its record: {problem}"))))?;
    Ok((sequence, hex(&leaf)))
}

#[pyfunction]
pub fn ledger_verify_inclusion(
    leaf: &Bound<'_, PyAny>,
    index: &Bound<'_, PyAny>,
    size: &Bound<'_, PyAny>,
    path: &Bound<'_, PyAny>,
    root: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = leaf.py();
    let (index, size) = (number("index", index)?, number("size", size)?);
    let (leaf, path, root) = (hash("leaf", leaf)?, hashes("path", path)?, hash("root", root)?);
    ledger::verify_inclusion(&leaf, index, size, &path, &root).map_err(|error| gate::raise(py, error))
}

#[pyfunction]
pub fn ledger_verify_consistency(
    first: &Bound<'_, PyAny>,
    second: &Bound<'_, PyAny>,
    path: &Bound<'_, PyAny>,
    first_root: &Bound<'_, PyAny>,
    second_root: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = first.py();
    let (first, second, path) = (number("first", first)?, number("second", second)?, hashes("path", path)?);
    let (first_root, second_root) = (hash("first_root", first_root)?, hash("second_root", second_root)?);
    ledger::verify_consistency(first, second, &path, &first_root, &second_root).map_err(|error| gate::raise(py, error))
}

/// A record's number or a count of records. A bool is an int to Python, and surely a mistake here.
fn number(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    match value.extract() {
        Ok(number) if !value.is_instance_of::<PyBool>() => Ok(number),
        _ => Err(argument_error(value.py(), name, value.repr()?, "an int from 0 to 2^64 - 1")),
    }
}

fn hash(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Hash> {
    let found = value.cast::<PyString>().ok().and_then(|text| unhex(text.to_str().ok()?));
    found.map_or_else(|| Err(argument_error(value.py(), name, value.repr()?, "64 lower-case hexadecimal digits")), Ok)
}

fn hashes(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<Vec<Hash>> {
    value.try_iter()?.map(|item| hash(name, &item?)).collect()
}
