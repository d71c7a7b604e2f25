//! The boundary matrix of the box relative to a mask, squares against edges, shrunk by its local structure.
//!
//! Every voxel has a level: 0 in the mask F, 1 elsewhere in the union U, 2 outside; a cell has the highest of its voxels'.
//! Squares are ordered by (in U or not, z, y, x, type). Cells of level 0 vanish. Three kinds of cell settle themselves:
//!
//! - A voxel settles an edge: each voxel outside F takes the edge towards z = 0 (there the one towards y = 0, and on that
//!   line the one towards x = 0). These edges are a forest, so their rows follow from the others and go.
//! - An edge settles a square: of the squares around an edge at z > 0 along y or x, the first in order is the one towards
//!   z = 0, if its level is the edge's. It is independent of all before, and the edge's row goes with it: wherever the edge
//!   is in a rim, the square's other edges take its place. (In the slice z = 0, likewise with edges along x and y = 0.)
//! - A cube settles a square: outside U, or if the cube is in U, the square at a cube's high-z face closes the cube.
//!
//! What takes an edge's place ends after a walk towards z = 0, at an edge in F or one that settles nothing. `walks` holds
//! for every edge of the present slice what its walk collects, as a list that grows by its head from slice to slice.

use super::block::{Block, ahead, set_bits};
use super::forest::filled;
use crate::{Cancel, Error, Result};

/// Cells between two polls of the cancel token.
const POLL: usize = 1 << 12;

/// No row, or the end of a list.
const NONE: u32 = u32::MAX;

/// Columns of row numbers, end to end.
#[derive(Default)]
pub struct Columns {
    pub rows: Vec<u32>,
    pub ends: Vec<usize>,
}

impl Columns {
    fn extend_from_lists<const N: usize>(&mut self, links: &[Link], heads: [u32; N]) {
        for mut link in heads {
            while link != NONE {
                let Link { row, next } = links[link as usize];
                self.rows.push(row);
                link = next;
            }
        }
    }

    /// End the column.
    fn close(&mut self) {
        self.ends.push(self.rows.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn column(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[start..self.ends[index]]
    }
}

/// A square: its lowest voxel's index and its normal's axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Square {
    pub voxel: u32,
    pub normal: u8,
}

/// An edge: its lowest voxel's index and the axis along which it runs. Ordered as edges of one value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub voxel: u32,
    pub axis: u8,
}

/// What is left of the matrix.
#[derive(Default)]
pub struct RelativeMatrix {
    /// The mask's own edges that settle nothing, with their rows, and its squares; empty unless asked for.
    pub rims: Vec<(Edge, u32)>,
    pub within: Columns,
    /// Squares in the union, those with normal z apart. Their order does not matter.
    pub inner: Columns,
    pub flat: Columns,
    /// Squares outside, in order of `squares`.
    pub outer: Columns,
    /// The same ones for every mask.
    pub squares: Vec<Square>,
    pub rows: u32,
}

impl RelativeMatrix {
    /// The box relative to the mask whose bit is `bit`. With `rims` the mask's own cells do not vanish: a column that would
    /// be zero then gives a cycle in the mask.
    pub fn of(block: &Block, bit: u8, rims: bool, cancel: &Cancel) -> Result<Self> {
        let mut sweep = Sweep::new(block, bit, rims)?;
        sweep.first_slice(cancel)?;
        for z in 1..block.shape[0] {
            sweep.step(z, cancel)?;
            if z == 1 {
                sweep.matrix.merge_squares();
            }
        }
        Ok(sweep.matrix)
    }

    /// Bring the columns of the first slice's two kinds of square, each in order, into one order.
    fn merge_squares(&mut self) {
        let mut order: Vec<usize> = (0..self.squares.len()).collect();
        order.sort_by_key(|&index| self.squares[index]);
        let mut outer = Columns::default();
        for &index in &order {
            outer.rows.extend_from_slice(self.outer.column(index));
            outer.close();
        }
        self.squares = order.iter().map(|&index| self.squares[index]).collect();
        self.outer = outer;
    }
}

/// A list's link: a row and the link after it.
#[derive(Clone, Copy)]
struct Link {
    row: u32,
    next: u32,
}

/// The state after slice z.
struct Sweep<'b> {
    block: &'b Block,
    /// Level by code.
    levels: [u8; 4],
    with_rims: bool,
    matrix: RelativeMatrix,
    links: Vec<Link>,
    /// By voxel of the slice: what the walks of its edges along y (0) and x (1) collect.
    walks: [Vec<u32>; 2],
    /// By voxel of the slice: the row of the edge that ends there, coming from the slice before.
    upright: Vec<u32>,
}

impl<'b> Sweep<'b> {
    fn new(block: &'b Block, bit: u8, with_rims: bool) -> Result<Self> {
        let [_, ny, nx] = block.shape;
        let level = |code: u8| if code & bit != 0 { 0 } else { 2 - u8::from(code != 0) };
        let nothing = || filled("the walks of a slice", ny * nx, NONE);
        Ok(Self {
            block,
            levels: [level(0), level(1), level(2), level(3)],
            with_rims,
            matrix: RelativeMatrix::default(),
            links: Vec::new(),
            walks: [nothing()?, nothing()?],
            upright: nothing()?,
        })
    }

    fn level(&self, code: u8) -> u8 {
        self.levels[usize::from(code & 3)]
    }

    fn new_row(&mut self) -> u32 {
        self.matrix.rows += 1;
        self.matrix.rows - 1
    }

    /// The row of one of the mask's own edges, if those are wanted.
    fn rim_row(&mut self, edge: Edge) -> u32 {
        if !self.with_rims {
            return NONE;
        }
        let row = self.new_row();
        self.matrix.rims.push((edge, row));
        row
    }

    fn push(&mut self, list: &mut u32, row: u32) -> Result<()> {
        if row != NONE {
            let head = u32::try_from(self.links.len()).ok().filter(|&head| head != NONE);
            let Some(head) = head else {
                let needed = self.links.len() as u64 * size_of::<Link>() as u64;
                return Err(Error::Memory { what: "matching tunnels".into(), needed, limit: needed });
            };
            self.links.push(Link { row, next: *list });
            *list = head;
        }
        Ok(())
    }

    /// The slice z = 0: its edges, and its squares, which are the last to settle anything.
    fn first_slice(&mut self, cancel: &Cancel) -> Result<()> {
        let [_, ny, nx] = self.block.shape;
        let slice = self.block.slice(0);
        // Edges along y: row of the edge that ends in a voxel of F, coming from elsewhere.
        let mut ending = vec![NONE; nx];
        for y in 0..ny {
            cancel.check()?;
            for x in 0..nx {
                let here = self.level(slice[y * nx + x]);
                if y > 0 {
                    let before = self.level(slice[(y - 1) * nx + x]);
                    ending[x] = if before > 0 && here == 0 { self.new_row() } else { NONE };
                    if ending[x] != NONE {
                        let mut list = NONE;
                        self.push(&mut list, ending[x])?;
                        self.walks[0][(y - 1) * nx + x] = list;
                    }
                }
            }
            for x in 1..nx {
                let at = y * nx + x - 1;
                let [left, right] = [at, at + 1].map(|at| self.level(slice[at]));
                self.walks[1][at] = if y == 0 {
                    let mut list = NONE;
                    if left > 0 && right == 0 {
                        let row = self.new_row();
                        self.push(&mut list, row)?;
                    }
                    list
                } else {
                    let before = [at - nx, at - nx + 1].map(|at| self.level(slice[at])).into_iter().max().unwrap_or(0);
                    let square = Square { voxel: (at - nx) as u32, normal: 0 };
                    let ending = [ending[x - 1], ending[x]];
                    let edge = Edge { voxel: at as u32, axis: 2 };
                    self.advance(self.walks[1][at - nx], [before, left.max(right)], ending, (square, edge))?
                };
            }
        }
        Ok(())
    }

    /// From slice z - 1 to slice z. Walks change only beside voxels whose code does.
    fn step(&mut self, z: usize, cancel: &Cancel) -> Result<()> {
        let [_, ny, nx] = self.block.shape;
        let (before, here) = (self.block.slice(z - 1), self.block.slice(z));
        let changed = self.changed_voxels(z);
        for at in positions(&changed, self.block) {
            if self.level(before[at]) > 0 && self.level(here[at]) == 0 {
                self.upright[at] = self.new_row();
            }
        }
        let beside = touching_cells(&changed, self.block.row_words);
        let base = ((z - 1) * ny * nx) as u32;
        for (i, at) in positions(&beside, self.block).enumerate() {
            if i % POLL == 0 {
                cancel.check()?;
            }
            for (normal, reach, exists) in [(1, 1, at % nx + 1 < nx), (2, nx, at / nx + 1 < ny)] {
                if exists {
                    let levels = [before, here].map(|slice| self.level(slice[at]).max(self.level(slice[at + reach])));
                    let direction = 2 - normal as usize;
                    let walk = self.walks[direction][at];
                    let ending = [self.upright[at], self.upright[at + reach]];
                    let square = Square { voxel: base + at as u32, normal };
                    let edge = Edge { voxel: base + (ny * nx + at) as u32, axis: 3 - normal };
                    self.walks[direction][at] = self.advance(walk, levels, ending, (square, edge))?;
                }
            }
        }
        self.level_squares(z, &beside);
        for at in positions(&changed, self.block) {
            self.upright[at] = NONE;
        }
        Ok(())
    }

    /// The voxels of slice z whose code is not that of the voxel before in z; a bit each.
    fn changed_voxels(&self, z: usize) -> Vec<u64> {
        let ny = self.block.shape[1];
        let slices = [z - 1, z].map(|z| (z * ny..(z + 1) * ny).flat_map(|row| self.block.row(row)));
        let [before, here] = slices;
        before.zip(here).map(|(before, here)| before[0] ^ here[0] | before[1] ^ here[1]).collect()
    }

    /// Take an edge's walk one step: `levels` of the edge before and of the one after, the rows of the edges between
    /// their ends, the square between them and the edge after. If the square settles nothing it becomes a column.
    fn advance(
        &mut self,
        mut walk: u32,
        levels: [u8; 2],
        ending: [u32; 2],
        (square, edge): (Square, Edge),
    ) -> Result<u32> {
        let [before, after] = levels;
        if before == 0 {
            return Ok(walk); // empty, unless rims are wanted
        }
        self.push(&mut walk, ending[0])?;
        self.push(&mut walk, ending[1])?;
        if after >= before {
            return Ok(walk);
        }
        let row = if after > 0 { self.new_row() } else { self.rim_row(edge) };
        let mut rest = NONE;
        self.push(&mut rest, row)?;
        let column = if before == 2 { &mut self.matrix.outer } else { &mut self.matrix.inner };
        column.extend_from_lists(&self.links, [walk, rest]);
        column.close();
        if before == 2 {
            self.matrix.squares.push(square);
        }
        Ok(rest)
    }

    /// Squares with normal z in slice z > 0, of the cells `beside`. Those whose level the cube towards z = 0 has too
    /// close that cube and are no columns at all; outside the union that is all of them.
    fn level_squares(&mut self, z: usize, beside: &[u64]) {
        let [_, ny, nx] = self.block.shape;
        let (before, here) = (self.block.slice(z - 1), self.block.slice(z));
        for at in positions(beside, self.block) {
            if at % nx + 1 == nx || at / nx + 1 == ny {
                continue;
            }
            let corners = [at, at + 1, at + nx, at + nx + 1];
            let highest = |slice: &[u8]| corners.map(|at| self.level(slice[at])).into_iter().max();
            let level = highest(here);
            if highest(before) <= level {
                continue;
            }
            let column = match level {
                Some(0) if self.with_rims => &mut self.matrix.within,
                Some(1) => &mut self.matrix.flat,
                _ => continue,
            };
            let rim = [self.walks[0][at], self.walks[0][at + 1], self.walks[1][at], self.walks[1][at + nx]];
            column.extend_from_lists(&self.links, rim);
            column.close();
        }
    }
}

/// The cells of a slice that have one of the voxels `changed` as a corner, each by its lowest voxel.
fn touching_cells(changed: &[u64], row_words: usize) -> Vec<u64> {
    let rows: Vec<&[u64]> = changed.chunks_exact(row_words).collect();
    let mut cells = Vec::with_capacity(changed.len());
    for (y, row) in rows.iter().enumerate() {
        let both = |i: usize| {
            let below = rows.get(y + 1).and_then(|below| below.get(i));
            row.get(i).unwrap_or(&0) | below.unwrap_or(&0)
        };
        cells.extend((0..row_words).map(|i| both(i) | ahead(both(i), both(i + 1))));
    }
    cells
}

/// Indices within the slice of the voxels whose bit is set, in order.
fn positions<'w>(words: &'w [u64], block: &Block) -> impl Iterator<Item = usize> + use<'w> {
    let (row_words, nx) = (block.row_words, block.shape[2]);
    words.iter().enumerate().filter(|&(_, &word)| word != 0).flat_map(move |(i, &word)| {
        let start = i / row_words * nx + i % row_words * 64;
        set_bits(word).map(move |bit| start + bit)
    })
}
