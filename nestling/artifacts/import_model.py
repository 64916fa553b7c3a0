"""import: a network file of somebody else's as a bundle.

An integer network (int8, or the old uint8) becomes the bundle's int8 graph with a table in front, image -> what the file takes, and
keeps its own end. A float network becomes the bundle's architecture, ending in the embedding, and its last layer the head: so it
serves as a backbone, too; a table stands in front where it normalises its image itself. Which numbers a float network takes is seen
in what it does to them first (import_input.py), or asked for; networks of no photographs: import_numbers.py. What else the file
does not say is assumed, and the lineage says what was. NumPy only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling import formats
from nestling.artifacts.import_input import found
from nestling.artifacts.import_numbers import with_numbers
from nestling.bundle import Bundle, Step
from nestling.errors import NestlingError, UnusableFile, WrongOption
from nestling.formats.format import AS_IT_IS, ReadConfig
from nestling.graph.edit import tidy
from nestling.graph.ends import ending, ending_in, without_last_layer
from nestling.graph.fixed_point import round_half_away
from nestling.graph.ir import Array, Graph, Tensor
from nestling.preprocess.image import SIDES, ImagePreprocess, Preprocess, as_option, shape_of
from nestling.preprocess.image import from_plain as preprocess_from_plain
from nestling.preprocess.image import table as normalised
from nestling.preprocess.image import to_plain as preprocess_to_plain
from nestling.preprocess.pictures import Reading

Numbers = tuple[float, ...]

CHOICES = """say it; the network's makers, or the code that it was trained with, know which of these it is (v: a byte, 0..255):
    --mean 0 --std 1                                          0..1, v / 255
    --mean 0.5 --std 0.5                                      -1..1, v / 127.5 - 1
    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225          ImageNet's mean and deviation
    --mean 0 --std 0.00392157                                 0..255, v as it is
    --numbers                                                 no photographs: of sound, of sensors"""


@dataclass(frozen=True)
class Said:
    """How bytes become the file's input, in real numbers: (v / 255 - mean) / std a channel, and where that is known from.

    as_they_are: a quantised input takes the bytes themselves, whatever its scale. assumed: nobody said so.
    """

    mean: Numbers
    std: Numbers
    source: str
    as_they_are: bool = False
    assumed: bool = False


def import_model(
    path: Path,
    labels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    config: ReadConfig = AS_IT_IS,
    numbers: bool = False,
) -> Bundle:
    """Read a .tflite file, int8, old uint8 or float, as a bundle; the last line of its lineage says what was assumed.

    labels: one a class; None for those in the file, else "class 0", "class 1", ...
    mean, std: one number, or one a channel, for values in 0..1: input = (v / 255 - mean) / std. Both or none; None for what the
    file says, else bytes as they are for a quantised input, what the graph shows for a float one.
    config: which of the file's networks, and the size of images where it takes any.
    numbers: what it takes is no image, though it has the shape of one; of other shapes it goes without saying (import_numbers.py).
    Raises UnusableFile for a damaged file and one that does not give one score a class, UnsupportedOp for an
    operator that the Graph does not hold, NestlingError for labels or numbers that do not fit, and where mean and std are needed.
    """
    if config.size is not None and not all(SIDES[0] <= side <= SIDES[1] for side in config.size):
        raise WrongOption(f"--size is {SIDES[0]} to {SIDES[1]} pixels a side; found {as_option(config.size)}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror or error}.") from error
    reader = formats.reader(path)
    file = reader(content, str(path), None, config)
    graph, notes = _first_output(file.graph)
    _classifying(graph, path)
    if (mean is None) != (std is None):
        raise WrongOption("--mean and --std belong together; only one of them was given.")
    given = None if mean is None or std is None else (tuple(mean), tuple(std))
    image = None if numbers or _is_of_numbers(file.preprocess) else _image(graph)
    preprocess: Preprocess
    if image is None:
        if given is not None:
            raise NestlingError(f"{path} takes no photographs; --mean and --std are for those.", "leave them out")
        graph, preprocess = with_numbers(graph, str(path))
        said = Said((), (), "numbers that are no photograph's")
    else:

        def read(pixels: Array) -> Graph:
            return _first_output(reader(content, str(path), pixels, config).graph)[0]

        ours = _own_preprocess(file.preprocess, image, path)
        said = _said(graph, image, given, ours, file.values, read, path)
        preprocess = ours if ours is not None and given is None else _preprocess(image, said, path)
        graph = _with_table(graph, image, said, preprocess, read)
    bundle, end_notes = _parts(graph, preprocess)
    names, label_notes = _labels(labels, file.labels, _classes(bundle), path)
    if said.assumed:
        notes.append(f"its input is taken to be {said.source}: mean {_listed(said.mean)}, std {_listed(said.std)}")
    settings = {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "normalisation": said.source,
        **({} if config.signature is None else {"signature": config.signature}),
        "assumed": [*notes, *end_notes, *label_notes],
    }
    return replace(bundle, labels=names, lineage=(Step("import", settings),))


# ---- what comes in -------------------------------------------------------------------------------------------------------------


def _image(graph: Graph) -> Tensor | None:
    """The input, where it is one image, of a size that images are made in; None where what goes in is something else."""
    found = [graph.tensors[name] for name in graph.inputs]
    if len(found) != 1 or len(found[0].shape) != 4 or found[0].shape[3] not in (1, 3):
        return None
    return found[0] if all(SIDES[0] <= side <= SIDES[1] for side in found[0].shape[1:3]) else None


def _is_of_numbers(plain: object) -> bool:
    """What nestling wrote into a file that it printed of such a network."""
    return isinstance(plain, dict) and plain.get("kind") == "numbers"


def _classifying(graph: Graph, path: Path) -> None:
    """Raises UnusableFile where the output is not one score a class."""
    logits = graph.tensors[ending(graph).logits]
    if math.prod(logits.shape) != logits.shape[-1] or logits.dtype == "uint8":
        raise UnusableFile(f"{path} gives {list(logits.shape)}, not one score a class; nestling imports networks that classify.")


def _said(
    graph: Graph,
    image: Tensor,
    given: tuple[Numbers, Numbers] | None,
    ours: Preprocess | None,
    standard: tuple[Numbers, Numbers] | None,
    read: Callable[[Array], Graph],
    path: Path,
) -> Said:
    """The first that there is: the graph's own table, the caller's word, our metadata, the standard's, what the graph shows.

    The standard's mean 0 and std 1 mean for a quantised input that nothing is to be done to the bytes.
    """
    table = _own_table(graph, image)
    if table is not None:
        if given is not None:
            raise NestlingError(f"{path} normalises its image itself.", "leave out --mean and --std")
        return _said_by_table(table)
    if given is not None:
        return Said(*given, "as --mean and --std say")
    if ours is not None:
        return Said(ours.mean, ours.std, "as nestling wrote into the file")
    if standard is not None and not (image.quant and set(standard[0]) == {0.0} and set(standard[1]) == {1.0}):
        mean, std = (tuple(value / 255 for value in values) for values in standard)
        return Said(mean, std, "as its metadata says")
    if image.quant is None:
        return _shown(read, image, path)
    scale, zero = float(image.quant.scale[0]), int(image.quant.zero_point[0])
    return Said(((zero + 128) / 255,), (1 / (255 * scale),), "the image's bytes as they are", True, standard is None)


def _shown(read: Callable[[Array], Graph], image: Tensor, path: Path) -> Said:
    """What the graph of a float network shows of its input. Raises NestlingError, with what to say, where that is not enough."""
    shown = found(read, image.shape[3])
    if len(shown.fitting) == 1:
        one = shown.fitting[0]
        becomes = shown.becomes[one.name]
        return Said((one.mean,), (one.std,), f"{one.name}, of which its graph makes {becomes}")
    made = ", ".join(f"{becomes} of {name}" for name, becomes in shown.becomes.items())
    why = (
        f"its graph makes {made}, and which of these is meant cannot be told"
        if made
        else "its graph does nothing to it that would tell"
    )
    raise NestlingError(f"{path} does not say which numbers it takes for an image: {why}, and no metadata does.", CHOICES)


def _with_table(graph: Graph, image: Tensor, said: Said, preprocess: Preprocess, read: Callable[[Array], Graph]) -> Graph:
    """The graph that takes bytes, where it has to: integers do, and what a file does to its image first goes into the table."""
    if image.dtype == "uint8":
        return graph
    pixels = _raw(image) if said.as_they_are else _steps(normalised(preprocess), image)
    made = read(pixels)
    tables = [np.asarray(made.tensors[node.inputs[1]].data) for node in made.nodes if node.op == "table"]
    return graph if not _is_integer(graph) and all(np.array_equal(table, pixels) for table in tables) else made


def _preprocess(image: Tensor, said: Said, path: Path) -> Preprocess:
    """Of the input's size, without a crop, bilinear. Raises UnusableFile for what no preprocessing may be."""
    height, width, channels = image.shape[1:]
    if len(said.mean) not in (1, channels) or len(said.std) not in (1, channels):
        raise NestlingError(f"{path} takes {channels} channels; the mean has {len(said.mean)} numbers, the std {len(said.std)}.")
    wanted = ImagePreprocess(
        size=(height, width),
        channels=1 if channels == 1 else 3,
        crop=1.0,
        interpolation="bilinear",
        mean=said.mean * (channels if len(said.mean) == 1 else 1),
        std=said.std * (channels if len(said.std) == 1 else 1),
        reading=Reading(colour="srgb"),
    )
    try:
        return preprocess_from_plain(preprocess_to_plain(wanted))
    except UnusableFile as error:
        raise UnusableFile(f"{path}: {error.message}") from error


def _own_preprocess(plain: object, image: Tensor, path: Path) -> Preprocess | None:
    """What nestling wrote into a file that it printed."""
    if not isinstance(plain, dict):
        return None
    try:
        preprocess = preprocess_from_plain(plain)
    except UnusableFile as error:
        raise UnusableFile(f"{path}: {error.message}") from error
    if shape_of(preprocess) != image.shape[1:]:
        raise UnusableFile(f"{path} says that it takes {shape_of(preprocess)}, but its input is {list(image.shape)}.")
    return preprocess


def _own_table(graph: Graph, image: Tensor) -> Array | None:
    """Real numbers float32 [C, 256] of the table that reads the image in a network that takes bytes; None for other inputs."""
    if image.dtype != "uint8":
        return None
    readers = graph.readers(image.name)
    table = graph.tensors[readers[0].inputs[1]] if readers else None
    if table is None or table.data is None:  # nothing but a table reads bytes, says the spec
        raise UnusableFile("its answer does not depend on the image, or the image's table is not a constant.")
    if table.quant is None:
        return np.asarray(table.data, np.float32)
    return table.quant.real(table.data)


def _said_by_table(table: Array) -> Said:
    """The line through the ends of each row; (0, 1), which nobody reads, where a row doesn't rise."""
    rows = table.astype(np.float64)
    rise = rows[:, -1] - rows[:, 0]
    if not np.all(np.isfinite(rows)) or np.any(rise <= 0):
        return Said((0.0,), (1.0,), "as it normalises itself")
    return Said(tuple((-rows[:, 0] / rise).tolist()), tuple((1 / rise).tolist()), "as it normalises itself")


def _raw(image: Tensor) -> Array:
    """The byte less 128, for every channel: int8 [C, 256]. An old uint8 input has been moved by as much already."""
    return np.tile((np.arange(256) - 128).astype(np.int8), (image.shape[3], 1))


def _steps(real: NDArray[np.float32], image: Tensor) -> Array:
    """Real numbers as the input takes them: QUANTIZE's arithmetic (nearest, halves away from zero), or as they are."""
    if image.quant is None:
        return real
    steps = round_half_away((real / image.quant.scale[0]).astype(np.float32)) + int(image.quant.zero_point[0])
    return np.clip(steps, -128, 127).astype(np.int8)


# ---- what goes out -------------------------------------------------------------------------------------------------------------


def _first_output(graph: Graph) -> tuple[Graph, list[str]]:
    """Only the first output of several goes on: the scores, in files that also give an embedding."""
    if len(graph.outputs) == 1:
        return graph, []
    note = f"of its {len(graph.outputs)} outputs the first, {graph.outputs[0]!r}, is taken"
    return tidy(replace(graph, outputs=graph.outputs[:1])), [note]


def _parts(graph: Graph, preprocess: Preprocess) -> tuple[Bundle, list[str]]:
    """The bundle without labels: which part is backbone, which is head."""
    end = ending(graph)
    float_layer = end.layer is not None and graph.tensors[end.layer.name].dtype == "float32"
    empty = Bundle(None, {}, None, (), preprocess)
    if end.layer is not None and float_layer:
        body, head = without_last_layer(graph, end.layer)
        if not _is_integer(body):  # integers at the file's ends alone are no integer network
            return replace(empty, architecture=body, head=head), []
        if graph.tensors[body.outputs[0]].dtype == "int8":
            return replace(empty, graph=body, head=head), []
    scores = ending_in(graph, end.logits)
    if _is_integer(scores):
        return replace(empty, graph=graph), []
    note = "it does not end in a fully connected layer: it keeps its own end, and as a backbone its scores serve as embedding"
    return replace(empty, architecture=scores), [note]


def _classes(bundle: Bundle) -> int:
    if bundle.head is not None:
        return len(bundle.head.bias)
    graph = bundle.graph or bundle.architecture
    assert isinstance(graph, Graph)
    return math.prod(graph.tensors[graph.outputs[0]].shape)


def _labels(given: Sequence[str] | None, in_file: Sequence[str], classes: int, path: Path) -> tuple[tuple[str, ...], list[str]]:
    """One label a class, and what is to be said about them."""
    if given is not None:
        if len(given) != classes:
            raise NestlingError(f"{path} knows {classes} classes; --labels names {len(given)}.")
        return tuple(given), []
    if len(in_file) == classes:
        return tuple(in_file), []
    why = f"the {len(in_file)} labels in the file are not its {classes} classes" if in_file else "the file names no classes"
    return tuple(f"class {i}" for i in range(classes)), [f"{why}: they are called class 0 to class {classes - 1} (--labels FILE)"]


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line; empty lines at the end do not count. Raises UnusableFile."""
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableFile(f"{path} cannot be read as a list of labels, one a line ({error}).") from error
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        raise UnusableFile(f"{path} is empty, or has an empty line between labels.", "one label a line, in the network's order")
    return labels


# ---- small things --------------------------------------------------------------------------------------------------------------


def _is_integer(graph: Graph) -> bool:
    return any(tensor.dtype == "int8" and tensor.data is None for tensor in graph.tensors.values())


def _listed(values: Numbers) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
