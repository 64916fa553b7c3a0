"""What a head_train.pte takes and gives: what its printer, its runner and the learner have in common. NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

METHOD = "forward"
WEIGHT, BIAS = "weight", "bias"  # what the program calls its parameters
MOST = 1024  # samples of a batch: the program's memory is planned for as many
MASKED = -1e30  # added to the logits of rows that no class uses: their probability is 0, and so is their gradient

Floats = NDArray[np.float32]

# (weight [C, D], bias [C], x [B, D], y [B], mask [C]) -> (the batch's mean loss, gradients of weight and bias)
Gradients = Callable[[Floats, Floats, Floats, NDArray[np.int64], Floats], tuple[float, Floats, Floats]]
