//! The one gate between Python and the core: release the interpreter, run on a pool of the asked size, answer
//! Ctrl-C, turn errors into `VesuError`s, and let no panic across.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use vesu_core::{Cancel, Error};

/// How often the waiting thread looks for Ctrl-C. The core's loops poll their token every few milliseconds,
/// so the user's answer comes well within the promised half second.
const SIGNAL_POLL: Duration = Duration::from_millis(50);

const MAX_THREADS: usize = 1024;

/// Run `work` detached from the interpreter on `n_threads` threads (`None`: `VESU_NUM_THREADS`, else all cores).
pub fn enter<T, F>(py: Python<'_>, n_threads: Option<i64>, work: F) -> PyResult<T>
where
    T: Send,
    F: FnOnce(&Cancel) -> vesu_core::Result<T> + Send,
{
    let pool = pool(n_threads).map_err(|error| raise(py, error))?;
    let cancel = Cancel::new();
    let outcome: Mutex<Option<thread::Result<vesu_core::Result<T>>>> = Mutex::new(None);
    let finished = Condvar::new();

    let interrupted = thread::scope(|scope| {
        let (cancel, outcome, finished) = (&cancel, &outcome, &finished);
        let spawned = thread::Builder::new().name("vesu-gate".into()).spawn_scoped(scope, move || {
            let result = catch_unwind(AssertUnwindSafe(|| pool.install(|| work(cancel))));
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            finished.notify_one();
        });
        if let Err(source) = spawned {
            return Err(raise(py, Error::io("<new thread>", source)));
        }
        let mut interrupt = None;
        loop {
            let done = py.detach(|| {
                let guard = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                let (guard, _) = finished
                    .wait_timeout_while(guard, SIGNAL_POLL, |result| result.is_none())
                    .unwrap_or_else(PoisonError::into_inner);
                guard.is_some()
            });
            if done {
                return Ok(interrupt);
            }
            if interrupt.is_none()
                && let Err(signal) = py.check_signals()
            {
                cancel.cancel();
                interrupt = Some(signal);
            }
        }
    })?;
    if let Some(signal) = interrupted {
        return Err(signal);
    }
    match outcome.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(Ok(Ok(value))) => Ok(value),
        Some(Ok(Err(error))) => Err(raise(py, error)),
        Some(Err(panic)) => Err(internal(py, &panic_text(panic.as_ref()))),
        None => Err(internal(py, "a kernel ended without a result")),
    }
}

/// Turn a core error into the `vesu.errors` class that fits.
pub fn raise(py: Python<'_>, error: Error) -> PyErr {
    let text = error.to_string();
    let class = match &error {
        Error::Argument { .. } => "ArgumentError",
        Error::Format { .. } => "FormatError",
        Error::Memory { .. } => "MemoryLimitError",
        Error::Evidence { .. } | Error::Proof(_) => "EvidenceError",
        Error::Io { path, source } => {
            let path = path.display().to_string();
            return match source.raw_os_error() {
                // The three-argument form sets errno, strerror and filename, as OSError does.
                Some(code) => error_of(py, "FileError", (code, os_text(source), path)),
                None => error_of(py, "FileError", (text,)),
            };
        }
        Error::Cancelled => return PyKeyboardInterrupt::new_err("cancelled"),
        _ => "InternalError",
    };
    error_of(py, class, (text,))
}

/// `vesu.errors.ArgumentError` in the house's wording: which argument, what came, what is accepted.
pub fn argument_error(py: Python<'_>, name: &'static str, got: impl ToString, accepted: &str) -> PyErr {
    raise(py, Error::argument(name, got, accepted))
}

fn internal(py: Python<'_>, text: &str) -> PyErr {
    error_of(py, "InternalError", (format!("internal error in vesu's core, please report it: {text}"),))
}

fn error_of<'py, A>(py: Python<'py>, class: &str, arguments: A) -> PyErr
where
    A: pyo3::call::PyCallArgs<'py>,
{
    match py.import("vesu.errors").and_then(|errors| errors.getattr(class)).and_then(|class| class.call1(arguments)) {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => error,
    }
}

/// The system's text without Rust's " (os error 28)" tail, which Python prints itself.
fn os_text(source: &std::io::Error) -> String {
    let text = source.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

type Pools = HashMap<(u32, usize), Arc<ThreadPool>>;

/// A pool per size, made once a process: a forked child has none of its parent's threads, so the id is in the key.
fn pool(n_threads: Option<i64>) -> vesu_core::Result<Arc<ThreadPool>> {
    static POOLS: Mutex<Option<Pools>> = Mutex::new(None);
    let size = match n_threads {
        // Signed as Python's integers are, so that -1 gets an answer in our words.
        Some(asked) => usize::try_from(asked)
            .ok()
            .filter(|size| (1..=MAX_THREADS).contains(size))
            .ok_or_else(|| Error::argument("n_threads", asked, format!("1 to {MAX_THREADS}, or None for all cores")))?,
        None => default_threads()?,
    };
    let mut guard = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pools = guard.get_or_insert_with(HashMap::new);
    let key = (std::process::id(), size);
    if let Some(pool) = pools.get(&key) {
        return Ok(pool.clone());
    }
    let built = ThreadPoolBuilder::new().num_threads(size).thread_name(|i| format!("vesu-{i}")).build();
    let pool = Arc::new(built.map_err(|error| Error::io("<thread pool>", std::io::Error::other(error)))?);
    pools.insert(key, pool.clone());
    Ok(pool)
}

fn default_threads() -> vesu_core::Result<usize> {
    match std::env::var("VESU_NUM_THREADS") {
        Ok(text) => (text.trim().parse().ok())
            .filter(|size| (1..=MAX_THREADS).contains(size))
            .ok_or_else(|| Error::argument("VESU_NUM_THREADS", format!("{text:?}"), format!("1 to {MAX_THREADS}"))),
        Err(_) => Ok(thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)),
    }
}

/// Number of threads a kernel uses when `n_threads` is None.
#[pyfunction]
fn thread_count(py: Python<'_>) -> PyResult<usize> {
    default_threads().map_err(|error| raise(py, error))
}

/// The gate's own behaviours, reachable for the tests: `"sleep"` loops until cancelled or `seconds` passed,
/// `"panic"` panics, `"no_space"` fails as a full disk does.
#[pyfunction]
#[pyo3(signature = (behaviour, seconds = 0.0, n_threads = None))]
fn _gate_probe(py: Python<'_>, behaviour: &str, seconds: f64, n_threads: Option<i64>) -> PyResult<usize> {
    let behaviour = behaviour.to_owned();
    enter(py, n_threads, move |cancel| match behaviour.as_str() {
        "panic" => panic!("probe"),
        "no_space" => Err(Error::io("/probe", std::io::Error::from_raw_os_error(28))),
        "sleep" => {
            let start = std::time::Instant::now();
            while start.elapsed().as_secs_f64() < seconds {
                cancel.check()?;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(rayon::current_num_threads())
        }
        other => Err(Error::argument("behaviour", format!("{other:?}"), "'sleep', 'panic' or 'no_space'")),
    })
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(thread_count, m)?)?;
    m.add_function(wrap_pyfunction!(_gate_probe, m)?)?;
    Ok(())
}
