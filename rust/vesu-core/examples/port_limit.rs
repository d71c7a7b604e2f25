//! How near the search kernel comes to what the processor's arithmetic ports allow, on one thread.
//!
//! Counted per vector of candidates and sample, for P coefficients and an intercept (see `prox::datafit` and
//! `prox::kernel`): the margin takes P + 1 fused multiply-adds and the gradient as many; beyond them, on the
//! multiply-add ports,
//!
//! - 2^-|m|: 5 fused multiply-adds and a square;
//! - log2(1 + e): 6 and a square, and one that adds max(m, 0);
//! - sigmoid: 1 division;
//! - weights: 1 product with the residual, 1 fused multiply-add to the loss.
//!
//! That is 2 (P + 1) + 17. The other operations (4 additions, 2 maxima, 1 or, 1 shift, 1 integer addition, 1 blend) have
//! ports of their own on AMD's cores; where all vector arithmetic shares two ports, as with Intel's 512-bit vectors,
//! they count too: 2 (P + 1) + 27.
//!
//! Run with `cargo run --release --example port_limit`.

use std::hint::black_box;
use std::time::Instant;

use vesu_core::Cancel;
use vesu_core::prox::{Design, Grid, Isa, Method, Settings, Solver, Standardisation};

const SAMPLES: usize = 60_000;
const SIGMOID: usize = 17;
const SIGMOID_ALL_PORTS: usize = 27;

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    println!("one thread, {SAMPLES} samples x 135 candidates, no bootstrap: every sample counts for every candidate");
    println!("path     columns  ns/cell  share of the multiply-add ports  share of two ports for all");
    for isa in Isa::supported() {
        for n_features in [6, 16, 32] {
            // The smallest of several turns, the two measured in alternation: a shared machine changes its speed.
            let (mut fma, mut cell) = (f64::INFINITY, f64::INFINITY);
            let mut kernel = Kernel::new(isa, n_features);
            for _ in 0..5 {
                fma = fma.min(fma_seconds(isa));
                cell = cell.min(pool.install(|| kernel.seconds()));
            }
            let rows = 2 * (3 * n_features + 1);
            let share = |count: usize| 100.0 * count as f64 * fma / (isa.lanes() as f64 * cell);
            println!(
                "{:8} {:7}  {:7.3}  {:30.0} %  {:24.0} %",
                isa.name(),
                3 * n_features,
                cell * 1e9,
                share(rows + SIGMOID),
                share(rows + SIGMOID_ALL_PORTS)
            );
        }
    }
}

struct Kernel {
    x: Vec<f32>,
    gradient: Vec<f32>,
    labels: Vec<u8>,
    standard: Standardisation,
    solver: Solver,
}

impl Kernel {
    fn new(isa: Isa, n_features: usize) -> Self {
        let uniform =
            |i: usize| ((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32;
        let x: Vec<f32> = (0..SAMPLES * n_features).map(|i| 4.0 * uniform(i) - 2.0).collect();
        let gradient = (0..SAMPLES * n_features).map(|i| uniform(i + 7_000_000)).collect();
        let labels = (0..SAMPLES).map(|i| u8::from(x[i * n_features] > 0.0)).collect();
        let standard = Standardisation::new(vec![0.0; n_features], vec![1.0; n_features]).expect("unit scale");
        let grid = Grid::new(9, vec![1e-4, 3e-4, 1e-3, 3e-3, 1e-2], vec![1e-4, 1e-3, 1e-2]).expect("the default grid");
        let settings = Settings {
            learning_rate: 0.01,
            seed: 0,
            init_scale: 0.01,
            bootstrap: false,
            class_weight: [1.0, 1.0],
            method: Method::Ista,
            tol: 1e-6,
        };
        let solver = Solver::new(grid, settings, 3 * n_features, isa).expect("a solver");
        Self { x, gradient, labels, standard, solver }
    }

    /// Of one sample, candidate and iteration.
    fn seconds(&mut self) -> f64 {
        let design =
            Design::new(&self.x, Some(&self.gradient), Some(&self.labels), &self.standard).expect("a labelled design");
        let start = Instant::now();
        self.solver.step(&design, &Cancel::new()).expect("a step");
        start.elapsed().as_secs_f64() / (SAMPLES * 135) as f64
    }
}

/// Throughput of the path's fused multiply-add (of a product and a sum where it has none), per vector.
fn fma_seconds(isa: Isa) -> f64 {
    const TURNS: usize = 3_000_000;
    let start = Instant::now();
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::supported` gave the path.
        Isa::Avx2 => unsafe { x86::avx2(black_box(TURNS)) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => unsafe { x86::avx512(black_box(TURNS)) },
        _ => portable(black_box(TURNS)),
    }
    start.elapsed().as_secs_f64() / (TURNS * CHAINS) as f64
}

/// Independent chains: enough to hide the latency, few enough for sixteen registers.
const CHAINS: usize = 12;

fn portable(turns: usize) {
    let (mut sums, factor) = ([[0.5f32; 4]; CHAINS], black_box(0.999f32));
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = sum.map(|value| value * factor + factor);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::CHAINS;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(turns: usize) {
        let (mut sums, factor) = ([_mm256_set1_ps(0.5); CHAINS], _mm256_set1_ps(black_box(0.999)));
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(turns: usize) {
        let (mut sums, factor) = ([_mm512_set1_ps(0.5); CHAINS], _mm512_set1_ps(black_box(0.999)));
        for _ in 0..turns {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
}
