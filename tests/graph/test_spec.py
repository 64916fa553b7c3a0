"""A sound graph passes, and each rule broken on its own is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nestling.errors import NestlingError, UnsupportedOp, UnusableFile
from nestling.graph import ir
from nestling.graph.ir import OPS, Attrs, Graph, Node, Quant, Tensor
from nestling.graph.spec import RULES, check, output_shape


def quant(scale: float, zero: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero], np.int32))


def sound() -> Graph:
    """image -> table -> conv2d -> average_pool -> reshape -> dequantize -> fully_connected."""
    scales, zeros = np.array([0.01, 0.02], np.float32), np.zeros(2, np.int32)
    tensors = [
        Tensor("image", (1, 8, 8, 3), "uint8"),
        Tensor("norm", (3, 256), "int8", np.zeros((3, 256), np.int8), quant(0.05, 3)),
        Tensor("x", (1, 8, 8, 3), "int8", None, quant(0.05, 3)),
        Tensor("w", (2, 3, 3, 3), "int8", np.ones((2, 3, 3, 3), np.int8), Quant(scales, zeros, 0)),
        Tensor("b", (2,), "int32", np.ones(2, np.int32), Quant(scales * np.float32(0.05), zeros, 0)),
        Tensor("c", (1, 4, 4, 2), "int8", None, quant(0.1, -128)),
        Tensor("p", (1, 1, 1, 2), "int8", None, quant(0.1, -128)),
        Tensor("r", (1, 2), "int8", None, quant(0.1, -128)),
        Tensor("e", (1, 2), "float32"),
        Tensor("head", (5, 2), "float32", np.ones((5, 2), np.float32)),
        Tensor("y", (1, 5), "float32"),
    ]
    nodes = (
        Node("table", ("image", "norm"), ("x",), ir.Table()),
        Node("conv2d", ("x", "w", "b"), ("c",), ir.Conv2d((2, 2), (1, 1), (0, 1, 0, 1), "relu6"), "stem"),
        Node("average_pool", ("c",), ("p",), ir.AveragePool((4, 4), (4, 4))),
        Node("reshape", ("p",), ("r",), ir.Reshape()),
        Node("dequantize", ("r",), ("e",), ir.Dequantize()),
        Node("fully_connected", ("e", "head"), ("y",), ir.FullyConnected()),
    )
    return Graph({t.name: t for t in tensors}, nodes, ("image",), ("y",))


def tensor(which: str, /, **changes: object) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, tensors={**g.tensors, which: replace(g.tensors[which], **changes)})  # type: ignore[arg-type]  # wrong on purpose


def node(index: int, **changes: object) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, nodes=tuple(replace(n, **changes) if i == index else n for i, n in enumerate(g.nodes)))  # type: ignore[arg-type]  # wrong on purpose


def without(name: str) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, tensors={key: t for key, t in g.tensors.items() if key != name})


def test_every_op_has_a_rule() -> None:
    assert RULES.keys() == OPS.keys()


def test_a_sound_graph_is_given_back() -> None:
    graph = sound()
    assert check(graph) is graph


BROKEN: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "unknown tensor": (without("w"), "'w' before anything"),
    "order": (lambda g: replace(g, nodes=g.nodes[::-1]), "before anything has written"),
    "cycle": (node(1, inputs=("p", "w", "b")), "reads 'p' before"),
    "written twice": (node(2, outputs=("c",)), "written already"),
    "writes a constant": (node(3, outputs=("head",)), "a constant"),
    "writes an input": (node(0, outputs=("image",)), "written already"),
    "two outputs": (node(3, outputs=("r", "r2")), "one output"),
    "no inputs": (lambda g: replace(g, inputs=()), "needs inputs"),
    "an input twice": (lambda g: replace(g, inputs=("image", "image")), "each input once"),
    "a constant as output": (lambda g: replace(g, outputs=("head",)), "'head' is written by nothing"),
    "an activation that nothing writes": (
        lambda g: replace(g, tensors={**g.tensors, "lost": Tensor("lost", (1, 2), "float32")}),
        "'lost' is written by nothing",
    ),
    "another name": (tensor("w", name="v"), "calls itself 'v'"),
    "batch of 2": (tensor("image", shape=(2, 8, 8, 3)), "batch 1"),
    "a side of 0": (tensor("c", shape=(1, 0, 4, 2)), "positive sides"),
    "a side that is no int": (tensor("c", shape=(1, 4.0, 4, 2)), "positive sides"),
    "too many elements": (tensor("image", shape=(1, 2**15, 2**15, 3)), "elements"),
    "too many dimensions": (tensor("c", shape=(1,) * 7), "positive sides"),
    "another dtype": (tensor("c", dtype="int16"), "int16"),
    "data of another dtype": (tensor("w", data=np.ones((2, 3, 3, 3), np.uint8)), "its data is uint8"),
    "data of another shape": (tensor("w", data=np.ones((2, 3, 3, 4), np.int8)), "its data is int8"),
    "a quant on floats": (tensor("y", quant=quant(1)), "has no quant"),
    "a scale of 0": (tensor("c", quant=quant(0)), "positive and finite"),
    "a negative scale": (tensor("c", quant=quant(-1)), "positive and finite"),
    "a scale of NaN": (tensor("c", quant=quant(float("nan"))), "positive and finite"),
    "a zero point out of range": (tensor("c", quant=quant(0.1, 128)), "between -128 and 127"),
    "scales in float64": (tensor("c", quant=Quant(np.ones(1), np.zeros(1, np.int32))), "float32"),  # type: ignore[arg-type]  # wrong on purpose
    "three scales for two channels": (
        tensor("w", quant=Quant(np.ones(3, np.float32), np.zeros(3, np.int32), 0)),
        "needs 2 scales",
    ),
    "an axis that is not there": (tensor("w", quant=Quant(np.ones(2, np.float32), np.zeros(2, np.int32), 9)), "axis 9"),
    "weights along another axis": (
        tensor("w", quant=Quant(np.ones(3, np.float32), np.zeros(3, np.int32), 3)),
        "along axis 0",
    ),
    "a weight zero point": (tensor("w", quant=quant(0.01, 5)), "only old uint8"),
    "a bias of another scale": (
        tensor("b", quant=Quant(np.array([0.5, 0.5], np.float32), np.zeros(2, np.int32), 0)),
        "bias's scale",
    ),
    "a bias of another length": (
        tensor("b", shape=(1,), data=np.ones(1, np.int32), quant=quant(5e-4)),
        r"bias must be \[2\]",
    ),
    "a bias without a quant": (tensor("b", quant=None), "takes f f"),
    "weights that are no constant": (tensor("w", data=None, shape=(1, 3, 3, 3), quant=quant(0.01)), "'w' before anything"),
    "float into integer": (tensor("x", dtype="float32", quant=None), "table 'x'.*takes i f"),
    "the wrong attributes": (node(1, attrs=ir.Pad((0, 0, 0, 0))), "Pad's"),
    "a stride of 0": (node(1, attrs=ir.Conv2d((0, 1))), "stride"),
    "negative padding": (node(1, attrs=ir.Conv2d((2, 2), padding=(-1, 1, 0, 1))), "padding"),
    "a clamp that is unknown": (node(1, attrs=ir.Conv2d((2, 2), clamp="tanh")), "clamp"),  # type: ignore[arg-type]  # wrong on purpose
    "a kernel that does not fit": (node(2, attrs=ir.AveragePool((5, 5), (1, 1))), "does not fit"),
    "a pool in the padding": (node(2, attrs=ir.AveragePool((4, 4), (4, 4), (4, 0, 0, 0))), "wholly in the padding"),
    "another output shape": (tensor("c", shape=(1, 5, 4, 2)), r"must be \[1, 4, 4, 2\]"),
    "a resize to another size": (
        node(2, op="resize_nearest", attrs=ir.ResizeNearest((2, 2))),
        r"must be \[1, 2, 2, 2\]",
    ),
    "a negative number of channels": (node(2, op="pad_channels", attrs=ir.PadChannels(-1)), "before"),
    "channels that are not there": (node(2, op="pad_channels", attrs=ir.PadChannels(1, 2)), r"must be \[1, 4, 4, 5\]"),
    "a slope of NaN": (node(2, op="leaky_relu", attrs=ir.LeakyRelu(float("nan"))), "alpha"),
    "a slope that is too steep": (
        lambda g: node(2, op="leaky_relu", attrs=ir.LeakyRelu(1e5))(tensor("p", quant=quant(1e-6), shape=(1, 4, 4, 2))(g)),
        "too small",
    ),
    "a resize to nothing": (node(2, op="resize_nearest", attrs=ir.ResizeNearest((0, 1))), "size"),
    "a resize by a number": (node(2, op="resize_nearest", attrs=ir.ResizeNearest((1, 1), 2)), "align_corners"),  # type: ignore[arg-type]  # wrong on purpose
    "a slice past the end": (node(2, op="slice", attrs=ir.Slice(3, 1, 3)), "places 1 to 3 are not among 2"),
    "a slice of nothing": (node(2, op="slice", attrs=ir.Slice(3, 1, 1)), "places 1 to 1"),
    "a slice of images": (node(2, op="slice", attrs=ir.Slice(0, 0, 1)), "axis 0"),
    "a slice from before": (node(2, op="slice", attrs=ir.Slice(1, -1, 1)), "begin"),
    "a gelu by a number": (node(2, op="gelu", attrs=ir.Gelu(1)), "approximate"),  # type: ignore[arg-type]  # wrong on purpose
    "a reshape that loses elements": (tensor("r", shape=(1, 3)), "other elements"),
    "a pool of another scale": (tensor("p", quant=quant(0.2, -128)), "input's scale"),
    "a resize of another scale": (
        lambda g: node(2, op="resize_nearest", attrs=ir.ResizeNearest((1, 1)))(tensor("p", quant=quant(0.2, -128))(g)),
        "input's scale",
    ),
    "a table of another scale": (tensor("norm", quant=quant(0.06, 3)), "output's scale"),
    "a scale too small for relu6": (tensor("c", quant=quant(1e-10, -128)), "relu6|too small"),
    "an old pool in a new network": (node(2, attrs=ir.AveragePool((4, 4), (4, 4), unsigned=True)), "old uint8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_named(name: str) -> None:
    change, message = BROKEN[name]
    with pytest.raises(UnusableFile, match=message) as caught:
        check(change(sound()), "a.nest")
    assert "a.nest" in str(caught.value)


def test_an_unknown_op_is_unsupported() -> None:
    with pytest.raises(UnsupportedOp, match="tanh"):
        check(node(3, op="tanh")(sound()))


def test_an_error_names_the_layer() -> None:
    with pytest.raises(NestlingError, match=r"conv2d 'c' \(stem\)"):
        check(tensor("c", shape=(1, 9, 9, 2))(sound()))


def test_concat_needs_equal_scales() -> None:
    tensors = {name: Tensor(name, (1, 2), "int8", None, quant(scale)) for name, scale in (("a", 0.1), ("b", 0.2))}
    tensors["y"] = Tensor("y", (1, 4), "int8", None, quant(0.1))
    graph = Graph(tensors, (Node("concat", ("a", "b"), ("y",), ir.Concat(1)),), ("a", "b"), ("y",))
    with pytest.raises(UnusableFile, match="every input must have the output's scale"):
        check(graph)


@pytest.mark.parametrize(
    ("op", "attrs", "shapes"),
    [
        ("conv2d", ir.Conv2d((2, 1), (1, 2), (1, 0, 2, 1)), ((1, 11, 9, 4), (6, 3, 2, 2), (6,))),
        ("conv2d", ir.Conv2d(), ((1, 5, 5, 3), (7, 1, 1, 3))),
        ("depthwise_conv2d", ir.DepthwiseConv2d((1, 3), (2, 1), (2, 2, 0, 1)), ((1, 10, 8, 3), (1, 3, 3, 6), (6,))),
    ],
)
def test_shapes_of_convolutions_are_torchs(op: str, attrs: Attrs, shapes: tuple[tuple[int, ...], ...]) -> None:
    torch = pytest.importorskip("torch")
    assert isinstance(attrs, ir.Conv2d | ir.DepthwiseConv2d)
    (_, height, width, channels), weight = shapes[:2]
    top, bottom, left, right = attrs.padding
    out, depth = (weight[0], weight[3]) if op == "conv2d" else (weight[3], 1)
    x = torch.nn.functional.pad(torch.zeros(1, channels, height, width), (left, right, top, bottom))
    kernel = torch.zeros(out, depth, weight[1], weight[2])
    want = torch.nn.functional.conv2d(x, kernel, stride=attrs.stride, dilation=attrs.dilation, groups=channels // depth).shape
    assert output_shape(op, attrs, *shapes) == (1, want[2], want[3], want[1])


def test_shapes_that_do_not_fit_say_why() -> None:
    with pytest.raises(ValueError, match="do not broadcast"):
        output_shape("add", ir.Add(), (1, 3), (1, 4))
    with pytest.raises(ValueError, match="dimensions"):
        output_shape("max_pool", ir.MaxPool((2, 2), (2, 2)), (1, 3))
