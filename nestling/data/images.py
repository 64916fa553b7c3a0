"""Photographs as the network takes them, all at once: a few hundred fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nestling.data.folders import Item, LeftOut
from nestling.data.stream import stream
from nestling.preprocess.image import Preprocess

Image = NDArray[np.uint8]


def images_of(items: Sequence[Item], preprocess: Preprocess) -> list[Image]:
    """The photographs that can be read, as the network takes them."""
    return [image for _, image in read_images(items, preprocess)]


def read_images(items: Sequence[Item], preprocess: Preprocess) -> Iterator[tuple[Item, Image]]:
    """Those photographs that can be read, each with its image as the network takes it."""
    for index, image in stream(items, preprocess, workers=2):
        if not isinstance(image, LeftOut):
            yield items[index], image
