"""Runner: a loaded artifact, whatever its format. evaluate, agree and bench know no other thing."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nestling.preprocess.image import Preprocess


class Runner(Protocol):
    """uint8 images in, float logits out."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        ...

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        ...

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """images: uint8 [N, H, W, C], already resized. Returns logits, float32 [N, classes]."""
        ...

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """images as above. Returns embeddings, float32 [N, D]; NestlingError where the artifact does not give them."""
        ...
