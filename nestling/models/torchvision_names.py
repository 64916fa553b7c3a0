"""torchvision's weights in timm's networks: the same layers in the same order, under other names, and trained on other images.

torchvision comes with timm; of it only names, shapes and what its weights say of their images are asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from nestling.models.weights import COUNTER, tensor
from nestling.preprocess.image import ImagePreprocess, Interpolation

TWINS: Final[Mapping[str, str]] = {  # timm's name, without its tag: torchvision's
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "mnasnet_050": "mnasnet0_5",
    "mnasnet_075": "mnasnet0_75",
    "mnasnet_100": "mnasnet1_0",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_b1": "efficientnet_b1",
    "efficientnet_b2": "efficientnet_b2",
    "efficientnet_b3": "efficientnet_b3",
    "efficientnet_b4": "efficientnet_b4",
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnext50_32x4d": "resnext50_32x4d",
    "densenet121": "densenet121",
}
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


@dataclass(frozen=True)
class Twin:
    """architecture: torchvision's name of a network. names: timm's name of each of its tensors, by torchvision's.

    eps: by timm's name of a variance, how much more torchvision's norm adds to it. classifier: prefixes of what has no name here.
    """

    architecture: str
    names: Mapping[str, str]
    eps: Mapping[str, float]
    classifier: tuple[str, ...] = ("classifier.", "fc.")


def twin_of(name: str, module: nn.Module) -> Twin | None:
    """How torchvision has timm's network `name`; None where it does not. module: timm's, without its classifier."""
    architecture = TWINS.get(name.partition(".")[0])
    if architecture is None:
        return None
    with torch.device("meta"):
        theirs = get_model(architecture, weights=None)
    names: dict[str, str] = {}
    eps: dict[str, float] = {}
    for (own, layer), (their, other) in zip(_layers(module), _layers(theirs), strict=False):  # the classifier is behind the last
        names |= {f"{their}.{part}": f"{own}.{part}" for part in layer.state_dict() if part != COUNTER}
        if isinstance(layer, nn.BatchNorm2d) and isinstance(other, nn.BatchNorm2d):
            eps[f"{own}.running_var"] = other.eps - layer.eps
    return Twin(architecture, names, eps)


def _layers(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)]


def renamed(state: Mapping[str, Any], twin: Twin, module: nn.Module) -> dict[str, Any]:
    """torchvision's tensors under timm's names, so that they give the same answers there; without the classifier.

    A linear layer becomes the convolution of one place that timm has instead; what a norm adds to its variances more than timm's is
    added to them here. Names that are not the twin's stay, for a message.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found: dict[str, Any] = {}
    for key, value in state.items():
        name = twin.names.get(key)
        if name is None:
            if not key.startswith(twin.classifier) and not key.endswith(COUNTER):
                found[key] = value
            continue
        if tuple(value.shape) == shapes[name][:2] and shapes[name][2:] == (1, 1):
            value = value.reshape(shapes[name])
        found[name] = tensor(value).float() + twin.eps[name] if twin.eps.get(name) else value
    return found


def trained_on(twin: Twin, file: str | None = None) -> ImagePreprocess | None:
    """What images torchvision's weights take: those of a file's name as torchvision gives it, else the first that it has.

    None where no file of the architecture's is called so.
    """
    for weights in get_model_weights(twin.architecture):
        if file in (None, weights.url.rpartition("/")[2]):
            images = weights.transforms()
            (side,), (resized,) = images.crop_size, images.resize_size
            interpolation: Interpolation = "bicubic" if images.interpolation.value == "bicubic" else "bilinear"
            return ImagePreprocess((side, side), 3, side / resized, interpolation, tuple(images.mean), tuple(images.std))
    return None
