"""How a table is laid out in the columns that a terminal has: no name, interval or number is broken over lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rich.box import Box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

Rows = Sequence[Sequence[str]]
# A rule under the headings and nothing else: what a narrow terminal gets in the place of rich's heavy box.
LIGHT = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)


def pieces(headings: Sequence[str], rows: Rows, width: int) -> tuple[Table, ...]:
    """The table at most `width` wide, headings broken at words. Columns that have no room go on in tables below.

    Each of them begins with the first columns, as many as tell the rows apart. () where a name leaves no room: see records().
    """
    narrowest = [
        max(cell_len(text) for text in (*heading.split(), "", *(row[i] for row in rows))) for i, heading in enumerate(headings)
    ]
    if _boxed(narrowest) <= width:
        return (_table(range(len(headings)), narrowest, headings, rows, width, _boxed),)
    keys = [*range(_telling(rows, len(headings)))]
    parts = [keys]
    for i in range(len(keys), len(headings)):
        part = [*parts[-1], i]
        if _light([narrowest[c] for c in part]) <= width:
            parts[-1] = part
        else:
            parts.append([*keys, i])
    if any(_light([narrowest[c] for c in part]) > width for part in parts):
        return ()
    return tuple(_table(part, narrowest, headings, rows, width, _light) for part in parts if part != keys or len(parts) == 1)


def records(headings: Sequence[str], rows: Rows, width: int) -> tuple[str, ...]:
    """The same as lines: each row its first cell, then a line a heading. A list longer than a line is broken at its commas."""
    label = max(map(cell_len, headings[1:]), default=0)
    lines: list[str] = []
    for row in rows:
        lines.append(row[0])
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            for i, part in enumerate(_broken(cell, width - label - 4) if cell else ()):
                lines.append(f"  {'' if i else heading}{' ' * (label + 2 - (0 if i else cell_len(heading)))}{part}")
    return tuple(lines)


def _telling(rows: Rows, columns: int) -> int:
    """How many of the first columns tell the rows apart; 1 where none do."""
    return next((n for n in range(1, columns) if len({tuple(row[:n]) for row in rows}) == len(rows)), 1)


def _boxed(widths: Sequence[int]) -> int:
    """Columns of a terminal that these columns of a table take in a box."""
    return 1 + sum(width + 3 for width in widths)


def _light(widths: Sequence[int]) -> int:
    """Likewise with two spaces between them."""
    return sum(width + 2 for width in widths) - 2


def _table(
    columns: Sequence[int],
    narrowest: Sequence[int],
    headings: Sequence[str],
    rows: Rows,
    width: int,
    total: Callable[[list[int]], int],
) -> Table:
    """One table; a heading stays on one line where there is room left for it. total: _boxed or _light."""
    widths = [narrowest[i] for i in columns]
    for place, i in enumerate(columns):
        wider = [*widths[:place], max(widths[place], cell_len(headings[i])), *widths[place + 1 :]]
        widths = wider if total(wider) <= width else widths
    made = Table() if total is _boxed else Table(box=LIGHT, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, room in zip(columns, widths, strict=True):
        made.add_column(Text(headings[i]), justify="left" if i == 0 else "right", width=room, vertical="bottom")
    for row in rows:
        made.add_row(*(Text(row[i], no_wrap=True) for i in columns))
    return made


def _broken(text: str, room: int) -> list[str]:
    lines = [""]
    for part in re.split(r"(?<=, )", text):
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > room:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]
