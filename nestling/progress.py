"""How a verb tells how far it is: a function that opens a bar. The command line shows it; a library user may pass `silent`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""progress(what, total) opens a bar and gives the function that advances it."""


@contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:
    """No bar."""
    yield lambda _steps: None
