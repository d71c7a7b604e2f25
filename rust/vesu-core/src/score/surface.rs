//! How much of two masks' surfaces lies within a tolerance of the other.
//!
//! A surface element sits at every corner of the voxel grid around which both foreground and background are found; its
//! area follows from those eight voxels ([`area_table`]). The corners within the tolerance of the other surface are that
//! surface dilated by a ball: rows of bits are combined 64 corners at a time. Elements are counted by the code of their
//! eight voxels, in integers, so that sums of areas have one order whatever the threads do.

use rayon::prelude::*;

use super::area::area_table;
use super::bits::Bits;
use crate::volume::distance::{check_spacing, squared_distances};
use crate::volume::{Shape, voxel_count};
use crate::{Cancel, Error, Result};

/// Rows of a ball up to which dilation beats two distance transforms.
const MAX_BALL_ROWS: usize = 2048;

/// Areas in the square of the spacing's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SurfaceAreas {
    pub total: f64,
    /// Of the elements whose nearest element of the other surface is at most the tolerance away.
    pub within: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SurfaceOverlap {
    pub prediction: SurfaceAreas,
    pub label: SurfaceAreas,
}

impl SurfaceOverlap {
    /// Share of both surfaces that is within the tolerance; 1 when both masks are empty, 0 when one is.
    pub fn dice(&self) -> f64 {
        let (ours, theirs) = (self.prediction, self.label);
        match (ours.total > 0.0, theirs.total > 0.0) {
            (true, true) => (ours.within + theirs.within) / (ours.total + theirs.total),
            (false, false) => 1.0,
            _ => 0.0,
        }
    }
}

/// The surfaces' areas, and their parts within `tolerance` (in `spacing`'s unit; infinity counts all) of one another.
pub fn surface_overlap(
    prediction: &[u8],
    label: &[u8],
    shape: Shape,
    spacing: [f64; 3],
    tolerance: f64,
    cancel: &Cancel,
) -> Result<SurfaceOverlap> {
    check_distances(spacing, tolerance)?;
    let prediction = Surface::of("prediction", prediction, shape, cancel)?;
    prediction.overlap(&Surface::of("label", label, shape, cancel)?, spacing, tolerance, cancel)
}

fn check_distances(spacing: [f64; 3], tolerance: f64) -> Result<()> {
    check_spacing(spacing)?;
    if tolerance.is_nan() || tolerance < 0.0 {
        return Err(Error::argument("tolerance", tolerance, "0 or more, in the unit of spacing"));
    }
    Ok(())
}

/// Counts of surface elements by code: all, and those within the tolerance.
type Counts = [[u64; 256]; 2];

/// A mask's foreground and the corners of the voxel grid that its surface passes: what any number of comparisons share.
pub struct Surface {
    mask: Bits,
    /// One more than voxels along every axis: corner (z, y, x) has voxels (z - 1, y - 1, x - 1) to (z, y, x) around it.
    elements: Bits,
    corners: Shape,
}

impl Surface {
    /// The surface of `mask`; `name` is what a mask of the wrong size is called.
    pub fn of(name: &'static str, mask: &[u8], shape: Shape, cancel: &Cancel) -> Result<Self> {
        if voxel_count(name, shape)? != mask.len() {
            return Err(Error::argument(name, format!("{} values", mask.len()), format!("as many as {shape:?} holds")));
        }
        let corners = shape.map(|length| length + 1);
        let mask = Bits::of_mask(mask, shape, cancel)?;
        let words = corners[2].div_ceil(64);
        let elements = Bits::fill(corners, cancel, |z, rows| {
            for (y, row) in rows.chunks_exact_mut(words).enumerate() {
                let around = Around::new(&mask, z, y);
                for (k, word) in row.iter_mut().enumerate() {
                    let voxels = around.voxels(k);
                    let any = voxels.iter().fold(0, |any, bits| any | bits);
                    let all = voxels.iter().fold(!0, |all, bits| all & bits);
                    *word = any & !all;
                }
            }
        })?;
        Ok(Self { mask, elements, corners })
    }

    /// As [`surface_overlap`], of this surface as the prediction's.
    pub fn overlap(&self, label: &Self, spacing: [f64; 3], tolerance: f64, cancel: &Cancel) -> Result<SurfaceOverlap> {
        check_distances(spacing, tolerance)?;
        if self.corners != label.corners {
            let [got, accepted] = [self, label].map(|surface| format!("shape {:?}", surface.shape()));
            return Err(Error::argument("prediction", got, accepted));
        }
        let areas = area_table(spacing);
        Ok(SurfaceOverlap {
            prediction: self.areas(label, &areas, spacing, tolerance, cancel)?,
            label: label.areas(self, &areas, spacing, tolerance, cancel)?,
        })
    }

    pub fn shape(&self) -> Shape {
        self.corners.map(|corners| corners - 1)
    }

    fn areas(
        &self,
        other: &Self,
        areas: &[f64; 256],
        spacing: [f64; 3],
        tolerance: f64,
        cancel: &Cancel,
    ) -> Result<SurfaceAreas> {
        let [all, within] = match ball_rows(self.corners, spacing, tolerance, MAX_BALL_ROWS) {
            Some(ball) => {
                let ball = &ball;
                self.count(cancel, |z, y, row| dilated_row(&other.elements, ball, z, y, row))?
            }
            None => {
                let near = other.near(spacing, tolerance, cancel)?;
                self.count(cancel, |z, y, row| row.copy_from_slice(near.row(z, y)))?
            }
        };
        let area = |counts: [u64; 256]| counts.iter().zip(areas).map(|(&count, area)| count as f64 * area).sum();
        Ok(SurfaceAreas { total: area(all), within: area(within) })
    }

    /// Count the elements by code; `near` writes the corners of a row that are within the tolerance.
    fn count(&self, cancel: &Cancel, near: impl Fn(usize, usize, &mut [u64]) + Sync) -> Result<Counts> {
        let slices = (0..self.corners[0]).into_par_iter().map(|z| {
            let mut counts = [[0; 256]; 2];
            let mut near_row = vec![0; self.elements.words];
            for y in 0..self.elements.ny {
                cancel.check()?;
                let elements = self.elements.row(z, y);
                if elements.iter().all(|&word| word == 0) {
                    continue;
                }
                near(z, y, &mut near_row);
                let around = Around::new(&self.mask, z, y);
                for (k, (&word, &near)) in elements.iter().zip(&near_row).enumerate() {
                    count_word(word, near, || around.voxels(k), &mut counts);
                }
            }
            Ok(counts)
        });
        // Integers: the same sum in any order.
        slices.try_reduce(
            || [[0; 256]; 2],
            |mut sum, counts| {
                for (sum, count) in sum.as_flattened_mut().iter_mut().zip(counts.as_flattened()) {
                    *sum += count;
                }
                Ok(sum)
            },
        )
    }

    /// The corners within `tolerance` of this surface, by a distance transform.
    ///
    /// Squares are added in the order z, y, x as SciPy does, so that ties at the tolerance fall alike for any spacing:
    /// the transform's first axis is its last, hence the volume goes in with its axes reversed.
    fn near(&self, spacing: [f64; 3], tolerance: f64, cancel: &Cancel) -> Result<Bits> {
        let [nz, ny, nx] = self.corners;
        let mut away = crate::pages::zeroed::<u8>("surface elements", nz * ny * nx)?;
        away.par_chunks_mut(ny * nz).enumerate().try_for_each(|(x, plane)| {
            cancel.check()?;
            for (y, row) in plane.chunks_exact_mut(nz).enumerate() {
                for (z, voxel) in row.iter_mut().enumerate() {
                    *voxel = u8::from(!self.elements.get(z, y, x));
                }
            }
            Ok(())
        })?;
        let [z_step, y_step, x_step] = spacing;
        let squares = squared_distances::<f64>(&away, [nx, ny, nz], [x_step, y_step, z_step], cancel)?;
        drop(away);
        Bits::fill(self.corners, cancel, |z, rows| {
            for (y, row) in rows.chunks_exact_mut(self.elements.words).enumerate() {
                for x in 0..nx {
                    let near = squares[(x * ny + y) * nz + z].sqrt() <= tolerance;
                    row[x / 64] |= u64::from(near) << (x % 64);
                }
            }
        })
    }
}

#[inline]
fn count_word(mut word: u64, near: u64, voxels: impl FnOnce() -> [u64; 8], counts: &mut Counts) {
    if word == 0 {
        return;
    }
    let voxels = voxels();
    while word != 0 {
        let bit = word.trailing_zeros();
        word &= word - 1;
        let code = (0..8).fold(0, |code, k| code | (voxels[k] >> bit & 1) << k) as usize;
        counts[0][code] += 1;
        counts[1][code] += near >> bit & 1;
    }
}

/// The four rows of voxels around a row of corners; None outside the volume.
struct Around<'m>([Option<&'m [u64]>; 4]);

impl<'m> Around<'m> {
    fn new(mask: &'m Bits, z: usize, y: usize) -> Self {
        let row = |dz: isize, dy: isize| mask.row_at(z as isize - dz, y as isize - dy);
        Self([row(1, 1), row(1, 0), row(0, 1), row(0, 0)])
    }

    /// For the 64 corners of word `k`, the bits of the eight voxels around, in the order of a code's bits.
    #[inline]
    fn voxels(&self, k: usize) -> [u64; 8] {
        let mut voxels = [0; 8];
        for (pair, row) in voxels.chunks_exact_mut(2).zip(self.0) {
            let word = |k: usize| row.and_then(|row| row.get(k)).copied().unwrap_or(0);
            let before = k.checked_sub(1).map_or(0, word);
            pair[0] = word(k) << 1 | before >> 63; // voxel x - 1
            pair[1] = word(k);
        }
        voxels
    }
}

/// A ball cut into rows: offsets (dz, dy), widest first, with the half-width along x in voxels.
struct BallRow {
    dz: isize,
    dy: isize,
    half_width: usize,
}

/// The offsets of length at most `tolerance`; None if they are more than `most` rows.
fn ball_rows(corners: Shape, spacing: [f64; 3], tolerance: f64, most: usize) -> Option<Vec<BallRow>> {
    let reach = |axis: usize| ((tolerance / spacing[axis]) as usize).saturating_add(1).min(corners[axis]);
    let (z_reach, y_reach, x_reach) = (reach(0), reach(1), reach(2));
    if (2 * z_reach + 1).saturating_mul(2 * y_reach + 1) > 2 * most {
        return None;
    }
    let square = |steps: usize, axis: usize| (steps as f64 * spacing[axis]) * (steps as f64 * spacing[axis]);
    let mut rows = Vec::new();
    for dz in 0..=z_reach {
        for dy in 0..=y_reach {
            // The same arithmetic as a float64 distance transform's, so that ties at the tolerance fall alike.
            let length = |dx: usize| (square(dz, 0) + square(dy, 1) + square(dx, 2)).sqrt();
            let Some(half_width) = (0..=x_reach).take_while(|&dx| length(dx) <= tolerance).last() else {
                continue;
            };
            let (dz, dy) = (dz as isize, dy as isize);
            for (dz, dy) in [(dz, dy), (-dz, dy), (dz, -dy), (-dz, -dy)] {
                rows.push(BallRow { dz, dy, half_width });
            }
        }
    }
    rows.sort_by_key(|row| (std::cmp::Reverse(row.half_width), row.dz, row.dy));
    rows.dedup_by_key(|row| (row.dz, row.dy));
    (rows.len() <= most).then_some(rows)
}

/// Row (z, y) of `elements` dilated by the ball: rows of equal half-width are united first, then widened together.
fn dilated_row(elements: &Bits, ball: &[BallRow], z: usize, y: usize, out: &mut [u64]) {
    out.fill(0);
    let mut rest = ball;
    for half_width in (0..=ball.first().map_or(0, |row| row.half_width)).rev() {
        let same = rest.iter().take_while(|row| row.half_width == half_width).count();
        for row in &rest[..same] {
            if let Some(other) = elements.row_at(z as isize + row.dz, y as isize + row.dy) {
                for (word, other) in out.iter_mut().zip(other) {
                    *word |= other;
                }
            }
        }
        rest = &rest[same..];
        if half_width > 0 {
            widen(out);
        }
    }
}

/// Set the neighbours of every bit, too. Bits beyond the row's end may be set: no element is there.
fn widen(row: &mut [u64]) {
    let mut before = 0;
    for k in 0..row.len() {
        let (word, after) = (row[k], row.get(k + 1).copied().unwrap_or(0));
        row[k] = word | word << 1 | before >> 63 | word >> 1 | after << 63;
        before = word;
    }
}
