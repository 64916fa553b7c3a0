"""The runtime's kernels, quick and naive, compiled once as a shared library and called layer by layer through ctypes."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels.layers import (
    Constant,
    Crew,
    Layer,
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

RUNTIME = Path(str(files("nestling.formats.c") / "runtime"))
GUARD = 64  # bytes around every buffer
BYTE = 0xA5  # what they, and buffers that nothing has written, hold
SIMPLE = {"int32_t": ctypes.c_int32, "uint16_t": ctypes.c_uint16, "uint32_t": ctypes.c_uint32, "float": ctypes.c_float}
POINTED = ("int8_t", "int16_t", "uint8_t", "double", "nst_kit", "nst_pool", "void")  # types that structs only point to
Range = tuple[int, int]
Part = tuple[Range, Range]  # rows, channels
Split = Callable[[Layer], Sequence[Part]]


def compiled(folder: Path, *flags: str, compiler: str = "cc") -> Path:
    """All of the runtime, the naive twins included, as one shared library."""
    made = folder / "kernels.so"
    made.write_bytes(_library(compiler, flags))
    return made


@cache
def _library(compiler: str, flags: tuple[str, ...]) -> bytes:
    """Made once for all tests of a process."""
    sources = sorted(map(str, RUNTIME.rglob("*.c")))
    with TemporaryDirectory() as place:
        command = [compiler, "-std=c99", "-shared", "-fPIC", "-pthread", f"-I{RUNTIME}", *flags, *sources, "-o", f"{place}/made.so"]
        subprocess.run(command, check=True)
        return Path(place, "made.so").read_bytes()


def structs(header: str) -> dict[str, type[ctypes.Structure]]:
    """The types of headers, read from their text: every pointer is a void pointer."""
    found: dict[str, type[ctypes.Structure]] = {}
    for body, name in re.findall(r"typedef struct \{\n(.*?)\n\} (\w+);", header, re.DOTALL):
        own_types = re.findall(r"^ +(?:const )?(\w+)", body, re.MULTILINE)
        if not all(kind in SIMPLE or kind in found or kind in POINTED for kind in own_types):
            continue  # a kernel's own: no layer hands it over
        fields: list[tuple[str, Any]] = []
        for declaration in re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL).split(";"):
            match = re.fullmatch(r"(const )?(\w+) (.*)", " ".join(declaration.split()))
            for variable in match[3].split(", ") if match else ():
                pointer, array = "*" in variable, re.search(r"\[(\d+)\]", variable)
                own: Any = ctypes.c_void_p if pointer else SIMPLE.get(match[2]) or found[match[2]]
                fields.append((re.sub(r"\*const|[*\s]|\[\d+\]", "", variable), own * int(array[1]) if array else own))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


@dataclass
class Buffer:
    """Bytes with a guard on either side. start: where in them a tensor begins."""

    whole: NDArray[np.uint8]
    start: int = 0

    @property
    def inside(self) -> NDArray[np.uint8]:
        return self.whole[GUARD + self.start : -GUARD]

    def intact(self) -> bool:
        return bool((self.whole[:GUARD] == BYTE).all() and (self.whole[-GUARD:] == BYTE).all())


def buffer(size: int) -> Buffer:
    return Buffer(np.full(size + 2 * GUARD, BYTE, np.uint8))


class Kernels:
    """Calls of the library's functions with the arguments of a Layer."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        own = sorted(
            RUNTIME.glob("*/nst_*.h"), key=lambda header: (header.stem not in ("nst_crew", f"nst_{header.parent.name}"), header)
        )
        headers = (RUNTIME / "nst_kernels.h", *own)  # the others stand on the first ones' types
        self.structs = structs("\n".join(header.read_text() for header in headers))

    def run(
        self,
        program: Program,
        feeds: Mapping[str, NDArray[Any]],
        twin: bool = False,
        in_place: bool = False,
        split: Split | None = None,
        kit: str = "portable",
    ) -> dict[str, NDArray[Any]]:
        """What every layer answers, by its tensor. in_place: over the first input that it may, where nothing else reads that.

        split: the parts, in order, of layers that are computed part by part.
        """
        buffers = {name: buffer(bytes_of(tensor)) for name, tensor in program.tensors.items() if name not in program.aliases}
        for name, values in feeds.items():
            buffers[name].inside[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        answers = {}
        for index, layer in enumerate(program.layers):
            if in_place and layer.over and self._free(layer, program, index):
                root, place = program.root(layer.writes)
                taken = buffers[program.root(layer.over[0])[0]]
                if place == 0 and layer.writes == root:
                    grown = buffer(max(layer.lead + len(taken.inside), len(buffers[root].inside)))
                    grown.inside[layer.lead :][: len(taken.inside)] = taken.inside
                    buffers[root], buffers[program.root(layer.over[0])[0]] = grown, Buffer(grown.whole, layer.lead)
            for part in split(layer) if split is not None and Whole() in layer.arguments else (None,):
                answers[layer.writes] = self._call(layer, program, buffers, twin, part, kit)
        assert all(one.intact() for one in buffers.values()), "a kernel wrote outside of its tensor"
        return answers

    def kit(self, name: str) -> int | None:
        """The address of a set of instructions (runtime/host/nst_crew.h); None where this processor has it not."""
        self.library.nst_kit_named.restype = ctypes.c_void_p
        return self.library.nst_kit_named(name.encode())

    def _free(self, layer: Layer, program: Program, index: int) -> bool:
        name = program.root(layer.over[0])[0]
        later = {program.root(read)[0] for other in program.layers[index + 1 :] for read in other.reads}
        twice = [program.root(read)[0] for read in layer.reads].count(name) > 1
        return name not in later and name not in {program.root(other)[0] for other in program.outputs} and not twice

    def _call(
        self,
        layer: Layer,
        program: Program,
        buffers: Mapping[str, Buffer],
        twin: bool,
        part: Part | None = None,
        kit: str = "portable",
    ) -> NDArray[Any]:
        keep: list[Any] = []  # arrays that C points into
        tensor = program.tensors[layer.writes]
        scratch = buffer(layer.scratch)

        def address(array: NDArray[Any]) -> ctypes.c_void_p:
            keep.append(array)
            return ctypes.c_void_p(array.ctypes.data)

        def read(name: str) -> NDArray[np.uint8]:
            root, place = program.root(name)
            return buffers[root].inside[place:]

        def value(what: Any, kind: Any) -> Any:
            match what:
                case Struct():
                    made = self.structs[what.type]()
                    declared: dict[str, Any] = {name: kind for name, kind, *_ in made._fields_}
                    assert set(declared) == set(what.fields), f"{what.type} has other fields"
                    for name, field in what.fields.items():
                        setattr(made, name, value(field, declared[name]))
                    return made
                case Constant():
                    return address(np.ascontiguousarray(what.data)).value
                case Pointers():
                    pointers = [None if one is None else value(one, None) for one in what.targets]
                    keep.append((ctypes.c_void_p * len(pointers))(*pointers))
                    return ctypes.addressof(keep[-1])
                case tuple() if issubclass(kind, ctypes.Structure):
                    return kind(*what)
                case tuple():
                    return kind(*what)
                case _:
                    return what

        def argument(what: Any) -> Any:
            match what:
                case Read():
                    return address(read(what.tensor))
                case Parts():
                    pointers = [address(read(x.tensor) if isinstance(x, Read) else x.data) for x in what.operands]
                    keep.append((ctypes.c_void_p * len(pointers))(*pointers))
                    return keep[-1]
                case Written():
                    return address(read(layer.writes))
                case Scratch():
                    return address(scratch.inside)
                case Room():
                    return ctypes.c_int32(layer.scratch)
                case Whole():
                    keep.append(self.structs["nst_part"](*part) if part is not None else None)
                    return ctypes.byref(keep[-1]) if part is not None else None
                case Crew():
                    keep.append(self.structs["nst_crew"](self.kit(kit), None))
                    return ctypes.byref(keep[-1])
                case Struct():
                    keep.append(value(what, None))
                    return ctypes.byref(keep[-1])
                case Constant():
                    return address(np.ascontiguousarray(what.data))
                case float():
                    return ctypes.c_float(what)
                case _:
                    return ctypes.c_int32(what)

        naive = f"{layer.function}_reference"  # variants of a layout of their own have none: the reference executor judges them
        function = getattr(self.library, naive if twin and hasattr(self.library, naive) else layer.function)
        function.restype = None
        answer = read(layer.writes)[: bytes_of(tensor)]
        before = answer.reshape(plane(tensor)).copy() if part is not None else None
        function(*map(argument, layer.arguments))
        assert scratch.intact(), f"{layer.function} wrote outside of its scratch"
        if part is not None:
            (top, bottom), (first, end) = part
            before[top:bottom, :, first:end] = answer.reshape(plane(tensor))[top:bottom, :, first:end]
            assert (before == answer.reshape(plane(tensor))).all(), f"{layer.function} wrote outside of {part}"
        return answer.view(np.dtype(tensor.dtype)).reshape(tensor.shape).copy()
