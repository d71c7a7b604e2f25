//! Terms of the competition's score: the surfaces and the components.

use pyo3::prelude::*;
use vesu_core::score;

use crate::args;
use crate::gate::{argument_error, enter};

/// The two masks, of one shape.
type Masks<'py> = (args::Array<'py, u8>, args::Array<'py, u8>, [usize; 3]);

fn masks<'py>(prediction: &Bound<'py, PyAny>, label: &Bound<'py, PyAny>) -> PyResult<Masks<'py>> {
    let prediction_mask = crate::volume::mask("prediction", prediction)?;
    let label_mask = crate::volume::mask("label", label)?;
    let shape = args::shape3(&prediction_mask);
    if args::shape3(&label_mask) != shape {
        let accepted = format!("the prediction's shape {shape:?}");
        return Err(argument_error(label.py(), "label", format!("shape {:?}", label_mask.shape()), &accepted));
    }
    Ok((prediction_mask, label_mask, shape))
}

/// Areas of the prediction's and the label's surface, each whole and within the tolerance of the other; surface Dice.
#[pyfunction]
#[pyo3(signature = (prediction, label, spacing, tolerance, n_threads = None))]
fn score_surface(
    py: Python<'_>,
    prediction: &Bound<'_, PyAny>,
    label: &Bound<'_, PyAny>,
    spacing: [f64; 3],
    tolerance: f64,
    n_threads: Option<i64>,
) -> PyResult<(f64, f64, f64, f64, f64)> {
    let (prediction, label, shape) = masks(prediction, label)?;
    let (prediction, label) = (prediction.as_slice(), label.as_slice());
    let overlap =
        enter(py, n_threads, |cancel| score::surface_overlap(prediction, label, shape, spacing, tolerance, cancel))?;
    let (ours, theirs) = (overlap.prediction, overlap.label);
    Ok((ours.total, ours.within, theirs.total, theirs.within, overlap.dice()))
}

/// H(prediction | label), H(label | prediction) in bits, and the numbers of components.
#[pyfunction]
#[pyo3(signature = (prediction, label, n_threads = None))]
fn score_voi(
    py: Python<'_>,
    prediction: &Bound<'_, PyAny>,
    label: &Bound<'_, PyAny>,
    n_threads: Option<i64>,
) -> PyResult<(f64, f64, u32, u32)> {
    let (prediction, label, shape) = masks(prediction, label)?;
    let (prediction, label) = (prediction.as_slice(), label.as_slice());
    let found = enter(py, n_threads, |cancel| score::conditional_entropies(prediction, label, shape, cancel))?;
    Ok((found.split, found.merge, found.prediction_components, found.label_components))
}

/// Area of the surface in a cube of 2x2x2 voxels, by the code of its foreground corners (bit 4 z + 2 y + x).
#[pyfunction]
fn score_area_table(spacing: [f64; 3]) -> Vec<f64> {
    score::area_table(spacing).to_vec()
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(score_surface, m)?)?;
    m.add_function(wrap_pyfunction!(score_voi, m)?)?;
    m.add_function(wrap_pyfunction!(score_area_table, m)?)
}
