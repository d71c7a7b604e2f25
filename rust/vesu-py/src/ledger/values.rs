//! Python values as canonical JSON.

use pyo3::PyTypeCheck;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};
use vesu_core::ledger::canonical::{self, MAX_DEPTH};
use vesu_core::ledger::{Fields, MAX_RECORD_BYTES};
use vesu_core::{Error, Result};

use crate::gate::argument_error;

#[pyfunction]
pub fn ledger_canonical<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let mut walk = Walk::new();
    let mut out = Vec::new();
    walk.value(value, 0, &mut out).map_err(|refusal| refusal.raise(py, "value"))?;
    walk.refuse_nonfinite().map_err(|refusal| refusal.raise(py, "value"))?;
    Ok(PyBytes::new(py, &out))
}

/// A record's fields from a Python dict.
pub fn record_fields(fields: &Bound<'_, PyAny>) -> PyResult<Fields> {
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
pub fn common_fields(fields: &Bound<'_, PyAny>) -> PyResult<Vec<(String, Vec<u8>)>> {
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
    // Collecting results would not know the number, and grow the vector step by step.
    let mut members = Vec::with_capacity(items.len());
    for (key, value) in items {
        members.push((text_of(key)?, value));
    }
    Ok(members)
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
