"""The C learner: its numbers, its steps against PyTorch's, its masks, and that neither compilers nor stops change a bit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from nestling.device.build import HEAD_SOURCES
from nestling.device.head_file import HeadFile, Training, from_bytes, inputs_of, to_bytes
from tests.device.c_head import FLAGS, HERE, RUNTIME, CHead, address, library, new_head, parsed, random_embeddings

SGD = Training(rate=0.2, momentum=0.9, decay=1e-3)
ADAM = Training("adam", rate=0.01, momentum=0.9, decay=1e-3)
STEPS, BATCH = 200, 32
COMPILERS = (("gcc", "-O0"), ("gcc", "-O2"), ("gcc", "-O3"), ("gcc", "-O3 -march=native"), ("clang", "-O0"), ("clang", "-O3"))


@pytest.fixture(scope="module")
def lib(c_learner: Any) -> Any:
    return c_learner


# ---- numbers -----------------------------------------------------------------------------------------------------------------


def units_off(lib: Any, which: int, x: NDArray[np.float32], judge: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """The largest distance from the judge's float64 result, in units of the last place of a float32."""
    given_, found = np.ascontiguousarray(x, np.float32), np.empty(len(x), np.float32)
    lib.numbers(which, address(given_), address(found), len(x))
    expected = judge(given_.astype(np.float64))
    unit = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    return float((np.abs(found - expected) / unit).max())


def every(first: float, last: float, step: int) -> NDArray[np.float32]:
    """Every step-th float32 from first to last, both positive."""
    bits = np.array([first, last], np.float32).view(np.uint32)
    return np.arange(int(bits[0]), int(bits[1]) + 1, step, dtype=np.uint32).view(np.float32)


def test_exponential(lib: Any) -> None:
    assert units_off(lib, 0, np.concatenate([-every(1e-30, 103.9, 401), every(1e-30, 88.72, 401), [0]]), np.exp) <= 1
    assert units_off(lib, 0, np.array([-104.5, -1000, -3e38]), lambda x: 0 * x) == 0  # e^-104 is less than half the least float


def test_logarithm(lib: Any) -> None:
    assert units_off(lib, 1, np.concatenate([every(1.5e-45, 3.4e38, 997), every(0.5, 2, 11)]), np.log) <= 1


def test_root(lib: Any) -> None:
    assert units_off(lib, 2, np.concatenate([[0], every(1.5e-45, 3.4e38, 997)]), np.sqrt) <= 1


def test_bfloat16_is_torchs(lib: Any) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint32)
    ties = (np.arange(65536, dtype=np.uint32) << 16) | 0x8000
    values = np.concatenate([bits, ties, ties + 1, ties - 1]).view(np.float32)
    values = values[~np.isnan(values)]
    found = np.empty(len(values), np.uint16)
    lib.as_bfloat16(address(values), address(found), len(values))
    assert_array_equal(found, torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy())


# ---- steps -------------------------------------------------------------------------------------------------------------------


def data_for(inputs: int, classes: int, count: int = 256) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Embeddings that can be learned: each class has a centre of its own."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, count)
    centres = rng.normal(scale=25, size=(classes, inputs))
    return np.clip(np.rint(centres[y] + rng.normal(scale=40, size=(count, inputs))), -128, 127).astype(np.int8), y


def batches(count: int, steps: int, batch: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(2)
    return [rng.choice(count, batch, replace=False) for _ in range(steps)]


def by_c(
    lib: Any, head: HeadFile, q: NDArray[np.int8], y: NDArray[np.int64], order: list[NDArray[np.int64]]
) -> tuple[CHead, list[float]]:
    learner = CHead(to_bytes(head), lib)
    return learner, [learner.step(np.ascontiguousarray(q[chosen]), y[chosen]) for chosen in order]


def by_torch(
    head: HeadFile, q: NDArray[np.int8], y: NDArray[np.int64], order: list[NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[float]]:
    """PyTorch's own optimisers and cross-entropy, the decay for the weights alone."""
    classes, how = len(head.labels), head.training
    x, labels = torch.from_numpy(inputs_of(head, q)), torch.from_numpy(y)
    w, b = (torch.tensor(array[:classes], requires_grad=True) for array in (head.weights, head.bias))
    groups = [{"params": [w], "weight_decay": how.decay}, {"params": [b], "weight_decay": 0.0}]
    if how.optimizer == "sgd":
        optimiser: torch.optim.Optimizer = torch.optim.SGD(groups, lr=how.rate, momentum=how.momentum)
    else:
        optimiser = torch.optim.Adam(groups, lr=how.rate, betas=(how.momentum, how.beta2), eps=how.epsilon)
    losses = []
    for chosen in order:
        loss = cross_entropy(x[chosen] @ w.T + b, labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return w.detach().numpy(), b.detach().numpy(), losses


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize("training", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize(("inputs", "classes", "batch"), [(1280, 10, BATCH), (1, 1, 1), (33, 17, 5), (100, 3, 19), (40, 40, 3)])
def test_two_hundred_steps_end_where_torchs_do(lib: Any, training: Training, inputs: int, classes: int, batch: int) -> None:
    q, y = data_for(inputs, classes)
    head = new_head(inputs, classes, classes + 2, training)
    order = batches(len(q), STEPS, batch)
    learner, losses = by_c(lib, head, q, y, order)
    w, b, expected = by_torch(head, q, y, order)
    after = from_bytes(learner.sealed(), "x")
    assert distance(after.weights[:classes], w) <= 1e-4
    assert distance(after.bias[:classes], b) <= 1e-4 or classes == 1
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    assert after.progress.steps == STEPS
    assert after.progress.lowest_loss == np.float32(min(losses))
    for array in (after.weights, after.bias, after.moment, after.bias_moment, after.square, after.bias_square):
        assert array is None or not array[classes:].any()  # rows of classes that are not there yet


def test_a_velocity_in_bfloat16_stays_close_in_half_the_room(lib: Any) -> None:
    q, y = data_for(1280, 10)
    order = batches(len(q), STEPS, BATCH)
    wide, narrow = (new_head(1280, training=replace(SGD, moment_type=kind)) for kind in ("float32", "bfloat16"))
    assert len(to_bytes(wide)) - len(to_bytes(narrow)) == 2 * 1280 * 10
    assert len(to_bytes(wide)) < 110_000
    a, b = (from_bytes(by_c(lib, head, q, y, order)[0].sealed(), "x") for head in (wide, narrow))
    assert 0 < distance(b.weights, a.weights) <= 2**-8  # what a bfloat16 rounds away at most of one number


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 100), st.integers(1, 20), st.integers(1, 40), st.integers(0, 99))
def test_logits_are_those_that_a_step_starts_from(lib: Any, inputs: int, classes: int, count: int, seed: int) -> None:
    """A step without a rate: its loss is the cross-entropy of the single logits, which are NumPy's."""
    head = new_head(inputs, classes, classes + 1, Training(rate=0, decay=0), seed=seed)
    q, y = random_embeddings(count, inputs, seed), np.random.default_rng(seed).integers(0, classes, count)
    learner = CHead(to_bytes(head), lib)
    logits = np.array([learner.logits(row) for row in q])
    expected = inputs_of(head, q).astype(np.float64) @ head.weights[:classes].T + head.bias[:classes]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    loss = learner.step(q, y)
    np.testing.assert_allclose(loss, float(cross_entropy(torch.from_numpy(expected), torch.from_numpy(y))), rtol=1e-5, atol=1e-6)
    assert_array_equal(from_bytes(learner.sealed(), "x").weights, head.weights)


def test_a_class_more(lib: Any) -> None:
    """A class that comes later learns as if it had been there with a row of zeros; where there is no room nothing changes."""
    q, y = data_for(70, 4)
    order = batches(len(q), 20, 16)
    head = new_head(70, 3, 4)
    learner = CHead(to_bytes(head), lib)
    assert learner.add_class("größer".encode()) == 3
    for chosen in order:
        learner.step(np.ascontiguousarray(q[chosen]), y[chosen])
    there = replace(head, labels=(*head.labels, "größer"))
    w, b, _ = by_torch(there, q, y, order)
    after = from_bytes(learner.sealed(), "x")
    assert after.labels == there.labels
    assert distance(after.weights, w) <= 1e-4
    assert distance(after.bias, b) <= 1e-4
    before = learner.content()
    assert learner.add_class(b"one too many") == -1
    assert learner.content() == before
    small = CHead(to_bytes(new_head(8, 2, 5)), lib)
    for refused in (b"", b"a\nb", b"x" * 200):
        assert small.add_class(refused) == -1
    assert small.add_class(b"x" * 60) == 2
    left = parsed(small.content())["label_bytes"] - len("class 0\nclass 1\n") - 61
    assert small.add_class(b"y" * left) == -1  # its line break would lie behind the end
    assert small.add_class(b"y" * (left - 1)) == 3
    assert from_bytes(small.sealed(), "x").labels[2:] == ("x" * 60, "y" * (left - 1))


# ---- the same bits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [SGD, replace(SGD, moment_type="bfloat16"), ADAM], ids=["sgd", "bfloat16", "adam"])
def test_stopping_and_going_on_is_never_having_stopped(lib: Any, training: Training) -> None:
    """Saved, thrown away and opened again at random moments: the same bytes, but for the number of saves."""
    q, y = data_for(130, 5)
    order = batches(len(q), 60, 9)
    head = new_head(130, 5, 6, training)
    straight = without_saves(by_c(lib, head, q, y, order)[0].sealed())
    rng = np.random.default_rng(3)
    for _ in range(10):
        content = to_bytes(head)
        for begin, end in pairwise(sorted({0, 60, *rng.integers(1, 60, 4).tolist()})):
            content = by_c(lib, from_bytes(content, "x"), q, y, order[begin:end])[0].sealed()  # Python reads and writes it, too
        assert without_saves(content) == straight


def without_saves(content: bytes) -> bytes:
    head = from_bytes(content, "x")
    return to_bytes(replace(head, progress=replace(head.progress, saves=0)))


def test_compilers_and_their_levels_agree_in_every_bit(tmp_path: Path) -> None:
    q, y = data_for(150, 7)
    order = batches(len(q), 40, 11)
    missing = {compiler for compiler, _ in COMPILERS if shutil.which(compiler) is None}
    if missing:
        pytest.skip(f"needs {', '.join(sorted(missing))}")
    for training in (SGD, replace(SGD, moment_type="bfloat16"), ADAM):
        head = new_head(150, 7, 8, training)
        found = {
            (compiler, flags): by_c(library(tmp_path, *flags.split(), compiler=compiler), head, q, y, order)[0].sealed()
            for compiler, flags in COMPILERS
        }
        assert len(set(found.values())) == 1, training


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_it_compiles_without_a_warning_and_without_libraries(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    flags = (*FLAGS, "-pedantic", "-Wconversion", "-O2", "-ffreestanding")
    for name in (*HEAD_SOURCES, "nestling_file.c"):
        subprocess.run([compiler, *flags, "-c", str(RUNTIME / name), "-o", str(tmp_path / f"{name}.o")], check=True)
    built = tmp_path / "head.o"
    parts = [str(tmp_path / f"{name}.o") for name in HEAD_SOURCES]
    subprocess.run([compiler, "-r", "-nostdlib", *parts, "-o", str(built)], check=True)
    wanted = subprocess.run(["nm", "-u", str(built)], capture_output=True, text=True, check=True).stdout.split()
    assert set(wanted) - {"U"} <= {"memcpy", "memset", "memmove", "memcmp"}  # which every C compiler takes for granted


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Odd sizes under the address and undefined-behaviour sanitizers, in a process of its own."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = tmp_path / "sanitized"
    command = ["cc", *FLAGS, *flags, f"-I{RUNTIME}", str(HERE / "learn_file.c"), str(RUNTIME / "nestling_file.c")]
    subprocess.run([*command, *(str(RUNTIME / part) for part in HEAD_SOURCES), "-o", str(program)], check=True)
    for kind, training in (("sgd", SGD), ("bf16", replace(SGD, moment_type="bfloat16")), ("adam", ADAM)):
        for inputs, classes in ((1, 1), (31, 17), (33, 3), (64, 33)):
            path = tmp_path / f"{kind}-{inputs}.nst"
            path.write_bytes(to_bytes(new_head(inputs, classes, classes + 1, training, 3)))
            subprocess.run([str(program), str(path), "12", "5"], check=True, capture_output=True)
            assert from_bytes(path.read_bytes(), "x").progress.steps == 12
