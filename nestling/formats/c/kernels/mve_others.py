"""Additions, pools and means for Arm's M-profile vector extension. The kernels' side of it is runtime/mve/nst_mve.h."""

from __future__ import annotations

import math
from dataclasses import replace

from nestling.formats.c.kernels import bytewise, sums
from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.layers import Layer, Struct
from nestling.formats.c.kernels.variant import Variant
from nestling.graph import ir
from nestling.graph.ir import Graph, Node

PORTABLE_ADD, PORTABLE_MEAN = Variant("nst_add", bytewise.add), Variant("nst_mean", sums.mean)
MOST = 255  # places of a window whose sum has room in 16 bits
AT_ONCE = 4  # columns of a mean


def takes_add(node: Node, graph: Graph) -> bool:
    """Two of one shape, where the portable kernel's short way may be gone: then no exponent is 0 or more."""
    shapes = {graph.tensors[name].shape for name in (*node.inputs, node.name)}
    if len(shapes) > 1:
        return False
    fields = _struct(bytewise.add(node, graph, PORTABLE_ADD)).fields
    return _number(fields["b_shift"]) >= 0 and _number(fields["shift"]) >= 0


def add(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_add. The portable kernel's shift is one less than what is divided by; see nst_scaled()."""
    made = bytewise.add(node, graph, variant)
    a, b, struct, written = made.arguments
    old = dict(_struct(made).fields)
    output = old["output"]
    assert isinstance(struct, Struct) and isinstance(output, Struct)
    fields = {
        "count": math.prod(graph.tensors[node.name].shape),
        **{name: old[name] for name in ("a_zero", "b_zero", "b_left", "b_multiplier")},
        "b_exponent": -1 - _number(old["b_shift"]),
        "multiplier": old["multiplier"],
        "exponent": -1 - _number(old["shift"]),
        "negative": int(pack.below_zero(node, graph)),
        "output": output,
    }
    return replace(made, arguments=(a, b, Struct("nst_add_mve_layer", fields), written))


def takes_average_pool(node: Node, graph: Graph) -> bool:
    """Not of old uint8 networks."""
    attrs = node.attrs
    return isinstance(attrs, ir.AveragePool) and not attrs.unsigned and math.prod(attrs.size) <= MOST


def takes_mean(node: Node, graph: Graph) -> bool:
    """Of rows, as nst_mean_mve has them."""
    size = _struct(sums.mean(node, graph, PORTABLE_MEAN)).fields["size"]
    assert isinstance(size, tuple)
    return size[3] == 1 and size[2] * size[4] >= AT_ONCE


def _struct(layer: Layer) -> Struct:
    return next(argument for argument in layer.arguments if isinstance(argument, Struct))


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
