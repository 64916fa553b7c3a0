"""How another Python is started that runs a module of this very nestling."""

from __future__ import annotations

import sys
from pathlib import Path

import nestling

START = "import sys; at = sys.argv.pop(1); at in sys.path or sys.path.insert(0, at); from {0} import main; main()"


def python(module: str) -> list[str]:
    """The beginning of a command line that runs the module's main(), this very nestling's.

    `python -m` would look into the current folder first, where anybody's numpy.py may lie; -P does not.
    """
    return [sys.executable, "-P", "-c", START.format(module), str(Path(nestling.__file__).parents[1])]
