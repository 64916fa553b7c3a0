"""nestling export."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from nestling.cli import show


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to print.")],
    to: Annotated[str, typer.Option(help="The format: pte (ExecuTorch).")] = "pte",
    precision: Annotated[str, typer.Option(help="fp32, int8, or both: fp32,int8.")] = "fp32,int8",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files and their manifest.json.")] = Path("out"),
    data: Annotated[Path | None, typer.Option(help="The photographs it learned from.", show_default="where they were")] = None,
    force: Annotated[bool, typer.Option("--force", help="Keep a file that fails its gate.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print a bundle for a target, and check each file against the network that it was printed from.

    Example:  nestling export parts.nest --to pte --precision int8 -o out/
    """
    from nestling import bundle as bundles
    from nestling.targets.export import Precision, export

    if to != "pte":
        raise typer.BadParameter(f"--to is pte so far; found {to!r}")
    wanted = [part.strip() for part in precision.split(",")]
    if unknown := [part for part in wanted if part not in get_args(Precision)]:
        raise typer.BadParameter(f"--precision is one of {', '.join(get_args(Precision))}; found {unknown[0]!r}")
    loaded = bundles.load(bundle)
    made = [export(loaded, output, bundle.stem, part, data, force, show.bars) for part in get_args(Precision) if part in wanted]
    if json:
        keys = ("file", "format", "precision", "bytes", "agreement", "noise_ratio")
        show.as_json({"artifacts": [{key: getattr(artifact, key) for key in keys} for artifact in made]})
        return
    rows = [
        [a.file, show.size(a.bytes), show.share(a.agreement), f"{a.max_relative_difference:.1e}", show.share(a.delegated)]
        for a in made
    ]
    images = f"agreement with the float network on {made[0].images} validation photographs"
    show.table(["file", "size", "agreement", "largest relative logit difference", "operations in XNNPACK"], rows, images)
    show.out().print(f"written to {output}\nnext:  nestling predict {show.path_hint(output / made[-1].file)} PHOTO.jpg")
