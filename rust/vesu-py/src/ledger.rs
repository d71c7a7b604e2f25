//! The event ledger's binding: Python dicts become the core's values, one lock guards the log.
//!
//! Opening and verifying pass through the gate like any kernel. Appending does not: it takes two microseconds, and
//! the gate's thread would cost ten times that. It runs on the caller's thread under the same rules (`guarded`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::PyTypeCheck;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use vesu_core::ledger::canonical::{self, MAX_DEPTH};
use vesu_core::ledger::{self, Chain, Fields, IterationBlock, Log, MAX_RECORD_BYTES, Tree, hex};
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
        let (name, fields, ts_ns) = (event_name(name)?, record_fields(fields)?, time(ts_ns)?);
        self.quick(py, |state| state.log()?.append(name, &fields, ts_ns))
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
            converted.push((event_name(&name)?.to_owned(), record_fields(&fields)?));
        }
        let borrowed = converted.iter().map(|(name, fields)| (name.as_str(), fields));
        self.detached(py, |state| state.log()?.append_many(borrowed, ts_ns))
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
        let (name, common, ts_ns) = (event_name(name)?, common_fields(common)?, time(ts_ns)?);
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
        self.detached(py, |state| state.log()?.append_iterations(name, block, &common, ts_ns))
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
    let mut walk = Walk::new();
    let mut out = Vec::new();
    walk.value(value, 0, &mut out).map_err(|refusal| refusal.raise(py, "value"))?;
    walk.refuse_nonfinite().map_err(|refusal| refusal.raise(py, "value"))?;
    Ok(PyBytes::new(py, &out))
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

fn event_name<'a>(name: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    match name.cast::<PyString>().ok().and_then(|text| text.to_str().ok()) {
        Some(text) => Ok(text),
        None => Err(argument_error(name.py(), "name", name.repr()?, "the event's name, a str")),
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

/// A record's fields from a Python dict.
fn record_fields(fields: &Bound<'_, PyAny>) -> PyResult<Fields> {
    let py = fields.py();
    let Ok(dict) = fields.cast::<PyDict>() else {
        return Err(argument_error(py, "fields", fields.get_type().name()?, "a dict"));
    };
    let mut walk = Walk::new();
    let built = items_of(dict)
        .and_then(|items| Fields::build(&mut as_text(&items)?, |key, value, out| walk.member(key, value, 0, out)));
    let mut fields = built.map_err(|refusal| refusal.raise(py, "fields"))?;
    fields.nonfinite = walk.nonfinite;
    Ok(fields)
}

/// The fields that every record of a block shares: names and canonical values.
fn common_fields(fields: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Vec<u8>)>> {
    let py = fields.py();
    let Ok(dict) = fields.cast::<PyDict>() else {
        return Err(argument_error(py, "common", fields.get_type().name()?, "a dict"));
    };
    let mut walk = Walk::new();
    let walked = items_of(dict).and_then(|items| {
        let mut common = Vec::with_capacity(items.len());
        for (key, value) in as_text(&items)? {
            let mut text = Vec::new();
            walk.member(key, value, 0, &mut text)?;
            common.push((key.to_owned(), text));
        }
        walk.refuse_nonfinite().map(|()| common)
    });
    walked.map_err(|refusal| refusal.raise(py, "common"))
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

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Argument { got, accepted, .. } => Self::new(got, accepted),
            other => Self::new(other, ACCEPTED),
        }
    }
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::new(error, ACCEPTED)
    }
}

const ACCEPTED: &str = "str, int, float, bool, None, list, tuple, dict with str keys, numpy scalars";

type Items<'py> = Vec<(Bound<'py, PyString>, Bound<'py, PyAny>)>;

/// A dict's items, taken before anything else runs: converting a value may call Python code that changes the dict.
fn items_of<'py>(dict: &Bound<'py, PyDict>) -> Result<Items<'py>, Refusal> {
    let mut items = Vec::with_capacity(dict.len());
    for (key, value) in dict.iter() {
        match key.cast_into::<PyString>() {
            Ok(key) => items.push((key, value)),
            Err(error) => return Err(Refusal::new(format!("the key {}", error.into_inner().repr()?), "str keys")),
        }
    }
    Ok(items)
}

fn as_text<'a, 'py>(items: &'a Items<'py>) -> Result<Vec<(&'a str, &'a Bound<'py, PyAny>)>, Refusal> {
    items.iter().map(|(key, value)| Ok((text_of(key)?, value))).collect()
}

fn text_of<'a>(text: &'a Bound<'_, PyString>) -> Result<&'a str, Refusal> {
    text.to_str().map_err(|_| Refusal::new("text with a lone surrogate", "text that UTF-8 can hold"))
}

/// `object.cast().ok()`, without the cost of building an error for each type that it is not.
fn as_type<'a, 'py, T: PyTypeCheck>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, T>> {
    if object.is_instance_of::<T>() { object.cast().ok() } else { None }
}

/// A walk over one Python value that writes canonical JSON, with a budget, so that a small object graph cannot unfold
/// into a huge record.
struct Walk {
    budget: usize,
    /// Dotted names, relative to the value being walked, of what is not finite in it.
    nonfinite: Vec<String>,
}

impl Walk {
    fn new() -> Self {
        Self { budget: MAX_RECORD_BYTES, nonfinite: Vec::new() }
    }

    fn value(&mut self, object: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.spend(1)?;
        if let Some(text) = as_type::<PyString>(object) {
            let text = text_of(text)?;
            self.spend(text.len())?;
            canonical::write_string(text, out);
        } else if object.is_exact_instance_of::<PyFloat>()
            && let Some(number) = as_type::<PyFloat>(object)
        {
            self.float(number, out);
        } else if let Some(flag) = as_type::<PyBool>(object) {
            canonical::write_bool(flag.is_true(), out);
        } else if let Some(number) = as_type::<PyInt>(object) {
            self.int(number, out)?;
        } else if object.is_none() {
            out.extend_from_slice(b"null");
        } else if let Some(dict) = as_type::<PyDict>(object) {
            check_depth(depth)?;
            let items = items_of(dict)?;
            canonical::write_object(&mut as_text(&items)?, out, |key, value, out| self.member(key, value, depth, out))?;
        } else if let Some(list) = as_type::<PyList>(object) {
            self.array(list.iter(), depth, out)?;
        } else if let Some(tuple) = as_type::<PyTuple>(object) {
            self.array(tuple.iter(), depth, out)?;
        } else if let Some(number) = as_type::<PyFloat>(object) {
            self.float(number, out); // a subclass such as numpy.float64
        } else {
            self.scalar(object, depth, out)?;
        }
        Ok(())
    }

    /// The value of an object's member `key`; `depth` is the object's.
    fn member(&mut self, key: &str, value: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
        self.spend(key.len())?;
        let named = self.nonfinite.len();
        self.value(value, depth + 1, out).map_err(|refusal| refusal.under(&format!(".{key}")))?;
        for name in &mut self.nonfinite[named..] {
            *name = if depth == 0 { format!("{key}{name}") } else { format!(".{key}{name}") };
        }
        Ok(())
    }

    fn array<'py>(
        &mut self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        check_depth(depth)?;
        let named = self.nonfinite.len();
        out.push(b'[');
        for (i, item) in items.enumerate() {
            self.value(&item, depth + 1, out).map_err(|refusal| refusal.under(&format!("[{i}]")))?;
            out.push(b',');
        }
        canonical::close(b'[', b']', out);
        // An array counts as one field, however many of its numbers are not finite.
        let mut names = self.nonfinite.split_off(named);
        names.sort_unstable();
        names.dedup();
        self.nonfinite.append(&mut names);
        Ok(())
    }

    fn float(&mut self, number: &Bound<'_, PyFloat>, out: &mut Vec<u8>) {
        if !canonical::write_float(number.value(), out) {
            self.nonfinite.push(String::new());
        }
    }

    fn int(&mut self, number: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Ok(int) = number.extract::<i64>() {
            canonical::write_int(int, out);
            return Ok(());
        }
        let digits = number.call_method1("__format__", ("d",))?;
        let digits = digits.cast::<PyString>().map_err(PyErr::from)?;
        self.spend(digits.len()?)?;
        canonical::write_string(text_of(digits)?, out);
        Ok(())
    }

    /// A numpy scalar, by its Python twin; nothing else is left.
    fn scalar(&mut self, object: &Bound<'_, PyAny>, depth: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let is_scalar = |object: &Bound<'_, PyAny>| object.is_instance(numpy_scalar(object.py())?);
        if is_scalar(object)? {
            let item = object.call_method0("item")?;
            // A long double is its own item: it has no Python twin.
            if !is_scalar(&item)? {
                return self.value(&item, depth, out);
            }
        }
        Err(refused_type(object))
    }

    fn refuse_nonfinite(&self) -> Result<(), Refusal> {
        match self.nonfinite.first() {
            None => Ok(()),
            Some(name) => Err(Refusal::new("a number that is not finite", "finite numbers").under(name)),
        }
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
