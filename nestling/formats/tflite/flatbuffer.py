"""The .tflite file itself: a flat list of tensors and operators, written with the flatbuffer schema that LiteRT ships.

Nothing here knows a Graph: tflite.py says which operators a Graph becomes, this file says which bytes they become.
Format: tensorflow/compiler/mlir/lite/schema/schema.fbs (version 3, file identifier "TFL3").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestling.errors import NestlingError
from nestling.graph.ir import Array, Quant

TYPES: Mapping[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
}
ALIGNMENT = 16  # of every constant, as the schema asks (force_align): kernels read weights straight from the file
LARGEST = (1 << 31) - (1 << 20)  # offsets in a flatbuffer are 32 bits


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor as the file holds it: beside the Graph's types also float16. data is None for activations."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    quant: Quant | None = None


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator: a value of schema.BuiltinOperator, names of tensors, and the schema's options object (None where it has none).

    version: the least version of the operator that has these types; interpreters refuse what they are too old for.
    """

    code: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: object | None = None
    version: int = 1


@dataclass(frozen=True, eq=False)
class Listing:
    """The one subgraph of a file: tensors by name, operators in running order, names of what comes in and goes out."""

    tensors: Mapping[str, FileTensor]
    operators: tuple[Operator, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Buffer:
    """A constant's bytes, copied once; the generated BufferT aligns them to one byte only."""

    data: bytes | memoryview

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (ModelT calls it)
        length = len(self.data)
        start = None
        if length:
            builder.StartVector(1, length, ALIGNMENT)
            builder.head -= length
            builder.Bytes[builder.head : builder.head + length] = self.data
            start = builder.EndVector()
        schema.BufferStart(builder)
        if start is not None:
            schema.BufferAddData(builder, start)
        return int(schema.BufferEnd(builder))


def write(listing: Listing, metadata: Mapping[str, bytes], description: str = "nestling") -> bytes:
    """The bytes of a .tflite file with these named metadata entries.

    Raises NestlingError where the file would pass two gigabytes.
    """
    tensors = list(listing.tensors.values())
    index = {tensor.name: i for i, tensor in enumerate(tensors)}
    buffers = [_Buffer(b"")]  # buffer 0 is empty by convention: what has no data points to it
    model_tensors = []
    for tensor in tensors:
        if tensor.data is not None:
            buffers.append(_Buffer(np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).data))
        model_tensors.append(_tensor(tensor, 0 if tensor.data is None else len(buffers) - 1))
    entries = []
    for name, content in metadata.items():
        buffers.append(_Buffer(content))
        entries.append(schema.MetadataT(name=name, buffer=len(buffers) - 1))

    codes = sorted({(operator.code, operator.version) for operator in listing.operators})
    subgraph = schema.SubGraphT(
        tensors=model_tensors,
        inputs=_indices(listing.inputs, index),
        outputs=_indices(listing.outputs, index),
        operators=[_operator(operator, codes.index((operator.code, operator.version)), index) for operator in listing.operators],
        name="main",
    )
    model = schema.ModelT(
        version=3,
        operatorCodes=[
            # the deprecated field is one signed byte: old readers see a placeholder where the code does not fit
            schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)
            for code, version in codes
        ],
        subgraphs=[subgraph],
        description=description,
        buffers=buffers,
        metadata=entries,
    )
    size = sum(len(buffer.data) + ALIGNMENT for buffer in buffers)
    if size > LARGEST:
        raise NestlingError(f"a .tflite file holds at most 2 GB, this network's constants take {size / 1e9:.1f} GB")
    builder = flatbuffers.Builder(size + 1024 * (len(tensors) + 16))  # large enough not to be copied while it grows
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(tensor: FileTensor, buffer: int) -> object:
    return schema.TensorT(
        shape=list(tensor.shape),
        type=TYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=None if tensor.quant is None else _quantization(tensor.quant),
    )


def _quantization(quant: Quant) -> object:
    return schema.QuantizationParametersT(
        scale=quant.scale.astype(np.float32),
        zeroPoint=quant.zero_point.astype(np.int64),
        quantizedDimension=quant.axis or 0,
    )


def _operator(operator: Operator, code: int, index: Mapping[str, int]) -> object:
    kind = 0 if operator.options is None else getattr(schema.BuiltinOptions, type(operator.options).__name__.removesuffix("T"))
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=_indices(operator.inputs, index),
        outputs=_indices(operator.outputs, index),
        builtinOptionsType=kind,
        builtinOptions=operator.options,
    )


def _indices(names: Sequence[str], index: Mapping[str, int]) -> list[int]:
    return [index[name] for name in names]
