"""A folder of generated C on this computer: compiled as a shared library, called through ctypes, as a Runner."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling import outside
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About, from_json
from nestling.formats.c import names
from nestling.formats.c.trusted import ABOUT
from nestling.graph.ends import with_real_numbers
from nestling.graph.ir import Array, Graph
from nestling.preprocess.image import Numbers, Preprocess
from nestling.temporary import restored

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2", "-fPIC", "-pthread", "-DNESTLING_TRACE", "-Werror=implicit-function-declaration")
ALIGNMENT = 64
ISA = "NESTLING_ISA"  # in the environment: a kit's name
PORTABLE = "portable"
OBJECTS = 512  # compiled kernels that a process remembers
INCLUDED = re.compile(rb'^ *# *include *"([\w.-]+)"', re.MULTILINE)
Uint8Array = NDArray[np.uint8]
Watcher = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)


@dataclass(frozen=True)
class Sizes:
    """The numbers of the network's header, in the order of host.c."""

    arena: int
    height: int
    width: int
    channels: int
    embedding: int
    embedding_zero: int
    classes: int
    layers: int
    scratch: int


class _Crew(ctypes.Structure):
    """nst_crew of nst_crew.h."""

    _fields_ = (("kit", ctypes.c_void_p), ("pool", ctypes.c_void_p))


class _LayerInfo(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_char_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("macs", ctypes.c_int32),
        ("read_count", ctypes.c_int32),
        ("reads", ctypes.POINTER(ctypes.c_int16)),
    )


@dataclass(frozen=True, eq=False)
class CRunner:
    """A loaded folder: uint8 images in, float logits out. Not for two threads at once: it has one arena.

    about: what the folder says of itself. name: what its symbols begin with. isa: the instructions that compute it, as NESTLING_ISA
    calls them. crew: the C's, None where the folder knows of none.
    """

    folder: Path  # in messages
    about: About
    library: Any
    sizes: Sizes
    name: str
    arena: Uint8Array
    isa: str = PORTABLE
    crew: _Crew | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.about.labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self.about.preprocess

    def __call__(self, images: Uint8Array) -> NDArray[np.float32]:
        """images: uint8 [N, H, W, C], already resized -> logits, float32 [N, classes]."""
        logits = np.empty((len(images), self.sizes.classes), np.float32)
        for image, row in zip(self._fitting(images), logits, strict=True):
            self._by_crew("predict", image, _address(row))
        return logits

    def features(self, images: Uint8Array) -> NDArray[np.float32]:
        """images as above -> the real numbers of the embeddings, float32 [N, D]."""
        steps = self.embeddings(images).astype(np.float32) - np.float32(self.sizes.embedding_zero)
        scale = ctypes.c_float.in_dll(self.library, f"{self.name}_embedding_scale").value
        return steps * np.float32(scale)

    def embeddings(self, images: Uint8Array) -> NDArray[np.int8]:
        """images as above -> the embeddings as they are, int8 [N, D]."""
        rows = np.empty((len(images), self.sizes.embedding), np.int8)
        for image, row in zip(self._fitting(images), rows, strict=True):
            ctypes.memmove(row.ctypes.data, self._by_crew("features", image), row.nbytes)
        return rows

    def activations(self, image: Uint8Array) -> dict[str, Array]:
        """What every layer answers to an image, uint8 [H, W, C]: int8 [height, width, channels] by tensor, the logits float32."""
        infos = (_LayerInfo * self.sizes.layers).in_dll(self.library, f"{self.name}_layers")
        found: dict[str, Array] = {}

        def watch(layer: int, output: int, count: int) -> None:
            if layer >= 0:
                info, content = infos[layer], ctypes.string_at(output, count)
                shape = (info.height, info.width, info.channels)
                dtype = np.int8 if count == np.prod(shape) else np.float32
                found[info.name.decode()] = np.frombuffer(content, dtype).reshape(shape)

        watcher = Watcher(watch)
        self._its("watch")(watcher)
        try:
            self(image[None])
        finally:
            self._its("watch")(Watcher())
        return found

    def another(self) -> CRunner:
        """The same, for another thread: with an arena of its own."""
        return replace(self, arena=_aligned(self.sizes.arena))

    def _by_crew(self, function: str, image: Uint8Array, *others: ctypes.c_void_p) -> Any:
        if self.crew is None:
            return self._its(function)(_address(self.arena), _address(image), *others)
        return self._its(f"{function}_by")(ctypes.byref(self.crew), _address(self.arena), _address(image), *others)

    def _its(self, function: str) -> Any:
        return getattr(self.library, f"{self.name}_{function}")  # which keeps its type, as library[...] does not

    def _fitting(self, images: Uint8Array) -> Uint8Array:
        expected = (self.sizes.height, self.sizes.width, self.sizes.channels)
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise NestlingError(f"{self.folder} takes uint8 images of shape {expected}, not {images.dtype} of {images.shape[1:]}.")
        return np.ascontiguousarray(images)


def load(folder: Path, name: Path | None = None, threads: int = 1) -> CRunner:
    """A folder that `export --to c` made, for whatever machine, compiled for this computer.

    name: its name in messages; None for its own. threads: of a folder for computers; others run in one, with portable instructions.
    What is in it gets run: see trusted.copied for folders that may be anybody's.
    Raises UnusableFile, naming the folder, where it is none or does not compile; NestlingError where there is no C compiler, and
    for a NESTLING_ISA that is not here.
    """
    name = name or folder
    if not (restored(folder) / ABOUT).is_file():
        raise UnusableFile(f"{name} holds no {ABOUT}: it is no folder of C.", _again(name))
    about = from_json(outside.content(folder / ABOUT, _again(name)), str(name / ABOUT))
    own = names.of(folder)
    if own is None:
        raise UnusableFile(f"{name} holds no {names.file(names.USUAL, 'model.h')}, nor one network of another name.", _again(name))
    library = _compiled(folder, own, name)
    sizes = Sizes(*(ctypes.c_int32 * len(Sizes.__dataclass_fields__)).in_dll(library, f"{own}_sizes"))
    if len(about.labels) != sizes.classes:
        raise UnusableFile(f"{name} gives {sizes.classes} scores and names {len(about.labels)} classes.", _again(name))
    runner = CRunner(name, about, library, sizes, own, _aligned(sizes.arena), *_crew(library, own))
    if runner.crew is not None and threads > 1:
        _open_pool(runner, runner.crew, threads)
    return runner


def of_graph(graph: Graph) -> CRunner:
    """An int8 Graph, from an image to integers, printed for this computer and compiled: it gives their real numbers.

    Raises UnsupportedOp, naming the layer, for what C has no kernel for; NestlingError where there is no C compiler.
    """
    from nestling.formats.c.folder import print_network, write  # templates: nobody else here wants them
    from nestling.formats.c.machines import HOST, machine

    takes = Numbers(graph.tensors[graph.inputs[0]].shape[1:], "uint8")
    files = print_network(with_real_numbers(graph), About((), takes), machine(HOST))
    with TemporaryDirectory() as place:
        write(files, Path(place) / "c")
        return load(Path(place) / "c", Path("the network in C"))


def _crew(library: Any, own: str) -> tuple[str, _Crew | None]:
    """The instructions to be used, and the C's nst_crew. Raises NestlingError for a NESTLING_ISA that is not here."""
    if not hasattr(library, f"{own}_features_by"):
        return PORTABLE, None
    getattr(library, f"{own}_features_by").restype = ctypes.c_void_p
    library.nst_kit_number.restype = ctypes.c_void_p
    library.nst_kit_name.restype = ctypes.c_char_p
    kits: dict[str, int] = {}
    while kit := library.nst_kit_number(len(kits)):
        kits[library.nst_kit_name(ctypes.c_void_p(kit)).decode()] = kit
    isa = os.environ.get(ISA) or next(iter(kits))
    if isa not in kits:
        raise NestlingError(f"{ISA} is {isa!r}, which this processor has not.", f"it has {', '.join(kits)}:  unset {ISA}")
    return isa, _Crew(kits[isa], None)


def _open_pool(runner: CRunner, crew: _Crew, threads: int) -> None:
    """Gives the crew threads, which end with the runner."""
    library, scratch = runner.library, ctypes.c_uint32(runner.sizes.scratch)
    library.nst_pool_bytes.restype = ctypes.c_uint64
    library.nst_pool_open.restype = ctypes.c_void_p
    memory = _aligned(library.nst_pool_bytes(threads, scratch))
    crew.pool = library.nst_pool_open(_address(memory), threads, scratch)
    if not crew.pool:
        raise NestlingError(f"the system does not give {threads} threads.")
    weakref.finalize(runner, _close, library, crew, memory, os.getpid())


def _close(library: Any, crew: _Crew, memory: Uint8Array, process: int) -> None:
    """Ends a pool's threads, which lie in `memory`; a fork has none of them."""
    if os.getpid() == process:
        library.nst_pool_close(ctypes.c_void_p(crew.pool))


def compiler() -> str | None:
    """The first C compiler that is installed."""
    return next(filter(shutil.which, COMPILERS), None)


def sources(folder: Path, own: str = names.USUAL) -> list[Path]:
    """The network of that name and its kernels; the rest of a folder is its machine's."""
    patterns = (*(names.file(own, what) for what in names.OWN_FILES if what.endswith(".c")), f"{names.KERNELS}_*.c")
    return sorted(file for pattern in patterns for file in folder.glob(pattern))


def _compiled(folder: Path, own: str, name: Path) -> Any:
    """The folder's network and host.c as a loaded library. own: what its symbols begin with. name, and what it raises: as load."""
    found = sources(folder, own)
    if not found:
        raise UnusableFile(f"{name} holds no C.", _again(name))
    chosen = compiler()
    if chosen is None:
        raise NestlingError("there is no C compiler here.", "sudo apt-get install gcc libc6-dev")
    with TemporaryDirectory() as place, ThreadPoolExecutor() as pool:
        watching = Path(place) / "host.c"
        watching.write_bytes(names.renamed(Path(__file__).with_name("host.c").read_bytes(), own))

        def compile_one(source: Path) -> str:
            made = Path(place) / f"{source.name}.o"
            if source.name.startswith(names.KERNELS):
                compiled, said = _kernel(chosen, source.name, _with_included(source))
                made.write_bytes(compiled)
            else:
                said = _said([chosen, *FLAGS, "-I", str(folder.resolve()), "-c", str(source.resolve()), "-o", made.name], place)
            _require_compiled(said, name)
            return made.name

        objects = list(pool.map(compile_one, [*found, watching]))
        _require_compiled(_said([chosen, "-shared", "-pthread", *objects, "-o", "network.so"], place), name)
        try:
            library = ctypes.CDLL(str(Path(place) / "network.so"))
        except OSError as error:  # a function that nothing defines
            raise UnusableFile(f"{name} does not compile here: {str(error).rpartition(': ')[2]}.", _again(name)) from error
    getattr(library, f"{own}_features").restype = ctypes.c_void_p
    return library


@lru_cache(OBJECTS)
def _kernel(compiler: str, source: str, files: frozenset[tuple[str, bytes]]) -> tuple[bytes, str]:
    """A kernel compiled, and what was wrong with it. Remembered: networks share their kernels."""
    with TemporaryDirectory() as place:
        for name, content in files:
            (Path(place) / name).write_bytes(content)
        said = _said([compiler, *FLAGS, "-c", source, "-o", "made.o"], place)
        return b"" if said else (Path(place) / "made.o").read_bytes(), said


def _with_included(source: Path) -> frozenset[tuple[str, bytes]]:
    """A file and what it includes of the folder, all that it is compiled from: names and contents."""
    found: dict[str, bytes] = {}
    waiting = [source.name]
    while waiting:
        file = source.with_name(waiting.pop())
        if file.name not in found and file.is_file():
            found[file.name] = file.read_bytes()
            waiting += (name.decode() for name in INCLUDED.findall(found[file.name]))
    return frozenset(found.items())


def _said(command: Sequence[str], place: str) -> str:
    """Runs a compiler. Returns what is wrong, "" for nothing."""
    ended = subprocess.run(command, cwd=place, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False)
    if not ended.returncode:
        return ""
    lines = [line for line in ended.stderr.splitlines() if "error" in line] or ended.stderr.splitlines()
    return lines[0] if lines else "it said nothing"


def _require_compiled(said: str, name: Path) -> None:
    if said:
        raise UnusableFile(f"{name} does not compile here: {said}.", _again(name))


def _again(name: Path) -> str:
    return f"make it again:  nestling export my8.nest --to c -o {name}"


def _aligned(count: int) -> Uint8Array:
    whole = np.zeros(count + ALIGNMENT, np.uint8)
    return whole[-whole.ctypes.data % ALIGNMENT :]


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
