"""Bundle: what every step reads and writes; on disk one file, NAME.nest.

Plain values, no torch in it, so that a printer needs none. The file is an uncompressed zip:

    bundle.json            schema version, architecture, labels, preprocessing, split, lineage
    weights.safetensors    the float network's arrays and the head
    architecture.safetensors   constants of a float Graph, where the architecture is one (its nodes are in bundle.json)
    structure.json, structure.safetensors   of a timm architecture: its float Graph over the arrays (graph/structure.py)
    graph.json, graph.safetensors   the int8 Graph, where there is one
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_safetensors

from nestling import outside
from nestling.brief import as_table, in_short
from nestling.errors import MAKE_BUNDLE, NestlingError, UnusableFile
from nestling.files import write_atomically
from nestling.graph import file as graph_file
from nestling.graph import structure as structures
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.graph.structure import Structure
from nestling.preprocess.image import Numbers, Preprocess, shape_of
from nestling.preprocess.image import from_plain as preprocess_from_plain
from nestling.preprocess.image import to_plain as preprocess_to_plain
from nestling.printable import json_text

SCHEMA = 1
ARCHIVE = b"PK"  # how the file begins
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
FloatArray = NDArray[np.float32]
FLOAT32 = np.dtype(np.float32)

# what a file may say at most
MOST_LABELS = 1_000_000
MOST_IMAGES = 100_000_000
MOST_STEPS = 10_000
FINGERPRINT = re.compile("[0-9a-f]{16}")
NUMBER = (int, float)
SETTINGS: Mapping[str, type | tuple[type, ...]] = {  # of the lineage's steps: those that later steps go by
    "folder": str,
    "before": list,
    "views": str,
    "method": str,
    "balanced": bool,
    "weight_decay": NUMBER,
    "equalized": bool,
    "calibration": int,
    "seed": int,
    "training": dict,
}


@dataclass(frozen=True)
class Timm:
    """A backbone by timm's name, made plain (see models/plain.py); weights says where its numbers came from.

    structure: its float Graph over the bundle's arrays, image float32 -> embedding; None in bundles of before there was one, and
    where the Graph has no place for what the network does.
    """

    __repr__, _repr_html_ = in_short, as_table

    name: str
    weights: str
    structure: Structure | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Split:
    """Which photographs were learned from, by fingerprint (SHA-256 of a file's content, 16 hex digits)."""

    __repr__, _repr_html_ = in_short, as_table

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

    __repr__, _repr_html_ = in_short, as_table

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

    __repr__, _repr_html_ = in_short, as_table

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

    __repr__, _repr_html_ = in_short, as_table

    architecture: Timm | Graph | None
    arrays: Mapping[str, NDArray[Any]]
    head: Head | None
    labels: tuple[str, ...]
    preprocess: Preprocess
    split: Split | None = None
    lineage: tuple[Step, ...] = ()
    graph: Graph | None = None
    yardstick: Yardstick | None = None


def fitted_head(bundle: Bundle) -> Head:
    """The head of a fitted network. Raises NestlingError where there is none."""
    if bundle.head is None:
        raise NestlingError("only a fitted network will do: this bundle has no head.", "nestling fit PHOTOS -o my.nest")
    return bundle.head


def int8_graph(bundle: Bundle) -> Graph:
    """The integers of a quantised network. Raises NestlingError where there are none."""
    if bundle.graph is None:
        raise NestlingError("this bundle has no integers yet.", "nestling quantize my.nest -o my8.nest")
    return bundle.graph


def yardstick_of(bundle: Bundle) -> Yardstick:
    """What a quantised network was measured by. Raises NestlingError where it was not."""
    if bundle.yardstick is None:
        raise NestlingError("this bundle has no yardstick yet.", "nestling quantize my.nest -o my8.nest")
    return bundle.yardstick


def never_taught(bundle: Bundle) -> bool:
    """Whether the backbone's weights are random still: `fit` took none, and no training (which leaves curves) has followed."""
    taken = [str(step.settings.get("weights", "")) for step in bundle.lineage if step.name == "fit"]
    return bool(taken) and taken[-1].startswith("none") and not any(step.curves for step in bundle.lineage)


def save(bundle: Bundle, path: Path) -> None:
    """Write the bundle as one file. The same bundle gives the same bytes.

    Raises NestlingError, and leaves an older file as it is, where the bundle holds numbers that `load` would refuse.
    """
    try:
        write_atomically(path, to_bytes(bundle))
    except UnusableFile as error:
        raise NestlingError(f"{path} was not written: {error.message}", error.hint) from error


def load(path: Path) -> Bundle:
    """Read a bundle. Raises UnusableFile, naming the file, for anything that is not a whole bundle of this schema."""
    content = outside.content(path, MAKE_BUNDLE)
    if not content.startswith(ARCHIVE):
        raise UnusableFile(
            f"{path} is not a bundle.", f"{MAKE_BUNDLE}; of somebody else's .tflite:  nestling import FILE -o my.nest"
        )
    return from_bytes(content, str(path))


def to_bytes(bundle: Bundle) -> bytes:
    """The file's content; members in fixed order with a fixed date, so that equal bundles are equal bytes.

    Raises UnusableFile, naming the array, for numbers that are not finite.
    """
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
        members |= _structure_members(bundle.architecture.structure)
    elif bundle.architecture is None:
        plain["architecture"] = None
    else:
        plain["architecture"], constants = _graph_members(bundle.architecture)
        members["architecture.safetensors"] = constants
    if bundle.yardstick:
        plain["yardstick"] = list(bundle.yardstick.fingerprints)
        weights |= {"yardstick.logits": bundle.yardstick.logits, "yardstick.float": bundle.yardstick.float_logits}
    outside.require_sound(weights, "the network")
    members["weights.safetensors"] = save_safetensors({name: np.ascontiguousarray(a) for name, a in sorted(weights.items())})
    if bundle.graph:
        graph_plain, constants = _graph_members(bundle.graph)
        members |= {"graph.json": _json(graph_plain), "graph.safetensors": constants}
    return _zip({"bundle.json": _json(plain)} | members)


def from_bytes(content: bytes, name: str) -> Bundle:
    """The inverse of to_bytes. `name` is the file's name in messages. Raises UnusableFile."""
    try:
        return _read(outside.unzipped(content, name), name)
    except NestlingError as error:
        named = error.message if name in error.message else f"{name}: {error.message}"
        raise UnusableFile(named, error.hint or "make it again") from error


def _read(members: Mapping[str, bytes], name: str) -> Bundle:
    whole = f"{name} is not a whole nestling bundle"
    record = outside.Record(outside.parsed(_member(members, "bundle.json", whole), f"{whole}: bundle.json"), whole)
    schema = record.get("schema", int)
    if schema != SCHEMA:
        raise UnusableFile(
            f"{name} is a bundle of schema {outside.brief(schema)}; this nestling reads schema {SCHEMA}.",
            "make it again with `nestling fit`, or use the nestling version that wrote it",
        )
    weights = outside.arrays(_member(members, "weights.safetensors", whole), name)
    outside.require_sound(weights, name)
    graph = outside.parsed(members["graph.json"], f"{whole}: graph.json") if "graph.json" in members else None
    bundle = Bundle(
        architecture=_architecture(record, members, name),
        arrays={key.removeprefix("backbone."): a for key, a in weights.items() if key.startswith("backbone.")},
        head=_head(weights, name),
        labels=_labels(record),
        preprocess=preprocess_from_plain(record.get("preprocess", dict)),
        split=None if record.get("split", (dict, type(None))) is None else _split(record.record("split")),
        lineage=tuple(map(_step, record.records("lineage", MOST_STEPS))),
        graph=None if graph is None else _graph(graph, "graph.safetensors", members, name),
        yardstick=_yardstick(record, weights),
    )
    _require_consistent(bundle, name)
    return bundle


def _member(members: Mapping[str, bytes], member: str, where: str) -> bytes:
    if member not in members:
        raise UnusableFile(f"{where}: {member} is missing.")
    return members[member]


def _architecture(record: outside.Record, members: Mapping[str, bytes], name: str) -> Timm | Graph | None:
    plain = record.get("architecture", (dict, type(None)))
    if plain is None:
        return None
    if "timm" in plain:
        inner = record.record("architecture")
        return Timm(inner.text("timm"), inner.text("weights"), _structure(members, name))
    return _graph(plain, "architecture.safetensors", members, name)


def _graph(plain: object, constants: str, members: Mapping[str, bytes], where: str) -> Graph:
    return graph_file.from_plain(plain, outside.arrays(_member(members, constants, where), where))


def _graph_members(graph: Graph) -> tuple[dict[str, Any], bytes]:
    plain, arrays = graph_file.to_plain(graph)
    return plain, save_safetensors({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def _structure_members(structure: Structure | None) -> dict[str, bytes]:
    if structure is None:
        return {}
    own = {name: np.ascontiguousarray(array) for name, array in sorted(structure.own.items())}
    return {"structure.json": _json(structures.to_plain(structure)), "structure.safetensors": save_safetensors(own)}


def _structure(members: Mapping[str, bytes], where: str) -> Structure | None:
    if "structure.json" not in members:
        return None
    said = f"{where}: structure.json"
    own = outside.arrays(_member(members, "structure.safetensors", where), where)
    return structures.from_plain(outside.Record(outside.parsed(members["structure.json"], said), said), own)


def _labels(record: outside.Record) -> tuple[str, ...]:
    labels = record.names("labels", MOST_LABELS)
    if any("\n" in label for label in labels):
        record.refuse("a label has a line break in it")
    return labels


def _split(record: outside.Record) -> Split:
    return Split(record.seed("seed"), *(fingerprints_in(record, part) for part in PARTS))


def fingerprints_in(record: outside.Record, name: str) -> tuple[str, ...]:
    """Those of photographs, a member of the record. Raises UnusableFile for what are none."""
    prints = record.names(name, MOST_IMAGES)
    if wrong := next((print_ for print_ in prints if not FINGERPRINT.fullmatch(print_)), None):
        record.refuse(f"{name}: {outside.brief(wrong)} is not the 16 hex digits of a photograph")
    return prints


def _step(record: outside.Record) -> Step:
    """Settings may be anything that JSON holds, but for those that later steps go by."""
    if unknown := record.plain.keys() - {"name", "settings", "data", "metrics", "curves"}:
        record.refuse(f"there is no {outside.brief(min(unknown))} in a step")
    settings, metrics, curves = (record.maybe(name) for name in ("settings", "metrics", "curves"))
    for setting, kind in SETTINGS.items():
        if setting in settings.plain:
            settings.number(setting) if kind == NUMBER else settings.get(setting, kind)
    for metric in metrics.plain:
        metrics.measured(metric)
    for curve, values in curves.plain.items():
        if type(values) is not list or not all(type(value) in NUMBER and outside.is_finite(value) for value in values):
            curves.refuse(f"{curve!r} is not a list of finite numbers")
    return Step(record.text("name"), settings.plain, record.optional("data", record.text, ""), metrics.plain, curves.plain)


def _require_consistent(bundle: Bundle, name: str) -> None:
    """Each part may be sound and not fit the others: what goes in, what comes out, how many classes there are."""
    if bundle.architecture is None and bundle.graph is None:
        raise UnusableFile(f"{name} holds no network.")
    for graph in (bundle.architecture, bundle.graph):
        if isinstance(graph, Graph):
            _require_fitting(graph, bundle, name)
    if isinstance(bundle.architecture, Timm) and bundle.architecture.structure is not None:
        _require_backbone(structures.filled(bundle.architecture.structure, bundle.arrays, name), bundle, name)
    if bundle.head is not None and len(bundle.head.bias) != len(bundle.labels):
        raise UnusableFile(f"{name} has {len(bundle.labels)} labels and a head of {len(bundle.head.bias)} classes.")
    if bundle.yardstick is not None and bundle.labels and bundle.yardstick.logits.shape[1] != len(bundle.labels):
        raise UnusableFile(f"{name} has {len(bundle.labels)} labels and answers of {bundle.yardstick.logits.shape[1]} classes.")


def _require_fitting(graph: Graph, bundle: Bundle, name: str) -> None:
    image = graph.tensors[graph.inputs[0]]
    p, wanted = bundle.preprocess, (1, *shape_of(bundle.preprocess))
    dtypes = (p.dtype,) if isinstance(p, Numbers) else ("uint8",) if graph is bundle.graph else ("uint8", "float32")
    if len(graph.inputs) != 1 or image.shape != wanted or image.dtype not in dtypes:
        what = f"{p.dtype} numbers" if isinstance(p, Numbers) else "images"
        raise UnusableFile(f"{name}: its graph takes {image.dtype} {list(image.shape)}, not {what} {list(wanted)}.")
    answer = graph.tensors[graph.outputs[0]]
    shape = answer.shape
    if graph is bundle.graph and bundle.head is not None and answer.dtype != "int8":
        raise UnusableFile(f"{name}: its int8 graph gives {answer.dtype}, not an int8 embedding.")
    classes = len(bundle.labels) or (0 if graph is bundle.graph else shape[-1])  # a float backbone may know none yet
    numbers = bundle.head.weight.shape[1] if bundle.head is not None else classes
    if len(graph.outputs) != 1 or math.prod(shape) != numbers:
        raise UnusableFile(f"{name}: its graph gives {list(shape)}, {numbers} numbers are expected.")


def _require_backbone(graph: Graph, bundle: Bundle, name: str) -> None:
    """That a structure is a float backbone with the head's width; one of another size than the bundle's images is not used."""
    if any(tensor.dtype != "float32" for tensor in graph.tensors.values()) or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UnusableFile(f"{name}: structure.json is no float network from one image to one embedding.")
    shape = graph.tensors[graph.outputs[0]].shape
    used = graph.tensors[graph.inputs[0]].shape == (1, *shape_of(bundle.preprocess))
    if used and bundle.head is not None and math.prod(shape) != (numbers := bundle.head.weight.shape[1]):
        raise UnusableFile(f"{name}: structure.json gives {list(shape)}, {numbers} numbers are expected.")


def _head(weights: Mapping[str, NDArray[Any]], name: str) -> Head | None:
    if "head.weight" not in weights and "head.bias" not in weights:
        return None
    if missing := [part for part in ("head.weight", "head.bias") if part not in weights]:
        raise UnusableFile(f"{name} has a head without {missing[0]!r}.")
    head = Head(weights["head.weight"], weights["head.bias"])
    if head.weight.ndim != 2 or head.bias.shape != head.weight.shape[:1] or {head.weight.dtype, head.bias.dtype} != {FLOAT32}:
        raise UnusableFile(f"{name} has a head of shapes {head.weight.shape} and {head.bias.shape}.")
    return head


def _yardstick(record: outside.Record, weights: Mapping[str, NDArray[Any]]) -> Yardstick | None:
    if not record.has("yardstick"):
        return None
    prints = fingerprints_in(record, "yardstick")
    logits, floats = weights.get("yardstick.logits"), weights.get("yardstick.float")
    if logits is None or floats is None or {logits.dtype, floats.dtype} != {FLOAT32}:
        record.refuse("the yardstick has no float32 answers")
    if logits.ndim != 2 or len(logits) != len(prints) or floats.shape != logits.shape:
        record.refuse(f"the yardstick of {len(prints)} images has answers of shapes {logits.shape} and {floats.shape}")
    return Yardstick(prints, logits, floats)


def _json(plain: object) -> bytes:
    return json_text(plain, separators=(",", ":"), sort_keys=True).encode()


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
