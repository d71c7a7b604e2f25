//! Connected components by union-find over runs of blocks of rows.
//!
//! Slabs find their components in parallel, then seams are stitched, halves of the volume in parallel too. The smaller
//! index always becomes the root, so neither the sets nor their order depend on the threads.

use rayon::prelude::*;

use super::check::{filled, same_length};
use super::forest::{Forest, number};
use super::measure::{First, Measure, Part};
use super::meeting::{Join, Meeting};
use super::relations::Plan;
use super::slab::{Grid, Slab, poll};
use super::source::{Foreground, Labels, Source};
use super::wide::{Work, dispatch};
use super::{Connectivity, POLL, Shape, painting};
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// Label every foreground voxel of `mask` with its component's number, 1 to n in order of first appearance in
/// C order; background is 0. Returns the labels and n.
pub fn connected_components(
    mask: &[u8],
    shape: Shape,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<(Vec<u32>, u32)> {
    Components::of_mask(mask, shape, connectivity, cancel)?.into_labels(cancel)
}

/// The same for a volume of labels, in which voxels of different values never join; 0 is background.
pub fn connected_components_multilabel<T: Copy + Default + PartialEq + Sync>(
    labels: &[T],
    shape: Shape,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<(Vec<u32>, u32)> {
    same_length("labels", labels.len(), shape)?;
    let source = Labels { labels, row_length: shape[2] };
    Components::find(&source, shape, Plan::of_labels(connectivity), cancel)?.into_labels(cancel)
}

/// Voxels of each component, in the order of [`connected_components`]' labels: entry 0 belongs to label 1.
pub fn component_sizes(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Vec<u32>> {
    let mut components = Components::of_mask(mask, shape, connectivity, cancel)?;
    components.number_by_appearance(cancel)?;
    components.sizes(cancel)
}

/// The components of a volume, numbered from 0 in an order of their own.
pub(super) struct Components {
    pub(super) grid: Grid,
    pub(super) slabs: Vec<Slab>,
    /// Of each slab's each component, the number in the volume.
    numbers: Vec<u32>,
    pub count: u32,
}

impl Components {
    /// The components of the voxels of `mask` that are not zero.
    pub fn of_mask(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Self> {
        same_length("mask", mask.len(), shape)?;
        Self::find(&Foreground { mask, row_length: shape[2] }, shape, Plan::of_mask(connectivity), cancel)
    }

    /// `shape` must have passed [`voxel_count`](super::voxel_count).
    pub fn find<S: Source>(source: &S, shape: Shape, plan: Plan, cancel: &Cancel) -> Result<Self> {
        let grid = Grid::new(shape, plan)?;
        let slabs = (0..grid.slabs())
            .into_par_iter()
            .map(|index| Slab::build(source, &grid, index, cancel))
            .collect::<Result<Vec<_>>>()?;
        let mut numbers = zeroed("components", slabs.iter().map(|slab| slab.count as usize).sum())?;
        Forest { parents: &mut numbers, base: 0 }.separate();
        Stitching { source, grid: &grid, cancel }.stitch(&slabs, Forest { parents: &mut numbers, base: 0 })?;
        let count = number(&mut numbers, cancel)?;
        Ok(Self { grid, slabs, numbers, count })
    }

    /// Voxels of each component.
    pub fn sizes(&self, cancel: &Cancel) -> Result<Vec<u32>> {
        self.measure(&super::measure::Size, cancel)
    }

    /// `measure` of each component.
    pub fn measure<M: Measure>(&self, measure: &M, cancel: &Cancel) -> Result<Vec<M::Total>> {
        let of_slabs = self
            .slabs
            .par_iter()
            .map(|slab| dispatch(MeasureSlab { slab, grid: &self.grid, measure, cancel }))
            .collect::<Result<Vec<_>>>()?;
        let mut totals = filled("components", measure.nothing(), self.count as usize)?;
        for (numbers, of_slab) in self.numbers_of_slabs().zip(of_slabs) {
            for (numbers, of_slab) in numbers.chunks(POLL).zip(of_slab.chunks(POLL)) {
                cancel.check()?;
                for (&number, &total) in numbers.iter().zip(of_slab) {
                    measure.join(&mut totals[number as usize], total);
                }
            }
        }
        Ok(totals)
    }

    /// Number the components by the C order of their first voxels.
    pub fn number_by_appearance(&mut self, cancel: &Cancel) -> Result<()> {
        if self.grid.plan.block == [1, 1] {
            return Ok(()); // runs come in C order
        }
        // A bit for every first voxel; the bits before it count the components before.
        let [nz, ny, nx] = self.grid.shape;
        let firsts = self.measure(&First { shape: self.grid.shape }, cancel)?;
        let mut marks: Vec<u64> = zeroed("the order of components", (nz * ny * nx).div_ceil(64))?;
        for firsts in firsts.chunks(POLL) {
            cancel.check()?;
            for &first in firsts {
                marks[first as usize / 64] |= 1 << (first % 64);
            }
        }
        let mut before = zeroed("the order of components", marks.len())?;
        let mut rank = 0;
        for (before, marks) in before.chunks_mut(POLL).zip(marks.chunks(POLL)) {
            cancel.check()?;
            for (before, word) in before.iter_mut().zip(marks) {
                *before = rank;
                rank += word.count_ones();
            }
        }
        self.numbers.par_chunks_mut(POLL).try_for_each(|numbers| {
            cancel.check()?;
            for number in numbers {
                let first = firsts[*number as usize];
                let (word, bit) = (first as usize / 64, first % 64);
                *number = before[word] + (marks[word] & ((1 << bit) - 1)).count_ones();
            }
            Ok(())
        })
    }

    fn into_labels(mut self, cancel: &Cancel) -> Result<(Vec<u32>, u32)> {
        self.number_by_appearance(cancel)?;
        Ok((painting::labels(&self, cancel)?, self.count))
    }

    /// Each slab's part of `numbers`.
    pub fn numbers_of_slabs(&self) -> impl Iterator<Item = &[u32]> {
        let mut rest = &self.numbers[..];
        self.slabs.iter().map(move |slab| {
            let (numbers, later) = rest.split_at(slab.count as usize);
            rest = later;
            numbers
        })
    }
}

struct Stitching<'a, S> {
    source: &'a S,
    grid: &'a Grid,
    cancel: &'a Cancel,
}

impl<S: Source> Stitching<'_, S> {
    /// Unite the components of `slabs` over their seams; the forest holds those of just these slabs.
    fn stitch(&self, slabs: &[Slab], forest: Forest) -> Result<()> {
        if slabs.len() < 2 {
            return Ok(());
        }
        let (earlier, later) = slabs.split_at(slabs.len() / 2);
        let middle = earlier.iter().map(|slab| slab.count).sum::<u32>();
        {
            let (first, second) = forest.parents.split_at_mut(middle as usize);
            let (first, second) =
                (Forest { parents: first, base: forest.base }, Forest { parents: second, base: forest.base + middle });
            let (a, b) = rayon::join(|| self.stitch(earlier, first), || self.stitch(later, second));
            a.and(b)?;
        }
        let (Some(above), Some(below)) = (earlier.last(), later.first()) else {
            return Ok(());
        };
        let below_base = forest.base + middle;
        let bases = (below_base, below_base - above.count);
        dispatch(Seam { stitching: self, above, below, bases, forest })
    }
}

/// The seam between two slabs; `bases` are the numbers of the lower and of the upper one's first component.
struct Seam<'a, 'f, S> {
    stitching: &'a Stitching<'a, S>,
    above: &'a Slab,
    below: &'a Slab,
    bases: (u32, u32),
    forest: Forest<'f>,
}

impl<S: Source> Work for Seam<'_, '_, S> {
    type Output = Result<()>;

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) -> Result<()> {
        let Self { stitching: &Stitching { source, grid, cancel }, above, below, bases, forest } = self;
        let mut join = JoinSlabs { below: &below.components, above: &above.components, bases, forest };
        let last = above.block_layers(grid) - 1;
        for y in 0..grid.blocks {
            cancel.check()?;
            for relation in grid.plan.relations.iter().filter(|relation| relation.block.0 < 0) {
                Meeting { grid, source, own: (below, 0), other: (above, last), y, relation, cancel }
                    .join_contacts(&mut join)?;
            }
        }
        Ok(())
    }
}

/// Unites the components of runs of two slabs.
struct JoinSlabs<'a, 'f> {
    below: &'a [u32],
    above: &'a [u32],
    bases: (u32, u32),
    forest: Forest<'f>,
}

impl Join for JoinSlabs<'_, '_> {
    #[inline(always)]
    fn join(&mut self, own: u32, other: u32) {
        let (own, other) = (self.below[own as usize], self.above[other as usize]);
        self.forest.unite(self.bases.0 + own, self.bases.1 + other);
    }
}

/// `measure` of the components of one slab.
struct MeasureSlab<'a, M> {
    slab: &'a Slab,
    grid: &'a Grid,
    measure: &'a M,
    cancel: &'a Cancel,
}

impl<M: Measure> Work for MeasureSlab<'_, M> {
    type Output = Result<Vec<M::Total>>;

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) -> Self::Output {
        let Self { slab, grid, measure, cancel } = self;
        let mut totals = filled("the components of a slab", measure.nothing(), slab.count as usize)?;
        for block in 0..slab.block_layers(grid) * grid.blocks {
            let rows = slab.rows_of(grid, block);
            for w in 0..grid.words {
                poll(w, cancel)?;
                let joined = rows.joined(w);
                for (run, segment) in slab.segments(grid, block, w, joined) {
                    let total = &mut totals[slab.components[run] as usize];
                    for i in 0..rows.count {
                        let (z, y) = (slab.first_slice + rows.z + i / rows.width, rows.y + i % rows.width);
                        measure.add(total, &Part { z, y, word: w, bits: rows.rows[i][w] & segment });
                    }
                }
            }
        }
        Ok(totals)
    }
}
