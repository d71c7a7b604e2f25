//! Topology of every component by itself.
//!
//! One pass in C order: the Euler number of a component is the sum, over its voxels, of the change that a voxel makes
//! when it joins its earlier neighbours. That change depends on 13 neighbours only and comes from a table.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};

use rayon::prelude::*;

use super::bits::{Bits, three};
use super::{background, check_connectivity};
use crate::volume::components::Components;
use crate::volume::{Connectivity, SLAB_SLICES, Shape, painting};
use crate::{Cancel, Result};

/// Earlier neighbours of a voxel in C order: nine in the slice before, three in the row before, one in its own row.
const EARLIER: u32 = 13;

/// One entry a component, in the order of [`connected_components`](crate::volume::connected_components)' labels.
pub struct ComponentTopology {
    /// Voxels.
    pub sizes: Vec<i64>,
    pub tunnels: Vec<i64>,
    pub cavities: Vec<i64>,
}

/// Size, tunnels and cavities of each component by itself, as if it were alone in the volume.
///
/// Betti numbers add up over components, so the sums are those of the whole mask.
pub fn component_topology(
    mask: &[u8],
    shape: Shape,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<ComponentTopology> {
    check_connectivity(connectivity)?;
    let doors = cavity_doors(mask, shape, connectivity, cancel)?;
    let mut components = Components::of_mask(mask, shape, connectivity, cancel)?;
    components.number_by_appearance(cancel)?;
    let sizes: Vec<i64> = components.sizes(cancel)?.into_iter().map(i64::from).collect();
    let labels = painting::labels(&components, cancel)?;
    drop(components);
    let euler = euler_by_label(&Bits::of_mask(mask, shape, cancel)?, &labels, sizes.len(), connectivity, cancel)?;
    let mut cavities = vec![0; sizes.len()];
    for door in doors {
        cavities[labels[door] as usize - 1] += 1;
    }
    let tunnels = cavities.iter().zip(&euler).map(|(&cavities, &euler)| 1 + cavities - euler).collect();
    Ok(ComponentTopology { sizes, tunnels, cavities })
}

/// For each cavity, a voxel of the component that encloses it.
///
/// That is the one just before, along z, the cavity's first voxel in C order: whatever floats inside a cavity has the
/// cavity all around it and therefore begins at a later slice.
fn cavity_doors(mask: &[u8], shape: Shape, connectivity: Connectivity, cancel: &Cancel) -> Result<Vec<usize>> {
    let (components, open) = background(mask, shape, connectivity, cancel)?;
    if open.iter().all(|&open| open) {
        return Ok(Vec::new());
    }
    let labels = painting::labels(&components, cancel)?;
    drop(components);
    let slice = shape[1] * shape[2];
    let mut met = open; // what is open needs no door
    let mut doors = Vec::new();
    for (row, labels) in labels.chunks(shape[2]).enumerate() {
        cancel.check()?;
        for (x, &label) in labels.iter().enumerate() {
            if label != 0 && !met[label as usize - 1] {
                met[label as usize - 1] = true;
                doors.push(row * shape[2] + x - slice);
            }
        }
    }
    Ok(doors)
}

fn euler_by_label(
    bits: &Bits,
    labels: &[u32],
    count: usize,
    connectivity: Connectivity,
    cancel: &Cancel,
) -> Result<Vec<i64>> {
    let [_, ny, nx] = bits.shape;
    let table = if connectivity == Connectivity::Faces { &*CHANGE_6 } else { &*CHANGE_26 };
    // Integer sums do not depend on the order of their terms.
    let euler: Vec<AtomicI64> = (0..count).map(|_| AtomicI64::new(0)).collect();
    labels.par_chunks(SLAB_SLICES * ny * nx).enumerate().try_for_each(|(slab, labels)| {
        // A component's voxels come in long stretches: one atomic addition for each.
        let (mut current, mut sum) = (0, 0);
        for (row, labels) in labels.chunks_exact(nx).enumerate() {
            cancel.check()?;
            let (z, y) = (slab * SLAB_SLICES + row / ny, row % ny);
            let earlier = EarlierRows::of(bits, z, y);
            for (x, &label) in labels.iter().enumerate().filter(|&(_, &label)| label != 0) {
                if label != current {
                    flush(&euler, current, sum);
                    (current, sum) = (label, 0);
                }
                sum += i64::from(table[earlier.around(x)]);
            }
        }
        flush(&euler, current, sum);
        Ok(())
    })?;
    Ok(euler.into_iter().map(AtomicI64::into_inner).collect())
}

fn flush(euler: &[AtomicI64], label: u32, sum: i64) {
    if label != 0 {
        euler[label as usize - 1].fetch_add(sum, Ordering::Relaxed);
    }
}

/// The rows that hold a voxel's earlier neighbours, in C order; the last is its own.
struct EarlierRows<'b>([&'b [u64]; 5]);

impl<'b> EarlierRows<'b> {
    fn of(bits: &'b Bits, z: usize, y: usize) -> Self {
        let (before, above) = (z.checked_sub(1), y.checked_sub(1));
        Self([
            bits.row(before, above),
            bits.row(before, Some(y)),
            bits.row(before, Some(y + 1)),
            bits.row(Some(z), above),
            bits.row(Some(z), Some(y)),
        ])
    }

    /// The 13 bits around voxel x, in C order from bit 0.
    #[inline]
    fn around(&self, x: usize) -> usize {
        let [a, b, c, d, own] = self.0;
        three(a, x) | three(b, x) << 3 | three(c, x) << 6 | three(d, x) << 9 | (three(own, x) & 1) << 12
    }
}

static CHANGE_6: LazyLock<Vec<i8>> = LazyLock::new(|| changes(Connectivity::Faces));
static CHANGE_26: LazyLock<Vec<i8>> = LazyLock::new(|| changes(Connectivity::Corners));

/// Change of the Euler number when a voxel joins each of the 2^13 sets of earlier neighbours.
fn changes(connectivity: Connectivity) -> Vec<i8> {
    (0..1u32 << EARLIER)
        .map(|earlier| cells_of_a_voxel().map(|cell| cell.change(earlier, connectivity)).sum())
        .collect()
}

/// A box of one or two voxels an axis that holds the voxel: by its other voxels, as places in the 3x3x3 neighbourhood.
struct Cell {
    /// Earlier voxels as bits, the earliest bit 0.
    earlier: u32,
    has_later: bool,
    long_axes: u32,
}

fn cells_of_a_voxel() -> impl Iterator<Item = Cell> {
    // Along each axis: the voxel alone, with the one before, with the one after.
    const EXTENTS: [&[usize]; 3] = [&[1], &[0, 1], &[1, 2]];
    (0..27).map(|choice| {
        let [z, y, x] = [choice / 9, choice / 3 % 3, choice % 3].map(|choice: usize| EXTENTS[choice]);
        let mut cell = Cell { earlier: 0, has_later: false, long_axes: 0 };
        cell.long_axes = [z, y, x].iter().filter(|extent| extent.len() == 2).count() as u32;
        for (&z, &y, &x) in z.iter().flat_map(|z| y.iter().flat_map(move |y| x.iter().map(move |x| (z, y, x)))) {
            let place = (9 * z + 3 * y + x) as u32;
            match place.cmp(&EARLIER) {
                std::cmp::Ordering::Less => cell.earlier |= 1 << place,
                std::cmp::Ordering::Equal => {} // the voxel itself
                std::cmp::Ordering::Greater => cell.has_later = true,
            }
        }
        cell
    })
}

impl Cell {
    fn change(&self, earlier: u32, connectivity: Connectivity) -> i8 {
        if connectivity == Connectivity::Faces {
            // A full box of 2^k voxels is a cell of dimension k; the voxel is the last to join.
            let complete = !self.has_later && earlier & self.earlier == self.earlier;
            if complete { sign(self.long_axes) } else { 0 }
        } else {
            // The box is what touches a cell of dimension 3 - k of the closed cube; it is new if nothing touched it yet.
            if earlier & self.earlier == 0 { sign(3 - self.long_axes) } else { 0 }
        }
    }
}

fn sign(dimension: u32) -> i8 {
    if dimension.is_multiple_of(2) { 1 } else { -1 }
}
