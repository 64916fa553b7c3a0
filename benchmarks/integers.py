"""Whether the reference gives the bytes of LiteRT's reference kernels, and how far LiteRT's default kernels are from both.

    python benchmarks/integers.py [--data FOLDER] [--size 96] [--files a.tflite b.tflite]

Our own int8 prints of five backbones (lite0 with its real weights at 224, the others random at --size), at the embedding, on
20 images of noise and 20 photographs (--data, else the demo's), then any int8 or uint8 files named. Prints Markdown.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle
from nestling.data.demo_set import elpv
from nestling.data.folders import scan
from nestling.data.images import images_of
from nestling.embedding.cache import default_cache
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.read import read_tflite
from nestling.graph import reference
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.graph.ir import Graph
from nestling.models.backbones import create
from nestling.models.float_graph import float_graph
from nestling.preprocess.image import ImagePreprocess
from nestling.processor import processor
from nestling.quantization.calibrate import choose_ranges, observe

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv4_conv_small")
EACH = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--files", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    items = scan(arguments.data or elpv(default_cache().parent)).items
    items = items[:: len(items) // (2 * EACH)][: 2 * EACH]
    versions = f"ai-edge-litert {version('ai-edge-litert')}, numpy {version('numpy')}"
    print(f"{processor()}; {versions}; {EACH} images of noise, {EACH} photographs\n")
    print("| network | output bytes | differ from BUILTIN_REF | default kernels: bytes equal | largest step | printed in, s |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in NETWORKS:
        real = name == NETWORKS[0]
        architecture, arrays, preprocess = create(name, "package" if real else "none", 224 if real else arguments.size)
        photographs = images_of(items, preprocess)
        graph = float_graph(Bundle(architecture, arrays, None, (), preprocess))
        config = QuantizeConfig()
        ranges = choose_ranges(observe(graph, photographs[EACH:]), config.range, 8, False)
        print(row(f"{name}, {preprocess.size[0]}", with_integers(graph, ranges, config), photographs[:EACH]), flush=True)
    for path in arguments.files:
        graph = read_tflite(path)[0]
        _, height, width, channels = graph.tensors[graph.inputs[0]].shape
        preprocess = ImagePreprocess((height, width), channels, 1.0, "bilinear", (0.0,) * channels, (1.0,) * channels)
        print(row(path.name, graph, images_of(items[:EACH], preprocess), path.read_bytes()), flush=True)


def row(name: str, graph: Graph, photographs: list[NDArray[np.uint8]], content: bytes | None = None) -> str:
    start = perf_counter()
    model = content or tflite.print_graph(graph)
    seconds = perf_counter() - start
    noise = list(np.random.default_rng(0).integers(0, 256, (EACH, *photographs[0].shape)).astype(np.uint8))
    total = different = equal = largest = 0
    for image in noise + photographs:
        bytes_in = image[None]
        own_input = bytes_in if graph.tensors[graph.inputs[0]].dtype == "uint8" else (bytes_in ^ np.uint8(128)).view(np.int8)
        ours = reference.run(graph, own_input)[graph.outputs[0]]
        theirs, default = (shifted(answer(model, image, kernels)) for kernels in ("reference", "default"))
        total += ours.size
        different += int((ours != theirs).sum())
        equal += int((ours == default).sum())
        largest = max(largest, int(np.abs(ours.astype(int) - default.astype(int)).max()))
    return f"| {name} | {total} | {different} | {equal / total:.1%} | {largest} | {'' if content else f'{seconds:.2f}'} |"


def answer(model: bytes, image: NDArray[np.uint8], kernels: tflite_run.Kernels) -> NDArray[np.generic]:
    detail = tflite_run.open_interpreter(model, "the file", kernels).get_input_details()[0]
    value = image[None] if detail["dtype"] is np.uint8 else (image[None] ^ np.uint8(128)).view(np.int8)
    return tflite_run.run(model, [value], kernels)[0]


def shifted(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """uint8 outputs of old files as the int8 that the Graph has."""
    return (values ^ np.uint8(128)).view(np.int8) if values.dtype == np.uint8 else values


if __name__ == "__main__":
    main()
