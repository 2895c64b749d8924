#!/usr/bin/env python3
"""Writes losses.json: losses and gradients of small cases, to which tests/ops/losses_stored.rs holds the oracles and the shaders.

    python3 tests/data/make_losses.py > tests/data/losses.json

Needs NumPy alone. Every loss is written here as a plain formula over probabilities in float64, its gradient to the logits by
central differences of five points: of the focal loss with its factor held constant, as the published network does, and of
the Lovász-softmax through its slopes, since it has kinks where errors change places.
Labels 255 are ignored: those voxels are in no sum and no mean.
"""

import json

import numpy as np

IGNORED = 255
SMOOTH = 1e-5


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def merged(p, unlabelled):
    """Probabilities of the classes that a sample does not label go to its background."""
    q = p.copy()
    for n, classes in enumerate(unlabelled):
        for k in classes:
            q[n, 0] = q[n, 0] + p[n, k]
            q[n, k] = 0.0
    return q


def columns(p, labels):
    """Probabilities (voxels, classes) and labels of the voxels that count, all samples together."""
    flat = np.moveaxis(p, 1, -1).reshape(-1, p.shape[1])
    kept = labels.reshape(-1) != IGNORED
    return flat[kept], labels.reshape(-1)[kept]


def cross_entropy(p, labels):
    p, t = columns(p, labels)
    return float(np.mean(-np.log(p[np.arange(len(t)), t]))) if len(t) else 0.0


def focal(p, labels, frozen=None):
    p, t = columns(p, labels)
    if not len(t):
        return 0.0
    own = p[np.arange(len(t)), t]
    factor = own if frozen is None else columns(frozen, labels)[0][np.arange(len(t)), t]
    return float(np.mean((1.0 - factor) ** 2 * -np.log(own)))


def soft_dice(p, labels):
    classes = p.shape[1]
    p, t = columns(p, labels)
    ratios = []
    for k in range(1, classes):
        hit = (t == k).astype(np.float64)
        ratios.append((2.0 * np.sum(p[:, k] * hit) + SMOOTH) / (np.sum(p[:, k]) + np.sum(hit) + SMOOTH))
    return 1.0 - sum(ratios) / len(ratios)


def jaccard_loss(wrong, truth):
    """1 - intersection over union of the truth and a prediction that is wrong at these voxels; 0 where both are empty."""
    union = np.sum(truth | wrong)
    return np.sum(wrong) / union if union else 0.0


def lovasz(p, labels):
    """Integral over thresholds of the Jaccard loss of the set of voxels whose error is larger: the Lovász extension."""
    classes = p.shape[1]
    p, t = columns(p, labels)
    total = 0.0
    for k in range(classes):
        truth = t == k
        error = np.where(truth, 1.0 - p[:, k], p[:, k])
        levels = np.concatenate([[0.0], np.unique(error)])
        for low, high in zip(levels[:-1], levels[1:]):
            total += (high - low) * jaccard_loss(error > low, truth)
    return total / classes


def lovasz_slopes(p, labels):
    """What the Lovász-softmax grows by with each probability: the growth of the Jaccard loss where its voxel turns wrong."""
    slopes = np.zeros_like(p)
    for k in range(p.shape[1]):
        counts = labels != IGNORED
        truth = labels == k
        error = np.where(truth, 1.0 - p[:, k], p[:, k])
        for i in zip(*np.nonzero(counts)):
            grown = jaccard_loss((error >= error[i]) & counts, truth) - jaccard_loss((error > error[i]) & counts, truth)
            slopes[(i[0], k) + i[1:]] = (-grown if truth[i] else grown) / p.shape[1]
    return slopes


def region_truth(labels, table):
    """Targets (N, R, ...) in 0 and 1 and which of them count; table lists the regions of each label."""
    regions = 1 + max(max(r, default=0) for r in table)
    shape = (labels.shape[0], regions) + labels.shape[1:]
    target, counts = np.zeros(shape), np.zeros(shape, bool)
    for label, members in enumerate(table):
        here = labels == label
        for r in range(regions):
            counts[:, r] |= here
            target[:, r][here] = float(r in members)
    return target, counts


def region_losses(x, labels, table, unlabelled):
    target, counts = region_truth(labels, table)
    for n, regions in enumerate(unlabelled):
        for r in regions:
            counts[n, r] = False
    p = 1.0 / (1.0 + np.exp(-x))
    entropy = -(target * np.log(p) + (1.0 - target) * np.log(1.0 - p))
    ce = float(np.mean(entropy[counts])) if counts.any() else 0.0
    ratios = []
    for r in range(x.shape[1]):
        here = counts[:, r]
        q, t = p[:, r][here], target[:, r][here]
        ratios.append((2.0 * np.sum(q * t) + SMOOTH) / (np.sum(q) + np.sum(t) + SMOOTH))
    return {"cross_entropy": ce, "dice": 1.0 - sum(ratios) / len(ratios)}


def differences(f, x):
    """Gradient by central differences of five points; its error is of the fourth power of the step."""
    gradient = np.zeros_like(x)
    h = 1e-3
    for i in np.ndindex(x.shape):
        def at(step):
            y = x.copy()
            y[i] += step
            return f(y)
        gradient[i] = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
    return gradient


def listed(a):
    return [float(v) for v in a.reshape(-1)]


def class_case(name, x, labels, unlabelled):
    def of(x):
        return merged(softmax(x), unlabelled)

    p = of(x)
    slopes = lovasz_slopes(p, labels)
    losses = {
        "cross_entropy": (cross_entropy(p, labels), differences(lambda y: cross_entropy(of(y), labels), x)),
        "focal": (focal(p, labels), differences(lambda y: focal(of(y), labels, p), x)),
        "dice": (soft_dice(p, labels), differences(lambda y: soft_dice(of(y), labels), x)),
        "lovasz": (lovasz(p, labels), differences(lambda y: np.sum(slopes * of(y)), x)),
    }
    return case(name, x, labels, losses, {"unlabelled": unlabelled, "regions": []})


def region_case(name, x, labels, table, unlabelled):
    values = region_losses(x, labels, table, unlabelled)
    losses = {
        key: (values[key], differences(lambda y: region_losses(y, labels, table, unlabelled)[key], x))
        for key in values
    }
    return case(name, x, labels, losses, {"unlabelled": unlabelled, "regions": table})


def case(name, x, labels, losses, more):
    return {
        "name": name,
        "shape": list(x.shape),
        "logits": listed(x),
        "labels": [int(v) for v in labels.reshape(-1)],
        **more,
        "losses": {key: {"value": float(v), "gradient": listed(g)} for key, (v, g) in losses.items()},
    }


def main():
    rng = np.random.default_rng(20)

    def logits(*shape):
        # what float32 holds, so that shaders start from the same numbers
        return rng.normal(0.0, 1.5, shape).astype(np.float32).astype(np.float64)

    def labels(shape, below, ignored=0.0):
        t = rng.integers(0, below, shape)
        t[rng.random(shape) < ignored] = IGNORED
        return t

    none = [[], []]
    size = (2, 2, 4, 3)
    apart = labels(size, 4, 0.2)
    apart[0][apart[0] == 2] = 0
    apart[1][(apart[1] == 1) | (apart[1] == 3)] = 0
    # 1 within 0, and 2 across the border of both
    table = [[], [0], [0, 1], [0, 1, 2], [2]]
    cases = [
        class_case("all counted", logits(2, 3, 2, 4, 3), labels(size, 3), none),
        class_case("some ignored", logits(2, 4, 2, 4, 3), labels(size, 4, 0.3), none),
        class_case("all ignored", logits(2, 3, 2, 4, 3), np.full(size, IGNORED), none),
        class_case("unlabelled classes", logits(2, 4, 2, 4, 3), apart, [[2], [1, 3]]),
        class_case("a class that no sample labels", logits(2, 4, 2, 4, 3), np.where(apart == 3, 0, apart), [[2, 3], [1, 3]]),
        region_case("regions", logits(2, 3, 2, 4, 3), labels(size, 5), table, none),
        region_case("regions, some ignored", logits(2, 3, 2, 4, 3), labels(size, 5, 0.3), table, none),
        region_case("regions, one unlabelled in one sample", logits(2, 3, 2, 4, 3), labels(size, 5, 0.2), table, [[], [1]]),
        region_case("regions, all ignored", logits(2, 3, 2, 4, 3), np.full(size, IGNORED), table, none),
    ]
    print("[")
    print(",\n".join(json.dumps(c) for c in cases))
    print("]")


main()
