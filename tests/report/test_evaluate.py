"""Figures against values worked out elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from nestling.report.agree import compare
from nestling.report.evaluate import judge, wilson


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (7, 10), (460, 525), (1, 1)])
def test_the_interval_is_wilsons_as_scipy_has_it(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_case_worked_out_by_hand() -> None:
    """Three cats (two seen), two dogs (one seen): the surest mistake comes first."""
    logits = np.array([[2, 0], [1, 0], [0, 3], [0, 1], [5, 0]], np.float32)
    truth = np.array([0, 0, 0, 1, 1])
    result = judge(logits, truth, [Path(f"{i}.jpg") for i in range(5)], ("cat", "dog"))
    assert result.top1 == 0.6
    assert result.confusion.tolist() == [[2, 1], [1, 1]]
    assert [(row.precision, row.recall, row.images) for row in result.per_class] == [
        (pytest.approx(2 / 3), pytest.approx(2 / 3), 3),
        (0.5, 0.5, 2),
    ]
    assert [(m.path.name, m.label, m.answer) for m in result.mistakes] == [("4.jpg", "dog", "cat"), ("2.jpg", "cat", "dog")]


def test_a_class_that_is_never_answered_has_precision_zero() -> None:
    result = judge(np.array([[1, 0], [1, 0]], np.float32), np.array([0, 1]), [Path("a"), Path("b")], ("x", "y"))
    assert result.per_class[1].precision == 0 and result.per_class[1].recall == 0


def test_differences_between_logits() -> None:
    a = np.array([[10, 0], [0, 1]], np.float32)
    b = np.array([[10, 0.1], [2, 1]], np.float32)
    result = compare(a, b)
    assert result.agreement == 0.5 and result.max_logit_difference == 2
    assert result.rms_logit_difference == pytest.approx(np.sqrt((0.1**2 + 2**2) / 4))
    assert result.max_relative_difference == pytest.approx(2 / 5.5)  # the images' largest logits are 10 and 1
