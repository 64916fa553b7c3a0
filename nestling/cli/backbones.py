"""nestling backbones."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli import show

if TYPE_CHECKING:
    from nestling.models.known import Row
    from nestling.models.lacking import Lacking
    from nestling.models.packages import Package


def command(
    names: Annotated[list[str] | None, typer.Argument(help="timm names; the recommended ones where none is given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list on stdout.")] = False,
) -> None:
    """List backbones: parameters, MACs for one image, input size, embedding width, whether weights are at hand, and the formats
    that they can be printed in.

    Any image network of timm's can be named, here and in `fit --backbone`; one that is not listed is built and traced.
    """
    from nestling.models.timm_names import require_somewhere

    for name in names or ():
        require_somewhere(name)
    from nestling import extras
    from nestling.models import recorded
    from nestling.models.known import RECOMMENDED, created, described
    from nestling.models.lacking import lacking
    from nestling.models.packages import package_of

    rows: list[tuple[Row, Lacking | None]] = []
    if not extras.has("train"):
        there = [name for name in recorded.names() if recorded.recorded(name)]
        if unknown := [name for name in names or () if name not in there]:
            extras.require("train", f"describing {unknown[0]}")
        rows = [(described(name), None) for name in names or there]
        show.say(f"these need no torch; for all of timm's:  {extras.hint('train')}")
    else:
        from nestling.models.backbones import describe

        chosen = names or list(RECOMMENDED)
        with show.bars("measuring", len(chosen)) as advance:
            for name in chosen:
                rows.append((describe(name), None if name in RECOMMENDED else lacking(created(name, "none"))))
                advance(1)
    packages = {row.name: package for row, _ in rows if (package := package_of(row.name)) is not None}
    if json:
        plain = [
            asdict(row)
            | {"size": [row.size] * 2, "formats": lost.remains if lost else "all", "lacking": lost.what if lost else None}
            | {"weights_package": _told(packages.get(row.name))}
            for row, lost in rows
        ]
        show.as_json(plain)
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
    alike: dict[tuple[str, str], list[str]] = {}
    for package in packages.values():
        alike.setdefault((package.origin, package.licence), []).append(package.distribution)
    for (origin, licence), names_of in alike.items():
        show.tell(f"weights of {', '.join(names_of)}: {origin}", f"their licence: {licence}")


def _told(package: "Package | None") -> dict[str, str] | None:
    """Where weights that come as a package are from, and under which licence, as --json prints it."""
    return {"name": package.distribution, "origin": package.origin, "licence": package.licence} if package else None
