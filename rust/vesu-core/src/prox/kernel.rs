//! The fused pass over one block of samples: margins of all candidates, sigmoid and loss, weighted residual, gradient.
//!
//! Candidates stand in SIMD lanes, two vectors (a *group*) at a time; a tile of six samples by two vectors keeps
//! twelve accumulators in registers. The residuals of a group stay in the first-level cache and are used at once for
//! the group's gradient. Arrays that hold several rows of lanes are group-major: group, row, lane.

use super::datafit::sigmoid_softplus;
use super::simd::{Isa, Simd};

/// Vectors of a register tile; samples of a margin tile and most rows of a gradient tile. 2 x 6 accumulators and 2 + 1
/// operands leave one of AVX2's sixteen registers free: with 3 x 4 the compiler spilled an accumulator.
const GROUP: usize = 2;
const TILE: usize = 6;

/// Samples of a block: rows, residuals and weights of one group fit the first-level cache together.
pub fn block_len(row_width: usize) -> usize {
    if row_width <= 48 { 120 } else { 60 }
}

/// Where each candidate stands.
#[derive(Clone, Debug)]
pub struct Lanes {
    isa: Isa,
    n_neurons: usize,
    n_vectors: usize,
    /// First neuron of a vector, and each lane's neuron counted from it (so below the number of lanes).
    first_neuron: Vec<usize>,
    neuron_index: Vec<i32>,
}

impl Lanes {
    /// Candidates sorted by neuron, `per_neuron` of each. A path that the machine lacks becomes the portable one.
    pub fn new(isa: Isa, n_candidates: usize, per_neuron: usize) -> Self {
        let isa = if isa.is_supported() { isa } else { Isa::Portable };
        let lanes = isa.lanes();
        let n_vectors = n_candidates.div_ceil(lanes);
        let neuron = |candidate: usize| candidate.min(n_candidates - 1) / per_neuron;
        let first_neuron: Vec<usize> = (0..n_vectors).map(|vector| neuron(vector * lanes)).collect();
        let neuron_index =
            (0..n_vectors * lanes).map(|lane| (neuron(lane) - first_neuron[lane / lanes]) as i32).collect();
        Self { isa, n_neurons: n_candidates.div_ceil(per_neuron), n_vectors, first_neuron, neuron_index }
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Lanes in all, with the padding of the last vector.
    pub fn padded(&self) -> usize {
        self.n_vectors * self.isa.lanes()
    }

    /// Row length of the sample weights: one vector read from any neuron stays inside.
    pub fn weight_stride(&self) -> usize {
        self.n_neurons + self.isa.lanes()
    }

    /// (index of the candidate's first row, distance to its next row) in a group-major array of `n_rows` rows.
    pub fn position(&self, candidate: usize, n_rows: usize) -> (usize, usize) {
        let group_lanes = GROUP * self.isa.lanes();
        let first = candidate / group_lanes * group_lanes;
        let width = group_lanes.min(self.padded() - first);
        (first * n_rows + candidate - first, width)
    }

    /// `params` (n_candidates, n_rows) times `factor`, as group-major float32 with zeros in the padding.
    pub fn pack(&self, params: &[f64], n_rows: usize, factor: f64) -> Vec<f32> {
        let mut packed = vec![0.0; self.padded() * n_rows];
        for (candidate, row) in params.chunks_exact(n_rows).enumerate() {
            let (first, step) = self.position(candidate, n_rows);
            for (k, &value) in row.iter().enumerate() {
                packed[first + k * step] = (factor * value) as f32;
            }
        }
        packed
    }

    /// Run the pass over the block in `scratch`. With a gradient, add to `sums`: the gradient's rows, then the base-2
    /// loss. Without, leave the residuals of all lanes in `scratch` and add the loss alone.
    pub fn run<const GRADIENT: bool>(&self, weights: &[f32], scratch: &mut Scratch, sums: &mut [f64]) {
        let n_rows = if GRADIENT { scratch.width + 1 } else { 1 };
        assert_eq!(weights.len(), self.padded() * scratch.width);
        assert_eq!(sums.len(), self.padded() * n_rows);
        assert_eq!(scratch.rows.len(), scratch.block * scratch.width);
        assert_eq!(scratch.sample_weights.len(), scratch.block * self.weight_stride());
        assert!(scratch.block.is_multiple_of(TILE) && scratch.residuals.len() >= self.padded() * scratch.block);
        match self.isa {
            // SAFETY: the sizes were checked above; the portable lanes need no CPU feature.
            Isa::Portable => unsafe { self.pass::<[f32; 4], GRADIENT>(weights, scratch, sums) },
            // SAFETY: sizes as above; `new` keeps only a path that the machine has.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { self.pass_avx2::<GRADIENT>(weights, scratch, sums) },
            // SAFETY: as for AVX2.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { self.pass_avx512::<GRADIENT>(weights, scratch, sums) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unreachable!("`new` keeps only a path that the machine has"),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn pass_avx2<const GRADIENT: bool>(&self, weights: &[f32], scratch: &mut Scratch, sums: &mut [f64]) {
        // SAFETY: this function is compiled with the features that the lanes need; sizes are the caller's promise.
        unsafe { self.pass::<std::arch::x86_64::__m256, GRADIENT>(weights, scratch, sums) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn pass_avx512<const GRADIENT: bool>(&self, weights: &[f32], scratch: &mut Scratch, sums: &mut [f64]) {
        // SAFETY: as for AVX2.
        unsafe { self.pass::<std::arch::x86_64::__m512, GRADIENT>(weights, scratch, sums) }
    }

    #[inline(always)]
    unsafe fn pass<V: Simd, const GRADIENT: bool>(&self, weights: &[f32], scratch: &mut Scratch, sums: &mut [f64]) {
        let (block, width) = (scratch.block, scratch.width);
        let n_rows = if GRADIENT { width + 1 } else { 1 };
        for first in (0..self.n_vectors).step_by(GROUP) {
            let lane = first * V::LANES;
            // With a gradient every group reuses the same residuals, which stay in the first-level cache.
            let residuals = if GRADIENT { 0 } else { lane * block };
            // SAFETY: `run` checked that the arrays hold `padded()` lanes of their rows, and the group's lanes
            // [lane, lane + vectors * LANES) lie inside `padded()`.
            unsafe {
                let group = Group {
                    block,
                    width,
                    rows: scratch.rows.as_ptr(),
                    weights: weights.as_ptr().add(lane * width),
                    sample_weights: scratch.sample_weights.as_ptr(),
                    weight_stride: self.weight_stride(),
                    first_neuron: self.first_neuron.as_ptr().add(first),
                    neuron_index: self.neuron_index.as_ptr().add(lane),
                    residuals: scratch.residuals.as_mut_ptr().add(residuals),
                    sums: sums.as_mut_ptr().add(lane * n_rows),
                };
                if first + GROUP <= self.n_vectors {
                    group.run::<V, GROUP, GRADIENT>();
                } else {
                    group.run::<V, 1, GRADIENT>();
                }
            }
        }
    }
}

/// Working memory of one thread.
#[derive(Debug)]
pub struct Scratch {
    pub(super) block: usize,
    pub(super) width: usize,
    /// (block, width): signed feature rows; zero rows pad the last block.
    pub(super) rows: Vec<f32>,
    /// (block, weight_stride): weight of each sample for each neuron; zero for padding samples.
    pub(super) sample_weights: Vec<f32>,
    /// Group-major (block) rows: sample weight times sigmoid of the margin.
    pub(super) residuals: Vec<f32>,
    pub(super) draws: Vec<u64>,
}

impl Scratch {
    pub fn new(lanes: &Lanes, width: usize) -> Self {
        let block = block_len(width);
        Self {
            block,
            width,
            rows: vec![0.0; block * width],
            sample_weights: vec![0.0; block * lanes.weight_stride()],
            residuals: vec![0.0; block * lanes.padded()],
            draws: Vec::with_capacity(block),
        }
    }
}

/// One group's view of the arrays.
struct Group {
    block: usize,
    width: usize,
    rows: *const f32,
    weights: *const f32,
    sample_weights: *const f32,
    weight_stride: usize,
    first_neuron: *const usize,
    neuron_index: *const i32,
    residuals: *mut f32,
    sums: *mut f64,
}

impl Group {
    /// # Safety
    /// The pointers hold `block` samples, `width` rows and `N` vectors of `V`, whose CPU features are present.
    #[inline(always)]
    unsafe fn run<V: Simd, const N: usize, const GRADIENT: bool>(&self) {
        // SAFETY: the caller's promise; the tiles cover rows 0..width exactly once and then the loss row.
        unsafe {
            let loss = self.residuals_and_loss::<V, N>();
            if !GRADIENT {
                return add_lanes(loss, self.sums);
            }
            // Tiles of nearly equal height: a thin last one would wait on its few accumulators.
            let n_tiles = self.width.div_ceil(TILE);
            for tile in 0..n_tiles {
                let row = tile * self.width / n_tiles;
                match (tile + 1) * self.width / n_tiles - row {
                    6 => self.gradient_tile::<V, N, 6>(row),
                    5 => self.gradient_tile::<V, N, 5>(row),
                    4 => self.gradient_tile::<V, N, 4>(row),
                    3 => self.gradient_tile::<V, N, 3>(row),
                    2 => self.gradient_tile::<V, N, 2>(row),
                    _ => self.gradient_tile::<V, N, 1>(row),
                }
            }
            add_lanes(loss, self.sums.add(self.width * N * V::LANES));
        }
    }

    #[inline(always)]
    unsafe fn residuals_and_loss<V: Simd, const N: usize>(&self) -> [V; N] {
        // SAFETY: as for `run`; samples go in tiles that divide the block.
        unsafe {
            let mut loss = [V::splat(0.0); N];
            for sample in (0..self.block).step_by(TILE) {
                let margins = self.margin_tile::<V, N>(sample);
                for pair in 0..TILE / 2 {
                    let (sigmoid, softplus) = sigmoid_softplus([margins[2 * pair], margins[2 * pair + 1]]);
                    for i in 0..2 {
                        let at = sample + 2 * pair + i;
                        let neurons = self.sample_weights.add(at * self.weight_stride);
                        for j in 0..N {
                            let first_neuron = neurons.add(*self.first_neuron.add(j));
                            let weight = V::lookup(first_neuron, self.neuron_index.add(j * V::LANES));
                            loss[j] = weight.fma(softplus[i][j], loss[j]);
                            weight.mul(sigmoid[i][j]).store(self.residuals.add((at * N + j) * V::LANES));
                        }
                    }
                }
            }
            loss
        }
    }

    #[inline(always)]
    unsafe fn margin_tile<V: Simd, const N: usize>(&self, sample: usize) -> [[V; N]; TILE] {
        // SAFETY: as for `run`.
        unsafe {
            let mut margins = [[V::splat(0.0); N]; TILE];
            let rows = self.rows.add(sample * self.width);
            for k in 0..self.width {
                let mut weights = [V::splat(0.0); N];
                for (j, weight) in weights.iter_mut().enumerate() {
                    *weight = V::load(self.weights.add((k * N + j) * V::LANES));
                }
                for (i, margin) in margins.iter_mut().enumerate() {
                    let feature = V::splat(*rows.add(i * self.width + k));
                    for j in 0..N {
                        margin[j] = feature.fma(weights[j], margin[j]);
                    }
                }
            }
            margins
        }
    }

    #[inline(always)]
    unsafe fn gradient_tile<V: Simd, const N: usize, const K: usize>(&self, row: usize) {
        // SAFETY: as for `run`, with `row + K <= width`.
        unsafe {
            let mut sums = [[V::splat(0.0); N]; K];
            for sample in 0..self.block {
                let mut residuals = [V::splat(0.0); N];
                for (j, residual) in residuals.iter_mut().enumerate() {
                    *residual = V::load(self.residuals.add((sample * N + j) * V::LANES));
                }
                let features = self.rows.add(sample * self.width + row);
                for (k, sum) in sums.iter_mut().enumerate() {
                    let feature = V::splat(*features.add(k));
                    for j in 0..N {
                        sum[j] = feature.fma(residuals[j], sum[j]);
                    }
                }
            }
            for (k, sum) in sums.into_iter().enumerate() {
                add_lanes(sum, self.sums.add((row + k) * N * V::LANES));
            }
        }
    }
}

/// Add float32 lanes to float64 sums.
#[inline(always)]
unsafe fn add_lanes<V: Simd, const N: usize>(vectors: [V; N], sums: *mut f64) {
    const MAX_LANES: usize = 16;
    // SAFETY: `sums` holds N vectors of V, and no V has more than MAX_LANES lanes.
    unsafe {
        for (j, vector) in vectors.into_iter().enumerate() {
            let mut lanes = [0f32; MAX_LANES];
            vector.store(lanes.as_mut_ptr());
            for (lane, value) in lanes[..V::LANES].iter().enumerate() {
                *sums.add(j * V::LANES + lane) += f64::from(*value);
            }
        }
    }
}
