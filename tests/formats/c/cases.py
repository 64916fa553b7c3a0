"""Graphs that hypothesis draws for the kernels, beside those of graph/strategies.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from nestling.errors import UnusableFile
from nestling.formats.c.kernels.few_bits import HEADER, with_packed_weights
from nestling.formats.c.kernels.layers import Layer, Program, Room
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine
from nestling.graph import ir
from nestling.graph.ir import Graph
from nestling.graph.spec import check
from tests.helpers.strategies import CLAMPS, ZERO_POINTS, Draw, Sketch, graphs
from tests.helpers.strategies import _weights as weights

Case = tuple[Graph, NDArray[Any]]
SUMS = ("conv2d", "depthwise_conv2d", "fully_connected")
HOST = replace(machine("host"), features=())  # with the kernels of every machine


def valid(case: Case) -> Case:
    """Graphs that spec.py takes (the strategies draw scales too small for it now and then) and that begin with integers."""
    assume(case[1].dtype != np.float32)
    try:
        check(case[0])
    except UnusableFile as error:
        assume("too small" not in str(error))
        raise
    return case


@st.composite
def windows(draw: Draw, kind: str = "", sizes: tuple[int, ...] = ()) -> Case:
    """One convolution, depthwise or not, with more channels and larger windows than the other strategies draw.

    kind: "depthwise"; "channels": a convolution with a channel a group; "plain": without window, stride, border or groups; "pixel":
    that, of one pixel; "zeros": that, and most of its weights are zeros, in blocks of four. sizes: of square windows, one is
    drawn; any without.
    """
    plain = kind in ("plain", "pixel", "zeros")
    s = Sketch(draw, True, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    depthwise, old = kind == "depthwise" if kind else draw(st.booleans()), draw(st.integers(0, 4)) == 0
    depths = st.integers(5, 50) | st.integers(40, 90) if kind == "zeros" else st.integers(2 if kind == "channels" else 1, 19)
    sides = (1, 1) if kind == "pixel" else (draw(st.integers(1, 14)), draw(st.integers(1, 14)))
    shape = (1, *sides, draw(depths))
    x = s.activation(shape, s.quant(0.02))
    shapes = tuple((size, size) for size in sizes) or ((1, 1), (3, 3), (5, 5), (3, 5), (5, 3), (7, 7), (2, 4), (1, 3), (3, 1))
    kernel = (1, 1) if plain else draw(st.sampled_from(shapes))
    stride = (1, 1) if plain else draw(st.sampled_from(((1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (2, 1), (4, 1))))
    dilation = draw(st.sampled_from(((1, 1), (1, 1), (2, 2), (1, 3), (2, 1))))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    most = [max(r, r - n) + 1 for r, n in zip(reach, shape[1:3], strict=True)]
    drawn = [0 if plain else draw(st.integers(0, most[i // 2])) for i in range(4)]
    fits = [shape[1 + i] + drawn[2 * i] + drawn[2 * i + 1] >= reach[i] for i in (0, 1)]
    top, bottom, left, right = (pad if fits[i // 2] else reach[i // 2] for i, pad in enumerate(drawn))
    pads = (top, bottom, left, right)
    plane = [(shape[1 + i] + pads[2 * i] + pads[2 * i + 1] - reach[i]) // stride[i] + 1 for i in (0, 1)]
    clamp = draw(CLAMPS)
    attrs: ir.Attrs
    if depthwise:
        out = shape[3] * draw(st.integers(1, 3))
        size, axis = (1, *kernel, out), 3
        attrs = ir.DepthwiseConv2d(stride, dilation, pads, clamp, old)
    else:
        drawn_groups = st.sampled_from([g for g in (1, 1, 2, 3, shape[3]) if shape[3] % g == 0])
        groups = {"plain": 1, "pixel": 1, "zeros": 1, "channels": shape[3]}.get(kind) or draw(drawn_groups)
        out = groups * draw(st.integers(1, 30 if kind == "zeros" else 9))
        size, axis = (out, *kernel, shape[3] // groups), 0
        attrs = ir.Conv2d(stride, dilation, pads, clamp, old)
    s.per_channel = not old
    weight, bias, scales = weights(s, x, size, axis)
    if kind == "zeros":
        s.tensors[weight.name] = weight = with_zeros(weight, draw(st.sampled_from((0.5, 0.8, 0.8, 1.0))), s.rng)
    if old:
        quant = replace(weight.quant, zero_point=np.array([draw(ZERO_POINTS)], np.int32))
        s.tensors[weight.name] = weight = replace(weight, quant=quant)
    y = s.node("depthwise_conv2d" if depthwise else "conv2d", (x, weight, *bias), (1, *plane, out), s.quant(*scales), attrs)
    return Graph(s.tensors, tuple(s.nodes), (x.name,), (y.name,)), s.int8(shape)


def with_zeros(weight: ir.Tensor, share: float, rng: np.random.Generator) -> ir.Tensor:
    """The weights of a 1x1 convolution with about this share of their blocks of four zero."""
    assert weight.data is not None
    out, _, _, depth = weight.shape
    stays = np.repeat(rng.random((out, -(-depth // 4))) >= share, 4, axis=1)[:, None, None, :depth]
    return replace(weight, data=weight.data * stays)


@st.composite
def squares(draw: Draw, op: str, sizes: tuple[int, ...] = (3, 3, 5, 7)) -> Case:
    """A depthwise convolution as there mostly are, by either name: as many channels as before, square, with a small border."""
    s = Sketch(draw, True, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    size, stride = draw(st.sampled_from(sizes)), draw(st.sampled_from(((1, 1), (2, 2), (1, 1), (2, 1), (1, 2), (3, 2))))
    side, pad = st.integers(size // 2, 15), st.integers(size - 1 - size // 2, size // 2)
    shape = (1, draw(side), draw(side), draw(st.integers(2, 9)))
    pads = (draw(pad), draw(pad), draw(pad), draw(pad))
    plane = [(shape[1 + i] + pads[2 * i] + pads[2 * i + 1] - size) // stride[i] + 1 for i in (0, 1)]
    x, channels = s.activation(shape, s.quant(0.02)), shape[3]
    by_name = op == "depthwise_conv2d"
    weight, bias, scales = weights(s, x, *(((1, size, size, channels), 3) if by_name else ((channels, size, size, 1), 0)))
    kind = ir.DepthwiseConv2d if by_name else ir.Conv2d
    y = s.node(op, (x, weight, *bias), (1, *plane, channels), s.quant(*scales), kind(stride, (1, 1), pads, draw(CLAMPS)))
    return Graph(s.tensors, tuple(s.nodes), (x.name,), (y.name,)), s.int8(shape)


def of_op(op: str, function: str = "") -> st.SearchStrategy[Case]:
    """Nodes of the op that between them every variant of it takes. function: those that the variant of this name mostly takes."""
    if op not in ("conv2d", "depthwise_conv2d"):
        drawn = graphs(integer=True, op=op, most=1)
        return drawn | drawn.map(of_four_bits) if op == "fully_connected" else drawn
    sizes = tuple(map(int, re.findall(r"depthwise_(\d)", function)))
    groups = windows("depthwise" if op == "depthwise_conv2d" else "channels", sizes)
    usual = squares(op, sizes) if sizes else squares(op)
    if op == "depthwise_conv2d" or "depthwise" in function:
        return groups | usual | usual
    if "blocks" in function:
        return windows("zeros")
    if "fully_connected" in function:
        return windows("pixel")
    plain = windows("plain") | windows("pixel") | windows("zeros")
    return plain if "1x1" in function else windows() | groups | plain | usual


def of_four_bits(case: Case) -> Case:
    """The case with the upper bits of each of its weights, as they are."""
    tensors = dict(case[0].tensors)
    for node in case[0].nodes:
        weight = tensors[node.inputs[1]] if node.op in SUMS else None
        if weight is not None and weight.data is not None:
            tensors[weight.name] = replace(weight, data=np.right_shift(weight.data, 4))
    return replace(case[0], tensors=tensors), case[1]


def few(graph: Graph, bits: Callable[[str], int]) -> Graph:
    """The graph with weights of so many bits, by the layer's name: the upper bits of those that it has, on a larger scale."""
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        shift = 8 - bits(node.name) if node.op in SUMS and graph.tensors[node.name].dtype == "int8" else 0
        for name in node.inputs[1:] if shift else ():
            old = graph.tensors[name]
            assert old.quant is not None and old.data is not None
            scale = replace(old.quant, scale=(old.quant.scale * 2**shift).astype(np.float32))
            tensors[name] = replace(old, data=np.right_shift(old.data, shift), quant=scale)
    return check(replace(graph, tensors=tensors))


def without_zeros(graph: Graph) -> Graph:
    """The graph with -1 for every weight that is 0, so that none can be skipped, and without biases that settle a channel."""
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        weight = tensors[node.inputs[1]] if node.op in SUMS else None
        if weight is not None and weight.data is not None and weight.dtype == "int8":
            tensors[weight.name] = replace(weight, data=np.where(weight.data == 0, -1, weight.data).astype(np.int8))
            for name in node.inputs[2:]:
                bias = tensors[name]
                assert bias.data is not None
                tensors[name] = replace(bias, data=np.clip(bias.data, -(2**20), 2**20))
    return replace(graph, tensors=tensors)


@st.composite
def packed_cases(draw: Draw, cases: st.SearchStrategy[Case], *features: str) -> tuple[Graph, NDArray[Any], Program]:
    """A graph of a strategy with weights of few bits, and its program with each scratch between the least and the most.

    features: of a machine whose kernels are to compute it, those for packed weights.
    """
    graph, image = draw(cases)
    assume(image.dtype != np.float32)
    try:
        graph = few(graph, lambda name: draw(st.sampled_from((2, 4, 4, 8))))
    except UnusableFile as error:
        assume("scale" not in str(error))  # those of a few drawn graphs lie at the edge already
        raise
    program = with_packed_weights(lower(graph, replace(HOST, features=features)), worth=1)
    headers = [f"nst_{feature}.h" for feature in features] or [HEADER]
    assume(any("bit weights" in layer.kind and layer.header in headers for layer in program.layers))

    return graph, image, with_room(program, lambda least, most: draw(st.integers(least, most)))


def with_room(program: Program, size: Callable[[int, int], int]) -> Program:
    """The program with each scratch as large as `size` says, between the least and the most that its layer can use."""

    def roomy(layer: Layer) -> Layer:
        chosen = size(layer.scratch, max(layer.scratch, layer.scratch_most))
        arguments = tuple(chosen if isinstance(argument, Room) else argument for argument in layer.arguments)
        return replace(layer, arguments=arguments, scratch=chosen)

    return replace(program, layers=tuple(map(roomy, program.layers)))
