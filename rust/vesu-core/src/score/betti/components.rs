//! Dimension 0: components of the foreground (6-connected).

use super::block::{Block, MASK_BIT};
use super::forest::Forest;
use super::runs::{FACES, Runs, unite_neighbours};
use crate::{Cancel, Result};

/// Features of the two masks, and matched ones.
pub struct Features {
    pub count: [u64; 2],
    pub matched: u64,
}

pub fn match_components(block: &Block, cancel: &Cancel) -> Result<Features> {
    let count = [count_components(block, 0, cancel)?, count_components(block, 1, cancel)?];
    let matched = if count.iter().any(|&components| components < 2) { 0 } else { Merging::run(block, cancel)? };
    Ok(Features { count, matched })
}

fn count_components(block: &Block, mask: usize, cancel: &Cancel) -> Result<u64> {
    let runs = Runs::of(block, |words| words[mask], cancel)?;
    let mut forest = Forest::new(runs.runs.len());
    unite_neighbours(&runs, block, FACES, (&mut forest, 0), cancel)?;
    Ok(forest.roots() as u64)
}

/// The components of the union, merged along the edges outside it in their order.
///
/// Nearly all those edges change nothing. In a slice z > 0 an edge along y or x that leaves the union closes a square with
/// three earlier edges, so its ends are joined already; and an edge along z that ends in a background voxel only adds that
/// voxel. What is left are the edges along z that end in the union, and the first slice.
struct Merging<'b> {
    block: &'b Block,
    runs: Runs,
    forest: Forest,
    /// By root: which masks have foreground there.
    holds: Vec<u8>,
    /// How many sets hold foreground of each mask.
    parts: [u64; 2],
    matched: u64,
}

impl<'b> Merging<'b> {
    fn run(block: &'b Block, cancel: &Cancel) -> Result<u64> {
        let runs = Runs::of(block, |words| words[0] | words[1], cancel)?;
        let mut forest = Forest::new(runs.runs.len());
        unite_neighbours(&runs, block, FACES, (&mut forest, 0), cancel)?;
        let mut holds = vec![0; runs.runs.len()];
        for (index, row) in block.rows().enumerate() {
            for i in runs.row(index) {
                let run = runs.runs[i];
                let codes = row[run.start as usize..run.end as usize].iter().fold(0, |codes, code| codes | code);
                holds[forest.find(i as u32) as usize] |= codes;
            }
        }
        let parts = MASK_BIT.map(|bit| holds.iter().filter(|&codes| codes & bit != 0).count() as u64);
        let mut merging = Self { block, runs, forest, holds, parts, matched: 0 };
        let mut nodes = merging.first_slice();
        for z in 1..block.shape[0] {
            cancel.check()?;
            if merging.parts.iter().any(|&parts| parts < 2) {
                break;
            }
            merging.edges_along_z(z, &mut nodes);
        }
        Ok(merging.matched)
    }

    /// Number in the forest of every voxel of the first slice, its edges done.
    fn first_slice(&mut self) -> Vec<u32> {
        let [nz, ny, nx] = self.block.shape;
        let mut nodes = vec![u32::MAX; ny * nx];
        for y in 0..ny {
            for i in self.runs.row(y) {
                let run = self.runs.runs[i];
                nodes[y * nx..][run.start as usize..run.end as usize].fill(i as u32);
            }
        }
        for node in nodes.iter_mut().filter(|node| **node == u32::MAX) {
            *node = self.forest.push();
            self.holds.push(0);
        }
        let above = if nz > 1 { self.nodes_of_runs(1) } else { vec![u32::MAX; ny * nx] };
        for y in 0..ny {
            for x in 0..nx {
                let at = y * nx + x;
                if above[at] != u32::MAX && self.block.codes[at] == 0 {
                    self.merge(nodes[at], above[at]);
                }
                // Edges inside the union join what is joined; they need no test.
                if y + 1 < ny {
                    self.merge(nodes[at], nodes[at + nx]);
                }
                if x + 1 < nx {
                    self.merge(nodes[at], nodes[at + 1]);
                }
            }
        }
        for (node, above) in nodes.iter_mut().zip(above) {
            *node = if above == u32::MAX { *node } else { above };
        }
        nodes
    }

    /// By voxel of slice `z`: its run, or `u32::MAX` outside the union.
    fn nodes_of_runs(&self, z: usize) -> Vec<u32> {
        let [_, ny, nx] = self.block.shape;
        let mut nodes = vec![u32::MAX; ny * nx];
        for y in 0..ny {
            for i in self.runs.row(z * ny + y) {
                let run = self.runs.runs[i];
                nodes[y * nx..][run.start as usize..run.end as usize].fill(i as u32);
            }
        }
        nodes
    }

    /// The edges from slice z to slice z + 1; `nodes` goes along.
    fn edges_along_z(&mut self, z: usize, nodes: &mut [u32]) {
        let [nz, ny, nx] = self.block.shape;
        if z + 1 == nz {
            return;
        }
        for y in 0..ny {
            for i in self.runs.row((z + 1) * ny + y) {
                let run = self.runs.runs[i];
                for x in run.start as usize..run.end as usize {
                    let at = y * nx + x;
                    if self.block.slice(z)[at] == 0 {
                        self.merge(nodes[at], i as u32);
                    }
                    nodes[at] = i as u32;
                }
            }
        }
    }

    fn merge(&mut self, a: u32, b: u32) {
        let Some((root, child)) = self.forest.unite(a, b) else { return };
        let (ours, theirs) = (self.holds[root as usize], self.holds[child as usize]);
        self.holds[root as usize] |= theirs;
        let shared = ours & theirs;
        for (parts, bit) in self.parts.iter_mut().zip(MASK_BIT) {
            *parts -= u64::from(shared & bit != 0);
        }
        self.matched += u64::from(shared == MASK_BIT[0] | MASK_BIT[1]);
    }
}
