"""demo: the whole chain on real photographs, each step skipped where its inputs have not changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nestling
from nestling import bundle as bundles
from nestling import extras
from nestling.artifacts.export import export
from nestling.data.demo_set import elpv
from nestling.data.folders import fingerprint, scan
from nestling.embedding.cache import default_cache
from nestling.errors import UnusableFile
from nestling.files import write_atomically
from nestling.formats import FORMATS, printed
from nestling.formats.c.format import of_machine
from nestling.formats.c.host import compiler
from nestling.formats.format import INTEGERS
from nestling.measure.counted import HOST
from nestling.outside import Record, content, parsed
from nestling.pages.gather import report
from nestling.pages.page import Row
from nestling.printable import json_text
from nestling.progress import Progress, silent
from nestling.temporary import sweep
from nestling.training.fit import FitConfig, fit

CONFIG = FitConfig()
COMPILED = ((of_machine(HOST), INTEGERS),)  # needs a C compiler
FILES = tuple(
    pair for pair in printed() if FORMATS[pair[0]].embedding != "alone" and (not FORMATS[pair[0]].machine or pair in COMPILED)
)
Say = Callable[[str], None]


def demo(out: Path, progress: Progress = silent, say: Say = lambda _text: None) -> tuple[Row, ...]:
    """fit, export in every format, report: out/elpv.nest, the files, and out/report.html. Returns the page's rows.

    Raises NestlingError where the demo's photographs are not installed.
    """
    sweep(out)  # also where nothing has changed
    data = elpv(default_cache().parent)
    record = out / "demo.json"
    bundle, page = out / "elpv.nest", out / "report.html"
    there = [pair for pair in FILES if extras.has(FORMATS[pair[0]].extra)]
    wanted = there if compiler() is not None else [pair for pair in there if pair not in COMPILED]
    files = [out / FORMATS[form].file("elpv", precision) for form, precision in wanted]

    def step(name: str, inputs: str, made: Sequence[Path], work: Callable[[], Any]) -> Any:
        return _unless_done(record, name, inputs, made, work, say)

    photographs = _digest(fingerprint(scan(data)), repr(CONFIG), nestling.__version__)
    step("fit", photographs, [bundle], lambda: bundles.save(fit(data, config=CONFIG, progress=progress).bundle, bundle))
    step("export", _digest_files([bundle]), files, lambda: [one.file for one in export(bundle, out, wanted, data, None, progress)])
    rows = step(
        "report", _digest_files([bundle, *files]), [page], lambda: [asdict(row) for row in report(out, page, data, progress).rows]
    )
    try:
        return tuple(Row(**(row | {"interval": tuple(row["interval"])})) for row in rows)
    except (TypeError, KeyError) as error:
        raise UnusableFile(f"{record} does not hold the page's rows.", f"remove it:  rm {record}") from error


def _unless_done(record: Path, name: str, inputs: str, files: Sequence[Path], work: Callable[[], Any], say: Say) -> Any:
    """The step's result (JSON values): from the record where its inputs are unchanged and its files are there, else from work()."""
    try:
        known = Record(parsed(content(record), str(record)), str(record)).plain
    except UnusableFile:
        known = {}
    done = known.get(name)
    if isinstance(done, dict) and done.get("inputs") == inputs and "result" in done and all(file.exists() for file in files):
        say(f"{name}: nothing has changed since the last run, skipped")
        return done["result"]
    result = work()
    write_atomically(record, json_text(known | {name: {"inputs": inputs, "result": result}}).encode())
    return result


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _digest_files(files: Sequence[Path]) -> str:
    whole = [part for file in files for part in (sorted(file.iterdir()) if file.is_dir() else [file])]
    return _digest(*(hashlib.sha256(part.read_bytes()).hexdigest() for part in whole))
