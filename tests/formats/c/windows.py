"""Convolutions that hypothesis draws, larger than those of helpers/strategies.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from nestling.graph import ir
from nestling.graph.ir import Graph
from tests.helpers.strategies import CLAMPS, ZERO_POINTS, Case, Draw, Sketch
from tests.helpers.strategies import _weights as weights


@st.composite
def windows(draw: Draw) -> Case:
    """One convolution, depthwise or not, with more channels and larger windows than the other strategies draw."""
    s = Sketch(draw, True, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    depthwise, old = draw(st.booleans()), draw(st.integers(0, 4)) == 0
    shape = (1, draw(st.integers(1, 14)), draw(st.integers(1, 14)), draw(st.integers(1, 19)))
    x = s.activation(shape, s.quant(0.02))
    kernel = draw(st.sampled_from(((1, 1), (3, 3), (5, 5), (3, 5), (5, 3), (7, 7), (2, 4), (1, 3), (3, 1))))
    stride = draw(st.sampled_from(((1, 1), (1, 1), (2, 2), (3, 3), (1, 2), (2, 1), (4, 1))))
    dilation = draw(st.sampled_from(((1, 1), (1, 1), (2, 2), (1, 3), (2, 1))))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    most = [max(r, r - n) + 1 for r, n in zip(reach, shape[1:3], strict=True)]
    drawn = [draw(st.integers(0, most[i // 2])) for i in range(4)]
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
        groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, shape[3]) if shape[3] % g == 0]))
        out = groups * draw(st.integers(1, 9))
        size, axis = (out, *kernel, shape[3] // groups), 0
        attrs = ir.Conv2d(stride, dilation, pads, clamp, old)
    s.per_channel = not old
    weight, bias, scales = weights(s, x, size, axis)
    if old:
        quant = replace(weight.quant, zero_point=np.array([draw(ZERO_POINTS)], np.int32))
        s.tensors[weight.name] = weight = replace(weight, quant=quant)
    y = s.node("depthwise_conv2d" if depthwise else "conv2d", (x, weight, *bias), (1, *plane, out), s.quant(*scales), attrs)
    return Graph(s.tensors, tuple(s.nodes), (x.name,), (y.name,)), s.int8(shape)
