"""What learners of a head are held against: PyTorch's own optimisers, on made-up embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from nestling.device.head_file import made
from nestling.device.head_format import HeadFile, Training
from nestling.preprocess.image import ImagePreprocess

PREPROCESS = ImagePreprocess((12, 12), 3, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
SGD = Training(rate=0.5, momentum=0.9, decay=1e-3)
ADAM = Training(optimizer="adam", rate=0.005, momentum=0.9, beta2=0.999, epsilon=1e-8, decay=1e-3)
BF16 = replace(SGD, moment_type="bfloat16")


def head_of(inputs: int, classes: int, rows: int, training: Training, seed: int = 0) -> HeadFile:
    """With weights that are not zero, and embeddings' centre and scale."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-128, 60, (64, inputs)).astype(np.int8)
    head = made(
        [f"thing {i}" for i in range(classes)], rows, q, None, embedding_scale=0.02, embedding_zero=-128, preprocess=PREPROCESS,
        graph="ab" * 32, training=training,
    )  # fmt: skip
    weights, bias = np.zeros_like(head.weights), np.zeros_like(head.bias)
    weights[:classes], bias[:classes] = rng.normal(0, 1, (classes, inputs)), rng.normal(0, 1, classes)
    return replace(head, weights=weights, bias=bias)


def batches(inputs: int, classes: int, steps: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    centres = rng.integers(-100, 40, (classes, inputs))
    made = []
    for _ in range(steps):
        y = rng.integers(0, classes, size)
        made.append((np.clip(centres[y] + rng.normal(0, 60, (size, inputs)), -128, 127).astype(np.int8), y.astype(np.int64)))
    return made


def by_torch(head: HeadFile, data: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """PyTorch's own forward, backward and optimiser, with the rows that are in use."""
    classes, how = len(head.labels), head.training
    weight = torch.from_numpy(head.weights[:classes].copy()).requires_grad_()
    bias = torch.from_numpy(head.bias[:classes].copy()).requires_grad_()
    groups = [{"params": [weight], "weight_decay": how.decay}, {"params": [bias], "weight_decay": 0.0}]
    optimiser = (
        torch.optim.SGD(groups, lr=how.rate, momentum=how.momentum)
        if how.optimizer == "sgd"
        else torch.optim.Adam(groups, lr=how.rate, betas=(how.momentum, how.beta2), eps=how.epsilon)
    )
    losses = []
    for q, y in data:
        x = torch.from_numpy(q.astype(np.float32) * np.float32(head.input_scale) - head.offset)
        loss = cross_entropy(x @ weight.T + bias, torch.from_numpy(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return weight.detach().numpy(), bias.detach().numpy(), losses


def distance(found: HeadFile, weight: np.ndarray, bias: np.ndarray) -> float:
    classes = len(bias)
    ours, theirs = (np.concatenate([w.ravel(), b]) for w, b in ((found.weights[:classes], found.bias[:classes]), (weight, bias)))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
