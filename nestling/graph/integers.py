"""A float Graph and the ranges of its activations -> an int8 Graph. NumPy only.

Weights are symmetric, -127 .. 127, per output channel (Jacob et al. 2018; per channel: Krishnamoorthi 2018). Activations have a
scale and a zero point per tensor, over their range after the clamp. A bias is int32 with scale = input scale x weight scale.
Operations whose kernels only move integers (pools, pad, reshape, resizes, slice, concat) share their input's scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nestling.errors import NestlingError, UnsupportedOp, WrongOption
from nestling.graph.edit import free_name
from nestling.graph.ir import OUT_AXIS, Array, Graph, Node, Quant, Quantize, Tensor
from nestling.graph.spec import check
from nestling.words import Mode

RangeMethod = Literal["auto", "minmax", "percentile", "mse"]
Choice = Literal["auto", "on", "off"]

# the output has the input's scale and zero point
SHARING = ("average_pool", "max_pool", "pad", "pad_channels", "reshape", "resize_nearest", "slice")
LARGEST_BIAS = 2**30  # a quarter of int32's span stays for the products


@dataclass(frozen=True)
class QuantizeConfig:
    """How a float graph gets its integers.

    bits_weights, bits_activations: 2 to 8; below 8 the values are kept in int8 and use fewer of its integers.
    symmetric: zero points 0 for activations too, as TensorRT wants them (logistic and softmax keep their fixed one).
    layer_bits: (node, bits of its weights) of layers that have others than bits_weights. ends_at_8: the first and the last layer
    with weights have 8 bits, unless layer_bits names them.
    per_layer: one weight scale a layer instead of one a channel: smaller tables, and usually worse.
    range: how an activation's range is found (calibrate.choose_range). equalize, bias_correction: "auto" keeps them where they
    help on the validation part. calibration: training images that ranges are found on. seed: of what is sampled.
    modes: further precisions that the printers are asked to make of the float graph; only noted here.
    """

    bits_weights: int = 8
    bits_activations: int = 8
    symmetric: bool = False
    per_layer: bool = False
    range: RangeMethod = "auto"
    equalize: Choice = "auto"
    bias_correction: Choice = "auto"
    calibration: int = 200
    seed: int = 0
    modes: tuple[Mode, ...] = ()
    layer_bits: tuple[tuple[str, int], ...] = ()
    ends_at_8: bool = False

    def __post_init__(self) -> None:
        for name in ("bits_weights", "bits_activations"):
            if not 2 <= getattr(self, name) <= 8:
                raise WrongOption(f"{name} is 2 to 8; found {getattr(self, name)}.")
        for layer, bits in self.layer_bits:
            if not 2 <= bits <= 8:
                raise WrongOption(f"a layer's weights have 2 to 8 bits; found {bits} for {layer!r}.")
        if len(dict(self.layer_bits)) < len(self.layer_bits):
            raise WrongOption("a layer's bits are given once; found a layer twice.")
        if self.calibration < 1:
            raise WrongOption(f"calibration needs at least one image; found {self.calibration}.")


@dataclass(frozen=True)
class Range:
    """The real numbers that an activation's integers reach from and to."""

    low: float
    high: float


def integer_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """The integers of so many bits: -128 .. 127, or -127 .. 127 where they lie symmetric around zero."""
    return -(2 ** (bits - 1)) + symmetric, 2 ** (bits - 1) - 1


def quant_of(span: Range, bits: int, symmetric: bool) -> Quant:
    """Scale and zero point per tensor, with an exact 0 (padding and relu depend on it): low and high are moved to include it."""
    low, high = min(span.low, 0.0), max(span.high, 0.0)
    first, last = integer_range(bits, symmetric)
    if symmetric:
        return _per_tensor(max(-low, high) / last, 0)
    scale = (high - low) / (last - first)
    return _per_tensor(scale, int(np.clip(np.rint(first - low / scale), first, last)) if scale > 0 else 0)


def _per_tensor(scale: float, zero_point: int) -> Quant:
    """A tensor that is always zero may have any scale."""
    kept = np.float32(scale) if scale >= np.finfo(np.float32).tiny else np.float32(1 / 127)
    return Quant(np.array([kept], np.float32), np.array([zero_point], np.int32))


FIXED: Mapping[str, Quant] = {  # what LiteRT's kernels insist on, whatever the range
    "logistic": _per_tensor(1 / 256, -128),
    "softmax": _per_tensor(1 / 256, -128),
}


def quantized(values: Array, quant: Quant, low: int, high: int) -> NDArray[np.int8]:
    """The nearest integers, within low .. high."""
    shape = [1] * values.ndim
    if quant.axis is not None:
        shape[quant.axis] = -1
    steps = np.asarray(values, np.float64) / quant.scale.astype(np.float64).reshape(shape)
    return np.clip(np.rint(steps) + quant.zero_point.reshape(shape), low, high).astype(np.int8)


# ---- weights and biases -------------------------------------------------------------------------------------------------------


def weighted(graph: Graph) -> tuple[Node, ...]:
    """The layers with weights, in running order."""
    return tuple(node for node in graph.nodes if node.op in OUT_AXIS)


def bits_of(graph: Graph, config: QuantizeConfig) -> dict[str, int]:
    """Bits of the weights of every layer that has some, by node. Raises NestlingError where layer_bits names another."""
    names = [node.name for node in weighted(graph)]
    named = dict(config.layer_bits)
    if unknown := [name for name in named if name not in names]:
        raise NestlingError(f"the network has no layer {unknown[0]!r} with weights.", f"its layers: {', '.join(names)}")
    ends = dict.fromkeys((names[:1] + names[-1:]) if config.ends_at_8 else (), 8)
    return dict.fromkeys(names, config.bits_weights) | ends | named


def quantized_weight(
    weight: Array,
    bias: Array | None,
    axis: int,
    input_scale: float,
    bits: int,
    per_layer: bool,
    step: NDArray[np.float32] | None = None,
) -> Tensor:
    """The weights as an int8 tensor without a name. bias and input_scale see to it that the bias fits its int32.

    step: the scale if it is known, float32 [1] or [channels]; kept to the bit but where a bias would not fit. None: it is found,
    one a channel or one a layer.
    """
    last = integer_range(bits, True)[1]
    scale = _found_step(weight, axis, bits, per_layer) if step is None else _given_step(step, weight.shape[axis])
    single = len(scale) == 1
    if bias is not None:  # a channel of tiny weights with a bias of its own
        needed = np.abs(np.asarray(bias, np.float64)) / (LARGEST_BIAS * input_scale)
        scale = np.maximum(scale, needed.max() if single else needed)
    quant = Quant(scale.astype(np.float32), np.zeros(len(scale), np.int32), None if single else axis)
    return Tensor("", weight.shape, "int8", quantized(weight, quant, -last, last), quant)


def _given_step(step: NDArray[np.float32], channels: int) -> NDArray[np.float64]:
    if step.shape not in ((1,), (channels,)) or not (np.isfinite(step) & (step > 0)).all():
        raise NestlingError(f"weight steps are positive, one or {channels}; found {step.shape}, the least {step.min(initial=1)}.")
    return step.astype(np.float64)


def _found_step(weight: Array, axis: int, bits: int, per_layer: bool) -> NDArray[np.float64]:
    last = integer_range(bits, True)[1]
    rows = np.moveaxis(np.asarray(weight, np.float64), axis, 0).reshape(weight.shape[axis], -1)
    if per_layer:
        rows = rows.reshape(1, -1)
    largest = np.abs(rows).max(axis=1)
    fallback = largest.max() or 1.0
    scale = np.where(largest > 1e-9 * fallback, largest, fallback) / last
    return scale * _best_share(rows, scale, last) if bits < 8 else scale


def _best_share(rows: NDArray[np.float64], scale: NDArray[np.float64], last: int) -> NDArray[np.float64]:
    """Of each row, the share of its full scale with the least mean squared error: with few bits it pays to clip."""
    best, least = np.ones(len(rows)), np.full(len(rows), np.inf)
    for share in np.linspace(0.4, 1.0, 25):
        step = (scale * share)[:, None]
        error = np.square(np.clip(np.rint(rows / step), -last, last) * step - rows).sum(axis=1)
        best, least = np.where(error < least, share, best), np.minimum(error, least)
    return best


def quantized_bias(bias: Array, input_quant: Quant, weight_quant: Quant) -> Tensor:
    """int32, scale = input scale x weight scale, without a name."""
    scale = (input_quant.scale * weight_quant.scale).astype(np.float32)
    steps = np.rint(np.asarray(bias, np.float64) / scale.astype(np.float64))
    data = np.clip(steps, -(2**31 - 1), 2**31 - 1).astype(np.int32)
    return Tensor("", bias.shape, "int32", data, Quant(scale, np.zeros(len(scale), np.int32), 0 if len(scale) > 1 else None))


def quantized_table(data: Array, span: Range, config: QuantizeConfig) -> tuple[Array, Quant]:
    """The normalisation [C, 256] as int8, all of its values within the scale.

    A few scales are tried, from the narrowest that holds them: with mean = std = 0.5 that one is half a step off everywhere.
    """
    low, high = integer_range(config.bits_activations, config.symmetric)
    best: tuple[float, Array, Quant] | None = None
    for wider in np.linspace(1.0, 1.02, 11):
        quant = quant_of(Range(span.low * wider, span.high * wider), config.bits_activations, config.symmetric)
        values = quantized(data, quant, low, high)
        error = float(np.square((values.astype(np.float64) - quant.zero_point[0]) * quant.scale[0] - data).sum())
        if best is None or error < best[0]:
            best = (error, values, quant)
    assert best is not None
    return best[1], best[2]


# ---- the graph ----------------------------------------------------------------------------------------------------------------


def with_integers(
    graph: Graph, ranges: Mapping[str, Range], config: QuantizeConfig, steps: Mapping[str, NDArray[np.float32]] | None = None
) -> Graph:
    """The int8 Graph of a prepared float graph: tensors and nodes keep their names, outputs are int8.

    ranges: of every activation, after its clamp (calibrate.choose_ranges). A float32 input gets a `quantize` behind it.
    steps: weight scales that are known (learned), by node: float32 [1] or [channels]; those of other layers are found.
    Raises UnsupportedOp for a node without integer semantics (batch_norm, weights that are not constants).
    """
    quants = _activation_quants(graph, ranges, config)
    writer = _Writer(graph, quants, config, bits_of(graph, config), steps or {})
    for node in graph.nodes:
        writer.take(node)
    outputs = tuple(writer.renamed.get(name, name) for name in graph.outputs)
    return check(Graph(writer.tensors, tuple(writer.nodes), graph.inputs, outputs), "the int8 graph")


def _activation_quants(graph: Graph, ranges: Mapping[str, Range], config: QuantizeConfig) -> dict[str, Quant]:
    """Each activation's quant; tensors that must share one have that of the widest range among those that are computed."""
    group = groups(graph)
    computed: dict[str, list[Range]] = {}
    fixed: dict[str, Quant] = {}
    for name in graph.inputs:
        if graph.tensors[name].dtype == "float32":
            computed.setdefault(group[name], []).append(_range(ranges, name))
    for node in graph.nodes:
        root = group[node.name]
        if node.op in FIXED:
            fixed[root] = FIXED[node.op]
        elif node.op == "table":
            fixed[root] = quantized_table(_data(graph, node.inputs[1]), _range_of_table(graph, node), config)[1]
        elif node.op not in SHARING and node.op != "concat":
            computed.setdefault(root, []).append(_range(ranges, node.name))
    for node in graph.nodes:
        if node.op == "concat" and group[node.name] not in fixed:  # inputs of a fixed scale are brought to the output's
            for name in node.inputs:
                if graph.tensors[name].data is not None or group[name] != group[node.name]:
                    computed.setdefault(group[node.name], []).append(_range(ranges, name))
    spans = {root: Range(min(r.low for r in found), max(r.high for r in found)) for root, found in computed.items()}
    of_root = {root: quant_of(span, config.bits_activations, config.symmetric) for root, span in spans.items()} | fixed
    quants = {name: of_root[root] for name, root in group.items() if root in of_root}
    for node in graph.nodes:  # its kernel takes inputs of up to 128 times the output's scale
        if node.op == "hard_swish":
            source, out = quants[node.inputs[0]], quants[node.name]
            scale = max(out.scale[0], source.scale[0] / np.float32(100))
            changed = replace(out, scale=np.array([scale], np.float32))
            quants |= {name: changed for name, root in group.items() if root == group[node.name]}
    return quants


def groups(graph: Graph) -> dict[str, str]:
    """activation -> the name that stands for all that must have its scale; an input of a fixed scale does not join a concat."""
    root = {name: name for name in graph.inputs}
    fixed: set[str] = set()
    for node in graph.nodes:
        root[node.name] = root[node.inputs[0]] if node.op in SHARING else node.name
        if node.op in FIXED or node.op == "table":
            fixed.add(node.name)
        if node.op == "concat":
            joined = {root[name] for name in node.inputs if name in root and root[name] not in fixed}
            root = {name: node.name if own in joined else own for name, own in root.items()}
    return root


def _range(ranges: Mapping[str, Range], name: str) -> Range:
    if name not in ranges:
        raise NestlingError(f"there is no range for the activation {name!r}.", "calibrate the same graph that is quantised")
    return ranges[name]


def _range_of_table(graph: Graph, node: Node) -> Range:
    data = _data(graph, node.inputs[1])
    return Range(float(data.min()), float(data.max()))


def _data(graph: Graph, name: str) -> Array:
    data = graph.tensors[name].data
    if data is None:
        raise UnsupportedOp(f"{name!r} is computed from the image; only constant weights can be quantised")
    return data


class _Writer:
    """Collects the int8 graph's tensors and nodes."""

    def __init__(
        self,
        graph: Graph,
        quants: Mapping[str, Quant],
        config: QuantizeConfig,
        bits: Mapping[str, int],
        steps: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self.graph, self.quants, self.config, self.bits, self.steps = graph, quants, config, bits, steps
        self.tensors: dict[str, Tensor] = {name: graph.tensors[name] for name in graph.inputs}
        self.nodes: list[Node] = []
        self.renamed: dict[str, str] = {}
        for name in graph.inputs:
            if graph.tensors[name].dtype == "float32":
                self.renamed[name] = self._requantised(name, quants[name], f"{name}:int8")

    def take(self, node: Node) -> None:
        """One float node as an integer one."""
        if node.op == "batch_norm":
            raise UnsupportedOp(f"batch_norm {node.source or node.name} has no integers; it is folded by passes.prepare")
        out = self.quants[node.name]
        inputs = TAKEN.get(node.op, _taken)(self, node)
        self.tensors[node.name] = replace(self.graph.tensors[node.name], dtype="int8", quant=out)
        self.nodes.append(replace(node, inputs=tuple(inputs)))

    def activation(self, name: str) -> str:
        """The int8 tensor that stands for a float activation."""
        return self.renamed.get(name, name)

    def constant(self, name: str, tensor: Tensor) -> str:
        """`tensor` under the float constant's name; under another where that is taken (weights that two layers share)."""
        free = free_name(name, {**self.tensors, **{n: t for n, t in self.graph.tensors.items() if t.data is None}})
        self.tensors[free] = replace(tensor, name=free)
        return free

    def spread(self, name: str) -> str:
        """A constant operand (of add, mul): symmetric per tensor."""
        data = _data(self.graph, name)
        bits = self.config.bits_weights
        last = integer_range(bits, True)[1]
        quant = quant_of(Range(float(data.min()), float(data.max())), bits, symmetric=True)
        return self.constant(name, Tensor("", data.shape, "int8", quantized(data, quant, -last, last), quant))

    def with_quant(self, name: str, quant: Quant) -> str:
        """The tensor at that very scale: a constant is quantised so, an activation requantised where it has another."""
        if self.graph.tensors[name].data is not None:
            low, high = integer_range(self.config.bits_activations, self.config.symmetric)
            data = quantized(_data(self.graph, name), quant, low, high)
            return self.constant(name, Tensor("", data.shape, "int8", data, quant))
        own = self.quants[name]
        same = own.scale[0] == quant.scale[0] and own.zero_point[0] == quant.zero_point[0]
        return self.activation(name) if same else self._requantised(self.activation(name), quant, f"{name}:rescaled")

    def _requantised(self, name: str, quant: Quant, wanted: str) -> str:
        free = free_name(wanted, {**self.graph.tensors, **self.tensors})
        self.tensors[free] = Tensor(free, self.tensors[name].shape, "int8", None, quant)
        self.nodes.append(Node("quantize", (name,), (free,), Quantize()))
        return free


def _taken(writer: _Writer, node: Node) -> Iterable[str]:
    """Activations as they are, constants spread over their integers."""
    for name in node.inputs:
        yield writer.activation(name) if writer.graph.tensors[name].data is None else writer.spread(name)


def _layer(writer: _Writer, node: Node) -> Iterable[str]:
    """conv2d, depthwise_conv2d, fully_connected."""
    config, graph = writer.config, writer.graph
    x, axis = writer.quants[node.inputs[0]], OUT_AXIS[node.op]
    bias = _data(graph, node.inputs[2]) if len(node.inputs) > 2 else None
    data = _data(graph, node.inputs[1])
    bits, step = writer.bits[node.name], writer.steps.get(node.name)
    weight = quantized_weight(data, bias, axis, float(x.scale[0]), bits, config.per_layer, step)
    assert weight.quant is not None
    yield writer.activation(node.inputs[0])
    yield writer.constant(node.inputs[1], weight)
    if bias is not None:
        yield writer.constant(node.inputs[2], quantized_bias(bias, x, weight.quant))


def _table(writer: _Writer, node: Node) -> Iterable[str]:
    data, quant = quantized_table(_data(writer.graph, node.inputs[1]), _range_of_table(writer.graph, node), writer.config)
    yield node.inputs[0]
    yield writer.constant(node.inputs[1], Tensor("", data.shape, "int8", data, quant))


def _concat(writer: _Writer, node: Node) -> Iterable[str]:
    for name in node.inputs:
        yield writer.with_quant(name, writer.quants[node.name])


TAKEN: Mapping[str, Callable[[_Writer, Node], Iterable[Any]]] = {
    "conv2d": _layer,
    "depthwise_conv2d": _layer,
    "fully_connected": _layer,
    "table": _table,
    "concat": _concat,
}
