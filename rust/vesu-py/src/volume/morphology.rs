//! Median, dilation, erosion, opening and closing: binary on masks, grey on float32.

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::prelude::*;
use vesu_core::volume::{self, ElementShape, Operation, Structure};

use super::{float_volume, mask};
use crate::args;
use crate::gate::{argument_error, enter};

/// 3x3x3: majority of a mask (uint8), median of float32.
#[pyfunction]
#[pyo3(signature = (volume, n_threads = None))]
fn median<'py>(py: Python<'py>, volume: &Bound<'py, PyAny>, n_threads: Option<i64>) -> PyResult<Bound<'py, PyAny>> {
    if is_float(volume)? {
        let array = float_volume("volume", volume)?;
        let (shape, values) = (args::shape3(&array), array.as_slice());
        let median = enter(py, n_threads, |cancel| volume::median(values, shape, cancel))?;
        return Ok(args::to_numpy(py, median, &shape)?.into_any());
    }
    let array = mask("volume", volume)?;
    let (shape, voxels) = (args::shape3(&array), array.as_slice());
    let median = enter(py, n_threads, |cancel| volume::median_mask(voxels, shape, cancel))?;
    Ok(args::to_numpy(py, median, &shape)?.into_any())
}

/// `operation` "dilation", "erosion", "opening" or "closing" by a "ball" or "box" of `radius` (z, y, x).
#[pyfunction]
#[pyo3(signature = (volume, operation, radius, shape, n_threads = None))]
fn morphology<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    operation: &str,
    radius: [u64; 3],
    shape: &str,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyAny>> {
    let operation = operation_of(py, operation)?;
    let structure = Structure { radius, shape: shape_of(py, shape)? };
    if is_float(volume)? {
        let array = float_volume("volume", volume)?;
        let (shape, values) = (args::shape3(&array), array.as_slice());
        let run = |cancel: &_| volume::grey_morphology(values, shape, operation, structure, cancel);
        return Ok(args::to_numpy(py, enter(py, n_threads, run)?, &shape)?.into_any());
    }
    let array = mask("volume", volume)?;
    let (shape, voxels) = (args::shape3(&array), array.as_slice());
    let run = |cancel: &_| volume::binary_morphology(voxels, shape, operation, structure, cancel);
    Ok(args::to_numpy(py, enter(py, n_threads, run)?, &shape)?.into_any())
}

/// Whether the array is float32, else uint8 or bool.
fn is_float(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    let accepted = "a 3-D numpy array of uint8, bool or float32 with no axis of length 0";
    let Ok(array) = value.cast::<PyUntypedArray>() else {
        return Err(argument_error(py, "volume", value.get_type().name()?, accepted));
    };
    let given = array.dtype();
    if given.is_equiv_to(&dtype::<f32>(py)) {
        Ok(true)
    } else if given.is_equiv_to(&dtype::<u8>(py)) || given.is_equiv_to(&dtype::<bool>(py)) {
        Ok(false)
    } else {
        Err(argument_error(py, "volume", format!("dtype {given}"), accepted))
    }
}

fn operation_of(py: Python<'_>, name: &str) -> PyResult<Operation> {
    match name {
        "dilation" => Ok(Operation::Dilation),
        "erosion" => Ok(Operation::Erosion),
        "opening" => Ok(Operation::Opening),
        "closing" => Ok(Operation::Closing),
        other => {
            let accepted = "'dilation', 'erosion', 'opening' or 'closing'";
            Err(argument_error(py, "operation", format!("{other:?}"), accepted))
        }
    }
}

fn shape_of(py: Python<'_>, name: &str) -> PyResult<ElementShape> {
    match name {
        "ball" => Ok(ElementShape::Ball),
        "box" => Ok(ElementShape::Box),
        other => Err(argument_error(py, "shape", format!("{other:?}"), "'ball' or 'box'")),
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(median, m)?)?;
    m.add_function(wrap_pyfunction!(morphology, m)?)
}
