//! The resumable solver.

use std::sync::{Mutex, MutexGuard, TryLockError};

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use vesu_core::prox::{Grid, Isa, IterationStats, Method, Settings, Solver, Standardisation, Values};

use super::partial::{Rows, rows};
use super::{Doubles, Samples};
use crate::args;
use crate::gate::{argument_error, enter, raise};

type Stats<'py> = (Doubles<'py>, Doubles<'py>, Bound<'py, PyArray1<i64>>);

/// The one entry of a state that is not an array.
const ITERATION: &str = "iteration";

/// All candidates of a grid; `step` is one iteration. Samples are borrowed for the length of a step, never copied.
#[pyclass(frozen, module = "vesu._core")]
pub struct ProxSolver {
    solver: Mutex<Solver>,
    standard: Standardisation,
}

impl ProxSolver {
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Solver>> {
        match self.solver.try_lock() {
            Ok(guard) => Ok(guard),
            // A step writes its result only when it is whole, so a panic before that left the state good.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(argument_error(py, "solver", "a call while another thread uses it", "one call at a time"))
            }
        }
    }
}

#[pymethods]
impl ProxSolver {
    #[new]
    #[pyo3(signature = (mean, scale, uses_gradient, meta_neurons, l1, l2, learning_rate, seed, init_scale,
                        bootstrap = true, class_weight = [1.0, 1.0], simd = None, method = "ista", tol = 1e-6))]
    #[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
    fn new(
        py: Python<'_>,
        mean: Vec<f64>,
        scale: Vec<f64>,
        uses_gradient: bool,
        meta_neurons: usize,
        l1: Vec<f64>,
        l2: Vec<f64>,
        learning_rate: f64,
        seed: u64,
        init_scale: f64,
        bootstrap: bool,
        class_weight: [f64; 2],
        simd: Option<&str>,
        method: &str,
        tol: f64,
    ) -> PyResult<Self> {
        let build = || {
            let standard = Standardisation::new(mean, scale)?;
            let n_coefficients = standard.n_features() * if uses_gradient { 3 } else { 2 };
            let method = Method::parse(method)?;
            let settings = Settings { method, learning_rate, seed, init_scale, bootstrap, class_weight, tol };
            let grid = Grid::new(meta_neurons, l1, l2)?;
            let solver = Solver::new(grid, settings, n_coefficients, Isa::choose(simd)?)?;
            Ok(Self { solver: Mutex::new(solver), standard })
        };
        build().map_err(|error| raise(py, error))
    }

    /// One iteration: (loss, gradient_norm, nonzero), each (n_candidates,). Values must be finite: the caller
    /// standardised them.
    #[pyo3(signature = (x, y, gradient = None, n_threads = None))]
    fn step<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        gradient: Option<&Bound<'py, PyAny>>,
        n_threads: Option<i64>,
    ) -> PyResult<Stats<'py>> {
        let samples = Samples::read(x, Some(y), gradient)?;
        let view = samples.view();
        let mut guard = self.lock(py)?;
        let solver = &mut *guard;
        let stats = enter(py, n_threads, |cancel| solver.step(&view.design(&self.standard)?, cancel))?;
        Ok(to_stats(py, stats))
    }

    /// (n_candidates, n_coefficients + 1): where the next step takes its gradients. A step in three pieces, for processes
    /// that share the samples: this, [`partial_sums`](Self::partial_sums) on all, [`advance`](Self::advance).
    fn gradient_points<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let solver = self.lock(py)?;
        let points = solver.gradient_points().map_err(|error| raise(py, error))?;
        PyArray1::from_vec(py, points).reshape([solver.grid().len(), solver.width()])
    }

    /// (n_tasks, n_sums): what each task adds to the pass at `points`; the samples are those from `first` on of `n_samples`.
    #[pyo3(signature = (points, x, y, gradient, first, n_samples, n_threads = None))]
    #[expect(clippy::too_many_arguments, reason = "one argument a Python argument")]
    fn partial_sums<'py>(
        &self,
        py: Python<'py>,
        points: &Bound<'py, PyAny>,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        gradient: Option<&Bound<'py, PyAny>>,
        first: usize,
        n_samples: usize,
        n_threads: Option<i64>,
    ) -> PyResult<Rows<'py>> {
        let points = args::array::<f64>("points", points, 2)?;
        let samples = Samples::read(x, Some(y), gradient)?;
        let (view, values) = (samples.view(), points.as_slice());
        let guard = self.lock(py)?;
        let solver = &*guard;
        let sums = enter(py, n_threads, |cancel| {
            solver.partial_sums(&view.design(&self.standard)?.within(first, n_samples)?, values, cancel)
        })?;
        rows(py, sums, solver.n_sums())
    }

    /// The rest of a step, (loss, gradient_norm, nonzero), from the sum (n_sums,) of the rows of all tasks in order.
    fn advance<'py>(&self, py: Python<'py>, sums: &Bound<'py, PyAny>, n_samples: usize) -> PyResult<Stats<'py>> {
        let sums = args::array::<f64>("sums", sums, 1)?;
        let stats = self.lock(py)?.advance(sums.as_slice(), n_samples).map_err(|error| raise(py, error))?;
        Ok(to_stats(py, stats))
    }

    /// (objective, gap) of the params on these samples, each (n_candidates,).
    #[pyo3(signature = (x, y, gradient = None, n_threads = None))]
    fn certify<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        gradient: Option<&Bound<'py, PyAny>>,
        n_threads: Option<i64>,
    ) -> PyResult<(Doubles<'py>, Doubles<'py>)> {
        let samples = Samples::read(x, Some(y), gradient)?;
        let view = samples.view();
        let guard = self.lock(py)?;
        let solver = &*guard;
        let found = enter(py, n_threads, |cancel| solver.certify(&view.design(&self.standard)?, cancel))?;
        Ok((PyArray1::from_vec(py, found.objective), PyArray1::from_vec(py, found.gap)))
    }

    /// All that the next step depends on, arrays by name and the integer `iteration`.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut state = self.lock(py)?.state().clone();
        let n = state.diverged.len();
        let found = PyDict::new(py);
        found.set_item(ITERATION, state.iteration)?;
        for (name, values) in state.arrays() {
            let shape = shape(n, values.len());
            match values {
                Values::Reals(values) => found.set_item(name, args::to_numpy(py, std::mem::take(values), &shape)?)?,
                Values::Flags(values) => found.set_item(name, args::to_numpy(py, std::mem::take(values), &shape)?)?,
            }
        }
        Ok(found)
    }

    /// Go on from a state of a solver of the same method, grid and width; refuses anything else by the field's name.
    fn set_state(&self, py: Python<'_>, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(given) = state.cast::<PyMapping>() else {
            return Err(argument_error(py, "state", state.get_type().name()?, "a mapping as `state()` gives it"));
        };
        let mut solver = self.lock(py)?;
        let mut next = solver.state().clone();
        let n = next.diverged.len();
        let mut names = vec![ITERATION];
        let iteration = entry(given, ITERATION)?;
        next.iteration = iteration
            .extract()
            .map_err(|_| argument_error(py, ITERATION, &iteration, "an integer >= 0, the iterations done"))?;
        for (name, values) in next.arrays() {
            names.push(name);
            let value = entry(given, name)?;
            let shape = shape(n, values.len());
            match values {
                Values::Reals(values) => *values = read(name, &value, &shape)?,
                Values::Flags(values) => *values = read(name, &value, &shape)?,
            }
        }
        for key in given.keys()? {
            let key = key.str()?.to_string();
            if !names.contains(&key.as_str()) {
                let accepted = format!("the entries of {}: {}", next.method().name(), names.join(", "));
                return Err(argument_error(py, "state", format!("an entry {key:?}"), &accepted));
            }
        }
        solver.set_state(next).map_err(|error| raise(py, error))
    }

    /// (n_candidates,) bool: certified by prox_newton.
    #[getter]
    fn converged<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<bool>>> {
        Ok(PyArray1::from_vec(py, self.lock(py)?.converged()))
    }

    #[getter]
    fn iteration(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.lock(py)?.iteration())
    }

    #[getter]
    fn method(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.lock(py)?.state().method().name())
    }

    #[getter]
    fn simd(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(self.lock(py)?.isa().name())
    }
}

fn to_stats(py: Python<'_>, stats: IterationStats) -> Stats<'_> {
    (
        PyArray1::from_vec(py, stats.loss),
        PyArray1::from_vec(py, stats.gradient_norm),
        PyArray1::from_vec(py, stats.nonzero),
    )
}

/// (n_candidates,) or (n_candidates, the rest).
fn shape(n_candidates: usize, len: usize) -> Vec<usize> {
    if len == n_candidates { vec![n_candidates] } else { vec![n_candidates, len / n_candidates] }
}

fn entry<'py>(state: &Bound<'py, PyMapping>, name: &'static str) -> PyResult<Bound<'py, PyAny>> {
    state.get_item(name).map_err(|error| {
        if error.is_instance_of::<PyKeyError>(state.py()) {
            argument_error(state.py(), "state", format!("no entry {name:?}"), "the entries that `state()` gives")
        } else {
            error
        }
    })
}

fn read<T: numpy::Element + Copy>(name: &'static str, value: &Bound<'_, PyAny>, shape: &[usize]) -> PyResult<Vec<T>> {
    let array = args::array::<T>(name, value, shape.len())?;
    if array.shape() != shape {
        let got = format!("shape {:?}", array.shape());
        return Err(argument_error(value.py(), name, got, &format!("shape {shape:?}")));
    }
    Ok(array.as_slice().to_vec())
}
