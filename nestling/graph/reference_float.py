"""What the float ops answer, in NumPy: plain float32. Kernels have the form described in reference_integer.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from nestling.graph import ir
from nestling.graph.gelu import gelu as curve
from nestling.graph.ir import Array, Clamp, Tensor
from nestling.graph.reference_integer import Kernel
from nestling.graph.windows import deepened, in_bands, inside, padded, windows

Float = NDArray[np.float32]

CLAMPS: Mapping[Clamp, Callable[[Float], Float]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "relu6": lambda x: np.clip(x, np.float32(0), np.float32(6)),
}


def conv2d(attrs: ir.Conv2d, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """x [N, H, W, I], weight [O, KH, KW, I / groups]."""
    x, weight = arrays[:2]
    out_channels, height, width, depth = weight.shape
    patches = windows(padded(x, attrs.padding, 0), (height, width), attrs.stride, attrs.dilation)
    groups = x.shape[3] // depth
    rows = weight.reshape(groups, out_channels // groups, -1)
    parts: list[Float] = [
        in_bands(patches[..., g * depth : (g + 1) * depth], lambda band, own=rows[g].T: band.reshape(*band.shape[:3], -1) @ own)  # type: ignore[misc]  # bound now
        for g in range(groups)
    ]
    return _finish(parts[0] if groups == 1 else np.concatenate(parts, axis=3), arrays, attrs.clamp)


def depthwise_conv2d(attrs: ir.DepthwiseConv2d, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """x [N, H, W, I], weight [1, KH, KW, O]; output channel o reads input channel o // (O / I)."""
    x, weight = arrays[0], arrays[1][0]
    height, width, channels = weight.shape
    spread = np.repeat(padded(x, attrs.padding, 0), channels // x.shape[3], axis=3)
    patches = windows(spread, (height, width), attrs.stride, attrs.dilation)
    total = np.zeros((*patches.shape[:3], channels), np.float32)
    for row, column in np.ndindex(height, width):
        total += patches[:, :, :, row, column] * weight[row, column]
    return _finish(total, arrays, attrs.clamp)


def fully_connected(attrs: ir.FullyConnected, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """x [N, I], weight [O, I]."""
    return _finish(arrays[0] @ arrays[1].T, arrays, attrs.clamp)


def add(attrs: ir.Add, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """a + b."""
    return CLAMPS[attrs.clamp](arrays[0] + arrays[1])


def mul(attrs: ir.Mul, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """a * b."""
    return CLAMPS[attrs.clamp](arrays[0] * arrays[1])


def average_pool(attrs: ir.AveragePool, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """Means over the places inside the image."""
    total = windows(padded(arrays[0], attrs.padding, 0), attrs.size, attrs.stride).sum(axis=(3, 4), dtype=np.float32)
    count = inside(arrays[0].shape, attrs.size, attrs.stride, attrs.padding).astype(np.float32)
    return CLAMPS[attrs.clamp](total / count)


def max_pool(attrs: ir.MaxPool, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """The largest of each window."""
    largest: Float = windows(padded(arrays[0], attrs.padding, -np.inf), attrs.size, attrs.stride).max(axis=(3, 4))
    return CLAMPS[attrs.clamp](largest)


def mean(attrs: ir.Mean, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """The mean over axes."""
    return np.asarray(arrays[0].mean(axis=attrs.axes, keepdims=attrs.keep_dims, dtype=np.float32))


def pad(attrs: ir.Pad, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Zeros around height and width."""
    return padded(arrays[0], attrs.padding, 0)


def pad_channels(attrs: ir.PadChannels, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Array:
    """Channels of zeros."""
    return deepened(arrays[0], attrs.before, attrs.after, 0)


def concat(attrs: ir.Concat, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """Side by side along axis."""
    return np.concatenate(arrays, axis=attrs.axis)


def softmax(attrs: ir.Softmax, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """Over the last axis."""
    x = arrays[0] * np.float32(attrs.beta)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def hard_swish(attrs: ir.HardSwish, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """x * relu6(x + 3) / 6."""
    x = arrays[0]
    return x * CLAMPS["relu6"](x + np.float32(3)) / np.float32(6)


def leaky_relu(attrs: ir.LeakyRelu, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """x, or alpha * x where that is negative."""
    x = arrays[0]
    return np.where(x > 0, x, x * np.float32(attrs.alpha))


def logistic(attrs: ir.Logistic, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-arrays[0]))


def gelu(attrs: ir.Gelu, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """x * P(X <= x)."""
    return curve(arrays[0], attrs.approximate)


def batch_norm(attrs: ir.BatchNorm, arrays: tuple[Float, ...], inputs: tuple[Tensor, ...], output: Tensor) -> Float:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, along the last axis."""
    x, gamma, beta, centre, variance = arrays
    factor = gamma / np.sqrt(variance + np.float32(attrs.epsilon))
    return np.asarray((x - centre) * factor + beta)


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
    "batch_norm": batch_norm,
}


def _finish(total: Float, arrays: tuple[Float, ...], clamp: Clamp) -> Float:
    return CLAMPS[clamp](total + arrays[2] if len(arrays) > 2 else total)
