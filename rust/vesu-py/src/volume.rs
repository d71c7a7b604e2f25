//! Components, dust, hysteresis, z-smoothing and probability histograms.

use numpy::{PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vesu_core::volume::{self, Connectivity};

use crate::args;
use crate::gate::{argument_error, enter, raise};

/// Refuse what the kernels cannot index before `args` might copy it (a broadcast array is huge only once copied).
fn refuse_oversize(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.cast::<PyUntypedArray>().map(|array| <[usize; 3]>::try_from(array.shape())) {
        Ok(Ok(shape)) if !shape.contains(&0) => {
            volume::voxel_count(name, shape).map(drop).map_err(|error| raise(value.py(), error))
        }
        _ => Ok(()), // not a 3-D array with voxels: `args` says so in its own words
    }
}

fn mask<'py>(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<args::Array<'py, u8>> {
    refuse_oversize(name, value)?;
    args::mask(name, value)
}

fn float_volume<'py>(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<args::Array<'py, f32>> {
    refuse_oversize(name, value)?;
    args::array(name, value, 3)
}

fn connectivity_of(py: Python<'_>, connectivity: i64) -> PyResult<Connectivity> {
    Connectivity::try_from(connectivity).map_err(|error| raise(py, error))
}

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
    let mask = self::mask("mask", mask)?;
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
    let mask = self::mask("mask", mask)?;
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
    let mask = self::mask("mask", mask)?;
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
    m.add_function(wrap_pyfunction!(connected_components, m)?)?;
    m.add_function(wrap_pyfunction!(component_sizes, m)?)?;
    m.add_function(wrap_pyfunction!(remove_dust, m)?)?;
    m.add_function(wrap_pyfunction!(hysteresis, m)?)?;
    m.add_function(wrap_pyfunction!(smooth_z, m)?)?;
    m.add_function(wrap_pyfunction!(probability_histogram, m)?)?;
    Ok(())
}
