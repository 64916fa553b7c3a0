"""Reading an .onnx file that may be damaged, foreign or hostile, before any runtime sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx

from nestling.errors import UnusableFile
from nestling.formats.about import About, from_json
from nestling.preprocess.image import Numbers, shape_of

ABOUT = "nestling"  # the key in the file's metadata
AGAIN = "make it again:  nestling export my.nest --to onnx"


def read(content: bytes, name: str) -> tuple[Any, About]:
    """The checked model (onnx.ModelProto) and what it says about itself. name: the file's in messages.

    Raises UnusableFile as parse does, and for what was not printed by nestling or does not take one image of the size that it says.
    """
    model = parse(content, name)
    said = {entry.key: entry.value for entry in model.metadata_props}
    if ABOUT not in said:
        raise UnusableFile(f"{name} was not printed by nestling: it does not say its labels and preprocessing.", AGAIN)
    try:
        about = from_json(said[ABOUT], name)
    except UnusableFile as error:
        if name in error.message:
            raise
        raise UnusableFile(f"{name}: {error.message}", AGAIN) from error
    _require_image(model.graph, about, name)
    return model, about


def parse(content: bytes, name: str) -> Any:
    """The model, an onnx.ModelProto. Raises UnusableFile for what is damaged or refers to other files."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own kind
        raise UnusableFile(f"{name} is not a whole ONNX file.", AGAIN) from error
    outside = next((tensor.name for tensor in _constants(model) if _is_outside(tensor)), None)
    if outside is not None:
        raise UnusableFile(
            f"{name} keeps {outside!r} in another file; nestling writes one file and reads nothing beside it.", AGAIN
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # of several kinds, one a place of the damage
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnusableFile(f"{name} is damaged ({reason}).", AGAIN) from error
    return model


def _constants(message: Any) -> Iterator[Any]:
    """Every onnx.TensorProto at any depth: initialisers, attributes, graphs within graphs, functions."""
    for _, value in message.ListFields():
        for part in value if isinstance(value, Iterable) else (value,):
            if isinstance(part, onnx.TensorProto):
                yield part
            elif hasattr(part, "ListFields"):
                yield from _constants(part)


def _is_outside(tensor: Any) -> bool:
    return tensor.data_location != onnx.TensorProto.DEFAULT or bool(tensor.external_data)


def _require_image(graph: Any, about: About, name: str) -> None:
    """One image in, or the numbers that it says; float numbers out."""
    takes = [(value.type.tensor_type.elem_type, _shape(value)) for value in graph.input]
    p, wanted = about.preprocess, [1, *shape_of(about.preprocess)]
    kind = onnx.TensorProto.FLOAT if isinstance(p, Numbers) and p.dtype == "float32" else onnx.TensorProto.UINT8
    if takes != [(kind, wanted)]:
        found = ", ".join(str(shape) for _, shape in takes) or "nothing"
        what = f"{p.dtype} numbers" if isinstance(p, Numbers) else "one uint8 image"
        raise UnusableFile(f"{name} takes {found}, not {what} {wanted} as it says.", AGAIN)
    gives = {value.type.tensor_type.elem_type for value in graph.output}
    if gives != {onnx.TensorProto.FLOAT}:
        raise UnusableFile(f"{name} gives other things than float32 numbers.", AGAIN)


def _shape(value: Any) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
