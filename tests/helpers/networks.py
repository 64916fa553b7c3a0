"""Networks that the tests print: built here, captured from small torch modules, or read from shared files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.artifacts.import_model import import_model
from nestling.formats.about import About
from nestling.formats.c.folder import print_network, write
from nestling.formats.c.machines import machine
from nestling.formats.tflite.read_builder import DTYPES
from nestling.graph import ir
from nestling.graph.ends import with_head, with_own_end
from nestling.graph.head import Head
from nestling.graph.ir import Array, Attrs, Graph, Node, Quant, Tensor
from nestling.graph.spec import check, output_shape
from nestling.preprocess.image import ImagePreprocess
from nestling.preprocess.pictures import Reading


def quant(scale: float, zero: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero], np.int32))


@dataclass
class Net:
    """A graph while it is written down, from an image [1, side, side, 3]; every node is named by its tensor."""

    side: int = 12
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    tensors: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tensors["image"] = Tensor("image", (1, self.side, self.side, 3), "uint8")
        values = np.clip(np.arange(256) / 255 * np.array([[230], [250], [200]]) - 120, -128, 127).astype(np.int8)
        self.tensors["norm"] = Tensor("norm", (3, 256), "int8", values, quant(0.02, -3))
        self.node("table", ir.Table(), "x", "image", "norm")

    def constant(self, name: str, data: Array, of: Quant) -> str:
        self.tensors[name] = Tensor(name, data.shape, DTYPES[data.dtype.name], data, of)
        return name

    def node(
        self, op: str, attrs: Attrs, name: str, *inputs: str, to: Quant | None = None, shape: tuple[int, ...] | None = None
    ) -> str:
        found = shape or output_shape(op, attrs, *(self.tensors[x].shape for x in inputs))
        self.tensors[name] = Tensor(name, found, "int8", None, to or quant(0.02, -3))
        self.nodes.append(Node(op, inputs, (name,), attrs, f"layers.{name}"))
        return name

    def conv(self, name: str, x: str, out: int, size: int = 1, to: Quant | None = None, **attrs: Any) -> str:
        depth, scale = self.tensors[x].shape[3], self.tensors[x].quant.scale[0]
        weight = self.rng.integers(-90, 90, (out, size, size, depth)).astype(np.int8)
        w = self.constant(f"{name}.w", weight, quant(0.01))
        bias = self.rng.integers(-500, 500, out).astype(np.int32)
        return self.node("conv2d", ir.Conv2d(**attrs), name, x, w, self.constant(f"{name}.b", bias, quant(scale * 0.01)), to=to)

    def graph(self, *outputs: str) -> Graph:
        return check(Graph(self.tensors, tuple(self.nodes), ("image",), outputs))


def about_of(graph: Graph, labels: Iterable[str] | None = None) -> About:
    _, height, width, channels = graph.tensors[graph.inputs[0]].shape
    classes = int(np.prod(graph.tensors[graph.outputs[0]].shape))
    ones = (0.5,) * channels
    found = tuple(labels) if labels is not None else tuple(f"thing {i}" for i in range(classes))
    return About(
        found, ImagePreprocess((height, width), 1 if channels == 1 else 3, 1.0, "bilinear", ones, ones, Reading(4095, "srgb"))
    )


def headed(graph: Graph, classes: int = 7) -> Graph:
    """An int8 graph that ends in an embedding [1, D], with a float head."""
    rng, depth = np.random.default_rng(5), graph.tensors[graph.outputs[0]].shape[1]
    weight = rng.normal(size=(classes, depth)).astype(np.float32)
    return with_head(graph, Head(weight, rng.normal(size=classes).astype(np.float32)))


def imported(path: Path) -> Graph:
    graph = import_model(path).graph
    assert graph is not None
    return with_own_end(graph)


def small() -> Graph:
    """Two convolutions, a mean, a head."""
    net = Net()
    net.conv("a", "x", 8, 3, stride=(2, 2), padding=(0, 1, 0, 1), clamp="relu")
    net.conv("b", "a", 10)
    net.node("mean", ir.Mean(), "e", "b")
    return headed(net.graph("e"))


def concats() -> Graph:
    """Side by side along the height (written in place) and along channels (copied), of what is also read elsewhere; pads."""
    net = Net()
    net.node("pad", ir.Pad((1, 0, 2, 1)), "p", "x")
    net.conv("a", "p", 5, 3)
    net.conv("b", "a", 5)
    net.node("concat", ir.Concat(1), "tall", "a", "b")  # a is read by b, too, after it was written into its place
    net.conv("c", "tall", 3)
    net.node("concat", ir.Concat(3), "wide", "tall", "c")
    net.node("pad", ir.Pad((0, 2, 1, 0)), "q", "wide")
    net.node("max_pool", ir.MaxPool((2, 3), (2, 2)), "m", "q")
    net.node("reshape", ir.Reshape(), "flat", "m", shape=(1, int(np.prod(net.tensors["m"].shape))))
    return headed(net.graph("flat"))


def printed(graph: Graph, folder: Path, name: str = "host", about: About | None = None) -> Path:
    write(print_network(graph, about or about_of(graph), machine(name)), folder)
    return folder


def noise(graph: Graph, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Images of noise, half of them of the extremes only."""
    rng = np.random.default_rng(seed)
    shape = (count, *graph.tensors[graph.inputs[0]].shape[1:])
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    images[::2] = np.where(images[::2] < 128, 0, 255)
    return images
