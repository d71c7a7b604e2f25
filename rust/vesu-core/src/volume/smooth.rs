//! Moving mean along z.

use rayon::prelude::*;

use super::check::{refusal, same_length};
use super::{SLAB_SLICES, Shape};
use crate::pages::zeroed;
use crate::{Cancel, Error, Result};

/// Widest radius: a window of 2 radius + 1 slices must be counted exactly in `f32`.
pub const MAX_RADIUS: usize = (1 << 23) - 1;

/// Columns whose sums stay in the nearest cache while the window moves over them.
const TILE: usize = 2048;

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
    let bad = smooth
        .par_chunks_mut(SLAB_SLICES * slice_length)
        .enumerate()
        .map(|(slab, out)| smooth_slab(volume, shape, radius, slab * SLAB_SLICES, out, cancel))
        .sum::<Result<usize>>()?;
    if bad > 0 {
        return Err(refusal("volume", volume, shape, bad, |value| !value.is_finite(), "finite float32"));
    }
    Ok(smooth)
}

/// Fill the slices of `out`, the first of which is slice `first`; returns how many of its inputs are not finite.
fn smooth_slab(
    volume: &[f32],
    shape: Shape,
    radius: usize,
    first: usize,
    out: &mut [f32],
    cancel: &Cancel,
) -> Result<usize> {
    let slice_length = shape[1] * shape[2];
    let mut bad = 0;
    for column in (0..slice_length).step_by(TILE) {
        let width = TILE.min(slice_length - column);
        for (i, slice) in out.chunks_exact_mut(slice_length).enumerate() {
            cancel.check()?;
            let tile = |z: usize| &volume[z * slice_length + column..][..width];
            let sums = &mut slice[column..][..width];
            mean_at(tile, first + i, shape[0], radius, sums);
            bad += tile(first + i).iter().filter(|value| !value.is_finite()).count();
        }
    }
    Ok(bad)
}

/// The window's mean at slice `z` of `nz`, of the columns that `tile` gives for a slice.
fn mean_at<'v>(tile: impl Fn(usize) -> &'v [f32], z: usize, nz: usize, radius: usize, out: &mut [f32]) {
    let (before, after) = (radius.saturating_sub(z), (z + radius).saturating_sub(nz - 1));
    let (first, last) = (z.saturating_sub(radius), (z + radius).min(nz - 1));
    // The first slice stands for itself and for the `before` ones that lie outside.
    scale(out, tile(first), (before + 1) as f32);
    for inner in first + 1..last {
        add(out, tile(inner), 1.0);
    }
    if last > first {
        add(out, tile(last), (after + 1) as f32);
    } else {
        add(out, tile(last), after as f32);
    }
    let window = (2 * radius + 1) as f32;
    for sum in out {
        *sum /= window;
    }
}

fn scale(out: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in out.iter_mut().zip(values) {
        *sum = value * factor;
    }
}

fn add(out: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in out.iter_mut().zip(values) {
        *sum += value * factor;
    }
}
