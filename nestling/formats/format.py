"""What a format is: how a bundle is printed in it, what runs its files, and how a printed file is looked into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle
from nestling.errors import NestlingError
from nestling.formats.layer_time import LayerTime
from nestling.formats.runner import Runner
from nestling.graph.ends import with_head, with_int8_head, with_own_end
from nestling.graph.integers import Range
from nestling.graph.ir import Graph, Pair
from nestling.words import OnnxWeights

INTEGERS = "int8"  # the precision that is printed from the bundle's int8 Graph
BYTE_IMAGES = 2  # on which a file must give the reference's bytes; the reference takes about a second for each
Embedding = Literal["second output", "own file", "always", "alone"]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class ExportConfig:
    """features: the embedding, too, see Format.embedding.

    int8_head: the head in integers. onnx_weights: how int8 weights are stored in .onnx; int8 is quicker where the processor has
    8-bit dot products, and wrong on others (docs/onnx-weights.md). force: keep what fails its gates. ram, flash: bytes that C has
    to fit into. name: what the network's symbols, macros and files begin with in C, so that two link into one firmware.
    """

    features: bool = False
    int8_head: bool = False
    onnx_weights: OnnxWeights = "uint8"
    force: bool = False
    ram: int | None = None
    flash: int | None = None
    name: str = "nestling"


@dataclass(frozen=True, eq=False)
class Job:
    """What a printer needs. The float Graph is captured once, when first asked for."""

    bundle: Bundle
    config: ExportConfig

    @cached_property
    def captured(self) -> Graph:
        """uint8 image -> float embedding, or the network's own end."""
        from nestling.models.float_graph import float_graph

        return float_graph(self.bundle)

    def inside(self, form: Format, precision: str) -> Graph:
        """What a file holds: uint8 image -> logits float32 (-> embedding, too), or of a backbone alone -> embedding.

        (Its weights may have to be made symmetric yet: see Format.as_printed.)
        """
        bundle, config = self.bundle, self.config
        graph = self.backbone(precision)
        if bundle.head is None:
            if config.features or config.int8_head or form.embedding == "alone":
                raise NestlingError("--features and --int8-head are for networks with a head of nestling's.")
            return with_own_end(graph)
        if form.embedding == "alone":
            return graph
        features = config.features and form.embedding == "second output"
        if precision != INTEGERS or not config.int8_head:
            return with_head(graph, bundle.head, features)
        if bundle.yardstick is None or config.features:
            raise NestlingError("--int8-head needs a bundle that nestling quantised, and gives no features.")
        logits = bundle.yardstick.logits
        return with_int8_head(graph, bundle.head, Range(float(logits.min()), float(logits.max())))

    def backbone(self, precision: str) -> Graph:
        """uint8 image -> embedding, float32 or int8 (or a network's own end)."""
        if precision != INTEGERS:
            return self.captured
        if self.bundle.graph is None:
            raise NestlingError("int8 files are printed from a quantised bundle.", "nestling quantize my.nest -o my8.nest")
        return self.bundle.graph


@dataclass(frozen=True, eq=False)
class Printed:
    """A file's bytes, or of a folder each file's by its name.

    delegated: share of an ExecuTorch program's operations that XNNPACK runs. requantised: (output channels whose weights had to
    get other integers, of how many), for networks whose weights have zero points. flash, arena: bytes of constants and of RAM for
    activations that C needs. notes: what was chosen on the way, a sentence each.
    """

    content: bytes | Mapping[str, bytes]
    delegated: float | None = None
    requantised: tuple[int, int] | None = None
    flash: int | None = None
    arena: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the file; of C, of its constants."""
        return self.flash or len(self.content)


@dataclass(frozen=True)
class File:
    """place: where it lies, name: what it is called in messages. threads: None leaves the runtime's own choice."""

    place: Path
    name: Path
    threads: int | None = None


@dataclass(frozen=True)
class Runtime:
    """What runs files of a format. prepare: imports it, where no file is there yet. extra: that it comes with (extras.py).

    brings_torch: here; on a device it does not, so its memory is measured without.
    """

    load: Callable[[File], Runner]
    prepare: Callable[[], None] = lambda: None
    brings_torch: bool = False
    extra: str = ""


Printer = Callable[[Job], Printed]


@dataclass(frozen=True, eq=False)
class Read:
    """A file of anybody's as a checked Graph, and what it says of itself.

    labels: () for none. preprocess: as nestling wrote it, None where it did not. values: (mean, std) that its metadata has for
    bytes 0..255, None where it has none.
    """

    graph: Graph
    labels: tuple[str, ...] = ()
    preprocess: Mapping[str, Any] | None = None
    values: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class ReadConfig:
    """What is asked of a file of anybody's.

    signature: which of several networks, by its name in the file. size: (height, width) of images, where it takes any size.
    """

    signature: str | None = None
    size: Pair | None = None


AS_IT_IS = ReadConfig()
Reader = Callable[[bytes, str, NDArray[np.generic] | None, ReadConfig], Read]
"""(content, the file's name in messages, pixels, config) -> what is read. pixels: what each byte of an image becomes at the one
input, [C, 256], float32 or int8 as the input takes; with it the Graph takes the image itself.
Raises UnusableFile, UnsupportedOp."""


def _as_it_is(graph: Graph) -> Graph:
    return graph


@dataclass(frozen=True, eq=False)
class Format:
    """One kind of file, or of folder. What needs another package is imported when it is first called: the table costs nothing.

    name: as --to has it; what: it is, for people. suffix: of its files, with the dot; "" of a folder. mark: in pictures,
    matplotlib's and the character that looks like it. printers: by precision; shown: those that `report` compares bundles in.
    runtimes: by name, the first runs a file where none is named. machine: that a folder is for, "" of files.

    embedding: how it is given where it is wanted: a second output, a file of its own, always, or it is all that there is.
    own_embedding: the format of that file. extra: that its printers come with. read: a file of
    anybody's, None where nestling cannot.
    require: raises UnsupportedOp for a network that it has no file for; quick, so that nothing slow begins before.
    missing: what of other people's is not here to judge its files with, in words, "" for nothing.
    loaded: what was just printed, in its first runtime, with one thread. wrong: what is wrong within it, given the Graph that an
    int8 file was to be printed from and images [N, H, W, C]; exact: it has compared the reference's bytes. as_printed: the Graph
    as the format has its weights. as_written: a runner of the file's operators one by one, as they are defined, where the format
    has one. names_layers: whether layer_times knows whose each operation is.
    """

    name: str
    what: str
    suffix: str
    mark: tuple[str, str]
    runtimes: Mapping[str, Runtime]
    printers: Mapping[str, Printer] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    machine: str = ""
    embedding: Embedding = "second output"
    own_embedding: str = ""
    extra: str = ""
    read: Reader | None = None
    require: Callable[[Job], None] = lambda job: None
    missing: Callable[[], str] = lambda: ""
    loaded: Callable[[Printed, str], Runner] | None = None
    wrong: Callable[[Printed, Graph, Image, Runner], list[str]] | None = None
    exact: bool = False
    as_printed: Callable[[Graph], Graph] = _as_it_is
    as_written: Callable[[Printed], Runner] | None = None
    layer_times: Callable[[bytes, int], tuple[LayerTime, ...]] | None = None
    names_layers: bool = True

    def file(self, name: str, precision: str) -> str:
        """What a file of a bundle of that name is called."""
        return f"{name}-{precision}{self.suffix}" if self.suffix else f"{name}-{self.name}"
