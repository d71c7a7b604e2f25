//! Smoothing along z, and probability histograms.

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use vesu_core::volume;

use super::float_volume;
use crate::args;
use crate::gate::{argument_error, enter};

/// Moving mean over 2 radius + 1 slices (float32), the end slices repeated.
#[pyfunction]
#[pyo3(signature = (volume, radius, n_threads = None))]
fn smooth_z<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    radius: i64,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let accepted = format!("0 to {}", volume::MAX_RADIUS);
    let radius = usize::try_from(radius).map_err(|_| argument_error(py, "radius", radius, &accepted))?;
    let array = float_volume("volume", volume)?;
    let (shape, values) = (args::shape3(&array), array.as_slice());
    let smooth = enter(py, n_threads, |cancel| volume::smooth_z(values, shape, radius, cancel))?;
    args::to_numpy(py, smooth, &shape)
}

/// Counts (int64, one row a label value) in `n_bins` bins of [0, 1) and one for exactly 1.
#[pyfunction]
#[pyo3(signature = (probability, label, n_bins, n_threads = None))]
fn probability_histogram<'py>(
    py: Python<'py>,
    probability: &Bound<'py, PyAny>,
    label: Option<&Bound<'py, PyAny>>,
    n_bins: usize,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
    let probability = float_volume("probability", probability)?;
    let (shape, values) = (args::shape3(&probability), probability.as_slice());
    let label = label.map(|label| args::array::<u8>("label", label, 3)).transpose()?;
    if let Some(label) = &label
        && args::shape3(label) != shape
    {
        let accepted = format!("the probability's shape {shape:?}");
        return Err(argument_error(py, "label", format!("shape {:?}", label.shape()), &accepted));
    }
    let classes = label.as_ref().map(|label| label.as_slice());
    let counts = enter(py, n_threads, |cancel| {
        let counts = volume::probability_histogram(values, classes, shape, n_bins, cancel)?;
        Ok(counts.into_iter().map(|count| count as i64).collect::<Vec<_>>())
    })?;
    args::to_numpy(py, counts, &[volume::CLASSES, n_bins + 1])
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(smooth_z, m)?)?;
    m.add_function(wrap_pyfunction!(probability_histogram, m)?)
}
