"""Where a runtime spends its time: each layer of a file beside its multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nestling import bundle as bundles
from nestling.apart.runner import layer_times
from nestling.artifacts.manifest import Artifact
from nestling.formats import named, of, runtimes
from nestling.formats.format import ExportConfig, Job
from nestling.formats.layer_time import LayerTime, with_names
from nestling.graph.ir import Graph
from nestling.graph.macs import macs
from nestling.measure.bench import listed
from nestling.progress import Progress, silent


@dataclass(frozen=True)
class LayerRow:
    """shape: of its output. macs: 0 where it multiplies nothing. ms, instructions, cycles_estimate: None where nothing tells."""

    name: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    ms: float | None = None
    instructions: int | None = None
    cycles_estimate: int | None = None


@dataclass(frozen=True)
class LayerTable:
    """The layers of one file, in running order. note: what was counted or timed, where that needs saying."""

    file: str
    runtime: str
    layers: tuple[LayerRow, ...]
    note: str = ""

    @property
    def counted(self) -> bool:
        """Whether instructions were counted rather than time measured."""
        return any(layer.instructions is not None for layer in self.layers)


def layer_tables(files: Sequence[Path], threads: int = 1, progress: Progress = silent) -> tuple[LayerTable, ...]:
    """A table a file, in its first runtime. Bundles, and files whose bundle is not there any more, have none."""
    tables = []
    jobs: dict[Path, Job] = {}  # to capture a bundle takes seconds: once for all of its files
    with progress("timing layers", len(files)) as advance:
        for file in files:
            artifact = _printed(file)
            if artifact is not None and (form := of(file)).layer_times is not None:
                bundle = file.parent / artifact.bundle
                job = jobs[bundle] = jobs.get(bundle) or _job(bundle)
                graph = job.inside(named(artifact.format), artifact.precision)
                times = layer_times(file, threads)
                if not form.names_layers:
                    times = with_names(times, graph)
                tables.append(LayerTable(file.name, runtimes(file)[0], tuple(_layer(time, graph) for time in times)))
            advance(1)
    return tuple(tables)


def _printed(file: Path) -> Artifact | None:
    """What the manifest says of the file, where the bundle that it was printed from is there."""
    artifact = listed(file)
    return artifact if artifact is not None and (file.parent / artifact.bundle).is_file() else None


def _job(bundle: Path) -> Job:
    """What files were printed from: it knows the layers' shapes and names."""
    return Job(bundles.load(bundle), ExportConfig())


def _layer(time: LayerTime, graph: Graph) -> LayerRow:
    node = graph.producer(time.name)
    if node is None:
        return LayerRow(time.name, time.kind, (), 0, time.ms)
    return LayerRow(node.source or node.name, time.kind, graph.tensors[node.name].shape, macs(node, graph), time.ms)
