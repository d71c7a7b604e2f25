//! Eigenvalues of symmetric 3x3 matrices in closed form, a row of voxels at a time, and the measures made of them.
//!
//! The trigonometric solution of the characteristic cubic (O. K. Smith, 1961), in double precision and with
//! polynomials in place of the library's `acos`, `cos` and `sin`: branch-free, hence vectorised, and the same
//! bits everywhere. The error is below 2e-7 of the matrix' deviator norm; equal eigenvalues need no special case.

use std::f64::consts::PI;

use super::simd::multiversion;

/// Rows of a symmetric matrix in the order zz, yy, xx, zy, zx, yx.
pub type Tensor = [Vec<f32>; 6];

/// Added to the trace under planarity's fraction, in squared standard units: where there is no texture at all,
/// rounding noise must not pass for an orientation.
const PLANARITY_FLOOR: f64 = 1e-6;

/// Largest, middle, smallest.
#[inline(always)]
fn eigenvalues([zz, yy, xx, zy, zx, yx]: [f32; 6]) -> [f64; 3] {
    // Spelled out: a `map` that is not inlined would keep the loop around this from being vectorised.
    let (a, b, c) = (f64::from(zz), f64::from(yy), f64::from(xx));
    let (d, e, f) = (f64::from(zy), f64::from(zx), f64::from(yx));
    let mean = (a + b + c) / 3.0;
    let (a, b, c) = (a - mean, b - mean, c - mean);
    let p = ((a * a + b * b + c * c + 2.0 * (d * d + e * e + f * f)) / 6.0).sqrt();
    let half_det = 0.5 * (a * (b * c - f * f) - d * (d * c - e * f) + e * (d * f - b * e));
    let cube = p * p * p;
    let ratio = if cube > 0.0 { half_det / cube } else { 0.0 };
    let angle = acos(ratio.clamp(-1.0, 1.0)) / 3.0;
    let (cos, sin) = cos_sin(angle);
    let sin = sin * 3f64.sqrt();
    [mean + 2.0 * p * cos, mean - p * (cos - sin), mean - p * (cos + sin)]
}

/// Abramowitz and Stegun 4.4.46; absolute error below 2e-8.
#[inline(always)]
fn acos(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        -0.0012624911,
        0.0066700901,
        -0.0170881256,
        0.0308918810,
        -0.0501743046,
        0.0889789874,
        -0.2145988016,
        1.5707963050,
    ];
    let size = x.abs();
    let positive = (1.0 - size).sqrt() * horner(&COEFFICIENTS, size);
    if x < 0.0 { PI - positive } else { positive }
}

/// Taylor polynomials; absolute error below 2e-10 on [0, pi/3].
#[inline(always)]
fn cos_sin(x: f64) -> (f64, f64) {
    const COS: [f64; 7] = [1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0];
    const SIN: [f64; 6] = [-1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0];
    let square = x * x;
    (horner(&COS, square), x * horner(&SIN, square))
}

#[inline(always)]
fn horner<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut value = coefficients[0];
    for &coefficient in &coefficients[1..] {
        value = value * x + coefficient;
    }
    value
}

/// Voxels that are taken together into local arrays: known not to overlap, they let the loop over them vectorise.
const BLOCK: usize = 64;

/// The matrices of the voxels from `start` on, component by component; zeros beyond the row's end.
#[inline(always)]
fn load(tensor: &Tensor, start: usize, len: usize) -> [[f32; BLOCK]; 6] {
    let mut block = [[0.0; BLOCK]; 6];
    for (local, row) in block.iter_mut().zip(tensor) {
        local[..len].copy_from_slice(&row[start..start + len]);
    }
    block
}

#[inline(always)]
fn matrix(block: &[[f32; BLOCK]; 6], i: usize) -> [f32; 6] {
    [block[0][i], block[1][i], block[2][i], block[3][i], block[4][i], block[5][i]]
}

multiversion! {
    /// The smallest (most negative) eigenvalue of each Hessian, and the sheetness: the amount by which the
    /// eigenvalue of largest magnitude exceeds the second, positive on bright sheets, negative on dark ones.
    pub fn ridge_and_sheetness(ridge: &mut [f32], sheetness: &mut [f32], hessian: &Tensor) {
        for start in (0..ridge.len()).step_by(BLOCK) {
            let len = BLOCK.min(ridge.len() - start);
            let block = load(hessian, start, len);
            let (mut lows, mut excesses) = ([0f32; BLOCK], [0f32; BLOCK]);
            for i in 0..BLOCK {
                let [high, middle, low] = eigenvalues(matrix(&block, i));
                // One of the two outer eigenvalues has the largest magnitude; the rest compete for second place.
                let bright = -low > high;
                let (first, other) = if bright { (-low, high) } else { (high, low) };
                let excess = (first.abs() - middle.abs().max(other.abs())).max(0.0);
                lows[i] = low as f32;
                excesses[i] = (if bright { excess } else { 0.0 - excess }) as f32;
            }
            ridge[start..start + len].copy_from_slice(&lows[..len]);
            sheetness[start..start + len].copy_from_slice(&excesses[..len]);
        }
    }
}

multiversion! {
    /// `(m1 - m2) / (m1 + m2 + m3 + floor)` with m1 >= m2 >= m3 the structure tensor's eigenvalues: 1 where all
    /// gradients share one direction (a plane), 0 where the two strongest directions are equal.
    pub fn planarity(out: &mut [f32], tensor: &Tensor) {
        for start in (0..out.len()).step_by(BLOCK) {
            let len = BLOCK.min(out.len() - start);
            let block = load(tensor, start, len);
            let mut found = [0f32; BLOCK];
            for (i, found) in found.iter_mut().enumerate() {
                let [high, middle, low] = eigenvalues(matrix(&block, i));
                // The tensor is positive semi-definite up to rounding; clamp what rounding did.
                let trace = (high + middle + low).max(0.0);
                *found = ((high - middle) / (trace + PLANARITY_FLOOR)).clamp(0.0, 1.0) as f32;
            }
            out[start..start + len].copy_from_slice(&found[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn determinant([a, b, c, d, e, f]: [f64; 6]) -> f64 {
        a * (b * c - f * f) - d * (d * c - e * f) + e * (d * f - b * e)
    }

    proptest! {
        /// Sum, sum of squares and product of the eigenvalues are the matrix' own invariants.
        #[test]
        fn invariants_hold(m in prop::array::uniform6(-100f32..100.0)) {
            let [high, middle, low] = eigenvalues(m);
            let wide = m.map(f64::from);
            let [a, b, c, d, e, f] = wide;
            let norm = (a * a + b * b + c * c + 2.0 * (d * d + e * e + f * f)).sqrt().max(1e-30);
            prop_assert!(high >= middle - 1e-9 * norm && middle >= low - 1e-9 * norm);
            prop_assert!((high + middle + low - (a + b + c)).abs() < 1e-12 * norm);
            prop_assert!((high * high + middle * middle + low * low - norm * norm).abs() < 1e-6 * norm * norm);
            prop_assert!((high * middle * low - determinant(wide)).abs() < 1e-6 * norm.powi(3));
        }

        /// A rotated diagonal matrix with two equal entries: the hard case of the cubic.
        #[test]
        fn equal_eigenvalues_are_found(pair in -10f64..10.0, single in -10f64..10.0, axis in prop::array::uniform3(-1f64..1.0)) {
            let norm = axis.iter().map(|v| v * v).sum::<f64>().sqrt();
            prop_assume!(norm > 0.1);
            let [z, y, x] = axis.map(|v| v / norm);
            let rise = single - pair;
            let m = [pair + rise * z * z, pair + rise * y * y, pair + rise * x * x, rise * z * y, rise * z * x, rise * y * x];
            let mut expected = [pair, pair, single];
            expected.sort_by(|a, b| b.total_cmp(a));
            for (found, expected) in eigenvalues(m.map(|v| v as f32)).into_iter().zip(expected) {
                prop_assert!((found - expected).abs() < 1e-4, "{found} {expected}"); // the input is rounded to f32
            }
        }
    }

    #[test]
    fn extremes_stay_finite() {
        for value in [0.0, f32::MIN_POSITIVE, 1e-45, 1e30, -1e30] {
            for m in [[value; 6], [value, value, value, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, value, 0.0, 0.0]] {
                assert!(eigenvalues(m).iter().all(|v| v.is_finite()), "{m:?}");
            }
        }
        assert_eq!(eigenvalues([0.0; 6]), [0.0; 3]);
    }
}
