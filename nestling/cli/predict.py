"""nestling predict."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show


def command(
    model: Annotated[Path, options.network("A bundle or an exported file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of such.")],
    top: Annotated[int, typer.Option(min=1, help="How many labels of each, the most probable first.")] = 3,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Say what each image shows. An exported file needs nothing else: labels and preprocessing are inside.

    What cannot be read is named, and the others are answered; the status is 1 then.

    Example:  nestling predict out/parts-int8.pte photo.jpg more-photos/
    """
    from nestling.measure.answers import predict

    predicted = predict(model, images, top, trust, show.say)
    if json:
        show.as_json(
            [
                {"image": p.image, "label": p.label, "probability": p.probability, "top": [list(pair) for pair in p.top]}
                for p in predicted.found
            ]
        )
    elif predicted.found:
        others = [", ".join(f"{label} {show.share(value)}" for label, value in p.top[1:]) for p in predicted.found]
        rows = [[p.image, p.label, show.share(p.probability), rest] for p, rest in zip(predicted.found, others, strict=True)]
        shown = 4 if any(others) else 3
        show.table(["image", "label", "probability", "next"][:shown], [row[:shown] for row in rows])
    for bad in predicted.left_out:
        show.say(f"error: {bad.path} cannot be used: {bad.reason}.")
    if not predicted.found and not predicted.left_out:
        show.say("error: there is no image in " + ", ".join(str(path) for path in images))
    if predicted.left_out or not predicted.found:
        raise typer.Exit(1)
