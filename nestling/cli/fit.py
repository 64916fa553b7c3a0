"""nestling fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from nestling.cli import options, show
from nestling.cli.levels import Levels, as_white
from nestling.errors import WrongOption
from nestling.words import Views

if TYPE_CHECKING:
    from nestling.training.fit import Fitted

OF_BUNDLE = ("backbone", "weights", "size", "seed", "mean", "std", "views", "balanced", "levels")  # that --update leaves alone


def command(
    context: typer.Context,
    data: Annotated[
        Path,
        options.photographs(
            "Folder with a folder of photographs for each class (or train/ val/ test/ with such); a .zip of one; "
            "a list, .csv (path,label) or .txt (a path a line)."
        ),
    ],
    output: options.NewBundle = Path("my.nest"),
    update: Annotated[
        Path | None,
        options.file("A fitted bundle: photographs came later, its head is learned on all; old ones keep their part."),
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="A timm name (`nestling backbones` lists good ones), or a bundle, NAME.nest.")
    ] = "tf_efficientnet_lite0",
    weights: Annotated[
        str | None, typer.Option(help="package, hub, none, or a .safetensors, .pth, .ckpt.", show_default="package if there is one")
    ] = None,
    size: Annotated[str | None, typer.Option(help=options.SIZE, show_default="the backbone's")] = None,
    seed: Annotated[int, options.seed("Of the division into train, val and test.")] = 0,
    mean: Annotated[
        str | None, typer.Option(help="Normalisation: a number, or one a channel, for 0..1.", show_default="the backbone's")
    ] = None,
    std: Annotated[str | None, typer.Option(help=options.STD, show_default="the backbone's")] = None,
    views: Annotated[
        Views, options.one_of("--views", get_args(Views), "Learn from photographs mirrored left-right, or both ways, too.")
    ] = "none",
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Each class weighs the same, however many photographs it has.")
    ] = False,
    classes: Annotated[str | None, typer.Option(help="Only these classes, separated by commas.")] = None,
    parts: Annotated[
        bool | None,
        typer.Option("--parts/--no-parts", help="Folders called train, val, test: parts, or classes.", show_default="told"),
    ] = None,
    levels: Levels = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="A file that cannot be used is an error.")] = False,
    json: options.Json = False,
) -> None:
    """Teach a network your own classes: its backbone stays as it is, a new head is learned on what it sees.

    Example:  nestling fit photos -o parts.nest

    More photographs came:  nestling fit photos --update parts.nest -o more.nest
    """
    from nestling.bundle import save

    chosen = tuple(name.strip() for name in classes.split(",")) if classes is not None else None
    if update is not None:
        from nestling.training.update import UpdateConfig
        from nestling.training.update import update as updated

        _require_none(context)
        fitted = updated(update, data, UpdateConfig(chosen, parts, strict), show.bars)
    else:
        from nestling.models.timm_names import require_somewhere

        if not backbone.endswith(".nest"):
            require_somewhere(backbone)
        from nestling.training.fit import FitConfig, fit

        sides, normal = options.sides(size), (options.numbers(mean, "--mean"), options.numbers(std, "--std"))
        config = FitConfig(backbone, weights, sides, seed, views, balanced, chosen, parts, strict, as_white(levels), *normal)
        fitted = fit(data, config=config, progress=show.bars)
    save(fitted.bundle, output)
    _show(fitted, output, json)


def _require_none(context: typer.Context) -> None:
    """That nothing was asked for which the bundle says itself."""
    asked = [name for name in OF_BUNDLE if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"]
    if asked:
        raise WrongOption(f"--update keeps what the bundle was fitted with; leave out --{asked[0]}.")


def _show(fitted: Fitted, output: Path, json: bool) -> None:
    from nestling.cli.training import next_line, to_type

    show.left_out(fitted.left_out)
    show.copies(fitted.copies)
    show.say(*fitted.said)
    show.warnings(fitted.doubts)
    if json:
        result = {"bundle": str(output), "images": fitted.images, "top1": fitted.test.top1, "interval": fitted.test.interval}
        found = {
            "one_answer": fitted.one_answer,
            "warnings": [*([str(fitted.lacking)] if fitted.lacking else []), *fitted.doubts],
            "copies": [list(map(str, s)) for s in fitted.copies],
        }
        show.as_json(result | show.majority_plain(fitted.test) | found | {"seconds": fitted.seconds})
        return
    show.evaluation_tables(fitted.test)
    counts = ", ".join(f"{count} {part.replace('_', ' ')}" for part, count in fitted.images.items())
    show.tell(
        f"images      {counts}", f"test top-1  {show.top1_beside(fitted.test)}", f"seconds     {show.seconds(fitted.seconds)}"
    )
    show.tell(f"written     {output}")
    next_line(to_type(output, fitted.lacking))
