"""What a .tflite file says about itself: labels and preprocessing, for other people's tools and for ours.

These entries are written into the file's metadata:

    TFLITE_METADATA           the standard's ModelMetadata (metadata_schema.fbs of TFLite Support, identifier "M001"): an RGB or
                              grey image comes in, one score a label goes out; labels.txt hangs behind the file as a zip
    nestling                  JSON {"schema", "labels", "preprocess", "learned_from"}
    nestling_table:<tensor>   only where a float table was printed as arithmetic that is an ulp off: its float32 [C, 256] values

The standard's NormalizationOptions say what an application still has to do to an image; here that is nothing (mean 0, std 1), for
the network takes bytes and normalises them itself. The real mean and std stand in the JSON.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestling.bundle import MOST_LABELS, fingerprints_in
from nestling.errors import UnusableFile
from nestling.formats import affine_table
from nestling.formats.affine_table import Float32s
from nestling.formats.tflite.file import stored
from nestling.graph.ir import Graph
from nestling.outside import Record, parsed
from nestling.printable import json_text

SCHEMA = 1
STANDARD, OURS, TABLE = "TFLITE_METADATA", "nestling", "nestling_table:"
LABELS_FILE = "labels.txt"
AGAIN = "print it again:  nestling export MODEL --to tflite"
MOST_ENTRIES, LONGEST_NAME = 256, 4_096  # of the metadata; and bytes of a name
LARGEST_LABELS = 1 << 24  # bytes; a zip that claims more is not a list of labels

# values of enums and unions, and field numbers, of metadata_schema.fbs
TENSOR_AXIS_LABELS = 2
RGB, GRAYSCALE = 1, 2
IMAGE_PROPERTIES = 2  # in the union ContentProperties
NORMALIZATION_OPTIONS = 1  # in the union ProcessUnitOptions
MIN_PARSER_VERSION = "1.0.0"


@dataclass(frozen=True)
class FileAbout:
    """What a file says about itself. labels: (), preprocess: None and learned_from: {} where it says nothing."""

    labels: tuple[str, ...]
    preprocess: Mapping[str, Any] | None
    learned_from: Mapping[str, Any]


def entries(
    graph: Graph,
    labels: Sequence[str],
    preprocess: Mapping[str, object] | None,
    learned_from: Mapping[str, object],
    name: str,
) -> dict[str, bytes]:
    """The metadata entries of a printed Graph, by name."""
    ours = {"schema": SCHEMA, "labels": list(labels), "preprocess": preprocess, "learned_from": dict(learned_from)}
    found = {OURS: json_text(ours, sort_keys=True).encode()}
    for node in graph.nodes:
        if node.op == "table":
            table = graph.tensors[node.inputs[1]]
            constants = None if table.data is None or table.dtype != "float32" else affine_table.affine(table.data, None)
            if constants and table.data is not None and affine_table.evaluate(*constants, None).tobytes() != table.data.tobytes():
                found[TABLE + table.name] = table.data.tobytes()
    image = preprocess is None or preprocess.get("kind") != "numbers"
    return {**found, STANDARD: _model_metadata(graph, labels, name, image)}


def with_labels_file(model: bytes, labels: Sequence[str]) -> bytes:
    """The file with labels.txt, one label a line, as an uncompressed zip behind it."""
    if not labels:
        return model
    whole = io.BytesIO()
    whole.write(model)
    with zipfile.ZipFile(whole, "a") as archive:
        member = zipfile.ZipInfo(LABELS_FILE, date_time=(1980, 1, 1, 0, 0, 0))  # equal labels, equal bytes
        archive.writestr(member, "".join(f"{label}\n" for label in labels).encode("utf-8", "backslashreplace"))
    return whole.getvalue()


# ---- reading --------------------------------------------------------------------------------------------------------------


def read_entries(model: bytes) -> dict[str, memoryview]:
    """The metadata entries of a file, by name; views of `model`, nothing is copied. Raises ValueError on a damaged file."""
    try:
        root = schema.Model.GetRootAs(model, 0)
        count = root.MetadataLength()
        if count > MOST_ENTRIES:
            raise ValueError(f"{count} entries")
        found: dict[str, memoryview] = {}
        for i in range(count):
            entry = root.Metadata(i)
            buffer, name = root.Buffers(entry.Buffer()), _name(entry)
            content = None if buffer is None else stored(buffer, model)
            if name is not None and content is not None:
                found[name] = content.data
        return found
    except (struct.error, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"its metadata cannot be read ({error})") from error


def _name(entry: Any) -> str | None:
    """Many entries may point to one name, so its length counts before it is copied."""
    place = entry._tab.Offset(4)
    if not place or entry._tab.VectorLen(place) > LONGEST_NAME:
        return None
    start = entry._tab.Vector(place)
    return bytes(entry._tab.Bytes[start : start + entry._tab.VectorLen(place)]).decode()


def about(model: bytes, file: str) -> FileAbout:
    """Labels and preprocessing of a file: from our entry, else from the standard's labels.txt, else nothing.

    Raises UnusableFile, naming `file`, where these are damaged.
    """
    try:
        ours = read_entries(model).get(OURS)
        if ours is None:
            return FileAbout(_labels_file(model), None, {})
    except ValueError as error:
        raise UnusableFile(f"{file} is damaged: {error}.", AGAIN) from error
    entry = f"{file}: its entry {OURS!r}"
    record = Record(parsed(bytes(ours), entry, AGAIN), f"{entry} is not of schema {SCHEMA}", AGAIN)
    if record.whole("schema") != SCHEMA:
        record.refuse(f"it is of schema {record.plain['schema']}")
    learned = record.record("learned_from")
    origin = {"seed": learned.optional("seed", learned.seed), "data": learned.optional("data", learned.text, "")}
    origin["test"] = learned.optional("test", lambda name: fingerprints_in(learned, name), ())
    preprocess = record.get("preprocess", (dict, type(None)))
    return FileAbout(record.names("labels", MOST_LABELS), preprocess, learned.plain | origin)


def exact_table(model: bytes, table: str, arithmetic: Float32s) -> Float32s:
    """The float table as it was before it became arithmetic, float32 [C, 256]; `arithmetic` itself where the file keeps no other.

    A kept table that is not what the operators compute is no table of theirs, and is not believed.
    """
    kept = read_entries(model).get(TABLE + table)
    if kept is None or kept.nbytes != arithmetic.nbytes:
        return arithmetic
    values: Float32s = np.frombuffer(kept, np.float32).reshape(arithmetic.shape).copy()
    close = np.abs(values - arithmetic).max() <= affine_table.FLOAT_TOLERANCE * np.abs(values).max()
    return values if close else arithmetic


def _labels_file(model: bytes) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            names = [info for info in archive.infolist() if info.filename.endswith(".txt") and info.file_size <= LARGEST_LABELS]
            lines = archive.read(names[0]).decode().rstrip("\r\n").split("\n") if names else []
            return tuple(line.rstrip("\r") for line in lines)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, OverflowError, EOFError, OSError, struct.error):
        return ()  # most files have no zip behind them, and other people's labels are not worth a refusal


# ---- the standard's flatbuffer, by hand: no installed package has classes for it ----------------------------------

Slot = tuple[int, str, Any]  # field number, kind ("offset", "byte" or "uint32"), value


def _model_metadata(graph: Graph, labels: Sequence[str], name: str, image: bool) -> bytes:
    b = flatbuffers.Builder(1024)
    inputs = [_image(b, graph.tensors[tensor].shape if image else (), tensor) for tensor in graph.inputs]
    outputs = [_scores(b, tensor, bool(labels) and i == 0) for i, tensor in enumerate(graph.outputs)]
    subgraph = _table(b, 10, [(2, "offset", _vector(b, inputs)), (3, "offset", _vector(b, outputs))])
    fields = [(0, name), (7, MIN_PARSER_VERSION)]
    strings: list[Slot] = [(slot, "offset", b.CreateString(text)) for slot, text in fields]
    root = _table(b, 8, [*strings, (3, "offset", _vector(b, [subgraph]))])
    b.Finish(root, file_identifier=b"M001")
    return bytes(b.Output())


def _image(b: flatbuffers.Builder, shape: tuple[int, ...], name: str) -> int:
    """TensorMetadata of an image that comes in as it is; of another shape than an image's only the name."""
    slots: list[Slot] = [(0, "offset", b.CreateString(name))]
    if len(shape) == 4:
        _, height, width, channels = shape
        size = _table(b, 2, [(0, "uint32", width), (1, "uint32", height)])
        image = _table(b, 2, [(0, "byte", GRAYSCALE if channels == 1 else RGB), (1, "offset", size)])
        content = _table(b, 3, [(0, "byte", IMAGE_PROPERTIES), (1, "offset", image)])
        mean, std = (b.CreateNumpyVector(np.full(channels, value, np.float32)) for value in (0, 1))
        options = _table(b, 2, [(0, "offset", mean), (1, "offset", std)])
        unit = _table(b, 2, [(0, "byte", NORMALIZATION_OPTIONS), (1, "offset", options)])
        slots += [(3, "offset", content), (4, "offset", _vector(b, [unit]))]
    return _table(b, 7, slots)


def _scores(b: flatbuffers.Builder, name: str, labelled: bool) -> int:
    """TensorMetadata of an output; the first has the labels."""
    slots: list[Slot] = [(0, "offset", b.CreateString(name))]
    if labelled:
        file = _table(b, 5, [(0, "offset", b.CreateString(LABELS_FILE)), (2, "byte", TENSOR_AXIS_LABELS)])
        slots.append((6, "offset", _vector(b, [file])))
    return _table(b, 7, slots)


def _table(b: flatbuffers.Builder, fields: int, slots: Sequence[Slot]) -> int:
    b.StartObject(fields)
    for slot, kind, value in slots:
        match kind:
            case "offset":
                b.PrependUOffsetTRelativeSlot(slot, value, 0)
            case "byte":
                b.PrependInt8Slot(slot, value, 0)
            case _:
                b.PrependUint32Slot(slot, value, 0)
    return int(b.EndObject())


def _vector(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())
