"""nestling backbones."""

from dataclasses import asdict
from typing import Annotated

import typer

from nestling.cli import show


def command(
    names: Annotated[list[str] | None, typer.Argument(help="timm names; the recommended ones where none is given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """List backbones: parameters, MACs for one image, input size, embedding width, whether weights are at hand, and the formats
    that they can be printed in.

    Any image network of timm's can be named, here and in `fit --backbone`; one that is not listed is built and traced.
    """
    from nestling.bundle import Bundle
    from nestling.models.backbones import create, describe
    from nestling.models.known import RECOMMENDED
    from nestling.models.lacking import lacking

    chosen = names or list(RECOMMENDED)
    with show.bars("measuring", len(chosen)) as advance:
        rows = []
        for name in chosen:
            row = describe(name)
            lost = None
            if name not in RECOMMENDED:
                architecture, arrays, preprocess = create(name, "none")
                lost = lacking(Bundle(architecture, arrays, None, (), preprocess))
            rows.append((row, lost))
            advance(1)
    if json:
        plain = [(asdict(row), lost) for row, lost in rows]
        show.as_json(
            [row | {"formats": lost.remains if lost else "all", "lacking": lost.what if lost else None} for row, lost in plain]
        )
        return
    show.warnings([str(lost) for _, lost in rows if lost])
    show.table(
        ["name", "parameters", "MACs", "size", "embedding", "weights at hand", "formats"],
        [
            [
                row.name,
                f"{row.parameters / 1e6:.2f} M",
                f"{row.macs / 1e6:.0f} M",
                str(row.size),
                str(row.width),
                ", ".join(row.weights) or "hub only",
                lost.remains if lost else "all",
            ]
            for row, lost in rows
        ],
    )
