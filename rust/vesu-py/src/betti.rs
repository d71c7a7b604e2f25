//! Betti matching.

use numpy::{PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vesu_core::score::betti::{self, Matchings};
use vesu_core::volume::{Shape, voxel_count};
use vesu_core::{Cancel, Result};

use crate::args;
use crate::gate::{argument_error, enter, raise};

/// Rows: dimension 0, 1, 2; columns: matched, of the prediction, of the label (int64). Of the two whole masks.
#[pyfunction]
#[pyo3(signature = (prediction, label, n_threads = None))]
fn betti_matching<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
    counts(py, prediction, label, n_threads, betti::betti_matching)
}

/// As `betti_matching`, of each of the 2x2x2 octants by itself, summed.
#[pyfunction]
#[pyo3(signature = (prediction, label, n_threads = None))]
fn betti_matching_octants<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
    counts(py, prediction, label, n_threads, betti::betti_matching_octants)
}

type Kernel = fn(&[u8], &[u8], Shape, &Cancel) -> Result<Matchings>;

fn counts<'py>(
    py: Python<'py>,
    prediction: &Bound<'py, PyAny>,
    label: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
    kernel: Kernel,
) -> PyResult<Bound<'py, PyArrayDyn<i64>>> {
    let prediction = mask("prediction", prediction)?;
    let label = mask("label", label)?;
    let shape = args::shape3(&prediction);
    if args::shape3(&label) != shape {
        let accepted = format!("the prediction's shape {shape:?}");
        return Err(argument_error(py, "label", format!("shape {:?}", label.shape()), &accepted));
    }
    let (predicted, labelled) = (prediction.as_slice(), label.as_slice());
    let matchings = enter(py, n_threads, |cancel| kernel(predicted, labelled, shape, cancel))?;
    let numbers = matchings.iter().flat_map(|row| [row.matched, row.prediction, row.label]).map(|count| count as i64);
    args::to_numpy(py, numbers.collect(), &[3, 3])
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
    m.add_function(wrap_pyfunction!(betti_matching_octants, m)?)
}
