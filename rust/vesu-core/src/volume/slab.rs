//! A slab of whole slices: its rows as bits, the runs of its joined rows, and the components they form.

use super::bits::WORD;
use super::forest::{Forest, number};
use super::meeting::Meeting;
use super::relations::Plan;
use super::source::Source;
use super::wide::{Work, dispatch};
use super::{POLL, SLAB_SLICES, Shape};
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// How a volume is cut: into slabs of slices, blocks of rows, words of voxels.
pub(super) struct Grid {
    pub shape: Shape,
    pub plan: Plan,
    /// Words of one row.
    pub words: usize,
    /// Blocks side by side along y.
    pub blocks: usize,
    /// The row beyond an edge of the volume.
    empty_row: Vec<u64>,
}

impl Grid {
    pub fn new(shape: Shape, plan: Plan) -> Result<Self> {
        let words = shape[2].div_ceil(WORD);
        Ok(Self { shape, words, blocks: shape[1].div_ceil(plan.block[1]), plan, empty_row: zeroed("a row", words)? })
    }

    pub fn empty_row(&self) -> &[u64] {
        &self.empty_row
    }

    pub fn slabs(&self) -> usize {
        self.shape[0].div_ceil(SLAB_SLICES)
    }
}

/// A run is a stretch of set bits in the OR of a block's rows; in volumes of many values it ends where the value does.
pub(super) struct Slab {
    pub first_slice: usize,
    pub slices: usize,
    /// The rows, one after the other.
    rows: Vec<u64>,
    /// For each block, a bit where a run starts.
    starts: Vec<u64>,
    /// For each word of `starts`, the runs before it; one entry more for all of them.
    ranks: Vec<u32>,
    /// For each run, the slab's component that it belongs to.
    pub components: Vec<u32>,
    /// Components of the slab.
    pub count: u32,
}

impl Slab {
    /// Slab `index` of the volume, its runs united within the slab.
    pub fn build<S: Source>(source: &S, grid: &Grid, index: usize, cancel: &Cancel) -> Result<Self> {
        dispatch(Build { source, grid, index, cancel })
    }

    /// The row at slice `z` of the slab; an empty one outside.
    #[inline(always)]
    pub fn row<'a>(&'a self, grid: &'a Grid, z: isize, y: isize) -> &'a [u64] {
        let [_, ny, _] = grid.shape;
        match (usize::try_from(z), usize::try_from(y)) {
            (Ok(z), Ok(y)) if z < self.slices && y < ny => &self.rows[(z * ny + y) * grid.words..][..grid.words],
            _ => &grid.empty_row,
        }
    }

    /// The rows of block `block`; empty ones for those it lacks.
    #[inline(always)]
    pub fn rows_of<'a>(&'a self, grid: &'a Grid, block: usize) -> BlockRows<'a> {
        let [bz, by] = grid.plan.block;
        let (z, y) = (block / grid.blocks * bz, block % grid.blocks * by);
        let mut block = BlockRows { z, y, rows: [&grid.empty_row; 4], width: by, count: bz * by };
        for i in 0..bz * by {
            block.rows[i] = self.row(grid, (z + i / by) as isize, (y + i % by) as isize);
        }
        block
    }

    /// The starts of block `block`, and the ranks of its words and of the one after.
    #[inline(always)]
    pub fn runs_of(&self, grid: &Grid, block: usize) -> (&[u64], &[u32]) {
        let at = block * grid.words;
        (&self.starts[at..][..grid.words], &self.ranks[at..][..grid.words + 1])
    }

    pub fn block_layers(&self, grid: &Grid) -> usize {
        self.slices.div_ceil(grid.plan.block[0])
    }

    #[inline(always)]
    fn read_rows<const WIDE: bool, S: Source>(&mut self, source: &S, grid: &Grid, cancel: &Cancel) -> Result<()> {
        let first_row = self.first_slice * grid.shape[1];
        for (row, words) in self.rows.chunks_exact_mut(grid.words).enumerate() {
            for (part, piece) in words.chunks_mut(POLL / WORD).enumerate() {
                cancel.check()?;
                // SAFETY: WIDE is handed on.
                unsafe { source.words::<WIDE>(first_row + row, part * (POLL / WORD), piece) };
            }
        }
        Ok(())
    }

    /// Fill `starts` and `ranks`.
    #[inline(always)]
    fn find_runs<S: Source>(&mut self, source: &S, grid: &Grid, cancel: &Cancel) -> Result<()> {
        let (mut starts, mut ranks) = (std::mem::take(&mut self.starts), std::mem::take(&mut self.ranks));
        let mut rank = 0;
        for (block, (starts, ranks)) in
            starts.chunks_exact_mut(grid.words).zip(ranks.chunks_exact_mut(grid.words)).enumerate()
        {
            let rows = self.rows_of(grid, block);
            let mut last = 0;
            for w in 0..grid.words {
                poll(w, cancel)?;
                let joined = rows.joined(w);
                let mut continued = joined << 1 | last;
                if S::MANY_VALUES {
                    let row = self.first_slice * grid.shape[1] + block; // blocks of one row
                    continued &= source.equal(row, row, -1, w);
                }
                starts[w] = joined & !continued;
                last = joined >> 63;
                ranks[w] = rank;
                rank += starts[w].count_ones();
            }
        }
        if let Some(total) = ranks.last_mut() {
            *total = rank;
        }
        (self.starts, self.ranks) = (starts, ranks);
        Ok(())
    }

    #[inline(always)]
    fn unite_runs<S: Source>(&mut self, source: &S, grid: &Grid, cancel: &Cancel) -> Result<()> {
        let mut parents = std::mem::take(&mut self.components);
        let mut forest = Forest { parents: &mut parents, base: 0 };
        forest.separate();
        for layer in 0..self.block_layers(grid) {
            for y in 0..grid.blocks {
                cancel.check()?;
                for relation in grid.plan.relations {
                    if relation.block.0 < 0 && layer == 0 {
                        continue; // that seam is stitched later
                    }
                    let other_layer = layer.wrapping_add_signed(relation.block.0);
                    Meeting { grid, source, own: (self, layer), other: (self, other_layer), y, relation, cancel }
                        .join_contacts(&mut forest)?;
                }
            }
        }
        self.components = parents;
        Ok(())
    }

    /// The runs that cover word `w` of a block whose rows joined have there the bits `joined`.
    #[inline(always)]
    pub fn segments(&self, grid: &Grid, block: usize, w: usize, joined: u64) -> Segments {
        let (starts, ranks) = self.runs_of(grid, block);
        let starts = starts[w];
        let continued = joined & !starts;
        // A run that comes over from the word before counts as one that starts before bit 0.
        Segments { run: ranks[w] as usize - (continued & 1) as usize, starts, continued, over: continued & 1 }
    }
}

/// Runs with their bits of one word, in order.
pub(super) struct Segments {
    run: usize,
    starts: u64,
    continued: u64,
    /// 1 while the run from the word before is due.
    over: u64,
}

impl Iterator for Segments {
    type Item = (usize, u64);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, u64)> {
        let start = if self.over == 1 { 0 } else { self.starts & self.starts.wrapping_neg() };
        if start | self.over == 0 {
            return None;
        }
        // A carry let loose at the first continued bit of a run flips them all.
        let rest = self.continued & !self.continued.wrapping_add(start << 1 | self.over);
        let item = (self.run, start | rest);
        (self.run, self.starts, self.over) = (self.run + 1, self.starts ^ start, 0);
        Some(item)
    }
}

/// The rows of a block, in C order.
pub(super) struct BlockRows<'a> {
    /// The first row's slice, counted in the slab, and place along y.
    pub z: usize,
    pub y: usize,
    pub rows: [&'a [u64]; 4],
    /// Rows side by side along y, and all of them.
    pub width: usize,
    pub count: usize,
}

impl BlockRows<'_> {
    #[inline(always)]
    pub fn joined(&self, w: usize) -> u64 {
        self.rows[0][w] | self.rows[1][w] | self.rows[2][w] | self.rows[3][w]
    }
}

struct Build<'a, S> {
    source: &'a S,
    grid: &'a Grid,
    index: usize,
    cancel: &'a Cancel,
}

impl<S: Source> Work for Build<'_, S> {
    type Output = Result<Slab>;

    #[inline(always)]
    unsafe fn run<const WIDE: bool>(self) -> Result<Slab> {
        let Self { source, grid, index, cancel } = self;
        let first_slice = index * SLAB_SLICES;
        let slices = SLAB_SLICES.min(grid.shape[0] - first_slice);
        let mut slab = Slab {
            first_slice,
            slices,
            rows: zeroed("the rows of a slab", slices * grid.shape[1] * grid.words)?,
            starts: Vec::new(),
            ranks: Vec::new(),
            components: Vec::new(),
            count: 0,
        };
        let block_words = slab.block_layers(grid) * grid.blocks * grid.words;
        slab.starts = zeroed("the runs of a slab", block_words)?;
        slab.ranks = zeroed("the runs of a slab", block_words + 1)?;
        slab.read_rows::<WIDE, S>(source, grid, cancel)?;
        slab.find_runs(source, grid, cancel)?;
        slab.components = zeroed("the runs of a slab", slab.ranks[block_words] as usize)?;
        slab.unite_runs(source, grid, cancel)?;
        slab.count = number(&mut slab.components, cancel)?;
        Ok(slab)
    }
}

/// Poll once a row, and within long rows.
#[inline(always)]
pub(super) fn poll(word: usize, cancel: &Cancel) -> Result<()> {
    if word.is_multiple_of(POLL / WORD) { cancel.check() } else { Ok(()) }
}
