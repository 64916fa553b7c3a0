"""README.md and docs/figures.md: how long, that every figure says where it is from, that pictures are there and ask nobody."""

import io
import re
import runpy
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from rich.console import Console
from rich.progress import track
from rich.text import Text

from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
FIGURES = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
SECTIONS = re.split(r"(?m)^## ", FIGURES)[1:]
TERMINAL = ROOT / "docs" / "terminal.svg"


def test_the_readme_is_short_and_its_figures_stand_elsewhere() -> None:
    assert len(README.splitlines()) <= 150 and "docs/figures.md" in README
    assert not re.search(r"\d ms\b", README)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.splitlines()[0])
def test_every_figure_says_what_printed_it_and_where(section: str) -> None:
    before = section.split("\n|")[0]
    scripts = re.findall(r"benchmarks/\w+\.py", section)
    assert scripts or re.search(r"`(make|nestling) demo`", section)
    assert all((ROOT / script).is_file() for script in scripts)
    assert re.search(r"\b(Intel|AMD|QEMU)\b", before)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_pictures_and_pages_that_are_linked_are_there(page: str) -> None:
    """Files of this repository; of a page's own sections mkdocs judges."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert link.startswith("https://") or ((ROOT / page).parent / link).exists(), link


def test_the_recorded_terminal_is_the_scripts_small_and_asks_nobody() -> None:
    svg = TERMINAL.read_text(encoding="utf-8")
    assert TERMINAL.stat().st_size < 100_000
    letters = "".join(ElementTree.fromstring(svg).itertext()).replace("\xa0", " ")
    script = runpy.run_path(str(ROOT / "scripts" / "record_terminal.py"))
    assert all(command in letters for command in script["COMMANDS"]) and len(script["COMMANDS"]) == 3
    assert [link for link in re.findall(r"https?://[^\s\"']+", svg) if link != "http://www.w3.org/2000/svg"] == []
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", svg) and "@import" not in svg


def test_what_a_bar_wiped_is_not_recorded() -> None:
    """rich draws a bar over and over, and wipes it: what stands before and after stays, with its colours."""
    read: Callable[[str], str] = runpy.run_path(str(ROOT / "scripts" / "record_terminal.py"))["read_as_a_terminal"]
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=60, color_system="standard", legacy_windows=False)
    console.print("before")
    for step in track(range(5), "working", console=console, transient=True, refresh_per_second=1000):
        if step == 3:
            console.print("[red]meanwhile[/red]")
    console.print("after")
    assert "working" in out.getvalue()
    shown = Text.from_ansi(read(out.getvalue().replace("\n", "\r\n")))
    assert shown.plain.split() == ["before", "meanwhile", "after"] and any("color(1)" in str(span.style) for span in shown.spans)
