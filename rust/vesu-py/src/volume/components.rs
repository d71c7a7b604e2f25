//! Components, dust, cavities and hysteresis.

use numpy::{Element, PyArrayDescrMethods, PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::prelude::*;
use vesu_core::volume::{self, Connectivity, DustRule};

use super::{connectivity_of, float_volume, refuse_oversize};
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

/// Labels (uint32) and how many there are; voxels of different values never join.
#[pyfunction]
#[pyo3(signature = (labels, connectivity, n_threads = None))]
fn connected_components_multilabel<'py>(
    py: Python<'py>,
    labels: &Bound<'py, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u32>>, u32)> {
    let connectivity = connectivity_of(py, connectivity)?;
    refuse_oversize("labels", labels)?;
    let is = |wanted| labels.cast::<PyUntypedArray>().is_ok_and(|array| array.dtype().is_equiv_to(&wanted));
    if is(dtype::<u16>(py)) {
        multilabel(args::array::<u16>("labels", labels, 3)?, py, connectivity, n_threads)
    } else if is(dtype::<u32>(py)) {
        multilabel(args::array::<u32>("labels", labels, 3)?, py, connectivity, n_threads)
    } else {
        multilabel(args::mask("labels", labels)?, py, connectivity, n_threads)
    }
}

fn multilabel<'py, T>(
    labels: args::Array<'py, T>,
    py: Python<'py>,
    connectivity: Connectivity,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u32>>, u32)>
where
    T: Element + Copy + Default + PartialEq + Sync,
{
    let (shape, values) = (args::shape3(&labels), labels.as_slice());
    let (found, count) =
        enter(py, n_threads, |cancel| volume::connected_components_multilabel(values, shape, connectivity, cancel))?;
    Ok((args::to_numpy(py, found, &shape)?, count))
}

/// Sizes (int64, n), bounding boxes (int64, n x 3 x 2, half open) and border contact (bool, n), label 1 first.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn component_stats<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<Stats<'py>> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let (sizes, boxes, border) = enter(py, n_threads, |cancel| {
        let stats = volume::component_stats(voxels, shape, connectivity, cancel)?;
        let boxes = stats.iter().flat_map(|one| one.bounding_box.into_iter().flatten().map(i64::from));
        Ok((
            stats.iter().map(|one| i64::from(one.voxels)).collect::<Vec<_>>(),
            boxes.collect::<Vec<_>>(),
            stats.iter().map(|one| one.touches_border).collect::<Vec<_>>(),
        ))
    })?;
    let n = sizes.len();
    Ok((args::to_numpy(py, sizes, &[n])?, args::to_numpy(py, boxes, &[n, 3, 2])?, args::to_numpy(py, border, &[n])?))
}

type Stats<'py> = (Bound<'py, PyArrayDyn<i64>>, Bound<'py, PyArrayDyn<i64>>, Bound<'py, PyArrayDyn<bool>>);

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

/// The mask (uint8) without dust, the number of components, and of those removed.
#[pyfunction]
#[pyo3(signature = (mask, min_voxels, connectivity, keep_largest = None, spare_border = false, n_threads = None))]
fn remove_dust<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    min_voxels: i64,
    connectivity: i64,
    keep_largest: Option<i64>,
    spare_border: bool,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u8>>, u32, u32)> {
    let connectivity = connectivity_of(py, connectivity)?;
    let count = |name, value| u64::try_from(value).map_err(|_| argument_error(py, name, value, "0 or more"));
    let min_voxels = count("min_voxels", min_voxels)?;
    let keep_largest = keep_largest.map(|k| count("keep_largest", k)).transpose()?;
    let rule = DustRule { min_voxels, keep_largest, spare_border };
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let dust = enter(py, n_threads, |cancel| volume::remove_dust(voxels, shape, rule, connectivity, cancel))?;
    Ok((args::to_numpy(py, dust.mask, &shape)?, dust.n_components, dust.n_removed))
}

/// The mask (uint8) with its cavities filled, and how many there were.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, n_threads = None))]
fn fill_holes<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    connectivity: i64,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u8>>, u32)> {
    let connectivity = connectivity_of(py, connectivity)?;
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let filled = enter(py, n_threads, |cancel| volume::fill_holes(voxels, shape, connectivity, cancel))?;
    Ok((args::to_numpy(py, filled.mask, &shape)?, filled.n_filled))
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
    m.add_function(wrap_pyfunction!(connected_components_multilabel, m)?)?;
    m.add_function(wrap_pyfunction!(component_sizes, m)?)?;
    m.add_function(wrap_pyfunction!(component_stats, m)?)?;
    m.add_function(wrap_pyfunction!(fill_holes, m)?)?;
    m.add_function(wrap_pyfunction!(remove_dust, m)?)?;
    m.add_function(wrap_pyfunction!(hysteresis, m)?)
}
