"""The table: which kernel a node becomes. (node, graph) -> Layer, or View where nothing is to be done.

Each function says how the constants are packed, what scratch the call needs and what its answer may be written over. The kernels'
side of it is runtime/nst_kernels.h, the formulas are in docs/integer-semantics.md. The graph is checked.

    windows.py    convolutions, pools
    sums.py       fully connected, head, mean, softmax
    bytewise.py   element by element, tables, concat, pad
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nestling.formats.c.kernels import bytewise, sums, windows
from nestling.formats.c.kernels.bytewise import View
from nestling.formats.c.kernels.layers import Layer, without_kernel
from nestling.graph.ir import Graph, Node

Lowering = Callable[[Node, Graph], Layer | View]

KERNELS: Mapping[str, Lowering] = {
    "conv2d": windows.conv2d,
    "depthwise_conv2d": windows.depthwise_conv2d,
    "fully_connected": sums.fully_connected,
    "add": bytewise.add,
    "mul": bytewise.mul,
    "average_pool": windows.pool,
    "max_pool": windows.pool,
    "mean": sums.mean,
    "pad": bytewise.pad,
    "concat": bytewise.concat,
    "reshape": bytewise.reshape,
    "softmax": sums.softmax,
    "hard_swish": bytewise.lookup,
    "logistic": bytewise.lookup,
    "quantize": bytewise.lookup,
    "dequantize": sums.dequantize,
    "table": bytewise.table,
}


def kernel(node: Node, graph: Graph) -> Layer | View:
    """The call that a node becomes. Raises UnsupportedOp where there is none: float arithmetic before the head, mostly."""
    y = graph.tensors[node.name]
    head = node.op == "fully_connected" and y.dtype == "float32"
    moving = [tensor for name in node.inputs if (tensor := graph.tensors[name]).data is None]
    floats = any(tensor.dtype == "float32" for tensor in moving)
    gives = ("float32",) if node.op in ("dequantize", "reshape") or head else ("int8",)
    if (floats and not head and node.op != "reshape") or (y.dtype not in (*gives, "int8")) or node.op not in KERNELS:
        raise without_kernel(node)
    return KERNELS[node.op](node, graph)
