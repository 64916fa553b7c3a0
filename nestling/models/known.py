"""The backbones that can be named, and how one is made: those that are recorded without torch, any other of timm's with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nestling import extras
from nestling.bundle import Bundle, Timm
from nestling.errors import NestlingError
from nestling.graph.macs import macs
from nestling.models import recorded
from nestling.models.float_graph import unfolded_graph, with_structure
from nestling.models.packages import package_of
from nestling.preprocess.image import ImagePreprocess, Size

DEFAULT = "tf_efficientnet_lite0"
# Small networks that every later step (quantising, printing in C, pruning) is tried on. Any other name of timm's is taken too.
RECOMMENDED: tuple[str, ...] = (
    "mobilenetv1_100",
    "mobilenetv2_050",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mnasnet_100",
    "resnet18",
)


@dataclass(frozen=True)
class Row:
    """A line of `nestling backbones`.

    macs: multiply-accumulates of convolutions and matrix products for one image of size x size.
    width: length of the embedding. weights: what --weights takes without a network, besides none and a file.
    """

    name: str
    parameters: int
    macs: int
    size: int
    width: int
    weights: tuple[str, ...]


def described(name: str, size: int | None = None) -> Row:
    """The numbers of a recorded backbone, without torch; as backbones.describe gives them."""
    bundle = created(name, "package", size)
    graph = unfolded_graph(bundle)
    learned = [array.size for key, array in bundle.arrays.items() if not key.endswith(("running_mean", "running_var"))]
    macs_of_all = sum(macs(node, graph) for node in graph.nodes)
    width = graph.tensors[graph.outputs[0]].shape[-1]
    return Row(name, sum(learned), macs_of_all, bundle.preprocess.size[0], width, ("package",))


def weights_for(name: str) -> str:
    """Where a backbone's numbers come from where nobody says it: its package, where there is one."""
    return "package" if package_of(name) else "hub"


def require_made(name: str, weights: str) -> None:
    """Raises NestlingError where making that backbone takes torch, which is not installed."""
    if weights == "package" and recorded.recorded(name):
        return
    if not extras.has("train"):
        there = [other for other in recorded.names() if recorded.recorded(other)]
        hint = f"{extras.hint('train')}, or --backbone {' or '.join(there)}" if there else extras.hint("train")
        raise NestlingError(f"the backbone {name} with weights from {weights} needs torch and timm, which are not installed.", hint)


def created(name: str, weights: str, size: Size | None = None, seed: int = 0) -> Bundle:
    """A backbone without head and labels. Arguments and errors: as backbones.create; its structure comes with it.

    A recorded one is made without torch even where it is installed: the same bytes everywhere.
    """
    require_made(name, weights)
    if weights == "package" and recorded.recorded(name):
        return _bare(*recorded.created(name, size))
    from nestling.models.backbones import create

    return with_structure(_bare(*create(name, weights, size, seed)))


def _bare(architecture: Timm, arrays: Mapping[str, NDArray[Any]], preprocess: ImagePreprocess) -> Bundle:
    return Bundle(architecture, arrays, None, (), preprocess)
