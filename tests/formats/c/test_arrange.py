"""Which layers keep a kernel of the machine's own, where it wants more RAM than there is beside the maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from nestling.formats.c.arrange import arrange, constants, notes, planned
from nestling.formats.c.kernels import windows
from nestling.formats.c.kernels.code import code_at_most
from nestling.formats.c.kernels.table import KERNELS
from nestling.formats.c.kernels.variant import Variant
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine
from nestling.graph import ir
from nestling.graph.ir import Graph
from tests.helpers.networks import Net, headed, imported

Shared = Callable[[str], Path]
HOST = replace(machine("host"), features=())  # with the kernels of every machine
GREEDY = replace(HOST, features=("greedy",))


def narrowing() -> Graph:
    """Three 1x1 convolutions on ever smaller maps: the first one's fill the arena, the last one's leave most of it empty."""
    net = Net()
    net.conv("first", "x", 8, 3, stride=(1, 1), padding=(1, 1, 1, 1))
    net.conv("wide", "first", 8)
    net.conv("down", "wide", 8, 3, stride=(4, 4), padding=(1, 1, 1, 1))
    net.conv("late", "down", 8)
    net.node("mean", ir.Mean((1, 2), False), "e", "late")
    return headed(net.graph("e"))


def own(scratch: int) -> Variant:
    return Variant("nst_conv_1x1", windows.conv_1x1, windows.is_1x1, "greedy", scratch=lambda node, graph: scratch)


@pytest.mark.parametrize(("scratch", "kept"), [(64, ["wide", "late"]), (1000, ["late"]), (100_000, [])])
def test_a_kernel_gives_way_where_its_scratch_would_make_the_arena_larger(scratch: int, kept: list[str]) -> None:
    graph = narrowing()
    portable = lower(graph, HOST)
    apart = tuple(replace(layer, over=()) if layer.lead else layer for layer in portable.layers)
    most = planned(replace(portable, layers=apart), HOST).arena
    with patch.dict(KERNELS, {"conv2d": (own(scratch), *KERNELS["conv2d"])}):
        program, found = arrange(graph, GREEDY)
    assert [layer.writes for layer in program.layers if layer.feature == "greedy"] == kept
    assert found.arena <= most


@pytest.mark.parametrize(
    ("file", "most", "today"), [("vww_96_int8.tflite", 40_000, 46_244), ("resnet8_cifar10_int8.tflite", 50_016, 50_016)]
)
@pytest.mark.parametrize("name", ["cortex-m4", "cortex-m7", "cortex-m55", "rv32imc"])
def test_public_networks_with_their_image_fit(file: str, most: int, today: int, name: str, shared_data: Shared) -> None:
    """today: before convolutions could write over their input, and before there were kernels of a machine's own."""
    _, found = arrange(imported(shared_data(file)), machine(name))
    assert found.arena <= min(most, today)


def test_flash_that_is_left_takes_weights_as_the_processor_wants_them(shared_data: Shared) -> None:
    """None where there is no room, all where there is enough, and never more than there is."""
    graph, board = imported(shared_data("resnet8_cifar10_int8.tflite")), machine("cortex-m4")
    narrow, _ = arrange(graph, board)
    wide, roomy = arrange(graph, board, flash=2**20)
    able = [layer.writes for layer in narrow.layers if layer.widen is not None]
    assert len(able) > 5 and [layer.writes for layer in wide.layers if layer.wide] == able
    assert not any(layer.wide for layer in narrow.layers)
    between = code_at_most(narrow) + (constants(narrow) + constants(wide)) // 2
    some, _ = arrange(graph, board, flash=between)
    assert 0 < sum(layer.wide for layer in some.layers) < len(able) and constants(some) + code_at_most(some) <= between
    assert f"{len(able)} layers lie wide in flash" in " ".join(notes(wide))
    assert f"{len(able)} layers are widened in RAM" in " ".join(notes(narrow))
    assert roomy.arena <= 50_016


def test_little_ram_is_kept_to_before_speed(shared_data: Shared) -> None:
    graph, board = imported(shared_data("resnet8_cifar10_int8.tflite")), machine("cortex-m4")
    _, quick = arrange(graph, board)
    least = planned(lower(graph, replace(board, features=())), board).arena
    program, found = arrange(graph, board, ram=quick.arena + 2048 - 1)
    assert least <= found.arena < quick.arena and any(layer.feature == "dsp" for layer in program.layers)
    assert arrange(graph, board, ram=least + 2048)[1].arena == least
