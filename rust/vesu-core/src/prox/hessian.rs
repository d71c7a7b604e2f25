//! Hessians of single candidates from a subsample of the blocks: mean of v c p (1 - p) a a' over rows a.
//!
//! The subsample's rows are stored once. Columns stand in SIMD lanes, and a tile of the matrix stays in registers for a whole
//! block of samples.

use super::bootstrap::Bootstrap;
use super::design::Design;
use super::kernel::block_len;
use super::pass::{Part, for_tasks, refuse_beyond};
use super::quadratic::Hessian;
use super::simd::{Isa, Simd};
use crate::{Cancel, Result};

/// Columns are padded to whole vectors of AVX2; AVX-512 machines run the same instructions and get the same bits.
const LANES: usize = 8;
/// Rows and vectors of a register tile.
const TILE: usize = 4;
const PAIR: usize = 2;

/// The Hessian's error falls as the root of width / samples, and so does the error of one Newton step.
const MIN_SAMPLES: usize = 20_000;
const SAMPLES_PER_COLUMN: usize = 200;
/// Beyond so many times these, more samples no longer pay.
const MAX_DOUBLINGS: u32 = 6;

/// The blocks that Hessians are taken from: all of them where there are few.
pub(super) fn subsample(n_samples: usize, width: usize, doublings: f64) -> Part {
    let least = MIN_SAMPLES.max(SAMPLES_PER_COLUMN.saturating_mul(width));
    let wanted = least.saturating_mul(1 << (doublings as u32).min(MAX_DOUBLINGS));
    Part { one_in: (n_samples / wanted).max(1) }
}

/// A stored subsample with the weights of every neuron.
#[derive(Debug)]
pub(super) struct Curvature {
    wide: bool,
    width: usize,
    /// Row length: the width and its padding of zeros.
    columns: usize,
    n_neurons: usize,
    n_samples: usize,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    columns: usize,
    /// (samples, columns)
    rows: Vec<f32>,
    /// (n_neurons, samples): bootstrap times class weight.
    weights: Vec<f32>,
}

impl Curvature {
    pub fn new(
        design: &Design,
        part: Part,
        n_neurons: usize,
        bootstrap: Option<&Bootstrap>,
        class_weight: [f64; 2],
        isa: Isa,
        cancel: &Cancel,
    ) -> Result<Self> {
        let width = design.n_coefficients() + 1;
        let (columns, block) = (width.next_multiple_of(LANES), block_len(width));
        let n_samples = part.n_samples(design.n_samples(), width);
        check_memory(n_samples, columns.saturating_add(n_neurons))?;
        let tasks = for_tasks(design.held(), width, part, |task| {
            let mut rows = vec![0.0; block * width];
            let blocks = task.blocks(cancel).map(|range| {
                let (first, n) = range?;
                design.fill_rows(first, n, &mut rows);
                let weights = sample_weights(design, first, n, n_neurons, bootstrap, class_weight);
                Ok(Block { columns, rows: pad(&rows[..n * width], width, columns), weights })
            });
            blocks.collect::<Result<Vec<Block>>>()
        })?;
        let blocks = tasks.into_iter().flatten().collect();
        let wide = isa != Isa::Portable && Isa::Avx2.is_supported();
        Ok(Self { wide, width, columns, n_neurons, n_samples, blocks })
    }

    /// Of one neuron's loss at `params`: float32 within a block, float64 across.
    pub fn hessian(&self, neuron: usize, params: &[f64], cancel: &Cancel) -> Result<Hessian> {
        assert!(neuron < self.n_neurons && params.len() == self.width);
        let params: Vec<f32> = params.iter().map(|&value| value as f32).collect();
        let columns = self.columns;
        let params = pad(&params, self.width, columns);
        let mut sums = vec![0.0; columns * columns];
        let mut scaled = Vec::new();
        for block in &self.blocks {
            cancel.check()?;
            let n = block.rows.len() / columns;
            block.add(self.wide, &params, &block.weights[neuron * n..][..n], &mut scaled, &mut sums);
        }
        let n = self.n_samples as f64;
        for k in 0..columns {
            for l in k..columns {
                sums[k * columns + l] /= n;
                sums[l * columns + k] = sums[k * columns + l];
            }
        }
        Ok(Hessian { values: sums, stride: columns, width: self.width })
    }
}

fn check_memory(n_samples: usize, per_sample: usize) -> Result<()> {
    let needed = n_samples.saturating_mul(per_sample).saturating_mul(size_of::<f32>()) as u64;
    refuse_beyond("the Hessians' subsample", needed)
}

/// Rows of `width` as rows of `columns`.
fn pad(rows: &[f32], width: usize, columns: usize) -> Vec<f32> {
    let mut padded = vec![0.0; rows.len() / width * columns];
    for (to, from) in padded.chunks_exact_mut(columns).zip(rows.chunks_exact(width)) {
        to[..width].copy_from_slice(from);
    }
    padded
}

/// (n_neurons, n)
fn sample_weights(
    design: &Design,
    first: usize,
    n: usize,
    n_neurons: usize,
    bootstrap: Option<&Bootstrap>,
    class_weight: [f64; 2],
) -> Vec<f32> {
    let factors: Vec<f32> =
        (first..first + n).map(|i| class_weight[usize::from(design.sign(i) < 0.0)] as f32).collect();
    let of_neuron = |neuron: usize| match bootstrap {
        Some(bootstrap) => bootstrap.neuron_weights(neuron, first, n),
        None => vec![1.0; n],
    };
    (0..n_neurons)
        .flat_map(|neuron| of_neuron(neuron).into_iter().zip(&factors).map(|(draw, c)| draw * c).collect::<Vec<_>>())
        .collect()
}

impl Block {
    /// Add one candidate's sums to the upper triangle of `sums`, and to entries below it that nobody reads.
    fn add(&self, wide: bool, params: &[f32], weights: &[f32], scaled: &mut Vec<f32>, sums: &mut [f64]) {
        let columns = self.columns;
        assert!(params.len() == columns && columns.is_multiple_of(LANES) && sums.len() == columns * columns);
        assert!(self.rows.len() == weights.len() * columns);
        self.scale(params, weights, scaled);
        match wide {
            // SAFETY: `wide` is set only where AVX2 and FMA are present; the sizes were checked above.
            #[cfg(target_arch = "x86_64")]
            true => unsafe { self.tiles_avx2(scaled, sums) },
            // SAFETY: the portable lanes need no CPU feature; sizes as above.
            _ => unsafe { self.tiles::<[f32; 4]>(scaled, sums) },
        }
    }

    /// Rows times v c p (1 - p).
    fn scale(&self, params: &[f32], weights: &[f32], scaled: &mut Vec<f32>) {
        scaled.clear();
        for (row, &weight) in self.rows.chunks_exact(self.columns).zip(weights) {
            let mut lanes = [0.0f32; LANES];
            for (value, param) in row.as_chunks::<LANES>().0.iter().zip(params.as_chunks::<LANES>().0) {
                for lane in 0..LANES {
                    lanes[lane] += value[lane] * param[lane];
                }
            }
            let half: [f32; 4] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 4]);
            let margin = (half[0] + half[2]) + (half[1] + half[3]);
            let e = exp_negative(-margin.abs());
            let factor = weight * e / ((1.0 + e) * (1.0 + e));
            scaled.extend(row.iter().map(|value| factor * value));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tiles_avx2(&self, scaled: &[f32], sums: &mut [f64]) {
        // SAFETY: compiled with the features that the lanes need; sizes are the caller's promise.
        unsafe { self.tiles::<std::arch::x86_64::__m256>(scaled, sums) }
    }

    /// # Safety
    /// `scaled` has the length of the rows, `sums` holds columns x columns, columns are whole vectors and the CPU has V.
    #[inline(always)]
    unsafe fn tiles<V: Simd>(&self, scaled: &[f32], sums: &mut [f64]) {
        for k in (0..self.columns).step_by(TILE) {
            let mut l = k / V::LANES * V::LANES;
            while l < self.columns {
                // SAFETY: k + TILE <= columns, and the vectors from l end at or before columns.
                unsafe {
                    if l + PAIR * V::LANES <= self.columns {
                        self.tile::<V, PAIR>(scaled, k, l, sums);
                    } else {
                        self.tile::<V, 1>(scaled, k, l, sums);
                    }
                }
                l += PAIR * V::LANES;
            }
        }
    }

    /// Add the sums over the block of TILE scaled columns from `k` times N vectors of columns from `l`.
    ///
    /// # Safety
    /// As for `tiles`, with k + TILE and l + N * LANES within the columns.
    #[inline(always)]
    unsafe fn tile<V: Simd, const N: usize>(&self, scaled: &[f32], k: usize, l: usize, sums: &mut [f64]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut tile = [[V::splat(0.0); N]; TILE];
            let (mut left, mut right) = (scaled.as_ptr().add(k), self.rows.as_ptr().add(l));
            for _ in 0..scaled.len() / self.columns {
                let mut vectors = [V::splat(0.0); N];
                for (j, vector) in vectors.iter_mut().enumerate() {
                    *vector = V::load(right.add(j * V::LANES));
                }
                for (i, row) in tile.iter_mut().enumerate() {
                    let factor = V::splat(*left.add(i));
                    for j in 0..N {
                        row[j] = factor.fma(vectors[j], row[j]);
                    }
                }
                (left, right) = (left.wrapping_add(self.columns), right.wrapping_add(self.columns));
            }
            for (i, row) in tile.into_iter().enumerate() {
                for (j, vector) in row.into_iter().enumerate() {
                    let mut lanes = [0f32; LANES];
                    vector.store(lanes.as_mut_ptr());
                    let to = &mut sums[(k + i) * self.columns + l + j * V::LANES..][..V::LANES];
                    to.iter_mut().zip(lanes).for_each(|(sum, value)| *sum += f64::from(value));
                }
            }
        }
    }
}

/// e^t for t <= 0, relative error 4e-6: 2^n from the exponent bits, the rest by Taylor's series.
#[inline(always)]
fn exp_negative(t: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, which stays in the low bits
    const SERIES: [f32; 6] = [1.0, std::f32::consts::LN_2, 0.240_226_5, 0.055_504_1, 0.009_618_1, 0.001_333_4];
    let t = (t * std::f32::consts::LOG2_E).max(-126.0);
    let rounded = t + ROUND;
    let fraction = t - (rounded - ROUND);
    let power = SERIES.iter().rev().fold(0.0, |power, &coefficient| power * fraction + coefficient);
    f32::from_bits(power.to_bits().wrapping_add(rounded.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_of_negative_numbers() {
        for i in 0..8_000 {
            let t = -0.01 * i as f32;
            let exact = f64::from(t).exp();
            assert!((f64::from(exp_negative(t)) - exact).abs() <= 5e-6 * exact, "{t}");
        }
        assert!((0.0..1e-37).contains(&exp_negative(-1e30)) && exp_negative(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn small_samples_are_taken_whole() {
        assert_eq!(subsample(39_999, 19, 0.0), Part::ALL);
        assert_eq!(subsample(1_000_000, 19, 0.0), Part { one_in: 50 });
        assert_eq!(subsample(1_000_000, 200, 0.0), Part { one_in: 25 });
        assert_eq!(subsample(1_000_000, 19, 2.0), Part { one_in: 12 });
        assert_eq!(subsample(100_000, 19, 1e300), Part::ALL);
    }
}
