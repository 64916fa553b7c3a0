"""A float bundle as a Runner, in torch: what every artifact is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.bundle import Bundle
from nestling.errors import NestlingError
from nestling.models.backbones import Network, build
from nestling.preprocess.image import Preprocess


@dataclass(frozen=True, eq=False)
class FloatRunner:
    """A bundle's float network; images one at a time, as a device has them."""

    bundle: Bundle
    network: Network

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.bundle.labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self.bundle.preprocess

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> logits float32 [N, classes]."""
        if self.bundle.head is not None:
            return self.bundle.head.logits(self.features(images))
        if not self.bundle.labels:
            raise NestlingError("this bundle has no head yet.", "teach it:  nestling fit PHOTOS --backbone THIS.nest -o my.nest")
        return self.features(images)  # an imported network that keeps its own end

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> embeddings float32 [N, D]."""
        with torch.inference_mode():
            rows = [self._embed(torch.from_numpy(np.ascontiguousarray(image[None]))) for image in images]
        return torch.cat(rows).numpy()

    def _embed(self, image: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.network.backbone(self.network.normalise(image))
        return embedding


def float_runner(bundle: Bundle, threads: int | None = None) -> FloatRunner:
    """The bundle's float network, ready to run. threads: of torch, for the whole process; None leaves them."""
    if threads is not None:
        torch.set_num_threads(threads)
    network = build(bundle)
    assert isinstance(network, Network)
    return FloatRunner(bundle, network.to(memory_format=torch.channels_last))
