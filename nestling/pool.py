"""Work on many things at once, answers in order: a worker a core, each with something of its own that is not for two threads."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from nestling.processor import cores

A = TypeVar("A")
B = TypeVar("B")


def in_order(make: Callable[[], Callable[[A], B]], items: Iterable[A]) -> Iterator[B]:
    """What a worker's own make() answers to each item, in the order of the items; it looks a few of them ahead."""
    workers = cores()
    free: queue.SimpleQueue[Callable[[A], B]] = queue.SimpleQueue()
    for _ in range(workers):
        free.put(make())

    def one(item: A) -> B:
        ask = free.get()
        try:
            return ask(item)
        finally:
            free.put(ask)

    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="nestling") as pool:
        for item in items:
            pending.append(pool.submit(one, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
