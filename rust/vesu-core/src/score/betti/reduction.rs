//! Which columns of a matrix over GF(2) depend on earlier ones.

use std::cmp::Reverse;

use super::columns::{Columns, Edge, RelativeMatrix};
use super::forest::filled;
use crate::pages::zeroed;
use crate::{Cancel, Result};

const NONE: u32 = u32::MAX;

/// What the reduction finds out of a mask's matrix.
pub struct Reduced {
    /// For each outer column, whether it depends on earlier ones; the mask's own edges do not count.
    pub dependent: Vec<bool>,
    /// With rims, for each outer column that is: where the tunnel that it kills is born.
    pub births: Vec<Option<Edge>>,
    /// With rims: where the mask's tunnels are born.
    pub tunnels: Vec<Edge>,
}

/// Reduce all columns in order but the outer ones that `skip` names.
pub fn reduce(matrix: &RelativeMatrix, skip: &[bool], cancel: &Cancel) -> Result<Reduced> {
    let mut rims = matrix.rims.clone();
    rims.sort_unstable();
    let mut reduction = Reduction::new(matrix.rows as usize, &rims)?;
    for index in 0..matrix.within.len() {
        reduction.pivot(matrix.within.column(index), cancel)?;
    }
    // A pivot among the mask's own edges is a birth that the mask's squares leave alive.
    let birth = |pivot: Option<usize>| pivot.and_then(|rank| rims.get(rank)).map(|&(edge, _)| edge);
    let mut reduced = Reduced { dependent: Vec::with_capacity(skip.len()), births: Vec::new(), tunnels: Vec::new() };
    // Their order is free. The more numerous kind first gives short reductions: several times shorter ones where a sheet
    // is wrapped in a shell of the other mask (inner) and where specks pierce it (flat).
    let mut inside = [&matrix.inner, &matrix.flat];
    inside.sort_by_key(|columns| Reverse(columns.len()));
    for columns in inside {
        for index in 0..columns.len() {
            reduced.tunnels.extend(birth(reduction.pivot(columns.column(index), cancel)?));
        }
    }
    for (index, &skip) in skip.iter().enumerate() {
        let pivot = if skip { None } else { reduction.pivot(matrix.outer.column(index), cancel)? };
        reduced.dependent.push(!skip && pivot.is_none_or(|rank| rank < rims.len()));
        reduced.births.push(birth(pivot));
        reduced.tunnels.extend(birth(pivot));
    }
    Ok(reduced)
}

/// Columns so far, each with its own pivot: its row of highest rank. Rows are ranked as they turn up, so that a column
/// with a row not seen before is done at once.
struct Reduction {
    /// By row.
    ranks: Vec<u32>,
    ranked: u32,
    /// By rank: the column whose pivot it is.
    pivots: Vec<u32>,
    /// Ranks.
    reduced: Columns,
    working: BitTree,
}

impl Reduction {
    /// The rows of `rims` come first, in that order.
    fn new(rows: usize, rims: &[(Edge, u32)]) -> Result<Self> {
        let mut ranks = filled("ranks of rows", rows, NONE)?;
        for (rank, &(_, row)) in rims.iter().enumerate() {
            ranks[row as usize] = rank as u32;
        }
        let pivots = filled("pivots", rows, NONE)?;
        Ok(Self { ranks, ranked: rims.len() as u32, pivots, reduced: Columns::default(), working: BitTree::new(rows)? })
    }

    /// Reduce a column by the earlier ones; its pivot, if anything is left of it.
    fn pivot(&mut self, column: &[u32], cancel: &Cancel) -> Result<Option<usize>> {
        cancel.check()?;
        let known = self.ranked;
        let start = self.reduced.rows.len();
        for &row in column {
            let rank = &mut self.ranks[row as usize];
            if *rank == NONE {
                *rank = self.ranked;
                self.ranked += 1;
            }
            self.reduced.rows.push(*rank);
        }
        if self.ranked > known {
            self.sort_and_cancel(start);
            // A row met for the first time is no other column's pivot.
            if let Some(&pivot) = self.reduced.rows.get(start).filter(|&&pivot| pivot >= known) {
                return Ok(Some(self.own(pivot as usize)));
            }
        }
        for rank in self.reduced.rows.drain(start..) {
            self.working.toggle(rank as usize);
        }
        while let Some(pivot) = self.working.highest() {
            cancel.check()?;
            let owner = self.pivots[pivot];
            if owner == NONE {
                self.working.drain_into(&mut self.reduced.rows);
                return Ok(Some(self.own(pivot)));
            }
            for &rank in self.reduced.column(owner as usize) {
                self.working.toggle(rank as usize);
            }
        }
        Ok(None)
    }

    /// Bring the ranks from `start` on into falling order, leaving out those that come in pairs.
    fn sort_and_cancel(&mut self, start: usize) {
        let ranks = &mut self.reduced.rows;
        ranks[start..].sort_unstable_by(|a, b| b.cmp(a));
        let mut end = start;
        for i in start..ranks.len() {
            if end > start && ranks[end - 1] == ranks[i] {
                end -= 1;
            } else {
                ranks[end] = ranks[i];
                end += 1;
            }
        }
        ranks.truncate(end);
    }

    /// Close the column that ends the list, as the owner of `pivot`.
    fn own(&mut self, pivot: usize) -> usize {
        self.pivots[pivot] = self.reduced.len() as u32;
        self.reduced.ends.push(self.reduced.rows.len());
        pivot
    }
}

/// A set of numbers that gives its highest quickly: a bit for each, above them a bit for each word that is not zero,
/// and so on.
pub(super) struct BitTree {
    levels: Vec<Vec<u64>>,
}

impl BitTree {
    pub fn new(len: usize) -> Result<Self> {
        let mut levels = Vec::new();
        let mut words = len.max(1);
        while levels.is_empty() || words > 1 {
            words = words.div_ceil(64);
            levels.push(zeroed("a column", words)?);
        }
        Ok(Self { levels })
    }

    #[inline]
    pub fn toggle(&mut self, mut number: usize) {
        for level in &mut self.levels {
            let word = &mut level[number / 64];
            let before = *word;
            *word ^= 1 << (number % 64);
            if (before == 0) == (*word == 0) {
                return;
            }
            number /= 64;
        }
    }

    pub fn highest(&self) -> Option<usize> {
        let mut levels = self.levels.iter().rev();
        let top = levels.next()?[0];
        let mut number = 63usize.checked_sub(top.leading_zeros() as usize)?;
        for level in levels {
            number = number * 64 + 63 - level[number].leading_zeros() as usize;
        }
        Some(number)
    }

    /// Empty the set into `list`, highest first.
    pub fn drain_into(&mut self, list: &mut Vec<u32>) {
        while let Some(number) = self.highest() {
            list.push(number as u32);
            self.toggle(number);
        }
    }
}
