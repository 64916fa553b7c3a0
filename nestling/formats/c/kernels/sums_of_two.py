"""Adds as one sum of two products: factors that are tried on every pair of bytes. See nst_add_rv32, and table.py.

    byte = clamp(a * a_factor + b * b_factor + addend >> shift)

The reference rounds three times (docs/integer-semantics.md). Factors that round once give other bytes for a few of the 65536 pairs,
those that lie next to the middle between two bytes; with factors a little off the right ones there are mostly none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.layers import Layer, Read, Struct, Value, Written
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph import ir, reference
from nestling.graph.fixed_point import Int
from nestling.graph.ir import Graph, Node

WORD = 2**31
OFF = range(-3, 4)  # by how much the factors may be
NEAREST = sorted(((i, j) for i in OFF for j in OFF), key=lambda off: abs(off[0]) + abs(off[1]))
TRIED = 64  # by how much an addend is tried on either side of the likeliest
MOST_ODD = 8  # pairs for which factors may be wrong
Pair = tuple[int, int, int]
BYTES = np.arange(-128, 128)
A, B = np.repeat(BYTES, 256), np.tile(BYTES, 256)  # every pair


@dataclass(frozen=True)
class Factors:
    """See above; addend: with half a byte in it, and counted from the lowest answer."""

    a: int
    b: int
    addend: int
    shift: int


def takes(node: Node, graph: Graph) -> bool:
    """Two activations of one shape, for which factors are found."""
    return of_one_shape(node, graph) and factors(node, graph) is not None


def of_one_shape(node: Node, graph: Graph) -> bool:
    """Two activations."""
    a, b = (graph.tensors[name] for name in node.inputs)
    return a.shape == b.shape and a.data is None and b.data is None


def add(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes."""
    found = factors(node, graph)
    assert found is not None
    a, b = node.inputs
    arguments = (Read(a), Read(b), Struct("nst_add_rv32_layer", fields(node, graph, found)), Written())
    return layer(node, graph, "add", variant, arguments, tuple(dict.fromkeys(node.inputs)))


def fields(node: Node, graph: Graph, found: Factors) -> dict[str, Value]:
    """Of a layer's struct."""
    low, high = pack.ends(node, graph)
    return {
        "count": math.prod(graph.tensors[node.name].shape),
        "a_factor": found.a,
        "b_factor": found.b,
        "addend": found.addend,
        "shift": found.shift,
        "low": low,
        "high": high,
    }


def factors(node: Node, graph: Graph) -> Factors | None:
    """The first that give the reference's byte for every pair, nearest to the right ones first; None where there are none."""
    assert isinstance(node.attrs, ir.Add)
    if math.prod(graph.tensors[node.name].shape) == 0:
        return None
    low, high = pack.ends(node, graph)
    real, answers, shift = _asked(node, graph)
    order = np.argsort(answers, kind="stable")
    begins = np.searchsorted(answers[order], np.arange(low + 1, high + 1))
    for off in NEAREST if shift > 0 else ():
        some = [round(one * 2.0**shift) + more for one, more in zip(real, off, strict=True)]
        found = _with_addend(Factors(some[0], some[1], 0, shift), order, begins)
        if found is not None:
            return found
    return None


def nearly(node: Node, graph: Graph) -> tuple[Factors, tuple[Pair, ...]] | None:
    """Factors that give the reference's byte for all pairs but as few as are found, MOST_ODD at most, and these pairs.

    A pair is (a, b, what is to be added). None where there are no such factors.
    """
    real, answers, shift = _asked(node, graph)
    low, high = pack.ends(node, graph)
    best: tuple[Factors, tuple[Pair, ...]] | None = None
    for off in NEAREST if shift > 0 else ():
        a, b = (round(one * 2.0**shift) + more for one, more in zip(real, off, strict=True))
        sums = A * a + B * b
        inside = (answers > low) & (answers < high)
        addend = int(np.median((((answers - low) << shift) + (1 << shift - 1) - sums)[inside])) if inside.any() else 0
        for tried in range(addend - TRIED, addend + TRIED + 1, TRIED // 2):
            missing = answers - np.clip((sums + tried >> shift) + low, low, high)
            odd = np.flatnonzero(missing)
            fits = max(abs(int(sums.min()) + tried), abs(int(sums.max()) + tried), abs(tried)) < WORD
            if fits and len(odd) < (MOST_ODD + 1 if best is None else len(best[1])):
                pairs = tuple((int(A[i]), int(B[i]), int(missing[i])) for i in odd)
                best = Factors(a, b, tried, shift), pairs
    return best


def _asked(node: Node, graph: Graph) -> tuple[list[float], Int, int]:
    """(the right factors, the reference's answers to all pairs, how many bits behind the point there is room for)."""
    real = [pack.scale(graph.tensors[name]) / pack.scale(graph.tensors[node.name]) for name in node.inputs]
    answers = np.asarray(reference.step(graph, node, (A.astype(np.int8), B.astype(np.int8)))).astype(np.int64)
    return real, answers, math.floor(math.log2(WORD / (256 * (sum(real) + 2))))


def _with_addend(some: Factors, order: Int, begins: Int) -> Factors | None:
    """With an addend that makes every byte begin where it should; None where there is none.

    order: pairs by their answers; begins: where in it the answers 1, 2, ... above the lowest one begin.
    """
    sums = (A * some.a + B * some.b)[order]
    least = np.minimum.accumulate(sums[::-1])[::-1]  # of this pair and all that answer as much or more
    largest = np.maximum.accumulate(sums)
    steps = np.arange(1, len(begins) + 1) << some.shift
    above, below = begins < len(sums), begins > 0  # whether any pair answers so much, or less
    lowest = (steps[above] - least[begins[above]]).max(initial=-WORD)
    highest = (steps[below] - 1 - largest[begins[below] - 1]).min(initial=WORD - 1)
    addend = int(lowest + highest) >> 1
    fits = min(int(sums.min()) + addend, addend) >= -WORD and max(int(sums.max()) + addend, addend) < WORD
    return replace(some, addend=addend) if lowest <= highest and fits else None
