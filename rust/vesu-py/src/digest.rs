//! BLAKE3 of bytes, arrays and files; every digest is 64 hex characters.

use std::path::PathBuf;

use numpy::{PyArray1, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use vesu_core::digest;

use crate::gate::{argument_error, enter};

#[pyfunction]
#[pyo3(signature = (data, n_threads = None))]
fn blake3_bytes(py: Python<'_>, data: &Bound<'_, PyAny>, n_threads: Option<i64>) -> PyResult<String> {
    let Ok(bytes) = data.cast::<PyBytes>() else {
        return Err(argument_error(py, "data", data.get_type().name()?, "bytes"));
    };
    let bytes = bytes.as_bytes();
    let hash = enter(py, n_threads, |cancel| digest::of_parts(&[bytes], cancel))?;
    Ok(hash.to_hex().to_string())
}

/// The id of an array's type, shape and elements; a big-endian array has the id of its little-endian equal.
#[pyfunction]
#[pyo3(signature = (array, n_threads = None))]
fn blake3_array(py: Python<'_>, array: &Bound<'_, PyAny>, n_threads: Option<i64>) -> PyResult<String> {
    const ACCEPTED: &str = "a numpy array of bool, integers, floats or complex numbers";
    let Ok(untyped) = array.cast::<PyUntypedArray>() else {
        return Err(argument_error(py, "array", array.get_type().name()?, ACCEPTED));
    };
    let dtype = untyped.dtype();
    if !"biufc".contains(dtype.getattr("kind")?.extract::<char>()?) {
        return Err(argument_error(py, "array", format!("dtype {dtype}"), ACCEPTED));
    }
    let little = dtype.call_method1("newbyteorder", ("<",))?;
    let name: String = little.getattr("str")?.extract()?;
    let shape = untyped.shape().to_vec();

    let options = PyDict::new(py);
    options.set_item("dtype", &little)?;
    options.set_item("requirements", ["C", "A"])?;
    let contiguous = py.import("numpy")?.call_method("require", (array,), Some(&options))?;
    let bytes = contiguous.call_method1("reshape", (-1,))?.call_method1("view", ("uint8",))?;
    let bytes = bytes.cast_into::<PyArray1<u8>>()?;
    let Ok(bytes) = bytes.try_readonly() else {
        return Err(argument_error(py, "array", "an array that is being written to", "an array at rest"));
    };
    let data = bytes.as_slice()?;
    let hash = enter(py, n_threads, |cancel| digest::of_array(&name, &shape, data, cancel))?;
    Ok(hash.to_hex().to_string())
}

#[pyfunction]
#[pyo3(signature = (path, n_threads = None))]
fn blake3_file(py: Python<'_>, path: PathBuf, n_threads: Option<i64>) -> PyResult<String> {
    let hash = enter(py, n_threads, |cancel| digest::of_file(&path, cancel))?;
    Ok(hash.to_hex().to_string())
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(blake3_bytes, m)?)?;
    m.add_function(wrap_pyfunction!(blake3_array, m)?)?;
    m.add_function(wrap_pyfunction!(blake3_file, m)?)?;
    Ok(())
}
