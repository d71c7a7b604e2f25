//! Terms of the competition's score: the surfaces and the components.

use pyo3::prelude::*;
use vesu_core::score::{self, Entropies, Segments, Surface, SurfaceOverlap};

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
    Ok(areas(overlap))
}

fn areas(overlap: SurfaceOverlap) -> (f64, f64, f64, f64, f64) {
    let (ours, theirs) = (overlap.prediction, overlap.label);
    (ours.total, ours.within, theirs.total, theirs.within, overlap.dice())
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
    Ok(entropies(found))
}

fn entropies(found: Entropies) -> (f64, f64, u32, u32) {
    (found.split, found.merge, found.prediction_components, found.label_components)
}

/// A label's surface and components, for any number of predictions: what a sweep need not compute again.
#[pyclass(frozen, module = "vesu._core")]
struct ScoreLabel {
    shape: [usize; 3],
    surface: Surface,
    segments: Segments,
}

#[pymethods]
impl ScoreLabel {
    #[new]
    #[pyo3(signature = (label, n_threads = None))]
    fn new(py: Python<'_>, label: &Bound<'_, PyAny>, n_threads: Option<i64>) -> PyResult<Self> {
        let label = crate::volume::mask("label", label)?;
        let (label, shape) = (label.as_slice(), args::shape3(&label));
        let (surface, segments) = enter(py, n_threads, |cancel| {
            Ok((Surface::of("label", label, shape, cancel)?, Segments::of(label, shape, cancel)?))
        })?;
        Ok(Self { shape, surface, segments })
    }

    /// As `score_surface` against this label.
    #[pyo3(signature = (prediction, spacing, tolerance, n_threads = None))]
    fn surface(
        &self,
        prediction: &Bound<'_, PyAny>,
        spacing: [f64; 3],
        tolerance: f64,
        n_threads: Option<i64>,
    ) -> PyResult<(f64, f64, f64, f64, f64)> {
        let mask = self.prediction(prediction)?;
        let mask = mask.as_slice();
        let overlap = enter(prediction.py(), n_threads, |cancel| {
            Surface::of("prediction", mask, self.shape, cancel)?.overlap(&self.surface, spacing, tolerance, cancel)
        })?;
        Ok(areas(overlap))
    }

    /// As `score_voi` against this label.
    #[pyo3(signature = (prediction, n_threads = None))]
    fn voi(&self, prediction: &Bound<'_, PyAny>, n_threads: Option<i64>) -> PyResult<(f64, f64, u32, u32)> {
        let mask = self.prediction(prediction)?;
        let mask = mask.as_slice();
        let found = enter(prediction.py(), n_threads, |cancel| {
            score::entropies_against(mask, &self.segments, self.shape, cancel)
        })?;
        Ok(entropies(found))
    }
}

impl ScoreLabel {
    fn prediction<'py>(&self, prediction: &Bound<'py, PyAny>) -> PyResult<args::Array<'py, u8>> {
        let mask = crate::volume::mask("prediction", prediction)?;
        if args::shape3(&mask) != self.shape {
            let accepted = format!("the label's shape {:?}", self.shape);
            return Err(argument_error(prediction.py(), "prediction", format!("shape {:?}", mask.shape()), &accepted));
        }
        Ok(mask)
    }
}

/// Area of the surface in a cube of 2x2x2 voxels, by the code of its foreground corners (bit 4 z + 2 y + x).
#[pyfunction]
fn score_area_table(spacing: [f64; 3]) -> Vec<f64> {
    score::area_table(spacing).to_vec()
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(score_surface, m)?)?;
    m.add_function(wrap_pyfunction!(score_voi, m)?)?;
    m.add_class::<ScoreLabel>()?;
    m.add_function(wrap_pyfunction!(score_area_table, m)?)
}
