"""demo: the whole chain on real photographs, each step skipped where its inputs have not changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import nestling
from nestling import bundle as bundles
from nestling.data.choose import for_evaluation, scan_for
from nestling.data.demo_set import elpv
from nestling.data.folders import fingerprint, scan
from nestling.files import write_atomically
from nestling.progress import Progress, silent
from nestling.report.agree import compare
from nestling.report.answers import answers
from nestling.report.bench import bench
from nestling.report.evaluate import judge
from nestling.targets import known_split, load
from nestling.targets.export import INTEGERS, export, quantized_first
from nestling.training.features import default_cache
from nestling.training.fit import FitConfig, fit

CONFIG = FitConfig()
FILES = (("pte", "fp32"), ("pte", "int8"), ("tflite", "fp32"), ("tflite", "int8"))
Say = Callable[[str], None]


def demo(out: Path, progress: Progress = silent, say: Say = lambda _text: None) -> list[dict[str, Any]]:
    """Returns a row a network: file, test top-1 with interval, agreement with float, bytes, milliseconds, peak memory.

    Raises NestlingError where the demo's photographs are not installed.
    """
    data = elpv(default_cache().parent)
    record = out / "demo.json"
    bundle = out / "elpv.nest"
    programs = [out / f"elpv-{precision}.{form}" for form, precision in FILES]
    networks = [bundle, *programs]

    def step(name: str, inputs: str, files: Sequence[Path], work: Callable[[], Any]) -> Any:
        return _unless_done(record, name, inputs, files, work, say)

    photographs = _digest(fingerprint(scan(data)), repr(CONFIG), nestling.__version__)
    step("fit", photographs, [bundle], lambda: bundles.save(fit(data, CONFIG, progress).bundle, bundle))
    step("export", _digest_files([bundle]), programs, lambda: _export(bundle, data, progress))
    made = _digest_files(networks)
    judged = step("evaluate", made, [], lambda: _evaluate(networks, data, progress))
    timed = step("bench", made, [], lambda: [asdict(timing) for timing in bench(networks, progress=progress)])
    return [quality | timing for quality, timing in zip(judged, timed, strict=True)]


def _export(path: Path, data: Path, progress: Progress) -> None:
    bundle = bundles.load(path)
    integers = quantized_first(bundle, path.with_name(f"{path.stem}-int8.nest"), data, progress)
    for form, precision in FILES:
        export(integers if precision == INTEGERS else bundle, path.parent, path.stem, form, precision, data, progress=progress)


def _evaluate(networks: Sequence[Path], data: Path, progress: Progress) -> list[dict[str, Any]]:
    runners = [load(path) for path in networks]
    dataset = scan_for(runners[0].labels, data)
    items, logits, _ = answers(runners, for_evaluation(dataset, known_split(runners[0], dataset)).items, progress)
    truth, paths = np.array([item.label for item in items]), [item.path for item in items]
    rows = []
    for own in logits:
        evaluation = judge(own, truth, paths, dataset.labels)
        rows.append({"top1": evaluation.top1, "interval": evaluation.interval, "images": evaluation.images})
    return [row | {"agreement": compare(logits[0], own).agreement} for row, own in zip(rows, logits, strict=True)]


def _unless_done(record: Path, name: str, inputs: str, files: Sequence[Path], work: Callable[[], Any], say: Say) -> Any:
    """The step's result (JSON values): from the record where its inputs are unchanged and its files are there, else from work()."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        known = {}
    if known.get(name, {}).get("inputs") == inputs and all(file.exists() for file in files):
        say(f"{name}: nothing has changed since the last run, skipped")
        return known[name]["result"]
    result = work()
    write_atomically(record, json.dumps(known | {name: {"inputs": inputs, "result": result}}).encode())
    return result


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _digest_files(files: Sequence[Path]) -> str:
    return _digest(*(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
