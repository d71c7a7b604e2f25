//! Binding of the features: voxel type dispatch and shapes; see `python/vesu/features.py` for the public side.

use numpy::{PyArrayDescrMethods, PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::prelude::*;
use vesu_core::features::{self, Family, Spec, Voxel};

use crate::args::{Array, array, shape3, to_numpy};
use crate::gate::{argument_error, enter, raise};

/// Names of all families, in channel order.
#[pyfunction]
fn feature_families() -> Vec<&'static str> {
    Family::ALL.map(Family::name).to_vec()
}

/// Check a choice of scales and families; returns the channels' names and the halo in voxels.
#[pyfunction]
fn feature_plan(py: Python<'_>, scales: Vec<f64>, families: Vec<String>) -> PyResult<(Vec<String>, usize)> {
    let spec = Spec::new(&scales, &families, true).map_err(|error| raise(py, error))?;
    Ok((spec.names(), spec.halo()))
}

#[pyfunction]
#[pyo3(signature = (volume, scales, families, normalise, z_range, max_bytes, n_threads = None))]
#[allow(clippy::too_many_arguments)] // the Python wrapper's arguments, one for one
fn extract_features<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    scales: Vec<f64>,
    families: Vec<String>,
    normalise: bool,
    z_range: Option<(usize, usize)>,
    max_bytes: u64,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let spec = Spec::new(&scales, &families, normalise).map_err(|error| raise(py, error))?;
    let limits = Limits { z_range, max_bytes, n_threads };
    let is = |wanted: Bound<'py, numpy::PyArrayDescr>| {
        volume.cast::<PyUntypedArray>().is_ok_and(|untyped| untyped.dtype().is_equiv_to(&wanted))
    };
    if is(dtype::<u8>(py)) {
        extract::<u8>(py, array("volume", volume, 3)?, &spec, limits)
    } else if is(dtype::<u16>(py)) {
        extract::<u16>(py, array("volume", volume, 3)?, &spec, limits)
    } else if is(dtype::<f32>(py)) {
        extract::<f32>(py, array("volume", volume, 3)?, &spec, limits)
    } else {
        let got = match volume.cast::<PyUntypedArray>() {
            Ok(untyped) => format!("dtype {}", untyped.dtype()),
            Err(_) => volume.get_type().name()?.to_string(),
        };
        Err(argument_error(py, "volume", got, "a 3-D numpy array (z, y, x) of uint8, uint16 or float32"))
    }
}

struct Limits {
    z_range: Option<(usize, usize)>,
    max_bytes: u64,
    n_threads: Option<i64>,
}

fn extract<'py, T: Voxel + numpy::Element>(
    py: Python<'py>,
    volume: Array<'py, T>,
    spec: &Spec,
    limits: Limits,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let shape = shape3(&volume);
    let (start, end) = limits.z_range.unwrap_or((0, shape[0]));
    let voxels = volume.as_slice();
    let values = enter(py, limits.n_threads, |cancel| {
        features::extract(voxels, shape, spec, start..end, limits.max_bytes, cancel)
    })?;
    to_numpy(py, values, &[spec.n_channels(), end - start, shape[1], shape[2]])
}

/// Values and gradient lengths, both (voxel, channel), of `values` (channel, z, y, x) at `flat_index`.
#[pyfunction]
#[pyo3(signature = (values, flat_index, n_threads = None))]
#[allow(clippy::type_complexity)]
fn gather_features<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    flat_index: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<f32>>, Bound<'py, PyArrayDyn<f32>>)> {
    let values = array::<f32>("features", values, 4)?;
    let index = array::<i64>("flat_index", flat_index, 1)?;
    let [n_channels, nz, ny, nx] = [0, 1, 2, 3].map(|axis| values.shape()[axis]);
    let (voxels, rows) = (values.as_slice(), index.as_slice());
    let (x, g) = enter(py, n_threads, |cancel| features::gather(voxels, n_channels, [nz, ny, nx], rows, cancel))?;
    let shape = [rows.len(), n_channels];
    Ok((to_numpy(py, x, &shape)?, to_numpy(py, g, &shape)?))
}

/// Mean (column,) and covariance (column, column) of `x` (row, column).
#[pyfunction]
#[pyo3(signature = (x, n_threads = None))]
#[allow(clippy::type_complexity)]
fn feature_moments<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<f64>>, Bound<'py, PyArrayDyn<f64>>)> {
    let x = array::<f32>("x", x, 2)?;
    let n_columns = x.shape()[1];
    let rows = x.as_slice();
    let found = enter(py, n_threads, |cancel| features::moments(rows, n_columns, cancel))?;
    Ok((to_numpy(py, found.mean, &[n_columns])?, to_numpy(py, found.covariance, &[n_columns, n_columns])?))
}

/// (n_chunks, column) sums of each 8192 rows of `x` (row, column), or (n_chunks, column, column) upper triangles of the
/// products of their deviations from `centre`: added up in order, over `x` in pieces of whole chunks, what
/// [`feature_moments`] adds up.
#[pyfunction]
#[pyo3(signature = (x, centre, n_threads = None))]
fn feature_moment_sums<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    centre: Option<Vec<f64>>,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
    let x = array::<f32>("x", x, 2)?;
    let n_columns = x.shape()[1];
    if let Some(centre) = &centre
        && centre.len() != n_columns
    {
        return Err(argument_error(py, "centre", format!("{} values", centre.len()), &format!("{n_columns}")));
    }
    let rows = x.as_slice();
    let sums = enter(py, n_threads, |cancel| features::moment_sums(rows, n_columns, centre.as_deref(), cancel))?;
    let n_axes = if centre.is_some() { 3 } else { 2 };
    to_numpy(py, sums.concat(), &[sums.len(), n_columns, n_columns][..n_axes])
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(feature_families, m)?)?;
    m.add_function(wrap_pyfunction!(feature_plan, m)?)?;
    m.add_function(wrap_pyfunction!(extract_features, m)?)?;
    m.add_function(wrap_pyfunction!(gather_features, m)?)?;
    m.add_function(wrap_pyfunction!(feature_moments, m)?)?;
    m.add_function(wrap_pyfunction!(feature_moment_sums, m)?)?;
    m.add("FEATURE_MOMENT_CHUNK", features::MOMENT_CHUNK)?;
    Ok(())
}
