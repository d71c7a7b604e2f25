//! The voxels of greatest probability.

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use vesu_core::volume;

use super::float_volume;
use crate::args;
use crate::gate::enter;

type Found<'py> = (Bound<'py, PyArrayDyn<u32>>, Bound<'py, PyArrayDyn<f32>>, u64);

/// Indices (uint32) and scores (float32) of the first `top_k` voxels behind `after`, and how many there are.
#[pyfunction]
#[pyo3(signature = (probability, at_least, top_k = None, after = None, n_threads = None))]
fn extreme_voxels<'py>(
    py: Python<'py>,
    probability: &Bound<'py, PyAny>,
    at_least: f32,
    top_k: Option<usize>,
    after: Option<(f32, u32)>,
    n_threads: Option<i64>,
) -> PyResult<Found<'py>> {
    let probability = float_volume("probability", probability)?;
    let (shape, values) = (args::shape3(&probability), probability.as_slice());
    let found = enter(py, n_threads, |cancel| volume::extreme_voxels(values, shape, at_least, top_k, after, cancel))?;
    let length = [found.voxels.len()];
    Ok((args::to_numpy(py, found.voxels, &length)?, args::to_numpy(py, found.scores, &length)?, found.qualifying))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(extreme_voxels, m)?)
}
