"""The format .onnx, which ONNX Runtime and OpenVINO run."""

from __future__ import annotations

from nestling.formats.about import about
from nestling.formats.format import INTEGERS, File, Format, Image, Job, Printed, Printer, Runtime
from nestling.formats.layer_time import LayerTime
from nestling.formats.runner import Runner
from nestling.graph.ir import Graph

RUNS = 30  # of one image


def _printer(precision: str) -> Printer:
    def print_it(job: Job) -> Printed:
        from nestling.formats.onnx.printing import print_graph

        what = about(job.bundle, integers=precision == INTEGERS)
        return Printed(print_graph(job.inside(FORMAT, precision), what, job.config.onnx_weights))

    return print_it


def _load(file: File) -> Runner:
    from nestling.formats.onnx import run

    return run.load(file.place, file.threads)


def _load_openvino(file: File) -> Runner:
    from nestling.formats.onnx import run

    return run.load(file.place, file.threads, "openvino")


def _prepare() -> None:
    from nestling.formats.onnx import run  # noqa: F401  # to import it is the preparation
    from nestling.formats.onnx.runtimes import import_onnxruntime

    import_onnxruntime()


def _prepare_openvino() -> None:
    from nestling.formats.onnx import run  # noqa: F401  # to import it is the preparation
    from nestling.formats.onnx.openvino import openvino_core

    openvino_core()


def _loaded(printed: Printed, name: str) -> Runner:
    from nestling.formats.onnx import run

    assert isinstance(printed.content, bytes)
    return run.load_bytes(printed.content, name, threads=1)


def _as_written(printed: Printed) -> Runner:
    from nestling.formats.onnx import run

    assert isinstance(printed.content, bytes)
    return run.load_bytes(printed.content, "the printed file", threads=1, runtime="as written")


def _wrong(printed: Printed, graph: Graph, images: Image, runner: Runner) -> list[str]:
    from nestling.formats.onnx import inside

    assert isinstance(printed.content, bytes)
    return inside.wrong(printed.content, graph, images)


def _layer_times(content: bytes, threads: int) -> tuple[LayerTime, ...]:
    from nestling.formats.onnx.layer_times import layer_times

    return layer_times(content, RUNS, threads)


FORMAT = Format(
    name="onnx",
    what="ONNX Runtime, OpenVINO",
    suffix=".onnx",
    mark=("D", "◆"),
    runtimes={"ONNX Runtime": Runtime(_load, _prepare), "OpenVINO": Runtime(_load_openvino, _prepare_openvino, extra="openvino")},
    printers={precision: _printer(precision) for precision in ("fp32", INTEGERS)},
    loaded=_loaded,
    wrong=_wrong,
    as_written=_as_written,
    layer_times=_layer_times,
)
FORMATS = (FORMAT,)
