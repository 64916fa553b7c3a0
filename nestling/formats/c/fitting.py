"""Does a network fit a machine, before anything is written or built; and if not, which resolution would."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nestling.bundle import Bundle, Timm, fitted_head
from nestling.errors import NestlingError
from nestling.formats.c.arrange import arrange, constants, notes
from nestling.formats.c.kernels.code import code_at_most
from nestling.formats.c.machines import Machine
from nestling.formats.c.plan.plan import Plan
from nestling.formats.c.plan.report import Fit, fits
from nestling.graph.ends import with_head, with_own_end
from nestling.graph.ir import Graph
from nestling.preprocess.image import as_option, of_photographs

STEP, SMALLEST = 16, 32  # pixels: resolutions that are tried


@dataclass(frozen=True, eq=False)
class Needs:
    """constants: bytes of flash besides code. code: bytes that it stays under; how many they are is known when it is built.

    notes: what was chosen for the machine, a sentence each.
    """

    plan: Plan
    constants: int
    code: int
    notes: tuple[str, ...] = ()


def needs(graph: Graph, machine: Machine, ram: int | None = None, flash: int | None = None) -> Needs:
    """graph: as folder.print_network takes it. ram, flash: see arrange."""
    program, found = arrange(graph, machine, flash, ram)
    return Needs(found, constants(program), code_at_most(program), notes(program))


def verdict(found: Needs, ram: int, flash: int) -> Fit:
    """ram, flash: bytes."""
    return fits(found.plan, found.constants, found.code, ram, flash)


def require_fitting(bundle: Bundle, machine: Machine, ram: int, flash: int) -> None:
    """Raises NestlingError, saying what is in the way and which resolution would fit, where the network does not fit."""
    found = needs(whole(bundle), machine, ram, flash)
    outcome = verdict(found, ram, flash)
    if not outcome.fits:
        words = outcome.words.replace("\n", "; ")
        raise NestlingError(f"it does not fit {machine.title}: {words}", advice(bundle, machine, ram, flash))


def advice(bundle: Bundle, machine: Machine, ram: int, flash: int) -> str:
    """What to type for a network that fits: a smaller resolution for RAM; for flash there is only a smaller backbone."""
    found = needs(whole(bundle), machine, ram, flash)
    if found.constants + found.code > flash:
        return f"take a backbone with fewer than {max(flash - found.code, 0):,} parameters:  nestling backbones"
    if not isinstance(bundle.architecture, Timm):
        return "take the network at a lower resolution, or another one"
    height, width = bundle.preprocess.size
    likely = height * math.sqrt(max(ram, 1) / max(found.plan.arena, 1))
    anywhere = replace(machine, features=())  # as little RAM as its own kernels can do with, and soon told
    for side in _sides(min(int(likely) + 2 * STEP, height - STEP)):
        size = (side, max(round(side * width / height / STEP) * STEP, SMALLEST))
        smaller = needs(_at(bundle, size), anywhere, ram, flash)
        if verdict(smaller, ram, flash).fits:
            return (
                f"at {as_option(size)} pixels it would fit, with an arena of {smaller.plan.arena:,} bytes:  "
                f"nestling fit PHOTOS --backbone {bundle.architecture.name} --size {as_option(size)} -o smaller.nest"
            )
    return f"no resolution from {SMALLEST} pixels on fits; take a smaller backbone:  nestling backbones"


def _sides(largest: int) -> Iterator[int]:
    return iter(range(largest // STEP * STEP, SMALLEST - 1, -STEP))


def whole(bundle: Bundle) -> Graph:
    """A bundle's int8 network with its end."""
    if bundle.graph is None:
        raise NestlingError("C is printed from a quantised bundle.", "nestling quantize my.nest -o my8.nest")
    return with_head(bundle.graph, bundle.head) if bundle.head is not None else with_own_end(bundle.graph)


def _at(bundle: Bundle, size: tuple[int, int]) -> Graph:
    """The network at another resolution, with made-up scales: shapes are what counts here."""
    from nestling.graph.integers import QuantizeConfig, Range, with_integers
    from nestling.models.float_graph import float_graph

    graph = float_graph(replace(bundle, preprocess=replace(of_photographs(bundle.preprocess), size=size)))
    ranges = {name: Range(-1.0, 1.0) for name, tensor in graph.tensors.items() if tensor.data is None}
    return with_head(with_integers(graph, ranges, QuantizeConfig()), fitted_head(bundle))
