"""A folder of generated C on this computer: compiled as a shared library, called through ctypes, as a Runner."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from nestling.graph.ir import Array
from nestling.preprocess.image import Preprocess
from nestling.temporary import restored

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c99", "-O2", "-fPIC", "-DNESTLING_TRACE", "-Werror=implicit-function-declaration")
ALIGNMENT = 16
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
    """A loaded folder: uint8 images in, float logits out. Not for two threads at once while layers are watched.

    about: what the folder says of itself. name: what its symbols begin with.
    """

    folder: Path  # in messages
    about: About
    library: Any
    sizes: Sizes
    name: str

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
        arena, logits = _arena(self.sizes), np.empty((len(images), self.sizes.classes), np.float32)
        for image, row in zip(self._fitting(images), logits, strict=True):
            self._its("predict")(_address(arena), _address(image), _address(row))
        return logits

    def features(self, images: Uint8Array) -> NDArray[np.float32]:
        """images as above -> the real numbers of the embeddings, float32 [N, D]."""
        steps = self.embeddings(images).astype(np.float32) - np.float32(self.sizes.embedding_zero)
        scale = ctypes.c_float.in_dll(self.library, f"{self.name}_embedding_scale").value
        return steps * np.float32(scale)

    def embeddings(self, images: Uint8Array) -> NDArray[np.int8]:
        """images as above -> the embeddings as they are, int8 [N, D]."""
        arena, rows = _arena(self.sizes), np.empty((len(images), self.sizes.embedding), np.int8)
        for image, row in zip(self._fitting(images), rows, strict=True):
            place = self._its("features")(_address(arena), _address(image))
            ctypes.memmove(row.ctypes.data, place, row.nbytes)
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

    def _its(self, function: str) -> Any:
        return getattr(self.library, f"{self.name}_{function}")  # which keeps its type, as library[...] does not

    def _fitting(self, images: Uint8Array) -> Uint8Array:
        expected = (self.sizes.height, self.sizes.width, self.sizes.channels)
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise NestlingError(f"{self.folder} takes uint8 images of shape {expected}, not {images.dtype} of {images.shape[1:]}.")
        return np.ascontiguousarray(images)


def load(folder: Path, name: Path | None = None) -> CRunner:
    """A folder that `export --to c` made, for whatever machine, compiled for this computer.

    name: its name in messages; None for its own. What is in it gets run: see trusted.copied for folders that may be anybody's.
    Raises UnusableFile, naming the folder, where it is none or does not compile; NestlingError where there is no C compiler.
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
    return CRunner(name, about, library, sizes, own)


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
        command = [chosen, *FLAGS, "-I", str(folder.resolve())]

        def compile_one(source: Path) -> str:
            made = f"{source.name}.o"
            _run([*command, "-c", str(source.resolve()), "-o", made], place, name)
            return made

        watching = Path(place) / "host.c"
        watching.write_bytes(names.renamed(Path(__file__).with_name("host.c").read_bytes(), own))
        objects = list(pool.map(compile_one, [*found, watching]))
        _run([chosen, "-shared", *objects, "-o", "network.so"], place, name)
        try:
            library = ctypes.CDLL(str(Path(place) / "network.so"))
        except OSError as error:  # a function that nothing defines
            raise UnusableFile(f"{name} does not compile here: {str(error).rpartition(': ')[2]}.", _again(name)) from error
    getattr(library, f"{own}_features").restype = ctypes.c_void_p
    return library


def _run(command: Sequence[str], place: str, name: Path) -> None:
    ended = subprocess.run(command, cwd=place, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if "error" in line] or ended.stderr.splitlines() or ["it said nothing"]
        raise UnusableFile(f"{name} does not compile here: {lines[0]}.", _again(name))


def _again(name: Path) -> str:
    return f"make it again:  nestling export my8.nest --to c -o {name}"


def _arena(sizes: Sizes) -> Uint8Array:
    whole = np.zeros(sizes.arena + ALIGNMENT, np.uint8)
    return whole[-whole.ctypes.data % ALIGNMENT :]


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
