"""The student's loss terms, voxel by voxel in plain Python, after their formulas; one patch at a time."""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def log_likelihood(y, logit):
    """log p where y is 1, log(1 - p) where it is 0; linear between."""
    return y * math.log(sigmoid(logit)) + (1 - y) * math.log(sigmoid(-logit))


def knowledge(shape, label, soft_logit, confidence):
    """Of each voxel: what is expected of it, how much that counts, whether it is the truth, how much teachers count."""
    expected, weight, labelled, trust = (np.zeros(shape) for _ in range(4))
    for voxel in np.ndindex(shape):
        if label is not None and label[voxel] == 2:
            continue
        if soft_logit is not None:
            trust[voxel] = 1 if confidence is None else confidence[voxel]
            expected[voxel], weight[voxel] = sigmoid(soft_logit[voxel]), trust[voxel]
        if label is not None:
            expected[voxel], weight[voxel], labelled[voxel] = label[voxel], 1, 1
    return expected, weight, labelled, trust


def dice(logit, expected, labelled):
    both = answer = truth = 0.0
    for voxel in np.ndindex(logit.shape):
        if labelled[voxel]:
            p = sigmoid(logit[voxel])
            both, answer, truth = both + p * expected[voxel], answer + p, truth + expected[voxel]
    return 1 - (2 * both + 1) / (answer + truth + 1) if truth else 0.0


def cross_entropy(logit, expected, labelled):
    losses = [-log_likelihood(expected[v], logit[v]) for v in np.ndindex(logit.shape) if labelled[v]]
    return sum(losses) / len(losses) if losses else 0.0


def divergence(logit, soft_logit, trust, temperature):
    if soft_logit is None:
        return 0.0
    total = 0.0
    for v in np.ndindex(logit.shape):
        q = sigmoid(soft_logit[v] / temperature)
        p = sigmoid(logit[v] / temperature)
        total += trust[v] * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)))
    return temperature**2 * total / logit.size


def error_variance(logit, log_variance, expected, weight):
    """The squared error of a label that is 1 with the expected probability."""
    total = count = 0.0
    for v in np.ndindex(logit.shape):
        p, q, s = sigmoid(logit[v]), expected[v], log_variance[v]
        squared_error = q * (1 - p) ** 2 + (1 - q) * p**2
        total, count = total + weight[v] * (math.exp(s) - s * squared_error), count + weight[v]
    return total / max(count, 1)


def skeleton_recall(logit, skeleton, labelled):
    found = [sigmoid(logit[v]) for v in np.ndindex(logit.shape) if skeleton[v] and labelled[v]]
    return 1 - sum(found) / len(found) if found else 0.0


def continuity(logit, expected, weight):
    total = count = 0.0
    for z, y, x in np.ndindex(logit.shape):
        if z + 1 < logit.shape[0]:
            here, there = (z, y, x), (z + 1, y, x)
            counts = min(weight[here], weight[there]) * (1 - abs(expected[here] - expected[there]))
            total += counts * (sigmoid(logit[here]) - sigmoid(logit[there])) ** 2
            count += counts
    return total / max(count, 1)


def terms(logit, log_variance, label, soft_logit, confidence, skeleton, temperature):
    """Of one patch (z, y, x), every term by name."""
    expected, weight, labelled, trust = knowledge(logit.shape, label, soft_logit, confidence)
    return {
        "dice": dice(logit, expected, labelled),
        "bce": cross_entropy(logit, expected, labelled),
        "soft": divergence(logit, soft_logit, trust, temperature),
        "uncertainty": error_variance(logit, log_variance, expected, weight),
        "skeleton": 0.0 if skeleton is None else skeleton_recall(logit, skeleton, labelled),
        "continuity": continuity(logit, expected, weight),
    }
