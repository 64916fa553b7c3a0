"""The ONNX target: a printer of a Graph, the runner that reads the file back, and what ONNX Runtime shows of its inside.

    onnx_operators.py   which operators a node becomes
    onnx_pieces.py      what these are put together from; names and order
    onnx_file.py        the checks of a file that may be anybody's
    onnx_runtimes.py    ONNX Runtime and OpenVINO

An int8 Graph is printed as QDQ: QuantizeLinear and DequantizeLinear around float operators, with the Graph's integers. Importing
and printing need no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nestling import outside
from nestling.errors import NestlingError, UnusableFile
from nestling.graph.ir import Array, Graph, Tensor
from nestling.preprocess import Preprocess
from nestling.printable import json_text
from nestling.targets.about import About, require_labels, to_json
from nestling.targets.layer_time import LayerTime
from nestling.targets.onnx_file import ABOUT, AGAIN, parse, read
from nestling.targets.onnx_operators import PRINTERS
from nestling.targets.onnx_pieces import NCHW, NHWC, Page, Piece, Pieces, Weights, dequantized, signed, stored, transposed
from nestling.targets.onnx_runtimes import OPEN, Answer, Runtime, open_session, run

OPSET, IR_VERSION = 21, 10  # ONNX Runtime and OpenVINO fuse the same with opsets 17 to 23; 21 is the first made for IR version 10
TYPES = {"float32": TensorProto.FLOAT, "int8": TensorProto.UINT8, "uint8": TensorProto.UINT8}  # of activations, as they are printed


# ---- printing -------------------------------------------------------------------------------------------------------------------


def print_graph(graph: Graph, what: About, weights: Weights = "uint8") -> bytes:
    """A Graph as the bytes of an .onnx file; the same Graph gives the same bytes.

    graph: valid, as spec.py has it, float or int8. The file takes the Graph's inputs (uint8 [1, H, W, C]; an int8 input as uint8,
    128 higher) and gives its outputs as float32 in the Graph's order; an int8 output T is called T:real, a four-dimensional one
    T:nhwc.
    what: goes into metadata_props, "nestling" as JSON and "labels" as a JSON list for other tools.
    weights: how int8 weights are stored. "uint8", 128 higher with zero point 128, is exact everywhere. "int8" is quicker where the
    processor sums products of bytes in 32 bits (VNNI, AMX); other x86 processors add pairs in saturating int16, and answer wrongly.
    Raises UnsupportedOp for batch_norm.
    """
    page = Page(graph, weights, _mark(graph))
    pieces = _alive([*_inputs(page), *_nodes(page), *_outputs(page)], [_given(page, name) for name in graph.outputs])
    tensors = graph.tensors
    body = helper.make_graph(
        [piece for piece in pieces if isinstance(piece, onnx.NodeProto)],
        "nestling",
        [_value(name, TYPES[tensors[name].dtype], tensors[name].shape) for name in graph.inputs],
        [_value(_given(page, name), TensorProto.FLOAT, tensors[name].shape) for name in dict.fromkeys(graph.outputs)],
        [piece for piece in pieces if isinstance(piece, onnx.TensorProto)],
        value_info=[_value(tensor.name, TensorProto.UINT8, stored(tensor.shape)) for tensor in _integers(graph)],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(body, opset_imports=[opset], ir_version=IR_VERSION, producer_name="nestling")
    helper.set_model_props(model, {ABOUT: to_json(what), "labels": json_text(what.labels)})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _mark(graph: Graph) -> str:
    """The fewest colons that no name of the Graph's holds."""
    marks = (":" * length for length in count(1))
    return next(mark for mark in marks if not any(mark in name for name in graph.tensors))


def _inputs(page: Page) -> Pieces:
    """Images are transposed as bytes, which is cheaper than as numbers."""
    for name in page.graph.inputs:
        inside, quant = page.inside(name), page.graph.tensors[name].quant
        if inside != name:
            yield transposed(name, inside, NCHW, page.part(name, "order"))
        if quant is not None:
            yield from dequantized(page, inside, page.real(name), quant, page.part(name, "dequantize"))


def _nodes(page: Page) -> Pieces:
    for node in page.graph.nodes:
        yield from PRINTERS[node.op](page, node)


def _outputs(page: Page) -> Pieces:
    for name in dict.fromkeys(page.graph.outputs):
        if _given(page, name) != page.real(name):
            yield transposed(page.real(name), _given(page, name), NHWC, page.part(name, "give"))


def _given(page: Page, name: str) -> str:
    """What the file calls an output: its real numbers in the Graph's order."""
    return page.part(name, "nhwc") if len(page.graph.tensors[name].shape) == 4 else page.real(name)


def _alive(pieces: list[Piece], outputs: list[str]) -> list[Piece]:
    """Without the real numbers that nobody reads: integers that only `dequantize` reads, or nothing at all."""
    read = {*outputs, *(name for piece in pieces if isinstance(piece, onnx.NodeProto) for name in piece.input)}
    kept = [piece for piece in pieces if not (isinstance(piece, onnx.NodeProto) and _is_idle(piece, read))]
    read = {name for piece in kept if isinstance(piece, onnx.NodeProto) for name in piece.input}
    return [piece for piece in kept if isinstance(piece, onnx.NodeProto) or piece.name in read]


def _is_idle(node: onnx.NodeProto, read: set[str]) -> bool:
    return node.op_type == "DequantizeLinear" and node.output[0] not in read


def _integers(graph: Graph) -> Iterator[Tensor]:
    """What nodes write in int8: listed in the file as value_info, where `activations` finds it."""
    return (graph.tensors[node.name] for node in graph.nodes if graph.tensors[node.name].dtype == "int8")


def _value(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


# ---- running --------------------------------------------------------------------------------------------------------------------


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
        expected = (*self.preprocess.size, self.preprocess.channels)
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise NestlingError(f"{self.name} takes uint8 images of shape {expected}, not {images.dtype} of {images.shape[1:]}.")
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


# ---- the inside -----------------------------------------------------------------------------------------------------------------


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


def layer_times(content: bytes, runs: int, threads: int) -> tuple[LayerTime, ...]:
    """What each operator takes in ONNX Runtime, in running order, from its own profile. The first run is left out: it prepares.

    A fused operator carries the name of the Graph node that it was made of. What the file or the runtime adds to the Graph (a clamp
    of integers, the cast before a table, reorders and transposes) has a line and a name of its own.
    Raises UnusableFile as load_bytes.
    """
    model, about = read(content, "the printed graph")
    shape = (1, *about.preprocess.size, about.preprocess.channels)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    with TemporaryDirectory() as folder:
        session = open_session(content, threads, Path(folder) / "profile")
        for _ in range(runs + 1):
            run(session, image)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    names = {output: node.name for node in model.graph.node for output in node.output}
    names |= {node.name: node.name for node in model.graph.node}
    times: dict[tuple[str, str], list[float]] = {}  # microseconds by name and operator, in running order
    for event in events:
        if event["name"].endswith(TIMED):
            key = _known(event["name"].removesuffix(TIMED), names), event["args"]["op_name"]
            times.setdefault(key, []).append(event["dur"])
    return tuple(LayerTime(name, kind, sum(own[len(own) // (runs + 1) :]) / runs / 1e3) for (name, kind), own in times.items())


TIMED = "_kernel_time"
ADDED = re.compile(r"(_token_\d+|_nchwc|_nhwc|/\w+Fusion/)$")  # what ONNX Runtime puts behind the name of a node that it changes


def _known(name: str, names: Mapping[str, str]) -> str:
    """Which node of the file a node of the runtime's was made of; else its own name.

    names: of the file's nodes, by their own names and by those of what they write: the runtime builds on either.
    """
    shorter = name
    while shorter not in names:
        if not ADDED.search(shorter):
            return name
        shorter = ADDED.sub("", shorter)
    return names[shorter]
