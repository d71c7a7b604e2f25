//! Runs of voxels along x and their connected sets.

use super::block::{Block, set_bits};
use super::forest::Forest;
use crate::{Cancel, Result};

/// Voxels `start..end` of a row.
#[derive(Clone, Copy)]
pub struct Run {
    pub start: u32,
    pub end: u32,
}

/// The maximal runs of some voxels, row after row.
pub struct Runs {
    pub runs: Vec<Run>,
    /// `starts[r]..starts[r + 1]` are row r's runs.
    starts: Vec<u32>,
}

impl Runs {
    /// Runs of the voxels that `chosen` picks from the words of the prediction and of the label.
    pub fn of(block: &Block, chosen: impl Fn([u64; 2]) -> u64, cancel: &Cancel) -> Result<Self> {
        let [nz, ny, nx] = block.shape;
        let mut this = Self { runs: Vec::new(), starts: Vec::with_capacity(nz * ny + 1) };
        this.starts.push(0);
        for row in 0..nz * ny {
            cancel.check()?;
            this.append(block.row(row).iter().map(|&words| chosen(words)), nx);
            this.starts.push(this.runs.len() as u32);
        }
        Ok(this)
    }

    /// Every place where a bit differs from the one before begins or ends a run.
    fn append(&mut self, words: impl Iterator<Item = u64>, nx: usize) {
        let (mut before, mut start) = (0, None);
        for (i, word) in words.enumerate() {
            for bit in set_bits(word ^ (word << 1 | before)) {
                let x = (64 * i + bit).min(nx) as u32;
                start = match start {
                    None => Some(x),
                    Some(start) => {
                        self.runs.push(Run { start, end: x });
                        None
                    }
                };
            }
            before = word >> 63;
        }
        if let Some(start) = start.filter(|&start| start < nx as u32) {
            self.runs.push(Run { start, end: nx as u32 });
        }
    }

    pub fn row(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }

    /// Call `meet` with every two runs that touch, `aside` (0 or 1) voxels apart in x, in rows `a` and `b`.
    pub fn touching(&self, a: usize, b: usize, aside: u32, mut meet: impl FnMut(usize, usize)) {
        let (mut i, mut j) = (self.starts[a] as usize, self.starts[b] as usize);
        let (last_i, last_j) = (self.starts[a + 1] as usize, self.starts[b + 1] as usize);
        while i < last_i && j < last_j {
            let (run, other) = (self.runs[i], self.runs[j]);
            if run.start < other.end + aside && other.start < run.end + aside {
                meet(i, j);
            }
            if run.end <= other.end { i += 1 } else { j += 1 }
        }
    }
}

/// Earlier rows that hold neighbours, as (slices back, rows aside), and how far aside in x neighbours lie.
pub struct Neighbours(&'static [(usize, isize)], u32);

/// Connectivity 6.
pub const FACES: Neighbours = Neighbours(&[(0, -1), (1, 0)], 0);
/// Connectivity 26.
pub const CORNERS: Neighbours = Neighbours(&[(0, -1), (1, -1), (1, 0), (1, 1)], 1);

/// Join the touching runs of all rows; run i is number i + `offset` of the forest.
pub fn unite_neighbours(
    runs: &Runs,
    block: &Block,
    Neighbours(rows, aside): Neighbours,
    (forest, offset): (&mut Forest, usize),
    cancel: &Cancel,
) -> Result<()> {
    let [nz, ny, _] = block.shape;
    for z in 0..nz {
        for y in 0..ny {
            cancel.check()?;
            for &(back, dy) in rows {
                let (Some(z_before), Some(y_before)) = (z.checked_sub(back), y.checked_add_signed(dy)) else {
                    continue;
                };
                if y_before < ny {
                    runs.touching(z_before * ny + y_before, z * ny + y, aside, |i, j| {
                        forest.unite((i + offset) as u32, (j + offset) as u32);
                    });
                }
            }
        }
    }
    Ok(())
}
