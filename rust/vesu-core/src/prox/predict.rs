//! Mean probability and spread of an ensemble of candidates, over samples or straight over a feature volume.

use std::f64::consts::LOG2_E;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::design::{Design, Standardisation, check_finite};
use super::evaluate::check_params;
use super::kernel::{Scratch, block_len};
use super::lanes::Lanes;
use super::simd::{Aligned, Isa};
use crate::{Cancel, Error, Result};

/// Samples, or x-rows of a volume, of one piece of work.
const SAMPLES: usize = 1 << 13;
const VOLUME_ROWS: usize = 16;

/// Mean and population standard deviation of the members' probabilities, one a sample or voxel.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
}

/// Candidates that predict together.
#[derive(Clone, Debug)]
pub struct Ensemble {
    standard: Standardisation,
    uses_gradient: bool,
    width: usize,
    lanes: Lanes,
    weights: Aligned,
    /// (first row, step) of each member among a block's residuals.
    members: Vec<(usize, usize)>,
}

impl Ensemble {
    /// `params` (n_members, n_coefficients + 1), the intercept last.
    pub fn new(standard: Standardisation, params: &[f64], uses_gradient: bool, isa: Isa) -> Result<Self> {
        let width = standard.n_features() * if uses_gradient { 3 } else { 2 } + 1;
        check_params(params, width)?;
        let n = params.len() / width;
        let lanes = Lanes::new(isa, n, n);
        let weights = lanes.pack(params, width, LOG2_E);
        let members = (0..n).map(|member| lanes.position(member, block_len(width))).collect();
        Ok(Self { standard, uses_gradient, width, lanes, weights, members })
    }

    /// Predict raw samples `x` and, where the members use it, `gradient` (n_samples, n_features).
    pub fn predict(&self, x: &[f32], gradient: Option<&[f32]>, cancel: &Cancel) -> Result<Prediction> {
        if gradient.is_some() != self.uses_gradient {
            let (got, accepted) = if self.uses_gradient { ("None", "an array") } else { ("an array", "None") };
            return Err(Error::argument("gradient", got, format!("{accepted}, as in the fit")));
        }
        let design = Design::new(x, gradient, None, &self.standard)?;
        design.check_finite(cancel)?;
        self.fill(design.n_samples(), SAMPLES, |part, mean, deviation| {
            let mut scratch = Scratch::new(&self.lanes, self.width);
            let step = scratch.block;
            for (i, (mean, deviation)) in mean.chunks_mut(step).zip(deviation.chunks_mut(step)).enumerate() {
                cancel.check()?;
                design.fill_rows(part * SAMPLES + i * step, mean.len(), &mut scratch.rows);
                self.block(&mut scratch, mean, deviation);
            }
            Ok(())
        })
    }

    /// Predict every voxel of raw feature channels `values` of `shape` (n_features, z, y, x). The spatial gradient
    /// magnitude of each channel is formed on the way.
    pub fn predict_volume(&self, values: &[f32], shape: [usize; 4], cancel: &Cancel) -> Result<Prediction> {
        let [channels, nz, ny, nx] = shape;
        let n_features = self.standard.n_features();
        let n_values = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        if channels != n_features || n_values != Some(values.len()) || values.is_empty() {
            let got = format!("shape {shape:?} of {} values", values.len());
            return Err(Error::argument("values", got, format!("shape ({n_features}, z, y, x)")));
        }
        let bad = AtomicBool::new(false);
        let prediction = self.fill(nz * ny * nx, VOLUME_ROWS * nx, |part, mean, deviation| {
            let mut scratch = Scratch::new(&self.lanes, self.width);
            let mut run = VolumeRun::new(values, shape, scratch.block);
            for (row, (mean, deviation)) in mean.chunks_mut(nx).zip(deviation.chunks_mut(nx)).enumerate() {
                let (z, y) = ((part * VOLUME_ROWS + row) / ny, (part * VOLUME_ROWS + row) % ny);
                let pieces = mean.chunks_mut(scratch.block).zip(deviation.chunks_mut(scratch.block));
                for (i, (mean, deviation)) in pieces.enumerate() {
                    cancel.check()?;
                    let position = [z, y, i * scratch.block];
                    if !run.fill_rows(self, position, mean.len(), &mut scratch.rows) {
                        bad.store(true, Ordering::Relaxed);
                    }
                    self.block(&mut scratch, mean, deviation);
                }
            }
            Ok(())
        })?;
        if bad.load(Ordering::Relaxed) {
            check_finite("values", values, &shape, cancel)?;
        }
        Ok(prediction)
    }

    /// Allocate the outputs and fill them in parallel pieces of `piece` values.
    fn fill(
        &self,
        n: usize,
        piece: usize,
        work: impl Fn(usize, &mut [f32], &mut [f32]) -> Result<()> + Sync,
    ) -> Result<Prediction> {
        let (mut mean, mut deviation) = (zeros(n)?, zeros(n)?);
        mean.par_chunks_mut(piece)
            .zip(deviation.par_chunks_mut(piece))
            .enumerate()
            .try_for_each(|(part, (mean, deviation))| work(part, mean, deviation))?;
        Ok(Prediction { mean, deviation })
    }

    /// Mean and deviation of the samples whose rows stand in `scratch`.
    fn block(&self, scratch: &mut Scratch, mean: &mut [f32], deviation: &mut [f32]) {
        let mut loss = [0.0; MAX_STACK_LANES];
        let mut heap = Vec::new();
        let sums = match loss.get_mut(..self.lanes.padded()) {
            Some(sums) => sums,
            None => {
                heap.resize(self.lanes.padded(), 0.0);
                &mut heap[..]
            }
        };
        // Unlabelled rows have sign +1, so that the residual is the probability of class 1 itself.
        self.lanes.run(&self.weights, mean.len(), scratch, sums);
        let n = self.members.len() as f64;
        for (i, (mean, deviation)) in mean.iter_mut().zip(deviation).enumerate() {
            let probabilities = self.members.iter().map(|(at, step)| f64::from(scratch.residuals[at + i * step]));
            let centre = probabilities.clone().sum::<f64>() / n;
            let squares = probabilities.map(|p| (p - centre) * (p - centre)).sum::<f64>();
            (*mean, *deviation) = (centre as f32, (squares / n).sqrt() as f32);
        }
    }
}

/// Ensembles up to this size need no allocation a block.
const MAX_STACK_LANES: usize = 64;

fn zeros(n: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(|_| Error::Memory {
        what: "the prediction".to_owned(),
        needed: n as u64 * 4,
        limit: super::pass::working_limit(),
    })?;
    values.resize(n, 0.0);
    Ok(values)
}

/// Rows of neighbouring voxels along x, with the gradient magnitude of `numpy.gradient`: central differences inside,
/// one-sided ones at the faces, 0 along an axis of one voxel.
struct VolumeRun<'a> {
    values: &'a [f32],
    shape: [usize; 4],
    squares: Vec<f64>,
    magnitude: Vec<f32>,
}

impl<'a> VolumeRun<'a> {
    fn new(values: &'a [f32], shape: [usize; 4], block: usize) -> Self {
        Self { values, shape, squares: vec![0.0; block], magnitude: vec![0.0; block] }
    }

    /// Write the rows of `n` voxels from `position` (z, y, x); false if a value was NaN or infinite.
    fn fill_rows(&mut self, ensemble: &Ensemble, position: [usize; 3], n: usize, rows: &mut [f32]) -> bool {
        let width = ensemble.width;
        let n_features = self.shape[0];
        let lanes = ensemble.standard.lanes();
        let (filled, rest) = rows.split_at_mut(n * width);
        rest.fill(0.0);
        let mut largest = 0;
        for f in 0..n_features {
            let centre = self.row(f, position[0], position[1]);
            for (row, &raw) in filled.chunks_exact_mut(width).zip(&centre[position[2]..position[2] + n]) {
                largest = largest.max(raw.to_bits() & 0x7fff_ffff);
                let value = lanes.standardised(f, raw);
                row[f] = value;
                row[n_features + f] = value * value;
            }
            if ensemble.uses_gradient {
                self.fill_magnitude(f, position, n);
                for (row, &raw) in filled.chunks_exact_mut(width).zip(&self.magnitude) {
                    row[2 * n_features + f] = lanes.scaled(f, raw);
                }
            }
        }
        filled.iter_mut().skip(width - 1).step_by(width).for_each(|intercept| *intercept = 1.0);
        f32::from_bits(largest).is_finite()
    }

    /// The whole x-row of channel `f` at (z, y).
    fn row(&self, f: usize, z: usize, y: usize) -> &'a [f32] {
        let [_, nz, ny, nx] = self.shape;
        &self.values[((f * nz + z) * ny + y) * nx..][..nx]
    }

    /// In float64 and rounded once, as the training samples' gradients are.
    fn fill_magnitude(&mut self, f: usize, [z, y, x]: [usize; 3], n: usize) {
        let [_, nz, ny, nx] = self.shape;
        let run = |z: usize, y: usize| &self.row(f, z, y)[x..x + n];
        let ((z_low, z_high, z_step), (y_low, y_high, y_step)) = (neighbours(z, nz), neighbours(y, ny));
        let ((z_low, z_high), (y_low, y_high)) = ((run(z_low, y), run(z_high, y)), (run(z, y_low), run(z, y_high)));
        for i in 0..n {
            let dz = (f64::from(z_high[i]) - f64::from(z_low[i])) * z_step;
            let dy = (f64::from(y_high[i]) - f64::from(y_low[i])) * y_step;
            self.squares[i] = dz * dz + dy * dy;
        }
        let centre = self.row(f, z, y);
        let finish = |square: f64, low: f32, high: f32, step: f64| {
            let dx = (f64::from(high) - f64::from(low)) * step;
            (square + dx * dx).sqrt().min(f64::from(f32::MAX)) as f32
        };
        for i in [0, n - 1] {
            let (low, high, step) = neighbours(x + i, nx);
            self.magnitude[i] = finish(self.squares[i], centre[low], centre[high], step);
        }
        // Between the ends of the run both neighbours are there: a loop without branches.
        if n > 2 {
            let (low, high) = (&centre[x..x + n - 2], &centre[x + 2..x + n]);
            let inside = self.magnitude[1..n - 1].iter_mut().zip(&self.squares[1..n - 1]);
            for ((magnitude, &square), (&low, &high)) in inside.zip(low.iter().zip(high)) {
                *magnitude = finish(square, low, high, 0.5);
            }
        }
    }
}

/// (index below, index above, one over their distance), clamped at the faces.
#[inline(always)]
fn neighbours(at: usize, n: usize) -> (usize, usize, f64) {
    let (low, high) = (at.saturating_sub(1), (at + 1).min(n - 1));
    (low, high, if high - low == 2 { 0.5 } else { 1.0 })
}
