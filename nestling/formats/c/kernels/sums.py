"""Fully connected layers, heads, means and softmax. (node, graph, variant) -> Layer; see table.py."""

from __future__ import annotations

import math

import numpy as np

from nestling.errors import UnsupportedOp
from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.layers import Constant, Layer, Read, Struct, Value, Written, clamp_of, without_kernel
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph import ir
from nestling.graph.fixed_point import exp_of_negative, high_mul, quantize_multiplier, wrap
from nestling.graph.ir import Graph, Node
from nestling.graph.reference_integer import mean_multiplier


def is_head(node: Node, graph: Graph) -> bool:
    """Scores in float32."""
    return graph.tensors[node.name].dtype == "float32"


def fully_connected(node: Node, graph: Graph, variant: Variant) -> Layer:
    """In integers."""
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    found = pack.sums(node, graph, np.asarray(weight.data, np.int8))
    scales = [pack.quant_of(tensor).scale.astype(np.float64) for tensor in (x, weight, y)]
    factor = scales[0] * scales[1] / scales[2]
    assert isinstance(node.attrs, ir.FullyConnected)
    fields: dict[str, Value] = {
        "depth": x.shape[1],
        "channels": y.shape[1],
        "weights": variant.pack(found.weight, 1),
        "weight_zero": found.weight_zero,
        "bias": Constant("bias", "int32_t", found.bias.astype(np.int32), found.bias.shape),
        "factor": Constant("factor", "double", factor, factor.shape),
        "per_channel": int(len(factor) > 1),
        "output": pack.output(y, node.attrs.clamp),
    }
    struct = Struct("nst_fully_connected_layer", fields)
    arguments = (Read(x.name), struct, Written())
    return layer(node, graph, "fully connected", variant, arguments)


def head(node: Node, graph: Graph, variant: Variant) -> Layer:
    """In float32. It must read an int8 embedding through a dequantize."""
    before = graph.producer(node.inputs[0])
    constants = [graph.tensors[name].data for name in node.inputs[1:]]
    if before is None or before.op != "dequantize" or any(data is None for data in constants) or clamp_of(node) != "none":
        raise without_kernel(node)
    x = graph.tensors[before.inputs[0]]
    weight = np.asarray(constants[0], np.float32)
    bias = np.asarray(constants[1], np.float32) if len(constants) > 1 else np.zeros(len(weight), np.float32)
    fields: dict[str, Value] = {
        "depth": weight.shape[1],
        "classes": len(weight),
        "zero": pack.zero_point(x),
        "scale": pack.scale(x),
        "weights": Constant("weights", "float", weight, weight.shape),
        "bias": Constant("bias", "float", bias, bias.shape),
    }
    arguments = (Read(x.name), Struct("nst_head_layer", fields), Written())
    return layer(node, graph, "head in float", variant, arguments)


def dequantize(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Scores as float32."""
    x = graph.tensors[node.inputs[0]]
    arguments = (Read(x.name), math.prod(x.shape), pack.zero_point(x), pack.scale(x), Written())
    return layer(node, graph, "dequantize", variant, arguments)


def mean(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Over any sides, as kept, summed, kept, summed, kept."""
    assert isinstance(node.attrs, ir.Mean)
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.name]
    sizes, summed = [1], False
    for axis, side in enumerate(x.shape):
        if (axis in node.attrs.axes) == summed or side == 1:
            sizes[-1] *= side
        else:
            sizes.append(side)
            summed = not summed
    if len(sizes) > 5:
        raise UnsupportedOp(f"{node.name!r}: a mean over {list(node.attrs.axes)} of {list(x.shape)} has no kernel; .tflite works.")
    sizes += [1] * (5 - len(sizes))
    n = sizes[1] * sizes[3]
    real = mean_multiplier(pack.quant_of(x), pack.quant_of(y), n)
    fields: dict[str, Value] = {
        "size": tuple(sizes),
        "in_zero": pack.zero_point(x),
        **pack.scaling(*real, 255 * n),
        "output": pack.output(y, "none"),
    }
    arguments = (Read(x.name), Struct("nst_mean_layer", fields), Written())
    return layer(node, graph, "mean", variant, arguments)


def softmax(node: Node, graph: Graph, variant: Variant) -> Layer:
    """With a table of exponentials for the 256 differences that there can be."""
    assert isinstance(node.attrs, ir.Softmax)
    x = graph.tensors[node.inputs[0]]
    real = float(np.float32(node.attrs.beta)) * pack.scale(x)
    multiplier, shift = quantize_multiplier(np.array([min(real * 2.0**26, 2.0**31 - 1)]))
    difference = -np.arange(256, dtype=np.int64)
    counted = difference >= -((31 << 26) >> int(shift[0]))
    scaled = high_mul(wrap(np.where(counted, difference, 0) << shift), multiplier)
    exponentials = np.where(counted, exp_of_negative(scaled), 0)
    fields: dict[str, Value] = {
        "rows": math.prod(x.shape[:-1]),
        "depth": x.shape[-1],
        "exponentials": Constant("exponentials", "int32_t", exponentials.astype(np.int32), (256,)),
    }
    arguments = (Read(x.name), Struct("nst_softmax_layer", fields), Written())
    return layer(node, graph, "softmax", variant, arguments)
