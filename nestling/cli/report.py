"""nestling report."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show


def command(
    folder: Annotated[Path, typer.Argument(help="The folder of an export, with its manifest.json.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    data: Annotated[Path | None, typer.Option(help="The photographs it learned from.", show_default="where they were")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show everything that was exported on one page: right answers, size, time, layers, mistakes. Open it in any browser.

    Example:  nestling report out/ -o report.html
    """
    from dataclasses import asdict

    from nestling.report.gather import report

    page = report(folder, output, data, show.bars)
    if json:
        show.as_json({"page": str(output), "artifacts": [asdict(row) for row in page.rows]})
        return
    show.networks(page.rows)
    show.out().print(f"written to {output}: open it in a browser")
