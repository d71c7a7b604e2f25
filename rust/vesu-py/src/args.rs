//! Array checks with messages that name the argument, what came and what is accepted.

use numpy::{Element, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray};
use numpy::{PyUntypedArrayMethods, dtype};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::gate::argument_error;

/// A borrowed (or, when the caller's was not contiguous, copied) C-ordered array.
pub struct Array<'py, T: Element>(PyReadonlyArrayDyn<'py, T>);

impl<T: Element> Array<'_, T> {
    pub fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    /// The elements in C order. `Send`, so it may cross the gate.
    pub fn as_slice(&self) -> &[T] {
        // `array` hands out only aligned C-contiguous arrays, so this cannot fail.
        self.0.as_slice().unwrap_or(&[])
    }
}

/// `value` as a C-contiguous array of exactly `T` with `ndim` axes; every axis at least 1 long.
///
/// Strided, Fortran-ordered and unaligned arrays are copied; read-only ones are borrowed like any other.
pub fn array<'py, T: Element>(name: &'static str, value: &Bound<'py, PyAny>, ndim: usize) -> PyResult<Array<'py, T>> {
    let py = value.py();
    let wanted = dtype::<T>(py);
    // Only for a refusal: a dtype's text is made by Python code, and a Ctrl-C that comes just then would be lost.
    let refuse = |got: String| {
        let accepted = format!("a {ndim}-D numpy array of {wanted} with no axis of length 0");
        Err(argument_error(py, name, got, &accepted))
    };
    let Ok(untyped) = value.cast::<PyUntypedArray>() else {
        return refuse(value.get_type().name()?.to_string());
    };
    if !untyped.dtype().is_equiv_to(&wanted) {
        return refuse(format!("dtype {}", untyped.dtype()));
    }
    if untyped.ndim() != ndim || untyped.shape().contains(&0) {
        return refuse(format!("shape {:?}", untyped.shape()));
    }
    let readable = contiguous(value)?;
    let typed = readable.cast_into::<PyArrayDyn<T>>()?;
    match typed.try_readonly() {
        Ok(borrowed) => Ok(Array(borrowed)),
        Err(_) => Err(argument_error(py, name, "an array that is being written to", "an array at rest")),
    }
}

/// A 3-D mask: uint8 or bool, (z, y, x). Any non-zero value is foreground.
pub fn mask<'py>(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<Array<'py, u8>> {
    let is_bool =
        value.cast::<PyUntypedArray>().is_ok_and(|untyped| untyped.dtype().is_equiv_to(&dtype::<bool>(value.py())));
    if is_bool { array(name, &value.call_method1("view", ("uint8",))?, 3) } else { array(name, value, 3) }
}

/// The three axes of a checked 3-D array.
pub fn shape3<T: Element>(array: &Array<'_, T>) -> [usize; 3] {
    let shape = array.shape();
    [shape[0], shape[1], shape[2]]
}

/// A new numpy array that owns `values`, C order.
pub fn to_numpy<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    numpy::PyArray1::from_vec(py, values).reshape(shape.to_vec())
}

fn contiguous<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let options = PyDict::new(value.py());
    options.set_item("requirements", ["C", "A"])?;
    value.py().import("numpy")?.call_method("require", (value,), Some(&options))
}
