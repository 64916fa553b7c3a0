"""The float Graph of a bundle's backbone: what calibration, quantisation and the float printers start from.

A bundle carries it: as its architecture, or as the structure over its arrays. Of bundles from before, and at other sizes, torch
captures it.
"""

from __future__ import annotations

from dataclasses import replace

from nestling import extras
from nestling.bundle import Bundle, Timm
from nestling.errors import NestlingError, NoGraph
from nestling.graph.constant_channels import without_constant_channels
from nestling.graph.edit import free_name
from nestling.graph.ir import Graph, Node, Table, Tensor
from nestling.graph.passes import prepare
from nestling.graph.spec import check
from nestling.graph.structure import filled, image_of, structure_of
from nestling.preprocess.image import Numbers, Preprocess
from nestling.preprocess.image import table as normalisation


def float_graph(bundle: Bundle) -> Graph:
    """uint8 image [1, H, W, C] -> table -> ... -> embedding float32 [1, D]; prepared (no batch_norm, clamps fused), and with
    zeros for the weights that never matter (constant_channels.py).

    The head is not in it: see graph/ends.py. Raises NoGraph where the backbone becomes none, NestlingError
    for a bundle whose network is an integer one already, or where torch is wanted and not there.
    """
    return without_constant_channels(prepare(_with_table(unfolded_graph(bundle), bundle.preprocess)))


def unfolded_graph(bundle: Bundle) -> Graph:
    """The same with its batch norms: float32 image (uint8 where an imported network begins so) -> embedding. Raises likewise."""
    architecture = bundle.architecture
    if isinstance(architecture, Timm):
        return _of_timm(bundle, architecture)
    if architecture is None or any(tensor.dtype == "int8" for tensor in architecture.tensors.values()):
        raise NestlingError(
            "this bundle's network is an int8 one, made elsewhere; there are no float weights.", "import the float one instead"
        )
    return architecture


def has_graph(bundle: Bundle) -> bool:
    """Whether the float Graph is in the bundle, so that torch is not asked."""
    architecture = bundle.architecture
    if isinstance(architecture, Timm):
        return architecture.structure is not None and image_of(architecture.structure) == _image(bundle)
    return architecture is not None


def with_structure(bundle: Bundle) -> Bundle:
    """The bundle with the structure of its timm network over its arrays, captured by torch; without where there is none."""
    architecture = bundle.architecture
    if not isinstance(architecture, Timm):
        return bundle
    bare = replace(bundle, architecture=replace(architecture, structure=None))
    try:
        graph = unfolded_graph(bare)
    except NoGraph:  # models/lacking.py tells
        return bare
    return replace(bundle, architecture=replace(architecture, structure=structure_of(graph, bundle.arrays)))


def _of_timm(bundle: Bundle, architecture: Timm) -> Graph:
    image = _image(bundle)
    if architecture.structure is not None and image_of(architecture.structure) == image:
        return filled(architecture.structure, bundle.arrays)
    extras.require("train", f"reading the network of a bundle of {architecture.name} that does not carry its graph")
    from nestling.models.backbones import build_backbone
    from nestling.models.capture.capture import capture

    return capture(build_backbone(architecture, bundle.arrays), image[1:])


def _image(bundle: Bundle) -> tuple[int, int, int, int]:
    return (1, *bundle.preprocess.size, bundle.preprocess.channels)


def _with_table(graph: Graph, preprocess: Preprocess) -> Graph:
    """The graph with the normalisation in front, unless it takes bytes already, or numbers that nobody normalises; an input "image"
    becomes "normalised"."""
    first = graph.tensors[graph.inputs[0]]
    if first.dtype == "uint8" or isinstance(preprocess, Numbers):
        return graph
    name = "normalised" if first.name == "image" and "normalised" not in graph.tensors else first.name
    tensors = {name if own == first.name else own: tensor for own, tensor in graph.tensors.items()}
    tensors[name] = replace(first, name=name)
    nodes = tuple(replace(node, inputs=tuple(name if own == first.name else own for own in node.inputs)) for node in graph.nodes)
    image = Tensor(free_name("image", tensors), first.shape, "uint8")
    data = normalisation(preprocess)
    table = Tensor(free_name("normalised.table", tensors), data.shape, "float32", data)
    node = Node("table", (image.name, table.name), (name,), Table(), "normalised")
    return check(Graph({image.name: image, table.name: table, **tensors}, (node, *nodes), (image.name,), graph.outputs))
