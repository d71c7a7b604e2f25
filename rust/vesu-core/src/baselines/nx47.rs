//! NX47 V61: what stands out from a Gaussian blur, cut slice by slice at two percentiles of the slice's own.

use rayon::prelude::*;

use super::scale::Scale;
use crate::features::gaussian::Kernel;
use crate::features::simd::multiversion;
use crate::features::{Voxel, filter_yx};
use crate::pages::zeroed;
use crate::volume::Shape;
use crate::{Cancel, Error, Result};

/// Slices a piece of work: fewer repeat more of the blur at their ends.
const SLAB: usize = 16;

/// Keeps a division by a deviation, or by the width of a band, from being one by 0.
const TINY: f64 = 1e-6;

/// The contrast of a slice is the distance of these two percentiles in deviations.
const CONTRAST: [f64; 2] = [90.0, 95.0];

const LANES: usize = 8;

/// Parameters of NX47; percentiles in percent.
#[derive(Clone, Copy, Debug)]
pub struct Nx47 {
    pub sigma_base: f64,
    pub sigma_gain: f64,
    pub percentile_base: f64,
    pub percentile_gain: f64,
    pub percentile_max: f64,
    pub percentile_gap: f64,
    pub percentile_floor: f64,
}

impl Nx47 {
    pub(super) fn score<T: Voxel>(&self, volume: &[T], shape: Shape, cancel: &Cancel) -> Result<Vec<f32>> {
        self.check()?;
        let [nz, ny, nx] = shape;
        let mut score = zeroed("the score", volume.len())?;
        let Some(scale) = Scale::of(volume, shape, cancel)? else { return Ok(score) };
        let kernel = Kernel::new(self.sigma_gain * scale.std + self.sigma_base);
        let source = Source { volume, shape, scale, kernel: &kernel, cancel };
        score.par_chunks_mut(SLAB * ny * nx).enumerate().try_for_each_init(
            || None,
            |scratch, (slab, out)| {
                let scratch = match scratch {
                    Some(scratch) => scratch,
                    None => scratch.insert(Scratch::new(&source)?),
                };
                let first = slab * SLAB;
                scratch.restart(first);
                for (z, slice) in (first..).zip(out.chunks_exact_mut(ny * nx)) {
                    scratch.project(&source, z, slice, nz)?;
                    self.soft_mask(slice, &mut scratch.sorted);
                }
                Ok(())
            },
        )?;
        Ok(score)
    }

    fn check(&self) -> Result<()> {
        let sigma = 0.0..=64.0;
        for (name, value, accepted) in [
            ("sigma_base", self.sigma_base, sigma.clone()),
            ("sigma_gain", self.sigma_gain, sigma),
            ("percentile_floor", self.percentile_floor, 0.0..=100.0),
            ("percentile_base", self.percentile_base, self.percentile_floor..=100.0),
            ("percentile_max", self.percentile_max, self.percentile_base..=100.0),
            ("percentile_gap", self.percentile_gap, 0.0..=100.0),
            ("percentile_gain", self.percentile_gain, 0.0..=1e6),
        ] {
            if !accepted.contains(&value) {
                return Err(Error::argument(name, value, format!("{} to {}", accepted.start(), accepted.end())));
            }
        }
        if self.sigma_base <= 0.0 { Err(Error::argument("sigma_base", self.sigma_base, "above 0")) } else { Ok(()) }
    }

    /// From the projected residual of one slice to the soft blend, in place.
    fn soft_mask(&self, slice: &mut [f32], sorted: &mut [f32]) {
        let std = deviation(slice);
        sorted.copy_from_slice(slice);
        let mut order = Order::new(sorted, self.percentile_floor.min(CONTRAST[0]));
        let [low, high] = CONTRAST.map(|percent| order.percentile(percent));
        let contrast = (high - low) / (std + TINY);
        let strict =
            (self.percentile_base + self.percentile_gain * contrast).clamp(self.percentile_base, self.percentile_max);
        let loose = (strict - self.percentile_gap).max(self.percentile_floor);
        let (low, high) = (order.percentile(loose), order.percentile(strict));
        soften(slice, low, high, 1.0 / (high - low + TINY));
    }
}

/// What the blur is taken of.
struct Source<'a, T> {
    volume: &'a [T],
    shape: Shape,
    scale: Scale,
    kernel: &'a Kernel,
    cancel: &'a Cancel,
}

/// What one thread needs: rings of slices that follow it along z.
struct Scratch {
    slice: usize,
    /// The slices that the blur of the current one reaches, slice z at `z % depth`.
    scaled: Vec<f32>,
    depth: usize,
    radius: usize,
    /// Slices up to here are in `scaled`.
    loaded: usize,
    /// The current slice, blurred along z.
    columns: Vec<f32>,
    /// Three slices of the residual, slice z at `z % 3`; those up to `done` are there.
    residual: Vec<f32>,
    done: usize,
    sorted: Vec<f32>,
    wide: Vec<f32>,
    starts: Vec<usize>,
}

impl Scratch {
    fn new<T: Voxel>(source: &Source<'_, T>) -> Result<Self> {
        let [nz, ny, nx] = source.shape;
        let (slice, radius) = (ny * nx, source.kernel.radius());
        let depth = nz.min(2 * radius + 1);
        let what = "scratch of NX47";
        Ok(Self {
            slice,
            depth,
            radius,
            loaded: 0,
            done: 0,
            scaled: zeroed(what, depth * slice)?,
            columns: zeroed(what, slice)?,
            residual: zeroed(what, 3 * slice)?,
            sorted: zeroed(what, slice)?,
            wide: zeroed(what, nx + 2 * radius)?,
            starts: Vec::new(),
        })
    }

    /// Begin a slab whose first slice is `z`: nothing of what went before is there.
    fn restart(&mut self, z: usize) {
        self.done = z.saturating_sub(1);
        self.loaded = self.done.saturating_sub(self.radius);
    }

    /// The mean of the residual over the slices z - 1 to z + 1 that the volume has.
    fn project<T: Voxel>(&mut self, source: &Source<'_, T>, z: usize, out: &mut [f32], nz: usize) -> Result<()> {
        let (first, end) = (z.saturating_sub(1), nz.min(z + 2));
        while self.done < end {
            self.next_residual(source)?;
        }
        let slice = |z: usize| &self.residual[z % 3 * self.slice..][..self.slice];
        match end - first {
            1 => out.copy_from_slice(slice(first)),
            2 => mean_of_two(out, slice(first), slice(first + 1)),
            _ => mean_of_three(out, slice(first), slice(first + 1), slice(first + 2)),
        }
        Ok(())
    }

    fn next_residual<T: Voxel>(&mut self, source: &Source<'_, T>) -> Result<()> {
        let [nz, ny, nx] = source.shape;
        let (z, slice, depth) = (self.done, self.slice, self.depth);
        while self.loaded < nz.min(z + self.radius + 1) {
            let into = &mut self.scaled[self.loaded % depth * slice..][..slice];
            for (y, row) in into.chunks_exact_mut(nx).enumerate() {
                source.scale.row(row, &source.volume[(self.loaded * ny + y) * nx..][..nx]);
            }
            self.loaded += 1;
        }
        for (y, row) in self.columns.chunks_exact_mut(nx).enumerate() {
            source.cancel.check()?;
            let start = |z: usize| z % depth * slice + y * nx;
            source.kernel.filter_row(row, &self.scaled, z, nz, &mut self.starts, start);
        }
        let own = &self.scaled[z % depth * slice..][..slice];
        let residual = &mut self.residual[z % 3 * slice..][..slice];
        for (y, (row, own)) in residual.chunks_exact_mut(nx).zip(own.chunks_exact(nx)).enumerate() {
            source.cancel.check()?;
            filter_yx(source.kernel, row, &self.columns, (y, ny), &mut self.wide, &mut self.starts, |y| y * nx);
            subtract_from(row, own);
        }
        self.done += 1;
        Ok(())
    }
}

/// Percentiles of one slice, none below the one that it was made with.
struct Order<'a> {
    /// Everything from rank `from` on, in no order.
    upper: &'a mut [f32],
    from: usize,
    last: usize,
}

impl<'a> Order<'a> {
    fn new(values: &'a mut [f32], least_percent: f64) -> Self {
        let last = values.len() - 1;
        let from = (least_percent / 100.0 * last as f64) as usize;
        values.select_nth_unstable_by(from, f32::total_cmp);
        Self { upper: &mut values[from..], from, last }
    }

    /// As `numpy.percentile` has it: linear between the two nearest ranks.
    fn percentile(&mut self, percent: f64) -> f64 {
        let rank = percent / 100.0 * self.last as f64;
        let below = (rank as usize).clamp(self.from, self.last);
        let (_, &mut value, rest) = self.upper.select_nth_unstable_by(below - self.from, f32::total_cmp);
        let next = rest.iter().copied().min_by(f32::total_cmp).unwrap_or(value);
        f64::from(value) + (rank - below as f64) * (f64::from(next) - f64::from(value))
    }
}

/// Standard deviation, in two passes of fixed lanes.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mut sums = [0f64; LANES];
    add_powers(&mut sums, values, 0.0, false);
    let mean = sums.iter().sum::<f64>() / n;
    let mut squares = [0f64; LANES];
    add_powers(&mut squares, values, mean, true);
    (squares.iter().sum::<f64>() / n).sqrt()
}

multiversion! {
    /// Add `value - mean`, or its square, of each value to the lane of its place.
    fn add_powers(sums: &mut [f64; LANES], values: &[f32], mean: f64, square: bool) {
        let mut chunks = values.chunks_exact(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                let value = f64::from(chunk[lane]) - mean;
                sums[lane] += if square { value * value } else { value };
            }
        }
        for (sum, &value) in sums.iter_mut().zip(chunks.remainder()) {
            let value = f64::from(value) - mean;
            *sum += if square { value * value } else { value };
        }
    }
}

multiversion! {
    /// The blend `w * (above high and above low) + (1 - w) * (above high or above low)`, where w runs from 0 at `low`
    /// to 1 at `high`: 1 above high, 1 - w between the two, 0 up to low.
    fn soften(slice: &mut [f32], low: f64, high: f64, inverse_width: f64) {
        for value in slice {
            let v = f64::from(*value);
            let between = 1.0 - ((v - low) * inverse_width).clamp(0.0, 1.0);
            *value = if v > high { 1.0 } else if v > low { between as f32 } else { 0.0 };
        }
    }
}

multiversion! {
    fn subtract_from(out: &mut [f32], own: &[f32]) {
        for (out, own) in out.iter_mut().zip(own) {
            *out = own - *out;
        }
    }
}

multiversion! {
    fn mean_of_two(out: &mut [f32], a: &[f32], b: &[f32]) {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = (a + b) / 2.0;
        }
    }
}

multiversion! {
    fn mean_of_three(out: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) {
        for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
            *out = (a + b + c) / 3.0;
        }
    }
}
