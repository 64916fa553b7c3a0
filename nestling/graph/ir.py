"""The Graph: the one network that everything is printed from.

A Graph is a list of nodes in the order in which they run, over named tensors. Activations are NHWC with batch 1, weights OHWI
(as in TFLite and CMSIS-NN). A float Graph and an int8 Graph are the same type: an integer tensor carries a Quant.
What a valid Graph is stands in spec.py as a table; how it is computed in reference.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short

Array = NDArray[np.generic]
Dtype = Literal["float32", "int8", "uint8", "int32"]
Clamp = Literal["none", "relu", "relu6"]
Pair = tuple[int, int]  # (height, width)
Sides = tuple[int, int, int, int]  # (top, bottom, left, right)


@dataclass(frozen=True, eq=False)
class Quant:
    """real = scale * (q - zero_point).

    scale: float32 [1] (per tensor) or [C] (per channel along `axis`).
    zero_point: int32 of the same shape.
    axis: None per tensor, else the channel's axis (0 for conv2d and fully_connected weights, 3 for depthwise weights).
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    axis: int | None = None

    def real(self, steps: Array) -> NDArray[np.float32]:
        """What 8-bit integers of a tensor with one scale stand for; each rounded once."""
        real: NDArray[np.float32] = (steps.astype(np.float32) - np.float32(self.zero_point[0])) * self.scale[0]
        return real


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value in the Graph. data is None for activations, an array of `shape` and `dtype` for constants."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    data: Array | None = None
    quant: Quant | None = None


# ---- attributes: one frozen dataclass an op; the op's name is the class's snake_case in OPS below ------------------------------


@dataclass(frozen=True)
class Conv2d:
    """inputs: x [1, H, W, I], weight [O, KH, KW, I / groups], bias [O] (optional). groups follow from the shapes.

    unsigned: the node comes from an old uint8 network, whose kernels round a little differently (docs/integer-semantics.md).
    """

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    clamp: Clamp = "none"
    unsigned: bool = False


@dataclass(frozen=True)
class DepthwiseConv2d:
    """inputs: x [1, H, W, I], weight [1, KH, KW, O], bias [O] (optional); O is a multiple of I. unsigned: as in Conv2d."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    clamp: Clamp = "none"
    unsigned: bool = False


@dataclass(frozen=True)
class FullyConnected:
    """inputs: x [1, I], weight [O, I], bias [O] (optional)."""

    clamp: Clamp = "none"


@dataclass(frozen=True)
class Add:
    """inputs: a, b; shapes broadcast as in NumPy; either may be a constant."""

    clamp: Clamp = "none"


@dataclass(frozen=True)
class Mul:
    """inputs: a, b; shapes broadcast as in NumPy; either may be a constant."""

    clamp: Clamp = "none"


@dataclass(frozen=True)
class AveragePool:
    """inputs: x [1, H, W, C]. Padded places are not counted. unsigned: as in Conv2d."""

    size: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    clamp: Clamp = "none"
    unsigned: bool = False


@dataclass(frozen=True)
class MaxPool:
    """inputs: x [1, H, W, C]. Padded places never win."""

    size: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    clamp: Clamp = "none"


@dataclass(frozen=True)
class Mean:
    """inputs: x. The mean over `axes`, which stay as 1 where keep_dims."""

    axes: tuple[int, ...] = (1, 2)
    keep_dims: bool = False


@dataclass(frozen=True)
class Pad:
    """inputs: x [1, H, W, C]. Zeros (an int8 tensor: its zero point) around height and width."""

    padding: Sides


@dataclass(frozen=True)
class PadChannels:
    """inputs: x [1, H, W, C]. So many channels of zeros (an int8 tensor: of its zero point) before and after those of x."""

    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class ResizeNearest:
    """inputs: x [1, H, W, C]. Each place of the new plane, `size`, takes the value of one place of x: see windows.nearest_places.

    align_corners: the outermost places of both planes meet. half_pixel_centers: a place is where its pixel's centre is.
    """

    size: Pair
    align_corners: bool = False
    half_pixel_centers: bool = False


@dataclass(frozen=True)
class Concat:
    """inputs: two or more tensors that differ along `axis` only."""

    axis: int = 3


@dataclass(frozen=True)
class Slice:
    """inputs: x. The places from begin to before end along `axis`."""

    axis: int
    begin: int
    end: int


@dataclass(frozen=True)
class Reshape:
    """inputs: x. The new shape is the output tensor's."""


@dataclass(frozen=True)
class Softmax:
    """inputs: x [1, N], along the last axis."""

    beta: float = 1.0


@dataclass(frozen=True)
class HardSwish:
    """inputs: x. x * relu6(x + 3) / 6."""


@dataclass(frozen=True)
class LeakyRelu:
    """inputs: x. x where that is positive, else alpha * x."""

    alpha: float = 0.01


@dataclass(frozen=True)
class Logistic:
    """inputs: x. 1 / (1 + exp(-x))."""


@dataclass(frozen=True)
class Gelu:
    """inputs: x. x * P(X <= x), X normally distributed.

    approximate: as x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))). Source: Hendrycks and Gimpel 2016.
    """

    approximate: bool = False


@dataclass(frozen=True)
class Quantize:
    """inputs: x, float32 or integer; the output's quant says how."""


@dataclass(frozen=True)
class Dequantize:
    """inputs: x, integer with a quant; output float32."""


@dataclass(frozen=True)
class Table:
    """inputs: x uint8 [1, H, W, C], table [C, 256]. out[h, w, c] = table[c, x[h, w, c]]: the preprocessing's normalisation."""


@dataclass(frozen=True)
class BatchNorm:
    """inputs: x, gamma, beta, mean, variance (each [C], along the last axis). Float only, until a pass folds it."""

    epsilon: float = 1e-5


Attrs = (
    Conv2d | DepthwiseConv2d | FullyConnected | Add | Mul | AveragePool | MaxPool | Mean | Pad | PadChannels | ResizeNearest
    | Concat | Slice | Reshape | Softmax | HardSwish | LeakyRelu | Logistic | Gelu | Quantize | Dequantize | Table | BatchNorm
)  # fmt: skip

OPS: Mapping[str, type[Attrs]] = {
    "conv2d": Conv2d,
    "depthwise_conv2d": DepthwiseConv2d,
    "fully_connected": FullyConnected,
    "add": Add,
    "mul": Mul,
    "average_pool": AveragePool,
    "max_pool": MaxPool,
    "mean": Mean,
    "pad": Pad,
    "pad_channels": PadChannels,
    "resize_nearest": ResizeNearest,
    "concat": Concat,
    "slice": Slice,
    "reshape": Reshape,
    "softmax": Softmax,
    "hard_swish": HardSwish,
    "leaky_relu": LeakyRelu,
    "logistic": Logistic,
    "gelu": Gelu,
    "quantize": Quantize,
    "dequantize": Dequantize,
    "table": Table,
    "batch_norm": BatchNorm,
}

# the axis of the weights, by op, along which the layer's outputs, its inputs lie (of a depthwise layer it is one axis)
OUT_AXIS: Mapping[str, int] = {"conv2d": 0, "depthwise_conv2d": 3, "fully_connected": 0}
IN_AXIS: Mapping[str, int] = {"conv2d": 3, "depthwise_conv2d": 3, "fully_connected": 1}


@dataclass(frozen=True)
class Node:
    """One operation. An optional input that is absent at the end is simply not there.

    source: the layer it came from, for messages ("blocks.2.0.conv_dw"), or "".
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Attrs
    source: str = ""

    @property
    def name(self) -> str:
        """A node is named by its first output."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class Graph:
    """tensors by name; nodes in running order; names of the tensors that come in and go out."""

    __repr__, _repr_html_ = in_short, as_table

    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def readers(self, tensor: str) -> tuple[Node, ...]:
        """The nodes that read `tensor`, in order."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

    def producer(self, tensor: str) -> Node | None:
        """The node that writes `tensor`; None for inputs and constants."""
        return next((node for node in self.nodes if tensor in node.outputs), None)


def same(a: Graph, b: Graph) -> bool:
    """Whether two graphs are equal: nodes, tensors, every constant and quant, byte for byte. Sources of nodes do not count."""
    strip = [[replace(node, source="") for node in graph.nodes] for graph in (a, b)]
    return (
        strip[0] == strip[1]
        and (a.inputs, a.outputs) == (b.inputs, b.outputs)
        and a.tensors.keys() == b.tensors.keys()
        and all(_same_tensor(a.tensors[name], b.tensors[name]) for name in a.tensors)
    )


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    plain = (a.name, a.shape, a.dtype) == (b.name, b.shape, b.dtype)
    return plain and _same_array(a.data, b.data) and _same_quant(a.quant, b.quant)


def _same_quant(a: Quant | None, b: Quant | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.axis == b.axis and _same_array(a.scale, b.scale) and _same_array(a.zero_point, b.zero_point)


def _same_array(a: Array | None, b: Array | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def attrs_to_plain(attrs: Attrs) -> dict[str, object]:
    """The attributes as JSON values, defaults included."""
    values = {field.name: getattr(attrs, field.name) for field in fields(attrs)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
