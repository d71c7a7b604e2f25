//! Volumes painted from components.

use std::ops::Range;

use rayon::prelude::*;

use super::SLAB_SLICES;
use super::bits::{LABELS_AFTER, LABELS_BEFORE, WORD, spread, spread_labels};
use super::components::Components;
use super::slab::{BlockRows, Grid, Slab, poll};
use super::wide::{Work, dispatch};
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// Each voxel's component, its number plus 1; 0 in the background.
pub(super) fn labels(components: &Components, cancel: &Cancel) -> Result<Vec<u32>> {
    let grid = &components.grid;
    let [nz, ny, nx] = grid.shape;
    let mut volume = zeroed("the labels", nz * ny * nx)?;
    let slabs: Vec<_> = components.slabs.iter().zip(components.numbers_of_slabs()).collect();
    volume
        .par_chunks_mut(SLAB_SLICES * ny * nx)
        .zip(slabs)
        .try_for_each(|(voxels, (slab, numbers))| dispatch(PaintLabels { grid, slab, numbers, voxels, cancel }))?;
    Ok(volume)
}

/// A mask (0 or 1) of `compose(foreground, kept)`, both given as words of voxels: the components' own, and of these the
/// voxels of components that `keep` has true.
pub(super) fn mask(
    components: &Components,
    keep: &[bool],
    compose: impl Fn(u64, u64) -> u64 + Sync,
    cancel: &Cancel,
) -> Result<Vec<u8>> {
    let grid = &components.grid;
    let [nz, ny, nx] = grid.shape;
    let mut volume = zeroed("the mask", nz * ny * nx)?;
    let slabs: Vec<_> = components.slabs.iter().zip(components.numbers_of_slabs()).collect();
    volume.par_chunks_mut(SLAB_SLICES * ny * nx).zip(slabs).try_for_each(|(voxels, (slab, numbers))| {
        dispatch(PaintMask { grid, slab, numbers, voxels, keep, compose: &compose, cancel })
    })?;
    Ok(volume)
}

/// Where row `i` of a block lies in its slab's part of the volume, unless it lies outside.
#[inline(always)]
fn place(grid: &Grid, slab: &Slab, block: &BlockRows, i: usize) -> Option<Range<usize>> {
    let [_, ny, nx] = grid.shape;
    let (z, y) = (block.z + i / block.width, block.y + i % block.width);
    let start = (z * ny + y) * nx;
    (z < slab.slices && y < ny).then_some(start..start + nx)
}

struct PaintLabels<'a> {
    grid: &'a Grid,
    slab: &'a Slab,
    numbers: &'a [u32],
    voxels: &'a mut [u32],
    cancel: &'a Cancel,
}

impl Work for PaintLabels<'_> {
    type Output = Result<()>;

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) -> Result<()> {
        let Self { grid, slab, numbers, voxels, cancel } = self;
        let runs = slab.components.len();
        let mut labels: Vec<u32> = zeroed("the labels of a slab", LABELS_BEFORE + runs + LABELS_AFTER)?;
        for (label, &component) in labels[LABELS_BEFORE..].iter_mut().zip(&slab.components) {
            *label = numbers[component as usize] + 1;
        }
        for block in 0..slab.block_layers(grid) * grid.blocks {
            cancel.check()?;
            let (starts, ranks) = slab.runs_of(grid, block);
            let rows = slab.rows_of(grid, block);
            for i in 0..rows.count {
                let Some(place) = place(grid, slab, &rows, i) else { continue };
                let row = rows.rows[i];
                for (w, voxels) in voxels[place].chunks_mut(WORD).enumerate() {
                    poll(w, cancel)?;
                    // Fresh pages are zero; those never touched cost nothing.
                    if row[w] != 0 {
                        // SAFETY: WIDE is handed on.
                        unsafe { spread_labels::<WIDE>(row[w], starts[w], &labels, ranks[w] as usize, voxels) };
                    }
                }
            }
        }
        Ok(())
    }
}

struct PaintMask<'a, C> {
    grid: &'a Grid,
    slab: &'a Slab,
    numbers: &'a [u32],
    voxels: &'a mut [u8],
    keep: &'a [bool],
    compose: &'a C,
    cancel: &'a Cancel,
}

impl<C: Fn(u64, u64) -> u64> Work for PaintMask<'_, C> {
    type Output = Result<()>;

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) -> Result<()> {
        let Self { grid, slab, numbers, voxels, keep, compose, cancel } = self;
        let keep: Vec<bool> = numbers.iter().map(|&number| keep[number as usize]).collect();
        let mut kept = vec![0; grid.words];
        for block in 0..slab.block_layers(grid) * grid.blocks {
            let rows = slab.rows_of(grid, block);
            for w in 0..grid.words {
                poll(w, cancel)?;
                kept[w] = 0;
                for (run, segment) in slab.segments(grid, block, w, rows.joined(w)) {
                    kept[w] |= segment & u64::from(keep[slab.components[run] as usize]).wrapping_neg();
                }
            }
            for i in 0..rows.count {
                let Some(place) = place(grid, slab, &rows, i) else { continue };
                let row = rows.rows[i];
                for (w, voxels) in voxels[place].chunks_mut(WORD).enumerate() {
                    poll(w, cancel)?;
                    let word = compose(row[w], row[w] & kept[w]);
                    // Fresh pages are zero; those never touched cost nothing.
                    if word != 0 {
                        // SAFETY: WIDE is handed on.
                        unsafe { spread::<WIDE>(word, voxels) };
                    }
                }
            }
        }
        Ok(())
    }
}
