//! The design matrix, never stored: rows [x', x'^2, g', 1] are formed a block at a time from the raw arrays.

use rayon::prelude::*;

use crate::{Cancel, Error, Result};

/// Samples scanned or summed between two looks at the cancel token.
const CHUNK: usize = 1 << 14;

/// Mean and standard deviation of each feature; x' = (x - mean) / scale and g' = g / scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardisation {
    mean: Vec<f64>,
    scale: Vec<f64>,
    /// 1 / scale: a product is cheaper than a quotient and every row takes one a feature.
    inverse: Vec<f64>,
}

impl Standardisation {
    pub fn new(mean: Vec<f64>, scale: Vec<f64>) -> Result<Self> {
        if mean.is_empty() || mean.len() != scale.len() {
            let got = format!("{} means and {} scales", mean.len(), scale.len());
            return Err(Error::argument("scale", got, "as many scales as means, at least one"));
        }
        if let Some(bad) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::argument("mean", bad, "finite numbers"));
        }
        if let Some(bad) = scale.iter().find(|value| !(value.is_finite() && **value > 1e-300)) {
            return Err(Error::argument("scale", bad, "finite numbers above 1e-300"));
        }
        let inverse = scale.iter().map(|value| 1.0 / value).collect();
        Ok(Self { mean, scale, inverse })
    }

    /// Of the columns of `x`, summed in float64 over fixed chunks. A constant column gets scale 1.
    pub fn of(x: &[f32], n_features: usize, cancel: &Cancel) -> Result<Self> {
        let n = (x.len() / n_features) as f64;
        let sums = column_sums(x, n_features, cancel, |_, value| value)?;
        let mut mean: Vec<f64> = sums.iter().map(|sum| sum / n).collect();
        let squares = column_sums(x, n_features, cancel, |f, value| (value - mean[f]) * (value - mean[f]))?;
        let mut scale: Vec<f64> = squares.iter().map(|sum| (sum / n).sqrt()).collect();
        for f in 0..n_features {
            // Rounding of the mean may leave a constant column a tiny deviation: ask the values themselves.
            if x.iter().skip(f).step_by(n_features).all(|&value| value == x[f]) {
                (mean[f], scale[f]) = (f64::from(x[f]), 1.0);
            }
        }
        Self::new(mean, scale)
    }

    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    pub(super) fn inverse_scale(&self) -> &[f64] {
        &self.inverse
    }

    pub fn n_features(&self) -> usize {
        self.mean.len()
    }
}

fn column_sums(
    x: &[f32],
    n_features: usize,
    cancel: &Cancel,
    term: impl Fn(usize, f64) -> f64 + Sync,
) -> Result<Vec<f64>> {
    let partial: Vec<Vec<f64>> = x
        .par_chunks(CHUNK * n_features)
        .map(|chunk| {
            cancel.check()?;
            let mut sums = vec![0.0; n_features];
            for row in chunk.chunks_exact(n_features) {
                for (f, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += term(f, f64::from(value));
                }
            }
            Ok(sums)
        })
        .collect::<Result<_>>()?;
    Ok(partial.iter().fold(vec![0.0; n_features], |mut total, sums| {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
        total
    }))
}

/// Refuse NaN and infinities in an array of `shape`, with their count and the first position.
pub fn check_finite(name: &'static str, values: &[f32], shape: &[usize], cancel: &Cancel) -> Result<()> {
    let bad: Vec<(usize, usize)> = values
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(i, chunk)| {
            cancel.check()?;
            let count = chunk.iter().filter(|value| !value.is_finite()).count();
            let first = chunk.iter().position(|value| !value.is_finite()).unwrap_or(0);
            Ok((count, i * CHUNK + first))
        })
        .collect::<Result<_>>()?;
    let count: usize = bad.iter().map(|(count, _)| count).sum();
    match bad.iter().find(|(count, _)| *count > 0) {
        None => Ok(()),
        Some((_, first)) => {
            let mut rest = *first;
            let mut position: Vec<usize> = shape.iter().rev().map(|&n| (rest % n, rest /= n).0).collect();
            position.reverse();
            let got = format!("{count} NaN or infinite values, the first at {position:?}");
            Err(Error::argument(name, got, "finite values"))
        }
    }
}

/// Borrowed samples: `x` and `gradient` (n_samples, n_features), raw, C order.
#[derive(Clone, Copy, Debug)]
pub struct Design<'a> {
    x: &'a [f32],
    gradient: Option<&'a [f32]>,
    labels: Option<&'a [u8]>,
    standard: &'a Standardisation,
}

impl<'a> Design<'a> {
    pub fn new(
        x: &'a [f32],
        gradient: Option<&'a [f32]>,
        labels: Option<&'a [u8]>,
        standard: &'a Standardisation,
    ) -> Result<Self> {
        let n_features = standard.n_features();
        if x.is_empty() || !x.len().is_multiple_of(n_features) {
            let accepted = format!("n_samples x {n_features} values, at least one sample");
            return Err(Error::argument("x", format!("{} values", x.len()), accepted));
        }
        if let Some(gradient) = gradient
            && gradient.len() != x.len()
        {
            let accepted = format!("the shape of x, {} values", x.len());
            return Err(Error::argument("gradient", format!("{} values", gradient.len()), accepted));
        }
        if let Some(labels) = labels {
            check_labels(labels, x.len() / n_features)?;
        }
        Ok(Self { x, gradient, labels, standard })
    }

    pub fn n_samples(&self) -> usize {
        self.x.len() / self.standard.n_features()
    }

    pub fn labels(&self) -> Option<&'a [u8]> {
        self.labels
    }

    /// Coefficients of a candidate without its intercept: w, alpha and, with gradients, beta.
    pub fn n_coefficients(&self) -> usize {
        self.standard.n_features() * if self.gradient.is_some() { 3 } else { 2 }
    }

    /// Every value finite, or an error with the count and the first position.
    pub fn check_finite(&self, cancel: &Cancel) -> Result<()> {
        let shape = [self.n_samples(), self.standard.n_features()];
        check_finite("x", self.x, &shape, cancel)?;
        self.gradient.map_or(Ok(()), |gradient| check_finite("gradient", gradient, &shape, cancel))
    }

    /// -1 for the positive class, +1 for the other and where there are no labels: the sign of the margin.
    pub fn sign(&self, sample: usize) -> f32 {
        match self.labels {
            Some(labels) if labels[sample] == 1 => -1.0,
            _ => 1.0,
        }
    }

    /// Write signed rows s [x', x'^2, g', 1] of `n` samples from `first`; the rest of `rows` becomes zero.
    pub fn fill_rows(&self, first: usize, n: usize, rows: &mut [f32]) {
        let n_features = self.standard.n_features();
        let width = self.n_coefficients() + 1;
        let (filled, rest) = rows.split_at_mut(n * width);
        rest.fill(0.0);
        for (i, row) in filled.chunks_exact_mut(width).enumerate() {
            let sample = first + i;
            let sign = self.sign(sample);
            let at = sample * n_features;
            let (linear, others) = row.split_at_mut(n_features);
            let (square, others) = others.split_at_mut(n_features);
            for (f, &raw) in self.x[at..at + n_features].iter().enumerate() {
                let value = standardised(raw, self.standard.mean[f], self.standard.inverse[f]);
                linear[f] = sign * value;
                square[f] = sign * (value * value);
            }
            if let Some(gradient) = self.gradient {
                for (f, &raw) in gradient[at..at + n_features].iter().enumerate() {
                    others[f] = sign * standardised(raw, 0.0, self.standard.inverse[f]);
                }
            }
            row[width - 1] = sign;
        }
    }
}

/// In float64, so that a large offset costs no digits.
#[inline(always)]
pub(super) fn standardised(raw: f32, mean: f64, inverse_scale: f64) -> f32 {
    ((f64::from(raw) - mean) * inverse_scale) as f32
}

fn check_labels(labels: &[u8], n_samples: usize) -> Result<()> {
    if labels.len() != n_samples {
        return Err(Error::argument("y", format!("{} labels", labels.len()), format!("{n_samples}, one a sample")));
    }
    let bad = labels.iter().filter(|&&label| label > 1).count();
    if let Some(first) = labels.iter().position(|&label| label > 1) {
        let got = format!("{bad} labels outside {{0, 1}}, the first {} at {first}", labels[first]);
        return Err(Error::argument("y", got, "labels 0 and 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_signed_and_padded() {
        let standard = Standardisation::new(vec![1.0, 0.0], vec![2.0, 1.0]).unwrap();
        let design = Design::new(&[5.0, 3.0], Some(&[4.0, 1.0]), Some(&[1]), &standard).unwrap();
        let mut rows = [9.0; 14];
        design.fill_rows(0, 1, &mut rows);
        assert_eq!(rows[..7], [-2.0, -3.0, -4.0, -9.0, -2.0, -1.0, -1.0]);
        assert_eq!(rows[7..], [0.0; 7]);
    }

    #[test]
    fn a_constant_column_gets_scale_one() {
        let x: Vec<f32> = (0..30_000).flat_map(|i| [0.1, i as f32]).collect();
        let standard = Standardisation::of(&x, 2, &Cancel::new()).unwrap();
        assert_eq!((standard.mean()[0], standard.scale()[0]), (f64::from(0.1f32), 1.0));
        assert!((standard.scale()[1] - (30_000f64 * 30_000.0 - 1.0).sqrt() / 12f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn bad_values_are_counted_and_located() {
        let error = check_finite("x", &[0.0, f32::NAN, 1.0, f32::INFINITY], &[2, 2], &Cancel::new()).unwrap_err();
        assert!(error.to_string().contains("2 NaN or infinite values, the first at [0, 1]"), "{error}");
        let standard = Standardisation::new(vec![0.0], vec![1.0]).unwrap();
        let error = Design::new(&[1.0, 2.0], None, Some(&[0, 2]), &standard).unwrap_err();
        assert!(error.to_string().contains("the first 2 at 1"), "{error}");
    }
}
