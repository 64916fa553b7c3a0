"""Convolutions and pools: what slides a window over a map. (node, graph) -> Layer; see kernels.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.bytewise import image_table
from nestling.formats.c.kernels.layers import Constant, Layer, Read, Scratch, Struct, Value, Written, layer, plane
from nestling.graph import ir
from nestling.graph.ir import Graph, Node, Tensor

PRODUCTS = ("nst_products.c", "nst_fixed.c")


def conv2d(node: Node, graph: Graph) -> Layer:
    """1x1 without a stride, one channel a group (depthwise), or any."""
    attrs, x, weight, y = _windowed(node, graph)
    out, *size, depth = weight.shape
    groups = x.shape[3] // depth
    data = np.asarray(weight.data, np.int8)
    if depth == 1 and groups > 1:
        return _depthwise(node, graph, data.reshape(out, -1), (size[0], size[1]))
    found = pack.sums(node, graph, data.reshape(out, -1))
    sums = pack.sums_struct(node, graph, found, pack.interleaved_by_group(found.weight, groups), out // groups)
    plain = (*size, *attrs.stride) == (1, 1, 1, 1) and attrs.padding == (0, 0, 0, 0) and groups == 1
    if plain:
        struct = Struct("nst_conv_1x1_layer", {"pixels": y.shape[1] * y.shape[2], "sums": sums})
        arguments = (Read(x.name), struct, Written(), Scratch())
        files = ("nst_conv_1x1.c", *PRODUCTS)
        return layer(node, graph, "conv 1x1", "nst_conv_1x1", arguments, files, 4 * depth, (x.name,))
    fields = _map_fields(attrs, (size[0], size[1]), x, y)
    struct = Struct("nst_conv_layer", {**fields, "groups": groups, "sums": sums})
    kind = _kind("conv", (size[0], size[1]), attrs.stride, attrs.dilation) + (f" in {groups} groups" if groups > 1 else "")
    arguments = (Read(x.name), struct, Written(), Scratch())
    return layer(node, graph, kind, "nst_conv", arguments, ("nst_conv.c", *PRODUCTS), 6 * found.weight.shape[1])


def with_table(conv: Layer, table: Node, graph: Graph) -> Layer:
    """A general convolution of one group that takes the image itself, through the table before it."""
    _, struct, *rest = conv.arguments
    assert conv.function == "nst_conv" and isinstance(struct, Struct)
    whole = Struct("nst_conv_image_layer", {"table": image_table(table, graph), "conv": struct})
    arguments = (Read(table.inputs[0]), whole, *rest)
    return replace(conv, kind=f"{conv.kind} of image", function="nst_conv_image", arguments=arguments)


def depthwise_conv2d(node: Node, graph: Graph) -> Layer:
    """weight [1, KH, KW, O] as [O, KH * KW]."""
    weight = np.asarray(graph.tensors[node.inputs[1]].data, np.int8)
    _, height, width, channels = weight.shape
    return _depthwise(node, graph, weight.reshape(-1, channels).T, (height, width))


def _depthwise(node: Node, graph: Graph, weight: NDArray[np.int8], size: ir.Pair) -> Layer:
    """weight: int8 [O, KH * KW]."""
    attrs, x, _, y = _windowed(node, graph)
    found = pack.sums(node, graph, np.ascontiguousarray(weight))
    packed = Constant("weights", "int8_t", found.weight, found.weight.shape)
    sums = pack.sums_struct(node, graph, found, packed, len(weight))
    struct = Struct("nst_depthwise_layer", {**_map_fields(attrs, size, x, y), "sums": sums})
    special = size[1] in (3, 5) and attrs.dilation[1] == 1
    function = f"nst_depthwise_{size[1]}" if special else "nst_depthwise"
    kind = _kind("depthwise", size, attrs.stride, attrs.dilation)
    arguments = (Read(x.name), struct, Written(), Scratch())
    over = (x.name,) if x.shape[3] == y.shape[3] else ()  # a channel is read as a whole before its answers are written
    return layer(node, graph, kind, function, arguments, (f"{function}.c", "nst_fixed.c"), _plane_bytes(attrs, size, y), over)


def _plane_bytes(attrs: ir.Conv2d | ir.DepthwiseConv2d, size: ir.Pair, y: Tensor) -> int:
    """nst_depthwise's scratch: the weights of a channel as int16, and its plane as far as windows reach (see nst_plane_in)."""
    rows, columns = y.shape[1], -(-y.shape[2] // 4) * 4
    height, width = (
        (count - 1) * attrs.stride[i] + (size[i] - 1) * attrs.dilation[i] + 1 for i, count in enumerate((rows, columns))
    )
    return 2 * size[0] * size[1] + height * width


def _windowed(node: Node, graph: Graph) -> tuple[ir.Conv2d | ir.DepthwiseConv2d, Tensor, Tensor, Tensor]:
    assert isinstance(node.attrs, ir.Conv2d | ir.DepthwiseConv2d)
    return node.attrs, graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], graph.tensors[node.name]


def _map_fields(attrs: ir.Conv2d | ir.DepthwiseConv2d, size: ir.Pair, x: Tensor, y: Tensor) -> dict[str, Value]:
    return {
        "in": plane(x),
        "out": plane(y),
        "window": _window(size, attrs.stride, attrs.dilation, attrs.padding),
        "in_zero": pack.zero_point(x),
    }


def _window(size: ir.Pair, stride: ir.Pair, dilation: ir.Pair, padding: ir.Sides) -> Struct:
    top, _, left, _ = padding
    return Struct("nst_window", {"size": size, "stride": stride, "dilation": dilation, "pad": (top, left)})


def _kind(name: str, size: ir.Pair, stride: ir.Pair, dilation: ir.Pair = (1, 1)) -> str:
    """In words: depthwise 3x3 s2."""
    strides = "" if stride == (1, 1) else f" s{stride[0]}" if stride[0] == stride[1] else f" s{stride[0]}x{stride[1]}"
    dilated = "" if dilation == (1, 1) else f" d{dilation[0]}" if dilation[0] == dilation[1] else f" d{dilation[0]}x{dilation[1]}"
    return f"{name} {size[0]}x{size[1]}{strides}{dilated}"


def pool(node: Node, graph: Graph) -> Layer:
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
    function = f"nst_{node.op}"
    arguments = (Read(x.name), Struct("nst_pool_layer", fields), Written())
    over = (x.name,) if (attrs.padding[0], attrs.padding[2]) == (0, 0) else ()
    kind = _kind(node.op.replace("_", " "), attrs.size, attrs.stride)
    return layer(node, graph, kind, function, arguments, (f"{function}.c",), over=over)
