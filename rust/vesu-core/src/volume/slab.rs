//! A slab of whole slices: its rows as bits, the runs of its joined rows, and the components they form.

use super::bits::{WORD, low_bits};
use super::forest::{Forest, number};
use super::relations::{Plan, Reach, Relation};
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
                    let meeting = Meeting { grid, source, own: (self, layer), other: (self, other_layer), y, relation };
                    meeting.each_contact(cancel, |a, b| forest.unite(a, b))?;
                }
            }
        }
        self.components = parents;
        Ok(())
    }

    /// Call `each` with the run and its bits for every run in every word of a block.
    #[inline(always)]
    pub fn segments(&self, grid: &Grid, block: usize, w: usize, joined: u64, mut each: impl FnMut(usize, u64)) {
        let (starts, ranks) = self.runs_of(grid, block);
        let mut starts = starts[w];
        let (mut run, continued) = (ranks[w] as usize, joined & !starts);
        // A carry let loose at the first continued bit of a run flips them all.
        if continued & 1 == 1 {
            each(run - 1, continued & !continued.wrapping_add(1));
        }
        while starts != 0 {
            let start = starts & starts.wrapping_neg();
            each(run, start | (continued & !continued.wrapping_add(start << 1)));
            run += 1;
            starts ^= start;
        }
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

/// A block and an earlier one, in the same slab or in the one before, that may touch by one relation.
pub(super) struct Meeting<'a, S> {
    pub grid: &'a Grid,
    pub source: &'a S,
    /// Slab and layer of blocks.
    pub own: (&'a Slab, usize),
    pub other: (&'a Slab, usize),
    /// Place of the own block along y.
    pub y: usize,
    pub relation: &'a Relation,
}

impl<S: Source> Meeting<'_, S> {
    /// Call `found` with the runs of every contact, in each slab's count; some pairs come more than once.
    #[inline(always)]
    pub fn each_contact(&self, cancel: &Cancel, mut found: impl FnMut(u32, u32)) -> Result<()> {
        let Self { grid, own: (own, layer), other: (other, other_layer), y, relation, .. } = *self;
        let Some(other_y) = y.checked_add_signed(relation.block.1).filter(|&y| y < grid.blocks) else {
            return Ok(());
        };
        let (starts, ranks) = own.runs_of(grid, layer * grid.blocks + y);
        let (other_starts, other_ranks) = other.runs_of(grid, other_layer * grid.blocks + other_y);
        let [bz, by] = grid.plan.block;
        let (z, first_y) = ((layer * bz) as isize, (y * by) as isize);
        // The earlier slab's slices count on from its own end: step -1 from slice 0 is its last one.
        let other_z = if std::ptr::eq(own, other) { z } else { other.slices as isize };
        let row = |slab, z: isize, steps: &'static [(isize, isize)], i: usize| match steps.get(i) {
            Some(&(dz, dy)) => Slab::row(slab, grid, z + dz, first_y + dy),
            None => &grid.empty_row[..],
        };
        let a = [row(own, z, relation.own, 0), row(own, z, relation.own, 1)];
        let b = [row(other, other_z, relation.others, 0), row(other, other_z, relation.others, 1)];

        let mut unite_at = |w: usize, bit: u32, at: usize| {
            let rank = |starts: &[u64], ranks: &[u32], at: usize| {
                ranks[at / WORD] + (starts[at / WORD] & low_bits(at % WORD + 1)).count_ones() - 1
            };
            found(rank(starts, ranks, w * WORD + bit as usize), rank(other_starts, other_ranks, at));
        };
        let walk = Walk { words: grid.words, starts, cancel };
        if S::MANY_VALUES {
            let own_row = (own.first_slice * grid.shape[1]) as isize + z * grid.shape[1] as isize + first_y;
            let (dz, dy) = relation.block; // blocks of one row
            let other_row = own_row + dz * grid.shape[1] as isize + dy;
            let (own_row, other_row) = (own_row as usize, other_row as usize);
            let equal = |step, w| self.source.equal(own_row, other_row, step, w);
            return match relation.reach {
                Reach::Straight => walk.contacts(|w| [equal(0, w), 0, 0], &mut unite_at),
                _ => walk.contacts(|w| [equal(0, w), equal(-1, w), equal(1, w)], &mut unite_at),
            };
        }
        if ranks[grid.words] == ranks[0] || other_ranks[grid.words] == other_ranks[0] {
            return Ok(());
        }
        let straight = |w: usize| (a[0][w] | a[1][w]) & (b[0][w] | b[1][w]);
        match relation.reach {
            Reach::Straight => walk.contacts(|w| [straight(w), 0, 0], &mut unite_at),
            Reach::Paired => walk.contacts(
                |w| {
                    let ([before, after], [before_1, after_1]) =
                        (aside(w, grid.words, |w| b[0][w]), aside(w, grid.words, |w| b[1][w]));
                    let before = a[0][w] & before | a[1][w] & before_1;
                    [straight(w), before, a[0][w] & after | a[1][w] & after_1]
                },
                &mut unite_at,
            ),
            Reach::Diagonal => walk.contacts(
                |w| {
                    let (own, [before, after]) = (a[0][w] | a[1][w], aside(w, grid.words, |w| b[0][w] | b[1][w]));
                    [straight(w), own & before, own & after]
                },
                &mut unite_at,
            ),
        }
    }
}

/// The voxels before those of word `w`, and those after.
#[inline(always)]
fn aside(w: usize, words: usize, word: impl Fn(usize) -> u64) -> [u64; 2] {
    let before = if w == 0 { 0 } else { word(w - 1) >> 63 };
    let after = if w + 1 == words { 0 } else { word(w + 1) << 63 };
    [word(w) << 1 | before, word(w) >> 1 | after]
}

struct Walk<'a> {
    words: usize,
    /// Of the own block.
    starts: &'a [u64],
    cancel: &'a Cancel,
}

impl Walk<'_> {
    /// `contact(w)` has the own voxels of word w that touch an earlier one: at the same x, one before, one after. `unite`
    /// takes the word and bit of the own voxel and the other's place in its row.
    #[inline(always)]
    fn contacts(&self, contact: impl Fn(usize) -> [u64; 3], unite: &mut impl FnMut(usize, u32, usize)) -> Result<()> {
        let mut carry = [0; 3];
        for w in 0..self.words {
            poll(w, self.cancel)?;
            let [same, before, after] = contact(w);
            // Contacts side by side are of the same two runs, unless the own run is another.
            let starts = self.starts[w];
            let fresh = |bits: u64, carry: u64| bits & (!(bits << 1 | carry) | starts);
            // So are a contact aside and a straight one at either of its two places.
            let mut places = fresh(same, carry[0]);
            while places != 0 {
                let bit = places.trailing_zeros();
                unite(w, bit, w * WORD + bit as usize);
                places &= places - 1;
            }
            let mut places = fresh(before, carry[1]) & !(same | same << 1 | carry[0]);
            while places != 0 {
                let bit = places.trailing_zeros();
                unite(w, bit, w * WORD + bit as usize - 1);
                places &= places - 1;
            }
            let mut places = fresh(after, carry[2]) & !(same | same >> 1);
            while places != 0 {
                let bit = places.trailing_zeros();
                unite(w, bit, w * WORD + bit as usize + 1);
                places &= places - 1;
            }
            carry = [same >> 63, before >> 63, after >> 63];
        }
        Ok(())
    }
}
