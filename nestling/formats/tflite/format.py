"""The format .tflite, which LiteRT (TensorFlow Lite) runs."""

from __future__ import annotations

from typing import Literal

from nestling.formats.about import about
from nestling.formats.format import INTEGERS, File, Format, Image, Job, Printed, Printer, Read, ReadConfig, Runtime
from nestling.formats.layer_time import LayerTime
from nestling.formats.runner import Runner
from nestling.graph.ir import Array, Graph
from nestling.preprocess.image import to_plain

RUNS = 30  # of one image


def _printer(precision: str, rewrite: Literal["as-is", "fp16", "dynamic"] = "as-is") -> Printer:
    def print_it(job: Job) -> Printed:
        from nestling.formats.tflite.printing import print_graph

        what = about(job.bundle)
        origin = {"seed": what.seed, "data": what.data} | ({"test": list(what.test)} if what.test else {})
        graph, preprocess = job.inside(FORMAT, precision), to_plain(what.preprocess)
        return Printed(print_graph(graph, rewrite, labels=what.labels, preprocess=preprocess, learned_from=origin))

    return print_it


def _load(file: File) -> Runner:
    from nestling.formats.tflite import run

    return run.load(file.place, threads=file.threads or 1)


def _prepare() -> None:
    from nestling.formats.tflite import run  # noqa: F401  # to import it is the preparation


def _loaded(printed: Printed, name: str) -> Runner:
    from nestling.formats.tflite import run

    assert isinstance(printed.content, bytes)
    return run.load_bytes(printed.content, name)


def _wrong(printed: Printed, graph: Graph, images: Image, runner: Runner) -> list[str]:
    from nestling.formats.tflite import inside

    assert isinstance(printed.content, bytes)
    return inside.wrong(printed.content, graph, images)


def _read(content: bytes, name: str, pixels: Array | None, config: ReadConfig) -> Read:
    from nestling.formats.tflite.normalization import normalization
    from nestling.formats.tflite.read import read_tflite

    graph, about = read_tflite(content, name, pixels, config)
    return Read(graph, about["labels"], about["preprocess"], normalization(content))


def _layer_times(content: bytes, threads: int) -> tuple[LayerTime, ...]:
    from nestling.formats.tflite.layer_times import layer_times

    return layer_times(content, RUNS, threads)


FORMAT = Format(
    name="tflite",
    what="LiteRT",
    suffix=".tflite",
    mark=("^", "▲"),
    runtimes={"LiteRT": Runtime(_load, _prepare)},
    printers={
        "fp32": _printer("fp32"),
        "fp16": _printer("fp16", "fp16"),
        "dynamic": _printer("dynamic", "dynamic"),
        INTEGERS: _printer(INTEGERS),
    },
    shown=("fp32", INTEGERS),
    read=_read,
    loaded=_loaded,
    wrong=_wrong,
    exact=True,
    layer_times=_layer_times,
)
FORMATS = (FORMAT,)
