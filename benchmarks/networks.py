"""The int8 networks that hosts.py and hosts_layers.py measure, as bundles that are made in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nestling.artifacts.import_model import import_model
from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.formats.c.fitting import whole
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.graph.ir import Attrs, Conv2d, DepthwiseConv2d, Graph, Mean, Node, Tensor
from nestling.graph.macs import macs
from nestling.graph.spec import check, output_shape
from nestling.models.float_graph import float_graph
from nestling.models.known import created
from nestling.preprocess.image import ImagePreprocess
from nestling.quantization.calibrate import choose_ranges, observe

DATA = Path("shared/data")
FILES = {"vww": "vww_96_int8.tflite", "resnet8": "resnet8_cifar10_int8.tflite"}  # MLPerf Tiny's
SPECTROGRAM = ImagePreprocess((49, 10), 1, 1.0, "bilinear", (0.5,), (0.5,))
MADE: Mapping[str, Callable[[], Bundle]] = {
    "lite0": lambda: quantized(created("tf_efficientnet_lite0", "package", 224), 10),
    "ds-cnn": lambda: quantized(Bundle(ds_cnn(), {}, None, (), SPECTROGRAM), 12),
}
NAMES = ("lite0", *FILES, "ds-cnn")


def network(name: str, data: Path) -> Bundle | None:
    """One of NAMES. data: the folder of FILES; None where such a file is not there."""
    if name not in NAMES:
        raise SystemExit(f"there is no network {name!r} here; there are {', '.join(NAMES)}")
    if name in MADE:
        return MADE[name]()
    file = data / FILES[name]
    return import_model(file) if file.is_file() else None


def quantized(bundle: Bundle, classes: int) -> Bundle:
    """With integers for made-up images and a made-up head: what a layer takes depends on shapes, hardly on numbers."""
    graph, config = float_graph(bundle), QuantizeConfig()
    ranges = choose_ranges(
        observe(graph, list(made_up(bundle.preprocess, 4))), config.range, config.bits_activations, config.symmetric
    )
    weight = np.random.default_rng(0).normal(size=(classes, graph.tensors[graph.outputs[0]].shape[1])).astype(np.float32)
    labels = tuple(f"class {i}" for i in range(classes))
    head = Head(weight, np.zeros(classes, np.float32))
    return replace(bundle, graph=with_integers(graph, ranges, config), head=head, labels=labels)


def macs_of(bundle: Bundle) -> int:
    """Multiply-accumulates of an image."""
    graph = whole(bundle)
    return sum(macs(node, graph) for node in graph.nodes)


@dataclass
class _Layers:
    """A float Graph while it is written down, from numbers [1, height, width, 1] on."""

    tensors: dict[str, Tensor]
    nodes: list[Node] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, op: str, attrs: Attrs, name: str, x: str, *weight: int) -> str:
        """A layer. weight: the shape of its weights, which are normal and keep the answers' size; none for a layer without."""
        inputs = [x]
        if weight:
            channels = weight[3] if op == "depthwise_conv2d" else weight[0]
            sums = np.prod(weight) / channels
            values = self.rng.normal(0, np.sqrt(2 / sums), weight)
            for part, data in ((f"{name}.w", values), (f"{name}.b", np.zeros(channels))):
                self.tensors[part] = Tensor(part, data.shape, "float32", data.astype(np.float32))
                inputs.append(part)
        self.tensors[name] = Tensor(name, output_shape(op, attrs, *(self.tensors[part].shape for part in inputs)), "float32")
        self.nodes.append(Node(op, tuple(inputs), (name,), attrs, name))
        return name


def ds_cnn() -> Graph:
    """MLPerf Tiny's for keywords (Zhang et al. 2017): 49 x 10 numbers, a 10x4 layer of 64 channels, four separable ones."""
    layers = _Layers({"x": Tensor("x", (1, *SPECTROGRAM.size, 1), "float32")})
    x = layers.add("conv2d", Conv2d((2, 2), padding=(4, 5, 1, 1), clamp="relu"), "first", "x", 64, 10, 4, 1)
    for i in range(4):
        depthwise = DepthwiseConv2d(padding=(1, 1, 1, 1), clamp="relu")
        x = layers.add("depthwise_conv2d", depthwise, f"depthwise{i}", x, 1, 3, 3, 64)
        x = layers.add("conv2d", Conv2d(clamp="relu"), f"pointwise{i}", x, 64, 1, 1, 64)
    x = layers.add("mean", Mean(), "mean", x)
    return check(Graph(layers.tensors, tuple(layers.nodes), ("x",), (x,)), "DS-CNN")
