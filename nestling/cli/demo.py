"""nestling demo."""

from pathlib import Path
from typing import Annotated

from nestling.cli import options, show


def command(
    output: Annotated[Path, options.new_folder("Folder for what it makes.")] = Path("demo-out"),
    json: options.Json = False,
) -> None:
    """The whole chain on 2,624 photographs of solar cells: fit, quantise, print every format, judge, time, and show it on one page.

    A step whose inputs have not changed since the last run is skipped.
    """
    from dataclasses import asdict

    from nestling.data.demo_set import ABOUT
    from nestling.demonstration import demo
    from nestling.pages.page import advise_rows

    show.say(ABOUT)
    rows = demo(output, show.bars, show.say)
    advice = advise_rows(rows)
    if json:
        page = str(output / "report.html")
        show.as_json({"page": page, "artifacts": [asdict(row) for row in rows]} | show.advice_plain(advice))
        return
    show.networks(rows)
    show.advised(advice)
    hint = show.path_hint(output / "elpv-int8.tflite")
    show.tell(f"all of it on one page: {output / 'report.html'}", f"try:  nestling predict {hint} PHOTO")
