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
    use std::f64::consts::LOG2_E;

    use super::super::simd::{Isa, SimdWork, dispatch};
    use super::*;
    use rayon::prelude::*;

    /// The kernel's (sigmoid, softplus) of every value, on a path.
    fn on(isa: Isa, margins: &[f32]) -> (Vec<f32>, Vec<f32>) {
        struct Each<'a>(&'a [f32], &'a mut [f32], &'a mut [f32]);
        impl SimdWork for Each<'_> {
            #[inline(always)]
            unsafe fn run<V: Simd>(self) {
                let constants = Constants::new();
                for at in (0..self.0.len()).step_by(V::LANES) {
                    // SAFETY: the three arrays hold a multiple of every number of lanes.
                    unsafe {
                        let margin = V::load(self.0.as_ptr().add(at));
                        let (sigmoid, softplus) = constants.sigmoid_softplus([[margin]]);
                        sigmoid[0][0].store(self.1.as_mut_ptr().add(at));
                        softplus[0][0].store(self.2.as_mut_ptr().add(at));
                    }
                }
            }
        }
        let mut padded = margins.to_vec();
        padded.resize(margins.len().next_multiple_of(MAX_LANES), 0.0);
        let (mut sigmoid, mut softplus) = (vec![0.0; padded.len()], vec![0.0; padded.len()]);
        dispatch(isa, Each(&padded, &mut sigmoid, &mut softplus));
        sigmoid.truncate(margins.len());
        softplus.truncate(margins.len());
        (sigmoid, softplus)
    }

    /// Largest errors: of the sigmoid, absolute and relative to it; of the softplus, relative to 1 + softplus.
    fn errors(isa: Isa, margins: &[f32]) -> [f64; 3] {
        let (sigmoid, softplus) = on(isa, margins);
        let mut worst = [0f64; 3];
        for (i, &margin) in margins.iter().enumerate() {
            let m = f64::from(margin);
            let exact = 1.0 / (1.0 + (-m).exp2());
            let error = (f64::from(sigmoid[i]) - exact).abs();
            let log = m.max(0.0) + (-m.abs()).exp2().ln_1p() * LOG2_E;
            // Below 2^-126 the sigmoid stands at the smallest normal number: an absolute error of 1.2e-38.
            let relative = if m > -126.0 { error / exact } else { 0.0 };
            let softplus_error = (f64::from(softplus[i]) - log).abs() / (1.0 + log);
            for (worst, error) in worst.iter_mut().zip([error, relative, softplus_error]) {
                *worst = worst.max(error);
            }
        }
        worst
    }

    /// The bounds of docs/grid_search.md.
    fn assert_bounds(isa: Isa, [absolute, relative, softplus]: [f64; 3]) {
        assert!(absolute <= BOUND_SIGMOID, "{isa:?}: sigmoid {absolute:e}");
        assert!(relative <= BOUND_SIGMOID_RELATIVE, "{isa:?}: sigmoid, relative {relative:e}");
        assert!(softplus <= BOUND_SOFTPLUS, "{isa:?}: softplus {softplus:e}");
    }

    const BOUND_SIGMOID: f64 = 1.2e-7;
    const BOUND_SIGMOID_RELATIVE: f64 = 4e-7;
    const BOUND_SOFTPLUS: f64 = 4e-7;

    #[test]
    fn sigmoid_and_softplus_keep_their_bounds() {
        // Every 1,009th of all finite numbers.
        let margins: Vec<f32> = (0..=u32::MAX).step_by(1009).map(f32::from_bits).filter(|m| m.is_finite()).collect();
        for isa in Isa::supported() {
            let worst = errors(isa, &margins);
            println!("{isa:?} {worst:?}");
            assert_bounds(isa, worst);
        }
    }

    /// All 4,278,190,080 finite numbers: the bounds hold for every input there is. `make exhaustive`; a minute a path.
    #[test]
    #[ignore = "exhaustive: make exhaustive"]
    fn every_float32_keeps_the_bounds() {
        for isa in Isa::supported() {
            let worst = (0..1u32 << 12)
                .into_par_iter()
                .map(|high| {
                    let all = (0..1u32 << 20).map(|low| f32::from_bits(high << 20 | low));
                    errors(isa, &all.filter(|m| m.is_finite()).collect::<Vec<_>>())
                })
                .reduce(|| [0.0; 3], |a, b| std::array::from_fn(|i| a[i].max(b[i])));
            println!("{isa:?}: sigmoid {:.3e}, relative {:.3e}, softplus {:.3e}", worst[0], worst[1], worst[2]);
            assert_bounds(isa, worst);
        }
    }

    #[test]
    fn extremes_stay_finite_and_nan_shows() {
        for isa in Isa::supported() {
            for (m, wanted) in [(1e30f32, 1.0f32), (-1e30, 0.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, 0.0)] {
                let (sigmoid, softplus) = on(isa, &[m]);
                assert!((sigmoid[0] - wanted).abs() < 1e-37);
                assert!((softplus[0] - m.max(0.0)).abs() < 1e-6 || softplus[0] == m);
            }
            assert!(on(isa, &[f32::NAN]).1[0].is_nan());
        }
    }
}
