//! The height-map patch: holes in sheets filled by interpolation, where the sheet is flat enough and topology gains.
//!
//! A sheet (a connected component) is seen as a height map along an axis, its layers cut apart where it has several runs
//! in a column ([`columns`]). Gaps enclosed in a layer are interpolated from their edges ([`gaps`]). A fill is kept only if
//! it touches no other component and the Euler number says that it closes a tunnel ([`apply`]).

mod apply;
mod columns;
mod gaps;

use rayon::prelude::*;

use super::components::Components;
use super::painting;
use super::runs::Run;
use super::topology::{BettiNumbers, betti_numbers};
use super::{Connectivity, Shape};
use crate::pages::zeroed;
use crate::{Cancel, Error, Result};
use apply::Volume;
use columns::{Columns, Frame, Interval, RowRun};
use gaps::{HeightMap, Judged, SMALLEST_RING};

/// Widest `max_gap`: interpolation across more than this guesses.
pub const MAX_GAP: usize = 1024;

#[derive(Clone, Copy, Debug)]
pub struct PatchOptions {
    /// Of the components that count as sheets.
    pub connectivity: Connectivity,
    /// Smaller components are left alone.
    pub min_voxels: u64,
    /// Widest gap to fill, in columns: in each column the shorter of the two directions counts.
    pub max_gap: usize,
    /// Largest root mean square distance, in voxels, of the columns around a gap from the plane that fits them best.
    pub max_residual: f64,
}

/// Why gaps stayed open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discarded {
    pub too_wide: u64,
    pub poor_fit: u64,
    /// The fill would have touched another component.
    pub touching: u64,
    /// The fill would not have closed a tunnel.
    pub no_tunnel: u64,
    /// The fill would have enclosed a cavity.
    pub cavity: u64,
}

/// A patched mask.
pub struct Patch {
    /// 0 or 1; contains the input.
    pub mask: Vec<u8>,
    pub n_sheets: u64,
    /// Enclosed gaps met; each was filled or discarded for one reason.
    pub n_gaps: u64,
    pub n_filled: u64,
    pub discarded: Discarded,
    pub n_added: u64,
    /// Betti numbers of the whole mask at connectivity 6, which the score uses.
    pub before: BettiNumbers,
    pub after: BettiNumbers,
}

/// Fill holes in the sheets of `mask`.
///
/// No dimension's Betti number (connectivity 6) grows, and tunnels fall by at least the number of gaps filled.
pub fn patch_sheets(mask: &[u8], shape: Shape, options: PatchOptions, cancel: &Cancel) -> Result<Patch> {
    check(&options)?;
    let before = betti_numbers(mask, shape, Connectivity::Faces, cancel)?;
    let mut components = Components::of_mask(mask, shape, options.connectivity, cancel)?;
    components.number_by_appearance(cancel)?;
    let sheets = Sheets::new(&components.sizes(cancel)?, options.min_voxels);
    let mut volume = Volume::new(painting::labels(&components, cancel)?, shape);
    drop(components);
    let mut discarded = Discarded::default();
    let axes = sheets.axes_by_area(&volume, cancel)?;
    for rank in 0..3 {
        let runs = sheets.runs(&volume, cancel)?;
        let plans = (runs.par_iter().zip(&axes))
            .map(|(rows, axes)| plan(rows, Frame::new(axes[rank], shape), &options, cancel))
            .collect::<Result<Vec<_>>>()?;
        for (plan, (&label, axes)) in plans.into_iter().zip(sheets.labels.iter().zip(&axes)) {
            discarded.too_wide += plan.too_wide;
            discarded.poor_fit += plan.poor_fit;
            for fill in plan.fills {
                volume.apply(label, &fill, Frame::new(axes[rank], shape), &mut discarded, cancel)?;
            }
        }
    }
    let (mask, after) = volume.without_new_cavities(before, &mut discarded, cancel)?;
    let n_filled = volume.patches.len() as u64;
    let n_added = volume.patches.iter().map(|patch| patch.voxels.len() as u64).sum();
    let Discarded { too_wide, poor_fit, touching, no_tunnel, cavity } = discarded;
    let n_gaps = n_filled + too_wide + poor_fit + touching + no_tunnel + cavity;
    Ok(Patch { mask, n_sheets: sheets.labels.len() as u64, n_gaps, n_filled, discarded, n_added, before, after })
}

fn check(options: &PatchOptions) -> Result<()> {
    if !(1..=MAX_GAP).contains(&options.max_gap) {
        return Err(Error::argument("max_gap", options.max_gap, format!("1 to {MAX_GAP}")));
    }
    if !(options.max_residual.is_finite() && options.max_residual >= 0.0) {
        return Err(Error::argument("max_residual", options.max_residual, "a finite number of voxels, 0 or more"));
    }
    Ok(())
}

/// The components that are large enough.
struct Sheets {
    labels: Vec<u32>,
    /// By label: place in `labels`.
    place: Vec<Option<u32>>,
}

impl Sheets {
    /// `sizes` of the labels from 1 on.
    fn new(sizes: &[u32], min_voxels: u64) -> Self {
        let is_sheet = |label: &u32| u64::from(sizes[*label as usize - 1]) >= min_voxels;
        let labels: Vec<u32> = (1..=sizes.len() as u32).filter(is_sheet).collect();
        let mut place = vec![None; sizes.len() + 1];
        for (i, &label) in labels.iter().enumerate() {
            place[label as usize] = Some(i as u32);
        }
        Self { labels, place }
    }

    /// Every sheet's runs along x, in C order.
    fn runs(&self, volume: &Volume, cancel: &Cancel) -> Result<Vec<Vec<RowRun>>> {
        let mut runs = vec![Vec::new(); self.labels.len()];
        for (row, labels) in volume.labels.chunks_exact(volume.shape[2]).enumerate() {
            cancel.check()?;
            let mut x = 0;
            for stretch in labels.chunk_by(|a, b| a == b) {
                let end = x + stretch.len() as u32;
                if let Some(sheet) = self.place[stretch[0] as usize] {
                    runs[sheet as usize].push(RowRun { row: row as u32, run: Run { start: x, end } });
                }
                x = end;
            }
        }
        Ok(runs)
    }

    /// For each sheet the axes, the one along which it shows the largest area first.
    fn axes_by_area(&self, volume: &Volume, cancel: &Cancel) -> Result<Vec<[usize; 3]>> {
        let runs = self.runs(volume, cancel)?;
        runs.par_iter()
            .map(|rows| {
                let mut areas = [0; 3];
                for axis in 0..3 {
                    areas[axis] = Columns::of_sheet(rows, Frame::new(axis, volume.shape), cancel)?.area();
                }
                let mut axes = [0, 1, 2];
                axes.sort_by_key(|&axis| std::cmp::Reverse(areas[axis]));
                Ok(axes)
            })
            .collect()
    }
}

/// What the height maps of one sheet along one axis propose.
#[derive(Default)]
struct Plan {
    fills: Vec<Vec<Interval>>,
    too_wide: u64,
    poor_fit: u64,
}

fn plan(rows: &[RowRun], frame: Frame, options: &PatchOptions, cancel: &Cancel) -> Result<Plan> {
    let mut plan = Plan::default();
    for layer in Columns::of_sheet(rows, frame, cancel)?.layers(cancel)? {
        if layer.len() < SMALLEST_RING {
            continue;
        }
        let map = HeightMap::of_layer(&layer);
        for gap in map.gaps() {
            cancel.check()?;
            match map.judge(&gap, options.max_gap, options.max_residual) {
                Judged::TooWide => plan.too_wide += 1,
                Judged::PoorFit => plan.poor_fit += 1,
                Judged::Fill(columns) => plan.fills.push(columns),
            }
        }
    }
    Ok(plan)
}

/// The mask of all labelled voxels.
fn mask_of(labels: &[u32], shape: Shape, cancel: &Cancel) -> Result<Vec<u8>> {
    let mut mask = zeroed("the result", labels.len())?;
    mask.par_chunks_mut(shape[2]).zip(labels.par_chunks(shape[2])).try_for_each(|(mask, labels)| {
        cancel.check()?;
        for (voxel, &label) in mask.iter_mut().zip(labels) {
            *voxel = u8::from(label != 0);
        }
        Ok(())
    })?;
    Ok(mask)
}
