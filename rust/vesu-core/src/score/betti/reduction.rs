//! Which columns of a matrix over GF(2) depend on earlier ones.

use super::columns::{Columns, RelativeMatrix};
use crate::pages::zeroed;
use crate::{Cancel, Result};

const NONE: u32 = u32::MAX;

/// For each outer column, unless `skip` says otherwise, whether it is a sum of inner and earlier outer ones.
pub fn dependent_columns(matrix: &RelativeMatrix, skip: &[bool], cancel: &Cancel) -> Result<Vec<bool>> {
    let mut reduction = Reduction::new(matrix.rows as usize)?;
    for index in 0..matrix.inner.len() {
        reduction.is_dependent(matrix.inner.column(index), cancel)?;
    }
    (0..matrix.outer.len())
        .map(|index| Ok(!skip[index] && reduction.is_dependent(matrix.outer.column(index), cancel)?))
        .collect()
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
    fn new(rows: usize) -> Result<Self> {
        let mut ranks = zeroed("ranks of rows", rows)?;
        ranks.fill(NONE);
        let mut pivots = zeroed("pivots", rows)?;
        pivots.fill(NONE);
        Ok(Self { ranks, ranked: 0, pivots, reduced: Columns::default(), working: BitTree::new(rows)? })
    }

    fn is_dependent(&mut self, column: &[u32], cancel: &Cancel) -> Result<bool> {
        for &row in column {
            let rank = &mut self.ranks[row as usize];
            if *rank == NONE {
                *rank = self.ranked;
                self.ranked += 1;
            }
            self.working.toggle(*rank as usize);
        }
        let mut added = 0u32;
        while let Some(pivot) = self.working.highest() {
            let owner = self.pivots[pivot];
            if owner == NONE {
                self.pivots[pivot] = self.reduced.len() as u32;
                self.working.drain_into(&mut self.reduced.rows);
                self.reduced.ends.push(self.reduced.rows.len());
                return Ok(false);
            }
            for &rank in self.reduced.column(owner as usize) {
                self.working.toggle(rank as usize);
            }
            added += 1;
            if added % 1024 == 0 {
                cancel.check()?;
            }
        }
        Ok(true)
    }
}

/// A set of numbers that gives its highest quickly: a bit for each, above them a bit for each word that is not zero,
/// and so on.
struct BitTree {
    levels: Vec<Vec<u64>>,
}

impl BitTree {
    fn new(len: usize) -> Result<Self> {
        let mut levels = Vec::new();
        let mut words = len.max(1);
        while levels.is_empty() || words > 1 {
            words = words.div_ceil(64);
            levels.push(zeroed("a column", words)?);
        }
        Ok(Self { levels })
    }

    #[inline]
    fn toggle(&mut self, mut number: usize) {
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

    fn highest(&self) -> Option<usize> {
        let mut levels = self.levels.iter().rev();
        let top = levels.next()?[0];
        let mut number = 63usize.checked_sub(top.leading_zeros() as usize)?;
        for level in levels {
            number = number * 64 + 63 - level[number].leading_zeros() as usize;
        }
        Some(number)
    }

    /// Empty the set into `list`, highest first.
    fn drain_into(&mut self, list: &mut Vec<u32>) {
        while let Some(number) = self.highest() {
            list.push(number as u32);
            self.toggle(number);
        }
    }
}
