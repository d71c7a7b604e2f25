//! The certificate: an upper bound of how far a candidate's objective stands above its minimum.
//!
//! Fenchel duality: with the datafit f of the margins z = A t and the penalty g, every u with 1'u = 0 (the intercept is
//! free) gives min F >= -f*(u) - g*(-A'u). The residuals r = grad f(z) would be such a u if the intercept's gradient were
//! zero; the class with the larger residual sum is scaled down by q until it is. f* is minus an entropy, convex and zero at
//! 0, so f*(q r) <= q f*(r) = q (<r, z> - f(z)): sums of each class alone are all that is needed. The same bound lets the
//! whole of u shrink to where g* is smaller. docs/solvers.md has the derivation.

use super::penalty::ElasticNet;

/// (n_candidates,) each.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The whole objective at the params.
    pub objective: Vec<f64>,
    /// Duality gap, >= 0: the objective's distance from its minimum is no larger. Where l1 = l2 = 0 the only dual bound is
    /// zero, and the gap is the objective itself.
    pub gap: Vec<f64>,
}

/// (objective, gap) of one candidate from the means over all samples and over the negative class alone: the gradient, the
/// intercept's last, then the loss. Rows are signed, so the intercept's gradient is the difference of two residual sums.
pub(super) fn certify(penalty: ElasticNet, params: &[f64], total: &[f64], negative: &[f64]) -> (f64, f64) {
    let (free, loss_at) = (params.len() - 1, params.len());
    let coef = &params[..free];
    let residual_sum = [negative[free], negative[free] - total[free]];
    let loss = [negative[loss_at], total[loss_at] - negative[loss_at]];
    let larger = residual_sum[0].max(residual_sum[1]);
    let [q_negative, q_positive] = residual_sum.map(|sum| {
        let smaller = residual_sum[0].min(residual_sum[1]).max(0.0);
        if sum < larger || larger <= 0.0 { 1.0 } else { smaller / larger }
    });
    let gradient: Vec<f64> =
        (0..free).map(|k| q_negative * negative[k] + q_positive * (total[k] - negative[k])).collect();
    let scaled_loss = q_negative * loss[0] + q_positive * loss[1];
    let objective = total[loss_at] + penalty.value(coef);
    let gap = (total[loss_at] - scaled_loss) + fenchel_gap(penalty, coef, &gradient, scaled_loss);
    (objective, gap.max(0.0))
}

/// f + g(t) + f*(s r) + g*(-s A'r), at the s in [0, 1] that makes it smallest; `gradient` is A'r and `loss` is f. At
/// s = 0 it is the objective: no loss is below zero.
pub(super) fn fenchel_gap(penalty: ElasticNet, coef: &[f64], gradient: &[f64], loss: f64) -> f64 {
    let inner: f64 = coef.iter().zip(gradient).map(|(t, g)| t * g).sum();
    let excess = |s: f64| gradient.iter().map(move |g| (g, (s * g.abs() - penalty.l1).max(0.0)));
    if penalty.l2 > 0.0 {
        let slope = |s: f64| inner - loss + excess(s).map(|(g, e)| g.abs() * e).sum::<f64>() / penalty.l2;
        let s = largest_descent(slope);
        let conjugate = excess(s).map(|(_, e)| e * e).sum::<f64>() / (2.0 * penalty.l2);
        return penalty.value(coef) + s * inner + (1.0 - s) * loss + conjugate;
    }
    // g* is zero on |A'u| <= l1 and infinite beyond, and f* does not grow with s: the largest s that is allowed.
    let largest = gradient.iter().fold(0.0, |largest: f64, g| largest.max(g.abs()));
    let s = if largest <= penalty.l1 { 1.0 } else { penalty.l1 / largest };
    penalty.value(coef) + s * inner + (1.0 - s) * loss
}

/// The last s in [0, 1] where a convex function still falls, by bisection of its slope.
fn largest_descent(slope: impl Fn(f64) -> f64) -> f64 {
    if slope(1.0) <= 0.0 {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        *(if slope(middle) <= 0.0 { &mut low } else { &mut high }) = middle;
    }
    low
}

/// The largest distance of a coordinate of -gradient from the penalty's subdifferential, intercept included: zero exactly
/// at the optimum.
pub(super) fn stationarity(penalty: ElasticNet, params: &[f64], gradient: &[f64]) -> f64 {
    let free = params.len() - 1;
    let distance = |t: f64, g: f64| match t {
        0.0 => (g.abs() - penalty.l1).max(0.0),
        _ => (g + penalty.l2 * t + penalty.l1 * t.signum()).abs(),
    };
    let coef = params[..free].iter().zip(gradient).map(|(&t, &g)| distance(t, g));
    coef.fold(gradient[free].abs(), f64::max)
}
