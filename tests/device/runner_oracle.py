"""What net_runner must find and learn, worked out by other means: Python reads the folder, PyTorch's own optimisers learn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from nestling.bundle import PARTS
from nestling.data.folders import Item, scan
from nestling.data.split import split
from nestling.device.head_file import HeadFile, inputs_of, logits
from nestling.device.order import order
from nestling.graph import reference
from nestling.graph.ir import Graph
from nestling.preprocess.image import ImagePreprocess, load


@dataclass(frozen=True)
class Device:
    """What every test begins with. photographs: 30 of each class."""

    runner: Path
    graph: Graph
    data: Path


@dataclass(frozen=True, eq=False)
class Known:
    """Photographs of one part, sorted by (label, fingerprint). q: int8 [N, D] by the reference; y: int64 [N]."""

    items: tuple[Item, ...]
    q: NDArray[np.int8]
    y: NDArray[np.int64]


def known_of(device: Device, data: Path, head: HeadFile) -> dict[str, Known]:
    """What Python finds in the folder, independently of the program: split, images and embeddings."""
    dataset = scan(data)
    part_of = split(dataset, head.training.seed).part_of()
    first = {item.fingerprint: item for item in reversed(dataset.items)}
    preprocess = ImagePreprocess(head.image[:2], 3, head.crop, head.interpolation, (0.5,) * 3, (0.5,) * 3)
    found: dict[str, Known] = {}
    for part in PARTS:
        own = [replace(item, label=head.labels.index(dataset.labels[item.label])) for item in first.values()]
        own = sorted((item for item in own if part_of[item.fingerprint] == part), key=lambda item: (item.label, item.fingerprint))
        images = np.stack([load(preprocess, item.path) for item in own])
        q = reference.run(device.graph, images)[device.graph.outputs[0]]
        found[part] = Known(tuple(own), q.astype(np.int8, copy=False), np.array([item.label for item in own]))
    return found


def share_right(head: HeadFile, known: Known) -> float:
    return float((logits(head, known.q).argmax(axis=1) == known.y).mean())


def digest(items: Sequence[Item], replayed: int = 0) -> str:
    lines = "".join(f"{item.label}:{item.fingerprint}\n" for item in items) + (f"replay {replayed}\n" if replayed else "")
    return hashlib.sha256(lines.encode()).hexdigest()


def learned_by_torch(
    head: HeadFile, q: NDArray[np.int8], y: NDArray[np.int64], cycles: int, still: Sequence[int] = (), balanced: bool = False
) -> tuple[torch.Tensor, list[float]]:
    """Weights [classes, D] and losses after so many cycles of PyTorch's own optimiser. still: rows that do not move."""
    t, classes = head.training, len(head.labels)
    x, labels = torch.from_numpy(inputs_of(head, q)), torch.from_numpy(y)
    weight = torch.tensor(head.weights[:classes], requires_grad=True)
    bias = torch.tensor(head.bias[:classes], requires_grad=True)
    groups = [{"params": [weight], "weight_decay": t.decay}, {"params": [bias], "weight_decay": 0.0}]
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=t.rate, momentum=t.momentum)
        if t.optimizer == "sgd"
        else torch.optim.Adam(groups, lr=t.rate, betas=(t.momentum, t.beta2), eps=t.epsilon)
    )
    losses: list[float] = []
    epoch = 0
    while len(losses) < cycles:
        places = order(t.seed, epoch, len(y), y if balanced else None)
        for start in range(0, len(places), t.batch):
            chosen = places[start : start + t.batch]
            optimiser.zero_grad()
            loss = cross_entropy(x[chosen] @ weight.T + bias, labels[chosen])
            losses.append(loss.item())
            loss.backward()
            before = weight.detach().clone(), bias.detach().clone()
            optimiser.step()
            with torch.no_grad():
                weight[list(still)], bias[list(still)] = before[0][list(still)], before[1][list(still)]
            if len(losses) == cycles:
                break
        epoch += 1
    return weight.detach(), losses


def assert_close(head: HeadFile, weights: torch.Tensor, share: float = 1e-4) -> None:
    found = head.weights[: len(weights)]
    assert np.linalg.norm(found - weights.numpy()) <= share * np.linalg.norm(weights.numpy())


def assert_same_training(a: HeadFile, b: HeadFile) -> None:
    """Bit for bit, but for how often each was saved."""
    for left, right in ((a.weights, b.weights), (a.bias, b.bias), (a.moment, b.moment), (a.bias_moment, b.bias_moment)):
        assert left.tobytes() == right.tobytes()
    for name in ("steps", "began", "epoch", "position", "items", "lowest_loss", "best_accuracy", "data"):
        assert getattr(a.progress, name) == getattr(b.progress, name), name
