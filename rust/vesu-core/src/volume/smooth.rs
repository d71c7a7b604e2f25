//! Moving mean along z.

use rayon::prelude::*;

use super::check::{refusal, same_length};
use super::{SLAB_SLICES, Shape};
use crate::features::simd::multiversion;
use crate::pages::zeroed;
use crate::{Cancel, Error, Result};

/// Widest radius: a window of 2 radius + 1 slices must be counted exactly in `f32`.
pub const MAX_RADIUS: usize = (1 << 23) - 1;

/// Columns that the window moves over at a time: slices may lie a power of two apart, and their rows must share the
/// few ways of a first-level cache set.
const TILE: usize = 1024;

/// Slices written side by side: few, so that a fresh page is filled while it is still in the cache.
const BAND: usize = 2;

/// Rows that one pass sums in registers.
const FUSED: usize = 7;

/// Mean of the 2 `radius` + 1 slices around each slice; beyond the ends the first and last slice repeat.
///
/// Sums are `f32`, in order of z: the repeated first slice (as one product), the slices inside, the repeated last
/// slice; then one division. Rounding is monotonic and a window of ones sums exactly, so probabilities stay in [0, 1].
pub fn smooth_z(volume: &[f32], shape: Shape, radius: usize, cancel: &Cancel) -> Result<Vec<f32>> {
    same_length("volume", volume.len(), shape)?;
    if radius > MAX_RADIUS {
        return Err(Error::argument("radius", radius, format!("0 to {MAX_RADIUS}")));
    }
    let slice_length = shape[1] * shape[2];
    let mut smooth = zeroed("the smooth volume", volume.len())?;
    let finite = smooth
        .par_chunks_mut(SLAB_SLICES * slice_length)
        .enumerate()
        .map(|(slab, out)| smooth_slab(volume, shape, radius, slab * SLAB_SLICES, out, cancel))
        .try_reduce(|| true, |one, other| Ok(one && other))?;
    if finite {
        return Ok(smooth);
    }
    let bad = |value: f32| !value.is_finite();
    let count = volume.par_iter().filter(|&&value| bad(value)).count();
    Err(refusal("volume", volume, shape, count, bad, "finite float32"))
}

/// Fill the slices of `out`, the first of which is slice `first`; returns whether all of its inputs are finite.
fn smooth_slab(
    volume: &[f32],
    shape: Shape,
    radius: usize,
    first: usize,
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<bool> {
    let slice_length = shape[1] * shape[2];
    let window = (2 * radius + 1) as f32;
    let mut largest = 0;
    for (band, slices) in out.chunks_mut(BAND * slice_length).enumerate() {
        for column in (0..slice_length).step_by(TILE) {
            let width = TILE.min(slice_length - column);
            for (i, slice) in slices.chunks_exact_mut(slice_length).enumerate() {
                cancel.check()?;
                let z = first + band * BAND + i;
                let tile = |z: usize| &volume[z * slice_length + column..][..width];
                largest_magnitude(tile(z), &mut largest);
                mean(&mut slice[column..][..width], tile, Window::around(z, shape[0], radius), window);
            }
        }
    }
    Ok(f32::from_bits(largest).is_finite())
}

/// Slices `first..=last`, of which the outer two stand for those beyond the ends as well.
struct Window {
    first: usize,
    last: usize,
    first_weight: f32,
    last_weight: f32,
}

impl Window {
    fn around(z: usize, nz: usize, radius: usize) -> Self {
        let (before, after) = (radius.saturating_sub(z), (z + radius).saturating_sub(nz - 1));
        let (first, last) = (z.saturating_sub(radius), (z + radius).min(nz - 1));
        // A lone slice is summed twice: before and including itself, then after itself.
        let own = usize::from(last > first);
        Self { first, last, first_weight: (before + 1) as f32, last_weight: (after + own) as f32 }
    }

    fn weight(&self, z: usize) -> f32 {
        if z == self.first {
            self.first_weight
        } else if z == self.last {
            self.last_weight
        } else {
            1.0
        }
    }
}

/// The weighted mean of the rows that `tile` gives for the slices of `window`.
fn mean<'v>(out: &mut [f32], tile: impl Fn(usize) -> &'v [f32], window: Window, divisor: f32) {
    let Window { first, last, .. } = window;
    let count = last - first + 1;
    if (2..=FUSED).contains(&count) {
        let mut rows = [tile(first); FUSED];
        let mut weights = [1.0; FUSED];
        for i in 0..count {
            (rows[i], weights[i]) = (tile(first + i), window.weight(first + i));
        }
        return mean_of_rows(out, &rows[..count], &weights[..count], divisor);
    }
    out.copy_from_slice(tile(first));
    scale(out, window.first_weight);
    for z in first + 1..last {
        add(out, tile(z), 1.0);
    }
    add(out, tile(last), window.last_weight);
    divide(out, divisor);
}

multiversion! {
    /// The same for two to [`FUSED`] rows, the sums in registers.
    fn mean_of_rows(out: &mut [f32], rows: &[&[f32]], weights: &[f32], divisor: f32) {
        match rows.len() {
            2 => fused::<2>(out, rows, weights, divisor),
            3 => fused::<3>(out, rows, weights, divisor),
            4 => fused::<4>(out, rows, weights, divisor),
            5 => fused::<5>(out, rows, weights, divisor),
            6 => fused::<6>(out, rows, weights, divisor),
            _ => fused::<FUSED>(out, rows, weights, divisor),
        }
    }
}

#[inline(always)]
fn fused<const N: usize>(out: &mut [f32], rows: &[&[f32]], weights: &[f32], divisor: f32) {
    let rows: [&[f32]; N] = std::array::from_fn(|i| &rows[i][..out.len()]);
    let weights: [f32; N] = std::array::from_fn(|i| weights[i]);
    for x in 0..out.len() {
        let mut sum = rows[0][x] * weights[0];
        for i in 1..N {
            sum += rows[i][x] * weights[i];
        }
        out[x] = sum / divisor;
    }
}

multiversion! {
    fn scale(out: &mut [f32], factor: f32) {
        for sum in out {
            *sum *= factor;
        }
    }
}

multiversion! {
    fn add(out: &mut [f32], values: &[f32], factor: f32) {
        for (sum, value) in out.iter_mut().zip(values) {
            *sum += value * factor;
        }
    }
}

multiversion! {
    fn divide(out: &mut [f32], divisor: f32) {
        for sum in out {
            *sum /= divisor;
        }
    }
}

multiversion! {
    /// Raise `largest` to the bits of the largest magnitude: those of infinity and NaN lie above all finite ones.
    fn largest_magnitude(values: &[f32], largest: &mut u32) {
        *largest = values.iter().fold(*largest, |most, value| most.max(value.to_bits() & 0x7fff_ffff));
    }
}
