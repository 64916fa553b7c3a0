"""Milliseconds of our int8 .tflite against the file that LiteRT's own converter (litert-torch) makes of the same network.

    python benchmarks/tflite_speed.py --converter /path/to/python

--converter: the Python of another environment with litert-torch, timm and torchvision in it (they do not live beside ours: jax).
Both files are run by this environment's LiteRT, default kernels, in turns: one inference of each, medians. Weights are random and
the ranges are those of noise: speed does not depend on them. Ours takes uint8 NHWC and normalises it inside; the converter's takes
normalised float32 NHWC, so the application still has that to do. Prints Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np

from nestling.bundle import Bundle
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.models.backbones import create
from nestling.models.float_graph import float_graph
from nestling.processor import processor
from nestling.quantization.calibrate import choose_ranges, observe

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv2_100")
CLASSES, RUNS = 10, 150
CONVERT = """
import sys, timm, torch, litert_torch
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
name, out = sys.argv[1:]
torch.manual_seed(0)
sample = (torch.randn(1, 224, 224, 3),)
network = litert_torch.to_channel_last_io(timm.create_model(name, num_classes=10).eval(), args=[0]).eval()
quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False))
observed = prepare_pt2e(torch.export.export(network, sample).module(), quantizer)
for _ in range(4):
    observed(torch.randn(1, 224, 224, 3))
edge = litert_torch.convert(convert_pt2e(observed, fold_quantize=False), sample, quant_config=QuantConfig(pt2e_quantizer=quantizer))
edge.export(out)
"""


def ours(name: str) -> bytes:
    architecture, arrays, preprocess = create(name, "none", 224)
    graph = float_graph(Bundle(architecture, arrays, None, (), preprocess))
    noise = list(np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3)).astype(np.uint8))
    ranges = choose_ranges(observe(graph, noise), "minmax", 8, False)
    integers = with_integers(graph, ranges, QuantizeConfig())
    width = integers.tensors[integers.outputs[0]].shape[1]
    head = Head(np.random.default_rng(1).normal(0, 0.1, (CLASSES, width)).astype(np.float32), np.zeros(CLASSES, np.float32))
    return tflite.print_graph(with_head(integers, head))


def theirs(name: str, python: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "converted.tflite"
        subprocess.run([python, "-c", CONVERT, name, str(out)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return out.read_bytes()


def interleaved(models: list[bytes], threads: int) -> list[float]:
    """Median milliseconds of each, in turns."""
    interpreters = [tflite_run.open_interpreter(model, "a benchmark's file", "default", threads) for model in models]
    for interpreter in interpreters:
        detail = interpreter.get_input_details()[0]
        value = np.random.default_rng(0).integers(0, 256, detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], value)
        for _ in range(10):
            interpreter.invoke()
    times: list[list[float]] = [[] for _ in models]
    for _ in range(RUNS):
        for interpreter, own in zip(interpreters, times, strict=True):
            start = perf_counter()
            interpreter.invoke()
            own.append((perf_counter() - start) * 1e3)
    return [float(np.median(own)) for own in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", required=True, help="the Python of an environment with litert-torch")
    converter = parser.parse_args().converter
    asked = [converter, "-c", "from importlib.metadata import version; print(version('litert-torch'))"]
    theirs_version = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    versions = f"ai-edge-litert {version('ai-edge-litert')}, litert-torch {theirs_version}"
    print(f"{processor()}; {versions}; 224 pixels, {RUNS} runs in turns\n")
    print("| network | threads | ours, ms | converter's, ms | ours / converter's | bytes, ours / converter's |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in NETWORKS:
        models = [ours(name), theirs(name, converter)]
        for threads in (1, 2):
            mine, other = interleaved(models, threads)
            sizes = f"{len(models[0]) / len(models[1]):.2f}"
            print(f"| {name} | {threads} | {mine:.2f} | {other:.2f} | {mine / other:.2f} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
