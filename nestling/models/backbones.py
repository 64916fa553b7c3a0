"""Backbones by timm's name: made plain, given weights, and put together with a head."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nestling.bundle import Bundle, Timm
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.models import weights as weights_of
from nestling.models.graph_module import GraphModule
from nestling.models.known import DEFAULT, Row
from nestling.models.packages import package_of
from nestling.models.plain import plain
from nestling.models.recorded import require_size
from nestling.models.timm_names import HINT
from nestling.models.torchvision_names import TWINS, renamed, trained_on, twin_of
from nestling.preprocess.image import ImagePreprocess, Preprocess, Size, sides_of

Arrays = dict[str, NDArray[Any]]


def create(
    name: str = DEFAULT, weights: str = "package", size: Size | None = None, seed: int = 0
) -> tuple[Timm, Arrays, ImagePreprocess]:
    """A backbone: its name with where its weights are from, its arrays (names of the plain network), its preprocessing.

    name: any image network of timm's whose forward gives [N, D] without a classifier.
    weights: "package", "hub", "none" (random, from `seed`), or the path of a .safetensors, .pth or .ckpt file with timm's names of
    layers, or torchvision's of the same network, wherever in it they stand.
    size: of the input in pixels; None for the size that timm, or torchvision, says the weights were trained at.
    Raises NestlingError for an unknown name, weights that can't be had, a size that the network can't take.
    """
    require_known(name)
    preprocess = preprocess_of(name, size)
    module = _new(name, seed)
    if weights == "none":
        source = f"none (seed {seed})"
    else:
        state, source, images = _state(name, module, weights)
        said = source.partition(" sha256:")[0].removeprefix("file:")
        weights_of.fill(module, state, said, ignore=_classifiers(name))
        if images is not None:
            preprocess = replace(images, size=preprocess.size if size else images.size)
    _width(module, name, preprocess.size)
    return Timm(name, source), to_arrays(plain(module)), preprocess


def build_backbone(architecture: Timm, arrays: Mapping[str, NDArray[Any]]) -> nn.Module:
    """The plain backbone in eval mode: normalised float32 [N, C, H, W] -> float32 [N, D].

    Raises NestlingError for a name that this timm doesn't know, or arrays that are not this network's.
    """
    require_known(architecture.name)
    with torch.device("meta"):  # a bundle of a few bytes may name a network of gigabytes: it gets no memory before its arrays fit
        weights_of.require_names(plain(timm.create_model(architecture.name, num_classes=0)), arrays, "the bundle")
    module = plain(_new(architecture.name, seed=0))
    load_state(module, arrays)
    return module.eval()


def build(bundle: Bundle) -> nn.Module:
    """The whole network in eval mode: uint8 [N, H, W, C] -> logits float32 [N, classes] (embeddings where there is no head).

    torch.export takes it. A float Graph is built as a GraphModule, with the normalisation in front unless the Graph begins with it.
    """
    normalise = Normalise(bundle.preprocess)
    if isinstance(bundle.architecture, Timm):
        return Network(normalise, build_backbone(bundle.architecture, bundle.arrays), bundle.head).eval()
    if bundle.architecture is None:
        raise NestlingError("this bundle's network is an integer one, made elsewhere: it has no float weights.")
    graph = bundle.architecture
    takes_bytes = graph.tensors[graph.inputs[0]].dtype == "uint8"
    return Network(nn.Identity() if takes_bytes else nn.Sequential(normalise, Nhwc()), GraphModule(graph), bundle.head).eval()


class Normalise(nn.Module):
    """uint8 [N, H, W, C] -> float32 [N, C, H, W], (value / 255 - mean) / std a channel, as one multiplication and one addition."""

    scale: Tensor
    shift: Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        mean, std = np.asarray(preprocess.mean, np.float64), np.asarray(preprocess.std, np.float64)
        self.register_buffer("scale", torch.tensor(1 / (255 * std), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor(-mean / std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The permuted view stays NHWC in memory, which is what torch's convolutions are quickest on here."""
        return images.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift


class Nhwc(nn.Module):
    """[N, C, H, W] -> [N, H, W, C], as a Graph takes it."""

    def forward(self, images: Tensor) -> Tensor:
        """A view."""
        return images.permute(0, 2, 3, 1)


class Network(nn.Module):
    """normalise, backbone, head, one after the other; without a head, embeddings come out."""

    def __init__(self, normalise: nn.Module, backbone: nn.Module, head: Head | None) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone
        self.head: nn.Module = _linear(head) if head else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, C] -> float32 [N, classes]."""
        logits: Tensor = self.head(self.backbone(self.normalise(images)))
        return logits


def _linear(head: Head) -> nn.Linear:
    classes, width = head.weight.shape
    linear = nn.Linear(width, classes)
    weights_of.fill(linear, {"weight": head.weight, "bias": head.bias}, "the head")
    return linear


def to_arrays(module: nn.Module) -> Arrays:
    """The state dict as arrays (copies), in torch's names and layout; without batch norms' counters, which nothing reads."""
    state = module.state_dict().items()
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state if not name.endswith("num_batches_tracked")}


def load_state(module: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """The inverse of to_arrays: copies the arrays into the module. Raises UnusableFile where names or shapes differ."""
    weights_of.fill(module, arrays, "the bundle")


def preprocess_of(name: str, size: Size | None = None) -> ImagePreprocess:
    """What timm says of a name's evaluation images: mean, std, crop, interpolation, and the training size unless `size` is given.

    timm's larger test sizes are not used: they cost more than they bring. Raises NestlingError for a network of one fixed size.
    """
    config = timm.get_pretrained_cfg(name)
    channels, *own = config.input_size
    sides = (own[0], own[1]) if size is None else sides_of(size)
    if config.fixed_input_size and sides != tuple(own):
        raise NestlingError(f"{name} takes images of {own[0]}x{own[1]} only, not {sides[0]}x{sides[1]}.", "leave out --size")
    if size is not None:
        require_size(name, size, (own[0], own[1]))
    return ImagePreprocess(
        size=sides,
        channels=channels,
        crop=config.crop_pct,
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def describe(name: str, size: int | None = None) -> Row:
    """The name's numbers, from shapes alone (no weights are made or read)."""
    require_known(name)
    height, width = timm.get_pretrained_cfg(name).input_size[1:] if size is None else (size, size)
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0).eval()
        with FlopCounterMode(display=False) as counter:
            embedding = _width(module, name, (height, width))
    return Row(
        name=name,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        macs=counter.get_total_flops() // 2,
        size=height,
        width=embedding,
        weights=(*(["package"] if package_of(name) else []), *(["hub"] if weights_of.in_cache(name) else [])),
    )


def require_known(name: str) -> None:
    """Raises NestlingError, with the closest names, where timm has no such network."""
    with contextlib.suppress(RuntimeError):  # timm's word for a tag that it doesn't know, or a name without preprocessing
        if timm.is_model(name) and timm.get_pretrained_cfg(name, allow_unregistered=False):
            return
    theirs = [own for own, torchvisions in TWINS.items() if torchvisions == name]
    close = theirs or difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?  " if close else ""
    raise NestlingError(f"timm has no network called {name!r}.", f"{hint}{HINT}")


def _new(name: str, seed: int) -> nn.Module:
    """timm's network without classifier, in eval mode, random from `seed`; the caller's random numbers are not disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = timm.create_model(name, num_classes=0)
    return module.eval()


def _state(name: str, module: nn.Module, weights: str) -> tuple[dict[str, Any], str, ImagePreprocess | None]:
    """(tensors by timm's names, where they are from, what images they were trained on where it is not what timm says)."""
    if weights == "package":
        return *weights_of.from_package(name), None
    if weights == "hub":
        return *weights_of.from_hub(name), None
    path = Path(weights)
    if not path.is_file():
        raise NestlingError(f"--weights is package, hub, none or a file; there is no file {weights}.", weights_of.what_works(name))
    states, source = weights_of.from_file(path)
    names, twin = weights_of.names_of(module), twin_of(name, module)
    state = weights_of.network_in(states, names, path.name)
    if twin is None or names <= state.keys():
        return state, source, trained_on(twin, path.name) if twin else None
    theirs = renamed(weights_of.network_in(states, twin.names.keys(), path.name), twin, module)
    if len(names & theirs.keys()) <= len(names & state.keys()):
        return state, source, None
    return theirs, source, trained_on(twin, path.name) or trained_on(twin)


def _classifiers(name: str) -> tuple[str, ...]:
    """Prefixes of the classifier's names in a file of weights."""
    classifier = timm.get_pretrained_cfg(name).classifier or ()
    return tuple(f"{layer}." for layer in ((classifier,) if isinstance(classifier, str) else classifier))


def _width(module: nn.Module, name: str, size: tuple[int, int]) -> int:
    """D, found by running one blank image. Raises NestlingError where the network can't take the size or gives no [N, D]."""
    channels = timm.get_pretrained_cfg(name).input_size[0]
    try:
        with torch.no_grad():
            embedding = module(torch.zeros(1, channels, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise NestlingError(f"{name} can't take images of {size[0]}x{size[1]} ({error}).", "try another --size") from error
    if not isinstance(embedding, Tensor) or embedding.ndim != 2:
        raise NestlingError(f"{name} does not end in one embedding an image.", HINT)
    return int(embedding.shape[1])
