//! The kernels on volumes, one file a family; here, what their arguments share.

mod components;
mod distance;
mod extreme;
mod filters;
mod morphology;
mod sheets;
mod topology;

use numpy::{PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use vesu_core::volume::{self, Connectivity};

use crate::args;
use crate::gate::raise;

/// Refuse what the kernels cannot index before `args` might copy it (a broadcast array is huge only once copied).
pub(crate) fn refuse_oversize(name: &'static str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match value.cast::<PyUntypedArray>().map(|array| <[usize; 3]>::try_from(array.shape())) {
        Ok(Ok(shape)) if !shape.contains(&0) => {
            volume::voxel_count(name, shape).map(drop).map_err(|error| raise(value.py(), error))
        }
        _ => Ok(()), // not a 3-D array with voxels: `args` says so in its own words
    }
}

pub fn mask<'py>(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<args::Array<'py, u8>> {
    refuse_oversize(name, value)?;
    args::mask(name, value)
}

fn float_volume<'py>(name: &'static str, value: &Bound<'py, PyAny>) -> PyResult<args::Array<'py, f32>> {
    refuse_oversize(name, value)?;
    args::array(name, value, 3)
}

fn connectivity_of(py: Python<'_>, connectivity: i64) -> PyResult<Connectivity> {
    Connectivity::try_from(connectivity).map_err(|error| raise(py, error))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    components::register(m)?;
    distance::register(m)?;
    extreme::register(m)?;
    filters::register(m)?;
    morphology::register(m)?;
    sheets::register(m)?;
    topology::register(m)
}
