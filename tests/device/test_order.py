"""The order of the data: Python's is the C's, each item comes as often as it should, and no order is likelier than another."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import chi2

from nestling.device.order import _mixed, order
from tests.device.c_head import c_order

SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def lib(c_learner: Any) -> Any:
    return c_learner


@settings(deadline=None, max_examples=150)
@given(SEEDS, EPOCHS, st.integers(1, 700))
def test_plain_c_is_python_and_every_item_comes_once(lib: Any, seed: int, epoch: int, items: int) -> None:
    places = order(seed, epoch, items)
    assert_array_equal(np.sort(places), np.arange(items))
    assert c_order(lib, seed, epoch, items, None) == places.tolist()


@settings(deadline=None, max_examples=150)
@given(SEEDS, EPOCHS, st.lists(st.integers(0, 12), min_size=1, max_size=200))
def test_balanced_c_is_python_and_classes_take_turns(lib: Any, seed: int, epoch: int, labels: list[int]) -> None:
    places = order(seed, epoch, len(labels), labels).tolist()
    assert c_order(lib, seed, epoch, len(labels), np.array(labels, np.uint32)) == places
    present, largest = sorted(set(labels)), max(Counter(labels).values())
    assert [labels[place] for place in places] == present * largest
    for label, count in Counter(labels).items():
        times = [places.count(item) for item, own in enumerate(labels) if own == label]
        assert min(times) == largest // count  # each of its items comes equally often, or once more
        assert max(times) == -(-largest // count)


def test_a_long_epoch(lib: Any) -> None:
    assert c_order(lib, 3, 1, 50_000, None) == order(3, 1, 50_000).tolist()


def test_splitmix_is_that_of_its_authors() -> None:
    """The first numbers of splitmix64 from the state 1234567, as published with the algorithm."""
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)
    state = 1234567
    for expected in published:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        assert _mixed(state) == expected


def test_seeds_and_epochs_differ() -> None:
    assert len({tuple(order(seed, epoch, 20).tolist()) for seed in range(30) for epoch in range(30)}) == 900


def test_no_order_is_likelier_than_another() -> None:
    """Chi-squared over the 24 orders of four items; a biased shuffle (a swap with any place) exceeds this by far."""
    draws = 4800
    seen = Counter(tuple(order(11, epoch, 4).tolist()) for epoch in range(draws))
    expected = draws / 24
    statistic = sum((count - expected) ** 2 / expected for count in seen.values())
    assert len(seen) == 24
    assert statistic < chi2.ppf(0.9999, 23)


@pytest.mark.parametrize(("items", "labels"), [(0, None), (3, [0, 1])])
def test_impossible_orders_are_refused(items: int, labels: list[int] | None) -> None:
    with pytest.raises(ValueError, match="items"):
        order(0, 0, items, labels)
