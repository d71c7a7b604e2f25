//! Lipschitz constant of the datafit's gradient: a quarter of the largest eigenvalue of the rows' second moment.

use super::bootstrap::initial_coefficients;
use super::design::Design;
use super::kernel::block_len;
use super::pass::{Part, fold, for_tasks};
use crate::{Cancel, Result};

const POWER_ITERATIONS: usize = 1000;
const TOLERANCE: f64 = 1e-10;

/// L = lambda_max(A' diag(c) A / n) / 4 over rows A = [x', x'^2, g', 1] and class weights c.
///
/// All samples count once: a neuron's bootstrap weights have mean one and move its own L a little. Power iteration on
/// the exact moment matrix, from a fixed start.
pub fn lipschitz(design: &Design, class_weight: [f64; 2], cancel: &Cancel) -> Result<f64> {
    Ok(lipschitz_of(fold(moment_sums(design, class_weight, cancel)?), design.n_samples()))
}

/// Of each task that is held, the upper triangle of A' diag(c) A, row-major.
pub fn moment_sums(design: &Design, class_weight: [f64; 2], cancel: &Cancel) -> Result<Vec<Vec<f64>>> {
    let width = design.n_coefficients() + 1;
    let block = block_len(width);
    for_tasks(design.held(), width, Part::ALL, |task| {
        let mut rows = vec![0.0; block * width];
        let mut moment = vec![0.0; width * width];
        for range in task.blocks(cancel) {
            let (first, n) = range?;
            design.fill_rows(first, n, &mut rows);
            for (i, row) in rows[..n * width].chunks_exact(width).enumerate() {
                let weight = class_weight[usize::from(design.sign(first + i) < 0.0)];
                add_outer_product(row, weight, &mut moment);
            }
        }
        Ok(moment)
    })
}

/// [`lipschitz`] from the sum of all tasks' [`moment_sums`].
pub fn lipschitz_of(mut moment: Vec<f64>, n_samples: usize) -> f64 {
    let width = moment.len().isqrt();
    for a in 0..width {
        for b in a..width {
            moment[a * width + b] /= n_samples as f64;
            moment[b * width + a] = moment[a * width + b];
        }
    }
    0.25 * largest_eigenvalue(&moment, width)
}

/// Upper triangle only.
fn add_outer_product(row: &[f32], weight: f64, moment: &mut [f64]) {
    let width = row.len();
    for (a, &left) in row.iter().enumerate() {
        let left = weight * f64::from(left);
        for (sum, &right) in moment[a * width + a..(a + 1) * width].iter_mut().zip(&row[a..]) {
            *sum += left * f64::from(right);
        }
    }
}

fn largest_eigenvalue(matrix: &[f64], width: usize) -> f64 {
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    // A generic start, so that it is not orthogonal to the leading eigenvector by some symmetry of the data.
    let mut vector = vec![0.0; width];
    initial_coefficients(0, 0, 1.0, &mut vector);
    let mut eigenvalue = 0.0;
    for _ in 0..POWER_ITERATIONS {
        let length = norm(&vector);
        if length == 0.0 || !length.is_finite() {
            return length;
        }
        vector.iter_mut().for_each(|x| *x /= length);
        let product: Vec<f64> =
            matrix.chunks_exact(width).map(|row| row.iter().zip(&vector).map(|(m, x)| m * x).sum()).collect();
        let previous = std::mem::replace(&mut eigenvalue, norm(&product));
        vector = product;
        if (eigenvalue - previous).abs() <= TOLERANCE * eigenvalue {
            break;
        }
    }
    eigenvalue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalue_of_a_known_matrix() {
        assert!((largest_eigenvalue(&[2.0, 1.0, 1.0, 2.0], 2) - 3.0).abs() < 1e-8);
        // The largest column belongs to the smaller eigenvalue here.
        let blocks = [3.0, 0.0, 0.0, 0.0, 2.0, 2.0, 0.0, 2.0, 2.0];
        assert!((largest_eigenvalue(&blocks, 3) - 4.0).abs() < 1e-8);
        assert_eq!(largest_eigenvalue(&[0.0], 1), 0.0);
    }
}
