//! The height-map patch.

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use vesu_core::volume::{self, PatchOptions};

use super::connectivity_of;
use super::topology::triple;
use crate::args;
use crate::gate::{argument_error, enter};

/// The patched mask (uint8) and what was found and done, by name.
#[pyfunction]
#[pyo3(signature = (mask, connectivity, min_voxels, max_gap, max_residual, n_threads = None))]
fn patch_sheets<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
    connectivity: i64,
    min_voxels: i64,
    max_gap: i64,
    max_residual: f64,
    n_threads: Option<i64>,
) -> PyResult<(Bound<'py, PyArrayDyn<u8>>, Bound<'py, PyDict>)> {
    let accepted = format!("1 to {}", volume::MAX_GAP);
    let options = PatchOptions {
        connectivity: connectivity_of(py, connectivity)?,
        min_voxels: u64::try_from(min_voxels).map_err(|_| argument_error(py, "min_voxels", min_voxels, "0 or more"))?,
        max_gap: usize::try_from(max_gap).map_err(|_| argument_error(py, "max_gap", max_gap, &accepted))?,
        max_residual,
    };
    let mask = super::mask("mask", mask)?;
    let (shape, voxels) = (args::shape3(&mask), mask.as_slice());
    let patch = enter(py, n_threads, |cancel| volume::patch_sheets(voxels, shape, options, cancel))?;
    let report = PyDict::new(py);
    let discarded = patch.discarded;
    for (name, count) in [
        ("n_sheets", patch.n_sheets),
        ("n_gaps", patch.n_gaps),
        ("n_filled", patch.n_filled),
        ("too_wide", discarded.too_wide),
        ("poor_fit", discarded.poor_fit),
        ("touching", discarded.touching),
        ("no_tunnel", discarded.no_tunnel),
        ("cavity", discarded.cavity),
        ("n_added", patch.n_added),
    ] {
        report.set_item(name, count)?;
    }
    report.set_item("before", triple(patch.before))?;
    report.set_item("after", triple(patch.after))?;
    Ok((args::to_numpy(py, patch.mask, &shape)?, report))
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(patch_sheets, m)?)
}
