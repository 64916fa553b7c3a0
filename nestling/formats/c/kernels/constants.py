"""Weights, biases and scales as the kernels read them: the order of the inner loops, sums that never change folded in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.errors import UnsupportedOp
from nestling.formats.c.kernels.layers import Constant, Struct, clamp_of
from nestling.graph import shapes
from nestling.graph.fixed_point import Int, clamp_range
from nestling.graph.ir import Clamp, Graph, Node, Quant, Tensor
from nestling.graph.reference_integer import output_multiplier

SIDE_BY_SIDE = 4  # output channels that nst_products.c computes together
LISTED = 8  # channels that a refusal names
LONG_WAY = 64  # what the exponent is less by where nst_scaled() must not take the short one


@dataclass(frozen=True, eq=False)
class Sums:
    """A layer's products as rows: weight int8 [O, K], bias int64 [O] with the input's zero point folded in.

    largest: int64 [O], of the absolute value of a channel's whole sum.
    """

    weight: NDArray[np.int8]
    weight_zero: int
    bias: Int
    largest: Int


def zero_point(tensor: Tensor) -> int:
    """The value that stands for 0; 0 for tensors without a quant."""
    return 0 if tensor.quant is None else int(tensor.quant.zero_point[0])


def scale(tensor: Tensor) -> float:
    """Of a tensor with one scale."""
    return float(quant_of(tensor).scale[0])


def quant_of(tensor: Tensor) -> Quant:
    """The quant that the spec asks for. Raises ValueError in a graph that was not checked."""
    if tensor.quant is None:
        raise ValueError(f"tensor {tensor.name!r} has no quant; the graph was not checked")
    return tensor.quant


def sums(node: Node, graph: Graph, weight: NDArray[np.int8]) -> Sums:
    """What conv2d, depthwise_conv2d and fully_connected add up. weight: int8 [O, K], the node's own in some order.

    sum over k of (x - zx) * (w - zw) + b = sum of x * w - zw * sum of x + [b - zx * (sum of w - K * zw)].
    Raises UnsupportedOp, naming the channels, where a partial sum might leave 32 bits.
    """
    x, zero = zero_point(graph.tensors[node.inputs[0]]), zero_point(graph.tensors[node.inputs[1]])
    wide = weight.astype(np.int64)
    bias = bias_of(node, graph, len(weight))
    if (beyond := _leave_32_bits(wide, zero, bias, x)).any():
        raise _refused(node, beyond)
    largest = np.abs(bias) + max(127 - x, x + 128) * np.abs(wide - zero).sum(axis=1)
    return Sums(weight, zero, _folded(wide, zero, bias, x), largest)


def bias_of(node: Node, graph: Graph, channels: int) -> Int:
    """int64 [channels]; zeros where the node has none."""
    return np.asarray(graph.tensors[node.inputs[2]].data).astype(np.int64) if len(node.inputs) > 2 else np.zeros(channels, np.int64)


def _leave_32_bits(weight: Int, weight_zero: int, bias: Int, in_zero: int) -> NDArray[np.bool_]:
    """[O]: where a partial sum may, in whatever order a kernel adds up. weight: [O, K]."""
    whole = 128 * (np.abs(weight).sum(axis=1) + abs(weight_zero) * weight.shape[1])
    return np.asarray(np.abs(_folded(weight, weight_zero, bias, in_zero)) + whole >= 2**31)


def _folded(weight: Int, weight_zero: int, bias: Int, in_zero: int) -> Int:
    """The bias of sums over x instead of x - in_zero."""
    return np.asarray(bias - in_zero * (weight - weight_zero).sum(axis=1))


def _refused(node: Node, beyond: NDArray[np.bool_]) -> UnsupportedOp:
    found = np.flatnonzero(beyond)
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    which = f"{'s' if len(found) > 1 else ''} {', '.join(map(str, found[:LISTED]))}{more}"
    layer = f" ({node.source})" if node.source else ""
    return UnsupportedOp(
        f"{node.op} {node.name!r}{layer}: the sums of channel{which} of {len(beyond)} may leave 32 bits, which C does not define, "
        "and what they answer depends on them; .tflite works."
    )


def interleaved(weight: NDArray[np.int8]) -> Constant:
    """int8 [O, K] as [(O + 3) / 4][K][4], missing channels 0."""
    channels, depth = weight.shape
    rows = -(-channels // SIDE_BY_SIDE)
    whole = np.zeros((rows * SIDE_BY_SIDE, depth), np.int8)
    whole[:channels] = weight
    data = whole.reshape(rows, SIDE_BY_SIDE, depth).transpose(0, 2, 1)
    return Constant("weights", "int8_t", np.ascontiguousarray(data), (rows, depth, SIDE_BY_SIDE))


def interleaved_by_group(weight: NDArray[np.int8], groups: int) -> Constant:
    """int8 [O, K] as [groups][(O / groups + 3) / 4][K][4]."""
    parts = [interleaved(part) for part in np.split(weight, groups)]
    if groups == 1:
        return parts[0]
    return Constant("weights", "int8_t", np.stack([part.data for part in parts]), (groups, *parts[0].layout))


def sums_struct(node: Node, graph: Graph, found: Sums, weights: Constant, channels: int) -> Struct:
    """nst_sums of a convolution. channels: of one group."""
    y = graph.tensors[node.name]
    multiplier, exponent = factors(node, graph, len(found.bias))
    count = (len(found.bias),)
    return Struct(
        "nst_sums",
        {
            "depth": found.weight.shape[1],
            "channels": channels,
            "weights": weights,
            "weight_zero": found.weight_zero,
            "bias": Constant("bias", "int32_t", found.bias.astype(np.int32), count),
            "multiplier": Constant("multiplier", "int32_t", multiplier.astype(np.int32), count),
            "shift": Constant("shift", "int8_t", shifts(multiplier, exponent, found.largest).astype(np.int8), count),
            "output": output(y, clamp_of(node)),
        },
    )


def factors(node: Node, graph: Graph, channels: int) -> tuple[Int, Int]:
    """(multiplier, exponent) of each channel of a convolution, int64 [channels]: see reference_integer.output_multiplier."""
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    multiplier, exponent = output_multiplier(x, weight, y, getattr(node.attrs, "unsigned", False))
    return np.broadcast_to(multiplier, channels), np.broadcast_to(exponent, channels)


def ends(node: Node, graph: Graph) -> tuple[int, int]:
    """The smallest and the largest byte of a node's answer."""
    return clamp_range(clamp_of(node), quant_of(graph.tensors[node.name]))


def below_zero(node: Node, graph: Graph) -> bool:
    """Whether bytes below the zero point are wanted: where no relu is at its end."""
    return ends(node, graph)[0] < zero_point(graph.tensors[node.name])


def shifts(multiplier: Int, exponent: Int, largest: Int) -> Int:
    """How nst_scaled() is told its exponent. largest: of the absolute values that are to be scaled.

    The short way wants values under 2**30, and an exponent below 0 or a factor of 0.
    """
    exponent = np.where(multiplier == 0, -1, exponent)
    short = (exponent < 0) & (largest < 2**30)
    return np.asarray(np.where(short, -exponent - 1, exponent - LONG_WAY))


def scaling(multiplier: Int, exponent: Int, largest: int) -> dict[str, int]:
    """The fields multiplier and shift of one factor (arrays of one number)."""
    shift = shifts(multiplier, exponent, np.array([largest]))
    return {"multiplier": int(multiplier[0]), "shift": int(shift[0])}


def output(y: Tensor, clamp: Clamp) -> Struct:
    """nst_output."""
    low, high = clamp_range(clamp, quant_of(y))
    return Struct("nst_output", {"zero": zero_point(y), "low": low, "high": high})


@dataclass(frozen=True)
class Broadcast:
    """Two operands over one output: sides and steps from the outermost in, as nst_broadcast has them."""

    size: tuple[int, ...]
    a_step: tuple[int, ...]
    b_step: tuple[int, ...]


def broadcast(a: shapes.Shape, b: shapes.Shape, y: shapes.Shape, name: str) -> Broadcast:
    """Neighbouring sides along which both operands run, or the same one stands still, are one. UnsupportedOp beyond three."""
    operands = [(1,) * (len(y) - len(shape)) + shape for shape in (a, b)]
    merged: list[tuple[int, tuple[bool, ...]]] = []  # (size, which operand runs)
    for size, *sides in zip(y, *operands, strict=True):
        runs = tuple(side > 1 for side in sides)
        if size == 1:
            continue
        if merged and merged[-1][1] == runs:
            merged[-1] = (merged[-1][0] * size, runs)
        else:
            merged.append((size, runs))
    if len(merged) > 3:
        raise UnsupportedOp(f"{name!r} broadcasts {list(a)} and {list(b)} in more than three pieces; .tflite works.")
    merged = [(1, (False, False))] * (3 - len(merged)) + merged
    steps = [[0, 0, 0], [0, 0, 0]]
    for operand in (0, 1):
        step = 1
        for side in (2, 1, 0):
            size, runs = merged[side]
            steps[operand][side] = step if runs[operand] else 0
            step *= size if runs[operand] else 1
    return Broadcast(tuple(size for size, _ in merged), tuple(steps[0]), tuple(steps[1]))
