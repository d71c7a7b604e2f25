//! Dimension 0: components of the foreground (6-connected).

use std::array;

use super::block::Block;
use super::forest::{Forest, filled};
use super::found::Found;
use super::runs::{FACES, Run, Runs, unite_neighbours};
use crate::{Cancel, Result};

/// No voxel of a mask.
const NONE: u32 = u32::MAX;

/// The components of both masks, each at its first voxel. Of every mask, the component that comes first is no feature: it
/// never dies.
pub fn find_components(block: &Block, cancel: &Cancel) -> Result<(Found, [u64; 2])> {
    let firsts = [first_voxels(block, 0, cancel)?, first_voxels(block, 1, cancel)?];
    let count = [0, 1].map(|mask| firsts[mask].len() as u64);
    let births = firsts.map(|firsts| firsts.into_iter().skip(1).collect::<Vec<_>>());
    let matched = if births.iter().any(Vec::is_empty) { Default::default() } else { Merging::run(block, cancel)? };
    Ok((Found { births, matched }, count))
}

/// The first voxel of every component, in order.
fn first_voxels(block: &Block, mask: usize, cancel: &Cancel) -> Result<Vec<u32>> {
    let [_, _, nx] = block.shape;
    let runs = Runs::of(block, |words| words[mask], cancel)?;
    let mut forest = Forest::new(runs.runs.len())?;
    unite_neighbours(&runs, block, FACES, (&mut forest, 0), cancel)?;
    let mut firsts = Vec::new();
    for row in 0..block.shape[0] * block.shape[1] {
        let roots = runs.row(row).filter(|&i| forest.is_root(i as u32));
        firsts.extend(roots.map(|i| (row * nx) as u32 + runs.runs[i].start));
    }
    Ok(firsts)
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
    /// By root: the first voxel of each mask there, or `NONE`.
    firsts: Vec<[u32; 2]>,
    /// How many sets hold foreground of each mask.
    parts: [u64; 2],
    matched: [Vec<u32>; 2],
}

impl<'b> Merging<'b> {
    /// The components that are matched, of each mask.
    fn run(block: &'b Block, cancel: &Cancel) -> Result<[Vec<u32>; 2]> {
        let runs = Runs::of(block, |words| words[0] | words[1], cancel)?;
        let mut forest = Forest::new(runs.runs.len())?;
        unite_neighbours(&runs, block, FACES, (&mut forest, 0), cancel)?;
        let mut firsts = vec![[NONE; 2]; runs.runs.len()];
        for row in 0..block.shape[0] * block.shape[1] {
            for i in runs.row(row) {
                let firsts = &mut firsts[forest.find(i as u32) as usize];
                for (mask, first) in firsts.iter_mut().enumerate().filter(|(_, first)| **first == NONE) {
                    *first = first_within(block, row, runs.runs[i], mask);
                }
            }
        }
        let parts = [0, 1].map(|mask| firsts.iter().filter(|first| first[mask] != NONE).count() as u64);
        let mut merging = Self { block, runs, forest, firsts, parts, matched: Default::default() };
        let mut nodes = merging.first_slice(cancel)?;
        for z in 1..block.shape[0].saturating_sub(1) {
            if merging.parts.iter().any(|&parts| parts < 2) {
                break;
            }
            merging.edges_along_z(z, &mut nodes, cancel)?;
        }
        Ok(merging.matched)
    }

    /// Number in the forest of every voxel of the first slice, its edges done.
    fn first_slice(&mut self, cancel: &Cancel) -> Result<Vec<u32>> {
        let [nz, ny, nx] = self.block.shape;
        let mut nodes = self.nodes_of_runs(0)?;
        for node in nodes.iter_mut().filter(|node| **node == NONE) {
            *node = self.forest.push();
            self.firsts.push([NONE; 2]);
        }
        let above = if nz > 1 { Some(self.nodes_of_runs(1)?) } else { None };
        let above = above.as_deref().unwrap_or(&[]);
        for y in 0..ny {
            cancel.check()?;
            for x in 0..nx {
                let at = y * nx + x;
                match above.get(at) {
                    Some(&above) if above != NONE && self.block.codes[at] == 0 => self.merge(nodes[at], above),
                    _ => (),
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
        for (node, &above) in nodes.iter_mut().zip(above).filter(|(_, above)| **above != NONE) {
            *node = above;
        }
        Ok(nodes)
    }

    /// By voxel of slice `z`: its run, or `NONE` outside the union.
    fn nodes_of_runs(&self, z: usize) -> Result<Vec<u32>> {
        let [_, ny, nx] = self.block.shape;
        let mut nodes = filled("a slice's components", ny * nx, NONE)?;
        for y in 0..ny {
            for i in self.runs.row(z * ny + y) {
                let run = self.runs.runs[i];
                nodes[y * nx..][run.start as usize..run.end as usize].fill(i as u32);
            }
        }
        Ok(nodes)
    }

    /// The edges from slice z to slice z + 1; `nodes` goes along.
    fn edges_along_z(&mut self, z: usize, nodes: &mut [u32], cancel: &Cancel) -> Result<()> {
        let [_, ny, nx] = self.block.shape;
        for y in 0..ny {
            cancel.check()?;
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
        Ok(())
    }

    fn merge(&mut self, a: u32, b: u32) {
        let Some((root, child)) = self.forest.unite(a, b) else { return };
        let (ours, theirs) = (self.firsts[root as usize], self.firsts[child as usize]);
        self.firsts[root as usize] = array::from_fn(|mask| ours[mask].min(theirs[mask]));
        // Where both hold foreground of a mask, the younger of its two components dies.
        let dies: [u32; 2] = array::from_fn(|mask| ours[mask].max(theirs[mask]));
        for (parts, dies) in self.parts.iter_mut().zip(dies) {
            *parts -= u64::from(dies != NONE);
        }
        if !dies.contains(&NONE) {
            for (matched, dies) in self.matched.iter_mut().zip(dies) {
                matched.push(dies);
            }
        }
    }
}

/// The first voxel of `mask` in a run of the union, or `NONE`.
fn first_within(block: &Block, row: usize, run: Run, mask: usize) -> u32 {
    let bit = 1 << mask;
    let nx = block.shape[2];
    let codes = &block.codes[row * nx..][run.start as usize..run.end as usize];
    codes.iter().position(|code| code & bit != 0).map_or(NONE, |x| (row * nx + x) as u32 + run.start)
}
