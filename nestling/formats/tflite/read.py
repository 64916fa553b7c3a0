"""A .tflite file of anybody's as a Graph: float, int8, or the old uint8 (shifted by 128, exactly).

Tensors keep their names, but for those whose axes the file has in torch's order (read_layouts.py). Padding becomes explicit, a RELU
of its own becomes its producer's clamp or a multiplication by one, and the arithmetic that files print for `table` becomes a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nestling.errors import UnusableFile
from nestling.formats.format import AS_IT_IS, ReadConfig
from nestling.formats.tflite import metadata
from nestling.formats.tflite.file import parse
from nestling.formats.tflite.read_builder import FileBuilder, Shuffled, Turned
from nestling.formats.tflite.read_constants import FOLDS
from nestling.formats.tflite.read_layouts import is_channels_first, turned
from nestling.formats.tflite.read_operators import READERS
from nestling.graph import spec
from nestling.graph.ir import Array, Graph
from nestling.outside import content


def read_tflite(
    source: bytes | Path, where: str = "", pixels: Array | None = None, config: ReadConfig = AS_IT_IS
) -> tuple[Graph, dict[str, Any]]:
    """A .tflite file as a checked Graph, and what it says about itself.

    source: the file's bytes or its path; where: its name in messages (the path by default).
    pixels: what each byte of an image becomes at the file's one input, [C, 256]: float32 where it takes floats, int8 where it takes
    integers. With it the Graph takes the image itself, and a table holds these and what the file does to them first.
    config: which of several networks, and the size of an image of any size.
    Returns the Graph and {"labels": tuple of str, "preprocess": dict | None, "description": str}.
    The inputs keep the file's dtype: float32, uint8 (an image without a quant) or int8; a quantised uint8 becomes int8, 128 less.
    Raises UnusableFile for what is damaged, UnsupportedOp, naming the operator, for what the Graph does not hold.
    """
    if isinstance(source, Path):
        where = where or str(source)
        source = content(source)
    where = where or "the .tflite file"
    model = parse(source, where, config.signature)
    try:
        graph = _graph(FileBuilder(model, where, source, config.size), pixels)
        spec.require_proportion(graph, where)
    except (ValueError, IndexError, TypeError, OverflowError) as error:  # shapes that do not fit and the like
        raise UnusableFile(f"{where}: {error}") from error
    about = metadata.about(source, where)
    return spec.check(graph, where), {
        "labels": about.labels,
        "preprocess": about.preprocess,
        "description": model.description,
    }


def _graph(b: FileBuilder, pixels: Array | None) -> Graph:
    """The operators one after the other; not yet checked."""
    inputs = tuple(b.input(index, pixels, is_channels_first(b.model, index)) for index in b.model.inputs)
    for op in b.model.ops:
        b.op = op
        if not b.op.outputs or b.op.outputs[0] in b.values:
            raise UnusableFile(f"{b.where}: operator {b.op.name} writes nothing, or what is written already")
        if _folded(b):
            continue
        reader = READERS.get(b.op.name, _unknown)
        if any(isinstance(b.values.get(index), Turned | Shuffled) for index in b.op.inputs):
            turned(b, reader)
        else:
            reader(b)
    outputs = tuple(b.activation(index) for index in b.model.outputs)
    used = {*inputs, *outputs, *(name for node in b.nodes for name in (*node.inputs, *node.outputs))}
    return Graph({name: tensor for name, tensor in b.tensors.items() if name in used}, tuple(b.nodes), inputs, outputs)


def _folded(b: FileBuilder) -> bool:
    """Compute an operator of constants, whose values alone go on. Whether it was one."""
    known = [b.values.get(index) for index in b.op.inputs]
    out = b.op.outputs[0]
    if b.op.name == "SHAPE" and known and (shape := b.shape_of(known[0])) is not None:
        b.values[out] = np.array(shape, np.int64)
        return True
    constants = tuple(value for value in known if isinstance(value, np.ndarray))
    if b.op.name not in FOLDS or not known or len(constants) < len(known):
        return False
    b.count(sum(value.size for value in constants))
    b.values[out] = FOLDS[b.op.name](b.op, constants, tuple(b.model.tensors[index] for index in b.op.inputs))
    return True


def _unknown(b: FileBuilder) -> None:
    b.refuse("the Graph holds no such operator")
