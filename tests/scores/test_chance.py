"""Chance: McNemar's p against scipy's binomial, the interval of a loss against what all tables of four cells come to."""

from itertools import product
from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nestling.scores.chance import Changed, changed


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemars_p_is_a_fair_coins(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    lost, coins = int((first & ~second).sum()), int((first ^ second).sum())
    found = changed(first, second)
    assert (found.lost, found.won, found.images) == (lost, coins - lost, len(pairs))
    assert found.p == pytest.approx(binomtest(lost, coins).pvalue if coins else 1.0)
    assert found.likely == (found.p >= 0.05)


@pytest.mark.parametrize(("lost", "won"), [(0.1, 0.1), (0.2, 0.05), (0.02, 0.01), (0.3, 0.0)])
def test_the_true_loss_lies_within_the_interval_about_19_times_of_20(lost: float, won: float) -> None:
    """Summed over every outcome of 60 photographs, each with its probability: no drawing."""
    images, within = 60, 0.0
    for a, b in product(range(images + 1), repeat=2):
        if a + b <= images:
            ways = factorial(images) // (factorial(a) * factorial(b) * factorial(images - a - b))
            chance = ways * lost**a * won**b * (1 - lost - won) ** (images - a - b)
            low, high = Changed(a, b, images).loss
            within += chance * (low <= lost - won <= high)
    assert 0.93 < within <= 1.0


def test_of_no_photograph_nothing_is_known() -> None:
    assert Changed(0, 0, 0).loss == (-1.0, 1.0) and Changed(0, 0, 0).p == 1.0
