"""What a valid Graph is, as a table, and the check of it. It runs after every pass, capture and read.

The letters of a signature, one an input, then the output:

    f  float32, no quant
    q  int8 with a quant per tensor
    w  int8 constant with a quant per tensor (zero point 0 but in old uint8 networks) or per channel (zero points 0)
    b  int32 constant with a quant, zero points 0
    i  uint8 without a quant: a raw image
An input in brackets may be left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from nestling.errors import UnsupportedOp, UnusableFile
from nestling.graph import ir, shapes
from nestling.graph.fixed_point import quantize_multiplier
from nestling.graph.ir import OPS, Attrs, Graph, Node, Quant, Tensor
from nestling.graph.reference_integer import hard_swish_multiplier
from nestling.graph.shapes import MAX_ACTIVATION, Shape, require
from nestling.outside import NOT_FINITE

Problem = str | None  # what is wrong, in words; None where nothing is
_Unsigned = ir.Conv2d | ir.DepthwiseConv2d | ir.AveragePool

MAX_ELEMENTS = 2**28  # of one constant
SHARED = 64  # nodes that read a constant, on average of bytes
MAX_RANK = 6
MOST_SAID = 500  # letters of what is wrong, for a file may name a tensor with a book
MAX_NODES = 10_000  # passes look for readers and producers node by node: time grows with the square
MAX_WINDOW = 2**16  # kernel sides, strides, dilations, paddings


# ---- quants: (attributes, input tensors, output tensor) -> Problem. Only called where the tensors carry their quants ------------


def _same_scale(attrs: Attrs, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    """LiteRT allows 1e-6 between the scales, and ignores the output's."""
    (a, zero_a), (b, zero_b) = _of(inputs[0]), _of(output)
    return None if abs(a - b) <= 1e-6 and zero_a == zero_b else "the output must have the input's scale and zero point"


def _sums(attrs: ir.Conv2d | ir.DepthwiseConv2d | ir.FullyConnected, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    x, weight = inputs[:2]
    channels = 3 if isinstance(attrs, ir.DepthwiseConv2d) else 0
    scales = _scales(weight)
    if weight.quant and weight.quant.axis not in (None, channels):
        return f"weights are per tensor or along axis {channels}"
    if _offset(weight) and not getattr(attrs, "unsigned", True):
        return "only old uint8 networks have a weight zero point"
    if len(inputs) == 3:
        step = _of(output)[0]
        wrong = np.abs(_of(x)[0] * scales - _scales(inputs[2])) / step > 0.02
        if wrong.any():
            return "the bias's scale must be the input's times the weights'"
    return _rescaling(_of(x)[0] * float(scales.max()) / _of(output)[0])


def _add(attrs: ir.Add, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    ratio = 2 * max(_of(inputs[0])[0], _of(inputs[1])[0]) / _of(output)[0]
    return None if ratio < 2**20 else "the output's scale is too small for the inputs'"


def _product(attrs: ir.Mul, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    return _rescaling(_of(inputs[0])[0] * _of(inputs[1])[0] / _of(output)[0])


def _one_rescaling(attrs: Attrs, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    return _rescaling(_of(inputs[0])[0] / _of(output)[0])


def _leaky(attrs: ir.LeakyRelu, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    return _rescaling(_of(inputs[0])[0] * max(attrs.alpha, 1.0) / _of(output)[0])


def _softmax(attrs: ir.Softmax, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    scale, zero = _of(output)
    if abs(scale * 256 - 1) > 0.001 or zero != -128:
        return "the output must have scale 1/256 and zero point -128"
    return None if attrs.beta * _of(inputs[0])[0] > 2**-26 else "the input's scale is too small"


def _logistic(attrs: ir.Logistic, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    return None if _of(output)[0] == 1 / 256 else "the output must have scale 1/256"


def _hard_swish(attrs: ir.HardSwish, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    source, target = inputs[0].quant, output.quant
    assert source and target
    shift = int(quantize_multiplier(hard_swish_multiplier(source, target).astype(np.float64))[1][0])
    if not -15 <= shift <= 0:
        return "the input's scale must be under 128 times the output's, and not 512 times smaller"
    return None if float(source.scale[0]) >= 2**-18 else "the input's scale is too small"


def _gelu(attrs: ir.Gelu, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    """The answers' steps have to fit 32 bits, which TFLite's table goes through."""
    return _rescaling(256 * _of(inputs[0])[0] / _of(output)[0])


def _table_scales(attrs: ir.Table, inputs: tuple[Tensor, ...], output: Tensor) -> Problem:
    return None if _of(inputs[1]) == _of(output) else "the table must have the output's scale and zero point"


def _rescaling(real: float) -> Problem:
    return None if real < 2**30 else "the output's scale is too small for the inputs'"


def _of(tensor: Tensor) -> tuple[float, int]:
    assert tensor.quant
    return float(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])


def _scales(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    assert tensor.quant
    return tensor.quant.scale.astype(np.float64)


# ---- the table ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What one op takes and gives.

    signatures: as explained above; "..." repeats the input before it.
    ranks: of each input, (fewest, most) dimensions; the last one holds for the rest too.
    shape: the output's shape. quants: what the scales must satisfy in an integer node, if anything.
    """

    signatures: tuple[str, ...]
    ranks: tuple[tuple[int, int], ...]
    shape: Callable[..., Shape]
    quants: Callable[..., Problem] | None = None


_VECTOR, _MATRIX, _IMAGE, _ANY = (1, 1), (2, 2), (4, 4), (1, MAX_RANK)

RULES: Mapping[str, Rule] = {
    # op                       signatures                      ranks of the inputs         shape             quants
    "conv2d":           Rule(("f f [f] -> f", "q w [b] -> q"), (_IMAGE, _IMAGE, _VECTOR),   shapes.conv2d,          _sums),
    "depthwise_conv2d": Rule(("f f [f] -> f", "q w [b] -> q"), (_IMAGE, _IMAGE, _VECTOR),   shapes.depthwise_conv2d,       _sums),
    "fully_connected":  Rule(("f f [f] -> f", "q w [b] -> q"), (_MATRIX, _MATRIX, _VECTOR), shapes.fully_connected, _sums),
    "add":              Rule(("f f -> f", "q q -> q"),         (_ANY, _ANY),                shapes.broadcast,       _add),
    "mul":              Rule(("f f -> f", "q q -> q"),         (_ANY, _ANY),                shapes.broadcast,       _product),
    "average_pool":     Rule(("f -> f", "q -> q"),             (_IMAGE,),                   shapes.pool,            _same_scale),
    "max_pool":         Rule(("f -> f", "q -> q"),             (_IMAGE,),                   shapes.pool,            _same_scale),
    "mean":             Rule(("f -> f", "q -> q"),             ((2, MAX_RANK),),            shapes.mean,            _one_rescaling),
    "pad":              Rule(("f -> f", "q -> q"),             (_IMAGE,),                   shapes.pad,             _same_scale),
    "pad_channels":     Rule(("f -> f", "q -> q"),             (_IMAGE,),                   shapes.pad_channels,    _same_scale),
    "resize_nearest":   Rule(("f -> f", "q -> q"),             (_IMAGE,),                   shapes.resized,         _same_scale),
    "concat":           Rule(("f f ... -> f", "q q ... -> q"), ((2, MAX_RANK),),            shapes.concat,          None),
    "slice":            Rule(("f -> f", "q -> q"),             ((2, MAX_RANK),),            shapes.part,            _same_scale),
    "reshape":          Rule(("f -> f", "q -> q"),             (_ANY,),                     shapes.unchanged,       _same_scale),
    "softmax":          Rule(("f -> f", "q -> q"),             ((2, MAX_RANK),),            shapes.unchanged,       _softmax),
    "hard_swish":       Rule(("f -> f", "q -> q"),             (_ANY,),                     shapes.unchanged,       _hard_swish),
    "leaky_relu":       Rule(("f -> f", "q -> q"),             (_ANY,),                     shapes.unchanged,       _leaky),
    "logistic":         Rule(("f -> f", "q -> q"),             (_ANY,),                     shapes.unchanged,       _logistic),
    "gelu":             Rule(("f -> f", "q -> q"),             (_ANY,),                     shapes.unchanged,       _gelu),
    "quantize":         Rule(("f -> q", "q -> q"),             (_ANY,),                     shapes.unchanged,       _one_rescaling),
    "dequantize":       Rule(("q -> f",),                      (_ANY,),                     shapes.unchanged,       None),
    "table":            Rule(("i f -> f", "i q -> q"),         (_IMAGE, _MATRIX),           shapes.table,           _table_scales),
    "batch_norm":       Rule(("f f f f f -> f",),              ((2, MAX_RANK), _VECTOR),    shapes.batch_norm,      None),
}  # fmt: skip


# ---- the check ------------------------------------------------------------------------------------------------------------------


def check(graph: Graph, where: str = "the graph") -> Graph:
    """The graph itself where it is valid. Raises UnusableFile or UnsupportedOp, naming `where`, the place and the rule."""
    problem = _graph_problem(graph)
    if problem:
        raise UnusableFile(f"{where}: {problem[:MOST_SAID]}")
    for node in graph.nodes:
        if node.op not in OPS:
            raise UnsupportedOp(f"{where}: node {node.outputs[:1]}: there is no op {node.op!r}")
        reason = _node_problem(node, graph)
        if reason:
            layer = f" ({node.source})" if node.source else ""
            said = f"{node.op} {node.name!r}{layer}: {reason}"
            raise UnusableFile(f"{where}: {said[:MOST_SAID]}")
    problem = _unsigned_problem(graph)
    if problem:
        raise UnusableFile(f"{where}: {problem[:MOST_SAID]}")
    return graph


def require_proportion(graph: Graph, where: str) -> None:
    """That passes, which give each node its own constants, make no more of a file than a few times what is in it.

    Raises UnusableFile where many nodes read the same large constants.
    """
    sizes = {name: 0 if tensor.data is None else tensor.data.nbytes for name, tensor in graph.tensors.items()}
    read = sum(sizes.get(name, 0) for node in graph.nodes for name in node.inputs)
    if read > SHARED * sum(sizes.values()) + 2**24:
        raise UnusableFile(f"{where}: its nodes read {read} bytes of constants, more than {SHARED} times what there is of them")


def output_shape(op: str, attrs: Attrs, *inputs: Shape) -> Shape:
    """The shape that a node's output has. Raises ValueError, saying why, where the inputs' shapes do not fit.

    reshape is the exception: its output's shape is its own, and here the input's comes back.
    """
    rule = RULES[op]
    for index, shape in enumerate(inputs):
        fewest, most = rule.ranks[min(index, len(rule.ranks) - 1)]
        require(fewest <= len(shape) <= most, f"input {index} must have {fewest} to {most} dimensions, it has {list(shape)}")
    return tuple(int(side) for side in rule.shape(attrs, *inputs))


def _graph_problem(graph: Graph) -> Problem:
    """Names and order: every tensor known, sound, and written once, before it is read."""
    if len(graph.nodes) > MAX_NODES:
        return f"{len(graph.nodes)} nodes are more than {MAX_NODES}"
    if not graph.inputs or not graph.outputs or len(set(graph.inputs)) < len(graph.inputs):
        return "it needs inputs and outputs, each input once"
    for name, tensor in graph.tensors.items():
        reason = _tensor_problem(name, tensor)
        if reason:
            return f"tensor {name!r}: {reason}"
    ready = {name for name, tensor in graph.tensors.items() if tensor.data is not None}
    for name in graph.inputs:
        if name not in graph.tensors or name in ready:
            return f"input {name!r} is unknown or a constant"
        ready.add(name)
    for node in graph.nodes:
        if len(node.outputs) != 1:
            return f"{node.op} {node.outputs}: a node has one output"
        for name in node.inputs:
            if name not in ready:
                return f"{node.op} {node.name!r} reads {name!r} before anything has written it"
        if node.name in ready or node.name not in graph.tensors:
            return f"{node.op} writes {node.name!r}, which is unknown, a constant or written already"
        ready.add(node.name)
    for name in graph.outputs:
        if name not in ready or graph.tensors[name].data is not None:
            return f"output {name!r} is written by nothing"
    unwritten = graph.tensors.keys() - ready
    return f"tensor {min(unwritten)!r} is written by nothing" if unwritten else None


def _tensor_problem(name: str, tensor: Tensor) -> Problem:
    if tensor.name != name:
        return f"it calls itself {tensor.name!r}"
    if not _natural(tensor.shape, 1, MAX_ELEMENTS) or len(tensor.shape) > MAX_RANK or math.prod(tensor.shape) > MAX_ELEMENTS:
        return f"shape {list(tensor.shape)} is not of at most {MAX_RANK} positive sides and {MAX_ELEMENTS} elements"
    if tensor.dtype not in ("float32", "int8", "uint8", "int32"):
        return f"dtype {tensor.dtype!r}"
    if tensor.data is None:
        if tensor.shape[:1] != (1,):
            return f"an activation has batch 1, this one {list(tensor.shape)}"
        if math.prod(tensor.shape) > MAX_ACTIVATION:
            return f"an activation has at most {MAX_ACTIVATION} elements, this one {list(tensor.shape)}"
    elif tensor.data.shape != tensor.shape or tensor.data.dtype != np.dtype(tensor.dtype):
        return f"its data is {tensor.data.dtype} {list(tensor.data.shape)}, not {tensor.dtype} {list(tensor.shape)}"
    elif tensor.dtype == "float32" and not np.isfinite(tensor.data).all():
        return f"it holds {NOT_FINITE}"
    return _quant_problem(tensor, tensor.quant) if tensor.quant else None


def _quant_problem(tensor: Tensor, quant: Quant) -> Problem:
    if tensor.dtype not in ("int8", "int32"):
        return f"a {tensor.dtype} tensor has no quant"
    if quant.axis is not None and not 0 <= quant.axis < len(tensor.shape):
        return f"the quant's axis {quant.axis} is not one of {list(tensor.shape)}"
    count = 1 if quant.axis is None else tensor.shape[quant.axis]
    if quant.scale.shape != (count,) or quant.zero_point.shape != (count,):
        return f"the quant needs {count} scales and zero points"
    if quant.scale.dtype != np.float32 or quant.zero_point.dtype != np.int32:
        return "scales are float32 and zero points int32"
    if not np.all(np.isfinite(quant.scale) & (quant.scale >= np.finfo(np.float32).tiny)):
        return "scales must be positive and finite"
    low, high = (-128, 127) if tensor.dtype == "int8" else (0, 0)
    if quant.zero_point.min() < low or quant.zero_point.max() > high:
        return f"zero points must lie between {low} and {high}"
    if quant.axis is not None and (quant.zero_point.any() or count == 1):
        return "a quant per channel has zero points 0, and more than one channel (else it is per tensor: axis None)"
    return None


def _unsigned_problem(graph: Graph) -> Problem:
    """The old uint8 kernels are a matter of the whole graph: its nodes agree, and only it may have what int8 kernels can't."""
    integer = [node for node in graph.nodes if graph.tensors[node.name].dtype == "int8"]
    flags = {node.name: node.attrs.unsigned for node in integer if isinstance(node.attrs, _Unsigned)}
    signed = next((name for name, flag in flags.items() if not flag), None)
    old = next((name for name, flag in flags.items() if flag), None)
    if signed and old:
        return f"{old!r} is of an old uint8 network and {signed!r} is not"
    for node in integer:
        inputs = [graph.tensors[name] for name in node.inputs]
        if node.op == "fully_connected" and signed and _offset(inputs[1]):
            return f"fully_connected {node.name!r}: only old uint8 networks have a weight zero point"
        if node.op == "concat" and not old and any(_of(tensor) != _of(graph.tensors[node.name]) for tensor in inputs):
            return f"concat {node.name!r}: every input must have the output's scale and zero point"
    return None


def _offset(weight: Tensor) -> bool:
    return weight.quant is not None and bool(weight.quant.zero_point.any())


def _node_problem(node: Node, graph: Graph) -> Problem:
    if type(node.attrs) is not OPS[node.op]:
        return f"its attributes are {type(node.attrs).__name__}'s"
    reason = _attrs_problem(node.attrs)
    if reason:
        return reason
    inputs = tuple(graph.tensors[name] for name in node.inputs)
    output = graph.tensors[node.name]
    letters = [_letters(tensor) for tensor in (*inputs, output)]
    rule = RULES[node.op]
    if not any(_matches(signature, letters) for signature in rule.signatures):
        found = ", ".join(_described(tensor) for tensor in (*inputs, output))
        return f"it takes {' or '.join(rule.signatures)} (see spec.py); got {found}"
    try:
        shape = output_shape(node.op, node.attrs, *(tensor.shape for tensor in inputs))
    except ValueError as problem:
        return str(problem)
    if node.op == "reshape":
        if math.prod(shape) != math.prod(output.shape):
            return f"{list(shape)} has other elements than {list(output.shape)}"
    elif shape != output.shape:
        return f"the output must be {list(shape)}, it is {list(output.shape)}"
    if isinstance(node.attrs, ir.BatchNorm) and not _has_deviations(inputs[4], node.attrs.epsilon):
        return f"{inputs[4].name!r} holds variances below 0, or of 0 with an epsilon of 0"
    if output.quant is None or (inputs[0].quant is None and node.op != "table"):
        return None
    if getattr(node.attrs, "clamp", "none") == "relu6" and 6 / _of(output)[0] >= 2**31:
        return "the output's scale is too small for relu6"
    return rule.quants(node.attrs, inputs, output) if rule.quants else None


def _has_deviations(variance: Tensor, epsilon: float) -> bool:
    lowest = 0.0 if variance.data is None else float(np.min(variance.data))
    return variance.data is None or lowest > 0 or (lowest == 0 and epsilon > 0)


def _attrs_problem(attrs: Attrs) -> Problem:
    """Types and sizes of the attributes, whatever the op."""
    for field in fields(attrs):
        name, value = field.name, getattr(attrs, field.name)
        if name in ("stride", "dilation", "size"):
            fits = _natural(value, 1, MAX_WINDOW) and len(value) == 2
        elif name == "padding":
            fits = _natural(value, 0, MAX_WINDOW) and len(value) == 4
        elif name == "clamp":
            fits = value in ("none", "relu", "relu6")
        elif name == "axes":
            fits = _natural(value, 0, MAX_RANK)
        elif name == "axis":
            fits = _natural((value,), 0, MAX_RANK)
        elif name in ("before", "after"):
            fits = _natural((value,), 0, MAX_WINDOW)
        elif name in ("begin", "end"):
            fits = _natural((value,), 0, MAX_ELEMENTS)
        elif name in ("keep_dims", "unsigned", "align_corners", "half_pixel_centers", "approximate"):
            fits = isinstance(value, bool)
        else:  # beta, epsilon, alpha
            fits = isinstance(value, float) and math.isfinite(value) and 0 <= value < 1e6
        if not fits:
            return f"{name} = {value!r}"
    return None


def _natural(values: object, low: int, high: int) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and low <= value <= high for value in values)


def _letters(tensor: Tensor) -> str:
    """The letters of a signature that the tensor can stand for."""
    plain = {"float32": "f", "uint8": "i"}
    if tensor.quant is None:
        return plain.get(tensor.dtype, "")
    constant = tensor.data is not None
    if tensor.dtype == "int32":
        return "b" if constant else ""
    return ("q" if tensor.quant.axis is None else "") + ("w" if constant else "")


def _matches(signature: str, letters: list[str]) -> bool:
    takes, gives = (side.split() for side in signature.split(" -> "))
    if takes[-1] == "...":
        takes = takes[:-1] + [takes[-2]] * (len(letters) - len(takes))
    needed = [letter for letter in takes if not letter.startswith("[")]
    wanted = [letter.strip("[]") for letter in takes]
    if not len(needed) < len(letters) <= len(wanted) + 1:
        return False
    wanted = wanted[: len(letters) - 1] + gives
    return all(letter in have for letter, have in zip(wanted, letters, strict=True))


def _described(tensor: Tensor) -> str:
    kind = "constant " if tensor.data is not None else ""
    per = "" if tensor.quant is None else " per tensor" if tensor.quant.axis is None else " per channel"
    return f"{kind}{tensor.dtype}{per}"
