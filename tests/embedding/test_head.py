"""The head against other optimisers on the same objective, SciPy's and torch's, and what a user would notice."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from nestling.embedding.head import WEIGHT_DECAYS, Embeddings, FittedHead, fit_head
from tests import ROOT


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


def losses(fitted: FittedHead, train: Embeddings, classes: int, balanced: bool) -> tuple[float, float]:
    """The objective of the head, and of the one that torch's LBFGS finds in double precision with the same decay."""
    mean = train.x.mean(0, dtype=np.float64)
    scale = np.sqrt(((train.x - mean) ** 2).sum(1).mean())
    x, y = torch.from_numpy((train.x - mean) / scale), torch.from_numpy(train.y)
    counts = torch.bincount(y, minlength=classes).double()
    weights = len(y) / (classes * counts.clamp(min=1)) if balanced else None

    def objective(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        likelihood = torch.nn.functional.cross_entropy(x @ weight.T + bias, y, weights)
        return likelihood + fitted.weight_decay / 2 * weight.square().sum()

    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=3000, tolerance_grad=1e-9, tolerance_change=1e-14, history_size=30, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = objective(weight, bias)
        loss.backward()
        return loss

    optimizer.step(closure)
    ours = torch.from_numpy(fitted.head.weight.astype(np.float64) * scale)
    own_bias = torch.from_numpy(fitted.head.bias + fitted.head.weight.astype(np.float64) @ mean)
    return float(objective(ours, own_bias)), float(objective(weight.detach(), bias.detach()))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("counts", "val"),
    [
        ((60, 60, 60), (30, 30, 30)),
        ((120, 9), (50, 5)),
        ((80, 30, 6, 50), (30, 12, 0, 20)),  # a class without a validation photograph
        ((40, 40, 0), (20, 20, 0)),  # without any
    ],
)
def test_its_loss_is_that_of_torchs_optimiser(counts: tuple[int, ...], val: tuple[int, ...], balanced: bool) -> None:
    train = blobs(0, counts)
    fitted = fit_head(train, blobs(1, val), len(counts), balanced)
    ours, theirs = losses(fitted, train, len(counts), balanced)
    assert abs(ours - theirs) <= 1e-6


def test_the_weakest_decay_is_reached_as_well() -> None:
    """Where the photographs that choose are those that were learned from, the weakest is the best."""
    train = blobs(0, (60, 60, 60))
    fitted = fit_head(train, train, 3)
    assert fitted.weight_decay == min(WEIGHT_DECAYS)
    ours, theirs = losses(fitted, train, 3, balanced=False)
    assert abs(ours - theirs) <= 1e-6


HEAD = """
import hashlib
import numpy as np
from nestling.embedding.head import Embeddings, fit_head
rng = np.random.default_rng(0)
centres = rng.normal(0, 1, (12, 1280))
def blobs(count):
    y = np.arange(count) % 12
    return Embeddings((centres[y] + rng.normal(0, 12, (count, 1280))).astype(np.float32), y)
head = fit_head(blobs(480), blobs(120), 12).head
print(hashlib.sha256(head.weight.tobytes() + head.bias.tobytes()).hexdigest())
"""


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    """Each in a process of its own, for NumPy's library asks once how many threads it may have."""
    found = set()
    for threads in ("1", "2", "5"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", HEAD], env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1 and len(found.pop()) == 65
