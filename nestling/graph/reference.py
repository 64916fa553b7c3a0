"""Run a Graph in NumPy: the definition of its answer.

Integer nodes give TFLite's reference kernels' bytes (reference_integer.py), float nodes plain float32 (reference_float.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nestling.errors import UnusableData
from nestling.graph import ir, reference_float, reference_integer
from nestling.graph.ir import Array, Graph, Node, Tensor
from nestling.graph.reference_integer import Kernel
from nestling.graph.windows import nearest

Feeds = Array | Mapping[str, Array]


def run(graph: Graph, feeds: Feeds, keep: tuple[str, ...] = ()) -> dict[str, Array]:
    """The outputs of a checked graph by tensor name, in the graph's order, then the tensors named in `keep`.

    feeds: the input, or inputs by tensor name; dtype and shape are the input tensor's, but for N images at once [N, ...]
    instead of [1, ...]: each is answered as it would be alone. An array is forgotten after its last reader.
    Raises UnusableData where a feed does not fit.
    """
    wanted = (*graph.outputs, *keep)
    found = {name: array for name, array in activations(graph, feeds) if name in wanted}
    return {name: found[name] for name in wanted}


def activations(graph: Graph, feeds: Feeds) -> Iterator[tuple[str, Array]]:
    """Every activation with its tensor's name, the inputs first, in running order. feeds: as for run."""
    values = {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    last_reader = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    for name, array in _checked_feeds(graph, feeds).items():
        values[name] = array
        yield name, array
    for index, node in enumerate(graph.nodes):
        answer = step(graph, node, tuple(values[name] for name in node.inputs))
        values[node.outputs[0]] = answer
        yield node.outputs[0], answer
        for name in set(node.inputs):
            if last_reader[name] == index:
                del values[name]


def step(graph: Graph, node: Node, arrays: tuple[Array, ...]) -> Array:
    """The answer of one node to its inputs' values (constants included)."""
    inputs = tuple(graph.tensors[name] for name in node.inputs)
    output = graph.tensors[node.outputs[0]]
    return _kernel(node.op, inputs, output)(node.attrs, arrays, inputs, output)


def _checked_feeds(graph: Graph, feeds: Feeds) -> dict[str, Array]:
    named = dict(feeds) if isinstance(feeds, Mapping) else {graph.inputs[0]: np.asarray(feeds)}
    if set(named) != set(graph.inputs):
        raise UnusableData(f"the graph takes {', '.join(graph.inputs)}; got {', '.join(named)}")
    for name, array in named.items():
        tensor = graph.tensors[name]
        if array.dtype != np.dtype(tensor.dtype) or array.shape[1:] != tensor.shape[1:] or array.ndim != len(tensor.shape):
            raise UnusableData(f"input {name!r} takes {tensor.dtype} {list(tensor.shape)}; got {array.dtype} {list(array.shape)}")
    return named


def _kernel(op: str, inputs: tuple[Tensor, ...], output: Tensor) -> Kernel:
    """Integer kernels where an integer tensor takes part; what only moves values is the same in both worlds."""
    if op in _EITHER:
        return _EITHER[op]
    integers = "int8" in (inputs[0].dtype, output.dtype)
    return reference_integer.KERNELS[op] if integers else reference_float.KERNELS[op]


def _reshape(attrs: Any, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    return arrays[0].reshape(arrays[0].shape[0], *output.shape[1:])


def _table(attrs: Any, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """out[n, h, w, c] = table[c, x[n, h, w, c]]."""
    x, table = arrays
    answer: Array = table[np.arange(table.shape[0]), x]
    return answer


def _resize_nearest(attrs: ir.ResizeNearest, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    return nearest(arrays[0], attrs.size, attrs.align_corners, attrs.half_pixel_centers)


def _slice(attrs: ir.Slice, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    return arrays[0][(slice(None),) * attrs.axis + (slice(attrs.begin, attrs.end),)]


_EITHER: Mapping[str, Kernel] = {"reshape": _reshape, "table": _table, "resize_nearest": _resize_nearest, "slice": _slice}
