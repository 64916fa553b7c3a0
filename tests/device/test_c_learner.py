"""The C learner as `learn` calls it: against PyTorch's own optimisers, the C called by others, and itself when stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.device import c_learner as module
from nestling.device.c_learner import CLearner
from nestling.device.head_file import inputs_of, with_class
from nestling.device.head_format import HeadFile, Training, from_bytes, to_bytes
from nestling.device.learner import Learner
from nestling.errors import NestlingError
from nestling.formats.c import host
from tests.device.c_head import CHead
from tests.device.learners import ADAM, BF16, SGD, batches, by_torch, distance, head_of
from tests.helpers.packages import training_program

pytestmark = pytest.mark.skipif(host.compiler() is None, reason="needs a C compiler: apt-get install gcc libc6-dev")
KINDS = pytest.mark.parametrize("training", [SGD, ADAM, BF16], ids=["sgd", "adam", "bf16"])


def by_c(head: HeadFile, data: list[tuple[np.ndarray, np.ndarray]], frozen: tuple[int, ...] = ()) -> tuple[HeadFile, list[float]]:
    learner = CLearner(head, frozen)
    losses = [learner.step(q, y) for q, y in data]
    return learner.head, losses


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(1, 9), st.sampled_from([SGD, ADAM]), st.integers(0, 99))
def test_steps_are_torchs(classes: int, size: int, training: Training, seed: int) -> None:
    head, data = head_of(24, classes, 6, training, seed), batches(24, classes, 12, size)
    found, losses = by_c(head, data)
    weight, bias, wanted = by_torch(head, data)
    assert distance(found, weight, bias) <= 1e-4
    np.testing.assert_allclose(losses, wanted, rtol=1e-3, atol=1e-5)
    assert not found.weights[classes:].any() and not found.bias[classes:].any()
    assert (found.progress.steps, found.progress.saves) == (12, head.progress.saves)


@KINDS
def test_the_head_is_what_the_c_made_bit_for_bit(training: Training, c_learner: Any) -> None:
    """The C called through another binding, the tests' own; but for how often it was saved."""
    head, data = head_of(24, 5, 6, training), batches(24, 5, 20, 7)
    theirs = CHead(to_bytes(head), c_learner)
    for q, y in data:
        theirs.step(q, y)
    wanted = from_bytes(theirs.sealed(), "theirs")
    found, _ = by_c(head, data)
    assert to_bytes(found) == to_bytes(replace(wanted, progress=replace(wanted.progress, saves=head.progress.saves)))


@KINDS
def test_stopped_and_gone_on_with_gives_the_same_bits(training: Training) -> None:
    """Through the file, with numbers that float32 cannot hold among the settings; the head may be looked at in between."""
    exact = replace(training, rate=training.rate / 3, momentum=0.9, beta2=0.99, decay=1 / 3000)
    head, data = replace(head_of(24, 5, 6, training), training=exact), batches(24, 5, 30, 7)
    whole, _ = by_c(head, data)
    for stop in (1, 13, 29):
        half, _ = by_c(head, data[:stop])
        assert to_bytes(by_c(from_bytes(to_bytes(half), "half"), data[stop:])[0]) == to_bytes(whole)
    looking = CLearner(head)
    for q, y in data:
        looking.step(q, y)
        assert looking.head.labels == head.labels
    assert to_bytes(looking.head) == to_bytes(whole)


@KINDS
def test_frozen_rows_do_not_move_and_the_others_learn_as_elsewhere(training: Training) -> None:
    """Their moments stay 0, too: as if their gradients had been."""
    head = with_class(head_of(24, 4, 6, training), "new")
    data = batches(24, 5, 20, 8)
    found, _ = by_c(head, data, frozen=(0, 2))
    other = Learner(head, training_program(), frozen=(0, 2))
    for q, y in data:
        other.step(inputs_of(head, q), y)
    for name in ("weights", "bias", "moment", "bias_moment"):
        ours, before, theirs = (getattr(one, name) for one in (found, head, other.head))
        np.testing.assert_array_equal(ours[[0, 2]], before[[0, 2]])
        allowed = 2e-2 if training is BF16 else 1e-4
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed * np.abs(theirs).max())
        assert (ours[[1, 3, 4]] != before[[1, 3, 4]]).any()


def test_a_training_that_diverges_says_after_how_many_cycles() -> None:
    """Counted as `learn` counts, from where the training began."""
    head, data = head_of(24, 4, 6, SGD), batches(24, 4, 1, 8)
    begun = replace(head, weights=head.weights * np.float32(1e38), progress=replace(head.progress, steps=100, began=95))
    with pytest.raises(NestlingError, match=r"diverged: its loss is (nan|inf) after 5 cycles") as caught:
        by_c(begun, data)
    assert "--rate" in caught.value.hint


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "compiler", lambda: None)
    module._library.cache_clear()
    with pytest.raises(NestlingError, match="wants a C compiler") as caught:
        CLearner(head_of(24, 4, 6, SGD))
    assert "nestling[executorch]" in caught.value.hint
