"""A Graph as plain JSON values and named arrays, for storage; and back, with everything checked, for a stored file may be hostile.

{"schema": 1 | 2, "inputs": [...], "outputs": [...],
 "tensors": [{"name", "shape", "dtype", "constant": bool, "quant": null | {"axis": null | int}, "bits": 2 | 4}],
 "nodes": [{"op", "inputs", "outputs", "attrs": {...}, "source"}]}

The arrays of tensor number i are called "i" (its constant), "i.scale" and "i.zero_point". Where "bits" is there, which only schema
2 has, the constant is int8 and its array uint8 [bytes]: its values in C order, packed as packed.py says. A graph without such a
constant is written as schema 1, so that older programs go on reading it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from nestling.graph import packed, spec
from nestling.graph.ir import OPS, Array, Attrs, Graph, Node, Quant, Tensor, attrs_to_plain
from nestling.outside import Record

WHOLE, PACKED = 1, 2  # schemas
MAX_TENSORS = 50_000


def to_plain(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """(JSON values, arrays by name) of a graph. int8 constants whose values all fit 4 or 2 bits are packed, no other is copied."""
    plain, arrays = _whole(graph)
    for index, item in enumerate(plain["tensors"]):
        data = arrays[f"{index}"] if item["constant"] and item["dtype"] == "int8" else None
        if data is not None and (bits := packed.bits_for(data)) in packed.FEW:
            plain["schema"], item["bits"], arrays[f"{index}"] = PACKED, bits, packed.pack(data, bits)
    return plain, arrays


def _whole(graph: Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """The same with every constant as it is."""
    arrays: dict[str, Array] = {}
    tensors: list[dict[str, Any]] = []
    for index, tensor in enumerate(graph.tensors.values()):
        if tensor.data is not None:
            arrays[f"{index}"] = np.ascontiguousarray(tensor.data).reshape(tensor.shape)
        if tensor.quant is not None:
            arrays[f"{index}.scale"], arrays[f"{index}.zero_point"] = tensor.quant.scale, tensor.quant.zero_point
        quant = None if tensor.quant is None else {"axis": tensor.quant.axis}
        constant = tensor.data is not None
        tensors.append(
            {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype, "constant": constant, "quant": quant}
        )
    nodes = [
        {
            "op": node.op,
            "inputs": list(node.inputs),
            "outputs": list(node.outputs),
            "attrs": attrs_to_plain(node.attrs),
            "source": node.source,
        }
        for node in graph.nodes
    ]
    ends = {"inputs": list(graph.inputs), "outputs": list(graph.outputs)}
    return {"schema": WHOLE, **ends, "tensors": tensors, "nodes": nodes}, arrays


def digest(graph: Graph) -> str:
    """SHA-256, 64 hex digits, of the graph as plain values and arrays: the same for graphs that compute the same by the same names.

    Where in somebody's source a layer stood does not count, nor how a constant is stored.
    """
    plain, arrays = _whole(graph)
    plain["nodes"] = [{key: value for key, value in node.items() if key != "source"} for node in plain["nodes"]]
    made = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        made.update(f"\n{name} {array.dtype.name} {list(array.shape)}\n".encode())
        made.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return made.hexdigest()


def from_plain(plain: object, arrays: Mapping[str, Array], where: str = "the stored graph") -> Graph:
    """The checked graph. Raises UnusableFile, naming `where` and the place, for anything that to_plain does not write.

    Nothing is allocated by a size that stands in `plain`: the arrays are those given, packed ones at most four times as large.
    """
    record = Record(plain, where)
    record.only("schema", "inputs", "outputs", "tensors", "nodes")
    schema = record.get("schema", int)
    if schema not in (WHOLE, PACKED):
        newer = "; it was written by a newer nestling" if schema > PACKED else ""
        record.refuse(f"it has schema {schema}, this nestling reads {WHOLE} and {PACKED}{newer}")
    listed = record.records("tensors", MAX_TENSORS)
    tensors = [_tensor(item, index, arrays, schema) for index, item in enumerate(listed)]
    nodes = tuple(_node(item) for item in record.records("nodes", spec.MAX_NODES))
    by_name = {tensor.name: tensor for tensor in tensors}
    if len(by_name) < len(tensors):
        record.refuse("two tensors have one name")
    graph = spec.check(Graph(by_name, nodes, record.names("inputs"), record.names("outputs")), where)
    spec.require_proportion(graph, where)
    return graph


def _tensor(item: Record, index: int, arrays: Mapping[str, Array], schema: int) -> Tensor:
    few = schema == PACKED and "bits" in item.plain
    item.only("name", "shape", "dtype", "constant", "quant", *(("bits",) if few else ()))
    shape = item.list_of("shape", int, spec.MAX_RANK)
    data = _array(item, arrays, f"{index}") if item.get("constant", bool) else None
    if few:
        data = _unpacked(item, data, shape)
    quant = None
    if item.plain["quant"] is not None:
        inner = Record(item.plain["quant"], f"{item.where}: quant")
        inner.only("axis")
        axis = inner.get("axis", (int, type(None)))
        quant = Quant(_array(item, arrays, f"{index}.scale"), _array(item, arrays, f"{index}.zero_point"), axis)  # type: ignore[arg-type]  # the rules (spec.py) look at it
    return Tensor(item.get("name", str), shape, item.get("dtype", str), data, quant)


def _array(item: Record, arrays: Mapping[str, Array], name: str) -> Array:
    """An array as given; spec.check holds its dtype and shape against the tensor."""
    if name not in arrays:
        item.refuse(f"array {name!r} is missing")
    return arrays[name]


def _unpacked(item: Record, content: Array | None, shape: tuple[int, ...]) -> Array:
    """The int8 values that a packed constant stands for."""
    bits, count = item.get("bits", int), math.prod(shape)
    if bits not in packed.FEW or content is None or item.get("dtype", str) != "int8":
        item.refuse(f"{str(bits)[:20]} bits: only int8 constants are packed, in 2 or 4")
    if min(shape, default=1) < 0 or count > spec.MAX_ELEMENTS:
        item.refuse(f"a constant has at most {spec.MAX_ELEMENTS} elements")
    size = packed.packed_size(count, bits)
    if content.dtype != np.uint8 or content.shape != (size,):
        item.refuse(f"{count} values of {bits} bits take {size} bytes, its array is {content.dtype} {list(content.shape)}")
    values = packed.unpack(np.asarray(content, np.uint8), bits)
    if values[count:].any():
        item.refuse("bits are set behind its last value")
    return values[:count].reshape(shape)


def _node(item: Record) -> Node:
    item.only("op", "inputs", "outputs", "attrs", "source")
    op = item.get("op", str)
    if op not in OPS:
        item.refuse(f"there is no op {op[:40]!r}")
    attrs = _attrs(Record(item.plain["attrs"], f"{item.where}: attrs"), OPS[op])
    return Node(op, item.names("inputs"), item.names("outputs"), attrs, item.get("source", str))


def _attrs(item: Record, kind: type[Attrs]) -> Attrs:
    """Lists become tuples; spec.check holds types and sizes against the op."""
    item.only(*(field.name for field in fields(kind)))
    values: dict[str, Any] = {}
    for name, value in item.plain.items():
        if isinstance(value, list):
            value = item.list_of(name, int, 8)
        values[name] = value
    return kind(**values)
