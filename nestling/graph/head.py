"""The head: one linear layer from an embedding to a score a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Head:
    """weight: float32 [classes, D]; bias: float32 [classes]."""

    __repr__, _repr_html_ = in_short, as_table

    weight: FloatArray
    bias: FloatArray

    def logits(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        """[N, D] -> [N, classes], in float32, or in float64 where the embeddings are."""
        return embeddings @ self.weight.T + self.bias
