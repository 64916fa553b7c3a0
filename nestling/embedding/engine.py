"""From many images to their embeddings: a Graph, printed as .tflite and run by LiteRT, an image a core.

Of float networks it is the quickest of the runtimes here (benchmarks/features.py); every image goes through alone on one thread, so
the same image gives the same bytes at any place of any run, on any number of cores. Of integer ones LiteRT's quick kernels answer
within a few steps of the reference (on EfficientNet-Lite0 85% of an embedding's bytes are equal, and the rest add a sixth of the
noise that quantisation made): good enough to learn a head on. Where the reference's own bytes are asked for, C computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import __version__ as version
from numpy.typing import NDArray

from nestling.errors import UnsupportedOp
from nestling.formats.c import host
from nestling.formats.tflite.floats import whole
from nestling.formats.tflite.run import Kernels
from nestling.graph import file as graph_file
from nestling.graph.ir import Graph
from nestling.graph.macs import macs
from nestling.pool import in_order

Image = NDArray[np.uint8]
Vector = NDArray[np.float32]
WORTH_COMPILING = 40e9  # multiply-accumulates: LiteRT's reference kernels take as long for them as printing and compiling do
Embed = Callable[[Iterator[Image]], Iterator[Vector]]


@dataclass(frozen=True)
class Engine:
    """What turns images into embeddings.

    name: everything that the numbers depend on besides image and preprocessing: runtime, version, precision, digest of the network.
    width: D. embed: uint8 [H, W, C] each -> float32 [D] each, in the same order; it looks a few images ahead, so that whoever
    decodes them works beside it.
    """

    name: str
    width: int
    embed: Embed

    def __call__(self, images: Image) -> Vector:
        """uint8 [N, H, W, C] -> float32 [N, D]."""
        vectors = np.empty((len(images), self.width), np.float32)
        for row, vector in zip(vectors, self.embed(iter(images)), strict=True):
            row[:] = vector
        return vectors


def graph_engine(graph: Graph, kernels: Kernels = "default") -> Engine:
    """An Engine for a graph: uint8 image [1, H, W, C] -> float32 or int8 embedding [1, ...], of integers their real numbers."""
    embedding = graph.tensors[graph.outputs[0]]
    quant = embedding.quant

    def make() -> Callable[[Image], Vector]:
        answer = whole(graph, kernels=kernels)

        def one(image: Image) -> Vector:
            values = answer(np.ascontiguousarray(image)[None])[0].reshape(-1)
            return values.copy() if quant is None else quant.real(values)

        return one

    precision = "f32" if quant is None else "int8"
    name = f"litert-{version} {precision} {kernels} {graph_file.digest(graph)[:16]}"
    return Engine(name, int(np.prod(embedding.shape)), lambda images: in_order(make, images))


def exact_engine(graph: Graph, images: int) -> Engine:
    """An Engine that gives an int8 graph's own bytes, as graph/reference.py defines them, for about so many images.

    The same C as `export --to c` prints is by far the quickest that does. It is compiled first, which a few images are not worth;
    these, networks that it does not take, and computers without a compiler get LiteRT's reference kernels.
    """
    quant = graph.tensors[graph.outputs[0]].quant
    work = images * sum(macs(node, graph) for node in graph.nodes)
    if quant is None or work < WORTH_COMPILING or host.compiler() is None:
        return graph_engine(graph, "reference")
    try:
        runner = host.of_graph(graph)
    except UnsupportedOp:
        return graph_engine(graph, "reference")

    def make() -> Callable[[Image], Vector]:
        own = runner.another()
        return lambda image: own(np.ascontiguousarray(image)[None])[0]

    width = int(np.prod(graph.tensors[graph.outputs[0]].shape))
    return Engine(f"c int8 {graph_file.digest(graph)[:16]}", width, lambda images: in_order(make, images))
