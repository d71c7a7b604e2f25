//! The same numbers by two roads, and the ones that everybody knows.

use proptest::prelude::*;

use super::*;

const PAIRS: [Connectivity; 2] = [Connectivity::Faces, Connectivity::Corners];

fn solid(shape: Shape, holes: &[[usize; 3]]) -> Vec<u8> {
    let mut mask = vec![1; shape.iter().product()];
    for [z, y, x] in holes {
        mask[(z * shape[1] + y) * shape[2] + x] = 0;
    }
    mask
}

#[test]
fn ball_ring_and_shell() {
    // R29
    for connectivity in PAIRS {
        let betti = |mask: &[u8], shape| betti_numbers(mask, shape, connectivity, &Cancel::new()).unwrap();
        let numbers = |components, tunnels, cavities| BettiNumbers { components, tunnels, cavities };
        assert_eq!(betti(&[0; 27], [3, 3, 3]), numbers(0, 0, 0));
        assert_eq!(betti(&[1], [1, 1, 1]), numbers(1, 0, 0));
        assert_eq!(betti(&solid([1, 3, 64], &[[0, 1, 5]]), [1, 3, 64]), numbers(1, 1, 0));
        assert_eq!(betti(&solid([3, 3, 128], &[[1, 1, 63]]), [3, 3, 128]), numbers(1, 0, 1));
    }
}

#[test]
fn connectivity_18_has_no_dual() {
    for result in [
        euler_number(&[1], [1, 1, 1], Connectivity::Edges, &Cancel::new()).map(drop),
        betti_numbers(&[1], [1, 1, 1], Connectivity::Edges, &Cancel::new()).map(drop),
        component_topology(&[1], [1, 1, 1], Connectivity::Edges, &Cancel::new()).map(drop),
    ] {
        assert!(matches!(result, Err(Error::Argument { name: "connectivity", .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn components_add_up_to_the_whole(
        (mask, shape) in ([1usize..20, 1usize..8, 1usize..140], 1u8..8).prop_flat_map(|(shape, density)| {
            let voxel = (0u8..8).prop_map(move |value| u8::from(value < density));
            (prop::collection::vec(voxel, shape.iter().product::<usize>()), Just(shape))
        })
    ) { // R29
        let cancel = Cancel::new();
        for connectivity in PAIRS {
            let whole = betti_numbers(&mask, shape, connectivity, &cancel).unwrap();
            let each = component_topology(&mask, shape, connectivity, &cancel).unwrap();
            prop_assert_eq!(each.sizes.len() as u64, whole.components);
            prop_assert!(each.tunnels.iter().all(|&tunnels| tunnels >= 0));
            prop_assert_eq!(each.tunnels.iter().sum::<i64>(), whole.tunnels as i64);
            prop_assert_eq!(each.cavities.iter().sum::<i64>(), whole.cavities as i64);
            prop_assert_eq!(each.sizes.iter().sum::<i64>(), mask.iter().map(|&voxel| i64::from(voxel)).sum::<i64>());
        }
    }
}
