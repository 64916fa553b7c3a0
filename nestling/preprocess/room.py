"""How much may be decoded at once: pictures wait for room, so that eight large ones do not take eight times the memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

ORDINARY = 50_000_000  # bytes of a photograph of 12 megapixels while it is decoded: each thread has room for one
LEAST = 10 * ORDINARY  # what is there at least, whatever the number of threads


class Turn(Protocol):
    """Who may decode when."""

    def taken(self, amount: int) -> AbstractContextManager[None]:
        """Waits until `amount` bytes may be used; they are given back at the end."""
        ...


class Room:
    """Bytes that the threads of one pool share. What needs more than there is waits until it is alone.

    They are served in turn, so a large picture is not overtaken for ever by small ones.
    """

    def __init__(self, workers: int = 1) -> None:
        self._size = self._free = max(LEAST, workers * ORDINARY)
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """See Turn."""
        amount = min(amount, self._size)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


class OneLarge:
    """For processes, which share no room: of what is larger than ordinary one has its turn at a time.

    lock: one that all of them know, as multiprocessing.Lock().
    """

    def __init__(self, lock: AbstractContextManager[bool]) -> None:
        self._lock = lock

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """See Turn."""
        if amount <= ORDINARY:
            yield
            return
        with self._lock:
            yield
