"""What the fuzzer damages: small networks of every kind, printed and bundled here, and the shared ones where they are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from nestling import bundle as bundles
from nestling.bundle import Bundle, Head, Split, Step, Timm, Yardstick
from nestling.graph import ir
from nestling.graph.ir import Array, Attrs, Graph, Node, Quant, Tensor
from nestling.graph.spec import check, output_shape
from nestling.preprocess import ImagePreprocess, to_plain
from nestling.targets.tflite import print_graph

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
SHARED_FILES = ("vww_96_int8.tflite", "resnet8_cifar10_int8.tflite", "vww_96_float.tflite")
PREPROCESS = ImagePreprocess((8, 8), 3, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def quant(scale: float, zero: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero], np.int32))


def small_graph(integer: bool) -> Graph:
    """image [1, 8, 8, 3] -> table, convolutions, add, pools, reshape -> embedding [1, 8]. The same at each call."""
    random = np.random.default_rng(0)
    tensors = {"image": Tensor("image", (1, 8, 8, 3), "uint8")}
    nodes: list[Node] = []
    scale = quant(0.02, -3)

    def constant(name: str, shape: tuple[int, ...], bias: bool = False) -> str:
        data: Array = random.normal(0, 0.3, shape).astype(np.float32)
        of: Quant | None = None
        if integer:
            data = random.integers(-90, 90, shape).astype(np.int32 if bias else np.int8)
            of = quant(0.02 * 0.01 if bias else 0.01)
        tensors[name] = Tensor(name, shape, data.dtype.name, data, of)  # type: ignore[arg-type]
        return name

    def node(op: str, attrs: Attrs, name: str, *inputs: str, shape: tuple[int, ...] | None = None) -> str:
        shape = shape or output_shape(op, attrs, *(tensors[i].shape for i in inputs))
        tensors[name] = Tensor(name, shape, "int8" if integer else "float32", None, scale if integer else None)
        nodes.append(Node(op, inputs, (name,), attrs, f"layer of {name}"))
        return name

    table = random.integers(-128, 128, (3, 256)).astype(np.int8) if integer else random.normal(0, 1, (3, 256)).astype(np.float32)
    tensors["table"] = Tensor("table", (3, 256), "int8" if integer else "float32", table, scale if integer else None)
    x = node("table", ir.Table(), "x", "image", "table")
    a = node(
        "conv2d", ir.Conv2d((2, 2), (1, 1), (0, 1, 0, 1), "relu6"), "a", x, constant("w1", (8, 3, 3, 3)), constant("b1", (8,), True)
    )
    d = node(
        "depthwise_conv2d",
        ir.DepthwiseConv2d(padding=(1, 1, 1, 1)),
        "d",
        a,
        constant("w2", (1, 3, 3, 8)),
        constant("b2", (8,), True),
    )
    s = node("add", ir.Add("relu"), "s", a, d)
    m = node("max_pool", ir.MaxPool((2, 2), (2, 2)), "m", s)
    c = node("concat", ir.Concat(3), "c", m, m)
    p = node("average_pool", ir.AveragePool((2, 2), (2, 2)), "p", c)
    r = node("reshape", ir.Reshape(), "r", p, shape=(1, 16))
    f = node("fully_connected", ir.FullyConnected(), "f", r, constant("w3", (8, 16)), constant("b3", (8,), True))
    return check(Graph(tensors, tuple(nodes), ("image",), (f,)))


def small_bundles() -> dict[str, Bundle]:
    head = Head(np.random.default_rng(1).normal(0, 1, (3, 8)).astype(np.float32), np.zeros(3, np.float32))
    labels, split = ("a", "b", "ü"), Split(0, ("0" * 16,), ("1" * 16,), ("2" * 16,))
    step = Step("fit", {"folder": "photos", "views": "none"}, "ab", {"val_top1": 0.5})
    yardstick = Yardstick(("1" * 16,), np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    quantised = Bundle(small_graph(False), {}, head, labels, PREPROCESS, split, (step, step), small_graph(True), yardstick)
    arrays = {"conv.weight": np.zeros((4, 3, 3, 3), np.float32), "norm.mean": np.zeros(4, np.float32)}
    return {
        "quantised": quantised,
        "imported": replace(quantised, architecture=None, head=None, labels=tuple("abcdefgh"), split=None, yardstick=None),
        "timm": Bundle(Timm("mobilenetv1_100", "none (seed 0)"), arrays, head, labels, PREPROCESS, split, (step,)),
    }


def tflite_files(shared: bool) -> dict[str, bytes]:
    plain, integers, floats = to_plain(PREPROCESS), small_graph(True), small_graph(False)
    found = {
        "int8": print_graph(integers, labels=tuple("abcdefgh"), preprocess=plain),
        "float": print_graph(floats, labels=("a", "b"), preprocess=plain),
        "fp16": print_graph(floats, "fp16"),
        "dynamic": print_graph(floats, "dynamic"),
    }
    there = {name: SHARED / name for name in SHARED_FILES if shared and (SHARED / name).exists()}
    return found | {name: path.read_bytes() for name, path in there.items()}


def bundle_files() -> Mapping[str, bytes]:
    return {name: bundles.to_bytes(bundle) for name, bundle in small_bundles().items()}
