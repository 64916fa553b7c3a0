"""nestling data."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from nestling.cli import options, show
from nestling.cli.levels import Levels, as_white
from nestling.words import SavedAs

app = typer.Typer(invoke_without_command=True)


@app.callback()
def group(context: typer.Context) -> None:
    """Data sets: what comes in other shapes than a folder for each class."""
    if context.invoked_subcommand is None:
        show.tell(*context.get_help().split("\n"))


@app.command("prepare")
def prepare_command(
    source: Annotated[Path, options.photographs("A folder of images; without --list, with a folder for each class.")],
    output: Annotated[Path, options.new_folder("The folder of class folders to write.")],
    listed: Annotated[Path | None, options.file("Lines `path label`; label: a name or a number.", "--list")] = None,
    names: Annotated[Path | None, options.file("Lines `name number`, for labels that are numbers.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes, separated by commas.")] = None,
    form: Annotated[SavedAs, options.one_of("--format", get_args(SavedAs), "What to write; net_runner reads bmp.")] = "jpg",
    size: Annotated[int | None, typer.Option(help="Side in pixels.", show_default="the largest square of each")] = None,
    strip: Annotated[int, typer.Option(min=0, help="Leading parts to take off the list's paths, as `patch -p` does.")] = 0,
    least: Annotated[int, typer.Option(min=1, help="An image with a side of fewer pixels is tiny.")] = 32,
    parts: Annotated[
        bool | None,
        typer.Option("--parts/--no-parts", help="Folders called train, val, test: parts, or classes.", show_default="told"),
    ] = None,
    tiny: Annotated[str, options.one_of("--tiny", ("leave-out", "keep"), "What becomes of tiny images.")] = "leave-out",
    levels: Levels = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run made in the folder.")] = False,
    json: options.Json = False,
) -> None:
    """Make class folders from a folder of images and a list of labels: square, upright, sRGB of 8 bits; broken ones are named.

    Example:  nestling data prepare val_256 --list places365_val.txt --names categories_places365.txt --classes attic,lawn -o out
    """
    from nestling.data.prepare import PrepareConfig, prepare

    wanted = tuple(name.strip() for name in classes.split(",")) if classes else None
    config = PrepareConfig(form, size, wanted, strip, least, tiny == "keep", parts, force, as_white(levels))
    made = prepare(source, output, listed, names, config, show.bars)
    show.say(*made.said)
    if json:
        counts = [asdict(count) for count in made.counts]
        kept_and_not = {
            name: [{"path": str(entry.path), "reason": entry.reason} for entry in entries]
            for name, entries in (("left_out", made.left_out), ("kept_tiny", made.kept_tiny))
        }
        show.as_json({"folder": str(made.folder), "written": made.written, "classes": counts} | kept_and_not)
        return
    show.left_out(made.left_out)
    for entry in made.kept_tiny:
        show.say(f"{entry.path}: {entry.reason}")
    headings = ["class", "images", "written", "of these grey", "missing", "broken", "tiny", "in two classes"]
    rows = [
        [c.folder, *map(str, (c.listed, c.written, c.grey, c.missing, c.broken, c.tiny, c.in_two_classes))] for c in made.counts
    ]
    show.table(headings, rows, f"{made.written} images in {made.folder}")
    show.tell(f"next:  nestling fit {show.path_hint(output)} -o my.nest")
