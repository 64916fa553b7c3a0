"""Whether an .onnx file is the Graph that it was to be printed from: each node beside the reference, and all weights found."""

from __future__ import annotations

import numpy as np

from nestling.formats.format import Image
from nestling.formats.onnx import run
from nestling.formats.searched import weights_not_found
from nestling.graph import reference
from nestling.graph.compare import layer
from nestling.graph.ir import Array, Graph


def wrong(content: bytes, graph: Graph, images: Image) -> list[str]:
    """What is wrong within an int8 file; images: uint8 [N, H, W, C], of which the first is taken."""
    steps: dict[str, Array] = {graph.inputs[0]: images[:1], **run.activations(content, images[:1], as_written=True)}
    steps |= {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    for node in graph.nodes:
        if graph.tensors[node.name].dtype == "int8" and all(name in steps for name in (node.name, *node.inputs)):
            expected = reference.step(graph, node, tuple(steps[name] for name in node.inputs))
            off = int(np.abs(steps[node.name].astype(np.int64) - expected.astype(np.int64)).max())
            if off > 1:
                return [f"computed as written, {layer(node)} is up to {off} steps off the reference for the same inputs"]
    return weights_not_found(content, graph)
