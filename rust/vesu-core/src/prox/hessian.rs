//! Hessians of single candidates from a subsample of the blocks: mean of v c p (1 - p) a a' over rows a.
//!
//! The subsample's rows are stored once, column by column within a block, so that samples stand in SIMD lanes; the rest is
//! plain arrays that the compiler turns into vectors, compiled once for the baseline and once for AVX2 with FMA.

use super::bootstrap::Bootstrap;
use super::design::Design;
use super::kernel::block_len;
use super::pass::{Part, WORKING_LIMIT, for_tasks};
use super::quadratic::Hessian;
use super::simd::Isa;
use crate::{Cancel, Error, Result};

/// Lanes of a partial sum, and columns of a tile.
const LANES: usize = 8;
const TILE: usize = 4;

/// The Hessian's error falls as the root of width / samples, and so does the error of one Newton step.
const MIN_SAMPLES: usize = 20_000;
const SAMPLES_PER_COLUMN: usize = 200;

/// The blocks that Hessians are taken from: all of them where there are few.
pub(super) fn subsample(n_samples: usize, width: usize) -> Part {
    let wanted = MIN_SAMPLES.max(SAMPLES_PER_COLUMN.saturating_mul(width));
    Part { one_in: (n_samples / wanted).max(1) }
}

/// A stored subsample with the weights of every neuron.
#[derive(Debug)]
pub(super) struct Curvature {
    fused: bool,
    width: usize,
    /// Width, and samples of a block, rounded up to whole tiles and lanes; the padding is zero.
    columns: usize,
    block: usize,
    n_neurons: usize,
    n_samples: usize,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// (columns, block)
    values: Vec<f32>,
    /// (n_neurons, block): bootstrap times class weight.
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
        let columns = width.next_multiple_of(TILE);
        let block = block_len(width).next_multiple_of(LANES);
        let n_samples = part.n_samples(design.n_samples(), width);
        check_memory(n_samples.div_ceil(block_len(width)), (columns + n_neurons).saturating_mul(block))?;
        let shape = Shape { width, columns, block, n_neurons };
        let tasks = for_tasks(design.n_samples(), width, part, |task| {
            let mut rows = vec![0.0; block * width];
            task.blocks(cancel)
                .map(|range| range.map(|(first, n)| shape.block(design, first, n, bootstrap, class_weight, &mut rows)))
                .collect::<Result<Vec<Block>>>()
        })?;
        let blocks = tasks.into_iter().flatten().collect();
        let fused = isa != Isa::Portable && Isa::Avx2.is_supported();
        Ok(Self { fused, width, columns, block, n_neurons, n_samples, blocks })
    }

    /// Of one neuron's loss at `params`: float32 within a block, float64 across.
    pub fn hessian(&self, neuron: usize, params: &[f64], cancel: &Cancel) -> Result<Hessian> {
        assert!(neuron < self.n_neurons && params.len() == self.width);
        let params: Vec<f32> = params.iter().map(|&value| value as f32).collect();
        let mut sums = vec![0.0; self.columns * self.columns];
        let mut scaled = vec![0.0; TILE / 2 * self.block];
        let mut curvature = vec![0.0; self.block];
        for block in &self.blocks {
            cancel.check()?;
            let weights = &block.weights[neuron * self.block..][..self.block];
            let work = Work { params: &params, values: &block.values, weights, block: self.block };
            work.run(self.fused, &mut curvature, &mut scaled, &mut sums);
        }
        let n = self.n_samples as f64;
        for k in 0..self.columns {
            for l in k..self.columns {
                sums[k * self.columns + l] /= n;
                sums[l * self.columns + k] = sums[k * self.columns + l];
            }
        }
        Ok(Hessian { values: sums, stride: self.columns, width: self.width })
    }
}

fn check_memory(n_blocks: usize, per_block: usize) -> Result<()> {
    let needed = n_blocks.saturating_mul(per_block).saturating_mul(size_of::<f32>()) as u64;
    if needed > WORKING_LIMIT {
        return Err(Error::Memory { what: "the Hessians' subsample".to_owned(), needed, limit: WORKING_LIMIT });
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    columns: usize,
    block: usize,
    n_neurons: usize,
}

impl Shape {
    fn block(
        self,
        design: &Design,
        first: usize,
        n: usize,
        bootstrap: Option<&Bootstrap>,
        class_weight: [f64; 2],
        rows: &mut [f32],
    ) -> Block {
        let Self { width, columns, block, n_neurons } = self;
        design.fill_rows(first, n, rows);
        let mut values = vec![0.0; columns * block];
        for (i, row) in rows[..n * width].chunks_exact(width).enumerate() {
            for (k, &value) in row.iter().enumerate() {
                values[k * block + i] = value;
            }
        }
        let mut draws = vec![1.0; n * n_neurons];
        if let Some(bootstrap) = bootstrap {
            bootstrap.fill(first, n, &mut draws, n_neurons, &mut Vec::new());
        }
        let mut weights = vec![0.0; n_neurons * block];
        for (i, row) in draws.chunks_exact(n_neurons).enumerate() {
            let factor = class_weight[usize::from(design.sign(first + i) < 0.0)] as f32;
            for (neuron, &weight) in row.iter().enumerate() {
                weights[neuron * block + i] = factor * weight;
            }
        }
        Block { values, weights }
    }
}

/// One candidate on one block.
struct Work<'a> {
    params: &'a [f32],
    values: &'a [f32],
    weights: &'a [f32],
    block: usize,
}

impl Work<'_> {
    fn run(&self, fused: bool, curvature: &mut [f32], scaled: &mut [f32], sums: &mut [f64]) {
        #[cfg(target_arch = "x86_64")]
        if fused {
            // SAFETY: `fused` is set only where AVX2 and FMA are present.
            return unsafe { self.run_avx2(curvature, scaled, sums) };
        }
        let _ = fused;
        self.accumulate::<false>(curvature, scaled, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn run_avx2(&self, curvature: &mut [f32], scaled: &mut [f32], sums: &mut [f64]) {
        self.accumulate::<true>(curvature, scaled, sums);
    }

    /// Add to the upper triangle of `sums`, and to some entries below it that nobody reads.
    #[inline(always)]
    fn accumulate<const FUSED: bool>(&self, curvature: &mut [f32], scaled: &mut [f32], sums: &mut [f64]) {
        let (block, columns) = (self.block, self.values.len() / self.block);
        self.curvature::<FUSED>(curvature);
        for k in (0..columns).step_by(TILE / 2) {
            for (row, column) in scaled.chunks_exact_mut(block).zip(self.values[k * block..].chunks_exact(block)) {
                for i in 0..block {
                    row[i] = curvature[i] * column[i];
                }
            }
            for l in (k / TILE * TILE..columns).step_by(TILE) {
                let tile = self.tile::<FUSED>(scaled, l);
                for (i, row) in tile.iter().enumerate() {
                    for (j, &sum) in row.iter().enumerate() {
                        sums[(k + i) * columns + l + j] += f64::from(sum);
                    }
                }
            }
        }
    }

    /// v c p (1 - p) of each sample.
    #[inline(always)]
    fn curvature<const FUSED: bool>(&self, curvature: &mut [f32]) {
        curvature.fill(0.0);
        for (&param, column) in self.params.iter().zip(self.values.chunks_exact(self.block)) {
            for (margin, &value) in curvature.iter_mut().zip(column) {
                *margin = multiply_add::<FUSED>(param, value, *margin);
            }
        }
        for (margin, &weight) in curvature.iter_mut().zip(self.weights) {
            let e = exp_negative(-margin.abs());
            *margin = weight * e / ((1.0 + e) * (1.0 + e));
        }
    }

    /// Sums over the block of two scaled columns times the TILE columns from `l`.
    #[inline(always)]
    fn tile<const FUSED: bool>(&self, scaled: &[f32], l: usize) -> [[f32; TILE]; TILE / 2] {
        let block = self.block;
        let left: [&[f32]; TILE / 2] = std::array::from_fn(|i| &scaled[i * block..(i + 1) * block]);
        let right: [&[f32]; TILE] = std::array::from_fn(|j| &self.values[(l + j) * block..(l + j + 1) * block]);
        let mut sums = [[[0.0f32; LANES]; TILE]; TILE / 2];
        for at in (0..block).step_by(LANES) {
            for i in 0..TILE / 2 {
                for j in 0..TILE {
                    for lane in 0..LANES {
                        let (a, b) = (left[i][at + lane], right[j][at + lane]);
                        sums[i][j][lane] = multiply_add::<FUSED>(a, b, sums[i][j][lane]);
                    }
                }
            }
        }
        sums.map(|row| row.map(|lanes| lanes.iter().sum()))
    }
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` is a slow library call.
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// e^t for t <= 0, relative error 4e-6: 2^n from the exponent bits, the rest by Taylor's series.
#[inline(always)]
fn exp_negative(t: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, which stays in the low bits
    const SERIES: [f32; 6] = [1.0, 0.693_147_2, 0.240_226_5, 0.055_504_1, 0.009_618_1, 0.001_333_4];
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
        assert_eq!(subsample(39_999, 19), Part::ALL);
        assert_eq!(subsample(1_000_000, 19), Part { one_in: 50 });
        assert_eq!(subsample(1_000_000, 200), Part { one_in: 25 });
    }
}
