"""How a verb tells how far it is: a function that opens a bar. The command line has its own; in a notebook there is one, too."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape
from time import monotonic

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""progress(what, total) opens a bar and gives the function that advances it."""
PAUSE = 0.1  # seconds between two drawings of a notebook's bar


@contextmanager
def silent(what: str, total: int) -> Iterator[Advance]:
    """No bar."""
    yield lambda _steps: None


def usual() -> Progress:
    """Bars where this is a notebook, none in a script."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return in_notebook if getattr(shell, "kernel", None) is not None else silent


@contextmanager
def in_notebook(what: str, total: int) -> Iterator[Advance]:
    """A bar below the cell, which goes when the work is done."""
    from IPython.display import HTML, display

    def bar(done: int) -> object:
        return HTML(f"<progress value='{done}' max='{max(total, 1)}'></progress> {escape(what)} {done} of {total}")

    drawn = display(bar(0), display_id=True)
    done, last = 0, monotonic()

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if monotonic() - last >= PAUSE:
            last = monotonic()
            drawn.update(bar(done))

    try:
        yield advance
    finally:
        drawn.update(HTML(""))
