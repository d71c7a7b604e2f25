//! Contacts between a block of rows and an earlier one.
//!
//! Traits stand where closures would: a method can be `inline(always)`, and so be compiled for the wider registers.

use super::bits::WORD;
use super::relations::{Reach, Relation};
use super::slab::{Grid, Slab, poll};
use super::source::Source;
use crate::{Cancel, Result};

/// What takes the two runs of a contact, each in its own slab's count.
pub(super) trait Join {
    fn join(&mut self, own: u32, other: u32);
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
    pub cancel: &'a Cancel,
}

impl<S: Source> Meeting<'_, S> {
    /// Hand on the runs of every contact; some pairs come more than once.
    #[inline(always)]
    pub fn join_contacts(&self, join: &mut impl Join) -> Result<()> {
        let Self { grid, own: (own, layer), other: (other, other_layer), y, relation, .. } = *self;
        let Some(other_y) = y.checked_add_signed(relation.block.1).filter(|&y| y < grid.blocks) else {
            return Ok(());
        };
        let mine = Ranks(own.runs_of(grid, layer * grid.blocks + y));
        let others = Ranks(other.runs_of(grid, other_layer * grid.blocks + other_y));
        if mine.none() || others.none() {
            return Ok(());
        }
        let walk = Walk { mine, others, cancel: self.cancel };
        if S::MANY_VALUES {
            let equal = self.equal_words();
            return match relation.reach {
                Reach::Straight => walk.join_contacts(&equal.of::<false>(), join),
                _ => walk.join_contacts(&equal.of::<true>(), join),
            };
        }
        let (a, b) = (self.rows(relation.own, own, self.own_z()), self.rows(relation.others, other, self.other_z()));
        match relation.reach {
            Reach::Straight => walk.join_contacts(&Straight { a, b }, join),
            Reach::Paired => walk.join_contacts(&Paired { a, b }, join),
            Reach::Diagonal => walk.join_contacts(&Diagonal { a, b }, join),
        }
    }

    #[inline(always)]
    fn own_z(&self) -> isize {
        (self.own.1 * self.grid.plan.block[0]) as isize
    }

    /// The earlier slab's slices count on from its own end: step -1 from there is its last one.
    #[inline(always)]
    fn other_z(&self) -> isize {
        if std::ptr::eq(self.own.0, self.other.0) { self.own_z() } else { self.other.0.slices as isize }
    }

    #[inline(always)]
    fn rows<'s>(&'s self, steps: &[(isize, isize)], slab: &'s Slab, z: isize) -> [&'s [u64]; 2] {
        let y = (self.y * self.grid.plan.block[1]) as isize;
        let first = slab.row(self.grid, z + steps[0].0, y + steps[0].1);
        let second = match steps.get(1) {
            Some(step) => slab.row(self.grid, z + step.0, y + step.1),
            None => self.grid.empty_row(),
        };
        [first, second]
    }

    /// In volumes of many values blocks are single rows.
    fn equal_words(&self) -> Equal<'_, S, false> {
        let ny = self.grid.shape[1];
        let row = (self.own.0.first_slice + self.own.1) * ny + self.y;
        let (dz, dy) = self.relation.block;
        let other = row.wrapping_add_signed(dz * ny as isize + dy);
        Equal { source: self.source, row, other }
    }
}

/// The starts of a block's runs, and how many runs come before each word.
#[derive(Clone, Copy)]
struct Ranks<'a>((&'a [u64], &'a [u32]));

impl Ranks<'_> {
    #[inline(always)]
    fn none(&self) -> bool {
        let (starts, ranks) = self.0;
        ranks[starts.len()] == ranks[0]
    }

    /// The run that covers voxel `x`.
    #[inline(always)]
    fn run_at(&self, x: usize) -> u32 {
        let (starts, ranks) = self.0;
        ranks[x / WORD] + (starts[x / WORD] & (u64::MAX >> (WORD - 1 - x % WORD))).count_ones() - 1
    }
}

/// Words of contacts.
trait Contacts {
    /// The own voxels of word `w` that touch an earlier one at the same x, one before, one after.
    fn word(&self, w: usize) -> [u64; 3];
}

struct Straight<'a> {
    a: [&'a [u64]; 2],
    b: [&'a [u64]; 2],
}

impl Contacts for Straight<'_> {
    #[inline(always)]
    fn word(&self, w: usize) -> [u64; 3] {
        [(self.a[0][w] | self.a[1][w]) & (self.b[0][w] | self.b[1][w]), 0, 0]
    }
}

struct Paired<'a> {
    a: [&'a [u64]; 2],
    b: [&'a [u64]; 2],
}

impl Contacts for Paired<'_> {
    #[inline(always)]
    fn word(&self, w: usize) -> [u64; 3] {
        let ([a0, a1], [b0, b1]) = (self.a, self.b);
        let ([before_0, after_0], [before_1, after_1]) = (aside([b0, b0], w), aside([b1, b1], w));
        let same = (a0[w] | a1[w]) & (b0[w] | b1[w]);
        [same, a0[w] & before_0 | a1[w] & before_1, a0[w] & after_0 | a1[w] & after_1]
    }
}

struct Diagonal<'a> {
    a: [&'a [u64]; 2],
    b: [&'a [u64]; 2],
}

impl Contacts for Diagonal<'_> {
    #[inline(always)]
    fn word(&self, w: usize) -> [u64; 3] {
        let own = self.a[0][w] | self.a[1][w];
        let [before, after] = aside(self.b, w);
        [own & (self.b[0][w] | self.b[1][w]), own & before, own & after]
    }
}

/// The voxels before those of word `w` of two rows joined, and those after.
#[inline(always)]
fn aside([first, second]: [&[u64]; 2], w: usize) -> [u64; 2] {
    let word = first[w] | second[w];
    let before = if w == 0 { 0 } else { (first[w - 1] | second[w - 1]) >> (WORD - 1) };
    let after = if w + 1 == first.len() { 0 } else { (first[w + 1] | second[w + 1]) << (WORD - 1) };
    [word << 1 | before, word >> 1 | after]
}

struct Equal<'a, S, const ASIDE: bool> {
    source: &'a S,
    row: usize,
    other: usize,
}

impl<'a, S> Equal<'a, S, false> {
    fn of<const ASIDE: bool>(&self) -> Equal<'a, S, ASIDE> {
        Equal { source: self.source, row: self.row, other: self.other }
    }
}

impl<S: Source, const ASIDE: bool> Contacts for Equal<'_, S, ASIDE> {
    #[inline(always)]
    fn word(&self, w: usize) -> [u64; 3] {
        let &Self { source, row, other } = self;
        let same = source.equal(row, other, 0, w);
        if ASIDE { [same, source.equal(row, other, -1, w), source.equal(row, other, 1, w)] } else { [same, 0, 0] }
    }
}

/// A walk along two blocks.
struct Walk<'a> {
    mine: Ranks<'a>,
    others: Ranks<'a>,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    #[inline(always)]
    fn join_contacts(&self, contacts: &impl Contacts, join: &mut impl Join) -> Result<()> {
        let starts = self.mine.0.0;
        let mut carry = [0; 3];
        for w in 0..starts.len() {
            poll(w, self.cancel)?;
            let [same, before, after] = contacts.word(w);
            // Contacts side by side are of the same two runs, unless the own run is another. So are a contact aside and
            // a straight one at either of its two places.
            let straight = same & (!(same << 1 | carry[0]) | starts[w]);
            let backward = before & (!(before << 1 | carry[1]) | starts[w]) & !(same | same << 1 | carry[0]);
            let forward = after & (!(after << 1 | carry[2]) | starts[w]) & !(same | same >> 1);
            self.join_word::<0>(w, straight, join);
            self.join_word::<-1>(w, backward, join);
            self.join_word::<1>(w, forward, join);
            carry = [same, before, after].map(|word| word >> (WORD - 1));
        }
        Ok(())
    }

    #[inline(always)]
    fn join_word<const STEP: isize>(&self, w: usize, mut places: u64, join: &mut impl Join) {
        while places != 0 {
            let x = w * WORD + places.trailing_zeros() as usize;
            join.join(self.mine.run_at(x), self.others.run_at(x.wrapping_add_signed(STEP)));
            places &= places - 1;
        }
    }
}
