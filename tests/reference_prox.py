"""The search in plain NumPy float64, one candidate and one iteration at a time: slow and obvious."""

import math

import numpy as np

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z):
    """SplitMix64's output function on a Python integer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draw(key, counter):
    return mix((key + (counter + 1) * GAMMA) & MASK)


def bootstrap_weights(seed, neuron, n_samples):
    """Poisson(1) by inversion of 32 uniform bits; a pair of neurons shares a draw of 64."""
    key = mix(mix(seed ^ GAMMA) ^ mix(neuron // 2 + 1))
    tails, mass = [], math.exp(-1)
    below = 0.0
    for k in range(13):
        below += mass
        tails.append(round((1 - below) * 2**32))
        mass /= k + 1
    shift = 32 * (neuron % 2)
    draws = [(draw(key, i) >> shift) & 0xFFFFFFFF for i in range(n_samples)]
    return np.array([sum(d < tail for tail in tails) for d in draws], np.float64)


def initial_coefficients(seed, neuron, n, scale):
    key = mix(mix(seed ^ 0x494E4954) ^ mix(neuron + 1))
    unit = np.array([(draw(key, i) >> 11) / 2**53 for i in range(n)])
    return scale * math.sqrt(3) * (2 * unit - 1)


def design(x, g):
    """Standardised rows [x, x^2, g], with the mean and scale used."""
    x = x.astype(np.float64)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    constant = (x == x[0]).all(axis=0)
    scale[constant] = 1.0
    standard = (x - mean) / scale
    blocks = [standard, standard**2] + ([] if g is None else [g.astype(np.float64) / scale])
    return np.concatenate(blocks, axis=1), mean, scale


def objective(rows, y, v, t, b, l1, l2):
    z = rows @ t + b
    loss = np.mean(v * (np.logaddexp(0, z) - y * z))
    return loss + l1 * np.abs(t).sum() + 0.5 * l2 * (t**2).sum()


def ista(rows, y, v, t, l1, l2, learning_rate, n_iterations):
    """Returns t, b and per iteration (objective, gradient norm, non-zero count) before the step."""
    b, records = 0.0, []
    for _ in range(n_iterations):
        z = rows @ t + b
        residual = v * (1 / (1 + np.exp(-z)) - y)
        step = t - learning_rate * (rows.T @ residual / len(y) + l2 * t)
        t_next = np.sign(step) * np.maximum(np.abs(step) - learning_rate * l1, 0)
        b_next = b - learning_rate * residual.mean()
        norm = math.sqrt((((t - t_next) / learning_rate) ** 2).sum() + ((b - b_next) / learning_rate) ** 2)
        records.append((objective(rows, y, v, t, b, l1, l2), norm, np.count_nonzero(t)))
        t, b = t_next, b_next
    return t, b, np.array(records)


def search(x, y, g, *, meta_neurons, l1, l2, max_iter, learning_rate, seed, init_scale, class_weight=(1.0, 1.0)):
    """coef (C, P), intercept (C,), records (C, max_iter, 3), neuron-major."""
    rows, _, _ = design(x, g)
    y = y.astype(np.float64)
    results = []
    for neuron in range(meta_neurons):
        v = bootstrap_weights(seed, neuron, len(y)) * np.where(y == 1, class_weight[1], class_weight[0])
        start = initial_coefficients(seed, neuron, rows.shape[1], init_scale)
        results += [ista(rows, y, v, start, a, c, learning_rate, max_iter) for a in l1 for c in l2]
    coef, intercept, records = zip(*results, strict=True)
    return np.array(coef), np.array(intercept), np.array(records)


def scores(y, probability, threshold, beta):
    called = probability >= threshold
    tp, fp, fn = (called & y).sum(), (called & ~y).sum(), (~called & y).sum()
    f = [(1 + b * b) * tp / max((1 + b * b) * tp + b * b * fn + fp, 1e-300) for b in (1.0, beta)]
    return f[0], f[1], tp / max(tp + fp + fn, 1e-300)


def volume_rows(values):
    """Samples (n_voxels, F) and gradient magnitudes of a feature volume (F, z, y, x)."""
    gradients = []
    for channel in values.astype(np.float64):
        axes = [np.gradient(channel, axis=a) if n > 1 else np.zeros_like(channel) for a, n in enumerate(channel.shape)]
        gradients.append(np.sqrt(sum(axis**2 for axis in axes)))
    flat = values.reshape(len(values), -1).T
    return flat, np.array(gradients).reshape(len(values), -1).T.astype(np.float32)
