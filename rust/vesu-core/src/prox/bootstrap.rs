//! Counter-based randomness: what a meta-neuron draws depends on (seed, neuron, sample) and on nothing else, so any
//! thread may draw any part, in any order, as often as it likes.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood 2014) read at a position instead of stepped.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
const INITIALISATION: u64 = 0x494E_4954;

/// P(Poisson(1) > k) for k up to 12 stands above 2^-32; the tail beyond is below the resolution of a draw.
const TAILS: usize = 13;

/// Tails compared with every draw; one draw in 270 reaches the last, and is counted again with all.
const COMMON_TAILS: usize = 5;

/// Samples drawn together.
pub(super) const CHUNK: usize = 16;

#[inline(always)]
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[inline(always)]
fn at(key: u64, counter: u64) -> u64 {
    mix(key.wrapping_add(counter.wrapping_add(1).wrapping_mul(GAMMA)))
}

/// Poisson(1) bootstrap weights (the online bootstrap of Oza and Russell), one stream a neuron.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// One key for two neurons: each takes half of the 64 bits.
    keys: Vec<u64>,
    n_neurons: usize,
    /// `tails[k]` = 2^32 P(X > k): the weight is the number of tails above the draw.
    tails: [u32; TAILS],
}

impl Bootstrap {
    pub fn new(seed: u64, n_neurons: usize) -> Self {
        let seed = mix(seed ^ GAMMA);
        let keys = (0..n_neurons.div_ceil(2) as u64).map(|pair| mix(seed ^ mix(pair + 1))).collect();
        Self { keys, n_neurons, tails: poisson_tails() }
    }

    /// Weights of one neuron for `n` samples from `first`.
    pub fn neuron_weights(&self, neuron: usize, first: usize, n: usize) -> Vec<f32> {
        let n_chunks = n.div_ceil(CHUNK);
        let (mut draws, mut weights) = (vec![[0; CHUNK]; n_chunks], vec![[0.0; CHUNK]; n_chunks]);
        self.draw(neuron / 2, first, &mut draws);
        self.weights(&draws, neuron % 2, &mut weights);
        weights.concat()[..n].to_vec()
    }

    pub fn n_neurons(&self) -> usize {
        self.n_neurons
    }

    /// 64 random bits a sample from `first`, for neurons 2 pair and 2 pair + 1.
    #[inline(always)]
    pub fn draw(&self, pair: usize, first: usize, draws: &mut [[u64; CHUNK]]) {
        let key = self.keys[pair];
        for (i, draw) in draws.as_flattened_mut().iter_mut().enumerate() {
            *draw = at(key, (first + i) as u64);
        }
    }

    /// Weights of the pair's first (`half` = 0) or second neuron from its draws.
    #[inline(always)]
    pub fn weights(&self, draws: &[[u64; CHUNK]], half: usize, weights: &mut [[f32; CHUNK]]) {
        let common: [i32; COMMON_TAILS] = std::array::from_fn(|k| ordered(self.tails[k]));
        for (draws, weights) in draws.iter().zip(weights) {
            let draws = draws.map(|draw| ordered((draw >> (32 * half)) as u32));
            // Tails outside, samples inside: the order that compiles to vectors.
            let mut counts = [0i32; CHUNK];
            for tail in common {
                for (count, draw) in counts.iter_mut().zip(draws) {
                    *count += i32::from(draw < tail);
                }
            }
            *weights = counts.map(|count| count as f32);
            let largest = counts.iter().fold(0, |largest, &count| largest.max(count));
            if largest == COMMON_TAILS as i32 {
                self.recount(&draws, weights);
            }
        }
    }

    /// Weights that exceed the common tails, counted with all of them. Out of line: one chunk in sixteen comes here.
    #[cold]
    #[inline(never)]
    fn recount(&self, draws: &[i32; CHUNK], weights: &mut [f32; CHUNK]) {
        for (weight, &draw) in weights.iter_mut().zip(draws) {
            if *weight == COMMON_TAILS as f32 {
                *weight = self.tails.iter().filter(|&&tail| draw < ordered(tail)).count() as f32;
            }
        }
    }
}

/// Signed integers in the order of the unsigned ones: what vectors can compare.
#[inline(always)]
fn ordered(bits: u32) -> i32 {
    (bits ^ 0x8000_0000) as i32
}

fn poisson_tails() -> [u32; TAILS] {
    const E_INVERSE: f64 = 0.367_879_441_171_442_3;
    let mut mass = [E_INVERSE; TAILS + 8];
    for k in 1..mass.len() {
        mass[k] = mass[k - 1] / k as f64;
    }
    std::array::from_fn(|k| (mass[k + 1..].iter().rev().sum::<f64>() * 4_294_967_296.0).round() as u32)
}

/// Initial coefficients of a neuron: uniform of mean 0 and standard deviation `scale`.
pub fn initial_coefficients(seed: u64, neuron: usize, scale: f64, out: &mut [f64]) {
    const SQRT_3: f64 = 1.732_050_807_568_877_2;
    let key = mix(mix(seed ^ INITIALISATION) ^ mix(neuron as u64 + 1));
    for (i, value) in out.iter_mut().enumerate() {
        let unit = (at(key, i as u64) >> 11) as f64 / (1u64 << 53) as f64;
        *value = scale * SQRT_3 * (2.0 * unit - 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(bootstrap: &Bootstrap, first: usize, n: usize, neurons: usize) -> Vec<f32> {
        let mut weights = vec![0.0; n * neurons];
        for neuron in 0..neurons {
            for (i, weight) in bootstrap.neuron_weights(neuron, first, n).into_iter().enumerate() {
                weights[i * neurons + neuron] = weight;
            }
        }
        weights
    }

    #[test]
    fn weights_are_poisson_of_mean_one_and_neurons_are_uncorrelated() {
        let (n, neurons) = (200_000, 3);
        let weights = draw(&Bootstrap::new(0, neurons), 0, n, neurons);
        let column = |k: usize| weights.iter().skip(k).step_by(neurons).map(|&v| f64::from(v));
        for neuron in 0..neurons {
            let mean = column(neuron).sum::<f64>() / n as f64;
            let variance = column(neuron).map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            assert!((mean - 1.0).abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
            let zeros = column(neuron).filter(|&v| v == 0.0).count() as f64 / n as f64;
            assert!((zeros - 0.367_879).abs() < 0.005);
            let other = (neuron + 1) % neurons;
            let covariance =
                column(neuron).zip(column(other)).map(|(a, b)| (a - 1.0) * (b - 1.0)).sum::<f64>() / n as f64;
            assert!(covariance.abs() < 0.01);
        }
    }

    #[test]
    fn a_draw_depends_on_its_position_only() {
        let bootstrap = Bootstrap::new(7, 5);
        let all = draw(&bootstrap, 0, 100, 5);
        assert_eq!(&all[40 * 5..], &draw(&bootstrap, 40, 60, 5)[..]);
        assert_ne!(all, draw(&Bootstrap::new(8, 5), 0, 100, 5));
    }

    #[test]
    fn tails_fall_to_nothing() {
        let tails = poisson_tails();
        assert!(tails.windows(2).all(|pair| pair[0] > pair[1]));
        assert!(tails[TAILS - 1] <= 1);
    }

    #[test]
    fn neurons_start_from_different_points() {
        let (mut a, mut b) = ([0.0; 18], [0.0; 18]);
        initial_coefficients(0, 0, 0.01, &mut a);
        initial_coefficients(0, 1, 0.01, &mut b);
        assert_ne!(a, b);
        assert!(a.iter().all(|v| v.abs() <= 0.01 * 1.733));
    }
}
