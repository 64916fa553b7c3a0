"""nestling eval."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show
from nestling.cli.options import Trust


def command(
    model: Annotated[Path, typer.Argument(help="A bundle or an exported file.")],
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each class.")],
    trust: Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say how good a network is: top-1 with a 95% interval, each class, confusions, the most confident mistakes.

    On the folder that it learned from, the test part alone is used. Example:  nestling eval out/parts-int8.pte photos
    """
    from nestling.measure.answers import evaluate

    result = evaluate(model, data, show.bars, trust)
    show.left_out(result.left_out)
    show.say(*result.notes, f"judged on {result.said}")
    show.doubted(result.evaluation, "these photographs")
    if json:
        show.as_json(show.evaluation_plain(result.evaluation) | {"said": result.said})
        return
    show.evaluation_tables(result.evaluation)
    show.tell(f"top-1  {show.top1_beside(result.evaluation)}  on {result.evaluation.images} images")
