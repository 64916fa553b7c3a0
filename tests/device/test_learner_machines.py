"""The same two hundred steps on every machine: x86-64, arm64, a Cortex-M4 with its float unit, RV32 with floats in software."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.device.build import HEAD_FILES
from nestling.device.head_file import HeadFile, Training, from_bytes, inputs_of, to_bytes
from nestling.device.order import order
from nestling.formats.c import virtual
from nestling.formats.c.machines import files, machine
from tests.device.c_head import FLAGS, HERE, RUNTIME, new_head

MACHINES = ("linux-arm64", "cortex-m4", "rv32imc")
SGD = Training(rate=0.5, momentum=0.9, decay=1e-3, seed=7, batch=16)
HEADS = {
    "sgd": new_head(256, training=SGD),
    "bfloat16": new_head(99, 7, 8, replace(SGD, moment_type="bfloat16", balanced=True, batch=9)),
    "adam": new_head(99, 7, 8, Training("adam", rate=0.02, seed=8, batch=9)),
}
STEPS, ITEMS = 200, 64


def learned_on(name: str, head: HeadFile, folder: Path) -> bytes:
    """head.nst after the steps of learn_steps.c. Skips, naming the packages, where the machine's tools are missing."""
    board = machine(name)
    if missing := virtual.toolchain_missing(board):
        pytest.skip(missing)
    folder.mkdir()
    sources = {source: file for source, file in files(board).items() if source != "main_bench.c"}
    sources |= {source: RUNTIME / source for source in HEAD_FILES} | {"learn_steps.c": HERE / "learn_steps.c"}
    for source, file in sources.items():
        shutil.copyfile(file, folder / source)
    content = to_bytes(head)
    numbers = ",".join(map(str, content))
    (folder / "head_nst.h").write_text(
        f"#define HEAD_NST_BYTES {len(content)}\n#include <stdint.h>\nstatic const uint8_t head_nst[] = {{{numbers}}};\n"
    )
    parts = sorted(source for source in sources if source.endswith(".c"))
    command = [board.compiler, *FLAGS, *board.cflags, *parts, *board.ldflags, "-o", "program.elf"]
    subprocess.run(command, cwd=folder, check=True)
    assert virtual.launch(board, folder / "program.elf") == [{"done": True}]
    return (folder / "trace.bin").read_bytes()


def by_numpy(head: HeadFile) -> NDArray[np.float64]:
    """The weights after the same steps of SGD in float64, on embeddings made up again."""
    i, k = np.arange(ITEMS), np.arange(head.inputs)
    y = i * i % 7 % len(head.labels)
    q = ((i[:, None] * 37 + (k + 1) * (3 + y[:, None]) * 5) % 251 - 125).astype(np.int8)
    x, how = inputs_of(head, q).astype(np.float64), head.training
    w, b = head.weights[: len(head.labels)].astype(np.float64), head.bias[: len(head.labels)].astype(np.float64)
    v, vb, done, epoch = np.zeros_like(w), np.zeros_like(b), 0, 0
    while done < STEPS:
        places = order(how.seed, epoch, ITEMS, y if how.balanced else None)
        for begin in range(0, len(places), how.batch):
            chosen = places[begin : begin + how.batch]
            logits = x[chosen] @ w.T + b
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            d = (p / p.sum(axis=1, keepdims=True) - np.eye(len(b))[y[chosen]]) / len(chosen)
            v, vb = how.momentum * v + d.T @ x[chosen] + how.decay * w, how.momentum * vb + d.sum(axis=0)
            w, b, done = w - how.rate * v, b - how.rate * vb, done + 1
            if done == STEPS:
                break
        epoch += 1
    return w


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("kind", sorted(HEADS))
def test_every_machine_learns_the_same_bits(kind: str, name: str, tmp_path: Path) -> None:
    assert learned_on(name, HEADS[kind], tmp_path / name) == learned_on("host", HEADS[kind], tmp_path / "host")


@pytest.mark.parametrize("kind", ["sgd", "bfloat16"])
def test_those_bits_are_right(kind: str, tmp_path: Path) -> None:
    head = HEADS[kind]
    after = from_bytes(learned_on("host", head, tmp_path / "host"), "x")
    expected = by_numpy(head)
    distance = np.linalg.norm(after.weights[: len(expected)] - expected) / np.linalg.norm(expected)
    assert distance <= (1e-4 if kind == "sgd" else 2**-8)
    assert np.linalg.norm(head.weights[: len(expected)] - expected) / np.linalg.norm(expected) > 0.05  # it has moved
    assert after.progress.steps == STEPS
