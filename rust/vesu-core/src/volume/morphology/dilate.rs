//! Dilation of a volume on any lattice, tile by tile.
//!
//! A tile is some slices by some rows. Its rows and those around that the element reaches are copied, widened ring by
//! ring, and after each widening joined into the output at the ring's offsets: whole stretches of memory, whatever the
//! length of a row.

use std::borrow::Cow;

use rayon::prelude::*;

use super::super::{SLAB_SLICES, Shape};
use super::element::{Element, Span};
use super::lattice::{Lattice, Padded};
use crate::pages::zeroed;
use crate::{Cancel, Result};

/// Bytes that a tile with its surroundings should keep within: about a second-level cache.
const TILE_BYTES: usize = 256 << 10;

/// Fewest rows of a tile, however far the element reaches.
const FEWEST_ROWS: usize = 8;

/// `from` dilated by `elements`, one after another. Each result replaces the one before, so that beside a borrowed
/// `from` two volumes at most are held.
pub fn dilate<L: Lattice>(
    mut from: Cow<'_, [L::Cell]>,
    shape: Shape,
    elements: &[Element],
    cancel: &Cancel,
) -> Result<Vec<L::Cell>> {
    for element in elements {
        from = Cow::Owned(pass::<L>(&from, shape, element, cancel)?);
    }
    Ok(from.into_owned())
}

fn pass<L: Lattice>(from: &[L::Cell], shape: Shape, element: &Element, cancel: &Cancel) -> Result<Vec<L::Cell>> {
    let tiling = Tiling::new::<L>(shape, element);
    let mut out = zeroed("the dilated volume", from.len())?;
    out.par_chunks_mut(tiling.slices * tiling.slice_length())
        .enumerate()
        .try_for_each(|(slab, out)| tiling.dilate_slab::<L>(from, out, slab * tiling.slices, element, cancel))?;
    Ok(out)
}

struct Tiling {
    shape: Shape,
    /// Cells of a row.
    row: usize,
    /// Slices and rows of a tile.
    slices: usize,
    rows: usize,
    /// How far the element reaches along z and y.
    reach: (usize, usize),
}

impl Tiling {
    /// Tiles grow with the element, or the copying of their surroundings would outweigh the work.
    fn new<L: Lattice>(shape: Shape, element: &Element) -> Self {
        let (reach, row) = (element.reach(), L::cells(shape[2]));
        let slices = SLAB_SLICES.max(reach.0 / 2);
        let fitting = TILE_BYTES / (row * size_of::<L::Cell>()) / (slices + 2 * reach.0);
        let rows = fitting.saturating_sub(2 * reach.1).max(FEWEST_ROWS).max(reach.1 / 2);
        Self { shape, row, slices, rows: rows.min(shape[1]), reach }
    }

    fn slice_length(&self) -> usize {
        self.shape[1] * self.row
    }

    /// Fill whole slices, the first of which is `first`.
    fn dilate_slab<L: Lattice>(
        &self,
        from: &[L::Cell],
        out: &mut [L::Cell],
        first: usize,
        element: &Element,
        cancel: &Cancel,
    ) -> Result<()> {
        let [nz, ny, nx] = self.shape;
        let slices = out.len() / self.slice_length();
        let around_z = (first.saturating_sub(self.reach.0), (first + slices + self.reach.0).min(nz));
        let most_rows = (self.rows + 2 * self.reach.1).min(ny);
        let mut copy = zeroed("a tile", (around_z.1 - around_z.0) * most_rows * self.row)?;
        let widest = element.rings.iter().map(|ring| ring.width).max().unwrap_or(0);
        let mut padded = Padded::<L>::new(nx, widest)?;
        for y in (0..ny).step_by(self.rows) {
            let rows = (y, (y + self.rows).min(ny));
            let around_y = (y.saturating_sub(self.reach.1), (rows.1 + self.reach.1).min(ny));
            let tile = Tile { row: self.row, rows, around_z, around_y };
            let copy = &mut copy[..(around_z.1 - around_z.0) * tile.plane()];
            for (z, plane) in (around_z.0..).zip(copy.chunks_exact_mut(tile.plane())) {
                cancel.check()?;
                plane.copy_from_slice(&from[(z * ny + around_y.0) * self.row..][..plane.len()]);
            }
            let mut width = 0;
            for (i, ring) in element.rings.iter().enumerate() {
                padded.widen(copy, nx, width, ring.width, cancel)?;
                width = ring.width;
                for (z, slice) in out.chunks_exact_mut(self.slice_length()).enumerate() {
                    let target = &mut slice[rows.0 * self.row..rows.1 * self.row];
                    if i == 0 {
                        target.fill(L::BOTTOM);
                    }
                    for span in &ring.spans {
                        cancel.check()?;
                        tile.join_span::<L>(target, first + z, copy, span, cancel)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rows `rows` of some slices, and the copy of what lies around: half-open ranges.
struct Tile {
    row: usize,
    rows: (usize, usize),
    around_z: (usize, usize),
    around_y: (usize, usize),
}

impl Tile {
    /// Cells that the copy has of one slice.
    fn plane(&self) -> usize {
        (self.around_y.1 - self.around_y.0) * self.row
    }

    /// Join into `target`, the tile's rows of slice `z`, the copied rows at all offsets of `span`.
    fn join_span<L: Lattice>(
        &self,
        target: &mut [L::Cell],
        z: usize,
        copy: &[L::Cell],
        span: &Span,
        cancel: &Cancel,
    ) -> Result<()> {
        let below = z.checked_sub(span.dz);
        let above = Some(z + span.dz).filter(|_| span.dz > 0);
        for z in [below, above].into_iter().flatten() {
            if !(self.around_z.0..self.around_z.1).contains(&z) {
                continue;
            }
            let plane = &copy[(z - self.around_z.0) * self.plane()..][..self.plane()];
            for dy in span.from..=span.to {
                cancel.check()?;
                self.join_rows::<L>(target, plane, dy as isize);
                if dy > 0 {
                    self.join_rows::<L>(target, plane, -(dy as isize));
                }
            }
        }
        Ok(())
    }

    fn join_rows<L: Lattice>(&self, target: &mut [L::Cell], plane: &[L::Cell], dy: isize) {
        let inside = |y: usize| y.saturating_add_signed(dy).clamp(self.around_y.0, self.around_y.1);
        let (start, end) = (inside(self.rows.0), inside(self.rows.1));
        if start >= end {
            return;
        }
        let source = &plane[(start - self.around_y.0) * self.row..(end - self.around_y.0) * self.row];
        let skipped = start.saturating_add_signed(-dy) - self.rows.0;
        L::join(&mut target[skipped * self.row..][..source.len()], source);
    }
}
