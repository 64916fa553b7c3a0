"""nestling backbones."""

from dataclasses import asdict
from typing import Annotated

import typer

from nestling.cli import show


def command(
    names: Annotated[list[str] | None, typer.Argument(help="timm names; the recommended ones where none is given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """List backbones: parameters, MACs for one image, input size, embedding width, and whether weights are at hand.

    Any image network of timm's can be named, here and in `fit --backbone`.
    """
    from nestling.models.backbones import RECOMMENDED, describe

    chosen = names or list(RECOMMENDED)
    with show.bars("measuring", len(chosen)) as advance:
        rows = []
        for name in chosen:
            rows.append(describe(name))
            advance(1)
    if json:
        show.as_json([asdict(row) for row in rows])
        return
    show.table(
        ["name", "parameters", "MACs", "size", "embedding", "weights at hand"],
        [
            [
                row.name,
                f"{row.parameters / 1e6:.2f} M",
                f"{row.macs / 1e6:.0f} M",
                str(row.size),
                str(row.width),
                ", ".join(row.weights) or "hub only",
            ]
            for row in rows
        ],
    )
