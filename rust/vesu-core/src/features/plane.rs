//! The last pass: every channel of one plane at one scale.

use super::eigen::{self, Tensor};
use super::gaussian::Kernel;
use super::simd::multiversion;
use super::slab::{Job, Window, filter_yx};
use super::spec::Family;
use super::statistics::{Statistics, Voxel};
use super::stencil;
use crate::error::Result;

/// One plane of each family, at its place in [`Family::ALL`]; `None` where it was not asked for.
pub type PlaneOutputs<'a> = [Option<&'a mut [f32]>; Family::COUNT];

/// What the earlier passes left.
pub struct Slab<'a> {
    pub window: &'a Window,
    pub kernel: &'a Kernel,
    pub columns: &'a [f32],
    pub smooth: &'a [f32],
    pub tensor: &'a [f32],
}

/// Scratch of one thread.
pub struct Buffers {
    gradient: [Vec<f32>; 3],
    tensor: Tensor,
    ridge: Vec<f32>,
    sheetness: Vec<f32>,
    wide: Vec<f32>,
    starts: Vec<usize>,
}

impl Buffers {
    pub fn new(nx: usize, radius: usize) -> Self {
        let row = || vec![0.0; nx];
        Self {
            gradient: [(); 3].map(|()| row()),
            tensor: [(); 6].map(|()| row()),
            ridge: row(),
            sheetness: row(),
            wide: vec![0.0; nx + 2 * radius],
            starts: Vec::new(),
        }
    }
}

/// Fill the `at`-th plane of the window; `previous` holds the next finer scale and receives this one.
pub fn finish<T: Voxel>(
    job: &Job<'_, T>,
    slab: &Slab<'_>,
    at: usize,
    mut outputs: PlaneOutputs<'_>,
    previous: &mut [f32],
    buffers: &mut Buffers,
) -> Result<()> {
    let [_, ny, nx] = job.shape;
    for (y, previous) in previous.chunks_exact_mut(nx).enumerate() {
        job.cancel.check()?;
        let mut rows = outputs.each_mut().map(|plane| plane.as_deref_mut().map(|plane| &mut plane[y * nx..][..nx]));
        let around = slab.window.neighbours(job.shape, slab.smooth, slab.window.out.start + at, y);
        let centre = &around[1][1][1..=nx];
        smoothed(&mut rows, centre, previous);
        first_order(&mut rows, &around, buffers);
        second_order(&mut rows, &around, buffers);
        structure(&mut rows, slab, (at, y, ny), buffers);
        variance(&mut rows, slab, (at, y, ny), centre, buffers);
        if !job.spec.normalise {
            to_own_units(&mut rows, job.statistics);
        }
    }
    Ok(())
}

fn smoothed(rows: &mut PlaneOutputs<'_>, centre: &[f32], previous: &mut [f32]) {
    if let Some(out) = &mut rows[Family::Intensity as usize] {
        out.copy_from_slice(centre);
    }
    if let Some(out) = &mut rows[Family::Bandpass as usize] {
        subtract(out, previous, centre);
    }
    previous.copy_from_slice(centre);
}

fn first_order(rows: &mut PlaneOutputs<'_>, around: &stencil::Neighbours<'_>, buffers: &mut Buffers) {
    if rows[Family::Gradient as usize].is_none() && rows[Family::ZContrast as usize].is_none() {
        return;
    }
    stencil::gradient(buffers.gradient.each_mut().map(Vec::as_mut_slice), around);
    if let Some(out) = &mut rows[Family::Gradient as usize] {
        stencil::magnitude(out, buffers.gradient.each_ref().map(Vec::as_slice));
    }
    if let Some(out) = &mut rows[Family::ZContrast as usize] {
        for (out, along_z) in out.iter_mut().zip(&buffers.gradient[0]) {
            *out = along_z.abs();
        }
    }
}

fn second_order(rows: &mut PlaneOutputs<'_>, around: &stencil::Neighbours<'_>, buffers: &mut Buffers) {
    let eigen = rows[Family::Hessian as usize].is_some() || rows[Family::Sheetness as usize].is_some();
    if !eigen && rows[Family::Laplacian as usize].is_none() {
        return;
    }
    stencil::hessian(&mut buffers.tensor, around);
    if let Some(out) = &mut rows[Family::Laplacian as usize] {
        stencil::laplacian(out, &buffers.tensor);
    }
    if eigen {
        eigen::ridge_and_sheetness(&mut buffers.ridge, &mut buffers.sheetness, &buffers.tensor);
    }
    for (family, found) in [(Family::Hessian, &buffers.ridge), (Family::Sheetness, &buffers.sheetness)] {
        if let Some(out) = &mut rows[family as usize] {
            out.copy_from_slice(found);
        }
    }
}

fn structure(rows: &mut PlaneOutputs<'_>, slab: &Slab<'_>, (at, y, ny): (usize, usize, usize), buffers: &mut Buffers) {
    let Some(out) = &mut rows[Family::Planarity as usize] else { return };
    let (nx, depth) = (out.len(), slab.window.out.len());
    for (component, row) in buffers.tensor.iter_mut().enumerate() {
        let start = |y: usize| ((y * 6 + component) * depth + at) * nx;
        filter_yx(slab.kernel, row, slab.tensor, (y, ny), &mut buffers.wide, &mut buffers.starts, start);
    }
    eigen::planarity(out, &buffers.tensor);
}

fn variance(
    rows: &mut PlaneOutputs<'_>,
    slab: &Slab<'_>,
    (at, y, ny): (usize, usize, usize),
    centre: &[f32],
    buffers: &mut Buffers,
) {
    let Some(out) = &mut rows[Family::Variance as usize] else { return };
    let nx = out.len();
    let start = |y: usize| y * slab.window.column_len(nx) + (slab.window.smooth.len() + at) * nx;
    filter_yx(slab.kernel, out, slab.columns, (y, ny), &mut buffers.wide, &mut buffers.starts, start);
    subtract_square(out, centre);
}

/// From standard units to the volume's own; what float32 cannot hold saturates.
fn to_own_units(rows: &mut PlaneOutputs<'_>, Statistics { mean, std }: Statistics) {
    for (family, row) in Family::ALL.into_iter().zip(rows) {
        let (scale, offset) = match family {
            Family::Planarity => continue, // a ratio
            Family::Intensity => (std, mean),
            Family::Variance => (std * std, 0.0),
            _ => (std, 0.0),
        };
        if let Some(row) = row {
            rescale(row, scale, offset);
        }
    }
}

multiversion! {
    fn subtract(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a - b;
        }
    }
}

multiversion! {
    /// `out - mean^2`, and not below 0, where rounding may lead.
    fn subtract_square(out: &mut [f32], mean: &[f32]) {
        for (out, mean) in out.iter_mut().zip(mean) {
            *out = (*out - mean * mean).max(0.0);
        }
    }
}

multiversion! {
    fn rescale(row: &mut [f32], scale: f64, offset: f64) {
        let limit = f64::from(f32::MAX);
        for value in row {
            *value = (f64::from(*value) * scale + offset).clamp(-limit, limit) as f32;
        }
    }
}
