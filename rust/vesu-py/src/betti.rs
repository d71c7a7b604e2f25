//! Betti matching.

use numpy::{PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vesu_core::score::betti::{self, Blocks, Locations};
use vesu_core::volume::{Shape, voxel_count};
use vesu_core::{Cancel, Result};

use crate::args;
use crate::gate::{argument_error, enter, raise};

type Array<'py> = Bound<'py, PyArrayDyn<i64>>;

/// Rows: dimension 0, 1, 2; columns: matched, of the prediction, of the label (int64). Of the two whole masks.
#[pyfunction]
#[pyo3(signature = (prediction, label, n_threads = None))]
fn betti_matching<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<Array<'py>> {
    counts(py, prediction, label, Blocks::Whole, n_threads)
}

/// As `betti_matching`, of each of the 2x2x2 octants by itself, summed.
#[pyfunction]
#[pyo3(signature = (prediction, label, n_threads = None))]
fn betti_matching_octants<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<Array<'py>> {
    counts(py, prediction, label, Blocks::Octants, n_threads)
}

/// Where features lie that are not matched: for the prediction and for the label, per dimension (n, 3) int64 (z, y, x).
#[pyfunction]
#[pyo3(signature = (prediction, label, n_threads = None, octants = true))]
fn betti_unmatched<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
    octants: bool,
) -> PyResult<(Vec<Array<'py>>, Vec<Array<'py>>)> {
    let blocks = if octants { Blocks::Octants } else { Blocks::Whole };
    let unmatched = on_masks(py, prediction, label, n_threads, |prediction, label, shape, cancel| {
        betti::betti_unmatched(prediction, label, shape, blocks, cancel)
    })?;
    let arrays = |locations: Locations| -> PyResult<Vec<_>> {
        let array = |places: Vec<Shape>| {
            let numbers = places.iter().flatten().map(|&coordinate| coordinate as i64).collect();
            args::to_numpy(py, numbers, &[places.len(), 3])
        };
        locations.into_iter().map(array).collect()
    };
    Ok((arrays(unmatched.prediction)?, arrays(unmatched.label)?))
}

fn counts<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    blocks: Blocks,
    n_threads: Option<i64>,
) -> PyResult<Array<'py>> {
    let matchings = on_masks(py, prediction, label, n_threads, |prediction, label, shape, cancel| {
        betti::betti_matching(prediction, label, shape, blocks, cancel)
    })?;
    let numbers = matchings.iter().flat_map(|row| [row.matched, row.prediction, row.label]).map(|count| count as i64);
    args::to_numpy(py, numbers.collect(), &[3, 3])
}

/// `work` behind the gate, on two checked masks of one shape.
fn on_masks<T: Send>(
    py: Python<'_>,
    prediction: &Bound<'_, PyAny>,
    label: &Bound<'_, PyAny>,
    n_threads: Option<i64>,
    work: impl Fn(&[u8], &[u8], Shape, &Cancel) -> Result<T> + Send + Sync,
) -> PyResult<T> {
    let prediction = mask("prediction", prediction)?;
    let label = mask("label", label)?;
    let shape = args::shape3(&prediction);
    if args::shape3(&label) != shape {
        let accepted = format!("the prediction's shape {shape:?}");
        return Err(argument_error(py, "label", format!("shape {:?}", label.shape()), &accepted));
    }
    let (predicted, labelled) = (prediction.as_slice(), label.as_slice());
    enter(py, n_threads, |cancel| work(predicted, labelled, shape, cancel))
}

/// A mask whose size is looked at before a broadcast array might be copied.
fn mask<'py>(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<args::Array<'py, u8>> {
    if let Ok(array) = value.cast::<PyUntypedArray>()
        && let Ok(shape) = <Shape>::try_from(array.shape())
        && !shape.contains(&0)
    {
        voxel_count(name, shape).map_err(|error| raise(value.py(), error))?;
    }
    args::mask(name, value)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(betti_matching, m)?)?;
    m.add_function(wrap_pyfunction!(betti_matching_octants, m)?)?;
    m.add_function(wrap_pyfunction!(betti_unmatched, m)?)
}
