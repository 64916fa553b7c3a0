"""The formats of ExecuTorch: a program, and one of the backbone alone."""

from __future__ import annotations

from dataclasses import replace

from nestling.errors import UnsupportedOp
from nestling.formats.format import INTEGERS, File, Format, Image, Job, Printed, Printer, Runtime
from nestling.formats.layer_time import LayerTime
from nestling.formats.runner import Runner
from nestling.graph.ir import Graph

EXTRA = "executorch"
RUNS = 30  # of one image
FEATURES = "features.pte"  # of a backbone alone


def _printer(precision: str) -> Printer:
    def print_it(job: Job) -> Printed:
        from nestling.formats.executorch import bundle_program

        try:
            return bundle_program.printed(job, PROGRAM, "logits", precision)
        except UnsupportedOp as refusal:
            if precision == INTEGERS:
                raise
            return bundle_program.as_torch_has_it(job.bundle, refusal)

    return print_it


def _printer_of_backbones(precision: str) -> Printer:
    def print_it(job: Job) -> Printed:
        from nestling.formats.executorch import bundle_program

        return bundle_program.printed(job, BACKBONE, "embedding", precision)

    return print_it


def _load(file: File) -> Runner:
    from nestling.formats.executorch import run

    return run.load(file.place, file.threads)


def _prepare() -> None:
    from nestling.formats.executorch.run import import_runtime

    import_runtime()


def _loaded(printed: Printed, name: str) -> Runner:
    from nestling.formats.executorch import run

    assert isinstance(printed.content, bytes)
    return run.load_bytes(printed.content, name, threads=1)


def _wrong(printed: Printed, graph: Graph, images: Image, runner: Runner) -> list[str]:
    from nestling.formats.searched import scales_not_found, weights_not_found

    assert isinstance(printed.content, bytes)
    return scales_not_found(printed.content, graph) or weights_not_found(printed.content, _symmetric(graph))


def _symmetric(graph: Graph) -> Graph:
    from nestling.formats.executorch.symmetric import symmetric_weights

    return symmetric_weights(graph)[0]


def _layer_times(content: bytes, threads: int) -> tuple[LayerTime, ...]:
    from nestling.formats.executorch.layer_times import layer_times

    return layer_times(content, RUNS, threads)


RUNTIMES = {"ExecuTorch": Runtime(_load, _prepare, brings_torch=True, extra=EXTRA)}
PROGRAM = Format(
    name="pte",
    what="ExecuTorch",
    suffix=".pte",
    mark=("s", "■"),
    runtimes=RUNTIMES,
    printers={precision: _printer(precision) for precision in ("fp32", INTEGERS)},
    shown=(INTEGERS,),
    embedding="own file",
    own_embedding=FEATURES,
    extra=EXTRA,
    loaded=_loaded,
    wrong=_wrong,
    as_printed=_symmetric,
    layer_times=_layer_times,
    names_layers=False,
)
BACKBONE = replace(
    PROGRAM,
    name=FEATURES,
    what="ExecuTorch, the backbone alone",
    suffix=f".{FEATURES}",
    printers={precision: _printer_of_backbones(precision) for precision in ("fp32", INTEGERS)},
    shown=(),
    embedding="alone",
    own_embedding="",
)
FORMATS = (PROGRAM, BACKBONE)
