"""FISTA, the optimum and the duality gap in plain NumPy float64: slow and obvious."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, xlogy


@dataclass(frozen=True)
class Problem:
    """One candidate: rows (n, P) without the intercept's column, labels, sample weights, penalty."""

    rows: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    l1: float
    l2: float

    def margin(self, params):
        return self.rows @ params[:-1] + params[-1]

    def loss(self, params):
        z = self.margin(params)
        return np.mean(self.weights * (np.logaddexp(0, z) - self.y * z))

    def penalty(self, params):
        return self.l1 * np.abs(params[:-1]).sum() + 0.5 * self.l2 * (params[:-1] ** 2).sum()

    def objective(self, params):
        return self.loss(params) + self.penalty(params)

    def residual(self, params):
        return self.weights * (expit(self.margin(params)) - self.y) / len(self.y)

    def gradient(self, params):
        residual = self.residual(params)
        return np.append(self.rows.T @ residual, residual.sum())

    def prox_step(self, point, rate):
        step = point - rate * (self.gradient(point) + self.l2 * np.append(point[:-1], 0))
        return np.append(np.sign(step[:-1]) * np.maximum(np.abs(step[:-1]) - rate * self.l1, 0), step[-1])

    def lipschitz(self):
        design = np.column_stack([self.rows, np.ones(len(self.y))])
        return np.linalg.eigvalsh(design.T @ (self.weights[:, None] * design))[-1] / (4 * len(self.y)) + self.l2


def fista(problem, start, rate, n_iterations):
    """Beck and Teboulle's iteration with O'Donoghue and Candes' gradient restart: (params, number of restarts)."""
    current, previous, t, restarts = start, start, 0.0, 0
    for _ in range(n_iterations):
        t_next = (1 + np.sqrt(1 + 4 * t * t)) / 2
        point = current + (t - 1) / t_next * (current - previous)
        step = problem.prox_step(point, rate)
        if (point - step) @ (step - current) > 0:
            restarts += 1
            current, previous, t = step, step, 0.0
        else:
            current, previous, t = step, current, t_next
    return current, restarts


def optimum(problem):
    """Where the objective is smallest, to 1e-11 in the proximal gradient, or as near as 20,000 iterations come."""
    rate = 1 / problem.lipschitz()
    params = np.zeros(problem.rows.shape[1] + 1)
    for _ in range(40):
        params, _ = fista(problem, params, rate, 500)
        if np.abs(params - problem.prox_step(params, rate)).max() <= 1e-11 * rate:
            break
    return params


def duality_gap(problem, params):
    """F(t) + f*(u) + g*(-A'u) with the entropies written out, u the residuals with the larger class scaled down.

    Of the factors s in [0, 1] that may scale the whole of u, the best of a thousand.
    """
    residual = problem.residual(params)
    positive = problem.y == 1
    sums = residual[~positive].sum(), -residual[positive].sum()
    factor = np.ones(len(residual))
    if sums[0] != sums[1]:
        factor[positive if sums[1] > sums[0] else ~positive] = min(sums) / max(sums)
    u = factor * residual
    assert abs(u.sum()) < 1e-12
    best = np.inf
    for s in np.append(
        np.linspace(0, 1, 1001), [problem.l1 / max(np.abs(problem.rows.T @ u).max(), problem.l1, 1e-300)]
    ):
        correlation = np.abs(problem.rows.T @ (s * u))
        if problem.l2 > 0:
            conjugate_penalty = (np.maximum(correlation - problem.l1, 0) ** 2).sum() / (2 * problem.l2)
        else:
            conjugate_penalty = 0.0 if (correlation <= problem.l1 * (1 + 1e-12)).all() else np.inf
        share = np.abs(s * u) * len(problem.y) / np.where(problem.weights > 0, problem.weights, 1)
        entropy = xlogy(share, share) + xlogy(1 - share, 1 - share)
        conjugate_loss = np.mean(problem.weights * entropy)
        best = min(best, problem.objective(params) + conjugate_loss + conjugate_penalty)
    return best
