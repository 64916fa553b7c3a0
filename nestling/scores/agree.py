"""Whether two networks give the same answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """agreement: share of equal top-1 answers. Differences are between logits.

    max_logit_difference: the largest; rms_logit_difference: root mean square over all.
    max_relative_difference: the largest, over the median of the images' largest absolute logits in `a`. (Not over those of the same
    image: an image that lies on the border between two classes may have none that differs from zero.)
    """

    agreement: float
    images: int
    max_logit_difference: float
    rms_logit_difference: float
    max_relative_difference: float


def agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> Agreement:
    """a, b: logits float32 [N, classes] of the same images in the same order; a is the one to be equalled."""
    difference = np.abs(a.astype(np.float64) - b)
    size = float(np.median(np.abs(a).max(axis=1, initial=0.0))) if len(a) else 1.0
    return Agreement(
        agreement=float((a.argmax(1) == b.argmax(1)).mean()) if len(a) else 1.0,
        images=len(a),
        max_logit_difference=float(difference.max(initial=0.0)),
        rms_logit_difference=rms(a, b),
        max_relative_difference=float(difference.max(initial=0.0)) / max(size, 1e-6),
    )


def rms(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Root mean square of a - b."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2))) if a.size else 0.0
