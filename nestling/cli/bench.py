"""nestling bench."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show


def command(
    files: Annotated[list[Path], typer.Argument(help="Exported files or bundles, or a folder with a manifest.json.")],
    threads: Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")] = "1",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Time networks, one image at a time: each in its own process, taking turns, so that the machine's drift falls on all.

    Example:  nestling bench out/ --threads 1,2
    """
    from nestling.report.bench import bench
    from nestling.targets.export import read_manifest

    try:
        counts = [int(part) for part in threads.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--threads is numbers separated by commas; found {threads!r}") from None
    listed = [[path / str(e["file"]) for e in read_manifest(path / "manifest.json")] if path.is_dir() else [path] for path in files]
    timings = bench([path for some in listed for path in some], counts, show.bars)
    kinds = {e["file"]: e for path in files if path.is_dir() for e in read_manifest(path / "manifest.json")}
    if json:
        rows = [
            {
                "file": t.file,
                "format": kinds.get(t.file, {}).get("format", Path(t.file).suffix.removeprefix(".")),
                "precision": kinds.get(t.file, {}).get("precision"),
                "threads": t.threads,
                "ms_median": t.ms_median,
                "ms_p95": t.ms_p95,
                "peak_memory_bytes": t.peak_memory_bytes,
                "bytes": t.bytes,
            }
            for t in timings
        ]
        show.as_json({"artifacts": rows})
        return
    show.table(
        ["file", "threads", "median", "95th percentile", "images/s", "peak memory", "size"],
        [
            [
                t.file,
                str(t.threads),
                f"{t.ms_median:.2f} ms",
                f"{t.ms_p95:.2f} ms",
                f"{1e3 / t.ms_median:.0f}",
                show.size(t.peak_memory_bytes),
                show.size(t.bytes),
            ]
            for t in timings
        ],
    )
