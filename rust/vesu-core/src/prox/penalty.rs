//! The penalty: elastic net, l1 |t|_1 + (l2 / 2) |t|^2.

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ElasticNet {
    pub l1: f64,
    pub l2: f64,
}

impl ElasticNet {
    pub fn value(self, coef: &[f64]) -> f64 {
        let (l1, l2) = coef.iter().fold((0.0, 0.0), |(l1, l2), t| (l1 + t.abs(), l2 + t * t));
        self.l1 * l1 + 0.5 * self.l2 * l2
    }

    /// One ISTA step of a coordinate: the ridge term goes with the gradient, the l1 term through the
    /// proximal operator.
    #[inline]
    pub fn step(self, t: f64, gradient: f64, learning_rate: f64) -> f64 {
        soft_threshold(t - learning_rate * (gradient + self.l2 * t), learning_rate * self.l1)
    }
}

/// The proximal operator of `threshold * |.|`. NaN stays NaN.
#[inline]
pub fn soft_threshold(value: f64, threshold: f64) -> f64 {
    if value > threshold {
        value - threshold
    } else if value < -threshold {
        value + threshold
    } else if value.is_nan() {
        value
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_threshold_shrinks_towards_zero() {
        assert_eq!(soft_threshold(3.0, 1.0), 2.0);
        assert_eq!(soft_threshold(-3.0, 1.0), -2.0);
        assert_eq!(soft_threshold(0.5, 1.0), 0.0);
        assert!(soft_threshold(f64::NAN, 1.0).is_nan());
    }

    #[test]
    fn the_step_minimises_its_quadratic_model() {
        let (penalty, t, gradient, rate) = (ElasticNet { l1: 0.3, l2: 0.1 }, 0.7, -0.9, 0.2);
        let model =
            |u: f64| (gradient + penalty.l2 * t) * (u - t) + (u - t) * (u - t) / (2.0 * rate) + penalty.l1 * u.abs();
        let best = penalty.step(t, gradient, rate);
        for i in -2000..2000 {
            assert!(model(best) <= model(f64::from(i) * 1e-3) + 1e-12);
        }
    }
}
