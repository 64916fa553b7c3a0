"""The raw content of a .tflite file as plain, checked values. Nothing here knows a Graph.

The bytes may be hostile: every count, index and length is checked before anything of its size is made, constants stay views of the
file, and what flatbuffers says of a damaged file becomes UnusableFile. Format: schema.fbs of TFLite, version 3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from nestling.errors import UnusableFile
from nestling.graph.ir import Array
from nestling.graph.packed import packed_size, unpack

MAX_FILE = 2**28  # bytes
MAX_CONSTANTS = 2**28  # bytes of all constants, those of shared buffers counted each time; 4-byte numbers after widening
MAX_COUNT = 50_000  # tensors, operator codes, buffers
MAX_OPERATORS = 10_000
SHARED, SMALL = 16, 2**20  # constants, scales and names, counted so, take at most so many times the file's bytes, and so many more
MAX_LINKS = 500_000  # inputs and outputs of all operators
MAX_NAME = 4_096
MAX_RANK = 8
MAX_ELEMENTS = 2**28
MAX_NETWORKS = 64
BLOCKS = "convert it again with a scale a channel (CHANNELWISE), or a scale a tensor"

DTYPES: Mapping[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.INT32: np.dtype(np.int32),
    schema.TensorType.INT64: np.dtype(np.int64),
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.BOOL: np.dtype(np.bool_),
}
PACKED: Mapping[int, int] = {schema.TensorType.INT4: 4, schema.TensorType.INT2: 2}  # constants of so many bits, several in a byte
OP_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
TYPE_NAMES = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}

_WINDOW = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
_SPREAD = ("DilationHFactor", "DilationWFactor")

# which options of an operator are read: (the schema's class, its fields)
OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "CONV_2D": ("Conv2DOptions", _WINDOW + _SPREAD),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", _WINDOW + _SPREAD),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat", "KeepNumDims")),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "DIV": ("DivOptions", ("FusedActivationFunction",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "GELU": ("GeluOptions", ("Approximate",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "STRIDED_SLICE": ("StridedSliceOptions", ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask")),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "PACK": ("PackOptions", ("Axis",)),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
}


@dataclass(frozen=True, eq=False)
class FileQuant:
    """scale float32 [n], zero_point int64 [n], n being 1 or the sides of the tensor along axis."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor as it stands in the file. dtype None: a type that is not read here, named by type_name.

    Constants of 4 and 2 bits are int8 here, each value in a byte of its own.
    """

    name: str
    shape: tuple[int, ...]
    open_sides: tuple[int, ...]
    dtype: np.dtype[Any] | None
    type_name: str
    data: Array | None
    quant: FileQuant | None


@dataclass(frozen=True)
class FileOp:
    """An operator: name of the schema (CUSTOM:<code> for custom ones), tensor indices (-1: absent), the options of OPTIONS."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class FileModel:
    """One network of a file: its only subgraph, or one of several."""

    tensors: tuple[FileTensor, ...]
    ops: tuple[FileOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str


def parse(data: bytes, where: str, signature: str | None = None) -> FileModel:
    """The file's content. `where` names it in messages.

    signature: which of several networks, as `networks` calls them. None: the only one, or that of the only signature.
    Raises UnusableFile where it is not a sound .tflite, or holds other networks, which it names.
    """
    if len(data) > MAX_FILE:
        raise UnusableFile(f"{where}: {len(data)} bytes are more than the {MAX_FILE} that are read")
    if len(data) < 16 or data[4:8] != b"TFL3":
        raise UnusableFile(f"{where} is not a .tflite file (the mark TFL3 is missing)")
    try:
        return _model(schema.Model.GetRootAs(data, 0), data, signature)
    except _Refused as refusal:
        raise UnusableFile(f"{where}: {refusal}", refusal.hint) from None
    except (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise UnusableFile(f"{where} is damaged: {error}") from error


class _Refused(Exception):
    """What is wrong with the file, and what to do; becomes UnusableFile in parse."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _refuse(message: str, hint: str = "") -> NoReturn:
    raise _Refused(message, hint)


def _model(model: Any, data: bytes, signature: str | None) -> FileModel:
    if model.Version() != 3:
        _refuse(f"schema version {model.Version()}, not 3")
    graph = model.Subgraphs(_chosen(model, signature))
    codes = [_code(model.OperatorCodes(i)) for i in range(_counted(model.OperatorCodesLength(), "operator codes"))]
    buffers = _counted(model.BuffersLength(), "buffers")
    tensors = tuple(_tensors(model, graph, buffers, data))
    ops = tuple(_ops(graph, codes, len(tensors)))
    inputs, outputs = (_indices(vector, len(tensors), "the graph", 0) for vector in (graph.InputsAsNumpy(), graph.OutputsAsNumpy()))
    return FileModel(tensors, ops, inputs, outputs, _text(model, 10))


def _chosen(model: Any, signature: str | None) -> int:
    """The number of the subgraph that is read. Those that other subgraphs call have no signature."""
    names = _networks(model)
    if signature is not None and signature in names:
        return names[signature]
    signatures = {names[name] for name in list(names)[: model.SignatureDefsLength()]}
    if signature is None and (len(set(names.values())) == 1 or len(signatures) == 1):
        return min(signatures or names.values())
    listed = ", ".join(repr(name) for name in names)
    what = f"has no network {signature!r}" if signature is not None else "holds several networks"
    _refuse(f"{what}; its networks are {listed}", f"say which:  nestling import FILE --signature {next(iter(names), 'NAME')}")


def _networks(model: Any) -> dict[str, int]:
    """Subgraphs by what they are called: by signatures, which come first, else by their names, or numbers where names are equal."""
    count = _counted(model.SubgraphsLength(), "subgraphs", MAX_NETWORKS)
    if not count:
        _refuse("no subgraph")
    signatures = [model.SignatureDefs(i) for i in range(_counted(model.SignatureDefsLength(), "signatures", MAX_NETWORKS))]
    names = {_text(signature, 8): int(signature.SubgraphIndex()) for signature in signatures}
    if len(names) < len(signatures) or any(index >= count for index in names.values()):
        _refuse("two signatures of one name, or one of a subgraph that does not exist")
    own = [_text(model.Subgraphs(i), 12) for i in range(count)]
    for index in sorted(set(range(count)) - set(names.values())):
        alone = own.count(own[index]) == 1 and own[index] and own[index] not in names
        names[own[index] if alone else str(index)] = index
    return names


def _tensors(model: Any, graph: Any, buffers: int, data: bytes) -> Iterator[FileTensor]:
    """Many can point to the same bytes of the file, so what they take in memory is counted."""
    total, room = 0, min(MAX_CONSTANTS, SHARED * len(data) + SMALL)
    for index in range(_counted(graph.TensorsLength(), "tensors")):
        tensor = graph.Tensors(index)
        name = _text(tensor, 10)
        label = f"tensor {index} {name!r}"
        shape = tuple(int(side) for side in _vector(tensor.ShapeAsNumpy(), MAX_RANK, label))
        signature = _vector(tensor.ShapeSignatureAsNumpy(), MAX_RANK, label)
        if any(side < 0 for side in shape) or math.prod(shape) > MAX_ELEMENTS:
            _refuse(f"{label} has the shape {list(shape)}")
        if tensor.Sparsity() is not None:
            _refuse(f"{label} is sparse, which is not read")
        if tensor.IsVariable():
            _refuse(f"{label} keeps a state between runs, which is not read")
        dtype, bits = DTYPES.get(tensor.Type()), PACKED.get(tensor.Type(), 0)
        values = _constant(_bytes_of(model, tensor.Buffer(), buffers, data, label), shape, dtype, bits, label)
        dtype = np.dtype(np.int8) if bits and values is not None else dtype
        quant = tensor.Quantization()
        total += len(name) + (0 if values is None else values.size * max(4, values.itemsize))
        total += 0 if quant is None else 12 * quant.ScaleLength() + 8 * quant.ZeroPointLength()
        if total > room:
            _refuse(f"its constants are larger than {room} bytes, of a file of that size")
        open_sides = tuple(axis for axis, side in enumerate(signature) if side < 0)
        type_name = TYPE_NAMES.get(tensor.Type(), str(tensor.Type()))
        yield FileTensor(name, shape, open_sides, dtype, type_name, values, _quant(quant, shape, values is not None, label))


def stored(buffer: Any, data: bytes) -> NDArray[np.uint8] | None:
    """A buffer's bytes as a view of the file, behind the flatbuffer where it says so; None where it has none.

    Raises ValueError where they would lie outside the file.
    """
    if buffer.Offset() > 1:  # from the file's beginning; large files are written so
        start, size = int(buffer.Offset()), int(buffer.Size())
        if start + size > len(data):
            raise ValueError(f"a buffer of {size} bytes at {start} does not lie within the file's {len(data)}")
        return np.frombuffer(data, np.uint8, size, start)
    values: Any = buffer.DataAsNumpy()
    return None if isinstance(values, int) else np.asarray(values)


def _bytes_of(model: Any, buffer: int, buffers: int, data: bytes, label: str) -> NDArray[np.uint8] | None:
    """Of a constant; None for an activation."""
    if buffer >= buffers:
        _refuse(f"{label} names buffer {buffer} of {buffers}")
    values = stored(model.Buffers(buffer), data) if buffer else None
    return None if values is None or values.size == 0 else values


def _constant(held: NDArray[np.uint8] | None, shape: tuple[int, ...], dtype: Any, bits: int, label: str) -> Array | None:
    """The constant's values, a view of the file where each has its own bytes."""
    if held is None or (dtype is None and not bits):
        return held  # bytes that nobody reads
    needed = packed_size(math.prod(shape), bits) if bits else math.prod(shape) * dtype.itemsize
    if held.size != needed:
        _refuse(f"{label} needs {needed} bytes, its buffer has {held.size}")
    if bits:
        return unpack(held, bits)[: math.prod(shape)].reshape(shape)
    return np.frombuffer(held, dtype.newbyteorder("<")).reshape(shape)


def _quant(quant: Any, shape: tuple[int, ...], constant: bool, label: str) -> FileQuant | None:
    if quant is None or quant.ScaleLength() == 0:
        return None
    if quant.DetailsType():
        _refuse(f"{label} has one scale a block, not one a channel", BLOCKS)
    largest = max(shape, default=1)
    scale = _vector(quant.ScaleAsNumpy(), largest, label).astype(np.float32)
    zero = _vector(quant.ZeroPointAsNumpy(), largest, label).astype(np.int64)
    axis = 0 if len(shape) == 1 else quant.QuantizedDimension()  # a bias may name the axis of its weights
    if len(scale) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scale)):
        _refuse(f"{label} has {len(scale)} scales along axis {axis} of {list(shape)}")
    if len(zero) not in (0, 1, len(scale)):
        _refuse(f"{label} has {len(scale)} scales and {len(zero)} zero points")
    if not np.all(np.isfinite(scale) & (scale >= 0)) or np.any(np.abs(zero) > 2**31 - 1):
        _refuse(f"{label} has a scale or zero point out of range")
    if len(scale) == 1 and scale[0] == 0 and not constant:
        return None  # an old way to say: not quantised
    return FileQuant(scale, np.broadcast_to(zero if len(zero) else np.zeros(1, np.int64), scale.shape), axis)


def _ops(graph: Any, codes: list[str], tensors: int) -> Iterator[FileOp]:
    links = 0
    for index in range(_counted(graph.OperatorsLength(), "operators", MAX_OPERATORS)):
        op = graph.Operators(index)
        if op.OpcodeIndex() >= len(codes):
            _refuse(f"operator {index} has the code {op.OpcodeIndex()} of {len(codes)}")
        name = codes[op.OpcodeIndex()]
        label = f"operator {index} ({name})"
        links += op.InputsLength() + op.OutputsLength()
        if links > MAX_LINKS:
            _refuse(f"its operators have more than {MAX_LINKS} inputs and outputs")
        inputs = _indices(op.InputsAsNumpy(), tensors, label, -1)
        outputs = _indices(op.OutputsAsNumpy(), tensors, label, 0)
        yield FileOp(name, inputs, outputs, _options(op, name, label))


def _options(op: Any, name: str, label: str) -> dict[str, int | float | bool]:
    if name not in OPTIONS:
        return {}
    kind, fields = OPTIONS[name]
    table = op.BuiltinOptions()
    options = getattr(schema, kind)()
    if table is None:  # left out: every option has its default
        return dict.fromkeys(fields, 0)
    if op.BuiltinOptionsType() != getattr(schema.BuiltinOptions, kind):
        _refuse(f"{label} has the options of another operator")
    options.Init(table.Bytes, table.Pos)
    return {field: getattr(options, field)() for field in fields}


def _code(code: Any) -> str:
    """The larger of the two fields counts: codes under 127 once stood in the deprecated one."""
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{_text(code, 6)}"
    return str(OP_NAMES.get(number, f"operator {number}"))


def _text(table: Any, slot: int) -> str:
    """A string field by its place in the vtable, at most MAX_NAME bytes of it: the generated accessors copy any length."""
    offset = table._tab.Offset(slot)
    if not offset:
        return ""
    start, length = table._tab.Vector(offset), table._tab.VectorLen(offset)
    text: str = bytes(table._tab.Bytes[start : start + min(length, MAX_NAME)]).decode(errors="replace")
    return text


def _indices(vector: Any, count: int, label: str, lowest: int) -> tuple[int, ...]:
    indices = tuple(int(index) for index in _vector(vector, MAX_LINKS, label))
    if any(not lowest <= index < count for index in indices):
        _refuse(f"{label} names a tensor that does not exist")
    return indices


def _vector(vector: Any, most: int, label: str) -> Any:
    """An empty array for a vector that is absent (flatbuffers gives 0)."""
    if isinstance(vector, int):
        return np.zeros(0, np.int64)
    if len(vector) > most:
        _refuse(f"{label} has a list of {len(vector)}, at most {most} make sense")
    return vector


def _counted(count: int, what: str, most: int = MAX_COUNT) -> int:
    if count > most:
        _refuse(f"{count} {what} are more than {most}")
    return count
