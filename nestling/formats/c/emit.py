"""A Program as files: the glue, the weights, the kernels that it calls, what its machine needs, and a README with the numbers.

The C stands in templates/; here are the values for it, and how a number or a name is written in C.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from nestling.errors import NestlingError
from nestling.formats.about import About, to_json
from nestling.formats.c import machines, names
from nestling.formats.c.arrange import constants, notes
from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.layers import (
    Constant,
    Crew,
    Parts,
    Pointers,
    Program,
    Read,
    Room,
    Scratch,
    Struct,
    Whole,
    Written,
    bytes_of,
    plane,
)
from nestling.formats.c.machines import HOST, Machine
from nestling.formats.c.plan.plan import Plan

RUNTIME = Path(__file__).with_name("runtime")
BESIDE = ("Makefile", "README.md")  # the network's own files, also from templates
ABOUT = "about.json"
CREW = ("nst_crew.c", "nst_threads.c", "nst_kit_*.c")
BENCH = ("main_bench.c",)
A_LINE = {"int8_t": 32, "int16_t": 20, "int32_t": 10, "float": 8, "double": 5}  # numbers
INT8 = np.array([str(value) for value in range(-128, 128)], object)


@dataclass(frozen=True)
class Embedding:
    """What PREFIX_features gives. said: what it is, in words."""

    size: int
    scale: float
    zero: int
    said: str


def files(
    program: Program, planned: Plan, machine: Machine, about: About, name: str = "", prefix: str = names.USUAL
) -> dict[str, bytes]:
    """The folder's files, content by name.

    planned: see arrange.py. prefix: what its symbols, macros and files begin with; name: what it is called in
    comments, as that if "". Raises NestlingError for constants that are no numbers, or a prefix that C does not take.
    """
    names.require_name(prefix)
    classes = math.prod(program.tensors[program.outputs[0]].shape)
    if len(about.labels) != classes:
        about = replace(about, labels=tuple(f"class {i}" for i in range(classes)))
    runtime = _runtime(program, machine)
    others = machines.files(machine)
    bench = [file for file in others if file.endswith(".c")]
    own = {what: names.file(prefix, what) for what in names.OWN_FILES}
    network = [own["model.c"], own["weights.c"], *(file for file in runtime if file.endswith(".c"))]
    values = _values(program, planned, machine, about, name or prefix)
    values |= {"prefix": prefix, "network": network, "bench": bench}
    environment = _environment()
    templates = own | {file: file for file in BESIDE}
    made = {file: environment.get_template(f"{what}.j2").render(values).encode() for what, file in templates.items()}
    made |= {file: path.read_bytes() for file, path in runtime.items()}
    made |= {file: names.renamed(path.read_bytes(), prefix) for file, path in others.items()}
    return made | {ABOUT: to_json(replace(about, machine=machine.name)).encode()}


def _values(program: Program, planned: Plan, machine: Machine, about: About, name: str) -> dict[str, Any]:
    """What the templates know."""
    tensor = program.tensors[program.embedding]
    scores = program.layers[-1].function == "nst_dequantize" and program.layers[-1].reads == (program.embedding,)
    said = "the network's scores in integers" if scores else "what the last dense layer reads"

    def shape(tensor: str) -> str:
        return str(list(program.tensors[tensor].shape[1:]))

    def heading(index: int) -> str:
        """3  depthwise 3x3 s2   [48, 48, 16] -> [24, 24, 16]   in 9216 -> out 0   relu6   0.08 M MACs"""
        layer = program.layers[index]
        sources = " and ".join(_place(read, program, planned) for read in layer.reads)
        said = [
            f"{index}  {layer.kind}",
            f"{shape(layer.reads[0])} -> {shape(layer.writes)}",
            f"in {sources} -> out {_place(layer.writes, program, planned)}",
            "" if layer.clamp == "none" else layer.clamp,
            f"{layer.macs / 1e6:.2f} M MACs" if layer.macs else "",
            layer.source,
        ]
        return comment("   ".join(part for part in said if part))

    return {
        "program": program,
        "headers": sorted({layer.header for layer in program.layers}),
        "plan": planned,
        "machine": machine,
        "alignment": machine.alignment,
        "name": name,
        "image": plane(program.tensors[program.inputs[0]]),
        "labels": about.labels,
        "notes": notes(program),
        "digest": list(bytes.fromhex(about.graph)) or [0],
        "embedding": Embedding(math.prod(tensor.shape), pack.scale(tensor), pack.zero_point(tensor), said),
        "tail": _tail(program),
        "macs": sum(layer.macs for layer in program.layers),
        "constants": constants(program),
        "peak": next((i for i, layer in enumerate(program.layers) if layer.writes == planned.peak_step), 0),
        "crewed": _crewed(program),
        "idle": _crewed(program) and not any(Crew() in layer.arguments for layer in program.layers[: _tail(program)]),
        "scratch": max((layer.scratch for layer in program.layers if layer.feature == HOST), default=0),
        "floats": any(layer.function == "nst_head" for layer in program.layers),
        "shape": shape,
        "heading": heading,
        "bytes_of": bytes_of,
        "plane": plane,
    }


def _place(tensor: str, program: Program, planned: Plan) -> str:
    """Where a tensor lies, in words."""
    return "image" if tensor in program.inputs else "logits" if tensor in program.outputs else str(planned.offsets[tensor])


def _tail(program: Program) -> int:
    """The number of the first layer that the embedding does not need to be there."""
    root = program.root(program.embedding)[0]
    return 1 + max(i for i, layer in enumerate(program.layers) if program.root(layer.writes)[0] == root)


# ---- the runtime's files --------------------------------------------------------------------------------------------------------


def _runtime(program: Program, machine: Machine) -> dict[str, Path]:
    """The kernels that are called, and the headers that they include; a machine's own in the place of the portable ones."""
    sources = sorted({file for layer in program.layers for file in layer.files})
    if _crewed(program):
        sources += sorted(f"{HOST}/{file.name}" for kind in CREW for file in (RUNTIME / HOST).glob(kind))
    own = machine.replaces
    found = {Path(file).name: machines.FOLDER / own[file] if file in own else RUNTIME / file for file in sources}
    return found | {path.name: path for path in sorted(_headers(found.values()), key=lambda path: path.name)}


def _crewed(program: Program) -> bool:
    """Whether a crew computes it: with one of several sets of instructions, all of which are in the folder, in threads."""
    return any(layer.feature == HOST for layer in program.layers)


def _headers(sources: Iterable[Path]) -> set[Path]:
    """What they include, beside themselves or in the runtime's first folder."""
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        source = waiting.pop()
        named = re.findall(r'^#include "(.*)"', source.read_text(encoding="utf-8"), re.MULTILINE)
        places = (source.with_name(name) if source.with_name(name).exists() else RUNTIME / name for name in named)
        new = set(places) - found
        found |= new
        waiting += new
    return found


# ---- how things are written in C ------------------------------------------------------------------------------------------------


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("nestling.formats.c"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "comment": comment,
        "cell": cell,
        "quoted": quoted,
        "literal": literal,
        "numbers": numbers,
        "millions": lambda count: f"{count / 1e6:.2f}",
        "thousands": lambda count: f"{count:,}",
    }
    kinds = {"struct": Struct, "constant": Constant, "pointers": Pointers, "read": Read, "parts": Parts}
    kinds |= {"written": Written, "scratch": Scratch, "room": Room, "whole": Whole, "crew": Crew}
    made.tests |= {name: _is(kind) for name, kind in kinds.items()}
    made.tests["deep"] = lambda value: isinstance(value, Struct) and any(map(_array_or_struct, value.fields.values()))
    return made


def _is(kind: type) -> Any:
    return lambda value: isinstance(value, kind)


def _array_or_struct(value: object) -> bool:
    return isinstance(value, Constant | Pointers | Struct) and not (
        isinstance(value, Struct) and all(isinstance(field, tuple) for field in value.fields.values())
    )


def comment(text: str) -> str:
    """For a comment: printable ASCII that does not end it."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/").replace("??", "? ?")


def cell(text: str) -> str:
    """For a cell of a table in Markdown."""
    return "".join(letter if letter.isprintable() and letter not in "|`<>\\*[]" else "?" for letter in text)


def quoted(text: str) -> str:
    """A string literal: what is not plain ASCII as three octal digits, UTF-8 byte by byte; halves of characters as \\udc80."""
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "backslashreplace")
    )
    return f'"{"".join(plain)}"'


def literal(value: float) -> str:
    """A number: 3, or 0.0235f, which is just that float32 again."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise NestlingError(f"the network has a constant {value}, which C cannot be given.")
    return f"{np.float32(value)!s}f"


def numbers(constant: Constant) -> str:
    """Lines of numbers."""
    per_line = A_LINE[constant.ctype]
    return ",\n".join("    " + ", ".join(words) for words in _lines(_words(constant), per_line))


def _lines(words: list[str], per_line: int) -> Iterator[list[str]]:
    return (words[i : i + per_line] for i in range(0, len(words), per_line))


def _words(constant: Constant) -> list[str]:
    flat = constant.data.reshape(-1)
    if constant.ctype == "int8_t":
        return list(INT8[flat.astype(np.int16) + 128])
    write: Mapping[str, Any] = {"int16_t": str, "int32_t": str, "float": literal, "double": repr}
    return [write[constant.ctype](value) for value in flat.tolist()]
