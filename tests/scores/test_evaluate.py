"""Figures against values worked out elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from nestling.scores.agree import agreement
from nestling.scores.doubts import of_answers, of_classes, one_answer
from nestling.scores.evaluate import Evaluation, judge, wilson


@pytest.mark.parametrize(("right", "total"), [(0, 10), (10, 10), (7, 10), (460, 525), (1, 1)])
def test_the_interval_is_wilsons_as_scipy_has_it(right: int, total: int) -> None:
    expected = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert wilson(right, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_case_worked_out_by_hand() -> None:
    """Six cats (four seen), five dogs (three seen): the surest mistake comes first."""
    logits = np.array([[2, 0]] * 4 + [[0, 3], [0, 4]] + [[0, 1]] * 3 + [[5, 0], [1, 0]], np.float32)
    truth = np.array([0] * 6 + [1] * 5)
    result = judge(logits, truth, [Path(f"{i}.jpg") for i in range(11)], ("cat", "dog"))
    assert result.top1 == 7 / 11
    assert (result.majority, result.majority_class) == (6 / 11, "cat")
    assert result.confusion.tolist() == [[4, 2], [2, 3]]
    assert [(row.precision, row.recall, row.images) for row in result.per_class] == [
        (pytest.approx(4 / 6), pytest.approx(4 / 6), 6),
        (3 / 5, 3 / 5, 5),
    ]
    expected = binomtest(3, 5).proportion_ci(0.95, method="wilson")
    assert result.per_class[1].recall_interval == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert [(m.path.name, m.label, m.answer) for m in result.mistakes[:2]] == [("9.jpg", "dog", "cat"), ("5.jpg", "cat", "dog")]


def test_a_share_of_too_few_is_not_told() -> None:
    """Four of b, one of them seen; a is never answered: neither its precision nor the recall of b can be told."""
    logits = np.array([[0, 1, 0]] * 6 + [[0, 1, 0]] + [[0, 0, 1]] * 3, np.float32)
    result = judge(logits, np.array([0] * 6 + [1] * 4), [Path(f"{i}") for i in range(10)], ("a", "b", "c"))
    a, b, c = result.per_class
    assert (a.precision, a.recall, a.images) == (None, 0.0, 6)
    assert (b.precision, b.recall, b.images) == (1 / 7, None, 4)
    assert (c.precision, c.recall, c.images, c.recall_interval) == (None, None, 0, (0.0, 1.0))
    assert b.recall_interval == pytest.approx(wilson(1, 4))


def test_no_images_at_all() -> None:
    result = judge(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), [], ("x", "y"))
    assert result.majority == 0 and of_answers(result) == ()


def of_counts(confusion: list[list[int]]) -> Evaluation:
    """The evaluation of these answers; a row a true class, of 3."""
    pairs = [(true, said) for true, row in enumerate(confusion) for said, count in enumerate(row) for _ in range(count)]
    logits = np.eye(3, dtype=np.float32)[[said for _, said in pairs]]
    return judge(logits, np.array([true for true, _ in pairs]), [Path("x")] * len(pairs), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        ([[20, 4, 0], [5, 4, 0], [1, 0, 0]], "70.6%, is not better than always answering 'a' (70.6%)"),
        ([[19, 4, 1], [6, 3, 0], [1, 0, 0]], "64.7%, is not better than always answering 'a' (70.6%)"),
        ([[21, 3, 0], [3, 6, 0], [1, 0, 0]], "79.4%, is not surely better than always answering 'a' (70.6%)"),
        ([[24, 0, 0], [0, 9, 0], [1, 0, 0]], ""),
        ([[24, 0, 0], [9, 0, 0], [1, 0, 0]], "answers 'a' for every photograph of the test part"),
        ([[0, 0, 9], [0, 0, 9], [0, 0, 9]], "answers 'c' for every photograph"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 0]], "100.0%, is not surely better than always answering 'a' (50.0%)"),
        ([[9, 0, 0], [0, 0, 0], [0, 0, 0]], ""),
    ],
)
def test_answers_that_are_worth_little(confusion: list[list[int]], said: str) -> None:
    found = of_answers(of_counts(confusion))
    assert len(found) == bool(said) and said in "".join(found)


def test_tiny_and_uneven_classes() -> None:
    test = of_counts([[24, 0, 0], [0, 9, 0], [1, 0, 0]])
    tiny, uneven = of_classes(test, {"a": 72, "b": 27, "c": 4}, balanced=False)
    assert "fewer than 5 test photographs of 'c'" in tiny and "--classes a,b" in tiny
    assert "72 photographs of 'a' to learn from and 4 of 'c'" in uneven and "--balanced" in uneven
    assert len(of_classes(test, {"a": 72, "b": 27, "c": 4}, balanced=True)) == 1
    assert of_classes(of_counts([[5, 0, 0], [0, 5, 0], [0, 0, 5]]), {"a": 15, "b": 15, "c": 15}, balanced=False) == ()
    (all_tiny,) = of_classes(of_counts([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), {"a": 3, "b": 3, "c": 3}, balanced=False)
    assert "'a', 'b', 'c'" in all_tiny and "--classes" not in all_tiny


def test_one_answer_for_everything() -> None:
    same = np.array([[0, 2, 1], [0, 9, 8], [1, 5, 0]], np.float32)
    assert one_answer(same, ("a", "b", "c")) == "b"
    assert one_answer(same[:, ::-1].copy(), ("a", "b", "c")) == "b"
    assert one_answer(np.eye(3, dtype=np.float32), ("a", "b", "c")) is None
    assert one_answer(same[:1], ("a", "b", "c")) is None and one_answer(same[:0], ("a", "b", "c")) is None
    assert one_answer(same[:, :1], ("a",)) is None


def test_differences_between_logits() -> None:
    a = np.array([[10, 0], [0, 1]], np.float32)
    b = np.array([[10, 0.1], [2, 1]], np.float32)
    result = agreement(a, b)
    assert result.agreement == 0.5 and result.max_logit_difference == 2
    assert result.rms_logit_difference == pytest.approx(np.sqrt((0.1**2 + 2**2) / 4))
    assert result.max_relative_difference == pytest.approx(2 / 5.5)  # the images' largest logits are 10 and 1
