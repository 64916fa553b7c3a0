"""A .tflite file in LiteRT: loaded, asked, looked into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from nestling import outside
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About, require_labels
from nestling.formats.quiet import quiet
from nestling.formats.tflite import metadata
from nestling.formats.tflite.metadata import AGAIN
from nestling.graph.ir import Array
from nestling.preprocess.image import Numbers, Preprocess
from nestling.preprocess.image import from_plain as preprocess_from_plain

Kernels = Literal["default", "builtin", "reference"]


RESOLVERS: Mapping[Kernels, Any] = {
    "default": OpResolverType.AUTO,  # XNNPACK where it can
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,  # the plain kernels that define the integers
}


def open_interpreter(model: bytes, file: str, kernels: Kernels = "default", threads: int = 1, *, keep: bool = False) -> Any:
    """LiteRT's interpreter with its tensors allocated. keep: every tensor stays readable after a run.

    Raises UnusableFile, naming `file`, for what LiteRT does not take.
    """
    try:
        with quiet():
            interpreter = Interpreter(
                model_content=model,
                num_threads=threads,
                experimental_op_resolver_type=RESOLVERS[kernels],
                experimental_preserve_all_tensors=keep,
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "not a .tflite file"
        raise UnusableFile(f"{file} cannot be run: {reason}.", AGAIN) from error
    return interpreter


def run(model: bytes, inputs: Sequence[Array], kernels: Kernels = "reference", threads: int = 1) -> tuple[Array, ...]:
    """Raw outputs, in the file's own types, for raw inputs of batch 1."""
    interpreter = open_interpreter(model, "the printed graph", kernels, threads)
    _invoke(interpreter, inputs)
    return tuple(interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details())


def activations(
    model: bytes, inputs: Sequence[Array], kernels: Kernels = "reference", file: str = "the printed graph"
) -> dict[str, Array]:
    """Every tensor that an operator writes, by name, in the file's own types; constants are left out. file: in messages."""
    interpreter = open_interpreter(model, file, kernels, keep=True)
    _invoke(interpreter, inputs)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    written = [int(i) for operator in interpreter._get_ops_details() for i in operator["outputs"] if int(i) in names]
    return {names[i]: interpreter.get_tensor(i).copy() for i in written}


def _invoke(interpreter: Any, inputs: Sequence[Array]) -> None:
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()


@dataclass(frozen=True, eq=False)
class TfliteRunner:
    """A loaded .tflite file: uint8 images in, float logits out. Not for two threads at once: the interpreter holds its tensors.

    about: what the file says of itself; None where it does not say how an image is made for it.
    """

    file: str
    interpreter: Any
    source: Mapping[str, Any]  # LiteRT's details of the input
    outputs: tuple[Mapping[str, Any], ...]  # and of each output
    about: About | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self._said().labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self._said().preprocess

    def _said(self) -> About:
        if self.about is None:
            hint = f"let nestling read it:  nestling import {self.file} -o my.nest"
            raise UnusableFile(f"{self.file} does not say how an image is made for it.", hint)
        return self.about

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """images: uint8 [N, H, W, C], already resized -> logits, float32 [N, classes]."""
        return self._output(images, 0)

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """images: uint8 [N, H, W, C] -> embeddings, float32 [N, D]. Raises NestlingError where the file has no second output."""
        if len(self.outputs) < 2:
            raise NestlingError(f"{self.file} gives logits only", "print it with its embedding:  nestling export MODEL --features")
        return self._output(images, 1)

    def _output(self, images: NDArray[np.uint8], which: int) -> NDArray[np.float32]:
        out, expected = self.outputs[which], tuple(int(n) for n in self.source["shape"][1:])
        dtype = np.float32 if self.source["dtype"] is np.float32 else np.uint8
        if images.dtype != dtype or images.shape[1:] != expected:
            what = f"{np.dtype(dtype)} {'images' if dtype is np.uint8 else 'numbers'} of shape {expected}"
            raise NestlingError(f"{self.file} takes {what}, not {images.dtype} of {images.shape[1:]}")
        rows = np.empty((len(images), int(np.prod(out["shape"]))), np.float32)
        try:
            for row, image in zip(rows, _as_input(images, self.source["dtype"]), strict=True):
                self.interpreter.set_tensor(self.source["index"], image[None])
                self.interpreter.invoke()
                row[:] = _real(self.interpreter.get_tensor(out["index"]), out["quantization"]).reshape(-1)
        except (ValueError, RuntimeError) as error:
            raise UnusableFile(f"{self.file} stops while it runs: {error}.", AGAIN) from error
        return rows


def load(path: Path, kernels: Kernels = "default", threads: int = 1) -> TfliteRunner:
    """A .tflite file as a runner. Raises UnusableFile, naming the file and the reason, for what cannot be run on images."""
    return load_bytes(outside.content(path), str(path), kernels, threads)


def load_bytes(model: bytes, path: str, kernels: Kernels = "default", threads: int = 1) -> TfliteRunner:
    """As load, from memory; path: its name in messages."""
    if model[4:8] != b"TFL3":
        raise UnusableFile(f"{path} is not a .tflite file.")
    interpreter = open_interpreter(model, path, kernels, threads)
    try:
        sources, outputs = interpreter.get_input_details(), tuple(interpreter.get_output_details())
    except (ValueError, RuntimeError) as error:  # a tensor's name that is no text
        raise UnusableFile(f"{path} is damaged: {error}.", AGAIN) from error
    found = [(detail["dtype"], detail["shape"].tolist()) for detail in sources]
    about = _about(model, path)
    if len(found) != 1 or not outputs or not _is_taken(*found[0], about):
        takes = ", ".join(f"{dtype.__name__} {shape}" for dtype, shape in found)
        hint = f"let nestling read it:  nestling import {path} -o my.nest"
        raise UnusableFile(f"{path} takes {takes}, not one uint8 image.", hint)
    if about is not None:
        require_labels(about, math.prod(outputs[0]["shape"].tolist()), path)
    return TfliteRunner(path, interpreter, sources[0], outputs, about)


def _is_taken(dtype: type, shape: list[int], about: About | None) -> bool:
    """One image's bytes, of any file; numbers where it says so itself."""
    if about is not None and isinstance(about.preprocess, Numbers):
        return (np.dtype(dtype), shape) == (np.dtype(about.preprocess.dtype), [1, *about.preprocess.shape])
    return dtype in (np.uint8, np.int8) and len(shape) == 4 and shape[0] == 1


def _about(model: bytes, file: str) -> About | None:
    said = metadata.about(model, file)
    if said.preprocess is None:
        return None
    try:
        seed, data, test = (said.learned_from[name] for name in ("seed", "data", "test"))
        return About(said.labels, preprocess_from_plain(said.preprocess), seed, data, test=test)
    except UnusableFile as error:
        raise UnusableFile(f"{file}: {error.message}", AGAIN) from error


def _as_input(images: NDArray[np.uint8], dtype: type) -> Array:
    """Bytes as the file takes them; files of others that take int8 mean the byte less 128."""
    return (images ^ np.uint8(128)).view(np.int8) if dtype is np.int8 else images


def _real(values: Array, quantization: tuple[float, int]) -> NDArray[np.float32]:
    """The real numbers behind an output; scale 0 says that it is none of integers."""
    scale, zero_point = quantization
    return values.astype(np.float32) if scale == 0 else (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
