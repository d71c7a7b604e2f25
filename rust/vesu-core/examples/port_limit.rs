//! How near the search kernel comes to what the processor's arithmetic ports allow, on one thread.
//!
//! Counted per vector of candidates and sample, for P coefficients and an intercept (see `prox::datafit` and
//! `prox::kernel`): the margin takes P + 1 fused multiply-adds and the gradient as many; beyond them, on the ports of the
//! multiply-add,
//!
//! - 2^-|m|: 5 fused multiply-adds and a square;
//! - log2(1 + e): 6 and a square, and one that adds max(m, 0);
//! - sigmoid: a blend, and a division, which holds its port for as long as is measured here;
//! - weights: a product with the residual, a fused multiply-add to the loss.
//!
//! That is 2 (P + 1) + 17 and the division. Additions, maxima, logic and integer operations (4 + 2 + 1 + 2) have ports of
//! their own on AMD's cores; where all vector arithmetic shares two ports, as with Intel's 512-bit vectors, they count too.
//!
//! Run with `cargo run --release --example port_limit`.

use std::hint::black_box;
use std::time::Instant;

use vesu_core::Cancel;
use vesu_core::prox::{Design, Grid, Isa, Method, Settings, Solver, Standardisation};

const SAMPLES: usize = 60_000;
const SIGMOID: usize = 17;
const OTHER_PORTS: usize = 9;

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool of one thread");
    println!("one thread, {SAMPLES} samples x 135 candidates, no bootstrap: every sample counts for every candidate");
    println!("path     columns  ns/cell  division  share of the multiply-add ports  share of two ports for all");
    for isa in Isa::supported() {
        for n_features in [6, 16, 32] {
            // The smallest of several turns, the two measured in alternation: a shared machine changes its speed.
            let (mut fma, mut both, mut cell) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
            let mut kernel = Kernel::new(isa, n_features);
            for _ in 0..7 {
                fma = fma.min(seconds(isa, false));
                both = both.min(seconds(isa, true));
                cell = cell.min(pool.install(|| kernel.seconds()));
            }
            let division = (both - fma) / fma * (MULTIPLY_ADDS / DIVISIONS) as f64;
            let slots = (2 * (3 * n_features + 1) + SIGMOID) as f64 + division;
            let share = |slots: f64| 100.0 * slots * fma / (MULTIPLY_ADDS as f64 * isa.lanes() as f64 * cell);
            println!(
                "{:8} {:7}  {:7.3}  {:8.1}  {:30.0} %  {:24.0} %",
                isa.name(),
                3 * n_features,
                cell * 1e9,
                division,
                share(slots),
                share(slots + OTHER_PORTS as f64)
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

/// Multiply-adds of one turn, two in each of ten chains, enough to hide the latency; and the divisions among them.
const MULTIPLY_ADDS: usize = 20;
const DIVISIONS: usize = 2;
const CHAINS: usize = 10;

/// Seconds of one turn of the path's fused multiply-adds (of products and sums where it has none), with divisions
/// among them or without.
fn seconds(isa: Isa, divide: bool) -> f64 {
    const TURNS: usize = 1_000_000;
    let start = Instant::now();
    match (isa, divide) {
        // SAFETY: `Isa::supported` gave the path.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, false) => unsafe { x86::avx2::<false>(black_box(TURNS)) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, true) => unsafe { x86::avx2::<true>(black_box(TURNS)) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, false) => unsafe { x86::avx512::<false>(black_box(TURNS)) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, true) => unsafe { x86::avx512::<true>(black_box(TURNS)) },
        (_, false) => portable::<false>(black_box(TURNS)),
        (_, true) => portable::<true>(black_box(TURNS)),
    }
    start.elapsed().as_secs_f64() / TURNS as f64
}

/// The same turns for any vector: sums = sums * factor + factor, quotients = factor / quotients.
macro_rules! turns {
    ($turns:ident, $splat:expr, $fma:expr, $div:expr) => {{
        let (factor, mut quotients) = ($splat(black_box(0.999)), [$splat(black_box(0.5)); DIVISIONS]);
        let mut sums = [$splat(black_box(0.5)); CHAINS];
        for _ in 0..$turns {
            for _ in 0..MULTIPLY_ADDS / CHAINS {
                for sum in &mut sums {
                    *sum = $fma(*sum, factor);
                }
            }
            if DIVIDE {
                for quotient in &mut quotients {
                    *quotient = $div(factor, *quotient);
                }
            }
        }
        black_box((sums, quotients));
    }};
}

fn portable<const DIVIDE: bool>(turns: usize) {
    let fma = |sum: [f32; 4], factor: [f32; 4]| std::array::from_fn(|i| sum[i] * factor[i] + factor[i]);
    let div = |factor: [f32; 4], quotient: [f32; 4]| std::array::from_fn(|i| factor[i] / quotient[i]);
    turns!(turns, |value| [value; 4], fma, div);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, DIVISIONS, MULTIPLY_ADDS};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2<const DIVIDE: bool>(turns: usize) {
        turns!(turns, _mm256_set1_ps, |s, f| _mm256_fmadd_ps(s, f, f), |f, q| _mm256_div_ps(f, q));
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512<const DIVIDE: bool>(turns: usize) {
        turns!(turns, _mm512_set1_ps, |s, f| _mm512_fmadd_ps(s, f, f), |f, q| _mm512_div_ps(f, q));
    }
}
