"""nestling agree."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from nestling.cli import options, show


def command(
    a: Annotated[Path, options.network("A bundle or an exported file: the one to be equalled.")],
    b: Annotated[Path, options.network("Another one.")],
    data: Annotated[Path, options.photographs("Folder with a folder for each class.")],
    trust: options.Trust = False,
    json: options.Json = False,
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
