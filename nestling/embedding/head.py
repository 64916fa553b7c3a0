"""The head: softmax regression on embeddings, its weight decay chosen on the validation part."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from nestling.graph.head import Head

# From nearly none to nearly all: each a third of a decade, so that the best one is never far from a member.
WEIGHT_DECAYS: tuple[float, ...] = tuple(float(d) for d in np.geomspace(1e-6, 1e-1, 16))


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
    """
    mean = train.x.mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(((train.x - mean) ** 2).sum(axis=1).mean())) or 1.0  # the mean distance from the centre becomes 1
    weights = _class_weights(train.y, classes) if balanced else None

    def standardised(data: Embeddings) -> tuple[Tensor, Tensor]:
        return torch.from_numpy((data.x - mean) / scale), torch.from_numpy(data.y)

    x, y = standardised(train)
    val_x, val_y = standardised(val)
    weight = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64)
    best: tuple[float, float, float, Tensor] | None = None
    for decay in sorted(WEIGHT_DECAYS, reverse=True):  # from strong to weak, each from the last one's end: few steps each
        weight = _minimise(weight, x, y, decay, weights)
        logits = _logits(weight, val_x)
        loss = float(cross_entropy(logits, val_y, weights))
        if best is None or loss < best[0]:
            best = (loss, decay, float((logits.argmax(1) == val_y).double().mean()), weight)
    assert best is not None
    scaled = best[3][:, :-1].numpy() / scale
    bias = best[3][:, -1].numpy() - scaled @ mean
    return FittedHead(Head(scaled.astype(np.float32), bias.astype(np.float32)), best[1], best[2])


def _logits(weight: Tensor, x: Tensor) -> Tensor:
    return x @ weight[:, :-1].T + weight[:, -1]


def _minimise(start: Tensor, x: Tensor, y: Tensor, decay: float, class_weights: Tensor | None) -> Tensor:
    weight = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(_logits(weight, x), y, class_weights) + decay / 2 * weight[:, :-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return weight.detach()


def _class_weights(y: NDArray[np.int64], classes: int) -> Tensor:
    counts = np.bincount(y, minlength=classes)
    return torch.from_numpy(len(y) / (classes * np.maximum(counts, 1)))
