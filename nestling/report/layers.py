"""Where a runtime spends its time: each layer of a file beside its multiply-accumulates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nestling import bundle as bundles
from nestling.apart.runner import layer_times
from nestling.files import write_atomically
from nestling.graph.ir import Graph
from nestling.graph.macs import macs
from nestling.progress import Progress, silent
from nestling.report.bench import listed
from nestling.report.page import Layer, LayerTable, layer_picture, standalone
from nestling.targets import runtimes
from nestling.targets.layer_time import LayerTime
from nestling.targets.printers import ExportConfig, Job

RUNS = 30


def _pte(content: bytes, graph: Graph, threads: int) -> tuple[LayerTime, ...]:
    from nestling.targets import executorch_layers

    return executorch_layers.layer_times(content, graph, RUNS, threads)


def _tflite(content: bytes, graph: Graph, threads: int) -> tuple[LayerTime, ...]:
    from nestling.targets import tflite_layers

    return tflite_layers.layer_times(content, RUNS, threads)


def _onnx(content: bytes, graph: Graph, threads: int) -> tuple[LayerTime, ...]:
    from nestling.targets import onnx

    return onnx.layer_times(content, RUNS, threads)


TIMED: Mapping[str, Callable[[bytes, Graph, int], tuple[LayerTime, ...]]] = {".pte": _pte, ".tflite": _tflite, ".onnx": _onnx}


def times_of(file: Path, threads: int = 1) -> tuple[LayerTime, ...]:
    """How long each of the file's operations takes, in this process."""
    graph = _graph(file)
    return () if graph is None else TIMED[file.suffix](file.read_bytes(), graph, threads)


def layer_tables(files: Sequence[Path], threads: int = 1, progress: Progress = silent) -> tuple[LayerTable, ...]:
    """A table a file, in its first runtime. Bundles, and files whose bundle is not there any more, have none."""
    tables = []
    with progress("timing layers", len(files)) as advance:
        for file in files:
            graph = _graph(file)
            if graph is not None and file.suffix in TIMED:
                times = layer_times(file, threads)
                tables.append(LayerTable(file.name, runtimes(file)[0], tuple(_layer(time, graph) for time in times)))
            advance(1)
    return tuple(tables)


def _graph(file: Path) -> Graph | None:
    """What the file was printed from: it knows the layers' shapes and names."""
    artifact = listed(file)
    if artifact is None or not (file.parent / artifact.bundle).is_file():
        return None
    job = Job(bundles.load(file.parent / artifact.bundle), ExportConfig())
    return job.inside(artifact.format, artifact.precision)


def _layer(time: LayerTime, graph: Graph) -> Layer:
    node = graph.producer(time.name)
    if node is None:
        return Layer(time.name, time.kind, (), 0, time.ms)
    return Layer(node.source or node.name, time.kind, graph.tensors[node.name].shape, macs(node, graph), time.ms)


def draw(tables: Sequence[LayerTable], files: Sequence[Path]) -> tuple[Path, ...]:
    """A picture of every table, beside its file: NAME.FORMAT-layers.svg."""
    places = {file.name: file for file in files}
    drawn = []
    for table in tables:
        picture = places[table.file].with_name(f"{table.file}-layers.svg")
        write_atomically(picture, standalone(layer_picture(table, "layers")).encode())
        drawn.append(picture)
    return tuple(drawn)
