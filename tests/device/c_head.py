"""The C learner, compiled as a shared library and called through ctypes; and head.nst's layout, read with struct alone."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.device.build import HEAD_SOURCES
from nestling.device.head_file import HeadFile, Replay, Training, made
from nestling.preprocess.image import ImagePreprocess

RUNTIME = Path(str(files("nestling.device") / "runtime"))
HERE = Path(__file__).parent
INCLUDED = ("nestling_head_format.c", "nestling_head_learn.c")  # by c_head.c
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
PREPROCESS = ImagePreprocess((48, 64), 3, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3)
ROOM = 1 << 14  # characters of a description
PLAIN_SGD = Training(rate=0.2)
TRAININGS = {
    "sgd": Training(rate=0.25, momentum=0.75, decay=0.125, seed=2**63 + 5, balanced=True, batch=17),
    "bfloat16": Training(moment_type="bfloat16"),
    "adam": Training("adam", rate=0.5, momentum=0.5, beta2=0.25, epsilon=0.125),
}

# name, struct code: the header as nestling_head.h declares it, without padding
HEADER = (
    ("magic", "8s"), ("version", "I"), ("bytes", "I"), ("inputs", "I"), ("classes", "I"), ("max_classes", "I"),
    ("label_bytes", "I"), ("optimizer", "I"), ("moment_type", "I"), ("replay_capacity", "I"), ("replay_count", "I"),
    ("replay_seen", "Q"), ("rate", "f"), ("momentum", "f"), ("beta2", "f"), ("epsilon", "f"), ("decay", "f"),
    ("input_scale", "f"), ("embedding_scale", "f"), ("embedding_zero", "i"), ("seed", "Q"), ("steps", "Q"), ("began", "Q"),
    ("epoch", "I"), ("position", "I"), ("items", "I"), ("balanced", "I"), ("batch", "I"), ("saves", "I"), ("lowest_loss", "f"),
    ("best_accuracy", "f"), ("image_height", "I"), ("image_width", "I"), ("image_channels", "I"), ("interpolation", "I"),
    ("crop", "d"), ("graph", "32s"), ("data", "32s"),
)  # fmt: skip


class _Head(ctypes.Structure):
    _fields_ = [(f"part{i}", ctypes.c_void_p) for i in range(11)] + [("stride", ctypes.c_uint32)]


class _Sample(ctypes.Structure):
    _fields_ = [("embedding", ctypes.c_void_p), ("label", ctypes.c_uint32)]


class _Order(ctypes.Structure):
    _fields_ = [
        ("items", ctypes.c_uint32), ("classes", ctypes.c_uint32), ("length", ctypes.c_uint32), ("labels", ctypes.c_void_p),
        ("places", ctypes.c_void_p), ("starts", ctypes.c_void_p), ("balanced", ctypes.c_int), ("present", ctypes.c_uint32),
    ]  # fmt: skip


def library(folder: Path, *flags: str, compiler: str = "cc") -> Any:
    """The learner and c_head.c, loaded."""
    built = folder / f"head-{compiler}{''.join(flags)}.so"
    sources = [HERE / "c_head.c", *(RUNTIME / part for part in HEAD_SOURCES if part not in INCLUDED)]
    command = [compiler, *FLAGS, *(flags or ("-O3",)), "-shared", "-fPIC", f"-I{RUNTIME}", *map(str, sources), "-o", str(built)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(built))
    loaded.nestling_learn_step.restype = ctypes.c_float
    return loaded


class CHead:
    """A head in memory as the C holds it."""

    def __init__(self, content: bytes, lib: Any) -> None:
        self.lib, self.size = lib, len(content)
        self.memory = np.zeros(-(-len(content) // 8), np.uint64)
        self.memory.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        self.head = _Head()
        self.state: int = lib.nestling_head_open(address(self.memory), len(content), ctypes.byref(self.head))

    def content(self) -> bytes:
        return self.memory.view(np.uint8)[: self.size].tobytes()

    def sealed(self) -> bytes:
        self.lib.nestling_head_seal(ctypes.byref(self.head))
        return self.content()

    def step(self, embeddings: NDArray[np.int8], labels: NDArray[np.int64]) -> float:
        """embeddings: int8 [N, D], C-contiguous."""
        count = len(embeddings)
        samples = (_Sample * count)(*(_Sample(address(row).value, int(y)) for row, y in zip(embeddings, labels, strict=True)))
        max_classes = struct.unpack_from("<I", self.content(), 24)[0]
        work = np.full(count * max_classes + 16, np.nan, np.float32)
        loss = float(self.lib.nestling_learn_step(ctypes.byref(self.head), samples, count, address(work)))
        assert np.isnan(work[-16:]).all(), "work was left"
        return loss

    def logits(self, embedding: NDArray[np.int8]) -> NDArray[np.float32]:
        out = np.empty(struct.unpack_from("<I", self.content(), 20)[0], np.float32)
        self.lib.nestling_head_logits(ctypes.byref(self.head), address(embedding), address(out))
        return out

    def add_class(self, label: bytes) -> int:
        return int(self.lib.nestling_head_add_class(ctypes.byref(self.head), ctypes.c_char_p(label)))

    def fill(self) -> None:
        self.lib.fill(ctypes.byref(self.head))

    def described(self) -> dict[str, float]:
        """The C's view of the header, and after "@" where it finds the parts."""
        text = ctypes.create_string_buffer(ROOM)
        self.lib.describe(ctypes.byref(self.head), text, ROOM)
        pairs = (line.split(" ") for line in text.value.decode().splitlines())
        return {name: float.fromhex(value) if "0x" in value or value == "inf" else int(value) for name, value in pairs}


def c_order(lib: Any, seed: int, epoch: int, items: int, labels: NDArray[np.uint32] | None) -> list[int]:
    classes = int(labels.max()) + 1 if labels is not None else 0
    places, starts = np.zeros(items, np.uint32), np.zeros(classes + 1, np.uint32)
    order = _Order(
        items,
        classes,
        0,
        None if labels is None else labels.ctypes.data,
        places.ctypes.data,
        starts.ctypes.data,
        labels is not None,
    )
    lib.nestling_order_make(ctypes.byref(order), ctypes.c_uint64(seed), ctypes.c_uint32(epoch))
    return [lib.nestling_order_item(ctypes.byref(order), place) for place in range(order.length)]


def new_head(
    inputs: int, classes: int = 10, max_classes: int = 10, training: Training = PLAIN_SGD, replay: int = 0, seed: int = 0
) -> HeadFile:
    """A head for random embeddings, with random weights."""
    rng = np.random.default_rng(seed)
    labels = tuple(f"class {c}" for c in range(classes))
    embeddings = random_embeddings(64, inputs, seed)
    head = made(
        labels, max_classes, embeddings, None, embedding_scale=0.05, embedding_zero=-7, preprocess=PREPROCESS, graph="ab" * 32,
        training=training, replay_capacity=replay,
    )  # fmt: skip
    weights, bias = head.weights.copy(), head.bias.copy()
    weights[:classes] = rng.normal(size=(classes, inputs))
    bias[:classes] = rng.normal(size=classes)
    return replace(head, weights=weights, bias=bias)


def random_embeddings(count: int, inputs: int, seed: int = 0) -> NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-128, 128, (count, inputs)).astype(np.int8)


def parsed(content: bytes) -> dict[str, Any]:
    """Every field and part of a head.nst, by struct and NumPy's frombuffer alone."""
    values = struct.unpack_from("<" + "".join(code for _, code in HEADER), content)
    found: dict[str, Any] = dict(zip((name for name, _ in HEADER), values, strict=True))
    place = struct.calcsize("<" + "".join(code for _, code in HEADER))
    rows, inputs, adam = found["max_classes"], found["inputs"], found["optimizer"] == 1
    half = found["moment_type"] == 1

    def part(name: str, size: int, dtype: Any = np.uint8) -> None:
        nonlocal place
        found[f"@{name}"] = place if size else 0
        found[name] = np.frombuffer(content[place : place + size], dtype)
        place += size

    part("labels", found["label_bytes"])
    part("runtimes", 4 * 32)
    part("offset", 4 * inputs, "<f4")
    part("weights", 4 * rows * inputs, "<f4")
    part("bias", 4 * rows, "<f4")
    part("moment", -(-(2 if half else 4) * rows * inputs // 8) * 8, "<u2" if half else "<f4")
    part("bias_moment", 4 * rows, "<f4")
    part("square", 4 * rows * inputs * adam, "<f4")
    part("bias_square", 4 * rows * adam, "<f4")
    found["@replay_stride"] = stride = -(-(inputs + 4) // 4) * 4
    found["@replay"] = place
    found["replay"] = np.frombuffer(content[place : place + stride * found["replay_capacity"]], np.uint8).reshape(-1, stride)
    place += stride * found["replay_capacity"]
    found["crc"] = struct.unpack_from("<I", content, place)[0]
    assert place + 4 == len(content)
    return found


def address(array: NDArray[Any]) -> ctypes.c_void_p:
    """Where a C-contiguous array lies."""
    return ctypes.c_void_p(array.ctypes.data)


def full_head(inputs: int, classes: int, max_classes: int, kind: str, replay: int, seed: int = 0) -> HeadFile:
    """A head with no part empty: moments, a replay store, two runtimes."""
    rng = np.random.default_rng(seed)
    head = new_head(inputs, classes, max_classes, TRAININGS[kind], replay, seed)
    kept = int(rng.integers(0, replay + 1))

    def rows(array: np.ndarray[Any, Any] | None, least: int = -100) -> Any:
        if array is None:
            return None
        made_up = np.zeros_like(array)
        made_up[:classes] = rng.integers(least, 100, array[:classes].shape) / 4  # a bfloat16 holds these
        return made_up

    return replace(
        head, moment=rows(head.moment), bias_moment=rows(head.bias_moment), square=rows(head.square, 0),
        bias_square=rows(head.bias_square, 0), runtimes=("c", "executorch"),
        replay=Replay(replay, kept + 5, rng.integers(0, classes, kept).astype(np.uint16), rng.integers(0, 2, kept).astype(np.uint8),
                      random_embeddings(kept, inputs, seed)),
        progress=replace(head.progress, steps=2**40 + 1, began=2**39, epoch=3, position=4, items=5, lowest_loss=0.25,
                         best_accuracy=0.5, saves=6, data="cd" * 32),
    )  # fmt: skip
