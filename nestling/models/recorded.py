"""Backbones whose structure is recorded here and whose numbers come as a package: they are there without torch and timm.

recorded/NAME.json is written by scripts/record_backbones.py from what torch captures:

    preprocess   as timm has it
    arrays       of each tensor of the package, in its order: the plain network's name for it (null: the classifier's), its shape
    structure    the float Graph over these arrays, at the size that preprocess says
    same         pads that follow from the size, as TensorFlow's SAME has them: behind them ceil(size / stride) places
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nestling.bundle import Timm
from nestling.errors import NestlingError, UnusableFile
from nestling.graph import structure as structures
from nestling.graph.ir import Conv2d, DepthwiseConv2d, Graph, Node, Pad, Pair, Sides
from nestling.graph.spec import RULES
from nestling.graph.structure import filled, structure_of
from nestling.models.packages import Package, package_of, source_of, tensors_in
from nestling.models.pth import Array
from nestling.outside import Record
from nestling.preprocess.image import SIDES, ImagePreprocess, Size, as_option, of_photographs, sides_of
from nestling.preprocess.image import from_plain as preprocess_from_plain

FOLDER = Path(__file__).with_name("recorded")


def names() -> tuple[str, ...]:
    """Every backbone that is recorded, whether its package is installed or not."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def recorded(name: str) -> Package | None:
    """The package with the numbers of a backbone that is recorded; None where it is not, or the package not installed."""
    return package_of(name) if name in names() else None


def created(name: str, size: Size | None = None) -> tuple[Timm, dict[str, Array], ImagePreprocess]:
    """A recorded backbone: as backbones.create(name, "package", size) gives it, and its structure.

    Raises NestlingError for a size that no image has, UnusableFile where the package's tensors are not those that were recorded.
    """
    package = recorded(name)
    if package is None:
        raise NestlingError(f"{name} is no backbone that is there without torch.", f"there are: {', '.join(names())}")
    plain = _plain(name)
    preprocess = preprocess_of(name, size)
    found = tensors_in(package)
    if [list(array.shape) for array in found] != [shape for _, shape in plain["arrays"]]:
        raise UnusableFile(f"the weights in {package.distribution} are not those that nestling knows.", "install the version 0.1.0")
    named = {own: np.array(array) for (own, _), array in zip(plain["arrays"], found, strict=True) if own is not None}
    graph = filled(structures.from_plain(Record(plain["structure"], name), {}), named)
    try:
        sized = resized(graph, preprocess.size, plain["same"])
    except ValueError as error:
        height, width = preprocess.size
        raise NestlingError(f"{name} can't take images of {height}x{width} ({error}).", "try another --size") from error
    return Timm(name, source_of(package), structure_of(sized, named)), named, preprocess


def preprocess_of(name: str, size: Size | None = None) -> ImagePreprocess:
    """What images a recorded backbone takes. Raises NestlingError for a size that no image has."""
    found = of_photographs(preprocess_from_plain(_plain(name)["preprocess"]))
    if size is None:
        return found
    require_size(name, size, found.size)
    return replace(found, size=sides_of(size))


def require_size(name: str, size: Size, own: tuple[int, int]) -> None:
    """Raises NestlingError for a size that no image has; warns of one that wastes. own: that a backbone was trained at."""
    sides = sides_of(size)
    for side in sides:
        if not SIDES[0] <= side <= SIDES[1]:
            hint = f"{name} was trained at --size {as_option(own)}"
            raise NestlingError(f"images are {SIDES[0]} to {SIDES[1]} pixels a side, not {side}.", hint)
    height, width = (max(32, round(side / 32) * 32) for side in sides)
    if (height, width) != sides:
        better = as_option((height, width))
        warnings.warn(f"size {as_option(size)} is not a multiple of 32; {better} would waste nothing", stacklevel=3)


@cache
def _plain(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


# ---- other sizes -----------------------------------------------------------------------------------------------------------------


def resized(graph: Graph, size: Pair, same: Collection[str]) -> Graph:
    """The graph for images of another size: other shapes, and other pads where they are in `same`.

    Raises ValueError where it comes to nothing.
    """
    tensors = dict(graph.tensors)
    image = tensors[graph.inputs[0]]
    tensors[image.name] = replace(image, shape=(1, *size, image.shape[3]))
    nodes: list[Node] = []
    for node in graph.nodes:
        shapes = [tensors[name].shape for name in node.inputs]
        if node.name in same:
            node = replace(node, attrs=Pad(_padding(graph, node, shapes[0])))
        own = tensors[node.name].shape  # of a reshape: the flattening of what the last mean gives, whatever the size was
        shape = own if node.op == "reshape" else RULES[node.op].shape(node.attrs, *shapes)
        tensors[node.name] = replace(tensors[node.name], shape=shape)
        nodes.append(node)
    return replace(graph, tensors=tensors, nodes=tuple(nodes))


def _padding(graph: Graph, node: Node, image: tuple[int, ...]) -> Sides:
    """What a pad in front of a convolution has to add, so that there are ceil(size / stride) places."""
    reader = graph.readers(node.name)[0]
    attrs, weight = reader.attrs, graph.tensors[reader.inputs[1]]
    assert isinstance(attrs, Conv2d | DepthwiseConv2d)
    sides = zip(image[1:3], weight.shape[1:3], attrs.stride, attrs.dilation, strict=True)
    totals = [max((-(-length // step) - 1) * step + (k - 1) * spread + 1 - length, 0) for length, k, step, spread in sides]
    return (totals[0] // 2, totals[0] - totals[0] // 2, totals[1] // 2, totals[1] - totals[1] // 2)
