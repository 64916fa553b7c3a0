"""nestling agree."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show
from nestling.cli.options import Trust


def command(
    a: Annotated[Path, typer.Argument(help="A bundle or an exported file: the one to be equalled.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each class.")],
    trust: Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say how often two networks give the same answer, and how far their logits are apart.

    Example:  nestling agree parts.nest out/parts-int8.pte photos
    """
    from nestling.measure.answers import agree

    result, chosen = agree(a, b, data, show.bars, trust)
    show.say(f"compared on {chosen.said}")
    if json:
        show.as_json(asdict(result) | {"noise_ratio": None})
        return
    show.table(
        ["", "value"],
        [
            ["same answer", show.share(result.agreement)],
            ["images", str(result.images)],
            ["largest logit difference", f"{result.max_logit_difference:.4g}"],
            ["the same, relative", f"{result.max_relative_difference:.2e}"],
            ["rms logit difference", f"{result.rms_logit_difference:.4g}"],
        ],
    )
