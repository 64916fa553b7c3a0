"""nestling trace."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show
from nestling.errors import WrongOption

LISTED = 20  # differing layers in the table; --json has all


def command(
    bundle: Annotated[Path, options.bundle("The quantised bundle.")],
    image: Annotated[Path | None, typer.Argument(help="An image file; none where the network takes no photographs.")] = None,
    output: Annotated[Path | None, options.new_folder("Folder for one .npy a layer and index.json.")] = None,
    against: Annotated[Path | None, options.file("A .tflite file or folder of C to compare with, layer by layer.")] = None,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Write down what every layer answers to one image, or find the first layer where another file answers otherwise.

    A folder of C for another machine is built for that and runs in QEMU.

    Example:  nestling trace my8.nest photo.jpg -o trace/ --against out/my-int8.tflite
    """
    from nestling import bundle as bundles
    from nestling.errors import UnusableFile
    from nestling.measure import trace as tracing

    if output is None and against is None:
        raise WrongOption("name a folder to write to (-o trace/), a file to compare with (--against FILE.tflite), or both.")
    layers = tracing.trace(bundles.load(bundle), image)
    if output is not None:
        tracing.write(layers, output)
    result: dict[str, object] = {"layers": len(layers), "folder": str(output) if output else None}
    comparison = None
    if against is not None:
        try:
            folder = against.is_dir()
            comparison = tracing.against_c(layers, against, trust) if folder else tracing.against_file(layers, against)
        except OSError as error:
            raise UnusableFile(f"{against} cannot be read: {error.strerror}.") from error
        result |= tracing.plain(comparison)
    where = f" on {comparison.machine}" if comparison is not None and comparison.machine else ""
    if json:
        show.as_json(result)
    else:
        if output is not None:
            show.tell(f"{len(layers)} layers written to {output}")
        if comparison is not None and comparison.differing:
            rows = [
                [d.layer, d.op, show.share(d.share), "other shape" if d.largest is None else f"{d.largest:.6g}"]
                for d in comparison.differing[:LISTED]
            ]
            title = f"{len(comparison.differing)} of {len(comparison.compared)} layers differ{where}, the first one first"
            show.table(["layer", "op", "values that differ", "largest difference"], rows, title)
        elif comparison is not None:
            show.tell(f"{len(comparison.compared)} layers compared{where}: no difference")
    if comparison is not None and comparison.differing:
        raise typer.Exit(1)
