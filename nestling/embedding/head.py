"""The head: softmax regression on embeddings, its weight decay chosen on the validation part."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from nestling.graph.head import Head

Doubles = NDArray[np.float64]

# From nearly none to nearly all: each a third of a decade, so that the best one is never far from a member.
WEIGHT_DECAYS: tuple[float, ...] = tuple(float(d) for d in np.geomspace(1e-6, 1e-1, 16))
SETTINGS = {"maxiter": 200, "ftol": 1e-12, "gtol": 1e-6}  # of L-BFGS


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head, the weight decay that val chose, and val's top-1 with it."""

    head: Head
    weight_decay: float
    val_top1: float


@dataclass(frozen=True, eq=False)
class Embeddings:
    """x: float32 [N, D]; y: int64 [N], indices of labels."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def fit_head(train: Embeddings, val: Embeddings, classes: int, balanced: bool = False) -> FittedHead:
    """The head that minimises cross-entropy + decay * |W|^2 / 2 on `train`, for the decay with the lowest cross-entropy on `val`.

    balanced: each class weighs the same however many photographs it has.
    The embeddings are centred and brought to one common scale, so that the same decays suit every backbone; the head takes it back.
    Cross-entropy rather than top-1 chooses, for top-1 moves in steps of one photograph.
    One thread: the same bytes on any number of cores; several wait for each other by spinning, and beside other work take ten times
    as long.
    """
    mean = train.x.mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(((train.x - mean) ** 2).sum(axis=1).mean())) or 1.0  # the mean distance from the centre becomes 1
    weights = _class_weights(train.y, classes) if balanced else np.ones(classes)
    x, val_x = (train.x - mean) / scale, (val.x - mean) / scale
    weight = np.zeros((classes, x.shape[1] + 1))
    found: list[tuple[float, float, float, Doubles]] = []
    with threadpool_limits(1, user_api="blas"):
        for decay in sorted(WEIGHT_DECAYS, reverse=True):  # from strong to weak, each from the last one's end: few steps each
            weight = _minimised(weight, x, train.y, decay, weights)
            logits = _logits(weight, val_x)
            found.append((_cross_entropy(logits, val.y, weights)[0], decay, float((logits.argmax(1) == val.y).mean()), weight))
        _, decay, val_top1, weight = min(found, key=lambda one: one[0])  # the first of equals: the strongest
        scaled = weight[:, :-1] / scale
        bias = weight[:, -1] - scaled @ mean
    return FittedHead(Head(scaled.astype(np.float32), bias.astype(np.float32)), decay, val_top1)


def _logits(weight: Doubles, x: Doubles) -> Doubles:
    logits: Doubles = x @ weight[:, :-1].T + weight[:, -1]
    return logits


def _cross_entropy(logits: Doubles, y: NDArray[np.int64], class_weights: Doubles) -> tuple[float, Doubles]:
    """(the mean over the images, each with its class's weight; its gradient by the logits, [N, classes])."""
    rows = np.arange(len(y))
    shares = class_weights[y] / class_weights[y].sum()
    logits = logits - logits.max(axis=1, keepdims=True)
    chances = np.exp(logits)
    sums = chances.sum(axis=1, keepdims=True)
    loss = -float((shares * (logits[rows, y] - np.log(sums[:, 0]))).sum())
    chances /= sums
    chances[rows, y] -= 1
    return loss, chances * shares[:, None]


def _minimised(start: Doubles, x: Doubles, y: NDArray[np.int64], decay: float, class_weights: Doubles) -> Doubles:
    """By L-BFGS (Liu and Nocedal 1989), as SciPy has it."""

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        weight = flat.reshape(start.shape)
        value, slope = _cross_entropy(_logits(weight, x), y, class_weights)
        gradient = np.empty_like(weight)
        gradient[:, :-1] = slope.T @ x + decay * weight[:, :-1]
        gradient[:, -1] = slope.sum(axis=0)
        return value + decay / 2 * float(np.square(weight[:, :-1]).sum()), gradient.ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=SETTINGS)
    weight: Doubles = found.x.reshape(start.shape)
    return weight


def _class_weights(y: NDArray[np.int64], classes: int) -> Doubles:
    counts = np.bincount(y, minlength=classes)
    weights: Doubles = len(y) / (classes * np.maximum(counts, 1))
    return weights
