//! NX46: an energy of differences, averaged over a window along z, blended with one projected along the whole of z.

use rayon::prelude::*;

use super::scale::Scale;
use crate::features::Voxel;
use crate::features::simd::multiversion;
use crate::pages::zeroed;
use crate::volume::{MAX_RADIUS, Shape};
use crate::{Cancel, Error, Result};

/// Rows of y in one piece of work: a piece holds all of z, so nothing but one row of y is needed from another.
const BAND: usize = 4;

/// A band has at least this many voxels in each slice, however short the rows are.
const MIN_PIECE: usize = 256;

/// Parameters of NX46.
#[derive(Clone, Copy, Debug)]
pub struct Nx46 {
    /// Weight of the 3-D energy against the projection, in [0, 1].
    pub blend_3d: f64,
    /// Slices on either side in the moving means along z.
    pub radius: usize,
}

impl Nx46 {
    pub(super) fn score<T: Voxel>(&self, volume: &[T], shape: Shape, cancel: &Cancel) -> Result<Vec<f32>> {
        if !(0.0..=1.0).contains(&self.blend_3d) {
            return Err(Error::argument("score_blend_3d_weight", self.blend_3d, "0 to 1"));
        }
        if self.radius > MAX_RADIUS {
            return Err(Error::argument("z_smoothing_radius", self.radius, format!("0 to {MAX_RADIUS}")));
        }
        let [nz, ny, nx] = shape;
        let mut score = zeroed("the score", volume.len())?;
        let Some(scale) = Scale::of(volume, shape, cancel)? else { return Ok(score) };
        let height = BAND.max(MIN_PIECE / nx);
        let mut bands: Vec<Vec<&mut [f32]>> = (0..ny.div_ceil(height)).map(|_| Vec::with_capacity(nz)).collect();
        for slice in score.chunks_exact_mut(ny * nx) {
            bands.iter_mut().zip(slice.chunks_mut(height * nx)).for_each(|(band, rows)| band.push(rows));
        }
        bands.into_par_iter().enumerate().try_for_each_init(
            || None,
            |scratch, (index, band)| {
                let scratch = match scratch {
                    Some(scratch) => scratch,
                    None => scratch.insert(Scratch::new(nz, height.min(ny), nx)?),
                };
                let first = index * height;
                let rows = first..ny.min(first + height);
                scratch.fill(volume, shape, &scale, rows.clone(), cancel)?;
                scratch.energies(rows.len(), self.radius, cancel)?;
                scratch.blend(band, self.blend_3d, self.radius, cancel)
            },
        )?;
        Ok(score)
    }
}

/// What one thread needs for a band: nine rows of y, all of z.
struct Scratch {
    nz: usize,
    nx: usize,
    /// Slices of scaled rows: the one before the band, then the band's. Each row begins with its first value twice, so
    /// that the neighbour on the left is there for all.
    scaled: Vec<f32>,
    /// The 3-D energy, slice after slice.
    energy: Vec<f32>,
    /// Sums over the moving window.
    sums: Vec<f64>,
    /// Sum of the second energy over z.
    projection: Vec<f64>,
    slice: usize,
    piece: usize,
}

impl Scratch {
    fn new(nz: usize, height: usize, nx: usize) -> Result<Self> {
        let (slice, piece) = ((height + 1) * (nx + 1), height * nx);
        let what = "scratch of NX46";
        let (scaled, energy) = (zeroed(what, nz * slice)?, zeroed(what, nz * piece)?);
        Ok(Self { nz, nx, scaled, energy, sums: zeroed(what, piece)?, projection: zeroed(what, piece)?, slice, piece })
    }

    fn fill<T: Voxel>(
        &mut self,
        volume: &[T],
        [_, ny, nx]: Shape,
        scale: &Scale,
        rows: std::ops::Range<usize>,
        cancel: &Cancel,
    ) -> Result<()> {
        for (z, slice) in self.scaled.chunks_exact_mut(self.slice).enumerate() {
            cancel.check()?;
            // Before the first row stands the first row itself: there is no difference there.
            let sources = std::iter::once(rows.start.saturating_sub(1)).chain(rows.clone());
            for (row, y) in slice.chunks_exact_mut(nx + 1).zip(sources) {
                scale.row(&mut row[1..], &volume[(z * ny + y) * nx..][..nx]);
                row[0] = row[1];
            }
        }
        Ok(())
    }

    /// The 3-D energy of every voxel, and the sums of the second energy over z.
    fn energies(&mut self, height: usize, radius: usize, cancel: &Cancel) -> Result<()> {
        let (nz, nx, slice) = (self.nz, self.nx, self.slice);
        let scaled = &self.scaled;
        let row = |z: usize, y: usize| &scaled[z * slice + (y + 1) * (nx + 1)..][..nx + 1];
        let per_slice = 1.0 / (2 * radius + 1) as f64;
        self.projection.fill(0.0);
        for y in 0..height {
            let at = y * nx;
            let sums = &mut self.sums[at..][..nx];
            let projection = &mut self.projection[at..][..nx];
            start_window(sums, nz, radius, |z| &row(z, y)[1..]);
            for z in 0..nz {
                cancel.check()?;
                let here = row(z, y);
                let above = &scaled[z * slice + y * (nx + 1)..][..nx + 1];
                let (before, after) = (row(z.saturating_sub(1), y), row((z + 1).min(nz - 1), y));
                let near =
                    Near { here: &here[1..], left: here, above: &above[1..], before: &before[1..], after: &after[1..] };
                energy_row(&mut self.energy[z * self.piece + at..][..nx], projection, sums, &near, per_slice);
                let (enter, leave) = ((z + 1 + radius).min(nz - 1), z.saturating_sub(radius));
                move_window(sums, &row(enter, y)[1..], &row(leave, y)[1..]);
            }
        }
        Ok(())
    }

    /// The band's score: the moving mean of the 3-D energy, blended with the projection.
    fn blend(&mut self, band: Vec<&mut [f32]>, blend_3d: f64, radius: usize, cancel: &Cancel) -> Result<()> {
        let (nz, piece) = (self.nz, self.piece);
        let voxels = band.first().map_or(0, |rows| rows.len());
        let energy = &self.energy;
        let slice = |z: usize| &energy[z * piece..][..voxels];
        let (sums, projection) = (&mut self.sums[..voxels], &mut self.projection[..voxels]);
        for value in projection.iter_mut() {
            *value *= (1.0 - blend_3d) / nz as f64;
        }
        start_window(sums, nz, radius, slice);
        let weight = blend_3d / (2 * radius + 1) as f64;
        for (z, out) in band.into_iter().enumerate() {
            cancel.check()?;
            blend_row(out, sums, projection, weight);
            move_window(sums, slice((z + 1 + radius).min(nz - 1)), slice(z.saturating_sub(radius)));
        }
        Ok(())
    }
}

/// Sums over the window around slice 0, the end slices repeated.
fn start_window<'v>(sums: &mut [f64], nz: usize, radius: usize, slice: impl Fn(usize) -> &'v [f32]) {
    sums.fill(0.0);
    let last = radius.min(nz - 1);
    for z in 0..=last {
        let before = if z == 0 { radius } else { 0 };
        let after = if z == nz - 1 { radius - last } else { 0 };
        add_times(sums, slice(z), (1 + before + after) as f64);
    }
}

/// Rows of scaled values: a voxel's own and those of its neighbours; at a face its own stands for the one outside.
struct Near<'a> {
    here: &'a [f32],
    left: &'a [f32],
    above: &'a [f32],
    before: &'a [f32],
    after: &'a [f32],
}

multiversion! {
    fn energy_row(energy: &mut [f32], projection: &mut [f64], sums: &[f64], near: &Near<'_>, per_slice: f64) {
        let n = energy.len();
        let (projection, sums) = (&mut projection[..n], &sums[..n]);
        let (here, left, above) = (&near.here[..n], &near.left[..n], &near.above[..n]);
        let (before, after) = (&near.before[..n], &near.after[..n]);
        for x in 0..n {
            let value = here[x];
            let (dz, dy, dx) = ((value - before[x]).abs(), (value - above[x]).abs(), (value - left[x]).abs());
            let contrast = (value - (sums[x] * per_slice) as f32).abs();
            let second = ((after[x] - value) - (value - before[x])).abs();
            energy[x] = 0.34 * dz + 0.22 * dy + 0.22 * dx + 0.12 * contrast + 0.10 * second;
            projection[x] += f64::from(0.45 * dz + 0.30 * dy + 0.25 * dx);
        }
    }
}

multiversion! {
    fn blend_row(out: &mut [f32], sums: &[f64], projection: &[f64], weight: f64) {
        for ((out, sum), projection) in out.iter_mut().zip(sums).zip(projection) {
            // A moving sum may end a rounding error below 0.
            *out = (sum.max(0.0) * weight + projection) as f32;
        }
    }
}

multiversion! {
    fn add_times(sums: &mut [f64], values: &[f32], times: f64) {
        for (sum, &value) in sums.iter_mut().zip(values) {
            *sum += f64::from(value) * times;
        }
    }
}

multiversion! {
    fn move_window(sums: &mut [f64], enter: &[f32], leave: &[f32]) {
        for ((sum, &enter), &leave) in sums.iter_mut().zip(enter).zip(leave) {
            *sum += f64::from(enter) - f64::from(leave);
        }
    }
}
