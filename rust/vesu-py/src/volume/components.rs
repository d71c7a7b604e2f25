//! Components, dust and hysteresis.

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use vesu_core::volume;

use super::{connectivity_of, float_volume};
use crate::args;
use crate::gate::{argument_error, enter};

/// Labels (uint32) and how many there are.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn connected_components<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u32>>, u32)> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let (labels, count) =
        enter(py, n_threads, |cancel| volume::connected_components(voxels, shape, connectivity, cancel))?;
    Ok((args::to_numpy(py, labels, &shape)?, count))
}

/// Voxels of each component (int64), label 1 first.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn component_sizes<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let sizes = enter(py, n_threads, |cancel| {
        let sizes = volume::component_sizes(voxels, shape, connectivity, cancel)?;
        Ok(sizes.into_iter().map(i64::from).collect::<Vec<_>>())
    })?;
    let length = sizes.len();
    args::to_numpy(py, sizes, &[length])
}

/// The mask (uint8) without components under `min_voxels`, the number of components, and of those removed.
#[pyfunction]
#[pyo3(signature = (mask, min_voxels, connectivity, n_threads = None))]
fn remove_dust<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    min_voxels: i64,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u8>>, u32, u32)> {
    let connectivity = connectivity_of(py, connectivity)?;
    let min_voxels =
        u64::try_from(min_voxels).map_err(|_| argument_error(py, "min_voxels", min_voxels, "0 or more"))?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let dust = enter(py, n_threads, |cancel| volume::remove_dust(voxels, shape, min_voxels, connectivity, cancel))?;
    Ok((args::to_numpy(py, dust.mask, &shape)?, dust.n_components, dust.n_removed))
}

/// The mask (uint8), the number of components above `low`, and of those kept.
#[pyfunction]
#[pyo3(signature = (probability, low, high, connectivity, n_threads = None))]
fn hysteresis<'py>(
    py: Python<'py>,
    probability: &Bound<'py, PyAny>,
    low: f32,
    high: f32,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u8>>, u32, u32)> {
    let connectivity = connectivity_of(py, connectivity)?;
    let probability = float_volume("probability", probability)?;
    let (shape, values) = (args::shape3(&probability), probability.as_slice());
    let kept = enter(py, n_threads, |cancel| volume::hysteresis(values, shape, low, high, connectivity, cancel))?;
    Ok((args::to_numpy(py, kept.mask, &shape)?, kept.n_components, kept.n_kept))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(connected_components, m)?)?;
    m.add_function(wrap_pyfunction!(component_sizes, m)?)?;
    m.add_function(wrap_pyfunction!(remove_dust, m)?)?;
    m.add_function(wrap_pyfunction!(hysteresis, m)?)
}
