//! Means and covariances of the columns of a sample, for the selection of channels.

use rayon::prelude::*;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Rows a task takes; partial sums are folded in the order of the rows.
pub const CHUNK: usize = 8192;

/// Population moments in double precision; `covariance` is (column, column), both halves filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pub mean: Vec<f64>,
    pub covariance: Vec<f64>,
}

/// Moments of `x` (row, column). Two passes, so that a large mean costs no precision; NaN and infinity are refused.
pub fn moments(x: &[f32], n_columns: usize, cancel: &Cancel) -> Result<Moments> {
    let n_rows = (x.len() / n_columns) as f64;
    let sums = fold(moment_sums(x, n_columns, None, cancel)?, n_columns);
    let mean: Vec<f64> = sums.into_iter().map(|sum| sum / n_rows).collect();
    let mut covariance = fold(moment_sums(x, n_columns, Some(&mean), cancel)?, n_columns * n_columns);
    for i in 0..n_columns {
        for j in i..n_columns {
            let value = covariance[i * n_columns + j] / n_rows;
            covariance[i * n_columns + j] = value;
            covariance[j * n_columns + i] = value;
        }
    }
    Ok(Moments { mean, covariance })
}

/// Of each chunk of [`CHUNK`] rows, the sums of the columns or, with their means as the `centre`, of the products of
/// their deviations (column, column), of which only the upper triangle is filled. NaN and infinity are refused.
pub fn moment_sums(x: &[f32], n_columns: usize, centre: Option<&[f64]>, cancel: &Cancel) -> Result<Vec<Vec<f64>>> {
    check_finite(x, n_columns)?;
    let add = |sums: &mut [f64], row: &[f32]| match centre {
        None => sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value)),
        Some(mean) => {
            for (i, products) in sums.chunks_exact_mut(n_columns).enumerate() {
                let left = f64::from(row[i]) - mean[i];
                for j in i..n_columns {
                    products[j] += left * (f64::from(row[j]) - mean[j]);
                }
            }
        }
    };
    let len = if centre.is_some() { n_columns * n_columns } else { n_columns };
    x.par_chunks(CHUNK * n_columns)
        .map(|chunk| {
            cancel.check()?;
            let mut sums = vec![0.0; len];
            chunk.chunks_exact(n_columns).for_each(|row| add(&mut sums, row));
            Ok(sums)
        })
        .collect()
}

/// Add the chunks up in order.
fn fold(chunks: Vec<Vec<f64>>, len: usize) -> Vec<f64> {
    chunks.into_iter().fold(vec![0.0; len], |mut total, sums| {
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        total
    })
}

fn check_finite(x: &[f32], n_columns: usize) -> Result<()> {
    let count = x.par_iter().filter(|value| !value.is_finite()).count();
    match x.iter().position(|value| !value.is_finite()) {
        Some(at) => {
            let got =
                format!("{count} non-finite values, the first in row {}, column {}", at / n_columns, at % n_columns);
            Err(Error::argument("x", got, "finite values only"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_small_table() {
        let found = moments(&[1.0, 2.0, 3.0, 6.0, 5.0, 10.0], 2, &Cancel::new()).unwrap();
        assert_eq!(found.mean, [3.0, 6.0]);
        let expected = [8.0 / 3.0, 16.0 / 3.0, 16.0 / 3.0, 32.0 / 3.0];
        assert!(found.covariance.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}
