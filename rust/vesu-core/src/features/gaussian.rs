//! The separable Gaussian, as a finite filter of radius 4 sigma with clamped edges: SciPy's
//! `gaussian_filter(mode="nearest", truncate=4.0)`.

use super::simd::multiversion;

/// The filter ends at this many standard deviations.
const TRUNCATE: f64 = 4.0;

/// Floats that a block keeps in registers while it runs through the taps.
const WIDE: usize = 64;
const NARROW: usize = 8;

pub fn radius(sigma: f64) -> usize {
    (TRUNCATE * sigma + 0.5) as usize
}

/// The non-negative half of a sampled, normalised Gaussian: `weights[k]` belongs to offsets k and -k.
#[derive(Clone, Debug)]
pub struct Kernel {
    weights: Vec<f32>,
}

impl Kernel {
    pub fn new(sigma: f64) -> Self {
        let half: Vec<f64> = (0..=radius(sigma)).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp()).collect();
        let sum = half[0] + 2.0 * half[1..].iter().sum::<f64>();
        Self { weights: half.iter().map(|weight| (weight / sum) as f32).collect() }
    }

    pub fn radius(&self) -> usize {
        self.weights.len() - 1
    }

    /// The filtered row at `centre` of an axis of `len` rows; row `i` starts at `start(i)` in `source`. Rows
    /// beyond the ends repeat the last one.
    pub fn filter_row(
        &self,
        out: &mut [f32],
        source: &[f32],
        centre: usize,
        len: usize,
        starts: &mut Vec<usize>,
        start: impl Fn(usize) -> usize,
    ) {
        let radius = self.radius();
        starts.clear();
        starts.extend((0..=2 * radius).map(|tap| start((centre + tap).saturating_sub(radius).min(len - 1))));
        weighted_sum(out, source, starts, &self.weights);
    }

    /// Filter along the row itself; `row` carries `radius` repeated values at either end.
    pub fn filter_along(&self, out: &mut [f32], row: &[f32], starts: &mut Vec<usize>) {
        starts.clear();
        starts.extend(0..=2 * self.radius());
        weighted_sum(out, row, starts, &self.weights);
    }
}

/// Repeat the first and last of the values in the middle of `row` over its `margin` at either end.
pub fn repeat_ends(row: &mut [f32], margin: usize) {
    let end = row.len() - margin;
    let (first, last) = (row[margin], row[end - 1]);
    row[..margin].fill(first);
    row[end..].fill(last);
}

multiversion! {
    /// `out[x] = w0 * row_0[x] + sum over k of wk * (row_-k[x] + row_k[x])`, each row given by its start.
    fn weighted_sum(out: &mut [f32], source: &[f32], starts: &[usize], weights: &[f32]) {
        let mut x = 0;
        while x + WIDE <= out.len() {
            block::<WIDE>(&mut out[x..x + WIDE], source, starts, weights, x);
            x += WIDE;
        }
        while x + NARROW <= out.len() {
            block::<NARROW>(&mut out[x..x + NARROW], source, starts, weights, x);
            x += NARROW;
        }
        while x < out.len() {
            block::<1>(&mut out[x..x + 1], source, starts, weights, x);
            x += 1;
        }
    }
}

#[inline(always)]
fn block<const N: usize>(out: &mut [f32], source: &[f32], starts: &[usize], weights: &[f32], x: usize) {
    let radius = weights.len() - 1;
    let row = |tap: usize| &source[starts[tap] + x..][..N];
    let mut sums = [0f32; N];
    for (sum, &value) in sums.iter_mut().zip(row(radius)) {
        *sum = weights[0] * value;
    }
    for (k, &weight) in weights.iter().enumerate().skip(1) {
        let (before, after) = (row(radius - k), row(radius + k));
        for i in 0..N {
            sums[i] += weight * (before[i] + after[i]);
        }
    }
    out[..N].copy_from_slice(&sums);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one() {
        for sigma in [0.3, 1.0, 2.0, 4.0, 16.0] {
            let kernel = Kernel::new(sigma);
            let sum =
                f64::from(kernel.weights[0]) + 2.0 * kernel.weights[1..].iter().map(|&w| f64::from(w)).sum::<f64>();
            assert!((sum - 1.0).abs() < 1e-6, "sigma {sigma}: {sum}");
        }
        assert_eq!([1.0, 2.0, 4.0].map(radius), [4, 8, 16]);
    }

    #[test]
    fn every_block_width_gives_the_same_bits() {
        let kernel = Kernel::new(2.0);
        let row: Vec<f32> = (0..300).map(|i| ((i * 7919) % 251) as f32 * 0.37).collect();
        let mut whole = vec![0.0; row.len() - 2 * kernel.radius()];
        kernel.filter_along(&mut whole, &row, &mut Vec::new());
        for (x, value) in whole.iter().enumerate() {
            let mut one = [0.0];
            kernel.filter_along(&mut one, &row[x..], &mut Vec::new());
            assert_eq!(one[0].to_bits(), value.to_bits());
        }
    }
}
