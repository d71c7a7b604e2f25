//! Which samples of a block a neuron visits, and with what weight: a bootstrap leaves out 37 % of them, and those cost
//! nothing.

use super::bootstrap::{Bootstrap, CHUNK};
use super::design::Design;
use super::lanes::Lanes;
use super::simd::Simd;

/// Samples of the smallest register tile; lists are padded to a multiple of it.
pub(super) const TILE: usize = 6;

/// Room behind a list for the last vector that is stored whole.
const SLACK: usize = 16;

/// How samples are weighed: bootstrap draws times class weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighing<'a> {
    pub bootstrap: Option<&'a Bootstrap>,
    pub class_weight: [f32; 2],
}

/// The active samples of one block for every neuron.
#[derive(Debug)]
pub(super) struct Active {
    block: usize,
    capacity: usize,
    /// (lists, capacity): where each active sample's row starts; the padding names the row of zeros behind the block.
    offsets: Vec<u32>,
    /// (lists, capacity): weight of each active sample; zero in the padding. Unused where neurons share vectors.
    weights: Vec<f32>,
    lengths: Vec<usize>,
    /// (capacity, stride): each sample's weight for every neuron, where neurons share vectors.
    table: Vec<f32>,
    stride: usize,
    /// Where the row of each sample of the block starts.
    row_offsets: Vec<u32>,
    /// Class weight of each sample, its draws, and the weights of one neuron.
    factors: Vec<f32>,
    draws: Vec<[u64; CHUNK]>,
    drawn: Vec<[f32; CHUNK]>,
}

impl Active {
    pub fn new(lanes: &Lanes, block: usize, width: usize) -> Self {
        let capacity = block + TILE + SLACK;
        let n_lists = lanes.n_lists();
        // One vector read from any neuron stays inside a row.
        let stride = if lanes.mixed().is_some() { lanes.n_neurons() + SLACK } else { 0 };
        Self {
            block,
            capacity,
            offsets: vec![0; n_lists * capacity],
            weights: vec![0.0; n_lists * capacity],
            lengths: vec![0; n_lists],
            table: vec![0.0; stride * capacity],
            stride,
            row_offsets: (0..capacity).map(|sample| (sample.min(block) * width) as u32).collect(),
            factors: vec![0.0; capacity],
            draws: vec![[0; CHUNK]; block.div_ceil(CHUNK)],
            drawn: vec![[0.0; CHUNK]; block.div_ceil(CHUNK)],
        }
    }

    /// Bytes that one list takes.
    pub fn bytes_per_list(block: usize) -> usize {
        (block + TILE + SLACK) * 8
    }

    /// (row offsets, weights, length) of a list; the length is a multiple of [`TILE`].
    pub fn list(&self, list: usize) -> (&[u32], &[f32], usize) {
        let range = list * self.capacity..(list + 1) * self.capacity;
        (&self.offsets[range.clone()], &self.weights[range], self.lengths[list])
    }

    /// (weights of all neurons, row length), where neurons share vectors.
    pub fn table(&self) -> (&[f32], usize) {
        (&self.table, self.stride)
    }

    /// Every one of `n` samples once, for all candidates.
    pub fn fill_unit(&mut self, n: usize) {
        self.factors[..n].fill(1.0);
        self.all(n);
    }

    /// Weigh samples first..first + n.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    pub unsafe fn fill<V: Simd>(&mut self, weighing: &Weighing, design: &Design, first: usize, n: usize) {
        let weighs_classes = weighing.class_weight != [1.0; 2];
        self.factors[..n].fill(1.0);
        if let (true, Some(labels)) = (weighs_classes, design.labels_of(first, n)) {
            for (factor, &label) in self.factors.iter_mut().zip(labels) {
                *factor = weighing.class_weight[usize::from(label & 1)];
            }
        }
        let Some(bootstrap) = weighing.bootstrap else {
            return self.all(n);
        };
        let n_chunks = n.div_ceil(CHUNK);
        for neuron in 0..bootstrap.n_neurons() {
            if neuron % 2 == 0 {
                bootstrap.draw(neuron / 2, first, &mut self.draws[..n_chunks]);
            }
            bootstrap.weights(&self.draws[..n_chunks], neuron % 2, &mut self.drawn[..n_chunks]);
            let drawn = self.drawn.as_flattened_mut();
            drawn[n..n_chunks * CHUNK].fill(0.0);
            if weighs_classes {
                drawn[..n].iter_mut().zip(&self.factors).for_each(|(weight, factor)| *weight *= factor);
            }
            if self.stride > 0 {
                self.fill_column(neuron, n);
            } else {
                // SAFETY: passes on the caller's vouching.
                unsafe { self.fill_list::<V>(neuron, n) };
            }
        }
        if self.stride > 0 {
            self.offsets[..n].copy_from_slice(&self.row_offsets[..n]);
            self.pad(0, n);
            self.table[n * self.stride..self.lengths[0] * self.stride].fill(0.0);
        }
    }

    /// The drawn weights as the neuron's column of the table.
    fn fill_column(&mut self, neuron: usize, n: usize) {
        let drawn = &self.drawn.as_flattened()[..n];
        for (row, &weight) in self.table.chunks_exact_mut(self.stride).zip(drawn) {
            row[neuron] = weight;
        }
    }

    /// The neuron's list: the samples whose drawn weight is not zero.
    #[inline(always)]
    unsafe fn fill_list<V: Simd>(&mut self, neuron: usize, n: usize) {
        let drawn = self.drawn.as_flattened();
        let list = neuron * self.capacity;
        let mut kept = 0;
        for i in (0..n).step_by(V::LANES) {
            // SAFETY: `drawn` is zero from n to its end, a multiple of every vector; `row_offsets` and a list have room
            // for one vector behind n and behind `kept <= i`; the CPU features are the caller's promise.
            kept += unsafe {
                V::load(drawn.as_ptr().add(i)).keep_nonzero(
                    self.row_offsets.as_ptr().add(i),
                    self.weights.as_mut_ptr().add(list + kept),
                    self.offsets.as_mut_ptr().add(list + kept),
                )
            };
        }
        self.pad(neuron, kept);
    }

    /// One list of all samples, weighed by `factors`.
    fn all(&mut self, n: usize) {
        self.offsets[..n].copy_from_slice(&self.row_offsets[..n]);
        self.weights[..n].copy_from_slice(&self.factors[..n]);
        self.pad(0, n);
    }

    /// Fill up to a whole tile with the row of zeros at weight zero.
    fn pad(&mut self, list: usize, kept: usize) {
        let length = kept.next_multiple_of(TILE);
        let first = list * self.capacity;
        self.offsets[first + kept..first + length].fill(self.row_offsets[self.block]);
        self.weights[first + kept..first + length].fill(0.0);
        self.lengths[list] = length;
    }
}
