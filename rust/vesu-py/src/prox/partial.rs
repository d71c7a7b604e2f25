//! The sums of the tasks whose samples one process holds, for processes that share a search: `x`, `y` and `gradient` are
//! the samples from `first` on of `n_samples`. Every result has one row a task, and all rows of all processes, added up in
//! the order of the tasks, give the bits of one process.

use numpy::{PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use vesu_core::prox::{self, Isa, Standardisation};

use super::{Doubles, Samples};
use crate::args;
use crate::gate::{argument_error, enter, raise};

pub type Rows<'py> = Bound<'py, PyArray2<f64>>;

/// (n_tasks, width), with no row where no task is held.
pub fn rows(py: Python<'_>, tasks: Vec<Vec<f64>>, width: usize) -> PyResult<Rows<'_>> {
    numpy::PyArray1::from_vec(py, tasks.concat()).reshape([tasks.len(), width])
}

/// First sample of each task of a pass over `n_samples`, and the end of the last.
#[pyfunction]
fn prox_tasks(py: Python<'_>, n_samples: usize) -> PyResult<Vec<usize>> {
    if n_samples == 0 {
        return Err(argument_error(py, "n_samples", n_samples, "1 or more"));
    }
    Ok(prox::task_bounds(n_samples))
}

/// Sums of the columns of `x`, or of their squared distances from `centre`.
#[pyfunction]
#[pyo3(signature = (x, centre, first, n_samples, n_threads = None))]
fn prox_column_sums<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    centre: Option<Vec<f64>>,
    first: usize,
    n_samples: usize,
    n_threads: Option<i64>,
) -> PyResult<Rows<'py>> {
    let samples = Samples::read(x, None, None)?;
    let view = samples.view();
    let n_features = view.n_features;
    if let Some(centre) = &centre
        && centre.len() != n_features
    {
        return Err(argument_error(py, "centre", format!("{} values", centre.len()), &format!("{n_features}")));
    }
    let sums = enter(py, n_threads, move |cancel| {
        prox::column_sums(view.x, n_features, centre.as_deref(), Some((first, n_samples)), cancel)
    })?;
    rows(py, sums, n_features)
}

/// Upper triangles of the rows' second moments.
#[pyfunction]
#[pyo3(signature = (x, y, gradient, mean, scale, class_weight, first, n_samples, n_threads = None))]
#[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
fn prox_moment_sums<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    gradient: Option<&Bound<'py, PyAny>>,
    mean: Vec<f64>,
    scale: Vec<f64>,
    class_weight: [f64; 2],
    first: usize,
    n_samples: usize,
    n_threads: Option<i64>,
) -> PyResult<Rows<'py>> {
    let samples = Samples::read(x, Some(y), gradient)?;
    let view = samples.view();
    let width = view.n_features * if view.gradient.is_some() { 3 } else { 2 } + 1;
    let sums = enter(py, n_threads, move |cancel| {
        let standard = Standardisation::new(mean, scale)?;
        let design = view.design(&standard)?.within(first, n_samples)?;
        design.check_finite(cancel)?;
        prox::moment_sums(&design, class_weight, cancel)
    })?;
    rows(py, sums, width * width)
}

/// Lipschitz constant of the datafit's gradient, from the sum of all rows of [`prox_moment_sums`].
#[pyfunction]
fn prox_lipschitz_of(py: Python<'_>, moment: Vec<f64>, n_samples: usize) -> PyResult<f64> {
    if moment.is_empty() || moment.len().isqrt().pow(2) != moment.len() || n_samples == 0 {
        let got = format!("{} values of {n_samples} samples", moment.len());
        return Err(argument_error(py, "moment", got, "a square matrix of one sample or more"));
    }
    Ok(prox::lipschitz_of(moment, n_samples))
}

/// (base-2 loss (n_tasks, n_candidates), reached (n_candidates x 2 x n_thresholds,) of all samples that are held).
#[pyfunction]
#[pyo3(signature = (x, y, gradient, mean, scale, params, thresholds, simd, first, n_samples, n_threads = None))]
#[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
fn prox_evaluation_sums<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    gradient: Option<&Bound<'py, PyAny>>,
    mean: Vec<f64>,
    scale: Vec<f64>,
    params: &Bound<'py, PyAny>,
    thresholds: Vec<f32>,
    simd: Option<&str>,
    first: usize,
    n_samples: usize,
    n_threads: Option<i64>,
) -> PyResult<(Rows<'py>, Bound<'py, numpy::PyArray1<u64>>)> {
    let samples = Samples::read(x, Some(y), gradient)?;
    let params = args::array::<f64>("params", params, 2)?;
    let isa = Isa::choose(simd).map_err(|error| raise(py, error))?;
    let (view, values, n_candidates) = (samples.view(), params.as_slice(), params.shape()[0]);
    let sums = enter(py, n_threads, move |cancel| {
        let standard = Standardisation::new(mean, scale)?;
        let design = view.design(&standard)?.within(first, n_samples)?;
        design.check_finite(cancel)?;
        prox::evaluation_sums(&design, values, &thresholds, isa, cancel)
    })?;
    Ok((rows(py, sums.loss, n_candidates)?, numpy::PyArray1::from_vec(py, sums.reached)))
}

/// Cross-entropy of each candidate from the sum of all tasks' base-2 losses.
#[pyfunction]
fn prox_cross_entropy_of(py: Python<'_>, loss: Vec<f64>, n_samples: usize) -> Doubles<'_> {
    numpy::PyArray1::from_vec(py, prox::cross_entropy_of(&loss, n_samples))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(prox_tasks, m)?)?;
    m.add_function(wrap_pyfunction!(prox_column_sums, m)?)?;
    m.add_function(wrap_pyfunction!(prox_moment_sums, m)?)?;
    m.add_function(wrap_pyfunction!(prox_lipschitz_of, m)?)?;
    m.add_function(wrap_pyfunction!(prox_evaluation_sums, m)?)?;
    m.add_function(wrap_pyfunction!(prox_cross_entropy_of, m)?)?;
    Ok(())
}
