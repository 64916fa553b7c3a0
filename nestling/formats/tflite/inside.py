"""Whether a .tflite file is the Graph that it was to be printed from: read back, and byte for byte under reference kernels."""

from __future__ import annotations

import numpy as np

from nestling.formats.format import BYTE_IMAGES, Image
from nestling.formats.tflite import run
from nestling.formats.tflite.read import read_tflite
from nestling.graph import reference
from nestling.graph.compare import first_difference, layer
from nestling.graph.ir import Array, Graph


def wrong(content: bytes, graph: Graph, images: Image) -> list[str]:
    """What is wrong within an int8 file; images: uint8 [N, H, W, C]."""
    inside, _ = read_tflite(content, "the printed file")
    different = first_difference(graph, inside)
    if different:
        return [f"read back it is another network: {different}"]
    nodes = {node.name: node for node in graph.nodes if graph.tensors[node.name].dtype == "int8"}
    for image in images[:BYTE_IMAGES]:
        steps = run.activations(content, (image[None],))
        for name, expected in reference.activations(graph, image[None]):
            if name in nodes and name in steps:
                off = int((_signed(steps[name]) != expected).sum())
                if off:
                    place = layer(nodes[name])
                    return [f"under LiteRT's reference kernels {off} of {expected.size} bytes differ from the reference at {place}"]
    return []


def _signed(steps: Array) -> Array:
    """Old uint8 networks are printed as uint8 again: the same real numbers, 128 higher."""
    return (np.asarray(steps, np.uint8) ^ np.uint8(128)).view(np.int8) if steps.dtype == np.uint8 else steps
