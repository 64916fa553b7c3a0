"""The head's learner in C, compiled here and called: the device's own steps, bit for bit, where ExecuTorch is not installed."""

from __future__ import annotations

import ctypes
import math
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling import extras
from nestling.device.build import HEAD_SOURCES, RUNTIME
from nestling.device.head_format import HeadFile, from_bytes, to_bytes
from nestling.device.learner import as_kept, diverged
from nestling.errors import NestlingError
from nestling.formats.c.host import compiler

FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-shared", "-fPIC")
PARTS = ("header", "labels", "runtimes", "offset", "weights", "bias", "moment", "bias_moment", "square", "bias_square", "replay")


class _Head(ctypes.Structure):
    """nestling_head of nestling_head.h."""

    _fields_ = [(part, ctypes.c_void_p) for part in PARTS] + [("replay_stride", ctypes.c_uint32)]  # ctypes' own way


class _Sample(ctypes.Structure):
    """nestling_sample."""

    _fields_ = [("embedding", ctypes.c_void_p), ("label", ctypes.c_uint32)]


class CLearner:
    """A head that learns. A class, for the head in memory changes in place.

    frozen: classes whose rows stay as they are. Raises NestlingError where there is no C compiler.
    """

    def __init__(self, head: HeadFile, frozen: tuple[int, ...] = ()) -> None:
        self._c = _library()
        self._first = replace(head, training=as_kept(head.training))
        self._memory, self._opened = _opened(self._c, to_bytes(self._first))
        rows, inputs = head.weights.shape
        moment = np.uint16 if self._first.training.moment_type == "bfloat16" else np.float32
        adam = self._first.training.optimizer == "adam"
        wide = [(self._opened.weights, np.float32), (self._opened.moment, moment)] + adam * [(self._opened.square, np.float32)]
        narrow = [self._opened.bias, self._opened.bias_moment] + adam * [self._opened.bias_square]
        views = [_view(address, (rows, inputs), dtype) for address, dtype in wide]
        views += [_view(address, (rows,), np.float32) for address in narrow]
        self._held = [(view, view[list(frozen)].copy()) for view in views]
        self._frozen, self._rows = list(frozen), rows
        self._cycles = head.progress.steps - head.progress.began

    def step(self, embeddings: NDArray[np.int8], labels: NDArray[np.int64]) -> float:
        """One step on int8 [B, D], labels int64 [B]. Returns the batch's mean cross-entropy as it was before.

        Raises NestlingError where that is not finite any more.
        """
        rows = np.ascontiguousarray(embeddings)
        samples = (_Sample * len(rows))(*(_Sample(row.ctypes.data, int(y)) for row, y in zip(rows, labels, strict=True)))
        work = np.empty(len(rows) * self._rows, np.float32)
        address = ctypes.c_void_p(work.ctypes.data)
        loss = float(self._c.nestling_learn_step(ctypes.byref(self._opened), samples, ctypes.c_uint32(len(rows)), address))
        if not math.isfinite(loss):
            raise diverged(loss, self._cycles, self._first.training.rate)
        for view, held in self._held:  # as if these rows' gradients had been 0
            view[self._frozen] = held
        self._cycles += 1
        return loss

    @property
    def head(self) -> HeadFile:
        """The head as it is now, copied."""
        self._c.nestling_head_seal(ctypes.byref(self._opened))
        found = from_bytes(self._memory.tobytes(), "the head that learns")
        return replace(found, progress=replace(found.progress, saves=self._first.progress.saves))


def _opened(c: Any, content: bytes) -> tuple[NDArray[np.uint8], _Head]:
    """(memory aligned to 8 bytes with the content, the head in it)."""
    memory = np.zeros(-(-len(content) // 8), np.uint64).view(np.uint8)[: len(content)]
    memory[:] = np.frombuffer(content, np.uint8)
    head = _Head()
    c.nestling_head_open(ctypes.c_void_p(memory.ctypes.data), ctypes.c_uint32(len(content)), ctypes.byref(head))
    return memory, head


def _view(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    view: NDArray[Any] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)
    return view


@cache
def _library() -> Any:
    """The C learner, loaded."""
    found = compiler()
    if found is None:
        raise NestlingError(
            "learning here runs the C learner, which wants a C compiler, or ExecuTorch; neither is installed.",
            f"sudo apt-get install gcc libc6-dev, or {extras.hint('executorch')}",
        )
    with TemporaryDirectory() as folder:
        built = Path(folder) / "learner.so"
        sources = [str(RUNTIME / source) for source in HEAD_SOURCES]
        command = [found, *FLAGS, f"-I{RUNTIME}", *sources, "-lm", "-o", str(built)]
        ended = subprocess.run(command, capture_output=True, check=False)
        if ended.returncode:
            said = ended.stderr.decode(errors="backslashreplace").partition("\n")[0]
            raise NestlingError(f"the C learner could not be compiled: {said}")
        loaded = ctypes.CDLL(str(built))
    loaded.nestling_learn_step.restype = ctypes.c_float
    return loaded
