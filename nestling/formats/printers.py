"""What can be printed: one printer a format and precision, in the table PRINTERS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nestling.bundle import Bundle
from nestling.errors import NestlingError, UnsupportedOp
from nestling.formats.about import Gives, about
from nestling.formats.c import emit, machines
from nestling.formats.c.lower import lower
from nestling.formats.executorch import printing as executorch
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.executorch.symmetric import symmetric_weights
from nestling.formats.onnx import printing as onnx
from nestling.formats.tflite import printing as tflite
from nestling.graph.ends import with_head, with_int8_head, with_own_end
from nestling.graph.integers import Range
from nestling.graph.ir import Graph
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph
from nestling.preprocess import to_plain

INTEGERS = "int8"  # the precision that is printed from the bundle's int8 Graph
C = "c-"  # begins the format of a folder of C; its machine follows
FEATURES = "features.pte"  # the format of a backbone alone
Weights = Literal["uint8", "int8"]


@dataclass(frozen=True)
class ExportConfig:
    """features: the embedding, too: a second output in .tflite and .onnx, a program of its own beside a .pte.

    int8_head: the head in integers. onnx_weights: how int8 weights are stored in .onnx; int8 is quicker where the processor has
    8-bit dot products, and wrong on others (docs/onnx-weights.md). force: keep what fails its gates. ram, flash: bytes that C has
    to fit into.
    """

    features: bool = False
    int8_head: bool = False
    onnx_weights: Weights = "uint8"
    force: bool = False
    ram: int | None = None
    flash: int | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """What a printer needs. The float Graph is captured once, when first asked for."""

    bundle: Bundle
    config: ExportConfig

    @cached_property
    def captured(self) -> Graph:
        """uint8 image -> float embedding, or the network's own end."""
        return float_graph(self.bundle)

    def inside(self, form: str, precision: str) -> Graph:
        """What a file holds: uint8 image -> logits float32 (-> embedding, too), or of a backbone alone -> embedding.

        (In a .pte the weights may have to be made symmetric yet.)
        """
        bundle, config = self.bundle, self.config
        graph = self.backbone(precision)
        if bundle.head is None:
            if config.features or config.int8_head or form == FEATURES:
                raise NestlingError("--features and --int8-head are for networks with a head of nestling's.")
            return with_own_end(graph)
        if form == FEATURES:
            return graph
        # a .pte's embedding has a program of its own, C always gives it
        features = config.features and form != "pte" and not form.startswith(C)
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
    activations that C needs.
    """

    content: bytes | Mapping[str, bytes]
    delegated: float | None = None
    requantised: tuple[int, int] | None = None
    flash: int | None = None
    arena: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the file; of C, of its constants."""
        return self.flash or len(self.content)


Printer = Callable[[Job], Printed]


def _program(form: str, precision: str) -> Printer:
    gives: Gives = "embedding" if form == FEATURES else "logits"

    def print_program(job: Job) -> Printed:
        try:
            graph, changed = symmetric_weights(job.inside(form, precision))
            module = GraphProgram(graph)
        except UnsupportedOp as refusal:
            if precision == INTEGERS or gives == "embedding":
                raise
            return _as_torch_has_it(job.bundle, refusal)
        printed = executorch.print_program(module.eval(), about(job.bundle, gives, precision == INTEGERS))
        requantised = (changed.channels, changed.of) if changed.of else None
        return Printed(printed.content, printed.delegated / printed.operations, requantised)

    return print_program


def _as_torch_has_it(bundle: Bundle, refusal: UnsupportedOp) -> Printed:
    """What the Graph does not hold ExecuTorch may."""
    try:
        printed = executorch.print_program(build(bundle).eval(), about(bundle, "logits"))
    except NestlingError:
        raise
    except Exception as error:  # whatever ExecuTorch's passes make of an operation
        words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = "the bundle itself still answers (predict, eval); backbones that can be printed:  nestling backbones"
        raise UnsupportedOp(f"{refusal.message}; nor does ExecuTorch take the network as it is: {words}", hint) from error
    return Printed(printed.content, printed.delegated / printed.operations)


def _tflite(precision: str, rewrite: tflite.Precision = "as-is") -> Printer:
    return lambda job: Printed(tflite_bytes(job.inside("tflite", precision), job.bundle, rewrite))


def _onnx(precision: str) -> Printer:
    return lambda job: Printed(
        onnx.print_graph(job.inside("onnx", precision), about(job.bundle, integers=precision == INTEGERS), job.config.onnx_weights)
    )


def _c(name: str) -> Printer:
    def print_c(job: Job) -> Printed:
        machine, program = machines.machine(name), lower(job.inside(f"{C}{name}", INTEGERS))
        planned = emit.arranged(program, machine)
        constants = sum(constant.bytes for layer in program.layers for constant in layer.constants)
        return Printed(
            emit.files(program, planned, machine, about(job.bundle, integers=True)), flash=constants, arena=planned.arena
        )

    return print_c


def tflite_bytes(graph: Graph, bundle: Bundle, precision: tflite.Precision = "as-is") -> bytes:
    """A .tflite of a Graph that ends in logits, with what the bundle says about itself."""
    what = about(bundle)
    origin = {"seed": what.seed, "data": what.data}
    return tflite.print_graph(graph, precision, labels=what.labels, preprocess=to_plain(what.preprocess), learned_from=origin)


PRINTERS: Mapping[tuple[str, str], Printer] = {
    ("pte", "fp32"): _program("pte", "fp32"),
    ("pte", "int8"): _program("pte", INTEGERS),
    (FEATURES, "fp32"): _program(FEATURES, "fp32"),
    (FEATURES, "int8"): _program(FEATURES, INTEGERS),
    ("tflite", "fp32"): _tflite("fp32"),
    ("tflite", "fp16"): _tflite("fp16", "fp16"),
    ("tflite", "dynamic"): _tflite("dynamic", "dynamic"),
    ("tflite", "int8"): _tflite(INTEGERS),
    ("onnx", "fp32"): _onnx("fp32"),
    ("onnx", "int8"): _onnx(INTEGERS),
    **{(f"{C}{name}", INTEGERS): _c(name) for name in machines.names()},  # a folder of C a machine
}
PRECISIONS = tuple(dict.fromkeys(precision for _, precision in PRINTERS))
FORMATS = tuple(dict.fromkeys(form for form, _ in PRINTERS))
