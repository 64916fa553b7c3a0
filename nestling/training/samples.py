"""Labelled images for the training loop: decoded once where they fit into memory, varied anew each epoch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nestling.data.folders import Item, LeftOut, labels_of
from nestling.data.stream import stream
from nestling.preprocess.image import Preprocess, load, of_photographs
from nestling.preprocess.room import OneLarge, Turn
from nestling.processor import cores
from nestling.progress import Progress, silent
from nestling.training.augment import MARGIN, Augmentation, seeded, varying

Uint8Array = NDArray[np.uint8]
MOST_BYTES = 2_000_000_000  # of decoded images that are held


class Inputs(Protocol):
    """What the training loop needs of images, or of what stands for them (frozen.Activations)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N]."""
        ...

    def image(self, index: int, seed: int, epoch: int) -> NDArray[Any]:
        """What the network takes of input `index`, the same for the same three."""
        ...


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with their labels.

    items: one an image. labels: int64 [N]. held: uint8 [N, H, W, C], decoded with `decoding`; None where they would not fit: then
    each is decoded when it is wanted. preprocess: of the network. augmentation: what the images go through from `held` on.
    drawn_on: see augment.varying; for a teacher that sees the crops of its student at a size of its own. turn: which the processes
    that decode wait for.
    """

    items: tuple[Item, ...]
    labels: NDArray[np.int64]
    held: Uint8Array | None
    decoding: Preprocess
    preprocess: Preprocess
    augmentation: Augmentation
    drawn_on: tuple[int, int] | None = None
    turn: Turn | None = None

    def _decoded(self, index: int) -> Uint8Array:
        item = self.items[index]
        return load(self.decoding, item.file, str(item.path), self.turn)

    def image(self, index: int, seed: int, epoch: int) -> Uint8Array:
        """uint8 [h, w, C], the same for the same four: these samples, index, seed and epoch."""
        pixels = self.held[index] if self.held is not None else self._decoded(index)
        with seeded(seed, epoch, index):
            return varying(self.augmentation, self.preprocess, self.drawn_on)(pixels)


def read_samples(
    items: Sequence[Item],
    preprocess: Preprocess,
    augmentation: Augmentation | None = None,
    progress: Progress = silent,
    most_bytes: int = MOST_BYTES,
) -> tuple[Samples, tuple[LeftOut, ...]]:
    """Decode every item once; those that cannot be read are left out.

    For a random crop the images are held larger than the network takes them, without preprocess.crop: the crop makes up for it.
    """
    augmentation = augmentation or Augmentation()
    decoding = of_photographs(preprocess)
    if augmentation.area:
        height, width = (ceil(side * MARGIN) for side in decoding.size)
        decoding = replace(decoding, size=(height, width), crop=1.0)
    fits = len(items) * decoding.size[0] * decoding.size[1] * decoding.channels <= most_bytes
    kept: list[Item] = []
    left_out: list[LeftOut] = []
    held = np.empty((len(items) if fits else 0, *decoding.size, decoding.channels), np.uint8)
    with progress("reading images", len(items)) as advance:
        for index, image in stream(items, decoding, workers=cores()):
            if isinstance(image, LeftOut):
                left_out.append(image)
            else:
                if fits:
                    held[len(kept)] = image
                kept.append(items[index])
            advance(1)
    labels = labels_of(kept)
    turn = None if fits else OneLarge(multiprocessing.Lock())
    samples = Samples(tuple(kept), labels, held[: len(kept)] if fits else None, decoding, preprocess, augmentation, turn=turn)
    return samples, tuple(left_out)


@dataclass(frozen=True, eq=False)
class _Epoch(Dataset[tuple[Tensor, int]]):
    """The samples in one epoch, as torch's loader reads them."""

    samples: Inputs
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(np.ascontiguousarray(self.samples.image(index, self.seed, self.epoch))), index


def batches(
    samples: Inputs, order: Sequence[Sequence[int]], seed: int, epoch: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (uint8 [N, h, w, C] of images, indices int64 [N]) of the samples with these indices, in this order.

    workers: processes that prepare them; what comes is the same with any number, 0 included.
    """
    # a seed of its own for the loader, which else would draw one from torch's global generator
    loader = DataLoader(
        _Epoch(samples, seed, epoch),
        batch_sampler=[list(batch) for batch in order],
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )
    yield from loader


def in_order(count: int, size: int) -> list[list[int]]:
    """0..count-1 in batches of `size`, the last one shorter: for validation."""
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def shuffled(count: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """0..count-1 in random order in whole batches of `size`; the last one is filled up from the beginning of the same order."""
    order = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, epoch]).permutation(count)
    whole = np.resize(order, ceil(count / size) * size)
    return [[int(index) for index in batch] for batch in whole.reshape(-1, size)]
