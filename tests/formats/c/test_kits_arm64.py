"""The kits of 64-bit Arm in its emulator, with and without dot products: drawn layers against the reference executor."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.formats.c import machines
from nestling.formats.c.kernels.layers import Constant, Layer, Struct, bytes_of
from nestling.formats.c.lower import lower
from nestling.graph import ir, reference
from nestling.graph.ir import Clamp, Graph, Quant, Tensor
from nestling.graph.spec import check, output_shape
from tests.formats.c.boards import tools
from tests.formats.c.kernel_library import RUNTIME, structs

HOST = machines.machine("host")
KERNELS = ("nst_conv_1x1_host", "nst_conv_host", "nst_depthwise_host")
WINDOWS = ((3, 3), (5, 5), (3, 1), (1, 4), (2, 2), (7, 7))
PROCESSORS = {"cortex-a53": ("neon", "portable"), "max": ("dotprod", "neon", "portable")}
ADDRESS = ctypes.sizeof(ctypes.c_void_p)
Case = tuple[Graph, NDArray[np.int8]]


# ---- layers, drawn ---------------------------------------------------------------------------------------------------------------


def extremes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Any numbers, or mostly the least and the largest."""
    drawn = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < rng.choice((0, 0.8)), rng.choice((-128, 127), shape), drawn).astype(np.int8)


def weights(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Any numbers or mostly -127 and 127; in some layers channels with one -128, in some -128 anywhere."""
    least = -128 if rng.random() < 0.2 else -127
    some = np.maximum(extremes(rng, shape), least).astype(np.int8)
    if rng.random() < 0.5:
        some[..., rng.integers(shape[-1])] = -128
    return some


def layer(rng: np.random.Generator, kind: str, channels: int, out: int) -> Case:
    """kind: "1x1", "conv", "depthwise"."""
    depthwise, pixel = kind == "depthwise", kind == "1x1"
    size = (1, 1) if pixel else WINDOWS[rng.integers(len(WINDOWS))]
    high, wide, down, right, tall, broad = map(int, rng.integers((7, 1, 1, 1, 1, 1), (14, 17, 4, 4, 3, 3)))
    stride, dilation = ((1, 1), (1, 1)) if pixel else ((down, right), (tall, broad))
    reach = [(k - 1) * d for k, d in zip(size, dilation, strict=True)]
    pads = (reach[0] // 2, reach[0], reach[1] // 2, reach[1])  # as much as the window reaches at the end, half of it before
    clamp: Clamp = ("none", "relu", "relu6")[rng.integers(3)]
    attrs = (ir.DepthwiseConv2d if depthwise else ir.Conv2d)(stride, dilation, pads, clamp)
    shape = (1, *size, channels) if depthwise else (out, *size, channels)
    scale, zeros = rng.uniform(0.002, 0.02, out if out > 1 else 1).astype(np.float32), np.zeros(out, np.int32)
    axes = (3 if depthwise else 0, 0) if out > 1 else (None, None)
    products = (np.float32(0.02) * scale).astype(np.float32)
    answer = np.median(products) * 64 * np.sqrt(np.prod(shape) / out)
    answer *= 2.0 ** (-10 if rng.random() < 0.1 else rng.uniform(-2, 2))  # sometimes sums are scaled up

    def zero_point() -> NDArray[np.int32]:
        return rng.integers(-128, 128, 1).astype(np.int32)

    x = Tensor("x", (1, high, wide, channels), "int8", None, Quant(np.array([0.02], np.float32), zero_point()))
    w = Tensor("w", shape, "int8", weights(rng, shape), Quant(scale, zeros, axes[0]))
    b = Tensor("b", (out,), "int32", rng.integers(-20_000, 20_000, out).astype(np.int32), Quant(products, zeros, axes[1]))
    op = "depthwise_conv2d" if depthwise else "conv2d"
    to = Quant(np.array([answer], np.float32), zero_point())
    y = Tensor("y", output_shape(op, attrs, x.shape, shape, b.shape), "int8", None, to)
    node = ir.Node(op, ("x", "w", "b"), ("y",), attrs)
    return check(Graph({one.name: one for one in (x, w, b, y)}, (node,), ("x",), ("y",))), extremes(rng, x.shape)


def drawn(seed: int) -> Iterator[Case]:
    """Every number of channels up to 70, depths beside it, and depthwise layers of every multiple of 8 up to 200."""
    rng = np.random.default_rng(seed)
    for channels in range(1, 71):
        yield layer(rng, "1x1", int(rng.integers(1, 80)), channels)
    for channels in range(1, 40, 3):
        yield layer(rng, "conv", int(rng.integers(1, 20)), channels)
    for channels in range(8, 201, 8):
        yield layer(rng, "depthwise", channels, channels)


# ---- to the emulator and back ----------------------------------------------------------------------------------------------------


def runner(folder: Path) -> Path:
    """The program that runs layers."""
    target = tools("linux-arm64")
    sources = [
        *map(str, sorted((RUNTIME / "host").glob("*.c"))),
        str(RUNTIME / "nst_fixed.c"),
        str(Path(__file__).with_name("run_kits.c")),
    ]
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", f"-I{RUNTIME}", f"-I{RUNTIME / 'host'}"]
    subprocess.run([f"{target.prefix}gcc", *flags, *sources, "-o", str(folder / "run_kits")], check=True)
    return folder / "run_kits"


def sent(one: Layer, image: NDArray[np.int8], answers: int) -> bytes:
    """A layer as run_kits.c reads it. The struct lies in memory there as it does here."""
    types = structs("".join((RUNTIME / name).read_text() for name in ("nst_kernels.h", "host/nst_host.h")))
    (struct,) = (argument for argument in one.arguments if isinstance(argument, Struct))
    made, pointers = types[struct.type](), []

    def fill(target: Any, fields: Any, start: int) -> None:
        for name, value in fields.items():
            at = start + getattr(type(target), name).offset
            if isinstance(value, Constant):
                data = np.ascontiguousarray(value.data).tobytes()
                pointers.append(np.array([at, len(data)], np.int32).tobytes() + data)
            elif isinstance(value, Struct):
                fill(getattr(target, name), value.fields, at)
            else:
                setattr(target, name, type(getattr(target, name))(*value) if isinstance(value, tuple) else value)

    fill(made, struct.fields, 0)
    raw = bytes(made) + bytes(-ctypes.sizeof(made) % 16)
    head = (KERNELS.index(one.function), image.nbytes, answers, one.scratch, ctypes.sizeof(made), len(pointers))
    return np.array(head, np.int32).tobytes() + image.tobytes() + raw + b"".join(pointers)


def ran(program: Path, processor: str, given: bytes, isa: str = "") -> tuple[bytes, list[str]]:
    """What the program answers, and the kits that it found, with the one that works alone."""
    environment = {**os.environ, "NESTLING_ISA": isa} if isa else {k: v for k, v in os.environ.items() if k != "NESTLING_ISA"}
    command = ["qemu-aarch64", "-cpu", processor, str(program)]
    done = subprocess.run(command, input=given, capture_output=True, env=environment, timeout=120, check=True)
    return done.stdout, done.stderr.decode().split()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner(tmp_path_factory.mktemp("kits"))


@pytest.fixture(scope="module")
def cases() -> Sequence[Case]:
    return tuple(drawn(20))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_kit_gives_the_reference_bytes(program: Path, cases: Sequence[Case], processor: str) -> None:
    layers = [lower(graph, HOST).layers[0] for graph, _ in cases]
    assert {one.function for one in layers} == set(KERNELS)
    sizes = [bytes_of(graph.tensors["y"]) for graph, _ in cases]
    given = b"".join(sent(one, image, size) for one, (_, image), size in zip(layers, cases, sizes, strict=True))
    answers, found = ran(program, processor, given)
    kits, start = PROCESSORS[processor], 0
    assert found == [*kits, "alone", kits[0]]
    for one, (graph, image), size in zip(layers, cases, sizes, strict=True):
        expected = reference.run(graph, image)["y"].tobytes()
        for kit in kits:
            assert answers[start : start + size] == expected, (
                f"{kit}: {one.kind}, {graph.tensors['x'].shape} {graph.tensors['w'].shape}"
            )
            start += size


def test_another_kit_is_taken_where_it_is_named(program: Path) -> None:
    alone = [ran(program, *how)[1][-1] for how in (("max", b"", "neon"), ("max", b"", "portable"), ("cortex-a53", b"", "dotprod"))]
    assert alone == ["neon", "portable", "neon"]
