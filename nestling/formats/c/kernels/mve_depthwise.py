"""Depthwise convolutions for Arm's M-profile vector extension: a channel in strips of some rows. See runtime/mve/nst_mve.h."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import mve, windows
from nestling.formats.c.kernels.layers import Constant, Layer, Room, Struct
from nestling.formats.c.kernels.variant import Variant
from nestling.graph import ir
from nestling.graph.fixed_point import Int
from nestling.graph.ir import Graph, Node

PLACES = 2**16  # of bytes, behind the first of a strip or of its answers
AHEAD = (1, 2, 3)
HEIGHT = 8  # rows of a strip, and the most that a window may have
MANY = 8  # channels that are read at once where there is room for them


@dataclass(frozen=True)
class Strips:
    """count: of a channel. rows: of answers that each gives. columns: of a strip, of `height` rows of the map."""

    count: int
    rows: int
    columns: int
    height: int

    @property
    def pitch(self) -> int:
        """Bytes of one."""
        return self.columns * self.height


def strips_of_3(node: Node, graph: Graph) -> Strips:
    """As nst_depthwise_3_mve.c has them."""
    attrs, y = _attrs(node), graph.tensors[node.name]
    if attrs.stride == (1, 1):
        return Strips(-(-y.shape[1] // 2), 2, -(-y.shape[2] // 4) * 4 + 2, 4)
    return Strips(y.shape[1], 1, -(-y.shape[2] // 8) * 16 + 2, 4)


def strips_of_any(node: Node, graph: Graph) -> Strips:
    """As nst_depthwise_mve.c has them."""
    attrs, y, (height, width) = _attrs(node), graph.tensors[node.name], _shape(node, graph)
    stride = attrs.stride[0]
    rows = 2 if height + stride <= HEIGHT else 1
    columns = (-(-y.shape[2] // 4) * 4 - 1) * stride + _even(width)
    return Strips(-(-y.shape[1] // rows), rows, columns, HEIGHT)


def takes_any(node: Node, graph: Graph) -> bool:
    """Of 3 to 8 columns, not dilated, at stride 1 or 2."""
    attrs, (height, width) = _attrs(node), _shape(node, graph)
    if not windows.is_depthwise(node, graph) or attrs.dilation != (1, 1) or attrs.stride not in ((1, 1), (2, 2)):
        return False
    sizes = height <= HEIGHT and 3 <= width <= HEIGHT and height * width < HEIGHT**2
    return sizes and _ahead(node, graph, strips_of_any(node, graph)) is not None and _takes(node, graph, HEIGHT)


def _even(width: int) -> int:
    return -(-width // 2) * 2


def takes_3(node: Node, graph: Graph) -> bool:
    """3x3, not dilated, at stride 1 or 2."""
    attrs = _attrs(node)
    if not windows.is_depthwise_of(3)(node, graph) or attrs.dilation != (1, 1) or attrs.stride not in ((1, 1), (2, 2)):
        return False
    return _shape(node, graph)[0] == 3 and _ahead(node, graph, strips_of_3(node, graph)) is not None and _takes(node, graph, 4)


def _takes(node: Node, graph: Graph, height: int) -> bool:
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.name]
    row = max(tensor.shape[2] * tensor.shape[3] for tensor in (x, y))
    return (height + 1) * row + 16 * y.shape[3] < PLACES and mve.scales(node, graph, _taps(node, graph), lift=True)


def _ahead(node: Node, graph: Graph, strips: Strips) -> int | None:
    """How many strips must be read before the answers of one may be written over the map."""
    attrs, x, y = _attrs(node), graph.tensors[node.inputs[0]], graph.tensors[node.name]
    for ahead in AHEAD:
        read = np.arange(ahead + 1, strips.count)
        first = np.maximum(read * strips.rows * attrs.stride[0] - attrs.padding[0], 0)
        if ((read - ahead) * strips.rows * y.shape[2] <= first * x.shape[2]).all():
            return ahead
    return None


def depthwise_3(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_3."""
    return _in_strips(node, graph, variant, strips_of_3(node, graph))


def depthwise(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_any."""
    return _in_strips(node, graph, variant, strips_of_any(node, graph), 64 * (_even(_shape(node, graph)[1]) // 2))


def _in_strips(node: Node, graph: Graph, variant: Variant, strips: Strips, own: int = 0) -> Layer:
    """As much scratch as the portable kernel has, or as all strips of some channels want; a strip more than `ahead` at least."""
    made = windows.depthwise(node, graph, variant)
    x, struct, *rest = made.arguments
    assert isinstance(struct, Struct)
    ahead = _ahead(node, graph, strips)
    assert ahead is not None
    known = {name: struct.fields[name] for name in ("in", "out", "window", "in_zero")}
    fields = {**known, "ahead": ahead, "sums": mve.sums_struct(node, graph, _taps(node, graph), stream, lift=True)}
    whole = strips.count * strips.pitch
    most = own + (whole * min(MANY, graph.tensors[node.name].shape[3]) if MANY * whole < PLACES else whole)
    least = min(most, max(own + (ahead + 1) * strips.pitch, windows.plane_bytes(node, graph)))
    arguments = (x, Struct("nst_depthwise_mve_layer", fields), *rest, Room())
    return replace(made, arguments=arguments, scratch=least, scratch_most=most)


def stream(found: pack.Sums, multiplier: Int, exponent: Int) -> Constant:
    """int8 [O][bytes]: a channel's taps, up to a multiple of four with one 0 at least, and its three numbers."""
    channels, taps = found.weight.shape
    weight = np.zeros((channels, (taps // 4 + 1) * 4), np.int8)
    weight[:, :taps] = found.weight
    numbers = np.stack([found.bias, multiplier, exponent], axis=1).astype("<i4").view(np.int8)
    data = np.concatenate([weight, numbers], axis=1)
    return Constant("stream", "int8_t", data, data.shape)


def _taps(node: Node, graph: Graph) -> NDArray[np.int8]:
    """[O, KH * KW]."""
    weight = graph.tensors[node.inputs[1]]
    data = np.asarray(weight.data, np.int8)
    taps = data.reshape(-1, weight.shape[3]).T if node.op == "depthwise_conv2d" else data.reshape(len(data), -1)
    return np.ascontiguousarray(taps)


def _shape(node: Node, graph: Graph) -> tuple[int, int]:
    weight = graph.tensors[node.inputs[1]]
    return weight.shape[1], weight.shape[2]


def _attrs(node: Node) -> ir.Conv2d | ir.DepthwiseConv2d:
    assert isinstance(node.attrs, ir.Conv2d | ir.DepthwiseConv2d)
    return node.attrs
