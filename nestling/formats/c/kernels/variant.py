"""One way to compute a node in C: which kernel, for which nodes, on which machines, and how it wants its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels.constants import interleaved_by_group
from nestling.formats.c.kernels.layers import PORTABLE, Argument, Constant, Layer, View, clamp_of
from nestling.formats.c.machines import Machine
from nestling.graph.ir import Graph, Node
from nestling.graph.macs import macs

Weights = NDArray[np.int8]


def _any(node: Node, graph: Graph) -> bool:
    return True


def _none(node: Node, graph: Graph) -> int:
    return 0


@dataclass(frozen=True)
class Variant:
    """function: in runtime/FUNCTION.c, or runtime/NEEDS/FUNCTION.c; "" where nothing is called. calls: further files.

    lower: (node, graph, this) -> the call, or a view. takes: whether it computes a node of its op. needs: a feature that the
    machine must have (machines/NAME/machine.json), "" for none. pack: lays out weights, int8 [O, K] in so many groups, as a
    constant. scratch: bytes. few_bits: its twin for packed weights of few bits, which another variant of the same
    layout may have, too; of_image: its twin that takes the image through a table; "" for none.
    """

    function: str
    lower: Callable[[Node, Graph, Variant], Layer | View]
    takes: Callable[[Node, Graph], bool] = _any
    needs: str = ""
    calls: tuple[str, ...] = ()
    pack: Callable[[Weights, int], Constant] = interleaved_by_group
    scratch: Callable[[Node, Graph], int] = _none
    few_bits: str = ""
    of_image: str = ""

    def can(self, node: Node, graph: Graph, machine: Machine) -> bool:
        """Whether it computes the node there."""
        return (not self.needs or self.needs in machine.features) and self.takes(node, graph)

    @property
    def files(self) -> tuple[str, ...]:
        """All that it needs of the runtime."""
        return (f"{self.needs}/{self.function}.c" if self.needs else f"{self.function}.c", *self.calls)

    @property
    def header(self) -> str:
        """Where it is declared."""
        return f"nst_{self.needs}.h" if self.needs else PORTABLE


def layer(
    node: Node, graph: Graph, kind: str, variant: Variant, arguments: tuple[Argument, ...], over: tuple[str, ...] = ()
) -> Layer:
    """The variant's call for a node; the rest follows from the node."""
    return Layer(
        kind,
        variant.function,
        arguments,
        node.name,
        variant.files,
        variant.scratch(node, graph),
        over,
        clamp_of(node),
        macs(node, graph),
        node.source,
        few_bits=variant.few_bits,
        of_image=variant.of_image,
        header=variant.header,
        feature=variant.needs,
    )
