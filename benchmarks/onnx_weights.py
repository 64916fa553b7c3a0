"""8-bit ONNX weights as uint8 and as int8, and 7-bit ones, on this processor: how far from the integers, and how quick.

    python benchmarks/onnx_weights.py [--data PHOTOS] [--bundle my.nest] [--threads 1]

See docs/onnx-weights.md. Runtimes in processes of their own, in turns; the noise ratio is rms(runtime - int8 reference) over
rms(float - int8 reference) on 200 validation photographs: above 1 the runtime adds more than quantisation did.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from photographs import folder

from nestling import bundle as bundles
from nestling.artifacts.export import export
from nestling.formats.format import ExportConfig, Weights
from nestling.graph.integers import QuantizeConfig
from nestling.measure.bench import bench
from nestling.processor import processor, versions
from nestling.quantization.quantize import quantize
from nestling.training.fit import FitConfig, fit

FORMS: tuple[tuple[str, int, Weights], ...] = (
    ("8 bits as uint8 (the default)", 8, "uint8"),
    ("8 bits as int8", 8, "int8"),
    ("7 bits as uint8", 7, "uint8"),
    ("7 bits as int8", 7, "int8"),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="photographs, a folder or a .tar.gz; the demo's by default")
    arguments.add_argument("--bundle", type=Path, help="a fitted bundle of these photographs; by default one is made")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=10)
    chosen = arguments.parse_args()
    with folder(chosen.data) as data, tempfile.TemporaryDirectory() as name:
        place = Path(name)
        fitted = bundles.load(chosen.bundle) if chosen.bundle else fit(data, config=FitConfig()).bundle
        for bits in (8, 7):
            bundles.save(quantize(fitted, data, QuantizeConfig(bits_weights=bits)), place / f"{bits}bits.nest")
        files = []
        for said, bits, weights in FORMS:
            out = place / said.replace(" ", "-")
            export(place / f"{bits}bits.nest", out, [("onnx", "int8")], data, ExportConfig(onnx_weights=weights, force=True))
            files.append(out / f"{bits}bits-int8.onnx")
        timings = bench(files, [chosen.threads], data=data, rounds=chosen.rounds)
        print(f"{processor()}; {', '.join(f'{package} {version}' for package, version in versions().items())}\n")
        print("| weights | runtime | noise ratio | ms |")
        print("|---|---|---:|---:|")
        said_of = [said for said, _, _ in FORMS for _ in ("ONNX Runtime", "OpenVINO")]
        for said, timing in zip(said_of, timings, strict=True):
            print(f"| {said} | {timing.runtime} | {timing.noise_ratio:.2f} | {timing.ms_median:.2f} |")


if __name__ == "__main__":
    main()
