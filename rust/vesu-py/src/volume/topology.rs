//! Euler and Betti numbers, and the watertight plug.

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use vesu_core::volume::{self, BettiNumbers};

use super::connectivity_of;
use crate::args;
use crate::gate::enter;

/// Euler number of the foreground.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn euler_number(py: Python<'_>, mask: &Bound<'_, PyAny>, connectivity: i64, n_threads: Option<i64>) -> PyResult<i64> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    enter(py, n_threads, |cancel| volume::euler_number(voxels, shape, connectivity, cancel))
}

/// Components, tunnels and cavities of the foreground.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn betti_numbers(
    py: Python<'_>,
    mask: &Bound<'_, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<(u64, u64, u64)> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    enter(py, n_threads, |cancel| volume::betti_numbers(voxels, shape, connectivity, cancel)).map(triple)
}

pub fn triple(numbers: BettiNumbers) -> (u64, u64, u64) {
    (numbers.components, numbers.tunnels, numbers.cavities)
}

/// Sizes, tunnels and cavities (int64) of each component, label 1 first.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn component_topology<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<[Bound<'py, PyArrayDyn<i64>>; 3]> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let topology = enter(py, n_threads, |cancel| volume::component_topology(voxels, shape, connectivity, cancel))?;
    let length = [topology.sizes.len()];
    Ok([
        args::to_numpy(py, topology.sizes, &length)?,
        args::to_numpy(py, topology.tunnels, &length)?,
        args::to_numpy(py, topology.cavities, &length)?,
    ])
}

/// The plugged mask (uint8), the voxels added, and the passes that added some.
#[pyfunction]
#[pyo3(signature = (mask, n_threads = None))]
fn plug_holes<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u8>>, u64, u32)> {
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let plug = enter(py, n_threads, |cancel| volume::plug_holes(voxels, shape, cancel))?;
    Ok((args::to_numpy(py, plug.mask, &shape)?, plug.n_added, plug.n_passes))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(euler_number, m)?)?;
    m.add_function(wrap_pyfunction!(betti_numbers, m)?)?;
    m.add_function(wrap_pyfunction!(component_topology, m)?)?;
    m.add_function(wrap_pyfunction!(plug_holes, m)?)
}
