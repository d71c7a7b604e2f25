//! Runs of voxels along x and their connected sets.

use super::block::Block;
use super::forest::Forest;
use crate::{Cancel, Result};

/// Voxels `start..end` of a row.
#[derive(Clone, Copy)]
pub struct Run {
    pub start: u32,
    pub end: u32,
}

/// The maximal runs of the voxels chosen by their code, row after row.
pub struct Runs {
    pub runs: Vec<Run>,
    /// `starts[r]..starts[r + 1]` are row r's runs.
    starts: Vec<u32>,
}

impl Runs {
    pub fn of(block: &Block, chosen: impl Fn(u8) -> bool, cancel: &Cancel) -> Result<Self> {
        let rows = block.shape[0] * block.shape[1];
        let mut this = Self { runs: Vec::new(), starts: Vec::with_capacity(rows + 1) };
        this.starts.push(0);
        for (index, row) in block.rows().enumerate() {
            if index % block.shape[1] == 0 {
                cancel.check()?;
            }
            let mut inside = false;
            for (x, &code) in row.iter().enumerate() {
                if chosen(code) != inside {
                    inside = !inside;
                    match this.runs.last_mut() {
                        Some(run) if !inside => run.end = x as u32,
                        _ => this.runs.push(Run { start: x as u32, end: row.len() as u32 }),
                    }
                }
            }
            this.starts.push(this.runs.len() as u32);
        }
        Ok(this)
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

/// Which earlier rows hold neighbours: (slices back, rows aside), and the reach in x.
pub const FACES: (&[(usize, isize)], u32) = (&[(0, -1), (1, 0)], 0);
pub const CORNERS: (&[(usize, isize)], u32) = (&[(0, -1), (1, -1), (1, 0), (1, 1)], 1);

/// Join the touching runs of all rows; number i + `offset` of the forest is run i.
pub fn unite_neighbours(
    runs: &Runs,
    block: &Block,
    (neighbours, aside): (&[(usize, isize)], u32),
    (forest, offset): (&mut Forest, usize),
    cancel: &Cancel,
) -> Result<()> {
    let [nz, ny, _] = block.shape;
    for z in 0..nz {
        cancel.check()?;
        for y in 0..ny {
            for &(back, dy) in neighbours {
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
