//! The inner problem of proximal Newton: an elastic net with a quadratic datafit and a free intercept, by coordinate
//! descent in float64.

use super::penalty::{ElasticNet, soft_threshold};
use crate::{Cancel, Result};

/// Sweeps stop when the largest coordinate step, in the Hessian's norm, is this small against the first sweep's...
const TOLERANCE: f64 = 1e-5;
/// ...or here: what is left is still a direction of descent.
const MAX_SWEEPS: usize = 2000;
/// Keeps a Hessian of duplicated columns definite, in units of the mean diagonal.
const RIDGE: f64 = 1e-10;

/// A symmetric matrix with rows of `stride`; coefficients first, the intercept at `width - 1`.
#[derive(Clone, Debug)]
pub(super) struct Hessian {
    pub values: Vec<f64>,
    pub stride: usize,
    pub width: usize,
}

impl Hessian {
    fn row(&self, k: usize) -> &[f64] {
        &self.values[k * self.stride..][..self.width]
    }

    /// Add `damping` times the mean diagonal to the diagonal.
    fn damp(&mut self, damping: f64) {
        let mean = (0..self.width).map(|k| self.values[k * (self.stride + 1)]).sum::<f64>() / self.width as f64;
        for k in 0..self.width {
            self.values[k * (self.stride + 1)] += (damping + RIDGE) * mean;
        }
    }

    /// Minimise over the intercept, which has no penalty: what is left is a problem of the coefficients alone, and
    /// coordinate descent need not follow the columns that all have a mean.
    fn eliminate_intercept(&self, gradient: &[f64]) -> (Self, Vec<f64>) {
        let free = self.width - 1;
        let intercept = self.row(free);
        let mut reduced = Self { values: self.values.clone(), stride: self.stride, width: free };
        let mut gradient = gradient.to_vec();
        let slope = gradient[free];
        gradient.truncate(free);
        if intercept[free] > 0.0 {
            for k in 0..free {
                let factor = intercept[k] / intercept[free];
                gradient[k] -= factor * slope;
                for l in 0..free {
                    reduced.values[k * self.stride + l] -= factor * intercept[l];
                }
            }
        }
        (reduced, gradient)
    }
}

/// The params u that minimise gradient.(u - from) + (u - from)'H(u - from) / 2 + penalty(u).
pub(super) fn minimise(
    mut hessian: Hessian,
    gradient: &[f64],
    from: &[f64],
    penalty: ElasticNet,
    damping: f64,
    cancel: &Cancel,
) -> Result<Vec<f64>> {
    hessian.damp(damping);
    let free = hessian.width - 1;
    let (reduced, reduced_gradient) = hessian.eliminate_intercept(gradient);
    let mut next = coordinate_descent(&reduced, reduced_gradient, &from[..free], penalty, cancel)?;
    let intercept = hessian.row(free);
    let moved: f64 = (0..free).map(|k| intercept[k] * (next[k] - from[k])).sum();
    let step = if intercept[free] > 0.0 { (gradient[free] + moved) / intercept[free] } else { 0.0 };
    next.push(from[free] - step);
    Ok(next)
}

/// Full sweeps find the support, sweeps over the support alone do the rest.
fn coordinate_descent(
    hessian: &Hessian,
    mut gradient: Vec<f64>,
    from: &[f64],
    penalty: ElasticNet,
    cancel: &Cancel,
) -> Result<Vec<f64>> {
    let mut params = from.to_vec();
    let everything: Vec<usize> = (0..params.len()).collect();
    let first = sweep(hessian, &mut gradient, &mut params, &everything, penalty);
    let small = TOLERANCE * TOLERANCE * first;
    let mut sweeps = 1;
    while sweeps < MAX_SWEEPS {
        cancel.check()?;
        let support: Vec<usize> = everything.iter().copied().filter(|&k| params[k] != 0.0).collect();
        while sweeps < MAX_SWEEPS {
            sweeps += 1;
            if sweep(hessian, &mut gradient, &mut params, &support, penalty) <= small {
                break;
            }
        }
        sweeps += 1;
        if sweep(hessian, &mut gradient, &mut params, &everything, penalty) <= small {
            break;
        }
    }
    Ok(params)
}

/// Minimise over each of `coordinates` in turn; `gradient` is that of the quadratic at `params` and stays so. Returns the
/// largest squared step in the Hessian's norm.
fn sweep(
    hessian: &Hessian,
    gradient: &mut [f64],
    params: &mut [f64],
    coordinates: &[usize],
    penalty: ElasticNet,
) -> f64 {
    let mut largest: f64 = 0.0;
    for &k in coordinates {
        let row = hessian.row(k);
        let curvature = row[k] + penalty.l2;
        let next = if curvature > 0.0 {
            soft_threshold(row[k] * params[k] - gradient[k], penalty.l1) / curvature
        } else if gradient[k].abs() <= penalty.l1 {
            0.0 // a column of zeros under a penalty; without one its coefficient may be anything, so zero too
        } else {
            params[k]
        };
        let step = next - params[k];
        if step != 0.0 {
            params[k] = next;
            gradient.iter_mut().zip(row).for_each(|(g, h)| *g += step * h);
            largest = largest.max(step * step * curvature);
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> (Hessian, Vec<f64>, Vec<f64>) {
        // B'B / 5 for generic B, padded to a stride of 4.
        let rows = [[1.0, 0.5, 1.0], [-0.3, 2.0, 1.0], [0.7, -1.0, 1.0], [2.0, 0.1, 1.0], [-1.0, 0.4, 1.0]];
        let mut values = vec![0.0; 12];
        for row in rows {
            for k in 0..3 {
                for l in 0..3 {
                    values[k * 4 + l] += row[k] * row[l] / 5.0;
                }
            }
        }
        (Hessian { values, stride: 4, width: 3 }, vec![0.4, -0.05, 0.3], vec![0.2, -0.1, 0.5])
    }

    #[test]
    fn the_minimum_is_stationary() {
        for penalty in
            [ElasticNet { l1: 0.0, l2: 0.0 }, ElasticNet { l1: 0.1, l2: 0.05 }, ElasticNet { l1: 9.0, l2: 0.0 }]
        {
            let (hessian, gradient, from) = problem();
            let next = minimise(hessian.clone(), &gradient, &from, penalty, 0.0, &Cancel::new()).unwrap();
            let slope: Vec<f64> = (0..3)
                .map(|k| gradient[k] + (0..3).map(|l| hessian.row(k)[l] * (next[l] - from[l])).sum::<f64>())
                .collect();
            assert!(super::super::certificate::stationarity(penalty, &next, &slope) < 1e-6, "{next:?} {slope:?}");
            assert!(penalty.l1 < 9.0 || next[..2] == [0.0, 0.0]);
        }
    }

    #[test]
    fn duplicated_and_empty_columns_end() {
        let values = vec![1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let hessian = Hessian { values, stride: 4, width: 4 };
        let none = ElasticNet { l1: 0.0, l2: 0.0 };
        let next = minimise(hessian, &[1.0, 1.0, 0.0, 0.5], &[0.0; 4], none, 0.0, &Cancel::new()).unwrap();
        assert!((next[0] + next[1] + 1.0).abs() < 1e-6 && next[2] == 0.0 && (next[3] + 0.5).abs() < 1e-6, "{next:?}");
    }
}
