"""The head against SciPy's optimiser on the same objective, and what a user would notice."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from nestling.embedding.head import Embeddings, fit_head


def blobs(seed: int, counts: tuple[int, ...], width: int = 12, spread: float = 2.0) -> Embeddings:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (len(counts), width))
    y = np.repeat(np.arange(len(counts)), counts)
    return Embeddings((centres[y] + rng.normal(0, spread, (len(y), width))).astype(np.float32), y.astype(np.int64))


def accuracy(weight: np.ndarray, bias: np.ndarray, data: Embeddings) -> float:
    return float(((data.x @ weight.T + bias).argmax(1) == data.y).mean())


def test_the_head_is_the_minimum_of_its_objective() -> None:
    """SciPy, given the same penalty, finds no better weights for the decay that was chosen."""
    train, val = blobs(0, (60, 60, 60)), blobs(1, (40, 40, 40))
    fitted = fit_head(train, val, 3)
    mean = train.x.mean(0)
    scale = np.sqrt(((train.x - mean) ** 2).sum(1).mean())
    x = (train.x - mean).astype(np.float64) / scale

    def objective(flat: np.ndarray) -> float:
        weight, bias = flat[:-3].reshape(3, -1), flat[-3:]
        likelihood = log_softmax(x @ weight.T + bias, axis=1)[np.arange(len(x)), train.y].mean()
        return float(-likelihood + fitted.weight_decay / 2 * (weight**2).sum())

    ours = np.concatenate([(fitted.head.weight * scale).ravel(), fitted.head.bias + fitted.head.weight @ mean])
    best = minimize(objective, np.zeros_like(ours), method="BFGS", options={"gtol": 1e-6, "maxiter": 5000})
    assert objective(ours) <= best.fun + 1e-4


def test_val_chooses_a_decay_that_does_not_overfit() -> None:
    """Few noisy examples in many dimensions: the chosen head is far better on new data than the least regularised one would be."""
    train, val, new = (blobs(seed, (15, 15), width=200, spread=6.0) for seed in (0, 1, 2))
    chosen = fit_head(train, val, 2)
    assert chosen.weight_decay > 1e-5
    assert accuracy(chosen.head.weight, chosen.head.bias, new) > 0.5


def test_balanced_lifts_the_rare_class() -> None:
    train, val, new = blobs(0, (300, 20)), blobs(1, (100, 8)), blobs(2, (200, 200))
    rare = new.y == 1

    def recall(balanced: bool) -> float:
        head = fit_head(train, val, 2, balanced).head
        return float(((new.x[rare] @ head.weight.T + head.bias).argmax(1) == 1).mean())

    assert recall(True) > recall(False) + 0.05


@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_a_channel_that_never_changes_does_no_harm(constant: float) -> None:
    train, val = blobs(0, (50, 50)), blobs(1, (30, 30))
    train.x[:, 3] = constant
    val.x[:, 3] = constant
    fitted = fit_head(train, val, 2)
    assert np.isfinite(fitted.head.weight).all() and fitted.val_top1 > 0.6


def test_the_same_data_gives_the_same_bytes() -> None:
    train, val = blobs(0, (50, 50, 20)), blobs(1, (30, 30, 30))
    first, second = (fit_head(train, val, 3).head for _ in range(2))
    assert first.weight.tobytes() == second.weight.tobytes() and first.bias.tobytes() == second.bias.tobytes()
