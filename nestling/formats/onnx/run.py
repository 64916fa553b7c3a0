"""An .onnx file in ONNX Runtime or OpenVINO: loaded, asked, looked into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling import outside
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About, require_labels
from nestling.formats.onnx.file import AGAIN, parse, read
from nestling.formats.onnx.pieces import NHWC, signed
from nestling.formats.onnx.runtimes import OPEN, Answer, Runtime, open_session, run
from nestling.graph.ir import Array
from nestling.preprocess.image import Preprocess, require_taken


@dataclass(frozen=True, eq=False)
class OnnxRunner:
    """A loaded .onnx file: uint8 images in, float logits out."""

    name: str
    about: About
    widths: tuple[int, ...]  # numbers of each output, an image
    answer: Answer

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.about.labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self.about.preprocess

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """images: uint8 [N, H, W, C], already resized -> logits, float32 [N, classes].

        Raises NestlingError where the file gives the embedding only, or images are not of its size.
        """
        if self.about.gives != "logits":
            raise NestlingError(f"{self.name} gives the embedding, not logits.")
        return self._output(images, 0)

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """images: uint8 [N, H, W, C] -> embeddings, float32 [N, D]. Raises NestlingError where the file gives logits only."""
        if self.about.gives == "embedding":
            return self._output(images, 0)
        if len(self.widths) < 2:
            raise NestlingError(f"{self.name} gives logits only.", "print it with its embedding:  nestling export MODEL --features")
        return self._output(images, 1)

    def _output(self, images: NDArray[np.uint8], which: int) -> NDArray[np.float32]:
        require_taken(self.preprocess, images, self.name)
        rows = np.empty((len(images), self.widths[which]), np.float32)
        for row, image in zip(rows, images, strict=True):  # the file takes one at a time
            row[:] = self._answered(np.ascontiguousarray(image[None]))[which].reshape(-1)
        return rows

    def _answered(self, image: Array) -> list[Array]:
        try:
            return list(self.answer(image))
        except Exception as error:  # the runtimes' own kinds
            raise UnusableFile(f"{self.name} stops while it runs: {_reason(error)}.", AGAIN) from error


def load(path: Path, threads: int | None = None, runtime: Runtime = "onnxruntime") -> OnnxRunner:
    """An .onnx file that nestling printed, as a runner. threads: None leaves the runtime's choice.

    Raises UnusableFile, naming the file, for a damaged file or one that is not ours, or keeps data in other files.
    """
    return load_bytes(outside.content(path), str(path), threads, runtime)


def load_bytes(content: bytes, name: str, threads: int | None = None, runtime: Runtime = "onnxruntime") -> OnnxRunner:
    """As load, from memory; name: the file's in messages."""
    model, about = read(content, name)
    try:
        answer = OPEN[runtime](content, threads)
    except ImportError as error:
        raise NestlingError(f"{name} needs {runtime}, which is not installed.", f"pip install {runtime}") from error
    except Exception as error:  # the runtimes' own kinds
        raise UnusableFile(f"{name} cannot be run: {_reason(error)}.", AGAIN) from error
    widths = tuple(int(np.prod([side.dim_value for side in out.type.tensor_type.shape.dim])) for out in model.graph.output)
    require_labels(about, widths[0], name)
    return OnnxRunner(name, about, widths, answer)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def activations(content: bytes, image: Array, as_written: bool = False) -> dict[str, Array]:
    """Every int8 activation that ONNX Runtime computes, by its Graph name, in the Graph's order: int8, NHWC where an image.

    content: a printed int8 Graph. image: the file's input, uint8 [1, H, W, C]. Because the integers are asked for, ONNX Runtime
    does not merge a `quantize` with the rounding before it, as it does else; apart from that a run computes the same. as_written:
    each operator by itself, see open_session.
    Raises UnusableFile as load_bytes.
    """
    model = parse(content, "the printed graph")
    names = [value.name for value in model.graph.value_info]
    del model.graph.output[:]
    model.graph.output.extend(model.graph.value_info)
    values = run(open_session(model.SerializeToString(), 1, as_written=as_written), image) if names else []
    return {name: _in_graph_order(signed(value)) for name, value in zip(names, values, strict=True)}


def _in_graph_order(value: Array) -> Array:
    return value.transpose(NHWC) if value.ndim == 4 else value
