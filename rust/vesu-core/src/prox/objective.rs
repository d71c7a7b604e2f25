//! Loss and gradient of every candidate, in one fused pass over the samples.

use std::f64::consts::{LN_2, LOG2_E};

use super::active::{Active, Weighing};
use super::bootstrap::Bootstrap;
use super::design::Design;
use super::kernel::{Scratch, block_len};
use super::lanes::Lanes;
use super::pass::{Part, check_memory, fold, for_tasks};
use super::simd::Isa;
use crate::{Cancel, Error, Result};

/// The smooth part of the candidates' objectives: mean over samples of v_i c_i ln(1 + e^(s_i z_i)).
#[derive(Clone, Debug)]
pub(super) struct Objective {
    lanes: Lanes,
    bootstrap: Option<Bootstrap>,
    class_weight: [f64; 2],
    width: usize,
    n_candidates: usize,
}

impl Objective {
    /// `per_neuron` candidates of each neuron, neuron-major; `width` is the number of coefficients with the intercept.
    pub fn new(
        isa: Isa,
        n_candidates: usize,
        per_neuron: usize,
        width: usize,
        bootstrap: Option<Bootstrap>,
        class_weight: [f64; 2],
    ) -> Result<Self> {
        // Without a bootstrap all neurons weigh the samples alike: one list serves them all.
        let per_neuron = if bootstrap.is_some() { per_neuron } else { n_candidates };
        let lanes = Lanes::new(isa, n_candidates, per_neuron);
        let lists = lanes.n_neurons().checked_mul(Active::bytes_per_list(block_len(width)));
        let sums = (width + 2).checked_mul(lanes.padded() * 8);
        check_memory("the search's working memory", lists.zip(sums).and_then(|(lists, sums)| lists.checked_add(sums)))?;
        Ok(Self { lanes, bootstrap, class_weight, width, n_candidates })
    }

    pub fn isa(&self) -> Isa {
        self.lanes.isa()
    }

    pub fn set_class_weight(&mut self, class_weight: [f64; 2]) {
        self.class_weight = class_weight;
    }

    /// (n_candidates, width + 1): means over the part's samples of the gradient, the intercept's last, then of the loss.
    /// `params` is (n_candidates, width).
    pub fn evaluate(&self, design: &Design, params: &[f64], part: Part, cancel: &Cancel) -> Result<Vec<f64>> {
        let sums = fold(self.partial_sums(design, params, part, cancel)?);
        Ok(self.means(&sums, part.n_samples(design.n_samples(), self.width)))
    }

    /// Length of one task's sums.
    pub fn n_sums(&self) -> usize {
        self.lanes.padded() * (self.width + 1)
    }

    /// What [`evaluate`](Self::evaluate) gives, from the sum of all tasks' sums.
    pub fn means(&self, sums: &[f64], n_samples: usize) -> Vec<f64> {
        let n_rows = self.width + 1;
        let mut means = vec![0.0; self.n_candidates * n_rows];
        for (candidate, row) in means.chunks_exact_mut(n_rows).enumerate() {
            let (at, step) = self.lanes.position(candidate, n_rows);
            for (k, mean) in row.iter_mut().enumerate() {
                *mean = sums[at + k * step] / n_samples as f64;
            }
            row[self.width] *= LN_2;
        }
        means
    }

    /// Of each task that is held, group-major sums over the part: the gradient's rows, then the base-2 loss.
    pub fn partial_sums(&self, design: &Design, params: &[f64], part: Part, cancel: &Cancel) -> Result<Vec<Vec<f64>>> {
        if design.n_coefficients() + 1 != self.width || design.labels().is_none() {
            let got = format!("{} coefficients", design.n_coefficients());
            return Err(Error::argument("x", got, format!("labelled samples of {} coefficients", self.width - 1)));
        }
        let weights = self.lanes.pack(params, self.width, LOG2_E);
        let class_weight = self.class_weight.map(|weight| weight as f32);
        let weighing = Weighing { bootstrap: self.bootstrap.as_ref(), class_weight };
        for_tasks(design.held(), self.width, part, |task| {
            let mut scratch = Scratch::new(&self.lanes, self.width);
            let mut sums = vec![0.0; self.n_sums()];
            for block in task.blocks(cancel) {
                self.lanes.accumulate((design, &weighing), block?, &weights, &mut scratch, &mut sums);
            }
            Ok(sums)
        })
    }
}
