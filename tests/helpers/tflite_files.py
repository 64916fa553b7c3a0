"""Files of any kind, written with LiteRT's schema, and LiteRT's own answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from nestling.formats.tflite.flatbuffer import FileTensor, Listing, Operator, write
from nestling.graph.ir import Array, Quant

CODE = schema.BuiltinOperator


def quant(scale: float, zero: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero], np.int32))


def activation(name: str, shape: Sequence[int], q: Quant | None = None, dtype: str = "") -> FileTensor:
    return FileTensor(name, tuple(shape), dtype or ("int8" if q else "float32"), None, q)


def constant(name: str, data: Array, q: Quant | None = None) -> FileTensor:
    return FileTensor(name, data.shape, str(data.dtype), data, q)


def ints(name: str, *values: int) -> FileTensor:
    return constant(name, np.array(values, np.int32))


def file(tensors: Sequence[FileTensor], operators: Sequence[Operator], out: str = "y") -> bytes:
    return write(Listing({t.name: t for t in tensors}, tuple(operators), ("x",), (out,)), {})


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def changed(data: bytes, change: Callable[[schema.ModelT], object]) -> bytes:
    """The file after `change` was done to what it holds."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    change(model)
    return packed(model)


def op(code: int, inputs: str, out: str, options: object = None, version: int = 2) -> Operator:
    return Operator(code, tuple(inputs.split()), (out,), options, version)


def judged(data: bytes, feed: Array) -> Array:
    judge = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    judge.allocate_tensors()
    judge.set_tensor(judge.get_input_details()[0]["index"], feed)
    judge.invoke()
    return judge.get_tensor(judge.get_output_details()[0]["index"])


def standard_metadata(mean: list[float], std: list[float]) -> bytes:
    """ModelMetadata with NormalizationOptions of the first input, by the field numbers of metadata_schema.fbs."""
    b = flatbuffers.Builder()

    def floats(values: list[float]) -> int:
        return b.CreateNumpyVector(np.array(values, np.float32))

    def table(fields: int, *slots: tuple[int, int]) -> int:
        b.StartObject(fields)
        for slot, offset in slots:
            b.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return b.EndObject()

    def vector(offset: int) -> int:
        b.StartVector(4, 1, 4)
        b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    options = table(2, (0, floats(mean)), (1, floats(std)))
    b.StartObject(2)
    b.PrependUint8Slot(0, 1, 0)  # ProcessUnitOptions.NormalizationOptions
    b.PrependUOffsetTRelativeSlot(1, options, 0)
    unit = b.EndObject()
    tensor = table(7, (4, vector(unit)))
    subgraph = table(7, (2, vector(tensor)))
    b.Finish(table(8, (3, vector(subgraph))), file_identifier=b"M001")
    return bytes(b.Output())
