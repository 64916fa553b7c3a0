"""nestling demo."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show


def command(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for what it makes.")] = Path("demo-out"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """The whole chain on 2,624 photographs of solar cells: fit, export in float and int8, evaluate, compare, time.

    A step whose inputs have not changed since the last run is skipped.
    """
    from nestling.data.demo_set import ABOUT
    from nestling.demo import demo

    show.say(ABOUT)
    rows = demo(output, show.bars, show.say)
    if json:
        show.as_json({"artifacts": rows})
        return
    show.table(
        ["network", "test top-1 [95%]", "agreement", "size", "median", "95th pct", "peak memory"],
        [
            [
                row["file"],
                f"{row['top1'] * 100:.1f}% [{row['interval'][0] * 100:.1f}, {row['interval'][1] * 100:.1f}]",
                show.share(row["agreement"]),
                show.size(row["bytes"]),
                f"{row['ms_median']:.2f} ms",
                f"{row['ms_p95']:.2f} ms",
                show.size(row["peak_memory_bytes"]),
            ]
            for row in rows
        ],
        f"{rows[0]['images']} test photographs; one image at a time, one thread; agreement with the float network",
    )
    show.out().print(f"try:  nestling predict {show.path_hint(output / 'elpv-int8.pte')} PHOTO")
