//! Dimension 2: cavities, the 26-connected sets of background voxels that do not reach the block's faces.

use std::mem;

use super::block::Block;
use super::forest::{Forest, filled};
use super::found::Found;
use super::runs::{CORNERS, Runs, unite_neighbours};
use crate::{Cancel, Result};

/// The set of the forest that stands for all outside the block.
const OUTSIDE: u32 = 0;
/// No cavity.
const NONE: u32 = u32::MAX;

/// The cavities of both masks, each at its last voxel.
pub fn find_cavities(block: &Block, cancel: &Cancel) -> Result<Found> {
    let mut first = Background::of(block, |words| !words[0], cancel)?;
    let mut second = Background::of(block, |words| !words[1], cancel)?;
    let births = [first.cavities(), second.cavities()];
    let mut matched = [Vec::new(), Vec::new()];
    if births.iter().all(|cavities| !cavities.is_empty()) {
        let mut union = Background::of(block, |[first, second]| !(first | second), cancel)?.cavities();
        union.sort_unstable();
        for voxel in union.into_iter().rev() {
            if let (Some(a), Some(b)) = (first.take(voxel), second.take(voxel)) {
                matched[0].push(a);
                matched[1].push(b);
            }
        }
    }
    Ok(Found { births, matched })
}

/// The background of some mask: its runs and their sets; run i is number i + 1.
struct Background {
    row_length: u32,
    rows: usize,
    runs: Runs,
    forest: Forest,
    /// By root: the cavity's last voxel, or `NONE` if it reaches the block's faces or was taken.
    last: Vec<u32>,
}

impl Background {
    /// The voxels that `chosen` picks from the words of both masks.
    fn of(block: &Block, chosen: impl Fn([u64; 2]) -> u64, cancel: &Cancel) -> Result<Self> {
        let runs = Runs::of(block, chosen, cancel)?;
        let mut forest = Forest::new(runs.runs.len() + 1)?;
        unite_neighbours(&runs, block, CORNERS, (&mut forest, 1), cancel)?;
        let [nz, ny, nx] = block.shape;
        let last = filled("cavities", runs.runs.len() + 1, NONE)?;
        let mut this = Self { row_length: nx as u32, rows: nz * ny, runs, forest, last };
        for row in 0..nz * ny {
            let (z, y) = (row / ny, row % ny);
            let on_face = z == 0 || z + 1 == nz || y == 0 || y + 1 == ny;
            for i in this.runs.row(row) {
                let run = this.runs.runs[i];
                if on_face || run.start == 0 || run.end as usize == nx {
                    this.forest.unite(OUTSIDE, i as u32 + 1);
                }
            }
        }
        this.find_last_voxels();
        Ok(this)
    }

    fn find_last_voxels(&mut self) {
        for row in 0..self.rows {
            for i in self.runs.row(row) {
                let root = self.forest.find(i as u32 + 1);
                if root != OUTSIDE {
                    self.last[root as usize] = row as u32 * self.row_length + self.runs.runs[i].end - 1;
                }
            }
        }
    }

    /// The last voxel of every cavity.
    fn cavities(&self) -> Vec<u32> {
        self.last.iter().copied().filter(|&voxel| voxel != NONE).collect()
    }

    /// The last voxel of the cavity around a background voxel, unless there is none or it was taken before.
    fn take(&mut self, voxel: u32) -> Option<u32> {
        let (row, x) = (voxel / self.row_length, voxel % self.row_length);
        let range = self.runs.row(row as usize);
        let i = range.start + self.runs.runs[range].partition_point(|run| run.end <= x);
        let root = self.forest.find(i as u32 + 1) as usize;
        Some(mem::replace(&mut self.last[root], NONE)).filter(|&voxel| voxel != NONE)
    }
}
