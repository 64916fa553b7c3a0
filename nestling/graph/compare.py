"""Where two Graphs begin to differ, in words."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from nestling.graph.edit import canonical
from nestling.graph.ir import Graph, Node, Tensor


def first_difference(wanted: Graph, found: Graph) -> str | None:
    """The first layer, in running order, in which `found` is not `wanted`, and what differs there; None where nothing does.

    Names of tensors make no difference.
    """
    a, b = canonical(wanted), canonical(found)
    for node, own, other in zip_longest(wanted.nodes, a.nodes, b.nodes):
        if own is None or other is None:
            return f"it has {len(b.nodes)} nodes, not {len(a.nodes)}"
        what = _node_difference(own, other, a, b)
        if what:
            return f"{layer(node)}: {what}"
    return None if (a.inputs, a.outputs) == (b.inputs, b.outputs) else "its inputs or outputs are other tensors"


def layer(node: Node) -> str:
    """A node in a message: its op and where it comes from."""
    return f"{node.op} {node.source or node.name}"


def _node_difference(a: Node, b: Node, graph_a: Graph, graph_b: Graph) -> str | None:
    if (a.op, a.attrs) != (b.op, b.attrs):
        return f"it is {b.op} {b.attrs}, not {a.op} {a.attrs}"
    if (a.inputs, a.outputs) != (b.inputs, b.outputs):
        return "it reads or writes other tensors"
    roles = [f"input {i}" for i in range(len(a.inputs))] + ["its output"]
    for role, name in zip(roles, (*a.inputs, *a.outputs), strict=True):
        what = _tensor_difference(graph_a.tensors[name], graph_b.tensors[name])
        if what:
            return f"{role}: {what}"
    return None


def _tensor_difference(a: Tensor, b: Tensor) -> str | None:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return f"{b.dtype} {list(b.shape)}, not {a.dtype} {list(a.shape)}"
    if (a.data is None) != (b.data is None) or (a.quant is None) != (b.quant is None):
        return "one is a constant or quantised, the other not"
    if a.data is not None and b.data is not None and a.data.tobytes() != b.data.tobytes():
        off = np.abs(a.data.astype(np.float64) - b.data.astype(np.float64))
        return f"{int((off > 0).sum())} of {off.size} values differ, by up to {off.max():g}"
    if a.quant is None or b.quant is None:
        return None
    for what, one, two in (("scales", a.quant.scale, b.quant.scale), ("zero points", a.quant.zero_point, b.quant.zero_point)):
        if one.tobytes() != two.tobytes():
            return f"{what} {two[:4]}, not {one[:4]}"
    return None if a.quant.axis == b.quant.axis else f"a quant along axis {b.quant.axis}, not {a.quant.axis}"
