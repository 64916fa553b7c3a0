"""nestling bench."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli import options, show
from nestling.errors import WrongOption

if TYPE_CHECKING:
    from nestling.measure.counted import Counted
    from nestling.measure.layers import LayerTable

LONGEST = 40  # letters of a layer's name in a table
LISTED = 12  # layers of a file in the table; the picture and --json have more


def command(
    files: Annotated[list[Path], options.network("Exported files or bundles, or a folder with a manifest.json.")],
    threads: Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")] = "1",
    layers: Annotated[bool, typer.Option("--layers", help="Each layer's time beside its MACs, and a picture.")] = False,
    data: Annotated[
        Path | None, options.file("Photographs to measure the noise on.", show_default="those that it learned from")
    ] = None,
    trust: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Time networks, one image at a time: each in its own process, taking turns, so that the machine's drift falls on all.

    Int8 files show their noise ratio: how far the runtime is from the int8 reference on this processor, over what quantisation did.

    Example:  nestling bench out/ --threads 1,2 --layers
    """
    try:
        counts = [int(part) for part in threads.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise WrongOption(f"--threads is numbers from 1, separated by commas; found {threads!r}.")
    from nestling.artifacts import manifest
    from nestling.formats.c.trusted import ABOUT, require_trusted
    from nestling.temporary import restored

    whole = [path for path in files if restored(path).is_dir() and not (path / ABOUT).is_file()]
    paths = [one for path in files for one in ([path / a.file for a in manifest.read(path)] if path in whole else [path])]
    from dataclasses import asdict

    from nestling.measure.bench import bench, listed, to_plain
    from nestling.measure.counted import counted, machine_of
    from nestling.measure.layers import layer_tables
    from nestling.pages.layer_pictures import draw

    elsewhere = [path for path in paths if machine_of(path)]
    require_trusted(paths, trust)
    ran = counted(elsewhere, data, show.bars, trust, cycles=layers)
    paths = [path for path in paths if path not in elsewhere]
    timings = bench(paths, counts, show.bars, data, trust=trust)
    tables = layer_tables(paths, counts[0], show.bars) if layers else ()
    pictures = draw(tables, paths) if layers else ()
    rows = to_plain(timings, [artifact for path in paths if (artifact := listed(path)) is not None])
    if json:
        timed = {(table.file, table.runtime): [asdict(layer) for layer in table.layers] for table in tables}
        with_layers = [row | {"layers": timed.get((row["file"], row["runtime"]))} for row in rows]
        virtual = [asdict(one) if layers else {k: v for k, v in asdict(one).items() if k != "layers"} for one in ran]
        show.as_json({"artifacts": [*(with_layers if layers else rows), *virtual]})
        return
    _print_counted(ran, layers)
    if not timings:
        return
    show.table(
        ["file", "runtime", "threads", "median", "95th percentile", "images/s", "noise ratio", "peak memory", "size"],
        [
            [
                t.file,
                f"{t.runtime} ({t.isa})" if t.isa else t.runtime,
                str(t.threads),
                f"{t.ms_median:.2f} ms",
                f"{t.ms_p95:.2f} ms",
                f"{1e3 / t.ms_median:.0f}",
                "" if t.noise_ratio is None else f"{t.noise_ratio:.2f}",
                show.size(t.peak_memory_bytes),
                show.size(t.bytes),
            ]
            for t in timings
        ],
    )
    show.noisy([(t.file, t.runtime, t.noise_ratio) for t in timings])
    _print(tables)
    for picture in pictures:
        show.tell(f"a picture: {picture}")


def _print_counted(ran: "Sequence[Counted]", layers: bool) -> None:
    """A row a folder of C, and of each its layers."""
    if ran:
        rows = []
        for one in ran:
            counts = (one.instructions, one.macs, one.arena_bytes, one.flash_bytes, one.stack_bytes)
            rows.append([one.file, one.title, *(f"{count:,}" if count is not None else "" for count in counts)])
        show.table(["folder", "machine", "instructions", "MACs", "arena, bytes", "flash, bytes", "stack, bytes"], rows, ran[0].note)
    from nestling.pages.pictures import shorten

    for one in ran if layers else ():
        if one.calibration is not None:
            loop = one.calibration
            show.tell(f"{one.file}: a loop of {loop.instructions:,} instructions was counted as {loop.counted:,}")
        rows = [
            [
                shorten(layer.name, LONGEST),
                layer.kind,
                "x".join(map(str, layer.shape)),
                "" if layer.instructions is None else f"{layer.instructions:,}",
                *([f"{layer.cycles_estimate or 0:,}"] if one.cycles_estimate is not None else []),
                f"{layer.macs:,}" if layer.macs else "",
                f"{layer.macs / layer.instructions:.2f}" if layer.macs and layer.instructions else "",
            ]
            for layer in one.layers
        ]
        estimated = ["cycles, estimated"] if one.cycles_estimate is not None else []
        show.table(["Layer", "kind", "shape", "instructions", *estimated, "MACs", "MACs/instruction"], rows, one.file)
        if one.cycles_estimate is not None:
            a_mac = f", {one.cycles_estimate / one.macs:.2f} a MAC" if one.macs else ""
            show.tell(f"{one.file}: about {one.cycles_estimate:,} cycles{a_mac}; {one.cycles_note}")
        elif one.cycles_note:
            show.tell(f"{one.file}: {one.cycles_note}")


def _print(tables: "Sequence[LayerTable]") -> None:
    from nestling.pages.pictures import shorten

    for table in tables:
        costliest = sorted(table.layers, key=lambda layer: -(layer.ms or 0.0))[:LISTED]
        rows = [
            [
                shorten(layer.name, LONGEST),
                layer.kind,
                "x".join(map(str, layer.shape[1:])),
                f"{layer.ms or 0:.3f}",
                f"{layer.macs / 1e6:.2f} M" if layer.macs else "",
                f"{layer.macs / layer.ms / 1e6:.1f} G/s" if layer.macs and layer.ms else "",
            ]
            for layer in costliest
        ]
        total = sum(layer.ms or 0.0 for layer in table.layers)
        title = f"{table.file}, {table.runtime}: {len(costliest)} of {len(table.layers)} layers; all together {total:.2f} ms"
        show.table(["layer", "kind", "shape", "ms", "MACs", "MACs a second"], rows, title)
