//! The distance transform.

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use vesu_core::volume;

use crate::args;
use crate::gate::enter;

/// Distance (float32) of every foreground voxel to the nearest background voxel, or its square.
#[pyfunction]
#[pyo3(signature = (mask, spacing, squared, n_threads = None))]
fn distance_transform<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    spacing: [f64; 3],
    squared: bool,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let distances = enter(py, n_threads, |cancel| volume::distance_transform(voxels, shape, spacing, squared, cancel))?;
    args::to_numpy(py, distances, &shape)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(distance_transform, m)?)
}
