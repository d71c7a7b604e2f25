//! TIFF volumes. The Python side documents these: `vesu.data.volumes`.

use std::path::PathBuf;

use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use vesu_core::tiff::{self, Compression, Info, Sample, Samples, Volume, VolumeRef};

use crate::{args, gate};

const ACCEPTED: &str = "a 3-D numpy array (z, y, x) of uint8, int8, uint16, int16, uint32, int32, float32 or float64";

#[pyfunction]
fn tiff_inspect(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let info = gate::enter(py, None, |cancel| tiff::inspect(&path, cancel))?;
    to_dict(py, &info)
}

#[pyfunction]
fn tiff_inspect_bytes<'py>(py: Python<'py>, data: &[u8], name: &str) -> PyResult<Bound<'py, PyDict>> {
    let info = gate::enter(py, None, |cancel| tiff::inspect_bytes(data, name, cancel))?;
    to_dict(py, &info)
}

#[pyfunction]
#[pyo3(signature = (path, max_bytes, n_threads = None))]
fn tiff_read(py: Python<'_>, path: PathBuf, max_bytes: u64, n_threads: Option<i64>) -> PyResult<Bound<'_, PyAny>> {
    let volume = gate::enter(py, n_threads, |cancel| tiff::read(&path, max_bytes, cancel))?;
    to_array(py, volume)
}

#[pyfunction]
#[pyo3(signature = (data, name, max_bytes, n_threads = None))]
fn tiff_read_bytes<'py>(
    py: Python<'py>,
    data: &[u8],
    name: &str,
    max_bytes: u64,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyAny>> {
    let volume = gate::enter(py, n_threads, |cancel| tiff::read_bytes(data, name, max_bytes, cancel))?;
    to_array(py, volume)
}

#[pyfunction]
#[pyo3(signature = (volume, compression, n_threads = None))]
fn tiff_encode<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    compression: &str,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let compression = Compression::from_name(compression).map_err(|error| gate::raise(py, error))?;
    let file = dispatch(volume, |volume| {
        gate::enter(py, n_threads, |cancel| tiff::encode_to_vec(volume, compression, cancel))
    })?;
    Ok(PyBytes::new(py, &file))
}

#[pyfunction]
#[pyo3(signature = (path, volume, compression, n_threads = None))]
fn tiff_write<'py>(
    py: Python<'py>,
    path: PathBuf,
    volume: &Bound<'py, PyAny>,
    compression: &str,
    n_threads: Option<i64>,
) -> PyResult<()> {
    let compression = Compression::from_name(compression).map_err(|error| gate::raise(py, error))?;
    dispatch(volume, |volume| gate::enter(py, n_threads, |cancel| tiff::write(&path, volume, compression, cancel)))
}

/// Call `work` with the array's samples, whichever of the accepted types they are.
fn dispatch<'py, R>(value: &Bound<'py, PyAny>, work: impl FnOnce(VolumeRef<'_>) -> PyResult<R>) -> PyResult<R> {
    let py = value.py();
    let Ok(untyped) = value.cast::<PyUntypedArray>() else {
        return Err(gate::argument_error(py, "volume", value.get_type().name()?, ACCEPTED));
    };
    let found = untyped.dtype();
    macro_rules! try_types {
        ($($sample:ty),*) => {
            $(if found.is_equiv_to(&dtype::<$sample>(py)) {
                return with_samples::<$sample, R>(value, work);
            })*
        };
    }
    try_types!(u8, i8, u16, i16, u32, i32, f32, f64);
    Err(gate::argument_error(py, "volume", format!("dtype {found}"), ACCEPTED))
}

fn with_samples<T, R>(value: &Bound<'_, PyAny>, work: impl FnOnce(VolumeRef<'_>) -> PyResult<R>) -> PyResult<R>
where
    T: Sample + numpy::Element,
{
    let array = args::array::<T>("volume", value, 3)?;
    let volume = VolumeRef::new(args::shape3(&array), array.as_slice());
    work(volume.map_err(|error| gate::raise(value.py(), error))?)
}

fn to_array<'py>(py: Python<'py>, volume: Volume) -> PyResult<Bound<'py, PyAny>> {
    let shape = volume.shape;
    macro_rules! match_types {
        ($($variant:ident),*) => {
            match volume.samples {
                $(Samples::$variant(samples) => Ok(args::to_numpy(py, samples, &shape)?.into_any()),)*
            }
        };
    }
    match_types!(U8, I8, U16, I16, U32, I32, F32, F64)
}

fn to_dict<'py>(py: Python<'py>, info: &Info) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("shape", (info.shape[0], info.shape[1], info.shape[2]))?;
    fields.set_item("dtype", info.dtype.name())?;
    fields.set_item("compression", info.compression.name())?;
    fields.set_item("byte_order", info.byte_order.sign())?;
    fields.set_item("bigtiff", info.bigtiff)?;
    fields.set_item("predictor", info.predictor)?;
    fields.set_item("file_bytes", info.file_bytes)?;
    Ok(fields)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(tiff_inspect, m)?)?;
    m.add_function(wrap_pyfunction!(tiff_inspect_bytes, m)?)?;
    m.add_function(wrap_pyfunction!(tiff_read, m)?)?;
    m.add_function(wrap_pyfunction!(tiff_read_bytes, m)?)?;
    m.add_function(wrap_pyfunction!(tiff_encode, m)?)?;
    m.add_function(wrap_pyfunction!(tiff_write, m)?)?;
    Ok(())
}
