"""What the integer ops answer: TFLite's reference kernels, in NumPy. What every other implementation is held to.

A kernel is a function (attrs, arrays, inputs, output) -> array: the node's attributes, the input values, the input tensors (for
their quants) and the output tensor. Activations may hold N images, [N, ...]; each is computed on its own.
Formulas and their sources: docs/integer-semantics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.graph import ir
from nestling.graph.fixed_point import (
    Int,
    clamp_range,
    divide_by_power,
    exp_of_negative,
    high_mul,
    multiply,
    quantize_multiplier,
    reciprocal,
    round_half_away,
    wrap,
)
from nestling.graph.gelu import gelu as curve
from nestling.graph.ir import Array, Clamp, Quant, Tensor
from nestling.graph.windows import deepened, in_bands, inside, padded, windows

Kernel = Callable[[Any, tuple[Any, ...], tuple[Tensor, ...], Tensor], Array]

_ADD_SHIFT = 20  # bits of head room that int8 sums are computed with
_BLOCK = 2**14  # elements that are rescaled at a time


def accumulate(x: NDArray[Any], weight: NDArray[np.float32], bound: float) -> Array:
    """x [..., K] @ weight [O, K].T, whole numbers as floats.

    bound: the largest sum of absolute products, which says what float is exact.
    """
    if bound < 2**24:
        return np.asarray(x.astype(np.float32, copy=False) @ weight.T)
    return np.asarray(x.astype(np.float64) @ weight.astype(np.float64).T)


def output_multiplier(x: Tensor, weight: Tensor, output: Tensor, narrow: bool) -> tuple[Int, Int]:
    """What turns the accumulator of conv2d and depthwise_conv2d into the output's integers.

    narrow: the product of the two scales is rounded to float32 first, as TFLite does for uint8 convolutions.
    """
    a, w, out = _quant(x).scale, _quant(weight).scale, _quant(output).scale.astype(np.float64)
    product = (a * w).astype(np.float64) if narrow else a.astype(np.float64) * w.astype(np.float64)
    return quantize_multiplier(product / out)


def conv2d(attrs: ir.Conv2d, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """x [N, H, W, I], weight [O, KH, KW, I / groups]."""
    x, w = _centred(arrays[0], inputs[0]), _centred(arrays[1], inputs[1])
    out_channels, *size, depth = w.shape
    patches = windows(padded(x, attrs.padding, 0), (size[0], size[1]), attrs.stride, attrs.dilation)
    groups = x.shape[3] // depth
    rows = w.reshape(groups, out_channels // groups, -1)
    bound = _bound(inputs[0], rows)
    parts = [
        in_bands(
            patches[..., g * depth : (g + 1) * depth],
            lambda band, own=rows[g]: accumulate(band.reshape(*band.shape[:3], -1), own, bound),  # type: ignore[misc]  # bound now
        )
        for g in range(groups)
    ]
    acc = parts[0] if groups == 1 else np.concatenate(parts, axis=3)
    return _finish(acc, arrays, output_multiplier(inputs[0], inputs[1], output, attrs.unsigned), attrs.clamp, output)


def depthwise_conv2d(attrs: ir.DepthwiseConv2d, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """x [N, H, W, I], weight [1, KH, KW, O]; output channel o reads input channel o // (O / I)."""
    x, w = _centred(arrays[0], inputs[0]).astype(np.int32), _centred(arrays[1], inputs[1])[0].astype(np.int32)
    height, width, channels = w.shape
    spread = np.repeat(padded(x, attrs.padding, 0), channels // x.shape[3], axis=3)
    patches = windows(spread, (height, width), attrs.stride, attrs.dilation)
    acc = np.zeros((*patches.shape[:3], channels), np.int32)  # wraps as the kernel's accumulator does
    for row, column in np.ndindex(height, width):
        acc += patches[:, :, :, row, column] * w[row, column]
    return _finish(acc, arrays, output_multiplier(inputs[0], inputs[1], output, attrs.unsigned), attrs.clamp, output)


def fully_connected(attrs: ir.FullyConnected, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """x [N, I], weight [O, I]. Unlike the convolutions it is rescaled in float64, halves away from zero, and rounded once."""
    x, w = _centred(arrays[0], inputs[0]), _centred(arrays[1], inputs[1])
    acc = accumulate(x, w, _bound(inputs[0], w))
    bias = arrays[2].astype(np.int64) if len(arrays) > 2 else np.int64(0)
    scale_x, scale_w, scale_y = (_quant(tensor).scale.astype(np.float64) for tensor in (*inputs[:2], output))
    steps = round_half_away(wrap(acc.astype(np.int64) + bias) * (scale_x * scale_w / scale_y))
    return _stored(steps + int(_quant(output).zero_point[0]), attrs.clamp, output)


def add(attrs: ir.Add, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Both inputs on the scale 2 * max / 2**20, summed, then rescaled."""
    scales = [float(_quant(tensor).scale[0]) for tensor in inputs]
    twice = 2 * max(scales)
    terms = [
        multiply(_centred_int(array, tensor) << _ADD_SHIFT, *quantize_multiplier(np.array([scale / twice])))
        for array, tensor, scale in zip(arrays, inputs, scales, strict=True)
    ]
    real = np.array([twice / (2**_ADD_SHIFT * float(_quant(output).scale[0]))])
    return _clamped(multiply(terms[0] + terms[1], *quantize_multiplier(real)), attrs.clamp, output)


def mul(attrs: ir.Mul, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """The product of both, rescaled; the scales' quotient is taken in float32."""
    a, b = (_centred_int(array, tensor) for array, tensor in zip(arrays, inputs, strict=True))
    real = (_quant(inputs[0]).scale * _quant(inputs[1]).scale / _quant(output).scale).astype(np.float64)
    return _clamped(multiply(a * b, *quantize_multiplier(real)), attrs.clamp, output)


def average_pool(attrs: ir.AveragePool, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Sums of stored integers over the places inside the image: halves away from zero; in an old uint8 network upwards."""
    x = arrays[0].astype(np.int64)
    total = windows(padded(x, attrs.padding, 0), attrs.size, attrs.stride).sum(axis=(3, 4))
    count = inside(x.shape, attrs.size, attrs.stride, attrs.padding)
    half = count // 2
    answer = (total + half) // count if attrs.unsigned else np.sign(total) * ((np.abs(total) + half) // count)
    return _stored(answer, attrs.clamp, output)


def max_pool(attrs: ir.MaxPool, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """The largest stored integer of each window."""
    largest = windows(padded(arrays[0], attrs.padding, -128), attrs.size, attrs.stride).max(axis=(3, 4))
    return _stored(largest, attrs.clamp, output)


def mean(attrs: ir.Mean, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """One multiplier does both the rescaling and the division by the number of elements n."""
    source, target = _quant(inputs[0]), _quant(output)
    total = arrays[0].astype(np.int64).sum(axis=attrs.axes, keepdims=attrs.keep_dims)
    n = int(np.prod([arrays[0].shape[axis] for axis in attrs.axes]))
    multiplier, shift = mean_multiplier(source, target, n)
    centred = wrap(total - int(source.zero_point[0]) * n)
    return _clamped(multiply(centred, multiplier, shift), "none", output)


def mean_multiplier(source: Quant, target: Quant, n: int) -> tuple[Int, Int]:
    """The scales' quotient over n: the multiplier is divided by n after a shift that keeps its bits."""
    multiplier, shift = quantize_multiplier(source.scale.astype(np.float64) / target.scale.astype(np.float64))
    up = min(n.bit_length() - 1, 32, 31 + int(shift[0]))
    return (multiplier << up) // n, shift - up


def pad(attrs: ir.Pad, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """The output's zero point around height and width."""
    return padded(arrays[0], attrs.padding, int(_quant(output).zero_point[0]))


def pad_channels(attrs: ir.PadChannels, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """The output's zero point in channels before and after."""
    return deepened(arrays[0], attrs.before, attrs.after, int(_quant(output).zero_point[0]))


def concat(attrs: ir.Concat, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Side by side. An input of another scale (old uint8 networks only) is requantised in float32, on its unsigned values."""
    target = _quant(output)
    parts = [
        array if _equal(_quant(tensor), target) else _requantise_unsigned(array, _quant(tensor), target)
        for array, tensor in zip(arrays, inputs, strict=True)
    ]
    return np.concatenate(parts, axis=attrs.axis)


def _requantise_unsigned(x: Array, source: Quant, target: Quant) -> Array:
    scale = source.scale[0] * (np.float32(1) / target.scale[0])
    offset = np.float32(-(int(source.zero_point[0]) + 128)) * scale
    unsigned = x.astype(np.int32) + 128
    value = round_half_away(unsigned.astype(np.float32) * scale + offset) + int(target.zero_point[0])
    return np.clip(value, -128, 127).astype(np.int8)


def softmax(attrs: ir.Softmax, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Over the last axis, all in fixed point: 5 integer bits for differences, 12 for their sum; the output is 1 / 256 a step."""
    scale = float(np.float32(attrs.beta)) * float(_quant(inputs[0]).scale[0])
    multiplier, shift = quantize_multiplier(np.array([min(scale * 2.0**26, 2.0**31 - 1)]))
    smallest = -((31 << 26) >> int(shift[0]))
    x = arrays[0].astype(np.int64)
    difference = x - x.max(axis=-1, keepdims=True)
    counted = difference >= smallest
    scaled = high_mul(wrap(np.where(counted, difference, 0) << shift), multiplier)
    exponentials = np.where(counted, exp_of_negative(scaled), 0)
    total = np.sum(np.where(counted, divide_by_power(exponentials, 12), 0), axis=-1, keepdims=True)
    total = np.minimum(total, 2**31 - 1)  # TFLite gives up at sums of 512; here the formula simply goes on
    factor, bits = reciprocal(total, 12)
    value = divide_by_power(high_mul(exponentials, factor), bits + 23)
    return np.asarray(np.where(counted, np.clip(value - 128, -128, 127), -128)).astype(np.int8)


def hard_swish(attrs: ir.HardSwish, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """x * relu6(x + 3) / 6 in 16 bits."""
    source, target = _quant(inputs[0]), _quant(output)
    out_multiplier, out_shift = _narrow_multiplier(hard_swish_multiplier(source, target))
    relu_multiplier, relu_shift = _narrow_multiplier((np.float32(1 / 128) * source.scale) / (np.float32(3) / np.float32(32768)))
    x = _wrap16(_centred_int(arrays[0], inputs[0]) << 7)
    value = _high_mul16(x, out_multiplier)
    gate = x
    if relu_shift > 0:
        gate = _saturate16(_high_mul16(_saturate16(gate << (relu_shift - 1)), relu_multiplier) << 1)
    else:
        gate = divide_by_power(_high_mul16(gate, relu_multiplier), -relu_shift)
    gate = (gate + 2**15) >> 1
    product = gate * value
    product = np.sign(product) * (np.abs(product) >> 15)  # towards zero, to cancel the roundings above
    result = _wrap16(divide_by_power(product, -out_shift) + int(target.zero_point[0]))
    return np.clip(result, -128, 127).astype(np.int8)


def hard_swish_multiplier(source: Quant, target: Quant) -> NDArray[np.float32]:
    """Input over output scale, on the 128 times finer grid of hard_swish; must be below 1."""
    return (np.float32(1 / 128) * source.scale) / target.scale


def _narrow_multiplier(real: NDArray[np.float32]) -> tuple[int, int]:
    multiplier, shift = quantize_multiplier(real.astype(np.float64))
    narrow = 32767 if multiplier[0] >= 2**31 - 1 - 2**15 else (int(multiplier[0]) + 2**15) >> 16
    return narrow, int(shift[0])


def _high_mul16(a: Int, b: int) -> Int:
    return _saturate16((a * b + 2**14) >> 15)


def _saturate16(x: Int) -> Int:
    return np.asarray(np.clip(x, -(2**15), 2**15 - 1))


def _wrap16(x: Int) -> Int:
    return x.astype(np.int16).astype(np.int64)


def leaky_relu(attrs: ir.LeakyRelu, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Rescaled, what is negative by a multiplier of its own; both factors are taken in float32."""
    source, target = _quant(inputs[0]).scale, _quant(output).scale
    x = _centred_int(arrays[0], inputs[0])
    factors = source / target, source * np.float32(attrs.alpha) / target
    above, below = (multiply(x, *quantize_multiplier(factor.astype(np.float64))) for factor in factors)
    return _clamped(np.where(x >= 0, above, below), "none", output)


def logistic(attrs: ir.Logistic, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """A table of 256 values, computed in float32."""
    return logistic_table(_quant(inputs[0]), _quant(output))[arrays[0].astype(np.int64) + 128]


def logistic_table(source: Quant, target: Quant) -> NDArray[np.int8]:
    """int8 [256]: the answers to -128 .. 127."""
    real = source.scale[0] * (np.arange(-128, 128) - int(source.zero_point[0])).astype(np.float32)
    with np.errstate(over="ignore"):
        answer = np.float32(1) / (np.float32(1) + np.exp(-real.astype(np.float64)).astype(np.float32))
    steps = round_half_away(answer * (np.float32(1) / target.scale[0])) + int(target.zero_point[0])
    return np.clip(steps, -128, 127).astype(np.int8)


def gelu(attrs: ir.Gelu, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """A table of 256 values, computed in float32."""
    return gelu_table(attrs, _quant(inputs[0]), _quant(output))[arrays[0].astype(np.int64) + 128]


def gelu_table(attrs: ir.Gelu, source: Quant, target: Quant) -> NDArray[np.int8]:
    """int8 [256]: the answers to -128 .. 127."""
    real = source.scale[0] * (np.arange(-128, 128) - int(source.zero_point[0])).astype(np.float32)
    answer = curve(real, attrs.approximate)
    steps = round_half_away(answer * (np.float32(1) / target.scale[0])) + int(target.zero_point[0])
    return np.clip(steps, -128, 127).astype(np.int8)


def quantize(attrs: ir.Quantize, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """From float32: the nearest step, halves away from zero. From int8: rescaled."""
    target = _quant(output)
    if inputs[0].dtype == "float32":
        steps = round_half_away(arrays[0].astype(np.float32) / target.scale[0]) + int(target.zero_point[0])
        return np.clip(steps, -128, 127).astype(np.int8)
    real = _quant(inputs[0]).scale.astype(np.float64) / target.scale.astype(np.float64)
    return _clamped(multiply(_centred_int(arrays[0], inputs[0]), *quantize_multiplier(real)), "none", output)


def dequantize(attrs: ir.Dequantize, arrays: tuple[Array, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """scale * (q - zero_point), rounded once to float32."""
    return (float(_quant(inputs[0]).scale[0]) * _centred_int(arrays[0], inputs[0])).astype(np.float32)


KERNELS: Mapping[str, Kernel] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "fully_connected": fully_connected,
    "add": add,
    "mul": mul,
    "average_pool": average_pool,
    "max_pool": max_pool,
    "mean": mean,
    "pad": pad,
    "pad_channels": pad_channels,
    "concat": concat,
    "softmax": softmax,
    "hard_swish": hard_swish,
    "leaky_relu": leaky_relu,
    "logistic": logistic,
    "gelu": gelu,
    "quantize": quantize,
    "dequantize": dequantize,
}


# ---- shared -----------------------------------------------------------------------------------------------------------------


def _quant(tensor: Tensor) -> Quant:
    if tensor.quant is None:
        raise ValueError(f"tensor {tensor.name!r} has no quant; the graph was not checked")
    return tensor.quant


def _equal(a: Quant, b: Quant) -> bool:
    return bool(a.scale[0] == b.scale[0] and a.zero_point[0] == b.zero_point[0])


def _centred_int(x: Array, tensor: Tensor) -> Int:
    return x.astype(np.int64) - int(_quant(tensor).zero_point[0])


def _centred(x: Array, tensor: Tensor) -> NDArray[np.float32]:
    """x minus its zero point, as small whole numbers in float32. Per-channel weights have none."""
    return x.astype(np.float32) - np.float32(_quant(tensor).zero_point[0])


def _bound(x: Tensor, rows: NDArray[np.float32]) -> float:
    """The largest sum of absolute products that rows [..., K] can give with x."""
    zero = int(_quant(x).zero_point[0])
    return float(np.abs(rows).sum(axis=-1, dtype=np.float64).max()) * max(127 - zero, zero + 128)


def _finish(acc: Array, arrays: tuple[Array, ...], multiplier: tuple[Int, Int], clamp: Clamp, output: Tensor) -> Array:
    """Bias, rescaling, zero point and clamp of an accumulator [..., O], whole numbers in any dtype; in blocks that fit a cache."""
    channels = acc.shape[-1]
    rows = acc.reshape(-1, channels)
    bias = arrays[2].astype(np.int64) if len(arrays) > 2 else np.zeros(channels, np.int64)
    answer = np.empty(rows.shape, np.int8)
    step = max(1, _BLOCK // channels)
    for start in range(0, len(rows), step):
        total = rows[start : start + step].astype(np.int64) + bias
        answer[start : start + step] = _clamped(multiply(wrap(total), *multiplier), clamp, output)
    return answer.reshape(acc.shape)


def _clamped(scaled: Int, clamp: Clamp, output: Tensor) -> Array:
    return _stored(wrap(scaled + int(_quant(output).zero_point[0])), clamp, output)


def _stored(values: Array, clamp: Clamp, output: Tensor) -> Array:
    low, high = clamp_range(clamp, _quant(output))
    return np.asarray(np.clip(values, low, high)).astype(np.int8)
