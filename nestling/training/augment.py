"""How a training image is varied, and how two are mixed: timm's transforms, with random numbers that depend on the image alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor

from nestling.preprocess.image import FILTERS, Preprocess

Uint8Array = NDArray[np.uint8]
Vary = Callable[[Uint8Array], Uint8Array]

MARGIN = 1.3  # side of the image that is held over the side that the network takes: what a random crop is cut from


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image.

    area, aspect: of the random crop, as shares of the whole image and of its aspect ratio; None for the centre, as in evaluation.
    mirror, upturn: chance of a flip left-right, up-down. randaugment: timm's words for RandAugment, "" for none.
    erase: chance that a random rectangle becomes noise.
    """

    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.0
    upturn: float = 0.0
    randaugment: str = ""
    erase: float = 0.0


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation((0.6, 1.0), (0.85, 1 / 0.85), mirror=0.5),
    "strong": Augmentation((0.35, 1.0), (0.75, 1 / 0.75), mirror=0.5, randaugment="rand-m7-n2-mstd0.5-inc1", erase=0.25),
}


def varying(augmentation: Augmentation, preprocess: Preprocess, drawn_on: tuple[int, int] | None = None) -> Vary:
    """uint8 [H, W, C] -> uint8 [h, w, C] of the network's size, drawn from the global generators of random, numpy and torch.

    Where there is no random crop the image has the network's size already. drawn_on: (height, width) of another network's held
    images: the crop is the region that the same random numbers cut out of those. (Out of an image of another size they cut another
    region: places are whole pixels.) An erased rectangle is not the same one at another size.
    """
    crop = (
        RandomResizedCropAndInterpolation(preprocess.size, augmentation.area, augmentation.aspect, preprocess.interpolation)
        if augmentation.area
        else None
    )
    randaugment = rand_augment_transform(augmentation.randaugment, {}) if augmentation.randaugment else None
    erase = RandomErasing(augmentation.erase, mode="pixel", device="cpu") if augmentation.erase else None

    def vary(pixels: Uint8Array) -> Uint8Array:
        image = Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)  # RandAugment wants RGB
        if crop:
            image = _same_region(crop, image, drawn_on, preprocess) if drawn_on else crop(image)
        if random.random() < augmentation.mirror:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < augmentation.upturn:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if randaugment:
            image = randaugment(image)
        varied = np.asarray(image.convert("L") if pixels.shape[2] == 1 else image)
        varied = varied.reshape(*varied.shape[:2], pixels.shape[2])
        return _erased(erase, varied) if erase else varied.copy()

    return vary


def _same_region(
    crop: RandomResizedCropAndInterpolation, image: Image.Image, drawn_on: tuple[int, int], preprocess: Preprocess
) -> Image.Image:
    top, left, height, width = crop.get_params(Image.new("L", drawn_on[::-1]), crop.scale, crop.ratio)
    down, across = image.height / drawn_on[0], image.width / drawn_on[1]
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    return image.resize(preprocess.size[::-1], FILTERS[preprocess.interpolation], box)


def _erased(erase: RandomErasing, pixels: Uint8Array) -> Uint8Array:
    """timm's noise is normal: one deviation of it becomes half of the range of a byte, around the middle."""
    centred = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    erased: Uint8Array = to_bytes((erase(centred) + 1) * 127.5).permute(1, 2, 0).contiguous().numpy()
    return erased


def to_bytes(values: Tensor) -> Tensor:
    """Rounded, and clipped to 0..255: every network here takes bytes."""
    return values.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix: alpha of the Beta distribution that the share of the other image is drawn from; 0 for none of it.

    Sources: Zhang et al. 2018 (mixup), Yun et al. 2019 (CutMix).
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def mixed(images: Tensor, labels: Tensor, classes: int, mixing: Mixing, smoothing: float) -> tuple[Tensor, Tensor]:
    """uint8 [N, H, W, C], int64 [N] -> uint8 [N, H, W, C], targets float32 [N, classes] (rows add up to 1).

    N is even where images are mixed. Draws from numpy's global generator. smoothing: share of the target given to all classes.
    """
    if not mixing:
        even = torch.full((len(labels), classes), smoothing / classes)
        return images, even.scatter_add_(1, labels[:, None], torch.full((len(labels), 1), 1 - smoothing))
    mix = Mixup(mixing.mixup, mixing.cutmix, label_smoothing=smoothing, num_classes=classes)
    values, targets = mix(images.permute(0, 3, 1, 2).float(), labels)
    return to_bytes(values).permute(0, 2, 3, 1), targets


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """The generators of random, numpy and torch start from these numbers; afterwards they are as before, on the CPU."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # SeedSequence spreads neighbouring numbers over all bits: Melissa O'Neill's seed_seq, as numpy describes it
    words = np.random.SeedSequence([number & 0xFFFFFFFFFFFFFFFF for number in numbers]).generate_state(3)
    try:
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.manual_seed(int(words[2]))  # of every device
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
