"""nestling predict."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show


def command(
    model: Annotated[Path, options.network("A bundle or an exported file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    trust: options.Trust = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """Say what each image shows. An exported file needs nothing else: labels and preprocessing are inside.

    Example:  nestling predict out/parts-int8.pte photo.jpg
    """
    from nestling.measure.answers import predict

    found = predict(model, images, trust=trust, told=show.say)
    if json:
        rows = [
            {"image": p.image, "label": p.label, "probability": p.probability, "top": [list(pair) for pair in p.top]} for p in found
        ]
        show.as_json(rows)
        return
    others = [", ".join(f"{label} {show.share(value)}" for label, value in p.top[1:]) for p in found]
    show.table(
        ["image", "label", "probability", "next"],
        [[p.image, p.label, show.share(p.probability), rest] for p, rest in zip(found, others, strict=True)],
    )
