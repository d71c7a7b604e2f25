//! The kernels against slow, obvious ones.

use proptest::prelude::*;

use super::*;
use crate::Cancel;

const ALL: [Connectivity; 3] = [Connectivity::Faces, Connectivity::Edges, Connectivity::Corners];

/// Breadth-first labels, voxel by voxel.
fn flood(mask: &[u8], [nz, ny, nx]: Shape, connectivity: Connectivity) -> (Vec<u32>, u32) {
    let steps = match connectivity {
        Connectivity::Faces => 1,
        Connectivity::Edges => 2,
        Connectivity::Corners => 3,
    };
    let mut labels = vec![0; mask.len()];
    let mut count = 0;
    for seed in 0..mask.len() {
        if mask[seed] == 0 || labels[seed] != 0 {
            continue;
        }
        count += 1;
        labels[seed] = count;
        let mut queue = vec![seed];
        while let Some(at) = queue.pop() {
            let (z, y, x) = (at / (ny * nx), at / nx % ny, at % nx);
            for (dz, dy, dx) in (0..27).map(|i: isize| (i / 9 - 1, i / 3 % 3 - 1, i % 3 - 1)) {
                if dz.abs() + dy.abs() + dx.abs() > steps {
                    continue;
                }
                let inside = |at: usize, step, end: usize| at.checked_add_signed(step).filter(|&to| to < end);
                if let (Some(z), Some(y), Some(x)) = (inside(z, dz, nz), inside(y, dy, ny), inside(x, dx, nx)) {
                    let to = (z * ny + y) * nx + x;
                    if mask[to] != 0 && labels[to] == 0 {
                        labels[to] = count;
                        queue.push(to);
                    }
                }
            }
        }
    }
    (labels, count)
}

fn mask_and_shape() -> impl Strategy<Value = (Vec<u8>, Shape)> {
    // Up to 40 slices: two seams and more.
    ([1usize..40, 1usize..8, 1usize..70], 1u8..4).prop_flat_map(|(shape, density)| {
        let voxel = (0u8..4).prop_map(move |value| u8::from(value < density));
        (prop::collection::vec(voxel, shape.iter().product::<usize>()), Just(shape))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn labels_are_those_of_a_flood_fill((mask, shape) in mask_and_shape()) { // R29
        for connectivity in ALL {
            let ours = connected_components(&mask, shape, connectivity, &Cancel::new()).unwrap();
            prop_assert_eq!(ours, flood(&mask, shape, connectivity));
        }
    }

    #[test]
    fn dust_removes_exactly_the_small((mask, shape) in mask_and_shape(), min_voxels in 0u64..20) { // R29
        let (labels, count) = flood(&mask, shape, Connectivity::Edges);
        let size = |label: u32| labels.iter().filter(|&&other| other == label).count() as u64;
        let dust = remove_dust(&mask, shape, DustRule { min_voxels, ..DustRule::default() }, Connectivity::Edges, &Cancel::new()).unwrap();
        let keep: Vec<bool> = (0..=count).map(|label| label > 0 && size(label) >= min_voxels).collect();
        let expected: Vec<u8> = labels.iter().map(|&label| u8::from(keep[label as usize])).collect();
        prop_assert_eq!(dust.mask, expected);
        prop_assert_eq!(dust.n_components, count);
        prop_assert_eq!(dust.n_removed as usize, keep[1..].iter().filter(|&&kept| !kept).count());
    }
}

#[test]
fn the_portable_path_gives_the_same_bits() {
    let on = |portable| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .start_handler(move |_| super::wide::FORCE_PORTABLE.with(|force| force.set(portable)))
            .build()
            .unwrap();
        pool.install(|| {
            let (shape, cancel) = ([37, 21, 150], Cancel::new());
            let probability: Vec<f32> = (0..shape.iter().product::<usize>() as u32)
                .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 8) as f32 / (1 << 24) as f32)
                .collect();
            let mask: Vec<u8> = probability.iter().map(|&p| u8::from(p > 0.6)).collect();
            ALL.map(|connectivity| {
                let rule = DustRule { min_voxels: 3, ..DustRule::default() };
                (
                    connected_components(&mask, shape, connectivity, &cancel).unwrap(),
                    component_stats(&mask, shape, connectivity, &cancel).unwrap(),
                    remove_dust(&mask, shape, rule, connectivity, &cancel).unwrap().mask,
                    fill_holes(&mask, shape, connectivity, &cancel).unwrap().mask,
                    hysteresis(&probability, shape, 0.7, 0.99, connectivity, &cancel).unwrap().mask,
                )
            })
        })
    };
    assert_eq!(on(true), on(false));
}

#[test]
fn more_voxels_than_labels_can_count_are_refused() {
    // nothing of that size is ever allocated
    assert!(voxel_count("mask", [1 << 12, 1 << 10, 1 << 10]).is_err());
    assert!(voxel_count("mask", [usize::MAX, 2, 1]).is_err());
    assert!(voxel_count("mask", [0, 2, 1]).is_err());
    assert_eq!(voxel_count("mask", [1, 1, u32::MAX as usize]).unwrap(), u32::MAX as usize);
}

#[test]
fn a_slice_of_the_wrong_length_is_refused() {
    let cancel = Cancel::new();
    assert!(connected_components(&[1; 7], [2, 2, 2], Connectivity::Faces, &cancel).is_err());
    assert!(connected_components_multilabel(&[1u32; 7], [2, 2, 2], Connectivity::Faces, &cancel).is_err());
    assert!(fill_holes(&[1; 9], [2, 2, 2], Connectivity::Faces, &cancel).is_err());
    assert!(smooth_z(&[0.5; 7], [2, 2, 2], 1, &cancel).is_err());
    assert!(hysteresis(&[0.5; 9], [2, 2, 2], 0.1, 0.2, Connectivity::Faces, &cancel).is_err());
    assert!(probability_histogram(&[0.5; 8], Some(&[0; 7]), [2, 2, 2], 16, &cancel).is_err());
}

#[test]
fn a_set_token_stops_every_kernel() {
    let cancel = Cancel::new();
    cancel.cancel();
    let (mask, probability, shape) = (vec![1; 4096], vec![0.5; 4096], [16, 16, 16]);
    let connectivity = Connectivity::Corners;
    assert!(matches!(connected_components(&mask, shape, connectivity, &cancel), Err(Error::Cancelled)));
    assert!(matches!(
        remove_dust(&mask, shape, DustRule { min_voxels: 3, ..DustRule::default() }, connectivity, &cancel),
        Err(Error::Cancelled)
    ));
    assert!(matches!(fill_holes(&mask, shape, connectivity, &cancel), Err(Error::Cancelled)));
    assert!(matches!(component_stats(&mask, shape, connectivity, &cancel), Err(Error::Cancelled)));
    assert!(matches!(connected_components_multilabel(&mask, shape, connectivity, &cancel), Err(Error::Cancelled)));
    assert!(matches!(hysteresis(&probability, shape, 0.1, 0.2, connectivity, &cancel), Err(Error::Cancelled)));
    assert!(matches!(smooth_z(&probability, shape, 1, &cancel), Err(Error::Cancelled)));
    assert!(matches!(probability_histogram(&probability, None, shape, 16, &cancel), Err(Error::Cancelled)));
}
