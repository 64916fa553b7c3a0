"""nestling export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to print.")],
    to: Annotated[str, typer.Option(help="Formats: pte (ExecuTorch), tflite (LiteRT), or both: pte,tflite.")] = "pte",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, dynamic, int8, or several; a format prints those it has.")
    ] = "fp32,int8",
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files and their manifest.json.")] = Path("out"),
    data: Annotated[Path | None, typer.Option(help="The photographs it learned from.", show_default="where they were")] = None,
    features: Annotated[bool, typer.Option("--features", help="The embedding as a second output.")] = False,
    int8_head: Annotated[bool, typer.Option("--int8-head", help="int8: the head in integers, too (it can't learn then).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Keep a file that fails its gate.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Print a bundle for a target, and check each file against the network that it was printed from.

    Example:  nestling export parts.nest --to pte,tflite --precision int8 -o out/
    """
    from nestling import bundle as bundles
    from nestling.targets.export import FORMATS, INTEGERS, PRECISIONS, PRINTERS, ExportConfig, export, quantized_first

    forms, precisions = _listed("--to", to, FORMATS), _listed("--precision", precision, PRECISIONS)
    wanted = [(form, kind) for form in forms for kind in precisions if (form, kind) in PRINTERS]
    if not wanted:
        raise typer.BadParameter(f"no format of {to} is printed in {precision}")
    loaded, config = bundles.load(bundle), ExportConfig(features, int8_head, force)
    integers = loaded
    if any(kind == INTEGERS for _, kind in wanted):
        integers = quantized_first(loaded, output / f"{bundle.stem}-int8.nest", data, show.bars)
    made = [
        export(integers if kind == INTEGERS else loaded, output, bundle.stem, form, kind, data, config, show.bars)
        for form, kind in wanted
    ]
    if json:
        keys = ("file", "format", "precision", "bytes", "agreement", "noise_ratio")
        show.as_json({"artifacts": [{key: getattr(artifact, key) for key in keys} for artifact in made]})
        return
    rows = [
        [
            a.file,
            show.size(a.bytes),
            show.share(a.agreement),
            f"{a.max_relative_difference:.1e}",
            "" if a.noise_ratio is None else f"{a.noise_ratio:.2f}",
            "" if a.delegated is None else show.share(a.delegated),
        ]
        for a in made
    ]
    images = f"compared with the network each was printed from, on {made[0].images} validation photographs"
    headings = ["file", "size", "agreement", "largest relative logit difference", "noise ratio", "operations in XNNPACK"]
    show.table(headings, rows, images)
    show.out().print(f"written to {output}\nnext:  nestling predict {show.path_hint(output / made[-1].file)} PHOTO.jpg")


def _listed(option: str, text: str, known: Sequence[str]) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in known]:
        raise typer.BadParameter(f"{option} is one or more of {', '.join(known)}; found {unknown[0]!r}")
    return words
