//! A sheet as runs along an axis, and its layers: height maps with one run a column.

use super::super::runs::Run;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::Shape;
use crate::{Cancel, Result};

/// No run.
const NONE: u32 = u32::MAX;

/// Rows handled between two polls of the cancel token.
const POLL: usize = 1 << 14;

/// The plane of columns along one axis: axes `u` and `v` span it, `along` is the columns' own.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub along: usize,
    pub u: usize,
    pub v: usize,
    pub shape: Shape,
}

impl Frame {
    pub fn new(along: usize, shape: Shape) -> Self {
        let (u, v) = [(1, 2), (0, 2), (0, 1)][along];
        Self { along, u, v, shape }
    }

    /// Index of the voxel at `height` of column (u, v).
    pub fn voxel(&self, u: usize, v: usize, height: usize) -> usize {
        let mut place = [0; 3];
        (place[self.along], place[self.u], place[self.v]) = (height, u, v);
        (place[0] * self.shape[1] + place[1]) * self.shape[2] + place[2]
    }
}

/// A run of one row along x, by the row's index z * ny + y.
#[derive(Clone, Copy)]
pub(super) struct RowRun {
    pub row: u32,
    pub run: Run,
}

/// Voxels `low..=high` of column (u, v).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub u: u32,
    pub v: u32,
    pub low: u32,
    pub high: u32,
}

impl Interval {
    fn overlaps(&self, other: &Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// How far bottom and top lie apart.
    fn step_to(&self, other: &Self) -> u32 {
        self.low.abs_diff(other.low) + self.high.abs_diff(other.high)
    }
}

/// One value a column, over the box that a sheet's columns span.
struct Grid {
    first: [u32; 2],
    size: [usize; 2],
    values: Vec<u32>,
}

impl Grid {
    fn around(columns: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let (mut first, mut last) = ([u32::MAX; 2], [0; 2]);
        for (u, v) in columns {
            first = [first[0].min(u), first[1].min(v)];
            last = [last[0].max(u), last[1].max(v)];
        }
        let size = [0, 1].map(|k| (last[k] + 1).saturating_sub(first[k]) as usize);
        Self { first, size, values: vec![NONE; size[0] * size[1]] }
    }

    fn at(&mut self, u: u32, v: u32) -> &mut u32 {
        let place = (u - self.first[0]) as usize * self.size[1] + (v - self.first[1]) as usize;
        &mut self.values[place]
    }

    /// The column `step` away in the plane, if it lies in the box.
    fn beside(&self, column: &Interval, [du, dv]: [i32; 2]) -> Option<u32> {
        let u = column.u.checked_add_signed(du)?.checked_sub(self.first[0])? as usize;
        let v = column.v.checked_add_signed(dv)?.checked_sub(self.first[1])? as usize;
        (u < self.size[0] && v < self.size[1]).then(|| self.values[u * self.size[1] + v])
    }
}

/// The sheet's runs along an axis, all runs of a column linked to one another.
pub(super) struct Columns {
    pub intervals: Vec<Interval>,
    /// The run before in the same column.
    earlier: Vec<u32>,
    /// The last run of each column.
    latest: Grid,
}

impl Columns {
    /// Turn runs along x, in C order, into runs along the frame's axis.
    pub fn of_sheet(rows: &[RowRun], frame: Frame, cancel: &Cancel) -> Result<Self> {
        let ny = frame.shape[1];
        let column_of = |row: u32, x: u32| {
            let place = [row / ny as u32, row % ny as u32, x];
            (place[frame.u], place[frame.v], place[frame.along])
        };
        let ends = rows.iter().flat_map(|RowRun { row, run }| [(*row, run.start), (*row, run.end - 1)]);
        let latest = Grid::around(ends.map(|(row, x)| column_of(row, x)).map(|(u, v, _)| (u, v)));
        let mut columns = Self { intervals: Vec::new(), earlier: Vec::new(), latest };
        for (i, RowRun { row, run }) in rows.iter().enumerate() {
            if i % POLL == 0 {
                cancel.check()?;
            }
            if frame.along == 2 {
                let (u, v, low) = column_of(*row, run.start);
                columns.append(Interval { u, v, low, high: run.end - 1 });
            } else {
                for x in run.start..run.end {
                    let (u, v, low) = column_of(*row, x);
                    columns.append(Interval { u, v, low, high: low });
                }
            }
        }
        Ok(columns)
    }

    /// Lengthen the column's last run or begin another one.
    fn append(&mut self, interval: Interval) {
        let latest = self.latest.at(interval.u, interval.v);
        match self.intervals.get_mut(*latest as usize) {
            Some(open) if open.high + 1 == interval.low => open.high = interval.high,
            _ => {
                self.earlier.push(*latest);
                *latest = self.intervals.len() as u32;
                self.intervals.push(interval);
            }
        }
    }

    /// Columns that hold any run: the projected area.
    pub fn area(&self) -> usize {
        self.earlier.iter().filter(|&&earlier| earlier == NONE).count()
    }

    /// Cut the sheet into layers with at most one run a column.
    ///
    /// A layer grows from its first run over overlapping runs of neighbouring columns, always over the smallest step in
    /// height first: where wraps stick together it follows its own wrap as far as that goes.
    pub fn layers(&self, cancel: &Cancel) -> Result<Vec<Vec<Interval>>> {
        let mut layers = Vec::new();
        let mut free = vec![true; self.intervals.len()];
        // The layer that last took each column.
        let mut owner = Grid { values: vec![NONE; self.latest.values.len()], ..self.latest };
        for seed in 0..self.intervals.len() {
            if free[seed] {
                let layer = layers.len() as u32;
                layers.push(self.grow(seed, layer, &mut free, &mut owner, cancel)?);
            }
        }
        Ok(layers)
    }

    fn grow(
        &self,
        seed: usize,
        layer: u32,
        free: &mut [bool],
        owner: &mut Grid,
        cancel: &Cancel,
    ) -> Result<Vec<Interval>> {
        let mut taken = Vec::new();
        let mut frontier = BinaryHeap::from([Reverse((0, seed))]);
        while let Some(Reverse((_, run))) = frontier.pop() {
            let interval = self.intervals[run];
            let column = owner.at(interval.u, interval.v);
            if !free[run] || *column == layer {
                continue;
            }
            (free[run], *column) = (false, layer);
            if taken.len() % POLL == 0 {
                cancel.check()?;
            }
            taken.push(interval);
            for step in [[-1, 0], [0, -1], [0, 1], [1, 0]] {
                let mut next = self.latest.beside(&interval, step).unwrap_or(NONE);
                while let Some(other) = self.intervals.get(next as usize) {
                    if free[next as usize] && interval.overlaps(other) {
                        frontier.push(Reverse((interval.step_to(other), next as usize)));
                    }
                    next = self.earlier[next as usize];
                }
            }
        }
        Ok(taken)
    }
}
