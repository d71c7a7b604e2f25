//! The candidate grid: meta-neurons x l1 x l2, neuron-major.

use super::penalty::ElasticNet;
use crate::{Error, Result};

/// More candidates than this are refused: the grid is a product and a typing slip grows fast.
pub const MAX_CANDIDATES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    n_neurons: usize,
    l1: Vec<f64>,
    l2: Vec<f64>,
}

/// The part of a grid that has one l1.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub grid: Grid,
    /// Where the stage's candidates stand in the whole grid.
    pub candidates: Vec<usize>,
}

impl Grid {
    pub fn new(n_neurons: usize, l1: Vec<f64>, l2: Vec<f64>) -> Result<Self> {
        for (name, values) in [("l1", &l1), ("l2", &l2)] {
            if values.is_empty() {
                return Err(Error::argument(name, "no value", "at least one number >= 0"));
            }
            if let Some(bad) = values.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
                return Err(Error::argument(name, bad, "finite numbers >= 0"));
            }
        }
        let n_candidates = n_neurons.checked_mul(l1.len()).and_then(|n| n.checked_mul(l2.len()));
        if n_neurons == 0 || n_candidates.is_none_or(|n| n > MAX_CANDIDATES) {
            let got = format!("{n_neurons} with {} l1 and {} l2 values", l1.len(), l2.len());
            return Err(Error::argument("meta_neurons", got, format!("1 to {MAX_CANDIDATES} candidates in all")));
        }
        Ok(Self { n_neurons, l1, l2 })
    }

    pub fn n_neurons(&self) -> usize {
        self.n_neurons
    }

    pub fn per_neuron(&self) -> usize {
        self.l1.len() * self.l2.len()
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.n_neurons * self.per_neuron()
    }

    pub fn is_empty(&self) -> bool {
        false // `new` accepts no empty axis
    }

    pub fn neuron(&self, candidate: usize) -> usize {
        candidate / self.per_neuron()
    }

    /// Stages of the regularisation path: the candidates of one l1 each, from the largest down.
    pub(super) fn path(&self) -> Vec<Stage> {
        let mut order: Vec<usize> = (0..self.l1.len()).collect();
        order.sort_by(|&a, &b| self.l1[b].total_cmp(&self.l1[a]));
        let first = |neuron: usize, i: usize| (neuron * self.l1.len() + i) * self.l2.len();
        order
            .into_iter()
            .map(|i| Stage {
                grid: Self { l1: vec![self.l1[i]], ..self.clone() },
                candidates: (0..self.n_neurons)
                    .flat_map(|neuron| first(neuron, i)..first(neuron, i) + self.l2.len())
                    .collect(),
            })
            .collect()
    }

    pub fn penalty(&self, candidate: usize) -> ElasticNet {
        let within = candidate % self.per_neuron();
        ElasticNet { l1: self.l1[within / self.l2.len()], l2: self.l2[within % self.l2.len()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_neuron_major() {
        let grid = Grid::new(9, vec![1.0, 2.0, 3.0, 4.0, 5.0], vec![0.1, 0.2, 0.3]).unwrap();
        assert_eq!((grid.len(), grid.per_neuron()), (135, 15));
        let candidate = (7 * 5 + 3) * 3 + 2;
        assert_eq!(grid.neuron(candidate), 7);
        assert_eq!(grid.penalty(candidate), ElasticNet { l1: 4.0, l2: 0.3 });
    }

    #[test]
    fn the_path_descends_and_covers_the_grid() {
        let grid = Grid::new(3, vec![0.1, 0.3, 0.2], vec![1.0, 2.0]).unwrap();
        let path = grid.path();
        let l1: Vec<f64> = path.iter().map(|stage| stage.grid.penalty(0).l1).collect();
        assert_eq!(l1, [0.3, 0.2, 0.1]);
        let mut seen: Vec<usize> = path.iter().flat_map(|stage| stage.candidates.clone()).collect();
        for stage in &path {
            for (within, &candidate) in stage.candidates.iter().enumerate() {
                assert_eq!(stage.grid.penalty(within), grid.penalty(candidate));
                assert_eq!(stage.grid.neuron(within), grid.neuron(candidate));
            }
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..grid.len()));
    }

    #[test]
    fn silly_grids_are_refused() {
        assert!(Grid::new(0, vec![1.0], vec![1.0]).is_err());
        assert!(Grid::new(1, vec![], vec![1.0]).is_err());
        assert!(Grid::new(1, vec![-1.0], vec![1.0]).is_err());
        assert!(Grid::new(1, vec![1.0], vec![f64::NAN]).is_err());
        assert!(Grid::new(usize::MAX, vec![1.0; 2], vec![1.0]).is_err());
    }
}
