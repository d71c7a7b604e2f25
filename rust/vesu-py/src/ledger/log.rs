//! The open log: one lock guards it.
//!
//! Opening passes through the gate like any kernel. Appending does not: it takes two microseconds, and the gate's
//! thread would cost ten times that. It runs on the caller's thread under the same rules (`guarded`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use vesu_core::ledger::{Chain, Column, Durable, IterationBlock, Log, hex, unhex};
use vesu_core::{Error, Result};

use super::values::{common_fields, record_fields};
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
pub struct LedgerLog {
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

    #[pyo3(signature = (name, columns, common, ts_ns = None))]
    fn append_table(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        columns: &Bound<'_, PyDict>,
        common: &Bound<'_, PyAny>,
        ts_ns: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let (name, common, ts_ns) = (event_name(name)?, common_fields(common)?, time(ts_ns)?);
        let columns = columns.iter().map(|(key, values)| Ok((key.extract()?, Values::of(&values)?)));
        let columns = columns.collect::<PyResult<Vec<(String, Values<'_>)>>>()?;
        let borrowed: Vec<_> = columns.iter().map(|(key, values)| (key.clone(), values.column())).collect();
        self.detached(py, |state| state.log()?.append_table(name, &borrowed, &common, ts_ns))
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

    /// Sync, then size and root of the tree over all records: what they cover is durable.
    fn durable_tree_head(&self, py: Python<'_>) -> PyResult<(u64, String)> {
        self.detached(py, |state| {
            if let State::Open(log) = state {
                log.sync()?;
            }
            Ok((state.chain().size(), hex(&state.chain().root())))
        })
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

/// A column of a table: int64 or float64, one value a row.
enum Values<'py> {
    Int(args::Array<'py, i64>),
    Float(args::Array<'py, f64>),
}

impl<'py> Values<'py> {
    fn of(values: &Bound<'py, PyAny>) -> PyResult<Self> {
        match args::array::<i64>("columns", values, 1) {
            Ok(ints) => Ok(Self::Int(ints)),
            Err(_) => args::array::<f64>("columns", values, 1).map(Self::Float),
        }
    }

    fn column(&self) -> Column<'_> {
        match self {
            Self::Int(ints) => Column::Int(ints.as_slice()),
            Self::Float(floats) => Column::Float(floats.as_slice()),
        }
    }
}

#[pyfunction]
#[pyo3(signature = (path, durable = None))]
pub fn ledger_open(py: Python<'_>, path: PathBuf, durable: Option<(u64, String)>) -> PyResult<LedgerLog> {
    let head = |(size, root): (u64, String)| {
        let refuse = || Error::argument("durable", format!("root {root:?}"), "64 hexadecimal digits");
        Ok(Durable { size, root: unhex(&root).ok_or_else(refuse)? })
    };
    let log = gate::enter(py, None, |cancel| Log::open(&path, durable.map(head).transpose()?, cancel))?;
    Ok(LedgerLog { torn_bytes: log.torn_bytes(), state: Mutex::new(State::Open(Box::new(log))) })
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
