"""The float Graph of a bundle's backbone: what calibration, quantisation and the float printers start from."""

from __future__ import annotations

from dataclasses import replace

from nestling.bundle import Bundle, Timm
from nestling.errors import NestlingError
from nestling.graph.constant_channels import without_constant_channels
from nestling.graph.edit import free_name
from nestling.graph.ir import Graph, Node, Table, Tensor
from nestling.graph.passes import prepare
from nestling.graph.spec import check
from nestling.models.backbones import build_backbone
from nestling.models.capture.capture import capture
from nestling.preprocess.image import Preprocess
from nestling.preprocess.image import table as normalisation


def float_graph(bundle: Bundle) -> Graph:
    """uint8 image [1, H, W, C] -> table -> ... -> embedding float32 [1, D]; prepared (no batch_norm, clamps fused), and with
    zeros for the weights that never matter (constant_channels.py).

    The head is not in it: see graph/ends.py. Raises UnsupportedOp where the backbone holds what the Graph does not, NestlingError
    for a bundle whose network is an integer one already.
    """
    if isinstance(bundle.architecture, Timm):
        height, width = bundle.preprocess.size
        backbone = build_backbone(bundle.architecture, bundle.arrays)
        shape = (height, width, bundle.preprocess.channels)
        return without_constant_channels(prepare(capture(backbone, shape, normalisation(bundle.preprocess))))
    graph = bundle.architecture
    if graph is None or any(tensor.dtype == "int8" for tensor in graph.tensors.values()):
        raise NestlingError("this bundle's network is an int8 one, made elsewhere; there are no float weights to go back to.")
    return without_constant_channels(prepare(_with_table(graph, bundle.preprocess)))


def _with_table(graph: Graph, preprocess: Preprocess) -> Graph:
    """The graph with the normalisation in front, unless it takes bytes already."""
    first = graph.tensors[graph.inputs[0]]
    if first.dtype == "uint8":
        return graph
    image = Tensor(free_name("image", graph.tensors), first.shape, "uint8")
    data = normalisation(preprocess)
    table = Tensor(free_name("normalised.table", graph.tensors), data.shape, "float32", data)
    node = Node("table", (image.name, table.name), (first.name,), Table(), "normalised")
    tensors = {image.name: image, table.name: table, **graph.tensors}
    return check(replace(graph, tensors=tensors, nodes=(node, *graph.nodes), inputs=(image.name,)))
