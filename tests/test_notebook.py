"""docs/notebook.ipynb does what it shows; in a notebook there are bars."""

import ast
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from nestling import progress
from tests import ROOT

NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
RUN = """
import ast, json, sys
space, shown = {}, []
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), space)
        shown.append(repr(eval(compile(ast.Expression(last.value), "cell", "eval"), space)) if last else "")
print(json.dumps(shown))
"""


def test_its_cells_run_and_show_short_words(tmp_path: Path) -> None:
    """As a kernel does: cell by cell in one space, the last value of each is shown."""
    path = str(ROOT / "docs" / "notebook.ipynb")
    done = subprocess.run([sys.executable, "-c", RUN, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    _, fitted, told, first, labels, files, agreement, kept = shown
    assert fitted.startswith("Fitted(bundle=Bundle(") and max(map(len, shown)) < 700
    assert ast.literal_eval(told)[1]["test"] == 8 and "label='ripe'" in first and labels == "['unripe', 'ripe']"
    (float_file, float_bytes, _), (int8_file, int8_bytes, _) = ast.literal_eval(files)
    assert (float_file, int8_file) == ("network-fp32.tflite", "network-int8.tflite") and int8_bytes < 0.35 * float_bytes
    assert agreement.startswith("Agreement(agreement=") and "labels=(ripe, unripe)" in kept
    assert (tmp_path / "my8.nest").is_file()


def test_it_is_kept_without_outputs() -> None:
    """What it shows hangs on the machine."""
    assert all(cell["outputs"] == [] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")


class Shell:
    """IPython's, with a kernel behind it or without."""

    def __init__(self, kernel: object) -> None:
        self.kernel = kernel


@pytest.mark.parametrize(("shell", "expected"), [(None, progress.silent), (Shell(None), progress.silent)])
def test_elsewhere_there_are_no_bars(shell: object, expected: object, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: shell  # type: ignore[attr-defined]  # as IPython has it
    monkeypatch.setitem(sys.modules, "IPython", module)
    assert progress.usual() is expected


def test_in_a_notebook_there_are_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    ipython, shown = types.ModuleType("IPython"), types.ModuleType("IPython.display")

    class Handle:
        def update(self, what: str) -> None:
            drawn.append(what)

    def display(what: str, display_id: bool) -> Handle:
        drawn.append(what)
        return Handle()

    attributes: dict[str, Any] = {"HTML": str, "display": display}
    vars(shown).update(attributes)
    vars(ipython).update(get_ipython=lambda: Shell(object()), display=shown)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    with progress.usual()("embedding <b>", 3) as advance:
        for _ in range(3):
            now += 1
            advance(1)
    assert [line.split("</progress> ")[-1] for line in drawn[:-1]] == [f"embedding &lt;b&gt; {n} of 3" for n in range(4)]
    assert drawn[-1] == ""
