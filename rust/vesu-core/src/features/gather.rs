//! Rows of the sampled voxels: every channel's value and the length of its spatial gradient.

use rayon::prelude::*;

use super::memory::zeroed;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Voxels a task takes.
const CHUNK: usize = 1024;

/// For each voxel of `index` (ascending flat indices into (z, y, x)) and each channel of `values` (channel, z, y, x):
/// the value, and the length of the gradient by central differences, one-sided at the faces. Both (voxel, channel).
pub fn gather(
    values: &[f32],
    n_channels: usize,
    shape: [usize; 3],
    index: &[i64],
    cancel: &Cancel,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let n_voxels: usize = shape.iter().product();
    check_index(index, n_voxels)?;
    let len = index.len().saturating_mul(n_channels);
    let (mut found, mut slopes) = (zeroed("gathered values", len)?, zeroed("gathered gradients", len)?);
    let tasks = found.par_chunks_mut(CHUNK * n_channels).zip(slopes.par_chunks_mut(CHUNK * n_channels));
    tasks.zip(index.par_chunks(CHUNK)).try_for_each(|((found, slopes), index)| {
        cancel.check()?;
        // Channel by channel: neighbouring voxels then share cache lines.
        for (channel, values) in values.chunks_exact(n_voxels).enumerate() {
            for (row, &at) in index.iter().enumerate() {
                let at = at as usize; // not negative: checked above
                found[row * n_channels + channel] = values[at];
                slopes[row * n_channels + channel] = slope(values, shape, at);
            }
        }
        Ok(())
    })?;
    check_finite(&found, n_channels, index)?;
    Ok((found, slopes))
}

fn slope(values: &[f32], [nz, ny, nx]: [usize; 3], at: usize) -> f32 {
    let axes = [(at / (ny * nx), nz, ny * nx), (at / nx % ny, ny, nx), (at % nx, nx, 1)];
    let square: f64 = axes.into_iter().map(|axis| difference(values, at, axis).powi(2)).sum();
    square.sqrt().min(f64::from(f32::MAX)) as f32
}

/// NumPy's `gradient` along one axis at one place; 0 on an axis of one voxel.
fn difference(values: &[f32], at: usize, (place, len, stride): (usize, usize, usize)) -> f64 {
    let low = if place == 0 { at } else { at - stride };
    let high = if place + 1 == len { at } else { at + stride };
    let span = if place == 0 || place + 1 == len { 1.0 } else { 0.5 };
    (f64::from(values[high]) - f64::from(values[low])) * span
}

fn check_index(index: &[i64], n_voxels: usize) -> Result<()> {
    let accepted = || format!("ascending flat indices, each 0 to {}", n_voxels - 1);
    if let Some(at) = index.iter().position(|&i| i < 0 || i as u64 >= n_voxels as u64) {
        return Err(Error::argument("flat_index", format!("{} at position {at}", index[at]), accepted()));
    }
    match index.windows(2).position(|pair| pair[0] > pair[1]) {
        Some(at) => {
            let got = format!("{} after {} at position {}", index[at + 1], index[at], at + 1);
            Err(Error::argument("flat_index", got, accepted()))
        }
        None => Ok(()),
    }
}

fn check_finite(found: &[f32], n_channels: usize, index: &[i64]) -> Result<()> {
    match found.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let (row, channel) = (at / n_channels, at % n_channels);
            let got = format!("{} in channel {channel} at flat index {}", found[at], index[row]);
            Err(Error::argument("features", got, "finite values only"))
        }
        None => Ok(()),
    }
}
