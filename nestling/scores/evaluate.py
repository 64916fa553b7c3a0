"""How good a network is, from its answers: top-1 with an interval, each class, confusions, the worst mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short

LEAST_TOLD = 5  # photographs: of fewer a share cannot be told (5 right of 5 may be 57%)


@dataclass(frozen=True)
class PerClass:
    """precision: of those called so, how many are; recall: of those that are, how many are called so.

    Either is None of fewer than LEAST_TOLD photographs. recall_interval: Wilson, 95%. images: of the class.
    """

    label: str
    precision: float | None
    recall: float | None
    images: int
    recall_interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Mistake:
    """A photograph whose wrong answer the network was sure of."""

    path: Path
    label: str
    answer: str
    probability: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """confusion: int64 [labels, labels], row the true class, column the answer. interval: Wilson, 95%."""

    __repr__, _repr_html_ = in_short, as_table

    top1: float
    interval: tuple[float, float]
    images: int
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]
    per_class: tuple[PerClass, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def majority(self) -> float:
        """The top-1 of always answering the class with the most images."""
        return _share(self.confusion.sum(axis=1).max(initial=0), self.images)

    @property
    def majority_class(self) -> str:
        """That class, the first of equals."""
        return self.labels[int(self.confusion.sum(axis=1).argmax())] if self.labels else ""


def top1(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Share of right answers, to six digits as the lineage keeps it; 0 of none. logits: [N, classes]; truth: [N]."""
    return round(float((logits.argmax(1) == truth).mean()), 6) if len(truth) else 0.0


def judge(logits: NDArray[np.float32], truth: NDArray[np.int64], paths: Sequence[Path], labels: tuple[str, ...]) -> Evaluation:
    """logits: float32 [N, classes]; truth: int64 [N], indices of labels; paths: N files, for the ten most confident mistakes."""
    answers = logits.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (truth, answers), 1)
    hits = np.diagonal(confusion)
    called, there = confusion.sum(axis=0).tolist(), confusion.sum(axis=1).tolist()
    per_class = tuple(
        PerClass(label, _told(hits[i], called[i]), _told(hits[i], there[i]), there[i], wilson(int(hits[i]), there[i]))
        for i, label in enumerate(labels)
    )
    probability = softmax(logits).max(axis=1)
    wrong = sorted((int(i) for i in np.flatnonzero(answers != truth)), key=lambda i: -probability[i])[:10]
    mistakes = tuple(Mistake(paths[i], labels[truth[i]], labels[answers[i]], float(probability[i])) for i in wrong)
    right, total = int(hits.sum()), len(truth)
    return Evaluation(_share(right, total), wilson(right, total), total, labels, confusion, per_class, mistakes)


def wilson(right: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a share. Source: Wilson 1927, "Probable inference", score interval without continuity correction."""
    if total == 0:
        return 0.0, 1.0
    share, half = right / total, z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = ((share + half + sign * spread) / (1 + z * z / total) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities along the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def _told(part: int, whole: int) -> float | None:
    return _share(part, whole) if whole >= LEAST_TOLD else None


def _share(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else 0.0
