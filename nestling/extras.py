"""What is not installed with nestling alone, and what to type for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from nestling.errors import NestlingError

PACKAGES: Mapping[str, tuple[str, ...]] = {  # extra -> the packages, by the names that Python imports them by, that it brings
    "train": ("torch", "timm", "torch_pruning", "torchvision", "huggingface_hub"),
    "executorch": ("executorch", "torchao"),
    "search": ("modelopt", "torchprofile"),
    "openvino": ("openvino",),
    "demo": ("elpv_dataset",),
    "heif": ("pillow_heif",),
}


def has(extra: str) -> bool:
    """Whether what the extra brings first is there; "" stands for the core."""
    return not extra or find_spec(PACKAGES[extra][0]) is not None


def require(extra: str, what: str) -> None:
    """Raises NestlingError, saying what to install, where the extra is not there. what: that needs it, as a subject."""
    if not has(extra):
        raise NestlingError(f"{what} needs {PACKAGES[extra][0]}, which is not installed.", hint(extra))


def extra_of(module: str) -> str | None:
    """The extra that brings a module which could not be imported."""
    return next((extra for extra, packages in PACKAGES.items() if module.partition(".")[0] in packages), None)


def hint(extra: str) -> str:
    """What to type."""
    return f"pip install 'nestling[{extra}]'"
