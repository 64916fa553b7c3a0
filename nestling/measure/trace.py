"""trace: what every layer answers to one image, for people who debug a device layer by layer.

A folder with one .npy a layer, numbered in running order, and index.json: a list of
{"name", "op", "source", "shape", "dtype", "scale", "zero_point", "file"}; scale and zero_point are null for floats.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short
from nestling.bundle import Bundle
from nestling.errors import NestlingError, UnusableData, UnusableFile
from nestling.files import replace_folder
from nestling.formats.about import from_json
from nestling.formats.tflite.file import FileTensor, parse
from nestling.graph import reference
from nestling.graph.ends import with_head
from nestling.graph.ir import Array, Graph, Tensor
from nestling.outside import brief
from nestling.preprocess.image import Numbers, noise, of_photographs
from nestling.preprocess.image import load as load_image
from nestling.printable import json_text
from nestling.temporary import restored

INDEX = "index.json"
LONGEST = 80  # characters of a layer's name in a file's name
SAME_INTEGERS = 1e-5  # of a float layer's largest value: float sums behind the integers of an int8 network may differ in order
SAME_FLOATS = 1e-3  # the same in a float network


Ask = Callable[[Sequence[Array]], Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation. op: "input" for the image; scale, zero_point: None for floats and for the image."""

    __repr__, _repr_html_ = in_short, as_table

    name: str
    op: str
    source: str
    tensor: Tensor
    values: Array

    @property
    def scale(self) -> float | None:
        """Of the real number behind a value."""
        return float(self.tensor.quant.scale[0]) if self.tensor.quant else None

    @property
    def zero_point(self) -> int | None:
        """The value that stands for 0."""
        return int(self.tensor.quant.zero_point[0]) if self.tensor.quant else None


@dataclass(frozen=True)
class Difference:
    """share: of values that differ; largest: the largest difference, in steps of an integer layer; None where shapes differ."""

    layer: str
    op: str
    share: float
    largest: float | None


@dataclass(frozen=True)
class Comparison:
    """compared: names of the layers that both have, in running order; differing: those of them that differ, in the same order.

    machine: where a folder of C was run; "" of files.
    """

    compared: tuple[str, ...]
    differing: tuple[Difference, ...]
    machine: str = ""


def trace(bundle: Bundle, image: Path | None = None) -> tuple[Activation, ...]:
    """The reference's activations for one image file, the image itself first, in running order; the head's behind the graph's.

    image: None for made-up numbers, where the network takes no photographs. A bundle that is not quantised is traced in float.
    Raises UnusableData for a file that can't be read, NestlingError where a photograph is missing, or given to no use.
    """
    if isinstance(bundle.preprocess, Numbers) and image is None:
        return traced(network(bundle), noise(bundle.preprocess)[0])
    if image is None:
        raise NestlingError("this network takes a photograph.", "name one:  nestling trace my8.nest photo.jpg -o trace/")
    return traced(network(bundle), load_image(of_photographs(bundle.preprocess), image))


def network(bundle: Bundle) -> Graph:
    """The whole network of a bundle as one graph, from the image's bytes to the scores."""
    graph = bundle.graph
    if graph is None:
        from nestling.models.float_graph import float_graph

        graph = float_graph(bundle)
    return graph if bundle.head is None else with_head(graph, bundle.head)


def traced(graph: Graph, image: Array) -> tuple[Activation, ...]:
    """As trace, for an image uint8 [H, W, C] of the graph's size (or the numbers that it takes)."""
    nodes = {node.name: node for node in graph.nodes}
    return tuple(
        Activation(name, nodes[name].op, nodes[name].source, graph.tensors[name], values)
        if name in nodes
        else Activation(name, "input", "", graph.tensors[name], values)
        for name, values in reference.activations(graph, image[None])
    )


# ---- on disk -------------------------------------------------------------------------------------------------------------------


def write(layers: Sequence[Activation], folder: Path) -> None:
    """Put the trace in place of an older one, whole or not at all. Raises UnusableData where the folder holds anything else."""
    _require_replaceable(folder)
    replace_folder(folder, _files(layers))


def _files(layers: Sequence[Activation]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file, the index last."""
    digits = max(3, len(str(len(layers))))
    index = []
    for number, layer in enumerate(layers):
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", layer.name)[:LONGEST]
        file = f"{number:0{digits}}_{safe}.npy"
        content = BytesIO()
        np.save(content, layer.values, allow_pickle=False)
        yield file, content.getvalue()
        plain: dict[str, object] = {"name": layer.name, "op": layer.op, "source": layer.source}
        plain |= {"shape": list(layer.values.shape), "dtype": str(layer.values.dtype)}
        index.append(plain | {"scale": layer.scale, "zero_point": layer.zero_point, "file": file})
    yield INDEX, json_text(index, indent=1).encode()


def _require_replaceable(folder: Path) -> None:
    if restored(folder).is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UnusableData(f"{folder} is no folder.", "name another one:  -o trace/")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if names and (INDEX not in names or any(not name.endswith(".npy") for name in names - {INDEX})):
        raise UnusableData(f"{folder} holds other files than a trace.", "name another folder:  -o trace/")


# ---- beside another's answers --------------------------------------------------------------------------------------------------


def against(layers: Sequence[Activation], model: bytes, file: str, ask: Ask | None = None) -> Comparison:
    """The trace beside what LiteRT's reference kernels answer, in a .tflite file, to the same image.

    ask: the file's inputs -> its activations by name; None for LiteRT in this process.
    Tensors are compared by name (those whose name stands twice in the file are left out). uint8 of an old network is int8 and 128.
    Integer values must be equal; float ones within SAME_INTEGERS or SAME_FLOATS of the layer's largest.
    Raises NestlingError where the two have no tensor in common, or the file takes something else.
    """
    from nestling.formats.tflite import run as tflite_run

    described = parse(model, file)
    counts = Counter(tensor.name for tensor in described.tensors)
    if len(described.inputs) != 1:
        raise NestlingError(f"{file} takes {len(described.inputs)} inputs, not one image.")
    feed = _feed(layers, described.tensors[described.inputs[0]], file)
    found = ask([feed]) if ask is not None else tflite_run.activations(model, [feed], file=file)
    once = {name: values for name, values in found.items() if counts[name] == 1}
    return _compared(layers, once, {tensor.name for tensor in described.tensors if _is_old(tensor)}, file)


def against_file(layers: Sequence[Activation], path: Path) -> Comparison:
    """As against, of a file on disk, with LiteRT in a process of its own. Raises OSError where it can't be read."""
    from nestling.apart import runner

    return against(layers, path.read_bytes(), str(path), lambda inputs: runner.activations(path, inputs))


def against_c(layers: Sequence[Activation], folder: Path, trust: bool = False) -> Comparison:
    """The trace beside what a folder of C answers to the same image on the machine that it is for: in QEMU where that is another.

    trust: whoever wrote the folder. Raises as `against`; NotTrusted; NestlingError where a compiler or an emulator is missing.
    """
    from nestling.apart import runner
    from nestling.formats.c import machines, virtual
    from nestling.formats.c.trusted import ABOUT, copied
    from nestling.measure import counted

    image = np.asarray(layers[0].values[0], np.uint8)
    with copied(folder, trust) as place:
        said = from_json((place / ABOUT).read_bytes(), str(folder / ABOUT)).machine
        machine = said or counted.machine_of(folder) or counted.HOST  # older folders do not say it themselves
        if machine not in machines.names():
            raise UnusableFile(f"{folder} is for a machine {brief(machine)}, which this nestling does not know.")
        if machine != counted.HOST:
            found = virtual.run(place, machines.machine(machine), image, trace=True).activations
    if machine == counted.HOST:
        found = runner.start(folder, trust=trust).activations(image)
    return replace(_compared(layers, found, set(), str(folder)), machine=machine)


def _compared(layers: Sequence[Activation], found: Mapping[str, Array], old: Container[str], file: str) -> Comparison:
    """old: names of tensors that `found` holds as uint8."""
    common = [layer for layer in layers if layer.name in found and layer.op != "input"]
    if not common:
        raise NestlingError(f"{file} has no layer of this network's names.", "trace the bundle that it was printed from")
    tolerance = SAME_INTEGERS if any(layer.tensor.dtype == "int8" for layer in layers) else SAME_FLOATS
    pairs = ((layer, _difference(layer, found[layer.name], layer.name in old, tolerance)) for layer in common)
    return Comparison(tuple(layer.name for layer in common), tuple(difference for _, difference in pairs if difference))


def _feed(layers: Sequence[Activation], wanted: FileTensor, file: str) -> Array:
    """The file's input: our tensor of its name; else the image's bytes, or what the network's table makes of them."""
    by_name = {layer.name: layer for layer in layers}
    table = next((layer for layer in layers if layer.op == "table"), None)
    candidates = [layer for layer in (by_name.get(wanted.name), layers[0], table) if layer is not None]
    for layer in candidates:
        values = _as_signed(layer.values, layer.tensor.quant is not None)
        values = (values.view(np.uint8) ^ np.uint8(128)) if _is_old(wanted) and values.dtype == np.int8 else values
        raw = layer.op == "input" and wanted.quant is not None  # bytes are no quantised numbers
        if values.ndim == 4 and values.shape != wanted.shape:
            values = values.transpose(0, 3, 1, 2)  # for a file that takes [1, C, H, W]
        if values.dtype == wanted.dtype and values.shape == wanted.shape and not raw:
            return values
    raise NestlingError(f"{file} takes {wanted.type_name} {list(wanted.shape)}, which this network has nothing for.")


def _difference(layer: Activation, theirs: Array, old: bool, tolerance: float) -> Difference | None:
    """None where the two are the same."""
    ours = layer.values
    if ours.size != theirs.size:
        return Difference(layer.name, layer.op, 1.0, None)
    theirs = _as_signed(theirs.reshape(ours.shape), old)
    if ours.dtype == theirs.dtype and ours.dtype != np.float32:
        steps = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
        return Difference(layer.name, layer.op, float((steps > 0).mean()), float(steps.max())) if steps.any() else None
    a, b = _real(layer, ours), _real(layer, theirs)
    apart = np.abs(a - b)
    wrong = ~(apart <= tolerance * np.abs(a).max(initial=0.0))  # also where one is no number
    wrong &= ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not wrong.any():
        return None
    largest = float(apart[wrong].max())
    return Difference(layer.name, layer.op, float(wrong.mean()), largest if np.isfinite(largest) else None)


def _is_old(tensor: FileTensor) -> bool:
    return tensor.dtype == np.uint8 and tensor.quant is not None


def _as_signed(values: Array, old: bool) -> Array:
    """Quantised uint8 as int8, 128 less."""
    return (np.asarray(values, np.uint8) ^ np.uint8(128)).view(np.int8) if old and values.dtype == np.uint8 else values


def _real(layer: Activation, values: Array) -> NDArray[np.float64]:
    """Real numbers, float64; integers by our scale."""
    wide = values.astype(np.float64)
    if values.dtype == np.float32 or layer.scale is None or layer.zero_point is None:
        return wide
    return (wide - layer.zero_point) * layer.scale


def plain(comparison: Comparison) -> Mapping[str, object]:
    """As --json prints it."""
    first = comparison.differing[0].layer if comparison.differing else None
    where = {"machine": comparison.machine} if comparison.machine else {}
    differing = [asdict(difference) for difference in comparison.differing]
    return {"compared": len(comparison.compared), "first": first, "differing": differing} | where
