"""A float bundle as a Runner: what every artifact is compared with. Its Graph runs in LiteRT, what is none in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle
from nestling.errors import NestlingError
from nestling.formats.tflite.floats import whole
from nestling.models.float_graph import float_graph, has_graph
from nestling.preprocess.image import Preprocess
from nestling.processor import cores

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class FloatRunner:
    """A bundle's float network; images one at a time, as a device has them. embed: [1, H, W, C] -> [1, D]."""

    bundle: Bundle
    embed: Embed

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
        return np.concatenate([self.embed(np.ascontiguousarray(image[None])) for image in images])


def float_runner(bundle: Bundle, threads: int | None = None) -> FloatRunner:
    """The bundle's float network, ready to run. threads: None for one a core."""
    if has_graph(bundle):
        return FloatRunner(bundle, whole(float_graph(replace(bundle, head=None)), threads or cores()))
    return FloatRunner(bundle, _in_torch(bundle, threads))


def _in_torch(bundle: Bundle, threads: int | None) -> Embed:
    import torch

    from nestling.models.backbones import build

    if threads is not None:
        torch.set_num_threads(threads)
    network = build(replace(bundle, head=None)).to(memory_format=torch.channels_last)

    def embed(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            embedding: NDArray[np.float32] = network(torch.from_numpy(image)).numpy()
        return embedding

    return embed
