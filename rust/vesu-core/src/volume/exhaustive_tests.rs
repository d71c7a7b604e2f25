//! Every small mask: many of them in one volume, background between them, against a flood fill in the bits of each.

use rayon::prelude::*;

use super::*;
use crate::Cancel;

const ALL: [Connectivity; 3] = [Connectivity::Faces, Connectivity::Edges, Connectivity::Corners];
/// Voxels of a mask, and of the cell it lies in: 5 along each axis, so that slabs of 16 slices, blocks of 2 x 2 rows and
/// words of 64 voxels are cut at every place of a mask.
const SIDE: usize = 3;
const CELL: usize = 5;
/// Masks along each axis of one volume.
const MASKS: [usize; 3] = [16, 32, 64];
const BATCH: usize = MASKS[0] * MASKS[1] * MASKS[2];
const SHAPE: Shape = [CELL * MASKS[0], CELL * MASKS[1], CELL * MASKS[2]];

/// For each voxel of a mask, its neighbours as bits.
fn neighbours(connectivity: Connectivity) -> [u32; 27] {
    let steps = match connectivity {
        Connectivity::Faces => 1,
        Connectivity::Edges => 2,
        Connectivity::Corners => 3,
    };
    let place = |i: usize| [i / 9, i / 3 % 3, i % 3];
    std::array::from_fn(|i| {
        let near = |j: &usize| {
            let apart = [0, 1, 2].map(|axis| place(i)[axis].abs_diff(place(*j)[axis]));
            apart.iter().all(|&distance| distance <= 1) && apart.iter().sum::<usize>() <= steps
        };
        (0..27).filter(near).fold(0, |bits, j| bits | 1 << j)
    })
}

/// The components of a mask of 27 bits, as bits.
fn flood(mask: u32, neighbours: &[u32; 27]) -> Vec<u32> {
    let (mut rest, mut components) = (mask, Vec::new());
    while rest != 0 {
        let (mut component, mut front) = (0, rest & rest.wrapping_neg());
        while front != 0 {
            component |= front;
            let mut reached = 0;
            for i in (0..27).filter(|i| front >> i & 1 == 1) {
                reached |= neighbours[i];
            }
            front = reached & mask & !component;
        }
        components.push(component);
        rest &= !component;
    }
    components
}

/// Where voxel `i` of mask `k` of a batch lies.
fn place(k: usize, i: usize) -> usize {
    let cell = [k / (MASKS[1] * MASKS[2]), k / MASKS[2] % MASKS[1], k % MASKS[2]];
    let [z, y, x] = [cell[0] * CELL + i / 9, cell[1] * CELL + i / SIDE % SIDE, cell[2] * CELL + i % SIDE];
    (z * SHAPE[1] + y) * SHAPE[2] + x
}

/// Labels, dust and cavities of all `masks`, at most a batch of them.
fn check(masks: &[u32], connectivity: Connectivity) {
    let (cancel, near) = (Cancel::new(), neighbours(connectivity));
    let mut volume = vec![0u8; SHAPE.iter().product()];
    for (k, &mask) in masks.iter().enumerate() {
        for i in 0..27 {
            volume[place(k, i)] = (mask >> i & 1) as u8;
        }
    }
    let (labels, n) = connected_components(&volume, SHAPE, connectivity, &cancel).unwrap();
    let rule = DustRule { min_voxels: 4, ..DustRule::default() };
    let dust = remove_dust(&volume, SHAPE, rule, connectivity, &cancel).unwrap();
    let filled = fill_holes(&volume, SHAPE, connectivity, &cancel).unwrap();
    // One pass in C order: labels appear as 1, 2, 3, ...
    let appeared = labels.iter().fold(0, |seen, &label| {
        assert!(label <= seen + 1, "label {label} appears after {seen}");
        seen.max(label)
    });
    assert_eq!(appeared, n);
    let (mut total, mut removed) = (0, 0);
    for (k, &mask) in masks.iter().enumerate() {
        let components = flood(mask, &near);
        total += components.len() as u32;
        removed += components.iter().filter(|component| component.count_ones() < 4).count() as u32;
        // Only the middle of a mask can be closed in.
        let closed = mask >> 13 & 1 == 0 && (near[13] & !mask) == 1 << 13;
        let mut of_component = vec![0; components.len()];
        for i in 0..27 {
            let at = place(k, i);
            let Some(c) = components.iter().position(|component| component >> i & 1 == 1) else {
                assert_eq!((labels[at], dust.mask[at]), (0, 0), "mask {mask:#x}");
                assert_eq!(filled.mask[at] == 1, closed && i == 13, "mask {mask:#x}");
                continue;
            };
            assert!(labels[at] != 0 && (of_component[c] == 0 || of_component[c] == labels[at]), "mask {mask:#x}");
            of_component[c] = labels[at];
            assert_eq!(dust.mask[at] == 1, components[c].count_ones() >= 4, "mask {mask:#x}");
            assert_eq!(filled.mask[at], 1, "mask {mask:#x}");
        }
        // Labels that differ within each mask and are as many as all components: no two masks share one.
        of_component.sort_unstable();
        assert!(of_component.windows(2).all(|pair| pair[0] != pair[1]), "mask {mask:#x}");
    }
    assert_eq!((n, dust.n_components, dust.n_removed), (total, total, removed));
}

fn check_all(count: usize, mask: impl Fn(usize) -> u32 + Sync) {
    for connectivity in ALL {
        (0..count.div_ceil(BATCH)).into_par_iter().for_each(|batch| {
            let masks: Vec<u32> = (batch * BATCH..count.min((batch + 1) * BATCH)).map(&mask).collect();
            check(&masks, connectivity);
        });
    }
}

#[test]
fn every_mask_of_3x3x2_in_each_orientation() {
    // R29
    for axis in 0..3 {
        let inside: Vec<u32> = (0..27).filter(|i| [i / 9, i / 3 % 3, i % 3][axis] < 2).collect();
        check_all(1 << 18, |bits| inside.iter().enumerate().fold(0, |mask, (k, i)| mask | (bits as u32 >> k & 1) << i));
    }
}

/// Every 32nd, at odd steps through all 27 bits.
#[test]
fn a_thirty_second_of_the_masks_of_3x3x3() {
    // R29
    check_all(1 << 22, |k| (k as u32).wrapping_mul(0x9e37_79b1) & ((1 << 27) - 1));
}

#[test]
#[ignore = "all 2^27: minutes; `make exhaustive` runs it"]
fn every_mask_of_3x3x3() {
    // R29
    check_all(1 << 27, |bits| bits as u32);
}
