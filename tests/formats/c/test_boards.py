"""Generated C on every virtual machine: each layer's bytes are the reference's, whatever the processor's kernels do inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nestling.formats.c import virtual
from nestling.formats.c.machines import machine
from tests.formats.c.boards import assert_answers_are_the_reference, tools
from tests.helpers.networks import headed, imported, noise, printed
from tests.helpers.quantization_cases import Everything, calibrated, captured, pictures, seeded, small_timm

Shared = Callable[[str], Path]
BOARDS = ("linux-arm64", "cortex-m4", "cortex-m7", "cortex-m55", "rv32imc")
IMPORTED = ("vww_96_int8.tflite", "resnet8_cifar10_int8.tflite")
BACKBONES = (("mobilenetv2_050", 96), ("mobilenetv3_small_050", 96), ("mobilenetv4_conv_small", 96))


@pytest.mark.parametrize("board", BOARDS)
def test_a_network_with_every_operation(board: str, tmp_path: Path) -> None:
    tools(board)
    graph = headed(calibrated(captured(seeded(Everything)), pictures(4))[0])
    assert_answers_are_the_reference(graph, board, tmp_path / "c")


@pytest.mark.parametrize("flags", [("-Os", "-fno-omit-frame-pointer"), ("-O0",)], ids=["small", "debug"])
@pytest.mark.parametrize("board", [board for board in BOARDS if machine(board).features])
def test_a_firmware_may_be_compiled_for_size_or_to_be_debugged(board: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """Assembly between C has to find its registers there, too."""
    tools(board)
    graph = headed(calibrated(captured(seeded(Everything)), pictures(4))[0])
    assert_answers_are_the_reference(graph, board, tmp_path / "c", *flags)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", IMPORTED)
def test_imported_networks(name: str, board: str, shared_data: Shared, tmp_path: Path) -> None:
    tools(board)
    assert_answers_are_the_reference(imported(shared_data(name)), board, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("name", "side"), BACKBONES)
def test_backbones(name: str, side: int, board: str, tmp_path: Path) -> None:
    tools(board)
    graph = headed(calibrated(captured(small_timm(name), side), pictures(4, side))[0])
    assert_answers_are_the_reference(graph, board, tmp_path / "c")


@pytest.mark.parametrize(
    ("name", "arena", "board", "millions"),
    [
        *(("vww_96_int8.tflite", 40_000, *of) for of in zip(BOARDS[1:], (9.0, 9.0, 2.6, 20), strict=True)),
        *(("resnet8_cifar10_int8.tflite", 50_016, *of) for of in zip(BOARDS[1:], (13, 13, 2.7, 30), strict=True)),
    ],
)
def test_it_costs_no_more_than_was_promised(
    name: str, arena: int, board: str, millions: float, shared_data: Shared, tmp_path: Path
) -> None:
    """Instructions an image, which QEMU counts exactly; RAM; stack; flash beside the weights."""
    graph = imported(shared_data(name))
    folder = printed(graph, tmp_path / "c", board)
    ran = virtual.run(folder, tools(board), noise(graph, 1)[0])
    assert sum(layer.instructions or 0 for layer in ran.layers) <= millions * 1e6
    assert _arena(folder) <= arena
    assert ran.stack is not None and ran.stack < 2048
    weights = sum(int(np.prod(graph.tensors[node.inputs[1]].shape)) for node in graph.nodes if len(node.inputs) == 3)
    assert ran.code is not None and ran.constants is not None
    assert ran.code + ran.constants <= 1.1 * weights + 40 * 1024


def _arena(folder: Path) -> int:
    header = (folder / "nestling_model.h").read_text()
    return int(header.split("#define NESTLING_ARENA_BYTES ")[1].split()[0])
