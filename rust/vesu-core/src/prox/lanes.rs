//! Where each candidate stands: groups of one or two vectors, and the group-major arrays over them.

use super::simd::{Aligned, Isa};

/// Vectors of a full group.
pub(super) const GROUP: usize = 2;

/// One or two vectors of candidates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Its first lane among all.
    pub lane: usize,
    pub vectors: usize,
    /// Which list of active samples it visits.
    pub list: usize,
}

/// The places of all candidates. Arrays that hold several rows of lanes are group-major: group, row, lane.
#[derive(Clone, Debug)]
pub struct Lanes {
    isa: Isa,
    padded: usize,
    groups: Vec<Group>,
    /// Of each candidate: first lane of its group, its lane in the group, lanes of the group.
    slots: Vec<(usize, usize, usize)>,
    mixed: Option<Mixed>,
    n_neurons: usize,
}

/// Neurons of the lanes where one vector holds candidates of several.
#[derive(Clone, Debug)]
pub(super) struct Mixed {
    /// Of each vector, its first neuron.
    pub first_neuron: Vec<usize>,
    /// Each lane's neuron counted from its vector's first, so below the number of lanes.
    pub neuron_index: Vec<i32>,
}

impl Lanes {
    /// Candidates sorted by neuron, `per_neuron` of each. A path that the machine lacks becomes the portable one.
    ///
    /// A neuron's own vectors visit only the samples that its bootstrap drew, 63 % of all, but may end in empty lanes:
    /// where those would cost more than they save, neurons share vectors and visit all samples.
    pub fn new(isa: Isa, n_candidates: usize, per_neuron: usize) -> Self {
        let isa = if isa.is_supported() { isa } else { Isa::Portable };
        let lanes = isa.lanes();
        let n_neurons = n_candidates.div_ceil(per_neuron);
        let is_mixed = n_neurons > 1 && 2 * per_neuron.next_multiple_of(lanes) > 3 * per_neuron;
        let segment = if is_mixed { n_candidates } else { per_neuron };
        let mut this = Self {
            isa,
            padded: 0,
            groups: Vec::new(),
            slots: Vec::with_capacity(n_candidates),
            mixed: None,
            n_neurons,
        };
        for list in 0..n_candidates.div_ceil(segment) {
            for first in (0..segment).step_by(GROUP * lanes) {
                let held = (segment - first).min(GROUP * lanes);
                let group = Group { lane: this.padded, vectors: held.div_ceil(lanes), list };
                let width = group.vectors * lanes;
                this.slots.extend((0..held).map(|lane| (group.lane, lane, width)));
                this.groups.push(group);
                this.padded += width;
            }
        }
        if is_mixed {
            let neuron = |lane: usize| lane.min(n_candidates - 1) / per_neuron;
            let first_neuron: Vec<usize> = (0..this.padded).step_by(lanes).map(neuron).collect();
            let neuron_index =
                (0..this.padded).map(|lane| (neuron(lane) - first_neuron[lane / lanes]) as i32).collect();
            this.mixed = Some(Mixed { first_neuron, neuron_index });
        }
        this
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Lanes in all, with the padding.
    pub fn padded(&self) -> usize {
        self.padded
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn mixed(&self) -> Option<&Mixed> {
        self.mixed.as_ref()
    }

    pub(super) fn n_neurons(&self) -> usize {
        self.n_neurons
    }

    /// Lists of active samples: one a neuron, or one for all.
    pub(super) fn n_lists(&self) -> usize {
        if self.mixed.is_some() { 1 } else { self.n_neurons }
    }

    /// (index of the candidate's first row, distance to its next row) in a group-major array of `n_rows` rows.
    pub fn position(&self, candidate: usize, n_rows: usize) -> (usize, usize) {
        let (group, lane, width) = self.slots[candidate];
        (group * n_rows + lane, width)
    }

    /// `params` (n_candidates, n_rows) times `factor`, as group-major float32 with zeros in the padding.
    pub fn pack(&self, params: &[f64], n_rows: usize, factor: f64) -> Aligned {
        let mut packed = Aligned::zeros(self.padded * n_rows);
        for (candidate, row) in params.chunks_exact(n_rows).enumerate() {
            let (first, step) = self.position(candidate, n_rows);
            for (k, &value) in row.iter().enumerate() {
                packed[first + k * step] = (factor * value) as f32;
            }
        }
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_has_its_own_lane() {
        for (n_neurons, per_neuron) in [(1, 1), (1, 135), (9, 15), (9, 1), (7, 3), (5, 6), (133, 15), (2, 40)] {
            let lanes = Lanes::new(Isa::Portable, n_neurons * per_neuron, per_neuron);
            let mut places: Vec<usize> = (0..n_neurons * per_neuron).map(|c| lanes.position(c, 1).0).collect();
            assert!(places.is_sorted() && places.iter().all(|&place| place < lanes.padded()));
            places.dedup();
            assert_eq!(places.len(), n_neurons * per_neuron);
        }
    }

    #[test]
    fn small_neurons_share_vectors_and_large_ones_do_not() {
        assert!(Lanes::new(Isa::Portable, 90, 1).mixed().is_some());
        assert_eq!(Lanes::new(Isa::Portable, 90, 1).padded(), 92);
        let own = Lanes::new(Isa::Portable, 135, 15);
        assert!(own.mixed().is_none() && own.n_lists() == 9 && own.padded() == 9 * 16);
    }
}
