"""Adds, products, tables, pools and means for 64-bit x86 and Arm (feature "host"). See runtime/host/nst_host.h."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import bytewise, host, sums, sums_of_two, windows
from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.layers import Constant, Crew, Layer, Read, Scratch, Struct, Value, Written, clamp_of
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph import ir
from nestling.graph.fixed_point import multiply, quantize_multiplier
from nestling.graph.ir import Graph, Node, Tensor

SOME = 32  # NST_SOME
MOST = 4096  # places of an average


def _by_crew(made: Layer, over: tuple[str, ...] = ()) -> Layer:
    """The portable kernel's call with a crew instead of a part."""
    return replace(made, arguments=(*made.arguments[:3], Crew()), over=over)


# ---- element by element ---------------------------------------------------------------------------------------------------------


def takes_add(node: Node, graph: Graph) -> bool:
    """Two activations of one shape, for which factors are found that are right for all pairs of bytes, or all but a few."""
    return sums_of_two.of_one_shape(node, graph) and _factors(node, graph) is not None


def add(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_add."""
    found = _factors(node, graph)
    assert found is not None
    factors, odd = found
    filled = np.array([*odd, *[(0, 0, 0)] * (sums_of_two.MOST_ODD - len(odd))]).T.tolist()
    names = dict(zip(("odd_a", "odd_b", "odd_more"), map(tuple, filled), strict=True))
    fields = {**sums_of_two.fields(node, graph, factors), "odd_ones": len(odd), **names}
    a, b = node.inputs
    arguments = (Read(a), Read(b), Struct("nst_add_host_layer", fields), Written(), Crew())
    return layer(node, graph, "add", variant, arguments, tuple(dict.fromkeys(node.inputs)))


def _factors(node: Node, graph: Graph) -> tuple[sums_of_two.Factors, tuple[sums_of_two.Pair, ...]] | None:
    found = sums_of_two.factors(node, graph)
    return sums_of_two.nearly(node, graph) if found is None else (found, ())


def takes_mul(node: Node, graph: Graph) -> bool:
    """Two of one shape, or one with a value a channel, where a factor is found."""
    a, b = _larger_first(node, graph)
    y = graph.tensors[node.name]
    channels = math.prod(b.shape) == y.shape[-1] == b.shape[-1]
    return a.shape == y.shape and (b.shape == y.shape or channels) and factor(node, graph) != (0.0, 0)


def mul(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_mul."""
    a, b = _larger_first(node, graph)
    y = graph.tensors[node.name]
    found, right = factor(node, graph)
    fields: dict[str, Value] = {
        "count": math.prod(y.shape),
        "b_count": math.prod(b.shape),
        "a_zero": pack.zero_point(a),
        "b_zero": pack.zero_point(b),
        "factor": found,
        "right": right,
        "output": pack.output(y, clamp_of(node)),
    }
    reads = [
        Read(x.name) if x.data is None else Constant(f"operand{i}", "int8_t", np.asarray(x.data, np.int8), x.shape)
        for i, x in enumerate((a, b))
    ]
    over = tuple(dict.fromkeys(x.name for x in (a, b) if x.data is None and x.shape == y.shape))
    arguments = (*reads, Struct("nst_mul_host_layer", fields), Written(), Scratch(), Crew())
    return layer(node, graph, "mul", variant, arguments, over)


def _larger_first(node: Node, graph: Graph) -> tuple[Tensor, Tensor]:
    a, b = sorted((graph.tensors[name] for name in node.inputs), key=lambda x: math.prod(x.shape), reverse=True)
    return a, b


def factor(node: Node, graph: Graph) -> tuple[float, int]:
    """(factor, right) as nst_mul_host wants them; 0 where none are found.

    They give the reference's byte for every product of two bytes, whether a compiler fuses the multiplication with the addition
    that rounds it or not.
    """
    a, b, y = (graph.tensors[name] for name in (*node.inputs, node.name))
    real = pack.quant_of(a).scale * pack.quant_of(b).scale / pack.quant_of(y).scale
    multiplier, exponent = quantize_multiplier(real.astype(np.float64))
    right = -int(exponent[0])
    if not 0 < right < 32:
        return 0.0, 0
    zero, (low, high) = pack.zero_point(y), pack.ends(node, graph)
    values = [np.arange(-128, 128) - pack.zero_point(x) for x in (a, b)]
    products = np.unique(np.multiply.outer(*values))
    answers = np.clip(multiply(products, multiplier, exponent) + zero, low, high)

    def right_answers(scaled: NDArray[np.floating[Any]]) -> bool:
        wide = np.rint(scaled).astype(np.int64)
        return bool((np.clip((wide - (wide < 0) + (1 << right - 1) >> right) + zero, low, high) == answers).all())

    for step in host.AROUND:
        tried = ((multiplier / 2.0**31).astype(np.float32).view(np.int32) + np.int32(step)).view(np.float32)
        if right_answers(products * tried.astype(np.float64)) and right_answers(products.astype(np.float32) * tried):
            return float(tried[0]), right
    return 0.0, 0


def repeated(node: Node, graph: Graph) -> int:
    """Scratch of a value a channel: nst_period(channels)."""
    b = _larger_first(node, graph)[1]
    return math.lcm(math.prod(b.shape), host.BLOCK) if b.shape != graph.tensors[node.name].shape else 0


def lookup(node: Node, graph: Graph, variant: Variant) -> Layer:
    """The portable kernel's table."""
    made = bytewise.lookup(node, graph, variant)
    return replace(made, arguments=(*made.arguments, Crew()))


# ---- pools ----------------------------------------------------------------------------------------------------------------------


def takes_pool(node: Node, graph: Graph) -> bool:
    """Of enough channels, and not of old uint8 networks."""
    attrs = node.attrs
    assert isinstance(attrs, ir.AveragePool | ir.MaxPool)
    old = isinstance(attrs, ir.AveragePool) and attrs.unsigned
    return graph.tensors[node.name].shape[3] >= SOME and math.prod(attrs.size) <= MOST and not old


def pool(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_pool."""
    return _by_crew(windows.pool(node, graph, variant))


def takes_mean(node: Node, graph: Graph) -> bool:
    """Of rows of enough columns."""
    struct = sums.mean(node, graph, Variant("nst_mean", sums.mean)).arguments[1]
    assert isinstance(struct, Struct)
    size = struct.fields["size"]
    assert isinstance(size, tuple)
    return size[3] == 1 and size[2] * size[4] >= SOME


def mean(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_mean."""
    return _by_crew(sums.mean(node, graph, variant))
