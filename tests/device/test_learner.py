"""ExecuTorch's learner against PyTorch's own optimisers, against the C, and against itself when stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.device.head_file import inputs_of, with_class, with_optimizer
from nestling.device.head_format import HeadFile, Training, from_bytes, to_bytes
from nestling.device.learner import Learner, bfloat16
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.executorch.head_program import MOST
from nestling.formats.executorch.training_program import print_training_program
from tests.device.c_head import CHead
from tests.device.learners import ADAM, BF16, SGD, batches, by_torch, distance, head_of
from tests.helpers.packages import training_program


def by_executorch(head: HeadFile, data: list[tuple[np.ndarray, np.ndarray]], program: bytes) -> tuple[HeadFile, list[float]]:
    learner = Learner(head, program)
    losses = [learner.step(inputs_of(head, q), y) for q, y in data]
    return learner.head, losses


@pytest.fixture(scope="module")
def large() -> bytes:
    return print_training_program(1280, 12)


@pytest.mark.parametrize("training", [SGD, ADAM], ids=["sgd", "adam"])
def test_two_hundred_steps_are_torchs(training: Training, large: bytes) -> None:
    head, data = head_of(1280, 10, 12, training), batches(1280, 10, 200, 32)
    found, losses = by_executorch(head, data, large)
    weight, bias, wanted = by_torch(head, data)
    assert distance(found, weight, bias) <= 1e-4
    np.testing.assert_allclose(losses, wanted, rtol=1e-3, atol=1e-5)
    assert np.linalg.norm(weight - head.weights[:10]) > 0.1 * np.linalg.norm(weight)  # it did learn
    assert not found.weights[10:].any() and not found.bias[10:].any() and not found.moment[10:].any()
    assert found.progress.steps == 200 and found.progress.lowest_loss == min(losses)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(1, 9), st.sampled_from([SGD, ADAM]), st.integers(0, 99))
def test_any_batch_and_number_of_classes(classes: int, size: int, training: Training, seed: int) -> None:
    head, data = head_of(24, classes, 6, training, seed), batches(24, classes, 12, size)
    found, _ = by_executorch(head, data, training_program())
    weight, bias, _ = by_torch(head, data)
    assert distance(found, weight, bias) <= 1e-4
    assert not found.weights[classes:].any() and not found.bias[classes:].any()


@pytest.mark.parametrize("training", [SGD, ADAM, BF16], ids=["sgd", "adam", "bf16"])
def test_stopped_and_gone_on_with_gives_the_same_bits(training: Training) -> None:
    """Through the file, at any step, with numbers that float32 cannot hold among the settings."""
    exact = replace(training, rate=training.rate / 3, momentum=0.9, beta2=0.99, decay=1 / 3000)  # not as a file gives them back
    head, data = replace(head_of(24, 5, 6, training), training=exact), batches(24, 5, 30, 7)
    whole, _ = by_executorch(head, data, training_program())
    for stop in (1, 13, 29):
        half, _ = by_executorch(head, data[:stop], training_program())
        rest, _ = by_executorch(from_bytes(to_bytes(half), "half"), data[stop:], training_program())
        assert to_bytes(rest) == to_bytes(whole)


def test_frozen_rows_do_not_move() -> None:
    head = with_class(head_of(24, 4, 6, SGD), "new")
    learner = Learner(head, training_program(), frozen=(0, 2))
    for q, y in batches(24, 5, 20, 8):
        learner.step(inputs_of(head, q), y)
    found = learner.head
    moved = (found.weights != head.weights).any(axis=1)
    assert moved.tolist() == [False, True, False, True, True, False]
    assert (found.bias != head.bias).tolist() == [False, True, False, True, True, False]


def test_momentum_in_bfloat16_is_near_that_in_float32() -> None:
    """Eight bits of mantissa: each step's velocity is at most 2^-9 off, and what is learned a few times that."""
    data = batches(24, 5, 200, 16)
    fine, _ = by_executorch(head_of(24, 5, 6, SGD), data, training_program())
    coarse, _ = by_executorch(head_of(24, 5, 6, BF16), data, training_program())
    assert 0 < distance(coarse, fine.weights[:5], fine.bias[:5]) < 0.02


HALVES = st.tuples(st.integers(0, 0x7F00), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]))


@given(st.lists(HALVES, min_size=1, max_size=20))
def test_bfloat16_rounds_as_torch_does(halves: list[tuple[int, int]]) -> None:
    """Upper and lower half of a float32: below, at and above the middle between two bfloat16."""
    array = np.array([upper << 16 | lower for upper, lower in halves], np.uint32).view(np.float32)
    np.testing.assert_array_equal(bfloat16(array), torch.from_numpy(array).bfloat16().float().numpy())


def test_programs_that_cannot_serve_are_named() -> None:
    head = head_of(24, 4, 6, SGD)
    program = training_program()
    for content in (b"", b"no program at all, none", program[: len(program) // 2], print_training_program(23, 6)):
        with pytest.raises(UnusableFile, match=r"torn\.pte"):
            Learner(head, content, "torn.pte")
    with pytest.raises(UnusableFile, match=r"torn\.pte"):
        Learner(head, print_training_program(24, 5), "torn.pte")
    with pytest.raises(NestlingError, match=str(MOST)):
        Learner(head, program).step(np.zeros((MOST + 1, 24), np.float32), np.zeros(MOST + 1, np.int64))


# ---- the C ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
def test_two_hundred_steps_are_the_cs(training: Training, large: bytes, c_learner: Any) -> None:
    head, data = head_of(1280, 10, 12, training), batches(1280, 10, 200, 32)
    found, _ = by_executorch(head, data, large)
    c_head = CHead(to_bytes(head), c_learner)
    for q, y in data:
        c_head.step(np.ascontiguousarray(q), y)
    c = from_bytes(c_head.sealed(), "what the C left")
    assert distance(found, c.weights[:10], c.bias[:10]) <= 1e-4
    assert found.progress.steps == c.progress.steps


def test_begins_with_fresh_moments() -> None:
    head, data = head_of(24, 4, 6, SGD), batches(24, 4, 5, 8)
    learned, _ = by_executorch(head, data, training_program())
    anew = with_optimizer(learned, ADAM)
    assert not anew.moment.any() and anew.square is not None
    weight, bias, _ = by_torch(replace(anew, progress=replace(anew.progress, began=anew.progress.steps)), data)
    found, _ = by_executorch(replace(anew, progress=replace(anew.progress, began=anew.progress.steps)), data, training_program())
    assert distance(found, weight, bias) <= 1e-4
