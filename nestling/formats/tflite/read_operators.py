"""One reader an operator of TFLite: what it becomes in the Graph. The table READERS stands at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from nestling.errors import UnusableFile
from nestling.formats.tflite.read_builder import FileBuilder, Lookup, Padded
from nestling.formats.tflite.read_constants import dequantized
from nestling.formats.tflite.read_layouts import transpose
from nestling.formats.tflite.read_normalization import cast, dequantize, gather, grown, quantize
from nestling.graph import ir
from nestling.graph.fixed_point import multiply, quantize_multiplier
from nestling.graph.ir import Array, Clamp, Quant, Sides, Tensor

SAME = 0
TINY = np.finfo(np.float32).tiny
LOWEST = {"float32": float(np.finfo(np.float32).min), "int8": -128}


# ---- convolutions and pools -----------------------------------------------------------------------------------------------------


def _conv2d(b: FileBuilder) -> None:
    x, padding = _taken_padding(b)
    weight = _weight(b)
    stride, dilation = _pair(b, "Stride"), _dilation(b)
    sides = _sides(b, x, b.tensors[weight].shape[1:3], stride, dilation, padding)
    b.node("conv2d", ir.Conv2d(stride, dilation, sides, b.clamp(), b.unsigned()), (x, weight, *_bias(b, x, weight)))


def _depthwise_conv2d(b: FileBuilder) -> None:
    x, padding = _taken_padding(b)
    weight = _weight(b)
    stride, dilation = _pair(b, "Stride"), _dilation(b)
    sides = _sides(b, x, b.tensors[weight].shape[1:3], stride, dilation, padding)
    attrs = ir.DepthwiseConv2d(stride, dilation, sides, b.clamp(), b.unsigned())
    b.node("depthwise_conv2d", attrs, (x, weight, *_bias(b, x, weight)))


def _average_pool(b: FileBuilder) -> None:
    x, size, stride = b.read_tensor(0), _filter(b), _pair(b, "Stride")
    sides = _sides(b, x, size, stride, (1, 1), (0, 0, 0, 0))
    b.node("average_pool", ir.AveragePool(size, stride, sides, b.clamp(), b.unsigned()), (x,))


def _max_pool(b: FileBuilder) -> None:
    x, padding = _taken_padding(b, lowest=True)
    size, stride = _filter(b), _pair(b, "Stride")
    b.node("max_pool", ir.MaxPool(size, stride, _sides(b, x, size, stride, (1, 1), padding), b.clamp()), (x,))


def _sides(b: FileBuilder, x: str, kernel: tuple[int, ...], stride: ir.Pair, dilation: ir.Pair, taken: Sides) -> Sides:
    """Explicit padding: of SAME, the odd one at the bottom and right (padding.h), or of the PAD before a VALID operator."""
    shape = b.tensors[x].shape
    if len(shape) != 4 or len(kernel) != 2:
        raise UnusableFile(f"{b.where}: operator {b.op.name} reads {list(shape)}, not an image")
    if b.op.options["Padding"] != SAME:
        return taken
    if any(taken):
        b.refuse("SAME padding after a PAD of its own")
    sides: list[int] = []
    for length, k, step, spread in zip(shape[1:3], kernel, stride, dilation, strict=True):
        total = max((-(-length // step) - 1) * step + (k - 1) * spread + 1 - length, 0)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


def _taken_padding(b: FileBuilder, lowest: bool = False) -> tuple[str, Sides]:
    """What a window reads, without the PAD whose padding becomes its own."""
    value = b.value(0)
    valid = b.op.options["Padding"] != SAME
    if isinstance(value, Padded) and valid and value.lowest == lowest:
        return value.tensor, value.padding
    return b.read_tensor(0), (0, 0, 0, 0)


def _pair(b: FileBuilder, name: str) -> ir.Pair:
    pair = int(b.op.options[f"{name}H"]), int(b.op.options[f"{name}W"])
    if min(pair) < 1:
        raise UnusableFile(f"{b.where}: operator {b.op.name} has {name.lower()} {pair}")
    return pair


def _dilation(b: FileBuilder) -> ir.Pair:
    return max(int(b.op.options["DilationHFactor"]), 1), max(int(b.op.options["DilationWFactor"]), 1)


def _filter(b: FileBuilder) -> ir.Pair:
    size = int(b.op.options["FilterHeight"]), int(b.op.options["FilterWidth"])
    if min(size) < 1:
        raise UnusableFile(f"{b.where}: operator {b.op.name} has the size {size}")
    return size


# ---- weights --------------------------------------------------------------------------------------------------------------------


def _weight(b: FileBuilder) -> str:
    """The weight; 8-bit weights of a float layer (dynamic range) become the float numbers they stand for."""
    value, index = b.value(1), b.op.inputs[1]
    if not isinstance(value, np.ndarray):
        b.refuse("its weight is not a constant")
    x = b.value(0)
    source = b.tensors[x.tensor if isinstance(x, Padded) else b.read_tensor(0)]
    if source.dtype == "float32" and value.dtype in (np.int8, np.uint8):
        return b.own(1, dequantized(value, b.model.tensors[index].quant), None)
    if _dead(b).any():
        return b.own(1, *_with_zeros(b.tensors[b.read_tensor(1)], _dead(b)))
    return b.read_tensor(1)


def _dead(b: FileBuilder) -> NDArray[np.bool_]:
    """The channels whose weights have a scale of 0, or of nothing that float32 holds in full: [1] or [channels]."""
    quant = b.quants[b.op.inputs[1]]
    return np.zeros(1, bool) if quant is None else quant.scale < TINY


def _with_zeros(weight: Tensor, dead: NDArray[np.bool_]) -> tuple[Array, Quant]:
    """Weights that are 0 in dead channels, with a scale that says nothing: LiteRT multiplies their sums and biases by 0."""
    assert weight.data is not None and weight.quant is not None
    along = [-1 if axis == weight.quant.axis else 1 for axis in range(weight.data.ndim)]
    zeros = weight.quant.zero_point.astype(weight.data.dtype).reshape(along)
    scale = np.where(dead, weight.quant.scale[~dead].min(initial=1), weight.quant.scale).astype(np.float32)
    return np.where(dead.reshape(along), zeros, weight.data), replace(weight.quant, scale=scale)


def _bias(b: FileBuilder, x: str, weight: str) -> tuple[str, ...]:
    """The bias where there is one. Where its scale is missing it is what it must be: the input's times the weight's."""
    if not b.has(2):
        return ()
    value, index = b.value(2), b.op.inputs[2]
    if not isinstance(value, np.ndarray):
        b.refuse("its bias is not a constant")
    if b.names[index] == f"{b.names[b.op.outputs[0]]}:bias" and not value.any():
        return ()  # our printer's
    source, of_weight = b.tensors[x].quant, b.tensors[weight].quant
    if source and of_weight and value.dtype == np.int32:
        scale = (source.scale * of_weight.scale).astype(np.float32)
        needed = Quant(scale, np.zeros(len(scale), np.int32), None if len(scale) == 1 else 0)
        if _dead(b).any():
            return (b.own(2, np.where(_dead(b), np.int32(0), value), needed),)
        if b.quants[index] is None and index not in b.entered:
            b.quants[index] = needed
    return (b.read_tensor(2),)


def _fully_connected(b: FileBuilder) -> None:
    if b.op.options["WeightsFormat"]:
        b.refuse("its weights are shuffled")
    weight = _weight(b)
    source = b.read_tensor(0)
    x = b.flattened(source)
    shape = b.tensors[source].shape
    bias = _bias(b, x, weight)
    attrs = ir.FullyConnected(b.clamp())
    if not b.op.options["KeepNumDims"] or len(shape) == 2:
        b.node("fully_connected", attrs, (x, weight, *bias))
        return
    out = b.names[b.op.outputs[0]]
    quant, dtype = b.quants[b.op.outputs[0]], b.tensors[x].dtype
    flat = b.emit("fully_connected", attrs, (x, weight, *bias), b.fresh(f"{out}:rows"), dtype, quant)
    b.node("reshape", ir.Reshape(), (flat,), (*shape[:-1], b.tensors[weight].shape[0]))


# ---- arithmetic -----------------------------------------------------------------------------------------------------------------


def _add(b: FileBuilder) -> None:
    if not grown(b, np.add):
        b.node("add", ir.Add(b.clamp()), (b.read_tensor(0), b.read_tensor(1)))


def _mul(b: FileBuilder) -> None:
    if not grown(b, np.multiply):
        b.node("mul", ir.Mul(b.clamp()), (b.read_tensor(0), b.read_tensor(1)))


def _div(b: FileBuilder) -> None:
    """By a constant, of floats: the product with its inverse (in an image's normalisation the quotient itself)."""
    if grown(b, np.divide):
        return
    a, value = b.read_tensor(0), b.value(1)
    if not isinstance(value, np.ndarray) or b.tensors[a].dtype != "float32" or not value.all():
        b.refuse("a division is read of floats by a constant that is not zero")
    inverse = 1 / np.asarray(b.tensors[b.read_tensor(1)].data, np.float32)
    b.node("mul", ir.Mul(b.clamp()), (a, b.constant(f"{b.names[b.op.outputs[0]]}:inverse", inverse)))


def _sub(b: FileBuilder) -> None:
    """a - b is a + (-b): of a constant; of a float activation times -1."""
    if grown(b, np.subtract):
        return
    clamp, out = b.clamp(), b.names[b.op.outputs[0]]
    a, value = b.read_tensor(0), b.value(1)
    if isinstance(value, np.ndarray):
        data, quant = _negated(b, b.tensors[b.read_tensor(1)], b.tensors[a])
        b.node("add", ir.Add(clamp), (a, b.constant(f"{out}:negative", data, quant)))
        return
    other = b.tensors[b.read_tensor(1)]
    if other.dtype != "float32":
        b.refuse("an integer subtraction is read of a constant only")
    minus_one = b.constant(f"{out}:minus_one", np.full((1,) * len(other.shape), -1, np.float32))
    turned = b.emit("mul", ir.Mul(), (other.name, minus_one), b.fresh(f"{out}:negative"), "float32", None)
    b.node("add", ir.Add(clamp), (a, turned))


def _negated(b: FileBuilder, constant: Tensor, other: Tensor) -> tuple[Array, Quant | None]:
    """The constant times -1. Refused where the integers would not be exactly the opposite."""
    data, quant = constant.data, constant.quant
    assert data is not None
    if quant is None or other.quant is None:
        return -data.astype(np.float32), None
    zero, largest = int(quant.zero_point[0]), max(float(quant.scale[0]), float(other.quant.scale[0]))
    centred = data.astype(np.int64) - zero
    rescale = quantize_multiplier(np.array([float(quant.scale[0]) / (2 * largest)]))
    exact = np.array_equal(multiply(-centred << 20, *rescale), -multiply(centred << 20, *rescale))
    if not exact:
        b.refuse("the constant has no exact opposite")
    return (-1 - data.astype(np.int64)).astype(np.int8), replace(quant, zero_point=np.array([-1 - zero], np.int32))


def _relu(b: FileBuilder) -> None:
    _standing_clamp(b, "relu")


def _relu6(b: FileBuilder) -> None:
    _standing_clamp(b, "relu6")


_Clamped = ir.Conv2d | ir.DepthwiseConv2d | ir.FullyConnected | ir.Add | ir.Mul | ir.AveragePool | ir.MaxPool


def _standing_clamp(b: FileBuilder, clamp: Clamp) -> None:
    """Into the producer where only we read it and the scales are equal; else a product with one, which rounds as RELU does."""
    name, out = b.read_tensor(0), b.op.outputs[0]
    x, quant = b.tensors[name], b.quants[out]
    producer = b.nodes[-1] if b.nodes and b.nodes[-1].name == name else None
    equal = (x.quant is None) == (quant is None) and (
        x.quant is None or quant is None or (x.quant.scale[0], x.quant.zero_point[0]) == (quant.scale[0], quant.zero_point[0])
    )
    alone = b.readers[b.op.inputs[0]] == 1 and b.values.get(b.op.inputs[0]) == name
    if producer and isinstance(producer.attrs, _Clamped) and producer.attrs.clamp == "none" and equal and alone:
        del b.tensors[name]
        b.nodes.pop()
        b.node(producer.op, replace(producer.attrs, clamp=clamp), producer.inputs)
        return
    shape = (1,) * len(x.shape)
    if quant is None:
        one = b.constant(f"{b.names[out]}:one", np.ones(shape, np.float32))
    else:
        one = b.constant(f"{b.names[out]}:one", np.ones(shape, np.int8), Quant(np.ones(1, np.float32), np.zeros(1, np.int32)))
    b.node("mul", ir.Mul(clamp), (name, one))


def _softmax(b: FileBuilder) -> None:
    b.node("softmax", ir.Softmax(float(b.op.options["Beta"])), (b.read_tensor(0),))


def _hard_swish(b: FileBuilder) -> None:
    b.node("hard_swish", ir.HardSwish(), (b.read_tensor(0),))


def _leaky_relu(b: FileBuilder) -> None:
    b.node("leaky_relu", ir.LeakyRelu(float(b.op.options["Alpha"])), (b.read_tensor(0),))


def _logistic(b: FileBuilder) -> None:
    b.node("logistic", ir.Logistic(), (b.read_tensor(0),))


def _gelu(b: FileBuilder) -> None:
    b.node("gelu", ir.Gelu(bool(b.op.options["Approximate"])), (b.read_tensor(0),))


# ---- shapes ---------------------------------------------------------------------------------------------------------------------


def _mean(b: FileBuilder) -> None:
    x = b.read_tensor(0)
    rank = len(b.tensors[x].shape)
    axes = tuple(sorted({axis + rank if axis < 0 else axis for axis in b.integers(1)}))
    b.node("mean", ir.Mean(axes, bool(b.op.options["KeepDims"])), (x,))


def _pad(b: FileBuilder) -> None:
    """Of PAD zeros, of PADV2 a constant. What is called `<reader>:padded` goes into its reader."""
    x, amounts = b.tensors[b.read_tensor(0)], b.integers(1)
    if len(x.shape) != 4 or len(amounts) != 8 or any(amounts[:2]) or min(amounts) < 0 or max(amounts) >= 2**15:
        b.refuse(f"padding by {list(amounts)}; height, width and channels of an image are padded")
    sides, channels = (amounts[2], amounts[3], amounts[4], amounts[5]), ir.PadChannels(*amounts[6:])
    out = b.op.outputs[0]
    value = b.value(2) if b.has(2) else None
    fill = _fill(b, value) if value is not None else "zero"
    ours = b.names[out].endswith(":padded")
    if any(amounts[6:]):
        if fill == "lowest":
            b.refuse("padding channels with the lowest value")
        if any(sides):
            around = b.fresh(f"{b.names[out]}:around")
            x = b.tensors[b.emit("pad", ir.Pad(sides), (x.name,), around, x.dtype, x.quant)]
        b.node("pad_channels", channels, (x.name,))
    elif fill == "lowest" or ours:
        # where zero is the lowest value, the operator says which of the two is meant
        b.values[out] = Padded(x.name, sides, fill == "lowest" or b.op.name == "PADV2")
    else:
        b.node("pad", ir.Pad(sides), (x.name,))


def _fill(b: FileBuilder, value: object) -> str:
    """What PADV2 fills with: zero, or the lowest value there is."""
    if not isinstance(value, np.ndarray) or value.size != 1:
        b.refuse("its padding value is not one constant")
    number, quant = float(value.reshape(-1)[0]), b.quants[b.op.inputs[2]]
    zero = 0.0 if quant is None else float(quant.zero_point[0])
    shift = 128 if b.unsigned(2) else 0
    if number - shift == zero:
        return "zero"
    if number - shift <= LOWEST["int8" if quant else "float32"]:
        return "lowest"
    b.refuse(f"padding with {number}; zero is held")


def _concatenation(b: FileBuilder) -> None:
    if b.clamp() != "none":
        b.refuse("its fused activation is not held")
    inputs = tuple(b.read_tensor(place) for place in range(len(b.op.inputs)))
    axis = int(b.op.options["Axis"])
    b.node("concat", ir.Concat(axis + len(b.tensors[inputs[0]].shape) if axis < 0 else axis), inputs)


def _slice(b: FileBuilder) -> None:
    """A size of -1 is whatever is left."""
    shape, begin, size = b.tensors[b.read_tensor(0)].shape, b.integers(1), b.integers(2)
    if len(begin) != len(shape) or len(size) != len(shape):
        raise UnusableFile(f"{b.where}: operator {b.op.name} begins at {list(begin)} of {list(shape)}")
    end = [side if count == -1 else first + count for side, first, count in zip(shape, begin, size, strict=True)]
    _sliced(b, shape, begin, end)


def _strided_slice(b: FileBuilder) -> None:
    """Every place of a range; begins and ends below 0 count from the end."""
    shape, options = b.tensors[b.read_tensor(0)].shape, b.op.options
    given = [b.integers(place) for place in (1, 2, 3)]
    if any(len(values) != len(shape) for values in given) or set(given[2]) != {1}:
        b.refuse("it takes only some of the places; the Graph takes all of a range")
    if any(options[mask] for mask in ("EllipsisMask", "NewAxisMask", "ShrinkAxisMask")):
        b.refuse("it changes the number of dimensions")
    begin, end = (
        [
            at if int(options[mask]) >> axis & 1 else min(max(place + side if place < 0 else place, 0), side)
            for axis, (place, side, at) in enumerate(zip(values, shape, ends, strict=True))
        ]
        for values, mask, ends in ((given[0], "BeginMask", [0] * len(shape)), (given[1], "EndMask", shape))
    )
    _sliced(b, shape, begin, end)


def _sliced(b: FileBuilder, shape: Sequence[int], begin: Sequence[int], end: Sequence[int]) -> None:
    """Along one axis, or none."""
    cut = [axis for axis, side in enumerate(shape) if (begin[axis], end[axis]) != (0, side)]
    if not cut:
        b.unchanged()
    elif len(cut) > 1:
        b.refuse(f"it cuts along the axes {cut}; the Graph along one at a time")
    elif begin[cut[0]] < 0:
        raise UnusableFile(f"{b.where}: operator {b.op.name} begins at {begin[cut[0]]}")
    else:
        b.node("slice", ir.Slice(cut[0], begin[cut[0]], end[cut[0]]), (b.read_tensor(0),))


def _split(b: FileBuilder) -> None:
    """Into pieces of one size."""
    axis, x = b.integers(0), b.tensors[b.read_tensor(1)]
    count = len(b.op.outputs)
    if len(axis) != 1 or not -len(x.shape) <= axis[0] < len(x.shape) or x.shape[axis[0]] % count:
        raise UnusableFile(f"{b.where}: operator {b.op.name} makes {count} pieces of {list(x.shape)} along {list(axis)}")
    _pieces(b, x, axis[0] % len(x.shape), [x.shape[axis[0]] // count] * count)


def _split_v(b: FileBuilder) -> None:
    """Into pieces of the sizes that stand there; one of -1 is what is left."""
    x, sizes, axis = b.tensors[b.read_tensor(0)], list(b.integers(1)), b.integers(2)
    if len(axis) != 1 or not -len(x.shape) <= axis[0] < len(x.shape) or len(sizes) != len(b.op.outputs):
        raise UnusableFile(f"{b.where}: operator {b.op.name} makes {sizes} of {list(x.shape)} along {list(axis)}")
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.shape[axis[0]] - sum(size for size in sizes if size != -1)
    _pieces(b, x, axis[0] % len(x.shape), sizes)


def _pieces(b: FileBuilder, x: Tensor, axis: int, sizes: Sequence[int]) -> None:
    ends = list(accumulate(sizes, initial=0))
    if min(sizes) < 1 or ends[-1] != x.shape[axis]:
        raise UnusableFile(f"{b.where}: operator {b.op.name} makes {list(sizes)} of {list(x.shape)}")
    for out, begin, end in zip(b.op.outputs, ends, ends[1:], strict=False):
        if b.readers[out]:
            b.write(out, "slice", ir.Slice(axis, begin, end), (x.name,))


def _reshape(b: FileBuilder) -> None:
    """The shape is the second input, else what the file says of the output. A -1 is what is left over."""
    x = b.tensors[b.read_tensor(0)]
    out = b.model.tensors[b.op.outputs[0]]
    wanted = list(b.integers(1)) if b.has(1) and isinstance(b.value(1), np.ndarray) else list(out.shape)
    if wanted.count(-1) == 1:
        rest = math.prod(side for side in wanted if side != -1)
        wanted[wanted.index(-1)] = math.prod(x.shape) // max(rest, 1)
    if min(wanted, default=1) < 1 or math.prod(wanted) != math.prod(x.shape):
        raise UnusableFile(f"{b.where}: operator {b.op.name} makes {wanted} of {list(x.shape)}")
    b.node("reshape", ir.Reshape(), (x.name,), tuple(wanted))


def _resize_bilinear(b: FileBuilder) -> None:
    if not _resized_to_its_size(b):
        plane = list(b.model.tensors[b.op.inputs[0]].shape[1:3])
        b.refuse(f"it makes {list(b.integers(1))} of {plane}; the Graph resizes by the nearest neighbour alone")


def _resize_nearest(b: FileBuilder) -> None:
    if _resized_to_its_size(b):
        return
    size = b.integers(1)
    if len(size) != 2 or min(size) < 1:
        raise UnusableFile(f"{b.where}: operator {b.op.name} makes {list(size)}")
    corners, centers = bool(b.op.options["AlignCorners"]), bool(b.op.options["HalfPixelCenters"])
    b.node("resize_nearest", ir.ResizeNearest((size[0], size[1]), corners, centers), (b.read_tensor(0),))


def _resized_to_its_size(b: FileBuilder) -> bool:
    """Whether that is all it does: then it is gone, also from in front of an image's table."""
    value = b.value(0)
    x = b.tensors[value.image if isinstance(value, Lookup) else b.read_tensor(0)]
    if b.integers(1) != x.shape[1:3]:
        return False
    b.unchanged()
    return True


def _squeeze(b: FileBuilder) -> None:
    """SQUEEZE and EXPAND_DIMS: the output's shape says all."""
    x, out = b.tensors[b.read_tensor(0)], b.model.tensors[b.op.outputs[0]]
    if math.prod(out.shape) != math.prod(x.shape):
        raise UnusableFile(f"{b.where}: operator {b.op.name} makes {list(out.shape)} of {list(x.shape)}")
    b.node("reshape", ir.Reshape(), (x.name,), out.shape)


READERS: Mapping[str, Callable[[FileBuilder], None]] = {
    "CONV_2D": _conv2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv2d,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _average_pool,
    "MAX_POOL_2D": _max_pool,
    "ADD": _add,
    "SUB": _sub,
    "MUL": _mul,
    "DIV": _div,
    "RELU": _relu,
    "RELU6": _relu6,
    "SOFTMAX": _softmax,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _logistic,
    "GELU": _gelu,
    "MEAN": _mean,
    "PAD": _pad,
    "PADV2": _pad,
    "CONCATENATION": _concatenation,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _squeeze,
    "TRANSPOSE": transpose,
    "CAST": cast,
    "GATHER": gather,
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    "RESIZE_BILINEAR": _resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
}
