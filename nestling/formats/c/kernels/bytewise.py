"""Element by element, through tables, and bytes that only move. (node, graph) -> Layer; see kernels.py."""

from __future__ import annotations

import math

import numpy as np

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.layers import (
    Constant,
    Layer,
    Parts,
    Pointers,
    Read,
    Struct,
    Value,
    View,
    Written,
    clamp_of,
    plane,
)
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph import ir, reference
from nestling.graph.fixed_point import quantize_multiplier
from nestling.graph.ir import Graph, Node, Tensor
from nestling.graph.windows import nearest_places

EVERY = np.arange(-128, 128).astype(np.int8)


def add(node: Node, graph: Graph, variant: Variant) -> Layer:
    """The operand of the larger scale comes first."""
    a, b = sorted((graph.tensors[name] for name in node.inputs), key=pack.scale, reverse=True)
    y = graph.tensors[node.name]
    twice = 2 * pack.scale(a)
    multiplier, exponent = quantize_multiplier(np.array([pack.scale(b) / twice]))
    left = 20 if exponent[0] < 0 else 21  # the factor is just 1/2: one more bit makes room for the short way's shift
    term = pack.scaling(multiplier, exponent - (left - 20), 255 << left)
    real = quantize_multiplier(np.array([twice / (2**20 * pack.scale(y))]))
    fields: dict[str, Value] = {
        "shape": _broadcast(node, a, b, y),
        "a_zero": pack.zero_point(a),
        "b_zero": pack.zero_point(b),
        "b_left": left,
        "b_multiplier": term["multiplier"],
        "b_shift": term["shift"],
        **pack.scaling(*real, 2 * 255 << 19),
        "output": pack.output(y, clamp_of(node)),
    }
    return _elementwise(node, graph, variant, (a, b), Struct("nst_add_layer", fields))


def mul(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Gates of squeeze-and-excitation, mostly."""
    a, b = (graph.tensors[name] for name in node.inputs)
    y = graph.tensors[node.name]
    scales = [pack.quant_of(tensor).scale for tensor in (a, b, y)]
    real = quantize_multiplier((scales[0] * scales[1] / scales[2]).astype(np.float64))
    fields: dict[str, Value] = {
        "shape": _broadcast(node, a, b, y),
        "a_zero": pack.zero_point(a),
        "b_zero": pack.zero_point(b),
        **pack.scaling(*real, 255 * 255),
        "output": pack.output(y, clamp_of(node)),
    }
    return _elementwise(node, graph, variant, (a, b), Struct("nst_mul_layer", fields))


def _elementwise(node: Node, graph: Graph, variant: Variant, operands: tuple[Tensor, Tensor], struct: Struct) -> Layer:
    size = math.prod(graph.tensors[node.name].shape)
    reads = [
        Read(x.name) if x.data is None else Constant(f"operand{i}", "int8_t", np.asarray(x.data, np.int8), x.shape)
        for i, x in enumerate(operands)
    ]
    over = tuple(dict.fromkeys(x.name for x in operands if x.data is None and math.prod(x.shape) == size))
    return layer(node, graph, node.op, variant, (*reads, struct, Written()), over)


def _broadcast(node: Node, a: Tensor, b: Tensor, y: Tensor) -> Struct:
    found = pack.broadcast(a.shape, b.shape, y.shape, node.name)
    return Struct("nst_broadcast", {"size": found.size, "a_step": found.a_step, "b_step": found.b_step})


def one_byte(node: Node, graph: Graph) -> bool:
    """Whether each byte of the answer depends on one byte of one tensor: all other operands are single constants."""
    tensors = [graph.tensors[name] for name in node.inputs]
    moving = {tensor.name for tensor in tensors if tensor.data is None}
    return len(moving) == 1 and all(math.prod(tensor.shape) == 1 for tensor in tensors if tensor.data is not None)


def lookup(node: Node, graph: Graph, variant: Variant) -> Layer:
    """out[i] = table[x[i] + 128]: the reference's answers to all 256 bytes."""
    x = next(name for name in node.inputs if graph.tensors[name].data is None)
    values = (EVERY if name == x else np.asarray(graph.tensors[name].data).reshape(1) for name in node.inputs)
    table = reference.step(graph, node, tuple(values))
    constant = Constant("table", "int8_t", np.asarray(table, np.int8), (256,))
    arguments = (Read(x), constant, math.prod(graph.tensors[node.name].shape), Written())
    return layer(node, graph, node.op.replace("_", "-"), variant, arguments, (x,))


def table(node: Node, graph: Graph, variant: Variant) -> Layer:
    """The normalisation, where no convolution takes it in."""
    x = graph.tensors[node.inputs[0]]
    arguments = (Read(x.name), image_table(node, graph), x.shape[1] * x.shape[2], x.shape[3], Written())
    return layer(node, graph, "table", variant, arguments, (x.name,))


def image_table(node: Node, graph: Graph) -> Constant:
    """int8 [C, 256]."""
    values = graph.tensors[node.inputs[1]]
    return Constant("table", "int8_t", np.asarray(values.data), values.shape)


def pad(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Where no convolution takes it in."""
    assert isinstance(node.attrs, ir.Pad)
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.name]
    top, _, left, _ = node.attrs.padding
    fields: dict[str, Value] = {"in": plane(x), "out": plane(y), "pad": (top, left), "in_zero": pack.zero_point(y)}
    arguments = (Read(x.name), Struct("nst_pad_layer", fields), Written())
    return layer(node, graph, "pad", variant, arguments)


def pad_channels(node: Node, graph: Graph, variant: Variant) -> Layer:
    """The places of the map as rows, and its channels as columns of one byte."""
    assert isinstance(node.attrs, ir.PadChannels)
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.name]
    places = x.shape[1] * x.shape[2]
    fields: dict[str, Value] = {
        "in": (places, x.shape[3], 1),
        "out": (places, y.shape[3], 1),
        "pad": (0, node.attrs.before),
        "in_zero": pack.zero_point(y),
    }
    arguments = (Read(x.name), Struct("nst_pad_layer", fields), Written())
    return layer(node, graph, "pad channels", variant, arguments)


def resize_nearest(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Where each row and each column is taken from stands in two tables."""
    a = node.attrs
    assert isinstance(a, ir.ResizeNearest)
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.name]
    fields: dict[str, Value] = {"in": plane(x), "out": plane(y)}
    for i, name in enumerate(("rows", "columns")):
        places = nearest_places(x.shape[1 + i], a.size[i], a.align_corners, a.half_pixel_centers).astype(np.int32)
        fields[name] = Constant(name, "int32_t", places, places.shape)
    arguments = (Read(x.name), Struct("nst_resize_nearest_layer", fields), Written())
    return layer(node, graph, "resize", variant, arguments)


def concat(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Part by part; a part of another scale (old uint8 networks) through a table of the reference's answers."""
    assert isinstance(node.attrs, ir.Concat)
    axis = node.attrs.axis
    parts = [graph.tensors[name] for name in node.inputs]
    operands = tuple(
        Read(x.name) if x.data is None else Constant(f"part{i}", "int8_t", np.asarray(x.data, np.int8), x.shape)
        for i, x in enumerate(parts)
    )
    sizes = np.array([math.prod(x.shape[axis:]) for x in parts], np.int32)
    tables = tuple(_part_table(node, graph, i) for i in range(len(parts)))
    fields: dict[str, Value] = {
        "rows": math.prod(parts[0].shape[:axis]),
        "parts": len(parts),
        "sizes": Constant("sizes", "int32_t", sizes, sizes.shape),
        "tables": Pointers("tables", tables),
    }
    arguments = (Parts(operands), Struct("nst_concat_layer", fields), Written())
    return layer(node, graph, "concat", variant, arguments)


def _part_table(node: Node, graph: Graph, part: int) -> Constant | None:
    alone = ir.Node("concat", (node.inputs[part],), node.outputs, ir.Concat(0))
    values = reference.step(graph, alone, (EVERY,))
    return None if np.array_equal(values, EVERY) else Constant(f"table{part}", "int8_t", values, (256,))


def cut(node: Node, graph: Graph, variant: Variant) -> Layer:
    """A slice: of each row of the axes before it, the bytes that stay."""
    a, x = node.attrs, graph.tensors[node.inputs[0]]
    assert isinstance(a, ir.Slice)
    step = math.prod(x.shape[a.axis + 1 :])
    fields: dict[str, Value] = {
        "rows": math.prod(x.shape[: a.axis]),
        "in_size": x.shape[a.axis] * step,
        "first": a.begin * step,
        "size": (a.end - a.begin) * step,
    }
    return layer(node, graph, "slice", variant, (Read(x.name), Struct("nst_slice_layer", fields), Written()))


def reshape(node: Node, graph: Graph, variant: Variant) -> View:
    """Nothing moves."""
    return View(node.name, node.inputs[0])
