"""Bundle: what every step reads and writes; on disk one file, NAME.nest.

Plain values, no torch in it, so that a printer needs none. The file is an uncompressed zip:

    bundle.json            schema version, architecture, labels, preprocessing, split, lineage
    weights.safetensors    the float network's arrays and the head
    architecture.safetensors   constants of a float Graph, where the architecture is one (its nodes are in bundle.json)
    graph.json, graph.safetensors   the int8 Graph, where there is one
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from nestling.errors import NestlingError, UnusableFile
from nestling.files import write_atomically
from nestling.graph import file as graph_file
from nestling.graph.ir import Graph
from nestling.preprocess import Preprocess
from nestling.preprocess import from_plain as preprocess_from_plain
from nestling.preprocess import to_plain as preprocess_to_plain
from nestling.printable import json_text

SCHEMA = 1
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
FloatArray = NDArray[np.float32]
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Timm:
    """A backbone by timm's name, made plain (see models/plain.py); weights says where its numbers came from."""

    name: str
    weights: str


@dataclass(frozen=True, eq=False)
class Head:
    """logits = weight @ embedding + bias. weight: float32 [classes, D]; bias: float32 [classes]."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class Split:
    """Which photographs were learned from, by fingerprint (SHA-256 of a file's content, 16 hex digits)."""

    seed: int
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def part_of(self) -> dict[str, Part]:
        """fingerprint -> part."""
        return {print_: part for part in PARTS for print_ in getattr(self, part)}


@dataclass(frozen=True)
class Step:
    """One line of the lineage: what was done, with which settings, on which data, and what it reached.

    curves: of a training, one number an epoch: "loss" on train, "val_top1" (0 to 1), "val_loss".
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What the quantised reference answered on validation images: every later gate is judged on it.

    fingerprints: of the images; logits: float32 [N, classes] of the int8 reference; float_logits: of the float network.
    """

    fingerprints: tuple[str, ...]
    logits: FloatArray
    float_logits: FloatArray


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network with all that is needed to go on with it.

    architecture: a timm name with its weights in `arrays`, or a float Graph, image -> embedding (imported, pruned, searched
        networks); None where there is no float network (an imported integer one).
    arrays: the backbone's state dict as arrays, torch's names and layout; empty where the architecture is a Graph.
    head: None where the network keeps its own end (imported networks), or has none yet.
    graph: the int8 Graph, uint8 image -> int8 embedding (or -> logits where head is None); None until quantised.
    """

    architecture: Timm | Graph | None
    arrays: Mapping[str, NDArray[Any]]
    head: Head | None
    labels: tuple[str, ...]
    preprocess: Preprocess
    split: Split | None = None
    lineage: tuple[Step, ...] = ()
    graph: Graph | None = None
    yardstick: Yardstick | None = None


def save(bundle: Bundle, path: Path) -> None:
    """Write the bundle as one file. The same bundle gives the same bytes."""
    write_atomically(path, to_bytes(bundle))


def load(path: Path) -> Bundle:
    """Read a bundle. Raises UnusableFile, naming the file, for anything that is not a whole bundle of this schema."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.", "make one:  nestling fit PHOTOS -o my.nest") from error
    return from_bytes(content, str(path))


def to_bytes(bundle: Bundle) -> bytes:
    """The file's content; members in fixed order with a fixed date, so that equal bundles are equal bytes."""
    plain: dict[str, Any] = {
        "schema": SCHEMA,
        "labels": list(bundle.labels),
        "preprocess": preprocess_to_plain(bundle.preprocess),
        "split": asdict(bundle.split) if bundle.split else None,
        "lineage": [asdict(step) for step in bundle.lineage],
    }
    members: dict[str, bytes] = {}
    weights = {f"backbone.{name}": array for name, array in bundle.arrays.items()}
    if bundle.head:
        weights |= {"head.weight": bundle.head.weight, "head.bias": bundle.head.bias}
    if isinstance(bundle.architecture, Timm):
        plain["architecture"] = {"timm": bundle.architecture.name, "weights": bundle.architecture.weights}
    elif bundle.architecture is None:
        plain["architecture"] = None
    else:
        plain["architecture"], constants = _graph_members(bundle.architecture)
        members["architecture.safetensors"] = constants
    if bundle.yardstick:
        plain["yardstick"] = list(bundle.yardstick.fingerprints)
        weights |= {"yardstick.logits": bundle.yardstick.logits, "yardstick.float": bundle.yardstick.float_logits}
    members["weights.safetensors"] = save_safetensors({name: np.ascontiguousarray(a) for name, a in sorted(weights.items())})
    if bundle.graph:
        graph_plain, constants = _graph_members(bundle.graph)
        members |= {"graph.json": _json(graph_plain), "graph.safetensors": constants}
    return _zip({"bundle.json": _json(plain)} | members)


def from_bytes(content: bytes, name: str) -> Bundle:
    """The inverse of to_bytes. `name` is the file's name in messages. Raises UnusableFile."""
    try:
        members = _unzip(content, name)
        plain = json.loads(members["bundle.json"])
        if plain.get("schema") != SCHEMA:
            raise UnusableFile(
                f"{name} is a bundle of schema {plain.get('schema')}; this nestling reads schema {SCHEMA}.",
                "make it again with `nestling fit`, or use the nestling version that wrote it",
            )
        weights = load_safetensors(members["weights.safetensors"])
        bundle = Bundle(
            architecture=_architecture(plain["architecture"], members),
            arrays={key.removeprefix("backbone."): a for key, a in weights.items() if key.startswith("backbone.")},
            head=_head(weights, name),
            labels=_labels(plain["labels"], name),
            preprocess=preprocess_from_plain(plain["preprocess"]),
            split=_split(plain["split"]),
            lineage=tuple(Step(**step) for step in plain["lineage"]),
            graph=_graph(json.loads(members["graph.json"]), members["graph.safetensors"]) if "graph.json" in members else None,
            yardstick=_yardstick(plain, weights),
        )
        _require_consistent(bundle, name)
        return bundle
    except NestlingError as error:
        if name in error.message:
            raise
        raise UnusableFile(f"{name}: {error.message}", error.hint) from error
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RuntimeError,  # zipfile: encrypted, of a version to come; json: nested too deep
        OverflowError,
        struct.error,
        zipfile.BadZipFile,
        SafetensorError,
        EOFError,
    ) as error:
        raise UnusableFile(f"{name} is not a whole nestling bundle ({type(error).__name__}: {error}).", "make it again") from error


def _architecture(plain: dict[str, Any] | None, members: Mapping[str, bytes]) -> Timm | Graph | None:
    if plain is None:
        return None
    if "timm" in plain:
        return Timm(str(plain["timm"]), str(plain["weights"]))
    return _graph(plain, members["architecture.safetensors"])


def _graph(plain: dict[str, Any], constants: bytes) -> Graph:
    return graph_file.from_plain(plain, load_safetensors(constants))


def _graph_members(graph: Graph) -> tuple[dict[str, Any], bytes]:
    plain, arrays = graph_file.to_plain(graph)
    return plain, save_safetensors({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def _labels(plain: list[Any], name: str) -> tuple[str, ...]:
    labels = tuple(str(label) for label in plain)
    if any("\n" in label for label in labels):
        raise UnusableFile(f"{name} has a label with a line break in it.")
    return labels


def _require_consistent(bundle: Bundle, name: str) -> None:
    """Each part may be sound and not fit the others: what goes in, what comes out, how many classes there are."""
    if bundle.architecture is None and bundle.graph is None:
        raise UnusableFile(f"{name} holds no network.")
    for graph in (bundle.architecture, bundle.graph):
        if isinstance(graph, Graph):
            _require_fitting(graph, bundle, name)
    if bundle.head is not None and len(bundle.head.bias) != len(bundle.labels):
        raise UnusableFile(f"{name} has {len(bundle.labels)} labels and a head of {len(bundle.head.bias)} classes.")


def _require_fitting(graph: Graph, bundle: Bundle, name: str) -> None:
    image = graph.tensors[graph.inputs[0]]
    wanted = (1, *bundle.preprocess.size, bundle.preprocess.channels)
    dtypes = ("uint8",) if graph is bundle.graph else ("uint8", "float32")
    if len(graph.inputs) != 1 or image.shape != wanted or image.dtype not in dtypes:
        raise UnusableFile(f"{name}: its graph takes {image.dtype} {list(image.shape)}, not images {list(wanted)}.")
    shape = graph.tensors[graph.outputs[0]].shape
    numbers = bundle.head.weight.shape[1] if bundle.head is not None else len(bundle.labels) or shape[-1]
    if len(graph.outputs) != 1 or math.prod(shape) != numbers:
        raise UnusableFile(f"{name}: its graph gives {list(shape)}, {numbers} numbers are expected.")


def _head(weights: Mapping[str, NDArray[Any]], name: str) -> Head | None:
    if "head.weight" not in weights:
        return None
    head = Head(weights["head.weight"], weights["head.bias"])
    if head.weight.ndim != 2 or head.bias.shape != head.weight.shape[:1] or {head.weight.dtype, head.bias.dtype} != {FLOAT32}:
        raise UnusableFile(f"{name} has a head of shapes {head.weight.shape} and {head.bias.shape}.")
    return head


def _split(plain: dict[str, Any] | None) -> Split | None:
    return Split(plain["seed"], *(tuple(plain[part]) for part in PARTS)) if plain else None


def _yardstick(plain: dict[str, Any], weights: Mapping[str, NDArray[Any]]) -> Yardstick | None:
    if "yardstick" not in plain:
        return None
    return Yardstick(tuple(plain["yardstick"]), weights["yardstick.logits"], weights["yardstick.float"])


def _json(plain: object) -> bytes:
    return json_text(plain, separators=(",", ":"), sort_keys=True).encode()


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _unzip(content: bytes, name: str) -> dict[str, bytes]:
    """Members that are stored, not compressed: so the sizes that they claim can't be larger than the file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                raise UnusableFile(f"{name}: its member {info.filename!r} is not one that nestling writes.")
        return {info.filename: archive.read(info) for info in archive.infolist()}
