//! Binding of the historical scorers; see `python/vesu/baselines.py` for the public side.

use numpy::{PyArrayDescrMethods, PyArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::prelude::*;
use vesu_core::baselines::{Nx46, Nx47, Scorer};
use vesu_core::features::Voxel;

use crate::args::{Array, array, shape3, to_numpy};
use crate::gate::{argument_error, enter};
use crate::volume::refuse_oversize;

/// NX46's score (float32) of a volume.
#[pyfunction]
#[pyo3(signature = (volume, score_blend_3d_weight, z_smoothing_radius, n_threads = None))]
fn nx46_score<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    score_blend_3d_weight: f64,
    z_smoothing_radius: usize,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    score(py, volume, Scorer::Nx46(Nx46 { blend_3d: score_blend_3d_weight, radius: z_smoothing_radius }), n_threads)
}

/// NX47's soft blend (float32, in [0, 1]) of a volume.
#[pyfunction]
#[pyo3(signature = (
    volume, sigma_base, sigma_gain, percentile_base, percentile_gain, percentile_max, percentile_gap, percentile_floor,
    n_threads = None
))]
#[allow(clippy::too_many_arguments)] // the fields of the Python configuration, one for one
fn nx47_score<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    sigma_base: f64,
    sigma_gain: f64,
    percentile_base: f64,
    percentile_gain: f64,
    percentile_max: f64,
    percentile_gap: f64,
    percentile_floor: f64,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let settings = Nx47 {
        sigma_base,
        sigma_gain,
        percentile_base,
        percentile_gain,
        percentile_max,
        percentile_gap,
        percentile_floor,
    };
    score(py, volume, Scorer::Nx47(settings), n_threads)
}

fn score<'py>(
    py: Python<'py>,
    volume: &Bound<'py, PyAny>,
    scorer: Scorer,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    refuse_oversize("volume", volume)?;
    let is = |wanted: Bound<'py, numpy::PyArrayDescr>| {
        volume.cast::<PyUntypedArray>().is_ok_and(|untyped| untyped.dtype().is_equiv_to(&wanted))
    };
    if is(dtype::<u8>(py)) {
        score_as::<u8>(py, array("volume", volume, 3)?, scorer, n_threads)
    } else if is(dtype::<u16>(py)) {
        score_as::<u16>(py, array("volume", volume, 3)?, scorer, n_threads)
    } else if is(dtype::<f32>(py)) {
        score_as::<f32>(py, array("volume", volume, 3)?, scorer, n_threads)
    } else {
        let got = match volume.cast::<PyUntypedArray>() {
            Ok(untyped) => format!("dtype {}", untyped.dtype()),
            Err(_) => volume.get_type().name()?.to_string(),
        };
        Err(argument_error(py, "volume", got, "a 3-D numpy array (z, y, x) of uint8, uint16 or float32"))
    }
}

fn score_as<'py, T: Voxel + numpy::Element>(
    py: Python<'py>,
    volume: Array<'py, T>,
    scorer: Scorer,
    n_threads: Option<i64>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let (shape, voxels) = (shape3(&volume), volume.as_slice());
    let values = enter(py, n_threads, |cancel| scorer.score(voxels, shape, cancel))?;
    to_numpy(py, values, &shape)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(nx46_score, m)?)?;
    m.add_function(wrap_pyfunction!(nx47_score, m)?)
}
