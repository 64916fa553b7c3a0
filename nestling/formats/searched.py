"""Whether an int8 file holds the Graph's weights, looked for as bytes: for formats that cannot be read back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nestling.graph.compare import layer
from nestling.graph.ir import Graph

LAYOUTS: Mapping[str, tuple[tuple[int, ...], ...]] = {  # how the formats lay a layer's weights out
    "conv2d": ((0, 1, 2, 3), (0, 3, 1, 2)),
    "depthwise_conv2d": ((0, 1, 2, 3), (3, 0, 1, 2)),
    "fully_connected": ((0, 1), (1, 0)),
}
ONE_CHANNEL = (3, 1, 2, 0)  # of a conv2d on one input channel, as grey images are: ExecuTorch takes it for a depthwise one


def weights_not_found(content: bytes, graph: Graph) -> list[str]:
    """The first layer whose int8 weights or scales are not in the file; the formats differ in layout, and in .onnx by 128."""
    for node in graph.nodes:
        weight = graph.tensors[node.inputs[1]] if node.op in LAYOUTS else None
        if weight is None or weight.quant is None or weight.data is None:
            continue
        grey = node.op == "conv2d" and weight.shape[3] == 1
        forms = [weight.data.transpose(order) for order in (*LAYOUTS[node.op], *((ONE_CHANNEL,) if grey else ()))]
        forms += [(form.astype(np.int16) + 128).astype(np.uint8) for form in forms]
        if not any(form.tobytes() in content for form in forms):
            return [f"the weights of {layer(node)} are not in the file"]
        if weight.quant.scale.tobytes() not in content:
            return [f"the weights' scales of {layer(node)} are not in the file"]
    return []


def scales_not_found(content: bytes, graph: Graph) -> list[str]:
    """The first layer whose answers' scale is not in the file."""
    for node in graph.nodes:
        quant = graph.tensors[node.name].quant
        # XNNPACK's tensors hold a scale in 4 bytes, operators outside the delegate in 8
        if quant is not None and not any(quant.scale.astype(kind).tobytes() in content for kind in ("<f4", "<f8")):
            return [f"the scale of what {layer(node)} gives is not in the file"]
    return []
