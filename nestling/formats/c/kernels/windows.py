"""Convolutions and pools: what slides a window over a map. (node, graph, variant) -> Layer; see table.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.bytewise import image_table
from nestling.formats.c.kernels.layers import Constant, Layer, Read, Scratch, Struct, Value, Whole, Written, plane
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph import ir
from nestling.graph.ir import Graph, Node, Tensor


def is_depthwise(node: Node, graph: Graph) -> bool:
    """A channel a group, whatever it is called."""
    weight, x = graph.tensors[node.inputs[1]], graph.tensors[node.inputs[0]]
    return node.op == "depthwise_conv2d" or (weight.shape[3] == 1 and x.shape[3] > 1)


def is_depthwise_of(width: int) -> Callable[[Node, Graph], bool]:
    """With windows so wide, its columns side by side."""

    def takes(node: Node, graph: Graph) -> bool:
        attrs, _, weight, _ = windowed(node, graph)
        return is_depthwise(node, graph) and weight.shape[2] == width and attrs.dilation[1] == 1

    return takes


def is_1x1(node: Node, graph: Graph) -> bool:
    """A matrix product: no window, no stride, no border, one group."""
    attrs, x, weight, _ = windowed(node, graph)
    return (*weight.shape[1:3], *attrs.stride) == (1, 1, 1, 1) and attrs.padding == (0, 0, 0, 0) and x.shape[3] == weight.shape[3]


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See is_1x1."""
    _, x, weight, y = windowed(node, graph)
    out = weight.shape[0]
    found = pack.sums(node, graph, np.asarray(weight.data, np.int8).reshape(out, -1))
    sums = pack.sums_struct(node, graph, found, variant.pack(found.weight, 1), out)
    struct = Struct("nst_conv_1x1_layer", {"out": plane(y), "sums": sums})
    return layer(node, graph, "conv 1x1", variant, (Read(x.name), struct, Written(), Scratch(), Whole()), (x.name,))


def depth_words(node: Node, graph: Graph) -> int:
    """nst_conv_1x1's scratch."""
    return 4 * graph.tensors[node.inputs[1]].shape[3]


def conv(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Any convolution."""
    attrs, x, weight, y = windowed(node, graph)
    out, height, width, depth = weight.shape
    groups = x.shape[3] // depth
    found = pack.sums(node, graph, np.asarray(weight.data, np.int8).reshape(out, -1))
    sums = pack.sums_struct(node, graph, found, variant.pack(found.weight, groups), out // groups)
    struct = Struct("nst_conv_layer", {**map_fields(attrs, (height, width), x, y), "groups": groups, "sums": sums})
    kind = kind_of("conv", (height, width), attrs.stride, attrs.dilation) + (f" in {groups} groups" if groups > 1 else "")
    made = layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Whole()))
    return made if groups > 1 else behind(made, node, graph)


def behind(made: Layer, node: Node, graph: Graph) -> Layer:
    """The call of a kernel that computes row by row, from the top, all channels of a pixel at once.

    Its answer may lie where its input does, if it begins so early that no row is written over before the last window that reaches
    it was read.

    Source: Stahl et al. 2023, and before them the "diagonal memory optimisation" of Brown et al. 2019.
    """
    attrs, x, _, y = windowed(node, graph)
    rows = np.arange(y.shape[1])
    written = (rows + 1) * y.shape[2] * y.shape[3]
    first = np.maximum(rows * attrs.stride[0] - attrs.padding[0], 0)  # of the map's rows that are still read
    read = np.minimum(first, x.shape[1]) * x.shape[2] * x.shape[3]
    return replace(made, over=(x.name,), lead=max(int((written - read).max()), 0))


def patch_bytes(node: Node, graph: Graph) -> int:
    """nst_conv's scratch."""
    return 6 * math.prod(graph.tensors[node.inputs[1]].shape[1:])


def with_table(conv: Layer, table: Node, graph: Graph) -> Layer:
    """A general convolution of one group that takes the image itself, through the table before it."""
    _, struct, *rest = conv.arguments
    assert conv.of_image and isinstance(struct, Struct)
    whole = Struct(f"{conv.of_image}_layer", {"table": image_table(table, graph), "conv": struct})
    arguments = (Read(table.inputs[0]), whole, *rest)
    few_bits = f"{conv.of_image}_packed" if conv.few_bits else ""
    kind, over = f"{conv.kind} of image", (table.inputs[0],) if conv.over else ()
    return replace(conv, kind=kind, function=conv.of_image, arguments=arguments, few_bits=few_bits, of_image="", over=over)


def depthwise(node: Node, graph: Graph, variant: Variant) -> Layer:
    """A channel a group."""
    attrs, x, weight, y = windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    found = depthwise_sums(node, graph)
    sums = pack.sums_struct(node, graph, found, variant.pack(found.weight, len(found.weight)), len(found.weight))
    struct = Struct("nst_depthwise_layer", {**map_fields(attrs, size, x, y), "sums": sums})
    over = (x.name,) if x.shape[3] == y.shape[3] else ()  # a channel is read as a whole before its answers are written
    kind = kind_of("depthwise", size, attrs.stride, attrs.dilation)
    return layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Whole()), over)


def depthwise_sums(node: Node, graph: Graph) -> pack.Sums:
    """Of depthwise_weights."""
    return pack.sums(node, graph, depthwise_weights(node, graph))


def depthwise_weights(node: Node, graph: Graph) -> NDArray[np.int8]:
    """Weights [1, KH, KW, O], or of a convolution whose groups are channels [O, KH, KW, 1]; as [O, KH * KW]."""
    weight = graph.tensors[node.inputs[1]]
    data = np.asarray(weight.data, np.int8)
    data = data.reshape(-1, weight.shape[3]).T if node.op == "depthwise_conv2d" else data.reshape(len(data), -1)
    return np.ascontiguousarray(data)


def as_they_are(weight: NDArray[np.int8], groups: int) -> Constant:
    """A channel's taps in a row."""
    return Constant("weights", "int8_t", weight, weight.shape)


def plane_bytes(node: Node, graph: Graph) -> int:
    """nst_depthwise's scratch: the weights of a channel as int16, and its plane as far as windows reach (see nst_plane_in)."""
    attrs, _, weight, y = windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    rows, columns = y.shape[1], -(-y.shape[2] // 4) * 4
    height, width = (
        (count - 1) * attrs.stride[i] + (size[i] - 1) * attrs.dilation[i] + 1 for i, count in enumerate((rows, columns))
    )
    return 2 * size[0] * size[1] + height * width


def windowed(node: Node, graph: Graph) -> tuple[ir.Conv2d | ir.DepthwiseConv2d, Tensor, Tensor, Tensor]:
    """Attributes, input, weights and output of a convolution."""
    assert isinstance(node.attrs, ir.Conv2d | ir.DepthwiseConv2d)
    return node.attrs, graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], graph.tensors[node.name]


def map_fields(attrs: ir.Conv2d | ir.DepthwiseConv2d, size: ir.Pair, x: Tensor, y: Tensor) -> dict[str, Value]:
    """What every struct of a convolution begins with."""
    return {
        "in": plane(x),
        "out": plane(y),
        "window": _window(size, attrs.stride, attrs.dilation, attrs.padding),
        "in_zero": pack.zero_point(x),
    }


def _window(size: ir.Pair, stride: ir.Pair, dilation: ir.Pair, padding: ir.Sides) -> Struct:
    top, _, left, _ = padding
    return Struct("nst_window", {"size": size, "stride": stride, "dilation": dilation, "pad": (top, left)})


def kind_of(name: str, size: ir.Pair, stride: ir.Pair, dilation: ir.Pair = (1, 1)) -> str:
    """In words: depthwise 3x3 s2."""
    strides = "" if stride == (1, 1) else f" s{stride[0]}" if stride[0] == stride[1] else f" s{stride[0]}x{stride[1]}"
    dilated = "" if dilation == (1, 1) else f" d{dilation[0]}" if dilation[0] == dilation[1] else f" d{dilation[0]}x{dilation[1]}"
    return f"{name} {size[0]}x{size[1]}{strides}{dilated}"


def pool(node: Node, graph: Graph, variant: Variant) -> Layer:
    """average_pool, max_pool."""
    attrs, x, y = node.attrs, graph.tensors[node.inputs[0]], graph.tensors[node.name]
    assert isinstance(attrs, ir.AveragePool | ir.MaxPool)
    fields: dict[str, Value] = {
        "in": plane(x),
        "out": plane(y),
        "window": _window(attrs.size, attrs.stride, (1, 1), attrs.padding),
        "upwards": int(isinstance(attrs, ir.AveragePool) and attrs.unsigned),
        "output": pack.output(y, attrs.clamp),
    }
    arguments = (Read(x.name), Struct("nst_pool_layer", fields), Written(), Whole())
    over = (x.name,) if (attrs.padding[0], attrs.padding[2]) == (0, 0) else ()
    return layer(node, graph, kind_of(node.op.replace("_", " "), attrs.size, attrs.stride), variant, arguments, over)
