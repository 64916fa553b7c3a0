"""The replay store: balanced, within its room, the same whatever the order, and a uniform sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.device.head_format import HeadFile, from_bytes, to_bytes
from nestling.device.replay import not_among, room, stored
from nestling.errors import NestlingError
from tests.helpers.packages import untrained

LABELS = ("apple", "lime", "plum", "sky")


def some(counts: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    return np.random.default_rng(seed).integers(-128, 128, (len(labels), 24)).astype(np.int8), labels


def as_set(head: HeadFile) -> set[tuple[int, bytes]]:
    return {(int(label), row.tobytes()) for label, row in zip(head.replay.labels, head.replay.embeddings, strict=True)}


def test_what_fits_into_so_many_kilobytes() -> None:
    """An entry is 4 bytes and its embedding, up to a multiple of 4; the file grows by no more than was said."""
    assert room(64, 1280) == 51
    assert room(1, 1) == 128
    with_none, with_room = (len(to_bytes(untrained(LABELS, replay=capacity))) for capacity in (0, room(3, 24)))
    entries = with_room - with_none
    assert 3 * 1024 - 28 < entries <= 3 * 1024


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=4, max_size=4), st.integers(0, 60), st.integers(0, 9))
def test_as_many_as_fit_and_classes_as_equal_as_there_are_photographs(counts: list[int], capacity: int, seed: int) -> None:
    embeddings, labels = some(tuple(counts), seed)
    head = stored(untrained(LABELS), embeddings, labels, "executorch", capacity)
    kept = np.bincount(head.replay.labels, minlength=4)
    assert kept.sum() == min(capacity, sum(counts)) and (kept <= counts).all()
    unfinished = kept[kept < counts]  # classes that more could have been kept of
    if len(unfinished):
        assert kept.max() <= unfinished.min() + 1
    assert as_set(head) <= {(int(label), row.tobytes()) for label, row in zip(labels, embeddings, strict=True)}
    assert from_bytes(to_bytes(head), "again").replay.capacity == capacity


def test_the_order_does_not_count() -> None:
    embeddings, labels = some((20, 9, 14, 3))
    shuffled = np.random.default_rng(5).permutation(len(labels))
    first = stored(untrained(LABELS), embeddings, labels, "executorch", 17)
    second = stored(untrained(LABELS), embeddings[shuffled], labels[shuffled], "executorch", 17)
    assert to_bytes(first) == to_bytes(second)


def test_what_comes_later_joins_as_if_all_had_come_at_once() -> None:
    embeddings, labels = some((20, 20, 20, 20))
    old = labels < 3
    halves = stored(untrained(LABELS), embeddings[old], labels[old], "c", 24)
    halves = stored(halves, embeddings[~old], labels[~old], "executorch", 24)
    assert as_set(halves) == as_set(stored(untrained(LABELS), embeddings, labels, "executorch", 24))
    assert halves.replay.seen == 80 and halves.runtimes == ("c", "executorch")
    made_by = [halves.runtimes[runtime] for runtime in halves.replay.runtimes]
    assert made_by == ["executorch" if label == 3 else "c" for label in halves.replay.labels]


def test_every_photograph_is_as_likely_to_be_kept() -> None:
    """Of 10 the 3rd place is kept in about 3 of 10 data sets; 5 standard deviations are allowed."""
    kept = np.zeros(10)
    for seed in range(400):
        embeddings, labels = some((10,), seed)
        rows = {row.tobytes() for row in stored(untrained(LABELS), embeddings, labels, "c", 3).replay.embeddings}
        kept += [row.tobytes() in rows for row in embeddings]
    assert np.abs(kept - 120).max() < 5 * np.sqrt(400 * 0.3 * 0.7)


def test_copies_of_training_photographs_are_known() -> None:
    embeddings, labels = some((6, 6, 0, 0))
    head = stored(untrained(LABELS), embeddings, labels, "c", 12)
    there = labels == 0
    left = not_among(head.replay, embeddings[there], labels[there])
    assert head.replay.labels[left].tolist() == [1] * 6
    assert len(not_among(head.replay, embeddings, 1 - labels)) == 12  # the same picture of another class is another entry
    again = stored(head, embeddings, labels, "c", 12)
    assert as_set(again) == as_set(head) and again.replay.seen == head.replay.seen == 12


def test_a_training_of_some_that_are_kept_and_some_new_ones_can_be_saved() -> None:
    """Photographs were added, or another runtime gives a few of the same embeddings: more may be kept than were counted."""
    embeddings, labels = some((6, 6, 6, 6))
    head = stored(untrained(LABELS), embeddings[::2], labels[::2], "c", 40)
    more = stored(head, embeddings, labels, "executorch", 40)
    assert from_bytes(to_bytes(more), "more").replay.seen >= len(more.replay.labels) == 24


def test_a_fifth_runtime_has_no_room() -> None:
    full = replace(untrained(LABELS), runtimes=("a", "b", "c", "d"))
    embeddings, labels = some((2, 2))
    with pytest.raises(NestlingError, match="a, b, c, d"):
        stored(full, embeddings, labels, "executorch", 4)
