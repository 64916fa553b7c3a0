"""nestling report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli import options, show
from nestling.errors import WrongOption

if TYPE_CHECKING:
    from nestling.pages.compare.found import Comparison

BUNDLE = ".nest"


def command(
    paths: Annotated[
        list[Path], options.network("The folder of an export; or bundles, to compare them.", metavar="FOLDER | BUNDLES...")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.", callback=options.to_page)] = Path(
        "report.html"
    ),
    data: options.DataOption = None,
    to: Annotated[str, typer.Option(help="Of bundles: formats, as in export.", show_default="tflite, and pte in int8")] = "",
    precision: Annotated[str, typer.Option(help="Of bundles, with --to: as in export.")] = "fp32,int8",
    machine: Annotated[
        str, typer.Option(help="Of bundles: C for cortex-m4, ... (as in plan), its instructions counted.", show_default="none")
    ] = "",
    no_int8: Annotated[bool, typer.Option("--no-int8", help="Of bundles: quantise none that has no integers.")] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Of bundles: a folder for their files, found there again.", show_default="none")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Of bundles: the table as Markdown, too.", show_default="none")] = None,
    picture: Annotated[Path | None, typer.Option(help="Of bundles: the pictures as one .svg, too.", show_default="none")] = None,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Show everything that was exported on one page, or compare bundles: right answers, size, time. Open it in any browser.

    Example:  nestling report out/ -o report.html

    Example:  nestling report my.nest pruned.nest tuned.nest --machine cortex-m4 -o compare.html
    """
    if all(path.suffix == BUNDLE for path in paths):
        if picture is not None and picture.suffix != ".svg":
            raise WrongOption(f"--picture is a file NAME.svg; found {picture}.")
        _compare(paths, output, data, _wanted(to, precision), machine, no_int8, keep, markdown, picture, json)
        return
    if len(paths) > 1:
        raise WrongOption(f"report takes one folder, or bundles ({BUNDLE}); found {paths[0]} and {paths[1]}.")
    _report(paths[0], output, data, trust, json)


def _report(folder: Path, output: Path, data: Path | None, trust: bool, json: bool) -> None:
    from dataclasses import asdict

    from nestling.artifacts import manifest

    manifest.read(folder)  # before anything heavy is imported
    from nestling.pages.gather import report
    from nestling.pages.page import advice_of, following

    page = report(folder, output, data, show.bars, trust=trust)
    advice = advice_of(page)
    if json:
        show.as_json({"page": str(output), "artifacts": [asdict(row) for row in page.rows]} | show.advice_plain(advice))
        return
    show.networks(page.rows, page.against)
    show.advised(advice)
    show.tell(f"written to {output}: open it in a browser", *(f"next:  {command}" for command in following(page, advice)))


def _compare(
    paths: list[Path],
    output: Path,
    data: Path | None,
    wanted: tuple[tuple[str, str], ...],
    machine: str,
    no_int8: bool,
    keep: Path | None,
    markdown: Path | None,
    picture: Path | None,
    json: bool,
) -> None:
    from nestling.files import write_atomically
    from nestling.pages.compare import page as compare_page
    from nestling.pages.compare import words as compare_words
    from nestling.pages.compare.compare import DEFAULTS, CompareConfig, compare
    from nestling.pages.compare.found import to_plain

    config = CompareConfig(wanted or DEFAULTS, not no_int8, machine or None, keep=keep)
    found = compare(paths, data, config, show.bars)
    write_atomically(output, compare_page.render(found, output).encode())
    if markdown is not None:
        write_atomically(markdown, compare_words.markdown(found).encode())
    if picture is not None:
        write_atomically(picture, compare_page.picture(found).encode())
    if json:
        show.as_json({"page": str(output), "images": found.images, "data": found.data, "bundles": to_plain(found)})
        return
    _print(found)
    for file, what in ((output, "open it in a browser"), (markdown, "the table"), (picture, "the pictures")):
        if file is not None:
            show.tell(f"written to {file}: {what}")


def _print(found: "Comparison") -> None:
    from nestling.pages import words
    from nestling.pages.compare import words as compare_words

    advice = compare_words.advice(found)
    show.table(*compare_words.table(found))
    show.tell(compare_words.below(found))
    for change in compare_words.changes(found):
        show.tell(words.unisolated(change))
    show.advised(advice)
    show.tell(*(f"next:  {command}" for command in compare_words.following(found, advice)))
    for warning in compare_words.warnings(found):
        show.say(f"warning: {words.unisolated(warning)}")
    for note in found.notes:
        show.say(note)


def _wanted(to: str, precision: str) -> tuple[tuple[str, str], ...]:
    """(format, precision) of the files; () where --to was not given."""
    from nestling.formats import FORMATS, printed
    from nestling.formats.c.format import NAME as C

    if not to:
        return ()
    formats = [form.name for form in FORMATS.values() if form.printers and form.embedding != "alone" and not form.machine]
    precisions = list(dict.fromkeys(kind for _, kind in printed()))
    if C in to.lower().split(","):
        raise WrongOption(f"--to is one or more of {', '.join(formats)}; C is for a --machine.")
    words = options.words("--to", to, formats), options.words("--precision", precision, precisions)
    wanted = tuple((form, kind) for form in words[0] for kind in words[1] if kind in FORMATS[form].printers)
    if not wanted:
        raise WrongOption(f"no format of {to} is printed in {precision}.")
    return wanted
