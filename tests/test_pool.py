"""Work on all cores: answers in order, errors where they happened, and no more work than somebody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling import pool
from nestling.pool import in_order
from tests.helpers.strategies import QUICK


def with_cores(patch: pytest.MonkeyPatch, count: int) -> None:
    patch.setattr(pool, "cores", lambda: count)


@QUICK
@given(items=st.lists(st.integers(0, 9), max_size=40), workers=st.integers(1, 5))
def test_answers_come_in_the_order_of_the_items(items: list[int], workers: int) -> None:
    """Whatever becomes ready first: a worker waits until one behind it is done, where there is one."""
    done = [threading.Event() for _ in items]

    def make() -> Callable[[tuple[int, int]], tuple[int, int]]:
        def ask(item: tuple[int, int]) -> tuple[int, int]:
            place, value = item
            if workers > 1 and place + 1 < len(items) and place % 2 == 0:
                done[place + 1].wait()
            done[place].set()
            return place, value

        return ask

    with pytest.MonkeyPatch.context() as patch:
        with_cores(patch, workers)
        assert list(in_order(make, enumerate(items))) == list(enumerate(items))


def test_what_a_worker_has_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are cores, none asked by two at once, and all of them asked."""
    with_cores(monkeypatch, 3)
    made: list[threading.Lock] = []
    together = threading.Barrier(3)

    def make() -> Callable[[int], int]:
        mine = threading.Lock()
        made.append(mine)

        def ask(item: int) -> int:
            assert mine.acquire(blocking=False)
            together.wait()  # all three are at work
            mine.release()
            return item

        return ask

    assert list(in_order(make, range(30))) == list(range(30)) and len(made) == 3


@pytest.mark.parametrize("place", [0, 3, 19])
def test_an_error_comes_where_its_answer_would_have(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 2)
    asked: list[int] = []

    def ask(item: int) -> int:
        asked.append(item)
        if item == place:
            raise LookupError(f"of {item}")
        return item

    answers = in_order(lambda: ask, range(1000))
    assert [next(answers) for _ in range(place)] == list(range(place))
    with pytest.raises(LookupError, match=f"of {place}"):
        next(answers)
    assert list(answers) == [] and len(asked) < place + 10


def test_an_error_of_what_gives_the_items_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 2)

    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(in_order(lambda: abs, items()))


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_it_ends_when_nobody_reads_on(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 2)
    threads, asked = threading.active_count(), list[int]()

    def ask(item: int) -> int:
        asked.append(item)
        return item

    answers = in_order(lambda: ask, range(1000))
    assert [next(answers) for _ in range(taken)] == list(range(taken))
    answers.close()  # type: ignore[attr-defined]  # a generator
    assert len(asked) <= taken + 2 * 2 + 1 and threading.active_count() == threads


def test_items_are_asked_for_a_few_ahead_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, 3)
    given: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            given.append(item)
            yield item

    for item in in_order(lambda: abs, items()):
        assert len(given) - item <= 2 * 3 + 1
