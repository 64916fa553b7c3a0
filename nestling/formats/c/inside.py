"""Whether a folder of C computes the Graph that it was to be printed from: built for this computer, byte for byte."""

from __future__ import annotations

from nestling.formats.c import host
from nestling.formats.format import BYTE_IMAGES, Image
from nestling.formats.runner import Runner
from nestling.graph import reference
from nestling.graph.compare import layer
from nestling.graph.ir import Graph


def wrong(runner: Runner, graph: Graph, images: Image) -> list[str]:
    """The first layer whose bytes are not the reference's; images: uint8 [N, H, W, C]."""
    assert isinstance(runner, host.CRunner)
    nodes = {node.name: node for node in graph.nodes if graph.tensors[node.name].dtype == "int8"}
    for image in images[:BYTE_IMAGES]:
        steps = runner.activations(image)
        for name, expected in reference.activations(graph, image[None]):
            if name in nodes and name in steps:
                off = int((steps[name].reshape(-1) != expected.reshape(-1)).sum())
                if off:
                    return [f"compiled here, {off} of {expected.size} bytes differ from the reference at {layer(nodes[name])}"]
    return []
