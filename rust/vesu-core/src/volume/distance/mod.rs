//! Exact Euclidean distance transform, one axis after the other.
//!
//! Along x the distance to the nearest background follows from the runs of foreground; along y and z every line of
//! squared distances is lowered by its neighbours ([`tile`]).

mod tile;

use rayon::prelude::*;

use super::check::same_length;
use super::runs::{Run, find_runs};
use super::{SLAB_SLICES, Shape};
use crate::pages::{Zeroable, zeroed};
use crate::{Cancel, Error, Result};
use tile::{LANES, Line, Lines, lower};

/// Spacings accepted: the square of any distance in any volume stays finite and normal in `f32`.
pub const SPACING_RANGE: [f64; 2] = [1e-9, 1e9];

/// `f32`, or `f64` where `f32` is not exact enough.
pub(crate) trait Real: Zeroable + PartialOrd + std::ops::Add<Output = Self> + Send + Sync {
    const INFINITY: Self;
    fn of(value: f64) -> Self;
    fn to_f64(self) -> f64;
}

impl Real for f32 {
    const INFINITY: Self = f32::INFINITY;

    fn of(value: f64) -> Self {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const INFINITY: Self = f64::INFINITY;

    fn of(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}

/// Distance of every foreground voxel (non-zero) to the nearest background voxel, in the unit of `spacing`; 0 in the
/// background, infinity everywhere when there is none. The space around the volume is not background.
///
/// Squared distances are sums in `f32`: exact for unit spacing while they stay below 2^24 (any volume with a diagonal up
/// to 4096 voxels), and then the distance is the exact root, rounded once. Otherwise the squared distance is within
/// 3 * 2^-24 of the exact one, relatively, and the distance within 2.5 * 2^-24.
pub fn distance_transform(
    mask: &[u8],
    shape: Shape,
    spacing: [f64; 3],
    squared: bool,
    cancel: &Cancel,
) -> Result<Vec<f32>> {
    if squared {
        transform(mask, shape, spacing, |value: f32| value, cancel)
    } else {
        transform(mask, shape, spacing, f32::sqrt, cancel)
    }
}

/// Squared distances in `T`; as [`distance_transform`] otherwise.
pub(crate) fn squared_distances<T: Real>(
    mask: &[u8],
    shape: Shape,
    spacing: [f64; 3],
    cancel: &Cancel,
) -> Result<Vec<T>> {
    transform(mask, shape, spacing, |value: T| value, cancel)
}

/// Refuse spacings that are not numbers of a sensible size.
pub fn check_spacing(spacing: [f64; 3]) -> Result<()> {
    let [least, most] = SPACING_RANGE;
    if spacing.iter().all(|step| (least..=most).contains(step)) {
        Ok(())
    } else {
        let accepted = format!("three numbers (z, y, x), each {least:e} to {most:e}");
        Err(Error::argument("spacing", format!("{spacing:?}"), accepted))
    }
}

fn transform<T: Real>(
    mask: &[u8],
    shape: Shape,
    spacing: [f64; 3],
    finish: impl Fn(T) -> T + Copy + Sync,
    cancel: &Cancel,
) -> Result<Vec<T>> {
    same_length("mask", mask.len(), shape)?;
    check_spacing(spacing)?;
    let (shape, spacing) = without_short_axes(shape, spacing);
    let [nz, ny, nx] = shape;
    let along = |axis: usize| Line::new(shape[axis], spacing[axis]);
    let (z_line, y_line, x_line) = (along(0)?, along(1)?, along(2)?);
    let mut distances = zeroed::<T>("distances", mask.len())?;
    distances.par_chunks_mut(SLAB_SLICES * ny * nx).enumerate().try_for_each(|(slab, voxels)| {
        let (mut runs, mut scratch) = (Vec::new(), Vec::new());
        for (z, slice) in voxels.chunks_exact_mut(ny * nx).enumerate() {
            for (y, row) in slice.chunks_exact_mut(nx).enumerate() {
                cancel.check()?;
                let index = (slab * SLAB_SLICES + z) * ny + y;
                find_runs(&mask[index * nx..][..nx], &mut runs, cancel)?;
                for run in &runs {
                    fill_run(row, *run, &x_line.squares);
                }
            }
            if ny > 1 {
                let shared = Shared::new(slice);
                for x in (0..nx).step_by(LANES) {
                    let lines = Lines { first: x, stride: nx, count: ny, width: LANES.min(nx - x) };
                    // SAFETY: the lines lie in this slice, which is borrowed mutably, and no other code looks at it.
                    unsafe { lower(&shared, lines, &y_line, |value| value, &mut scratch, cancel)? };
                }
            }
        }
        Ok(())
    })?;
    let shared = Shared::new(&mut distances);
    (0..ny).into_par_iter().try_for_each_init(Vec::new, |scratch, y| {
        for x in (0..nx).step_by(LANES) {
            let lines = Lines { first: y * nx + x, stride: ny * nx, count: nz, width: LANES.min(nx - x) };
            // SAFETY: columns y * nx + x .. + width lie in the volume, and every tile has its own.
            unsafe { lower(&shared, lines, &z_line, finish, scratch, cancel)? };
        }
        Ok(())
    })?;
    Ok(distances)
}

/// A volume on which several threads work, each on elements of its own.
struct Shared<T> {
    start: *mut T,
    length: usize,
}

impl<T> Shared<T> {
    fn new(values: &mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), length: values.len() }
    }
}

// SAFETY: whoever reads or writes through the pointer promises that no other thread touches the same elements.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Axes of length 1 moved to the front, which leaves the memory as it is: rows become as long as they can.
fn without_short_axes(shape: Shape, spacing: [f64; 3]) -> (Shape, [f64; 3]) {
    let mut order = [0, 1, 2];
    order.sort_by_key(|&axis| shape[axis] > 1);
    (order.map(|axis| shape[axis]), order.map(|axis| spacing[axis]))
}

/// Squared distances inside one run of foreground; the row's ends are no background.
fn fill_run<T: Real>(row: &mut [T], run: Run, squares: &[T]) {
    let length = row.len();
    let (voxels, left, right) = (&mut row[run.range()], run.start > 0, (run.end as usize) < length);
    let n = voxels.len();
    let rising = match (left, right) {
        (false, false) => return voxels.fill(T::INFINITY),
        (true, true) => n.div_ceil(2),
        (true, false) => n,
        (false, true) => 0,
    };
    let (first, second) = voxels.split_at_mut(rising);
    first.copy_from_slice(&squares[1..=rising]);
    for (voxel, square) in second.iter_mut().rev().zip(&squares[1..]) {
        *voxel = *square;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nearest background by looking at every pair.
    fn brute(mask: &[u8], shape: Shape, spacing: [f64; 3]) -> Vec<f64> {
        let place = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
        let square = |i: usize, j: usize| -> f64 {
            (0..3).map(|axis| ((place(i)[axis] as f64 - place(j)[axis] as f64) * spacing[axis]).powi(2)).sum()
        };
        let background: Vec<_> = (0..mask.len()).filter(|&j| mask[j] == 0).collect();
        let nearest = |i| background.iter().map(|&j| square(i, j)).fold(f64::INFINITY, f64::min);
        (0..mask.len()).map(nearest).collect()
    }

    #[test]
    fn both_ways_to_lower_a_tile_are_exact() {
        for (k, shape) in [[7, 9, 40], [1, 1, 50], [40, 1, 3], [3, 20, 1], [150, 2, 1]].into_iter().enumerate() {
            for density in [2, 5, 40, 1 << 30] {
                let voxels: usize = shape.iter().product();
                let mask: Vec<u8> = (0..voxels)
                    .map(|i| {
                        u8::from(
                            (i * i * 7919 + i * 31 + k).wrapping_mul(2654435761) >> 7 & 0x3fff_ffff
                                >= (1 << 30) / density,
                        )
                    })
                    .collect();
                for spacing in [[1.0; 3], [0.5, 2.0, 1.25]] {
                    let found = squared_distances::<f64>(&mask, shape, spacing, &Cancel::new()).unwrap();
                    assert_eq!(found, brute(&mask, shape, spacing));
                    let found = squared_distances::<f32>(&mask, shape, spacing, &Cancel::new()).unwrap();
                    assert!(found.iter().zip(brute(&mask, shape, spacing)).all(|(&a, b)| f64::from(a) == b));
                }
            }
        }
    }

    #[test]
    fn spacings_without_sense_are_refused() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-12, 1e12] {
            assert!(matches!(check_spacing([1.0, bad, 1.0]), Err(Error::Argument { .. })));
        }
    }
}
