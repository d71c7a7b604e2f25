use super::*;

const NX46: Scorer = Scorer::Nx46(Nx46 { blend_3d: 0.78, radius: 2 });
const NX47: Scorer = Scorer::Nx47(Nx47 {
    sigma_base: 0.4,
    sigma_gain: 0.9,
    percentile_base: 88.0,
    percentile_gain: 6.0,
    percentile_max: 96.0,
    percentile_gap: 6.0,
    percentile_floor: 80.0,
});

fn volume(shape: Shape) -> Vec<u8> {
    (0..shape.iter().product::<usize>()).map(|i| ((i * i + 37 * i) % 251) as u8).collect()
}

#[test]
fn a_step_across_z_is_scored_where_it_is() {
    let shape = [6, 1, 2];
    let volume: Vec<u8> = [0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255].to_vec();
    let alone = Scorer::Nx46(Nx46 { blend_3d: 1.0, radius: 0 });
    let score = alone.score(&volume, shape, &Cancel::new()).unwrap();
    // Slice 2: second difference alone; slice 3: first and second difference.
    let expected = [0.0, 0.0, 0.10, 0.34 + 0.10, 0.0, 0.0];
    for (z, expected) in expected.into_iter().enumerate() {
        assert!((score[2 * z] - expected).abs() < 1e-6, "{z}: {score:?}");
    }
    let projected = Scorer::Nx46(Nx46 { blend_3d: 0.0, radius: 0 }).score(&volume, shape, &Cancel::new()).unwrap();
    assert!(projected.iter().all(|value| (value - 0.45 / 6.0).abs() < 1e-6));
}

#[test]
fn no_contrast_no_surface() {
    for scorer in [NX46, NX47] {
        for shape in [[1, 1, 1], [3, 4, 5]] {
            let flat = vec![0.25f32; shape.iter().product()];
            assert!(scorer.score(&flat, shape, &Cancel::new()).unwrap().iter().all(|&value| value == 0.0));
        }
    }
}

#[test]
fn threads_do_not_show() {
    let shape = [40, 9, 70];
    let values = volume(shape);
    for scorer in [NX46, NX47] {
        let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap());
        let [one, three] = pools.map(|pool| pool.install(|| scorer.score(&values, shape, &Cancel::new()).unwrap()));
        assert!(one.iter().zip(&three).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(one.iter().any(|&value| value > 0.0));
    }
}

#[test]
fn refusals() {
    let (shape, cancelled) = ([4, 5, 6], Cancel::new());
    let values = volume(shape);
    cancelled.cancel();
    for scorer in [NX46, NX47] {
        assert!(matches!(scorer.score(&values, shape, &cancelled), Err(Error::Cancelled)));
        assert!(scorer.score(&values[1..], shape, &Cancel::new()).is_err());
        assert!(
            scorer.score(&[f32::NAN, 1.0], [1, 1, 2], &Cancel::new()).unwrap_err().to_string().contains("non-finite")
        );
    }
    let bad = [
        Scorer::Nx46(Nx46 { blend_3d: 1.5, radius: 1 }),
        Scorer::Nx46(Nx46 { blend_3d: f64::NAN, radius: 1 }),
        Scorer::Nx46(Nx46 { blend_3d: 0.5, radius: usize::MAX }),
    ];
    for scorer in bad {
        assert!(matches!(scorer.score(&values, shape, &Cancel::new()), Err(Error::Argument { .. })));
    }
}
