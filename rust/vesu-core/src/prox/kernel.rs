//! The fused pass over one block of samples: margins of all candidates, sigmoid and loss, weighted residual, gradient.
//!
//! Candidates stand in SIMD lanes, one or two vectors (a *group*) at a time; a register tile of samples by vectors holds
//! the accumulators. The residuals of a group stay in the first-level cache and are used at once for its gradient.

use super::active::{Active, TILE, Weighing};
use super::datafit::Constants;
use super::design::Design;
use super::lanes::{GROUP, Group, Lanes};
use super::simd::{Aligned, Simd, SimdWork, dispatch};

/// Samples of a tile where there are 32 vector registers.
const WIDE_TILE: usize = 2 * TILE;

/// Samples whose sigmoids go in lockstep.
const LOCKSTEP: usize = 3;

/// Samples of a block: rows, residuals and weights of one group fit the first-level cache together.
pub fn block_len(row_width: usize) -> usize {
    if row_width <= 48 { 240 } else { 96 }
}

/// A number of samples that is whole blocks of either length.
pub const WHOLE_BLOCKS: usize = 480;

/// Working memory of one thread.
#[derive(Debug)]
pub struct Scratch {
    pub(super) block: usize,
    pub(super) width: usize,
    /// (block + 1, width): signed feature rows, behind them a row of zeros, and room for a vector stored beyond a row.
    pub(super) rows: Vec<f32>,
    /// Group-major (block) rows: sample weight times sigmoid of the margin.
    pub(super) residuals: Aligned,
    active: Active,
    constants: Box<Constants>,
}

impl Scratch {
    pub fn new(lanes: &Lanes, width: usize) -> Self {
        let block = block_len(width);
        Self {
            block,
            width,
            rows: vec![0.0; (block + 1) * width + super::simd::MAX_LANES],
            residuals: Aligned::zeros(0),
            active: Active::new(lanes, block, width),
            constants: Box::new(Constants::new()),
        }
    }
}

impl Lanes {
    /// Margins, residuals and loss of the first `n` rows in `scratch`, each sample counting once: leave the residuals of
    /// all lanes in `scratch` and add the base-2 loss to `sums`.
    pub fn run(&self, weights: &[f32], n: usize, scratch: &mut Scratch, sums: &mut [f64]) {
        assert!(self.n_lists() == 1 && n <= scratch.block);
        scratch.residuals.grow(scratch.block * self.padded());
        scratch.active.fill_unit(n);
        self.check(weights, scratch, sums, 1);
        dispatch(self.isa(), Pass::<false> { lanes: self, weights, scratch, sums, samples: None });
    }

    /// The whole pass over `n` samples from `first`: add the gradient's rows, then the base-2 loss, to `sums`.
    pub(super) fn accumulate(
        &self,
        (design, weighing): (&Design, &Weighing),
        (first, n): (usize, usize),
        weights: &[f32],
        scratch: &mut Scratch,
        sums: &mut [f64],
    ) {
        assert!(n <= scratch.block && design.n_coefficients() + 1 == scratch.width);
        scratch.residuals.grow(scratch.block * GROUP * self.isa().lanes());
        self.check(weights, scratch, sums, scratch.width + 1);
        let samples = Some((design, weighing, first, n));
        dispatch(self.isa(), Pass::<true> { lanes: self, weights, scratch, sums, samples });
    }

    fn check(&self, weights: &[f32], scratch: &Scratch, sums: &[f64], n_rows: usize) {
        assert_eq!(weights.len(), self.padded() * scratch.width);
        assert_eq!(sums.len(), self.padded() * n_rows);
        assert!(scratch.block == block_len(scratch.width) && scratch.block.is_multiple_of(TILE));
    }
}

/// All groups of one block; with samples, their rows and weights first.
struct Pass<'a, const GRADIENT: bool> {
    lanes: &'a Lanes,
    weights: &'a [f32],
    scratch: &'a mut Scratch,
    sums: &'a mut [f64],
    samples: Option<(&'a Design<'a>, &'a Weighing<'a>, usize, usize)>,
}

impl<const GRADIENT: bool> SimdWork for Pass<'_, GRADIENT> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { lanes, weights, scratch, sums, samples } = self;
        let width = scratch.width;
        if let Some((design, weighing, first, n)) = samples {
            // SAFETY: the CPU features are the caller's promise; `rows` has room for a vector beyond the last row.
            unsafe {
                design.fill_rows_simd::<V>(first, n, &mut scratch.rows);
                scratch.active.fill::<V>(weighing, design, first, n);
            }
            scratch.rows[scratch.block * width..].fill(0.0);
        }
        let n_rows = if GRADIENT { width + 1 } else { 1 };
        let (table, stride) = scratch.active.table();
        for &Group { lane, vectors, list } in lanes.groups() {
            let (offsets, sample_weights, n) = scratch.active.list(list);
            // With a gradient every group reuses the same residuals, which stay in the first-level cache.
            let residuals = if GRADIENT { 0 } else { lane * scratch.block };
            // SAFETY: `check` saw that the arrays hold `padded()` lanes of their rows, and the group's lanes
            // [lane, lane + vectors * LANES) lie inside them; the lists name rows inside `rows`.
            unsafe {
                let group = View {
                    n,
                    width,
                    rows: scratch.rows.as_ptr(),
                    offsets: offsets.as_ptr(),
                    params: weights.as_ptr().add(lane * width),
                    sample_weights: sample_weights.as_ptr(),
                    residuals: scratch.residuals.as_mut_ptr().add(residuals),
                    sums: sums.as_mut_ptr().add(lane * n_rows),
                    constants: &*scratch.constants,
                };
                match lanes.mixed() {
                    None => group.run_vectors::<V, Own, GRADIENT>(&Own, vectors),
                    Some(mixed) => {
                        let neurons = Shared {
                            table: table.as_ptr(),
                            stride,
                            first_neuron: mixed.first_neuron.as_ptr().add(lane / V::LANES),
                            neuron_index: mixed.neuron_index.as_ptr().add(lane),
                        };
                        group.run_vectors::<V, Shared, GRADIENT>(&neurons, vectors);
                    }
                }
            }
        }
    }
}

/// How the lanes of a group find the weight of a sample.
trait Weights {
    unsafe fn of<V: Simd>(&self, view: &View, sample: usize, vector: usize) -> V;
}

/// All lanes have the weight that stands in the group's list.
struct Own;

impl Weights for Own {
    #[inline(always)]
    unsafe fn of<V: Simd>(&self, view: &View, sample: usize, _: usize) -> V {
        // SAFETY: `sample` is below the list's length.
        unsafe { V::splat(*view.sample_weights.add(sample)) }
    }
}

/// Each lane looks up the weight for its own neuron.
struct Shared {
    table: *const f32,
    stride: usize,
    first_neuron: *const usize,
    neuron_index: *const i32,
}

impl Weights for Shared {
    #[inline(always)]
    unsafe fn of<V: Simd>(&self, _: &View, sample: usize, vector: usize) -> V {
        // SAFETY: one vector read from any neuron stays inside the table's row, and the indices are below LANES.
        unsafe {
            let row = self.table.add(sample * self.stride + *self.first_neuron.add(vector));
            V::lookup(row, self.neuron_index.add(vector * V::LANES))
        }
    }
}

/// One group's view of the arrays.
struct View {
    /// Active samples, a multiple of [`TILE`].
    n: usize,
    width: usize,
    rows: *const f32,
    offsets: *const u32,
    params: *const f32,
    sample_weights: *const f32,
    residuals: *mut f32,
    sums: *mut f64,
    constants: *const Constants,
}

impl View {
    /// # Safety
    /// The pointers hold `n` samples, `width` rows and `vectors` vectors of `V`, whose CPU features are present.
    #[inline(always)]
    unsafe fn run_vectors<V: Simd, W: Weights, const GRADIENT: bool>(&self, weights: &W, vectors: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match vectors {
                GROUP => self.run::<V, W, GROUP, GRADIENT>(weights),
                _ => self.run::<V, W, 1, GRADIENT>(weights),
            }
        }
    }

    #[inline(always)]
    unsafe fn run<V: Simd, W: Weights, const N: usize, const GRADIENT: bool>(&self, weights: &W) {
        // SAFETY: the caller's promise; the tiles cover rows 0..width exactly once and then the loss row.
        unsafe {
            let loss = self.residuals_and_loss::<V, W, N>(weights);
            if !GRADIENT {
                return add_lanes(loss, self.sums);
            }
            // Tiles of nearly equal height: a thin last one would wait on its few accumulators.
            let most = if V::REGISTERS > 16 || N == 1 { WIDE_TILE } else { TILE };
            let n_tiles = self.width.div_ceil(most);
            for tile in 0..n_tiles {
                let row = tile * self.width / n_tiles;
                match (tile + 1) * self.width / n_tiles - row {
                    12 => self.gradient_tile::<V, N, 12>(row),
                    11 => self.gradient_tile::<V, N, 11>(row),
                    10 => self.gradient_tile::<V, N, 10>(row),
                    9 => self.gradient_tile::<V, N, 9>(row),
                    8 => self.gradient_tile::<V, N, 8>(row),
                    7 => self.gradient_tile::<V, N, 7>(row),
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
    unsafe fn residuals_and_loss<V: Simd, W: Weights, const N: usize>(&self, weights: &W) -> [V; N] {
        // SAFETY: as for `run`; samples go in tiles that divide `n`.
        unsafe {
            let mut loss = [V::splat(0.0); N];
            let mut sample = 0;
            if V::REGISTERS > 16 || N == 1 {
                while sample + WIDE_TILE <= self.n {
                    self.tile::<V, W, N, WIDE_TILE>(weights, sample, &mut loss);
                    sample += WIDE_TILE;
                }
            }
            while sample < self.n {
                self.tile::<V, W, N, TILE>(weights, sample, &mut loss);
                sample += TILE;
            }
            loss
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Simd, W: Weights, const N: usize, const T: usize>(
        &self,
        weights: &W,
        sample: usize,
        loss: &mut [V; N],
    ) {
        // SAFETY: as for `run`, with `sample + T <= n`.
        unsafe {
            let margins = self.margin_tile::<V, N, T>(sample);
            for first in (0..T).step_by(LOCKSTEP) {
                let together: [[V; N]; LOCKSTEP] = std::array::from_fn(|i| margins[first + i]);
                let (sigmoid, softplus) = (*self.constants).sigmoid_softplus(together);
                for i in 0..LOCKSTEP {
                    let at = sample + first + i;
                    for j in 0..N {
                        let weight: V = weights.of(self, at, j);
                        loss[j] = weight.fma(softplus[i][j], loss[j]);
                        weight.mul(sigmoid[i][j]).store(self.residuals.add((at * N + j) * V::LANES));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn margin_tile<V: Simd, const N: usize, const T: usize>(&self, sample: usize) -> [[V; N]; T] {
        // SAFETY: as for `tile`.
        unsafe {
            let mut margins = [[V::splat(0.0); N]; T];
            let rows: [*const f32; T] = std::array::from_fn(|i| self.rows.add(*self.offsets.add(sample + i) as usize));
            for k in 0..self.width {
                let mut params = [V::splat(0.0); N];
                for (j, param) in params.iter_mut().enumerate() {
                    *param = V::load(self.params.add((k * N + j) * V::LANES));
                }
                for (i, margin) in margins.iter_mut().enumerate() {
                    let feature = V::splat(*rows[i].add(k));
                    for j in 0..N {
                        margin[j] = feature.fma(params[j], margin[j]);
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
            for sample in 0..self.n {
                let mut residuals = [V::splat(0.0); N];
                for (j, residual) in residuals.iter_mut().enumerate() {
                    *residual = V::load(self.residuals.add((sample * N + j) * V::LANES));
                }
                let features = self.rows.add(*self.offsets.add(sample) as usize + row);
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
    // SAFETY: `sums` holds N vectors of V, and no V has more than MAX_LANES lanes.
    unsafe {
        for (j, vector) in vectors.into_iter().enumerate() {
            let mut lanes = [0f32; super::simd::MAX_LANES];
            vector.store(lanes.as_mut_ptr());
            for (lane, value) in lanes[..V::LANES].iter().enumerate() {
                *sums.add(j * V::LANES + lane) += f64::from(*value);
            }
        }
    }
}
