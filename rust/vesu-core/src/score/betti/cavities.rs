//! Dimension 2: cavities, the 26-connected sets of background voxels that do not reach the block's faces.

use super::block::Block;
use super::components::Features;
use super::forest::Forest;
use super::runs::{CORNERS, Runs, unite_neighbours};
use crate::{Cancel, Result};

/// The set of the forest that stands for all outside the block.
const OUTSIDE: u32 = 0;

pub fn match_cavities(block: &Block, cancel: &Cancel) -> Result<Features> {
    let mut masks =
        [Background::of(block, |words| !words[0], cancel)?, Background::of(block, |words| !words[1], cancel)?];
    let count = [masks[0].cavities(), masks[1].cavities()];
    let matched = if count.contains(&0) {
        0
    } else {
        let mut union = Background::of(block, |[first, second]| !(first | second), cancel)?;
        let cavities = union.last_runs(block);
        let [first, second] = &mut masks;
        let (first, second) = (first.last_within(&cavities), second.last_within(&cavities));
        first.iter().zip(second).filter(|&(&first, second)| first && second).count() as u64
    };
    Ok(Features { count, matched })
}

/// Where a background run lies: its row, and its last voxel's x.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    x: u32,
}

/// The background of some mask: its runs and their sets; run i is number i + 1.
struct Background {
    runs: Runs,
    forest: Forest,
}

impl Background {
    /// The voxels that `chosen` picks from the words of both masks.
    fn of(block: &Block, chosen: impl Fn([u64; 2]) -> u64, cancel: &Cancel) -> Result<Self> {
        let runs = Runs::of(block, chosen, cancel)?;
        let mut forest = Forest::new(runs.runs.len() + 1);
        unite_neighbours(&runs, block, CORNERS, (&mut forest, 1), cancel)?;
        let [nz, ny, nx] = block.shape;
        for row in 0..nz * ny {
            let (z, y) = (row / ny, row % ny);
            let on_face = z == 0 || z + 1 == nz || y == 0 || y + 1 == ny;
            for i in runs.row(row) {
                let run = runs.runs[i];
                if on_face || run.start == 0 || run.end as usize == nx {
                    forest.unite(OUTSIDE, i as u32 + 1);
                }
            }
        }
        Ok(Self { runs, forest })
    }

    fn cavities(&self) -> u64 {
        self.forest.roots() as u64 - 1
    }

    /// The last run of each cavity, in order.
    fn last_runs(&mut self, block: &Block) -> Vec<Place> {
        let mut seen = vec![false; self.runs.runs.len() + 1];
        seen[OUTSIDE as usize] = true;
        let mut places = Vec::new();
        for row in (0..block.shape[0] * block.shape[1]).rev() {
            for i in self.runs.row(row).rev() {
                let root = self.forest.find(i as u32 + 1) as usize;
                if !seen[root] {
                    seen[root] = true;
                    places.push(Place { row, x: self.runs.runs[i].end - 1 });
                }
            }
        }
        places.reverse();
        places
    }

    /// For each cavity of the union: whether it lies in a cavity here, and no later one lies in the same.
    fn last_within(&mut self, cavities: &[Place]) -> Vec<bool> {
        let mut taken = vec![false; self.runs.runs.len() + 1];
        taken[OUTSIDE as usize] = true;
        let mut last = vec![false; cavities.len()];
        for (place, last) in cavities.iter().zip(&mut last).rev() {
            let range = self.runs.row(place.row);
            let first = range.start;
            let i = first + self.runs.runs[range].partition_point(|run| run.end <= place.x);
            let root = self.forest.find(i as u32 + 1) as usize;
            *last = !taken[root];
            taken[root] = true;
        }
        last
    }
}
