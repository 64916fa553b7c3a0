"""How long one operation of an artifact takes, as its runtime's own profile has it, and which layer that operation is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nestling.graph.ir import Graph, Node

# A runtime's operators that one kind of node becomes, one each: beginnings of names, XNNPACK's, ExecuTorch's and LiteRT's own.
KINDS: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    ("conv2d", "depthwise_conv2d", "fully_connected"): (
        "Convolution", "Fully Connected", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
    ),
    ("add", "table"): ("Add", "ADD"),
    ("mul", "table"): ("Multiply", "MUL"),
    ("table",): ("native_call__to_copy", "CAST"),
    ("mean", "average_pool"): ("Mean", "Average Pooling", "MEAN", "AVERAGE_POOL_2D"),
    ("max_pool",): ("Max Pooling", "MAX_POOL_2D"),
    ("resize_nearest",): ("RESIZE_NEAREST_NEIGHBOR",),
    ("softmax",): ("Softmax", "SOFTMAX"),
    ("leaky_relu",): ("Leaky ReLU", "LEAKY_RELU"),
    ("hard_swish",): ("HardSwish", "HARD_SWISH"),
    ("logistic",): ("Sigmoid", "LOGISTIC"),
    ("gelu",): ("GELU", "Gelu"),
    ("slice",): ("Slice", "SLICE"),
}  # fmt: skip


@dataclass(frozen=True)
class LayerTime:
    """One line of a runtime's profile.

    name: the Graph node's name where it can be told, else the runtime's own. kind: the runtime's operator. ms: mean of one run.
    """

    name: str
    kind: str
    ms: float


def with_names(times: Sequence[LayerTime], graph: Graph) -> tuple[LayerTime, ...]:
    """The same times; those of convolutions, fully connected layers, additions, ... by the names of the Graph's nodes (see named).

    What layout, padding and grid changes take (Transpose, Constant Pad, Convert, ...) keeps the runtime's name.
    """
    names = named([time.kind for time in times], graph)
    return tuple(time if name is None else replace(time, name=name) for time, name in zip(times, names, strict=True))


def named(kinds: Sequence[str], graph: Graph) -> list[str | None]:
    """For each of a runtime's operators, in running order, the Graph's node that it computes; None where that is not certain.

    The n-th operator of a kind is the n-th node of that kind, if there are as many of both and none contradicts its node.
    """
    names: list[str | None] = [None] * len(kinds)
    for ops, beginnings in KINDS.items():
        places = [i for i, kind in enumerate(kinds) if kind.startswith(beginnings)]
        nodes = [node for node in graph.nodes if node.op in ops]
        if len(places) == len(nodes) and all(_fits(kinds[i], node, graph) for i, node in zip(places, nodes, strict=True)):
            for i, node in zip(places, nodes, strict=True):
                names[i] = node.name
    return names


def _fits(kind: str, node: Node, graph: Graph) -> bool:
    """XNNPACK has kernels for convolutions a channel each (DWConv), and none for others than 1 x 1 as matrices."""
    if node.op not in ("conv2d", "depthwise_conv2d"):
        return True
    weight = graph.tensors[node.inputs[1]]
    deep = node.op == "depthwise_conv2d" or weight.shape[3] == 1
    return deep if "DWConv" in kind else weight.shape[1:3] == (1, 1) or not kind.startswith("Fully Connected")
