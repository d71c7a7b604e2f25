//! The prox-fit search: a resumable solver, scores for selection, ensemble prediction.

mod partial;
mod solver;

use numpy::{PyArray1, PyArray3, PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use vesu_core::prox::predict::{Ensemble, Prediction};
use vesu_core::prox::{self, Design, Isa, Standardisation};
use vesu_core::{Error, Result};

use crate::args::{self, Array};
use crate::gate::{argument_error, enter, raise};

type Doubles<'py> = Bound<'py, PyArray1<f64>>;
type Floats<'py> = Bound<'py, PyArrayDyn<f32>>;

/// Samples as they come from Python, checked in type and shape and held for the length of one call.
struct Samples<'py> {
    x: Array<'py, f32>,
    labels: Option<Array<'py, u8>>,
    gradient: Option<Array<'py, f32>>,
}

impl<'py> Samples<'py> {
    fn read(
        x: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        gradient: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let read = Self {
            x: args::array("x", x, 2)?,
            labels: labels.map(|labels| args::array("y", labels, 1)).transpose()?,
            gradient: gradient.map(|gradient| args::array("gradient", gradient, 2)).transpose()?,
        };
        if let Some(gradient) = &read.gradient
            && gradient.shape() != read.x.shape()
        {
            let accepted = format!("the shape of x, {:?}", read.x.shape());
            return Err(argument_error(x.py(), "gradient", format!("shape {:?}", gradient.shape()), &accepted));
        }
        Ok(read)
    }

    fn view(&self) -> View<'_> {
        View {
            x: self.x.as_slice(),
            labels: self.labels.as_ref().map(Array::as_slice),
            gradient: self.gradient.as_ref().map(Array::as_slice),
            n_features: self.x.shape()[1],
        }
    }
}

/// The same as slices, to cross the gate.
#[derive(Clone, Copy)]
struct View<'a> {
    x: &'a [f32],
    labels: Option<&'a [u8]>,
    gradient: Option<&'a [f32]>,
    n_features: usize,
}

impl<'a> View<'a> {
    fn design(&self, standard: &'a Standardisation) -> Result<Design<'a>> {
        if self.n_features != standard.n_features() {
            let accepted = format!("{} columns, as in the standardisation", standard.n_features());
            return Err(Error::argument("x", format!("{} columns", self.n_features), accepted));
        }
        Design::new(self.x, self.gradient, self.labels, standard)
    }
}

/// The instruction-set path that the search takes: `simd`, else VESU_SIMD, else the widest of this machine.
#[pyfunction]
#[pyo3(signature = (simd = None))]
fn simd_path(py: Python<'_>, simd: Option<&str>) -> PyResult<&'static str> {
    Isa::choose(simd).map(Isa::name).map_err(|error| raise(py, error))
}

/// (mean, scale) of each column of `x`, float64; refuses NaN and infinities.
#[pyfunction]
#[pyo3(signature = (x, n_threads = None))]
fn prox_standardise<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<(Doubles<'py>, Doubles<'py>)> {
    let samples = Samples::read(x, None, None)?;
    let view = samples.view();
    let standard = enter(py, n_threads, move |cancel| {
        // Finiteness first: a design of unit scale asks for nothing else.
        let unit = Standardisation::new(vec![0.0; view.n_features], vec![1.0; view.n_features])?;
        view.design(&unit)?.check_finite(cancel)?;
        Standardisation::of(view.x, view.n_features, cancel)
    })?;
    Ok((PyArray1::from_slice(py, standard.mean()), PyArray1::from_slice(py, standard.scale())))
}

/// Lipschitz constant of the datafit's gradient.
#[pyfunction]
#[pyo3(signature = (x, y, gradient, mean, scale, class_weight = [1.0, 1.0], n_threads = None))]
#[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
fn prox_lipschitz<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    gradient: Option<&Bound<'py, PyAny>>,
    mean: Vec<f64>,
    scale: Vec<f64>,
    class_weight: [f64; 2],
    n_threads: Option<i64>,
) -> PyResult<f64> {
    let samples = Samples::read(x, Some(y), gradient)?;
    let view = samples.view();
    enter(py, n_threads, move |cancel| {
        let standard = Standardisation::new(mean, scale)?;
        let design = view.design(&standard)?;
        design.check_finite(cancel)?;
        prox::lipschitz(&design, class_weight, cancel)
    })
}

/// (cross_entropy (n_candidates,), reached (n_candidates, 2, n_thresholds) counts per class).
#[pyfunction]
#[pyo3(signature = (x, y, gradient, mean, scale, params, thresholds, simd = None, n_threads = None))]
#[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
fn prox_evaluate<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    gradient: Option<&Bound<'py, PyAny>>,
    mean: Vec<f64>,
    scale: Vec<f64>,
    params: &Bound<'py, PyAny>,
    thresholds: Vec<f32>,
    simd: Option<&str>,
    n_threads: Option<i64>,
) -> PyResult<(Doubles<'py>, Bound<'py, PyArray3<u64>>)> {
    let samples = Samples::read(x, Some(y), gradient)?;
    let params = args::array::<f64>("params", params, 2)?;
    let isa = Isa::choose(simd).map_err(|error| raise(py, error))?;
    let (view, values, n_thresholds) = (samples.view(), params.as_slice(), thresholds.len());
    let evaluation = enter(py, n_threads, move |cancel| {
        let standard = Standardisation::new(mean, scale)?;
        let design = view.design(&standard)?;
        design.check_finite(cancel)?;
        prox::evaluate(&design, values, &thresholds, isa, cancel)
    })?;
    let n = evaluation.cross_entropy.len();
    let reached = PyArray1::from_vec(py, evaluation.reached).reshape([n, 2, n_thresholds])?;
    Ok((PyArray1::from_vec(py, evaluation.cross_entropy), reached))
}

fn to_pair<'py>(py: Python<'py>, found: Prediction, shape: &[usize]) -> PyResult<(Floats<'py>, Floats<'py>)> {
    Ok((args::to_numpy(py, found.mean, shape)?, args::to_numpy(py, found.deviation, shape)?))
}

/// (mean, deviation) of the members' probabilities, float32 (n_samples,).
#[pyfunction]
#[pyo3(signature = (x, gradient, mean, scale, params, simd = None, n_threads = None))]
#[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
fn prox_predict<'py>(
    py: Python<'py>,
    x: &Bound<'py, PyAny>,
    gradient: Option<&Bound<'py, PyAny>>,
    mean: Vec<f64>,
    scale: Vec<f64>,
    params: &Bound<'py, PyAny>,
    simd: Option<&str>,
    n_threads: Option<i64>,
) -> PyResult<(Floats<'py>, Floats<'py>)> {
    let samples = Samples::read(x, None, gradient)?;
    let params = args::array::<f64>("params", params, 2)?;
    let isa = Isa::choose(simd).map_err(|error| raise(py, error))?;
    let (view, values) = (samples.view(), params.as_slice());
    let found = enter(py, n_threads, move |cancel| {
        let standard = Standardisation::new(mean, scale)?;
        view.design(&standard)?;
        Ensemble::new(standard, values, view.gradient.is_some(), isa)?.predict(view.x, view.gradient, cancel)
    })?;
    to_pair(py, found, &samples.x.shape()[..1])
}

/// (mean, deviation), float32 (z, y, x), from raw feature channels (n_features, z, y, x).
#[pyfunction]
#[pyo3(signature = (values, uses_gradient, mean, scale, params, simd = None, n_threads = None))]
#[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
fn prox_predict_volume<'py>(
    py: Python<'py>,
    values: &Bound<'py, PyAny>,
    uses_gradient: bool,
    mean: Vec<f64>,
    scale: Vec<f64>,
    params: &Bound<'py, PyAny>,
    simd: Option<&str>,
    n_threads: Option<i64>,
) -> PyResult<(Floats<'py>, Floats<'py>)> {
    let volume = args::array::<f32>("values", values, 4)?;
    let params = args::array::<f64>("params", params, 2)?;
    let isa = Isa::choose(simd).map_err(|error| raise(py, error))?;
    let (channels, members) = (volume.as_slice(), params.as_slice());
    let shape: [usize; 4] = std::array::from_fn(|axis| volume.shape()[axis]);
    let found = enter(py, n_threads, move |cancel| {
        let standard = Standardisation::new(mean, scale)?;
        Ensemble::new(standard, members, uses_gradient, isa)?.predict_volume(channels, shape, cancel)
    })?;
    to_pair(py, found, &shape[1..])
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(simd_path, m)?)?;
    m.add_function(wrap_pyfunction!(prox_standardise, m)?)?;
    m.add_function(wrap_pyfunction!(prox_lipschitz, m)?)?;
    m.add_function(wrap_pyfunction!(prox_evaluate, m)?)?;
    m.add_function(wrap_pyfunction!(prox_predict, m)?)?;
    m.add_function(wrap_pyfunction!(prox_predict_volume, m)?)?;
    partial::register(m)?;
    m.add_class::<solver::ProxSolver>()?;
    Ok(())
}
