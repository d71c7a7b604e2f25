//! The datafit: weighted logistic loss in its margin form, in base 2.
//!
//! With s = -1 for the positive class and +1 for the other, the loss of a sample is ln(1 + e^(s z)) and its
//! derivative by z is s / (1 + e^(-s z)). The kernel folds s into the feature row and log2(e) into the weights, so
//! that both come from one power of two, 2^-|m| with m = s z log2(e), which never overflows.

use super::simd::{MAX_LANES, ROUND, Simd};

/// 2^f on [-1/2, 1/2]: minimax, relative error 7.5e-8.
const EXP2: [f32; 6] = [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_135, 0.009_675_541, 0.001_327_646_6];

/// log2(1 + e) / e on [0, 1]: minimax, error of log2(1 + e) below 4e-7.
const LOG2_1P: [f32; 7] =
    [1.442_677_3, -0.720_731_74, 0.474_373_46, -0.328_107_4, 0.197_371_44, -0.081_705_81, 0.016_123_172];

/// Below this 2^m is the smallest normal float: a probability of 1e-38.
const SMALLEST_EXPONENT: f32 = -126.0;

/// The constants of [`Constants::sigmoid_softplus`], each filling the widest vector: arithmetic reads them as memory
/// operands. As literals the compiler would broadcast each anew, an instruction more for every use.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Constants {
    exp2: [[f32; MAX_LANES]; EXP2.len()],
    log2_1p: [[f32; MAX_LANES]; LOG2_1P.len()],
    round: [f32; MAX_LANES],
    one: [f32; MAX_LANES],
    smallest: [f32; MAX_LANES],
}

impl Constants {
    pub fn new() -> Self {
        Self {
            exp2: EXP2.map(|value| [value; MAX_LANES]),
            log2_1p: LOG2_1P.map(|value| [value; MAX_LANES]),
            round: [ROUND; MAX_LANES],
            one: [1.0; MAX_LANES],
            smallest: [SMALLEST_EXPONENT; MAX_LANES],
        }
    }

    /// (sigmoid, softplus) of base-2 margins: 1 / (1 + 2^-m) and log2(1 + 2^m).
    ///
    /// A NaN margin gives a NaN softplus, so a candidate that blew up shows in its loss. The N x M vectors go in
    /// lockstep: each is one long chain of dependent operations, and the processor overlaps chains only if they stand
    /// side by side.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    pub unsafe fn sigmoid_softplus<V: Simd, const N: usize, const M: usize>(
        &self,
        margins: [[V; N]; M],
    ) -> ([[V; N]; M], [[V; N]; M]) {
        // SAFETY: passes on the caller's vouching for V's CPU features.
        unsafe {
            let zero = V::splat(0.0);
            let (one, round) = (V::load(self.one.as_ptr()), V::load(self.round.as_ptr()));
            let t = each(margins, |m| V::load(self.smallest.as_ptr()).max(m.negative_abs()));
            let rounded = each(t, |t| t.add(round));
            let fraction = each2(t, rounded, |t, rounded| t.sub(rounded.sub(round)));
            let e = each2(polynomial(&self.exp2, fraction), rounded, |power, rounded| power.scale_exponent(rounded));
            let sigmoid = each2(e, margins, |e, m| e.where_negative(m, one).div(one.add(e)));
            let positive = each(margins, |m| zero.max(m));
            (sigmoid, each3(polynomial(&self.log2_1p, e), e, positive, |log, e, positive| log.fma(e, positive)))
        }
    }
}

/// Estrin's scheme, pairs of terms in powers of x^2: half as long a chain as Horner's for one product more.
#[inline(always)]
unsafe fn polynomial<V: Simd, const K: usize, const N: usize, const M: usize>(
    coefficients: &[[f32; MAX_LANES]; K],
    x: [[V; N]; M],
) -> [[V; N]; M] {
    // SAFETY: passes on the caller's vouching for V's CPU features.
    unsafe {
        let constant = |k: usize| V::load(coefficients[k].as_ptr());
        let square = each(x, |x| x.mul(x));
        let pair = |k: usize| {
            if k + 1 == K {
                return [[constant(k); N]; M];
            }
            let high = constant(k + 1);
            each(x, |x| x.fma(high, constant(k)))
        };
        let mut k = (K - 1) / 2 * 2;
        let mut value = pair(k);
        while k > 0 {
            k -= 2;
            value = each3(value, square, pair(k), |value, square, pair| value.fma(square, pair));
        }
        value
    }
}

#[inline(always)]
fn each<V: Copy, const N: usize, const M: usize>(mut a: [[V; N]; M], f: impl Fn(V) -> V) -> [[V; N]; M] {
    for i in 0..M {
        for j in 0..N {
            a[i][j] = f(a[i][j]);
        }
    }
    a
}

#[inline(always)]
fn each2<V: Copy, const N: usize, const M: usize>(
    mut a: [[V; N]; M],
    b: [[V; N]; M],
    f: impl Fn(V, V) -> V,
) -> [[V; N]; M] {
    for i in 0..M {
        for j in 0..N {
            a[i][j] = f(a[i][j], b[i][j]);
        }
    }
    a
}

#[inline(always)]
fn each3<V: Copy, const N: usize, const M: usize>(
    mut a: [[V; N]; M],
    b: [[V; N]; M],
    c: [[V; N]; M],
    f: impl Fn(V, V, V) -> V,
) -> [[V; N]; M] {
    for i in 0..M {
        for j in 0..N {
            a[i][j] = f(a[i][j], b[i][j], c[i][j]);
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_and_softplus_match_float64() {
        for i in -40_000..=40_000 {
            let m = i as f32 * 0.005;
            // SAFETY: the portable lanes need no CPU feature.
            let (sigmoid, softplus) = unsafe { Constants::new().sigmoid_softplus([[[m; 4]]]) };
            let exact = f64::from(m);
            assert!((f64::from(sigmoid[0][0][0]) - 1.0 / (1.0 + (-exact).exp2())).abs() < 1.5e-7, "sigmoid({m})");
            let log = exact.max(0.0) + (-exact.abs()).exp2().ln_1p() * std::f64::consts::LOG2_E;
            assert!((f64::from(softplus[0][0][0]) - log).abs() < 6e-7 + 1e-7 * log, "softplus({m})");
        }
    }

    #[test]
    fn extremes_stay_finite_and_nan_shows() {
        for (m, sigmoid_wanted) in [(1e30f32, 1.0f32), (-1e30, 0.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, 0.0)] {
            // SAFETY: the portable lanes need no CPU feature.
            let (sigmoid, softplus) = unsafe { Constants::new().sigmoid_softplus([[[m; 4]]]) };
            assert!((sigmoid[0][0][0] - sigmoid_wanted).abs() < 1e-37);
            assert!((softplus[0][0][0] - m.max(0.0)).abs() < 1e-6 || softplus[0][0][0] == m);
        }
        // SAFETY: the portable lanes need no CPU feature.
        assert!(unsafe { Constants::new().sigmoid_softplus([[[f32::NAN; 4]]]) }.1[0][0][0].is_nan());
    }
}
