//! The event ledger's binding: Python dicts become the core's values, one lock guards the log.
//!
//! Opening and verifying pass through the gate like any kernel. Appending does not: it takes two microseconds, and
//! the gate's thread would cost ten times that. It runs on the caller's thread under the same rules (`guarded`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use vesu_core::ledger::canonical::MAX_DEPTH;
use vesu_core::ledger::{self, Chain, IterationBlock, Log, MAX_RECORD_BYTES, Members, Tree, Value, hex};
use vesu_core::{Error, Result};

use crate::args;
use crate::gate::{self, argument_error};

/// An open log, or what is known of it since it was closed.
enum State {
    Open(Box<Log>),
    Closed(Chain),
}

impl State {
    fn chain(&self) -> &Chain {
        match self {
            Self::Open(log) => log.chain(),
            Self::Closed(chain) => chain,
        }
    }

    fn log(&mut self) -> Result<&mut Log> {
        match self {
            Self::Open(log) => Ok(log),
            Self::Closed(_) => Err(Error::argument("ledger", "a closed log", "an open one")),
        }
    }
}

#[pyclass(frozen, module = "vesu._core")]
struct LedgerLog {
    state: Mutex<State>,
    torn_bytes: u64,
}

impl LedgerLog {
    /// Short work on the state. The interpreter stays attached (handing it over costs more than the work) unless
    /// another thread holds the lock: waiting attached would stall every Python thread behind its fsync.
    fn quick<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut State) -> Result<T> + Send) -> PyResult<T> {
        match self.state.try_lock() {
            Ok(mut state) => guarded(py, || work(&mut state)),
            Err(_) => self.detached(py, work),
        }
    }

    /// Work that may wait for the disk or take milliseconds.
    fn detached<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut State) -> Result<T> + Send) -> PyResult<T> {
        let outcome = py.detach(|| {
            catch_unwind(AssertUnwindSafe(|| {
                // The guard is dropped in here: nobody ever waits for the interpreter while holding the lock.
                work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
            }))
        });
        guarded(py, || outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

#[pymethods]
impl LedgerLog {
    #[pyo3(signature = (name, fields, ts_ns = None))]
    fn append(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        fields: &Bound<'_, PyAny>,
        ts_ns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let (name, members, ts_ns) = (event_name(name)?, members(fields)?, time(ts_ns)?);
        self.quick(py, |state| state.log()?.append(&name, members, ts_ns))
    }

    #[pyo3(signature = (events, ts_ns = None))]
    fn append_many(
        &self,
        py: Python<'_>,
        events: &Bound<'_, PyList>,
        ts_ns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let ts_ns = time(ts_ns)?;
        let mut converted = Vec::new();
        for event in events.iter() {
            let Ok((name, fields)) = event.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
                return Err(argument_error(py, "events", event.get_type().name()?, "pairs of a name and its fields"));
            };
            converted.push((event_name(&name)?, members(&fields)?));
        }
        self.detached(py, |state| state.log()?.append_many(converted, ts_ns))
    }

    #[pyo3(signature = (name, iteration, max_iter, candidate_first, loss, gradient_norm, nonzero, common, ts_ns = None))]
    #[allow(clippy::too_many_arguments)] // one per field of the record
    fn append_iterations(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        iteration: i64,
        max_iter: i64,
        candidate_first: i64,
        loss: &Bound<'_, PyAny>,
        gradient_norm: &Bound<'_, PyAny>,
        nonzero: &Bound<'_, PyAny>,
        common: &Bound<'_, PyAny>,
        ts_ns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let (name, common, ts_ns) = (event_name(name)?, members(common)?, time(ts_ns)?);
        let loss = args::array::<f64>("loss", loss, 1)?;
        let gradient_norm = args::array::<f64>("gradient_norm", gradient_norm, 1)?;
        let nonzero = args::array::<i64>("nonzero", nonzero, 1)?;
        let block = IterationBlock {
            iteration,
            max_iter,
            candidate_first,
            loss: loss.as_slice(),
            gradient_norm: gradient_norm.as_slice(),
            nonzero: nonzero.as_slice(),
        };
        self.detached(py, |state| state.log()?.append_iterations(&name, block, &common, ts_ns))
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, |state| state.log()?.flush())
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, |state| state.log()?.sync())
    }

    /// Sync and close. When the sync fails the log stays open, with nothing lost.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.detached(py, |state| {
            if let State::Open(log) = state {
                log.sync()?;
                let chain = log.chain().clone();
                *state = State::Closed(chain);
            }
            Ok(())
        })
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        self.quick(py, |state| Ok(matches!(state, State::Closed(_))))
    }

    #[getter]
    fn size(&self, py: Python<'_>) -> PyResult<u64> {
        self.quick(py, |state| Ok(state.chain().size()))
    }

    #[getter]
    fn root(&self, py: Python<'_>) -> PyResult<String> {
        self.quick(py, |state| Ok(hex(&state.chain().root())))
    }

    #[getter]
    fn head(&self, py: Python<'_>) -> PyResult<String> {
        self.quick(py, |state| Ok(state.chain().head().to_owned()))
    }

    #[getter]
    fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }
}

#[pyfunction]
fn ledger_open(py: Python<'_>, path: PathBuf) -> PyResult<LedgerLog> {
    let log = gate::enter(py, Some(1), |cancel| Log::open(&path, cancel))?;
    Ok(LedgerLog { torn_bytes: log.torn_bytes(), state: Mutex::new(State::Open(Box::new(log))) })
}

#[pyfunction]
fn ledger_verify(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let report = gate::enter(py, Some(1), |cancel| ledger::verify(&path, cancel))?;
    let result = PyDict::new(py);
    result.set_item("entries", report.entries)?;
    result.set_item("root", report.root)?;
    result.set_item("head", report.head)?;
    result.set_item("first_ts_ns", report.first_ts_ns)?;
    result.set_item("last_ts_ns", report.last_ts_ns)?;
    result.set_item("torn_bytes", report.torn_bytes)?;
    Ok(result)
}

#[pyfunction]
fn ledger_canonical<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let value = Walk::new().value(value, 0).map_err(|refusal| refusal.raise(py, "value"))?;
    Ok(PyBytes::new(py, &guarded(py, || value.to_canonical())?))
}

#[pyfunction]
fn ledger_tree_head(py: Python<'_>, entries: Vec<Vec<u8>>) -> PyResult<String> {
    gate::enter(py, Some(1), |cancel| {
        let mut tree = Tree::new();
        for entry in &entries {
            cancel.check()?;
            tree.push(ledger::merkle::leaf_hash(entry));
        }
        Ok(hex(&tree.root()))
    })
}

/// The gate's promises for short work: errors mapped, no panic across.
fn guarded<T>(py: Python<'_>, work: impl FnOnce() -> Result<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| gate::raise(py, error)),
        Err(_) => {
            let class = py.import("vesu.errors")?.getattr("InternalError")?;
            Err(PyErr::from_value(class.call1(("internal error in vesu's ledger, please report it",))?))
        }
    }
}

fn event_name(name: &Bound<'_, PyAny>) -> PyResult<String> {
    match name.extract::<String>() {
        Ok(text) => Ok(text),
        Err(_) => Err(argument_error(name.py(), "name", name.repr()?, "the event's name, a str")),
    }
}

fn time(ts_ns: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    match ts_ns.map(|value| (value, value.extract::<u64>())) {
        None => Ok(None),
        Some((_, Ok(ns))) => Ok(Some(ns)),
        Some((value, Err(_))) => {
            Err(argument_error(value.py(), "ts_ns", value.repr()?, "nanoseconds since 1970 as an int, or None"))
        }
    }
}

/// The members of a record from a Python dict.
fn members(fields: &Bound<'_, PyAny>) -> PyResult<Members> {
    let py = fields.py();
    let Ok(dict) = fields.cast::<PyDict>() else {
        return Err(argument_error(py, "fields", fields.get_type().name()?, "a dict"));
    };
    Walk::new().dict(dict, 0).map_err(|refusal| refusal.raise(py, "fields"))
}

/// Why a Python value cannot stand in a record. The path grows from the inside out as the error travels up.
struct Refusal {
    path: String,
    got: String,
    accepted: String,
}

impl Refusal {
    fn new(got: impl ToString, accepted: impl ToString) -> Self {
        Self { path: String::new(), got: got.to_string(), accepted: accepted.to_string() }
    }

    fn under(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }

    fn raise(self, py: Python<'_>, name: &'static str) -> PyErr {
        let at = self.path.trim_start_matches('.');
        let got = if at.is_empty() { self.got } else { format!("{} at {at:?}", self.got) };
        argument_error(py, name, got, &self.accepted)
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::new(error, ACCEPTED)
    }
}

const ACCEPTED: &str = "str, int, float, bool, None, list, tuple, dict with str keys, numpy scalars";

/// A walk over one Python value with a budget, so that a small object graph cannot unfold into a huge record.
struct Walk {
    budget: usize,
}

impl Walk {
    fn new() -> Self {
        Self { budget: MAX_RECORD_BYTES }
    }

    fn value(&mut self, object: &Bound<'_, PyAny>, depth: usize) -> Result<Value, Refusal> {
        self.spend(1)?;
        if let Ok(text) = object.cast::<PyString>() {
            self.text(text).map(Value::String)
        } else if let Ok(number) = object.cast::<PyFloat>() {
            Ok(Value::Float(number.value()))
        } else if let Ok(flag) = object.cast::<PyBool>() {
            Ok(Value::Bool(flag.is_true()))
        } else if let Ok(number) = object.cast::<PyInt>() {
            self.int(number)
        } else if object.is_none() {
            Ok(Value::Null)
        } else if let Ok(dict) = object.cast::<PyDict>() {
            self.dict(dict, depth).map(Value::Object)
        } else if let Ok(list) = object.cast::<PyList>() {
            self.items(list.iter(), depth)
        } else if let Ok(tuple) = object.cast::<PyTuple>() {
            self.items(tuple.iter(), depth)
        } else if object.is_instance(numpy_scalar(object.py())?)? {
            let item = object.call_method0("item")?;
            // A long double is its own item: it has no Python twin.
            if item.is_instance(numpy_scalar(object.py())?)? {
                Err(refused_type(object))
            } else {
                self.value(&item, depth)
            }
        } else {
            Err(refused_type(object))
        }
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Result<Members, Refusal> {
        check_depth(depth)?;
        // Room for the members that the ledger adds.
        let mut members = Vec::with_capacity(dict.len().min(self.budget) + 5);
        // A copy: iterating a dict that changes meanwhile panics, and converting an int subclass may run Python code.
        for (key, value) in dict.copy()?.iter() {
            let Ok(key) = key.cast::<PyString>() else {
                return Err(Refusal::new(format!("the key {}", key.repr()?), "str keys"));
            };
            let key = self.text(key)?;
            let value = self.value(&value, depth + 1).map_err(|refusal| refusal.under(&format!(".{key}")))?;
            members.push((key, value));
        }
        Ok(members)
    }

    fn items<'py>(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> Result<Value, Refusal> {
        check_depth(depth)?;
        let walked = items
            .enumerate()
            .map(|(i, item)| self.value(&item, depth + 1).map_err(|refusal| refusal.under(&format!("[{i}]"))));
        walked.collect::<Result<_, _>>().map(Value::Array)
    }

    fn int(&mut self, number: &Bound<'_, PyInt>) -> Result<Value, Refusal> {
        if let Ok(int) = number.extract::<i64>() {
            return Ok(Value::Int(int));
        }
        let digits = number.call_method1("__format__", ("d",))?;
        self.text(digits.cast::<PyString>().map_err(PyErr::from)?).map(Value::String)
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> Result<String, Refusal> {
        let text = text.to_str().map_err(|_| Refusal::new("text with a lone surrogate", "text that UTF-8 can hold"))?;
        self.spend(text.len())?;
        Ok(text.to_owned())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Refusal> {
        let left = self.budget.checked_sub(bytes);
        self.budget =
            left.ok_or_else(|| Refusal::new("too much", format!("a record of at most {MAX_RECORD_BYTES} bytes")))?;
        Ok(())
    }
}

fn check_depth(depth: usize) -> Result<(), Refusal> {
    if depth <= MAX_DEPTH { Ok(()) } else { Err(Refusal::new("nesting", format!("a depth of at most {MAX_DEPTH}"))) }
}

fn refused_type(object: &Bound<'_, PyAny>) -> Refusal {
    match object.get_type().name() {
        Ok(name) => Refusal::new(name, ACCEPTED),
        Err(error) => error.into(),
    }
}

/// `numpy.generic`, the base class of every numpy scalar.
fn numpy_scalar<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyType>> {
    static GENERIC: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    GENERIC.import(py, "numpy", "generic")
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<LedgerLog>()?;
    m.add_function(wrap_pyfunction!(ledger_open, m)?)?;
    m.add_function(wrap_pyfunction!(ledger_verify, m)?)?;
    m.add_function(wrap_pyfunction!(ledger_canonical, m)?)?;
    m.add_function(wrap_pyfunction!(ledger_tree_head, m)?)?;
    Ok(())
}
