//! The parts together: thread counts, instruction sets, resumption, cancellation.

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::*;
use crate::{Cancel, Error};

struct Samples {
    x: Vec<f32>,
    gradient: Vec<f32>,
    labels: Vec<u8>,
    standard: Standardisation,
}

/// A cheap stand-in for data: a hash to uniform numbers, labels that depend on the first feature.
fn samples(n: usize, n_features: usize) -> Samples {
    let uniform = |i: usize| {
        let z = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z >> 40) as f32 / (1u64 << 24) as f32
    };
    let x: Vec<f32> = (0..n * n_features).map(|i| 3.0 + 2.0 * uniform(i)).collect();
    let gradient = (0..n * n_features).map(|i| uniform(i + 7_000_000)).collect();
    let labels = (0..n).map(|i| u8::from(x[i * n_features] + 0.5 * uniform(i + 90_000_000) > 4.2)).collect();
    let standard = Standardisation::of(&x, n_features, &Cancel::new()).unwrap();
    Samples { x, gradient, labels, standard }
}

impl Samples {
    fn design(&self) -> Design<'_> {
        Design::new(&self.x, Some(&self.gradient), Some(&self.labels), &self.standard).unwrap()
    }
}

fn settings() -> Settings {
    Settings {
        method: Method::Ista,
        learning_rate: 0.08,
        seed: 1,
        init_scale: 0.01,
        bootstrap: true,
        class_weight: [1.0, 1.0],
        tol: 1e-6,
    }
}

fn solver(neurons: usize, n_coefficients: usize, isa: Isa) -> Solver {
    let grid = Grid::new(neurons, vec![1e-4, 1e-3, 1e-2], vec![1e-4, 1e-2]).unwrap();
    Solver::new(grid, settings(), n_coefficients, isa).unwrap()
}

fn run(data: &Samples, neurons: usize, isa: Isa, iterations: usize, threads: usize) -> Solver {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut solver = solver(neurons, data.design().n_coefficients(), isa);
        for _ in 0..iterations {
            solver.step(&data.design(), &Cancel::new()).unwrap();
        }
        solver
    })
}

fn supported() -> impl Iterator<Item = Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_supported())
}

#[test]
fn bits_do_not_depend_on_threads() {
    let data = samples(20_011, 3);
    for isa in supported() {
        let one = run(&data, 5, isa, 4, 1);
        for threads in [2, 3, 8] {
            assert_eq!(run(&data, 5, isa, 4, threads).state(), one.state(), "{isa:?} {threads}");
        }
    }
}

#[test]
fn instruction_sets_agree() {
    let data = samples(5_003, 5);
    let runs: Vec<Solver> = supported().map(|isa| run(&data, 5, isa, 30, 2)).collect();
    for other in &runs[1..] {
        for (a, b) in runs[0].params().iter().zip(other.params()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
        if other.isa() == Isa::Avx512 {
            assert_eq!(other.params(), runs[1].params(), "AVX-512 and AVX2 give the same bits");
        }
    }
}

/// The same objective without lanes, blocks or polynomials.
fn plain_objective(data: &Samples, solver: &Solver, weights: &[f32], candidate: usize) -> f64 {
    let width = data.design().n_coefficients() + 1;
    let params = &solver.params()[candidate * width..][..width];
    let mut row = vec![0.0; width];
    let mut total = 0.0;
    for i in 0..data.labels.len() {
        data.design().fill_rows(i, 1, &mut row);
        let margin: f64 = row.iter().zip(params).map(|(f, t)| f64::from(*f) * t).sum();
        total += f64::from(weights[i]) * margin.exp().ln_1p();
    }
    total / data.labels.len() as f64 + solver.grid().penalty(candidate).value(&params[..width - 1])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any feature count, neuron count and sample count, each instruction set: objective and one gradient step.
    #[test]
    fn a_step_descends_the_plain_objective(n in 1usize..700, n_features in 1usize..20, neurons in 1usize..12) {
        let data = samples(n, n_features);
        for isa in supported() {
            let mut solver = solver(neurons, data.design().n_coefficients(), isa);
            let before = solver.clone();
            let stats = solver.step(&data.design(), &Cancel::new()).unwrap();
            for candidate in [0, solver.grid().len() / 2, solver.grid().len() - 1] {
                let mut weights = vec![0.0; n * neurons];
                let bootstrap = bootstrap::Bootstrap::new(1, neurons);
                bootstrap.fill(0, n, &mut weights, neurons, &mut Vec::new());
                let neuron = solver.grid().neuron(candidate);
                let own: Vec<f32> = weights.iter().skip(neuron).step_by(neurons).copied().collect();
                let loss = plain_objective(&data, &before, &own, candidate);
                prop_assert!((stats.loss[candidate] - loss).abs() < 2e-6 * loss.max(1.0), "{} {loss}", stats.loss[candidate]);
                prop_assert!(plain_objective(&data, &solver, &own, candidate) <= loss + 1e-9 || n < 40);
            }
        }
    }
}

#[test]
fn a_resumed_run_gives_the_same_bits() {
    let data = samples(1_000, 4);
    let isa = Isa::choose(None).unwrap();
    let whole = run(&data, 3, isa, 12, 2);
    for split in [0, 1, 5, 11] {
        let mut second = solver(3, data.design().n_coefficients(), isa);
        second.set_state(run(&data, 3, isa, split, 1).state().clone()).unwrap();
        while second.iteration() < 12 {
            second.step(&data.design(), &Cancel::new()).unwrap();
        }
        assert_eq!(second.params(), whole.params());
    }
}

#[test]
fn a_cancelled_step_leaves_the_state() {
    let data = samples(1_000, 2);
    let mut solver = run(&data, 2, Isa::Portable, 2, 1);
    let before = solver.state().clone();
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(solver.step(&data.design(), &cancel), Err(Error::Cancelled)));
    assert_eq!(solver.state(), &before);
}

#[test]
fn a_huge_step_diverges_without_nan() {
    let data = samples(2_000, 3);
    for learning_rate in [1e4, 1e300] {
        let grid = Grid::new(2, vec![1e-3], vec![1e-2]).unwrap();
        let settings = Settings { learning_rate, ..settings() };
        let mut solver = Solver::new(grid, settings, 9, Isa::Portable).unwrap();
        for _ in 0..20 {
            solver.step(&data.design(), &Cancel::new()).unwrap();
        }
        assert!(solver.state().diverged.iter().all(|&diverged| diverged));
        assert!(solver.params().iter().all(|value| value.is_finite()));
    }
}

#[test]
fn too_large_a_search_is_refused_before_allocating() {
    let grid = Grid::new(1000, vec![1e-3; 1000], vec![1e-3]).unwrap();
    assert!(matches!(Solver::new(grid, settings(), 192, Isa::Portable), Err(Error::Memory { .. })));
}
