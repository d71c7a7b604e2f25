//! The design matrix, never stored: rows [x', x'^2, g', 1] are formed a block at a time from the raw arrays.

use rayon::prelude::*;

use super::pass::{Held, Part, fold, for_tasks};
use super::simd::{MAX_LANES, Simd};
use crate::{Cancel, Error, Result};

/// Values scanned between two looks at the cancel token.
const CHUNK: usize = 1 << 14;

/// Scales whose inverse is a normal float32.
const SCALES: std::ops::RangeInclusive<f64> = 1e-37..=1e37;

/// Mean and standard deviation of each feature; x' = (x - mean) / scale and g' = g / scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardisation {
    mean: Vec<f64>,
    scale: Vec<f64>,
    lanes: Lanes,
}

/// The same for the kernels, in float32 with the mean in two parts, so that a large offset costs no digits. Padded with
/// zeros to a whole vector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lanes {
    pub high: Vec<f32>,
    pub low: Vec<f32>,
    pub inverse: Vec<f32>,
}

impl Lanes {
    fn new(mean: &[f64], scale: &[f64]) -> Self {
        let padded = |values: Vec<f32>| {
            let n = values.len().next_multiple_of(MAX_LANES);
            values.into_iter().chain(std::iter::repeat(0.0)).take(n).collect()
        };
        Self {
            high: padded(mean.iter().map(|&mean| mean as f32).collect()),
            low: padded(mean.iter().map(|&mean| (mean - f64::from(mean as f32)) as f32).collect()),
            inverse: padded(scale.iter().map(|&scale| (1.0 / scale) as f32).collect()),
        }
    }

    /// x' = (x - mean) / scale of feature `f`.
    #[inline(always)]
    pub fn standardised(&self, f: usize, raw: f32) -> f32 {
        ((raw - self.high[f]) - self.low[f]) * self.inverse[f]
    }

    /// g' = g / scale of feature `f`.
    #[inline(always)]
    pub fn scaled(&self, f: usize, raw: f32) -> f32 {
        raw * self.inverse[f]
    }
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
        if let Some(bad) = mean.iter().find(|value| value.abs() > f64::from(f32::MAX)) {
            return Err(Error::argument("mean", bad, "numbers in the range of float32"));
        }
        if let Some(bad) = scale.iter().find(|value| !SCALES.contains(value)) {
            return Err(Error::argument("scale", bad, "numbers from 1e-37 to 1e37"));
        }
        let lanes = Lanes::new(&mean, &scale);
        Ok(Self { mean, scale, lanes })
    }

    /// Of the columns of `x`, summed in float64 over the tasks. A constant column, or one of a
    /// deviation that float32 cannot invert, gets scale 1.
    pub fn of(x: &[f32], n_features: usize, cancel: &Cancel) -> Result<Self> {
        let n = (x.len() / n_features) as f64;
        let of_all = |centre: Option<&[f64]>| Ok(fold(column_sums(x, n_features, centre, None, cancel)?));
        let mut mean: Vec<f64> = of_all(None)?.iter().map(|sum| sum / n).collect();
        let mut scale: Vec<f64> = of_all(Some(&mean))?.iter().map(|sum| (sum / n).sqrt()).collect();
        for f in 0..n_features {
            // Rounding of the mean may leave a constant column a tiny deviation: ask the values themselves.
            if x.iter().skip(f).step_by(n_features).all(|&value| value == x[f]) {
                (mean[f], scale[f]) = (f64::from(x[f]), 1.0);
            } else if scale[f] < *SCALES.start() {
                scale[f] = 1.0;
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

    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    pub fn n_features(&self) -> usize {
        self.mean.len()
    }
}

/// Of each task that is held, the sums of the columns, or of their squared distances from `centre`. Without `window` all
/// samples are held; with it, `x` are the samples from window.0 on of window.1.
pub fn column_sums(
    x: &[f32],
    n_features: usize,
    centre: Option<&[f64]>,
    window: Option<(usize, usize)>,
    cancel: &Cancel,
) -> Result<Vec<Vec<f64>>> {
    let held = held(x.len() / n_features, window)?;
    for_tasks(held, n_features, Part::ALL, |task| {
        let mut sums = vec![0.0; n_features];
        for block in task.blocks(cancel) {
            let (first, n) = block?;
            let from = (first - held.first) * n_features;
            for row in x[from..from + n * n_features].chunks_exact(n_features) {
                for (f, (sum, &value)) in sums.iter_mut().zip(row).enumerate() {
                    let value = f64::from(value);
                    *sum += centre.map_or(value, |centre| (value - centre[f]) * (value - centre[f]));
                }
            }
        }
        Ok(sums)
    })
}

/// `n` samples: all there are, or those from window.0 on of window.1.
fn held(n: usize, window: Option<(usize, usize)>) -> Result<Held> {
    let Some((first, total)) = window else { return Ok(Held::all(n)) };
    if first.checked_add(n).is_none_or(|end| end > total) {
        return Err(Error::argument("first", format!("{n} samples from {first}"), format!("samples below {total}")));
    }
    Ok(Held { first, n, total })
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

/// Borrowed samples: `x` and `gradient` (n_samples, n_features), raw, C order. They may be a window of a larger set
/// whose other samples other processes hold; samples are numbered as in the whole set.
#[derive(Clone, Copy, Debug)]
pub struct Design<'a> {
    x: &'a [f32],
    gradient: Option<&'a [f32]>,
    labels: Option<&'a [u8]>,
    standard: &'a Standardisation,
    held: Held,
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
        let held = Held::all(x.len() / n_features);
        Ok(Self { x, gradient, labels, standard, held })
    }

    /// The same as the samples from `first` on of `n_samples`.
    pub fn within(self, first: usize, n_samples: usize) -> Result<Self> {
        Ok(Self { held: held(self.held.n, Some((first, n_samples)))?, ..self })
    }

    /// Of the whole set.
    pub fn n_samples(&self) -> usize {
        self.held.total
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// Labels of `n` samples from `first`.
    pub(super) fn labels_of(&self, first: usize, n: usize) -> Option<&'a [u8]> {
        self.labels.map(|labels| &labels[first - self.held.first..][..n])
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
        let shape = [self.held.n, self.standard.n_features()];
        check_finite("x", self.x, &shape, cancel)?;
        self.gradient.map_or(Ok(()), |gradient| check_finite("gradient", gradient, &shape, cancel))
    }

    /// -1 for the positive class, +1 for the other and where there are no labels: the sign of the margin.
    pub fn sign(&self, sample: usize) -> f32 {
        // Arithmetic, not a branch: labels come in no order that a processor could guess.
        self.labels.map_or(1.0, |labels| 1.0 - 2.0 * f32::from(labels[sample - self.held.first]))
    }

    /// Write signed rows s [x', x'^2, g', 1] of `n` samples from `first`; the rest of `rows` becomes zero.
    pub fn fill_rows(&self, first: usize, n: usize, rows: &mut [f32]) {
        let n_features = self.standard.n_features();
        let width = self.n_coefficients() + 1;
        let lanes = self.standard.lanes();
        let (filled, rest) = rows.split_at_mut(n * width);
        rest.fill(0.0);
        for (i, row) in filled.chunks_exact_mut(width).enumerate() {
            let sample = first + i;
            let sign = self.sign(sample);
            let at = (sample - self.held.first) * n_features;
            let (linear, others) = row.split_at_mut(n_features);
            let (square, others) = others.split_at_mut(n_features);
            for (f, &raw) in self.x[at..at + n_features].iter().enumerate() {
                let value = lanes.standardised(f, raw);
                linear[f] = sign * value;
                square[f] = linear[f] * value;
            }
            if let Some(gradient) = self.gradient {
                for (f, &raw) in gradient[at..at + n_features].iter().enumerate() {
                    others[f] = sign * lanes.scaled(f, raw);
                }
            }
            row[width - 1] = sign;
        }
    }

    /// The same rows, the same bits, by whole vectors; what stands behind row `n` is left as it falls.
    ///
    /// # Safety
    /// As for [`Simd`]. `rows` has room for one vector behind the last row.
    #[inline(always)]
    pub(super) unsafe fn fill_rows_simd<V: Simd>(&self, first: usize, n: usize, rows: &mut [f32]) {
        let n_features = self.standard.n_features();
        let width = self.n_coefficients() + 1;
        debug_assert!(rows.len() >= n * width + V::LANES);
        // A vector read from the last samples would end behind the arrays.
        let behind = V::LANES.div_ceil(n_features);
        let at = first - self.held.first;
        let whole = n.min(self.held.n.saturating_sub(at + behind));
        let lanes = self.standard.lanes();
        let (high, low, inverse) = (lanes.high.as_ptr(), lanes.low.as_ptr(), lanes.inverse.as_ptr());
        // SAFETY: sample first + i + behind is held, so a vector from any of its features lies in the arrays; a vector
        // written beyond a part of the row lands in parts that are written after it, or in the room behind.
        unsafe {
            let mut x = self.x.as_ptr().add(at * n_features);
            let mut gradient = self.gradient.map(|gradient| gradient.as_ptr().add(at * n_features));
            let mut row = rows.as_mut_ptr();
            for i in 0..whole {
                let sign = self.sign(first + i);
                let signs = V::splat(sign);
                for f in (0..n_features).step_by(V::LANES) {
                    let value = V::load(x.add(f)).sub(V::load(high.add(f))).sub(V::load(low.add(f)));
                    signs.mul(value.mul(V::load(inverse.add(f)))).store(row.add(f));
                }
                for f in (0..n_features).step_by(V::LANES) {
                    let value = V::load(row.add(f));
                    signs.mul(value.mul(value)).store(row.add(n_features + f));
                }
                if let Some(gradient) = &mut gradient {
                    for f in (0..n_features).step_by(V::LANES) {
                        let value = V::load(gradient.add(f)).mul(V::load(inverse.add(f)));
                        signs.mul(value).store(row.add(2 * n_features + f));
                    }
                    *gradient = gradient.add(n_features);
                }
                *row.add(width - 1) = sign;
                x = x.add(n_features);
                row = row.add(width);
            }
        }
        if whole < n {
            self.fill_rows(first + whole, n - whole, &mut rows[whole * width..n * width]);
        }
    }
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
