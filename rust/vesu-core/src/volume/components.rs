//! Connected components by union-find over runs.
//!
//! A row's runs are united with those of the earlier rows around it (two of them at connectivity 6, four at 18 and 26).
//! Slabs do this in parallel, then their seams are stitched in order. The smaller index always becomes the root, so a
//! component's root is its first run in C order and labels come out numbered by first appearance, as SciPy's are.

use std::mem;

use rayon::prelude::*;

use super::check::same_length;
use super::runs::{MaskRows, Rows, Run, Slab};
use super::{Connectivity, EarlierRow, SLAB_SLICES, Shape};
use crate::pages::{Zeroable, zeroed};
use crate::{Cancel, Result};

/// Runs handled between two polls of the cancel token in serial loops.
const POLL_RUNS: usize = 1 << 16;

/// Label every foreground voxel of `mask` with its component's number, 1 to n in order of first appearance in
/// C order; background is 0. Returns the labels and n.
pub fn connected_components(
    mask: &[u8],
    shape: Shape,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<(Vec<u32>, u32)> {
    let components = Components::of_mask(mask, shape, connectivity, cancel)?;
    Ok((components.paint(|label| label, cancel)?, components.count))
}

/// Voxels of each component, in the order of [`connected_components`]' labels: entry 0 belongs to label 1.
pub fn component_sizes(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Vec<u32>> {
    let mut sizes = Components::of_mask(mask, shape, connectivity, cancel)?.sizes(cancel)?;
    sizes.remove(0);
    Ok(sizes)
}

/// The components of a volume, known by its runs.
pub(super) struct Components {
    shape: Shape,
    slabs: Vec<Slab>,
    /// Label of each run, in C order over all slabs.
    labels: Vec<u32>,
    pub count: u32,
}

impl Components {
    pub fn of_mask(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Self> {
        same_length("mask", mask.len(), shape)?;
        Self::of_rows(&MaskRows { mask, row_length: shape[2] }, shape, connectivity, cancel)
    }

    /// `shape` must have passed [`voxel_count`](super::voxel_count).
    pub fn of_rows(rows: &impl Rows, shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Self> {
        let [nz, ny, _] = shape;
        let slabs = (0..nz.div_ceil(SLAB_SLICES))
            .into_par_iter()
            .map(|slab| {
                let first = slab * SLAB_SLICES;
                Slab::extract(rows, shape, first, SLAB_SLICES.min(nz - first), cancel)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut parents = zeroed("components", slabs.iter().map(|slab| slab.runs.len()).sum())?;
        unite_inside_slabs(&mut parents, &slabs, ny, connectivity, cancel)?;
        stitch_seams(&mut parents, &slabs, ny, connectivity, cancel)?;
        let count = number_in_order(&mut parents, cancel)?;
        Ok(Self { shape, slabs, labels: parents, count })
    }

    /// Voxels of each label; entry 0, the background's, is left at 0.
    pub fn sizes(&self, cancel: &Cancel) -> Result<Vec<u32>> {
        let mut sizes = zeroed("component sizes", self.count as usize + 1)?;
        for (slab, labels) in self.labelled_slabs() {
            cancel.check()?;
            for (run, &label) in slab.runs.iter().zip(labels) {
                sizes[label as usize] += run.length();
            }
        }
        Ok(sizes)
    }

    /// For each label, whether any of its runs fulfils `predicate`, which takes the row's index and the run.
    pub fn any_run(&self, predicate: impl Fn(usize, Run) -> bool + Sync, cancel: &Cancel) -> Result<Vec<bool>> {
        let rows_per_slab = SLAB_SLICES * self.shape[1];
        let hits = self
            .slabs
            .par_iter()
            .enumerate()
            .map(|(k, slab)| {
                let mut hits = vec![false; slab.runs.len()];
                for row in 0..slab.rows() {
                    cancel.check()?;
                    for i in slab.run_range(row) {
                        hits[i] = predicate(k * rows_per_slab + row, slab.runs[i]);
                    }
                }
                Ok(hits)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut any = vec![false; self.count as usize + 1];
        for ((_, labels), hits) in self.labelled_slabs().zip(hits) {
            cancel.check()?;
            for (&label, hit) in labels.iter().zip(hits) {
                any[label as usize] |= hit;
            }
        }
        Ok(any)
    }

    /// A volume with `value(label)` on every run and 0 in the background.
    pub fn paint<T>(&self, value: impl Fn(u32) -> T + Sync, cancel: &Cancel) -> Result<Vec<T>>
    where
        T: Zeroable + Send,
    {
        let [nz, ny, nx] = self.shape;
        let mut volume = zeroed("the result", nz * ny * nx)?;
        let slabs: Vec<_> = self.labelled_slabs().collect();
        volume.par_chunks_mut(SLAB_SLICES * ny * nx).zip(slabs).try_for_each(|(voxels, (slab, labels))| {
            for (row, voxels) in voxels.chunks_exact_mut(nx).enumerate() {
                cancel.check()?;
                for i in slab.run_range(row) {
                    voxels[slab.runs[i].range()].fill(value(labels[i]));
                }
            }
            Ok(())
        })?;
        Ok(volume)
    }

    fn labelled_slabs(&self) -> impl Iterator<Item = (&Slab, &[u32])> {
        let mut rest = &self.labels[..];
        self.slabs.iter().map(move |slab| {
            let (labels, later) = rest.split_at(slab.runs.len());
            rest = later;
            (slab, labels)
        })
    }
}

/// Set up every slab's part of `parents` and unite its runs; indices count over all slabs afterwards.
fn unite_inside_slabs(
    parents: &mut [u32],
    slabs: &[Slab],
    ny: usize,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<()> {
    let mut parts = Vec::with_capacity(slabs.len());
    let (mut rest, mut offset) = (parents, 0);
    for slab in slabs {
        let (part, later) = mem::take(&mut rest).split_at_mut(slab.runs.len());
        parts.push((slab, part, offset));
        (rest, offset) = (later, offset + slab.runs.len() as u32);
    }
    parts.into_par_iter().try_for_each(|(slab, parents, offset)| {
        for (i, parent) in parents.iter_mut().enumerate() {
            *parent = i as u32;
        }
        for row in 0..slab.rows() {
            cancel.check()?;
            if slab.run_range(row).is_empty() {
                continue;
            }
            for earlier in connectivity.earlier_rows() {
                if let Some(other) = earlier.of(row, ny) {
                    Touch { slab, row, offset: 0, other: slab, other_row: other, other_offset: 0 }
                        .unite(earlier.diagonal, parents);
                }
            }
        }
        for parent in parents.iter_mut() {
            *parent += offset;
        }
        Ok(())
    })
}

/// Unite the first slice of every slab with the last one of the slab before it.
fn stitch_seams(
    parents: &mut [u32],
    slabs: &[Slab],
    ny: usize,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<()> {
    let mut other_offset = 0;
    for pair in slabs.windows(2) {
        let (other, slab) = (&pair[0], &pair[1]);
        let offset = other_offset + other.runs.len() as u32;
        for row in 0..ny {
            cancel.check()?;
            for earlier in connectivity.earlier_rows().iter().filter(|earlier| earlier.previous_slice) {
                // Rows count as if the other slab's last slice were slice 0 and this slab's first were slice 1.
                if let Some(other_row) = earlier.of(ny + row, ny) {
                    let other_row = other.rows() - ny + other_row;
                    Touch { slab, row, offset, other, other_row, other_offset }.unite(earlier.diagonal, parents);
                }
            }
        }
        other_offset = offset;
    }
    Ok(())
}

impl EarlierRow {
    /// This earlier row's index for row `row` of slices with `ny` rows each, if it exists.
    fn of(&self, row: usize, ny: usize) -> Option<usize> {
        let y = (row % ny).checked_add_signed(self.dy).filter(|&y| y < ny)?;
        let slice = (row / ny).checked_sub(usize::from(self.previous_slice))?;
        Some(slice * ny + y)
    }
}

/// Two rows whose runs may touch; an offset turns a slab's run index into one over `parents`.
struct Touch<'a> {
    slab: &'a Slab,
    row: usize,
    offset: u32,
    other: &'a Slab,
    other_row: usize,
    other_offset: u32,
}

impl Touch<'_> {
    fn unite(&self, diagonal: bool, parents: &mut [u32]) {
        if diagonal { self.unite_runs::<true>(parents) } else { self.unite_runs::<false>(parents) }
    }

    fn unite_runs<const DIAGONAL: bool>(&self, parents: &mut [u32]) {
        let (mine, others) = (self.slab.run_range(self.row), self.other.run_range(self.other_row));
        let (first, other_first) = (self.offset + mine.start as u32, self.other_offset + others.start as u32);
        let (a, b) = (&self.slab.runs[mine], &self.other.runs[others]);
        let (mut i, mut j) = (0, 0);
        while i < a.len() && j < b.len() {
            // Runs of one row have a gap between them, so the one that ends first can touch nothing further on.
            let touching = if DIAGONAL {
                a[i].start <= b[j].end && b[j].start <= a[i].end
            } else {
                a[i].start < b[j].end && b[j].start < a[i].end
            };
            if touching {
                unite(parents, first + i as u32, other_first + j as u32);
            }
            let mine_ends_first = a[i].end < b[j].end;
            i += usize::from(mine_ends_first);
            j += usize::from(!mine_ends_first);
        }
    }
}

/// The root of `run`, halving the path on the way.
#[inline]
fn root(parents: &mut [u32], mut run: u32) -> u32 {
    loop {
        let parent = parents[run as usize];
        if parent == run {
            return run;
        }
        let grandparent = parents[parent as usize];
        parents[run as usize] = grandparent;
        run = grandparent;
    }
}

#[inline]
fn unite(parents: &mut [u32], a: u32, b: u32) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b) as usize] = a.min(b);
}

/// Turn parents into labels from 1, by first appearance; returns how many there are.
///
/// A parent never comes after its child, so when a run is met its parent holds its final label already.
fn number_in_order(parents: &mut [u32], cancel: &Cancel) -> Result<u32> {
    let mut count = 0;
    for first in (0..parents.len()).step_by(POLL_RUNS) {
        cancel.check()?;
        for run in first..(first + POLL_RUNS).min(parents.len()) {
            let parent = parents[run] as usize;
            parents[run] = if parent == run {
                count += 1;
                count
            } else {
                parents[parent]
            };
        }
    }
    Ok(count)
}
