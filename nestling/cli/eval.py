"""nestling eval."""

from pathlib import Path
from typing import Annotated

from nestling.cli import options, show


def command(
    model: Annotated[Path, options.network("A bundle or an exported file.")],
    data: Annotated[Path, options.photographs("Folder with a folder for each class.")],
    trust: options.Trust = False,
    json: options.Json = False,
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
