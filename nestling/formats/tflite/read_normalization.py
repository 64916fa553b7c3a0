"""How an image's bytes become numbers in a .tflite file: CAST, arithmetic with constants, GATHER, (DE)QUANTIZE; read as one table.

While it is read a normalisation is a Lookup, the 256 answers of every channel; arithmetic with constants is done on these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nestling.errors import UnusableFile
from nestling.formats.tflite.read_builder import FileBuilder, Lookup
from nestling.graph import ir
from nestling.graph.fixed_point import round_half_away
from nestling.graph.ir import Array, Quant

MAX_CHANNELS = 4_096


def cast(b: FileBuilder) -> None:
    """Of an image's bytes: the beginning of a table."""
    index = b.op.inputs[0] if b.op.inputs else -1
    value, out = b.value(0), b.model.tensors[b.op.outputs[0]]
    if isinstance(value, Lookup) and value.values.dtype != np.int8 and out.type_name in ("FLOAT32", "INT32"):
        b.count(value.values.size)
        with np.errstate(all="ignore"):
            numbers = value.values.astype(np.float32 if out.type_name == "FLOAT32" else np.int32)
        b.values[b.op.outputs[0]] = replace(value, values=numbers)
        return
    if isinstance(value, str) and b.tensors[value].dtype == "float32" and out.type_name == "FLOAT32":
        b.unchanged()
        return
    image = b.tensors[value] if isinstance(value, str) else None
    if (
        image is None
        or image.dtype != "uint8"
        or len(image.shape) != 4
        or b.quants[index]
        or out.type_name not in ("FLOAT32", "INT32")
    ):
        b.refuse("only the bytes of an image become numbers")
    if image.shape[3] > MAX_CHANNELS:
        b.refuse("an image of that many channels")
    b.count(256 * image.shape[3])
    pixels = np.tile(np.arange(256, dtype=np.float32 if out.type_name == "FLOAT32" else np.int32), (image.shape[3], 1))
    b.values[b.op.outputs[0]] = Lookup(image.name, pixels, f"{b.names[b.op.outputs[0]]}:table")


def grown(b: FileBuilder, function: Callable[[Array, Array], Array]) -> bool:
    """Apply arithmetic with a constant to a lookup; False where the operator is no such thing."""
    values = b.value(0), b.value(1)
    if not any(isinstance(value, Lookup) for value in values) or not any(isinstance(value, np.ndarray) for value in values):
        return False
    place = 0 if isinstance(values[0], Lookup) else 1
    lookup, constant = values[place], values[1 - place]
    assert isinstance(lookup, Lookup) and isinstance(constant, np.ndarray)
    vector = _by_channel(constant, len(lookup.values))
    alone = b.readers[b.op.inputs[place]] == 1  # else there would be two tables of one image
    if lookup.whole or not alone or vector is None or vector.dtype != lookup.values.dtype or b.clamp() != "none":
        return False
    if lookup.values.dtype == np.int8:
        return False  # steps of a quantised input: no numbers to reckon with
    b.count(lookup.values.size)
    column = vector[:, None]
    with np.errstate(all="ignore"):
        result = function(*((lookup.values, column) if place == 0 else (column, lookup.values))).astype(vector.dtype)
    name = b.names[b.op.inputs[1 - place]]
    for part in (":mul", ":add", ":offsets"):
        name = name.removesuffix(part)
    ours = name != b.names[b.op.inputs[1 - place]]
    whole = b.names[b.op.inputs[1 - place]].endswith(":add")
    b.values[b.op.outputs[0]] = replace(lookup, values=result, name=name if ours else lookup.name, whole=whole)
    return True


def _by_channel(constant: Array, channels: int) -> Array | None:
    """A constant that is the same everywhere in the image as [C]; None where it is not."""
    if constant.size == 1:
        return np.repeat(constant.reshape(-1), channels)
    if constant.shape[-1:] != (channels,):
        return None
    rows = constant.reshape(-1, channels)
    return rows[0] if bool((rows == rows[0]).all()) else None


def gather(b: FileBuilder) -> None:
    """A flat table at the places that a lookup computes."""
    table, lookup = b.value(0), b.value(1)
    if (
        not isinstance(table, np.ndarray)
        or not isinstance(lookup, Lookup)
        or table.ndim != 1
        or b.op.options["Axis"] not in (0, -1)
    ):
        b.refuse("only the table of a normalisation is read")
    at = lookup.values
    if at.min() < 0 or at.max() >= len(table):
        raise UnusableFile(f"{b.where}: operator GATHER reads outside its table")
    out, index = b.op.outputs[0], b.op.inputs[0]
    values = table[at]
    quant = b.quants[out]
    if quant is not None and values.dtype == np.uint8:
        values = (values ^ np.uint8(128)).view(np.int8)
    b.values[out] = b.table(Lookup(lookup.image, values, b.names[index]), b.names[out], quant)


def quantize(b: FileBuilder) -> None:
    """Of a lookup: its table in integers. Else the node of this name."""
    value, index, out = b.value(0), b.op.inputs[0], b.op.outputs[0]
    quant = b.quants[out]
    whole = isinstance(value, Lookup) and value.whole and b.names[index] != f"{b.names[out]}:add"
    apart = whole or b.readers[index] > 1
    if isinstance(value, Lookup) and not apart and quant is not None and quant.axis is None and value.values.dtype == np.float32:
        b.count(value.values.size)
        b.values[out] = replace(value, values=_steps(value.values, quant))
        return
    b.node("quantize", ir.Quantize(), (b.read_tensor(0),))


def dequantize(b: FileBuilder) -> None:
    """Of a lookup of integers that nothing else reads: its real numbers, which go on growing. Else the node of this name."""
    value, index = b.value(0), b.op.inputs[0]
    quant = b.quants[index]
    if not isinstance(value, Lookup) or value.whole or quant is None or b.readers[index] > 1:
        b.node("dequantize", ir.Dequantize(), (b.read_tensor(0),))
        return
    b.count(value.values.size)
    real = quant.real(value.values)
    b.values[b.op.outputs[0]] = replace(value, values=real)


def _steps(real: Array, quant: Quant) -> Array:
    """QUANTIZE's arithmetic: the nearest step, halves away from zero."""
    steps = round_half_away((real / quant.scale[0]).astype(np.float32)) + int(quant.zero_point[0])
    return np.clip(steps, -128, 127).astype(np.int8)
