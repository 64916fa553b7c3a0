"""How good the frozen backbone's head is: mean test top-1 over split seeds, float and int8, and what each setting brings.

    python benchmarks/accuracy.py [--seeds 5] [--int8] [--data FOLDER_OR_TAR_GZ] [--settings]

Photographs: the demo's (ELPV, CC BY-NC-SA 4.0), or --data. --int8 exports an int8 .pte for each seed too (a minute each).
--settings adds larger inputs and mirrored views. seconds: of the first seed, embeddings and head. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from photographs import folder

from nestling.artifacts.export import export
from nestling.bundle import save
from nestling.measure.answers import agree, evaluate
from nestling.processor import processor
from nestling.training.fit import FitConfig, fit

SETTINGS = {
    "as the demo (224 pixels)": {},
    "224 pixels, flips": {"views": "flips"},
    "288 pixels": {"size": 288},
    "384 pixels": {"size": 384},
    "300 pixels": {"size": 300},
    "300 pixels, flips": {"size": 300, "views": "flips"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--settings", action="store_true")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    with folder(arguments.data) as data:
        print(f"{processor()}; torch {version('torch')}, executorch {version('executorch')}; {arguments.data or 'ELPV'}\n")
        print("| setting | val top-1, mean | test top-1, mean | each seed | int8 .pte, mean | fp32 .pte agrees | seconds |")
        print("|---|---|---|---|---|---|---|")
        for name, setting in SETTINGS.items() if arguments.settings else [("default", {})]:
            print(row(name, data, setting, arguments.seeds, arguments.int8), flush=True)


def row(name: str, data: Path, setting: dict[str, object], seeds: int, int8: bool) -> str:
    vals, tops, int8_tops, agreements, seconds = [], [], [], [], []
    for seed in range(seeds):
        fitted = fit(data, config=FitConfig(seed=seed, **setting))
        vals.append(fitted.bundle.lineage[-1].metrics["val_top1"])
        tops.append(fitted.test.top1)
        seconds.append(fitted.seconds)
        if not int8:
            continue
        with tempfile.TemporaryDirectory() as out:
            bundle = Path(out) / "b.nest"
            save(fitted.bundle, bundle)
            print(export(bundle, Path(out), [("pte", "fp32"), ("pte", "int8")], data), file=sys.stderr)
            int8_tops.append(evaluate(Path(out) / "b-int8.pte", data).evaluation.top1)
            agreements.append(agree(bundle, Path(out) / "b-fp32.pte", data)[0].agreement)
    first = seconds[0]
    cells = [
        name,
        f"{np.mean(vals):.2%}",
        f"{np.mean(tops):.2%}",
        " ".join(f"{top * 100:.1f}" for top in tops),
        f"{np.mean(int8_tops):.2%}" if int8_tops else "",
        f"{min(agreements):.2%}" if agreements else "",
        f"{first['embeddings']:.1f}, {first['head']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
