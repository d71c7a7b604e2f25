//! Mean and standard deviation of the input, and its rows in standard units.

use rayon::prelude::*;

use super::simd::multiversion;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Partial sums are taken over chunks of this size and folded in order, whatever the number of threads.
const CHUNK: usize = 1 << 16;

/// A voxel type that features can be taken of.
pub trait Voxel: Copy + Send + Sync {
    fn as_f64(self) -> f64;

    /// `out = (row - mean) * inverse_std`.
    fn standardise(out: &mut [f32], row: &[Self], mean: f64, inverse_std: f64);
}

macro_rules! voxel {
    ($($type:ty),*) => {$(
        impl Voxel for $type {
            #[inline]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }

            multiversion! {
                fn standardise(out: &mut [f32], row: &[$type], mean: f64, inverse_std: f64) {
                    for (out, &value) in out.iter_mut().zip(row) {
                        // In double precision: the values of a float volume may span any range.
                        *out = ((f64::from(value) - mean) * inverse_std) as f32;
                    }
                }
            }
        }
    )*};
}

voxel!(u8, u16, f32);

/// What the channels are measured against: `std` is 1 for a constant volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    pub mean: f64,
    pub std: f64,
}

impl Statistics {
    /// Refuses non-finite values with their count and the first one's position.
    pub fn of<T: Voxel>(values: &[T], shape: [usize; 3], cancel: &Cancel) -> Result<Self> {
        let partials = fold_chunks(values, cancel, Partial::of)?;
        let total = partials.into_iter().enumerate().fold(Partial::EMPTY, |total, (chunk, partial)| {
            let first_bad = total.first_bad.or(partial.first_bad.map(|at| at + chunk * CHUNK));
            Partial {
                sum: total.sum + partial.sum,
                least: total.least.min(partial.least),
                most: total.most.max(partial.most),
                n_bad: total.n_bad + partial.n_bad,
                first_bad,
            }
        });
        if let Some(first) = total.first_bad {
            let (z, y, x) = (first / (shape[1] * shape[2]), first / shape[2] % shape[1], first % shape[2]);
            let got = format!("{} non-finite values, the first at (z, y, x) = ({z}, {y}, {x})", total.n_bad);
            return Err(Error::argument("volume", got, "finite values only"));
        }
        if total.least >= total.most {
            // Constant (or empty): taken literally, so that rounding of the mean is not blown up to a signal.
            return Ok(Self { mean: if values.is_empty() { 0.0 } else { total.least }, std: 1.0 });
        }
        let mean = total.sum / values.len() as f64;
        let squares =
            fold_chunks(values, cancel, |chunk| chunk.iter().map(|v| (v.as_f64() - mean).powi(2)).sum::<f64>())?;
        let std = (squares.into_iter().sum::<f64>() / values.len() as f64).sqrt();
        Ok(Self { mean, std })
    }
}

struct Partial {
    sum: f64,
    least: f64,
    most: f64,
    n_bad: usize,
    first_bad: Option<usize>,
}

impl Partial {
    const EMPTY: Self = Self { sum: 0.0, least: f64::INFINITY, most: f64::NEG_INFINITY, n_bad: 0, first_bad: None };

    fn of<T: Voxel>(chunk: &[T]) -> Self {
        chunk.iter().enumerate().fold(Self::EMPTY, |mut partial, (at, &value)| {
            let value = value.as_f64();
            if value.is_finite() {
                partial.sum += value;
                partial.least = partial.least.min(value);
                partial.most = partial.most.max(value);
            } else {
                partial.n_bad += 1;
                partial.first_bad = partial.first_bad.or(Some(at));
            }
            partial
        })
    }
}

/// `of` every chunk, in order.
fn fold_chunks<T: Voxel, P: Send>(values: &[T], cancel: &Cancel, of: impl Fn(&[T]) -> P + Sync) -> Result<Vec<P>> {
    let one = |chunk: &[T]| {
        cancel.check()?;
        Ok(of(chunk))
    };
    values.par_chunks(CHUNK).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation() {
        let volume = [1u16, 2, 3, 4, 5, 6, 7, 8];
        let found = Statistics::of(&volume, [2, 2, 2], &Cancel::new()).unwrap();
        assert_eq!((found.mean, found.std), (4.5, 5.25f64.sqrt()));
    }

    #[test]
    fn a_constant_keeps_its_value_and_a_unit_deviation() {
        let found = Statistics::of(&[0.1f32; 1000], [10, 10, 10], &Cancel::new()).unwrap();
        assert_eq!((found.mean, found.std), (f64::from(0.1f32), 1.0));
    }

    #[test]
    fn non_finite_values_are_counted_and_placed() {
        let mut volume = vec![0f32; 3 * CHUNK];
        volume[CHUNK + 5] = f32::NAN;
        volume[2 * CHUNK] = f32::INFINITY;
        let error = Statistics::of(&volume, [3, 256, 256], &Cancel::new()).unwrap_err().to_string();
        assert!(error.contains("2 non-finite") && error.contains("(1, 0, 5)"), "{error}");
    }
}
