//! Grey morphology by small elements, all its dilations and erosions in one walk through the volume.
//!
//! A band of rows is walked slice by slice. Each slice that enters is joined with its neighbours in the slice to the
//! sections of the element, which are kept while an output slice still needs them; an output slice joins one section
//! of each slice around. It enters the next dilation or erosion at once, or leaves for the result: what lies between
//! never leaves the cache.

use std::ops::Range;

use rayon::prelude::*;

use super::super::Shape;
use super::join::{Best, join};
use super::section::Sections;
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// Slices of the result that one task writes: many, as those around are worked on twice.
const SLICES: usize = 32;

/// Bytes of planes that a band should keep within: a thread's share of a last-level cache.
const BAND_BYTES: usize = 4 << 20;

/// Bytes of planes that a band of the fewest rows may take.
const MOST_BYTES: usize = 16 << 20;

/// One dilation or erosion.
pub(super) struct Stage {
    pub best: Best,
    pub sections: Sections,
}

/// The stages with the geometry of their bands.
pub(super) struct Fused {
    stages: Vec<Stage>,
    shape: Shape,
    /// Rows of a band of the result.
    rows: usize,
    /// Cells between the rows of a plane, as many as a window reaches: beyond the volume.
    gap: usize,
}

impl Fused {
    /// None where the planes would take too much memory: wide elements or very long rows.
    pub fn new(stages: Vec<Stage>, shape: Shape) -> Option<Self> {
        let gap = stages.iter().map(|stage| stage.sections.steps.iter().sum()).max()?;
        let mut fused = Self { stages, shape, rows: 1, gap };
        let reach = fused.reach_y(0);
        // Fewer, and the rows around would outweigh the band.
        let fewest = (2 * reach).max(4).min(shape[1]);
        let bytes = |rows: usize| fused.planes().saturating_mul((rows + 2 * reach) * fused.stride() * size_of::<f32>());
        if bytes(fewest) > MOST_BYTES {
            return None;
        }
        let most = (fewest..=shape[1]).take_while(|&rows| bytes(rows) <= BAND_BYTES).last().unwrap_or(fewest);
        fused.rows = shape[1].div_ceil(shape[1].div_ceil(most));
        Some(fused)
    }

    fn planes(&self) -> usize {
        let of_stage = |stage: &Stage| {
            let kept: usize = stage.sections.sections.iter().map(|s| stage.sections.reach.0 + s.dzs[0] + 1).sum();
            stage.sections.steps.len() + 1 + kept
        };
        self.stages.iter().map(of_stage).sum()
    }

    fn stride(&self) -> usize {
        self.shape[2] + self.gap
    }

    /// Rows at either side of a band that `stage` and those after it reach.
    fn reach_y(&self, stage: usize) -> usize {
        self.stages[stage..].iter().map(|stage| stage.sections.reach.1).sum()
    }

    /// The slices that enter `stage`, for the slices `out` of the result.
    fn entering(&self, stage: usize, out: &Range<usize>) -> Range<usize> {
        let reach: usize = self.stages[stage..].iter().map(|stage| stage.sections.reach.0).sum();
        out.start.saturating_sub(reach)..(out.end + reach).min(self.shape[0])
    }

    /// The result, or None if there is a NaN in `volume`.
    pub fn run(&self, volume: &[f32], cancel: &Cancel) -> Result<Option<Vec<f32>>> {
        let slice_length = self.shape[1] * self.shape[2];
        let mut result = zeroed("the result", volume.len())?;
        let clean = result
            .par_chunks_mut(SLICES * slice_length)
            .enumerate()
            .map(|(slab, out)| {
                let first = slab * SLICES;
                let mut walk = Walk::new(self, first..first + out.len() / slice_length, out)?;
                let mut clean = true;
                for y in (0..self.shape[1]).step_by(self.rows) {
                    clean &= walk.band(y, volume, cancel)?;
                }
                Ok(clean)
            })
            .try_reduce(|| true, |one, other| Ok(one && other))?;
        Ok(clean.then_some(result))
    }
}

/// A slice's rows, with gaps between that always hold the stage's bottom value.
type Plane = Vec<f32>;

/// What a stage holds of a band.
struct Planes {
    /// The slice that entered last, by the width of the window: the slice itself, then ever wider.
    windows: Vec<Plane>,
    /// Each section of the latest slices, as many as outputs to come need; slice z is at z modulo their number.
    kept: Vec<Vec<Plane>>,
    /// The next slice to leave.
    next: usize,
}

/// One task's walk through its slices, band after band.
struct Walk<'a> {
    fused: &'a Fused,
    slices: Range<usize>,
    out: &'a mut [f32],
    planes: Vec<Planes>,
    /// The band's rows of the result.
    rows: Range<usize>,
}

impl<'a> Walk<'a> {
    fn new(fused: &'a Fused, slices: Range<usize>, out: &'a mut [f32]) -> Result<Self> {
        let of_stage = |(i, stage): (usize, &Stage)| {
            let cells = fused.gap + (fused.rows + 2 * fused.reach_y(i)) * fused.stride();
            let plane = || {
                let mut plane = zeroed("a band of rows", cells)?;
                plane.fill(stage.best.bottom());
                Ok(plane)
            };
            let Sections { sections, steps, reach } = &stage.sections;
            let kept = sections.iter().map(|section| (0..reach.0 + section.dzs[0] + 1).map(|_| plane()).collect());
            let windows = (0..steps.len() + 1).map(|_| plane()).collect::<Result<_>>()?;
            Ok(Planes { windows, kept: kept.collect::<Result<_>>()?, next: 0 })
        };
        let planes = fused.stages.iter().enumerate().map(of_stage).collect::<Result<_>>()?;
        Ok(Self { fused, slices, out, planes, rows: 0..0 })
    }

    /// Fill the rows from `y` on. Returns whether no value that entered is NaN.
    fn band(&mut self, y: usize, volume: &[f32], cancel: &Cancel) -> Result<bool> {
        let [_, ny, nx] = self.fused.shape;
        self.rows = y..(y + self.fused.rows).min(ny);
        for i in 0..self.planes.len() {
            self.planes[i].next = self.fused.entering(i + 1, &self.slices).start;
            self.clear_outside(i);
        }
        let mut nan = false;
        for z in self.fused.entering(0, &self.slices) {
            cancel.check()?;
            for y in self.entering_rows(0) {
                let at = self.place(0, y);
                let row = &volume[(z * ny + y) * nx..][..nx];
                self.planes[0].windows[0][at..at + nx].copy_from_slice(row);
                nan |= row.iter().fold(false, |nan, value| nan | value.is_nan());
            }
            self.enter(0, z, cancel)?;
        }
        Ok(!nan)
    }

    /// Rows of the volume that enter `stage`, or leave the one before.
    fn entering_rows(&self, stage: usize) -> Range<usize> {
        let reach = self.fused.reach_y(stage);
        self.rows.start.saturating_sub(reach)..(self.rows.end + reach).min(self.fused.shape[1])
    }

    /// Where row `y` of the volume starts in a plane of `stage`.
    fn place(&self, stage: usize, y: usize) -> usize {
        self.fused.gap + (y + self.fused.reach_y(stage) - self.rows.start) * self.fused.stride()
    }

    /// Rows beyond the volume may hold those of the band before.
    fn clear_outside(&mut self, stage: usize) {
        let inside = self.entering_rows(stage);
        let (start, end) = (self.place(stage, inside.start), self.place(stage, inside.end));
        let bottom = self.fused.stages[stage].best.bottom();
        let plane = &mut self.planes[stage].windows[0];
        plane[..start].fill(bottom);
        plane[end..].fill(bottom);
    }

    /// Slice `z` has entered `stage`: make its sections, and let go the slices that waited for it.
    fn enter(&mut self, stage: usize, z: usize, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        let Stage { best, sections } = &self.fused.stages[stage];
        self.planes[stage].fill(*best, sections, self.fused.stride(), self.fused.gap, z);
        let (entering, leaving) =
            (self.fused.entering(stage, &self.slices), self.fused.entering(stage + 1, &self.slices));
        let ready = if z + 1 == entering.end { leaving.end } else { (z + 1).saturating_sub(sections.reach.0) };
        while self.planes[stage].next < ready {
            let leaving = self.planes[stage].next;
            self.planes[stage].next += 1;
            self.leave(stage, leaving, &entering);
            if stage + 1 < self.planes.len() {
                self.enter(stage + 1, leaving, cancel)?;
            }
        }
        Ok(())
    }

    /// Join the sections that make slice `z` after `stage`, into the next stage or the result.
    fn leave(&mut self, stage: usize, z: usize, entered: &Range<usize>) {
        let [_, ny, nx] = self.fused.shape;
        let rows = self.entering_rows(stage + 1);
        let (from, stride) = (self.place(stage, rows.start), self.fused.stride());
        let last = stage + 1 == self.planes.len();
        let (to, to_stride) = if last {
            (((z - self.slices.start) * ny + rows.start) * nx, nx)
        } else {
            (self.place(stage + 1, rows.start), stride)
        };
        let (before, after) = self.planes.split_at_mut(stage + 1);
        let target = match after.first_mut() {
            Some(next) => &mut next.windows[0],
            None => &mut *self.out,
        };
        let Stage { best, sections } = &self.fused.stages[stage];
        let planes = before[stage].sections_around(z, sections, entered);
        let mut sources = Vec::with_capacity(planes.len());
        for row in 0..rows.len() {
            sources.clear();
            sources.extend(planes.iter().map(|plane| &plane[from + row * stride..][..nx]));
            join(*best, &mut target[to + row * to_stride..][..nx], &sources);
        }
    }
}

impl Planes {
    /// Make the windows and sections of the slice that has entered, as number `z`.
    fn fill(&mut self, best: Best, sections: &Sections, stride: usize, gap: usize, z: usize) {
        for (i, &step) in sections.steps.iter().enumerate() {
            let (narrow, wide) = self.windows.split_at_mut(i + 1);
            let (narrow, length) = (&narrow[i], narrow[i].len() - 2 * step);
            let shifted = [&narrow[..length], &narrow[step..][..length], &narrow[2 * step..]];
            join(best, &mut wide[0][step..][..length], &shifted);
        }
        let start = gap + sections.reach.1 * stride;
        let length = self.windows[0].len() - gap - 2 * sections.reach.1 * stride;
        for (i, section) in sections.sections.iter().enumerate() {
            let (outer, own) = self.kept.split_at_mut(i);
            let mut sources = Vec::with_capacity(section.rows.len() + 1);
            if let Some(outer) = outer.last().filter(|_| section.inherits) {
                sources.push(&outer[z % outer.len()][start..][..length]);
            }
            sources.extend(section.rows.iter().map(|&(dy, window)| {
                &self.windows[window][(start as isize + dy * stride as isize) as usize..][..length]
            }));
            let slot = z % own[0].len();
            join(best, &mut own[0][slot][start..][..length], &sources);
        }
    }

    /// The sections that the element around slice `z` takes of the slices that `entered`.
    fn sections_around(&self, z: usize, sections: &Sections, entered: &Range<usize>) -> Vec<&Plane> {
        let mut around = Vec::new();
        for (section, kept) in sections.sections.iter().zip(&self.kept) {
            for &dz in &section.dzs {
                let below = z.checked_sub(dz).filter(|_| dz > 0);
                let slices = [below, Some(z + dz)].into_iter().flatten().filter(|z| entered.contains(z));
                around.extend(slices.map(|z| &kept[z % kept.len()]));
            }
        }
        around
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::element::{ElementShape, elements};
    use super::super::{Operation, one_by_one, stages};
    use super::*;

    fn shapes() -> impl Strategy<Value = Shape> {
        (1..75_usize, 1..14_usize, prop::sample::select(vec![1_usize, 5, 31, 32, 33, 70])).prop_map(<[usize; 3]>::from)
    }

    fn values(shape: Shape, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 - 8e6
        };
        (0..shape.iter().product()).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn bands_of_any_height_give_what_whole_volumes_do(
            shape in shapes(),
            seed: u64,
            radius in prop::array::uniform3(0..6_u64),
            kind in prop::sample::select(vec![ElementShape::Ball, ElementShape::Box]),
            operation in prop::sample::select(vec![Operation::Dilation, Operation::Erosion, Operation::Closing]),
            rows in 1..15_usize,
        ) {
            let (volume, cancel) = (values(shape, seed), Cancel::new());
            let steps = elements(radius, kind, shape).unwrap();
            let mut fused = Fused::new(stages(operation, &steps).unwrap(), shape).unwrap();
            fused.rows = rows.min(shape[1]);
            let expected = one_by_one(&volume, shape, operation, &steps, &cancel).unwrap();
            prop_assert_eq!(fused.run(&volume, &cancel).unwrap(), Some(expected));
        }

        #[test]
        fn a_nan_anywhere_is_seen(shape in shapes(), place: prop::sample::Index, rows in 1..15_usize) {
            let mut volume = values(shape, 1);
            let place = place.index(volume.len());
            volume[place] = f32::NAN;
            let steps = elements([1, 1, 1], ElementShape::Ball, shape).unwrap();
            let mut fused = Fused::new(stages(Operation::Opening, &steps).unwrap(), shape).unwrap();
            fused.rows = rows.min(shape[1]);
            prop_assert_eq!(fused.run(&volume, &Cancel::new()).unwrap(), None);
        }
    }

    #[test]
    fn too_much_memory_is_declined() {
        let declined = |radius, shape| {
            let steps = elements(radius, ElementShape::Ball, shape).unwrap();
            stages(Operation::Closing, &steps).and_then(|stages| Fused::new(stages, shape)).is_none()
        };
        assert!(declined([40, 40, 40], [128, 192, 192]));
        assert!(declined([90, 90, 90], [128, 192, 192]));
        assert!(declined([1, 1, 1], [2, 2, 1 << 30]));
        assert!(!declined([3, 3, 3], [512, 512, 512]));
    }
}
