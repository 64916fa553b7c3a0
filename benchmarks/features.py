"""How many images a second become embeddings: nestling's way (LiteRT) against ONNX Runtime, OpenVINO and torch eager, interleaved.

    python benchmarks/features.py [--images 5000] [--torch-images 192] [--rounds 3] [--decoded] [--data FOLDER]

Both sides read the same files through the same threaded loader (decoding and resizing included, beside the network). nestling's
side also makes the network (torch captures what is not recorded), prints it and writes its cache; all that is in its seconds. ONNX
Runtime and OpenVINO get the same printed graph or a trace, the same loader and cache, an image a core, as nestling would run them,
and are made ready before. With --decoded torch's images are decoded before its clock starts: all in torch's favour. Prints one
Markdown table. Run it on an idle machine: torch's threads wait for each other by spinning, so that any other program beside them
slows torch far more than nestling.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image

from nestling import extras
from nestling.bundle import Bundle, Timm
from nestling.data.folders import Item, LeftOut, scan
from nestling.data.stream import stream
from nestling.embedding import cache as features
from nestling.embedding.engine import Engine, graph_engine
from nestling.embedding.network_engine import openvino_engine
from nestling.formats.about import about
from nestling.formats.onnx.printing import print_graph
from nestling.models.backbones import Network, Normalise, build, build_backbone
from nestling.models.float_graph import float_graph
from nestling.models.known import created
from nestling.pool import in_order
from nestling.preprocess.image import ImagePreprocess
from nestling.processor import processor

NETWORKS = (("tf_efficientnet_lite0", "package"), ("mobilenetv2_100", "none"))
BATCHES = (1, 8, 32)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Way:
    """One line of torch's: a batch size and a memory layout."""

    batch: int
    layout: str


WAYS = tuple(Way(batch, layout) for batch in BATCHES for layout in LAYOUTS)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or photographs(Path(folder) / "photos", options.images)
        items = scan(data).items[: options.images]
        sizes = sorted(Image.open(item.path).size for item in items[:: max(1, len(items) // 100)])
        source = options.data or "JPEG, smooth noise from a seed"
        print(f"{len(items)} images ({source}; {sizes[0]} to {sizes[-1]} pixels), decoded and resized by the same loader,")
        print(
            f"for torch {'before its clock starts (in its favour)' if options.decoded else 'beside the network, as for nestling'}."
        )
        print(f"torch eager: {options.torch_images} of them a line and round. {options.rounds} rounds in turn, medians.")
        print(f"{processor()}; torch {torch.__version__} with {torch.get_num_threads()} threads.")
        print(f"Load average at the start {os.getloadavg()[0]:.1f}\n")
        print("| network | way | images/s | nestling is |")
        print("|---|---|---|---|")
        for name, weights in NETWORKS:
            measure(name, weights, items, Path(folder) / "cache", options)
        print(f"\nLoad average at the end {os.getloadavg()[0]:.1f} (2 is this program alone on two cores)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--torch-images", type=int, default=192, help="images a line of torch's in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--decoded", action="store_true", help="torch gets decoded images; nestling goes on decoding")
    parser.add_argument("--data", type=Path, help="a folder with a folder of photographs per class, instead of made-up ones")
    return parser.parse_args()


def measure(name: str, weights: str, items: tuple[Item, ...], cache: Path, options: argparse.Namespace) -> None:
    """One network: in each round a share of the images our way, then a few hundred in each of torch's ways."""
    start = time.perf_counter()
    bundle = created(name, weights, options.size)
    architecture, arrays, preprocess = bundle.architecture, bundle.arrays, bundle.preprocess
    assert isinstance(architecture, Timm) and isinstance(preprocess, ImagePreprocess)
    engine = graph_engine(float_graph(bundle))
    ready = time.perf_counter() - start
    others = {"ONNX Runtime": onnx_engine(bundle, engine.width)}
    if extras.has("openvino"):
        shape = (*preprocess.size, preprocess.channels)
        others["OpenVINO"] = openvino_engine(build(bundle).eval().requires_grad_(False), shape)
    ours: list[float] = []
    also: dict[str, list[float]] = {runtime: [] for runtime in others}
    theirs: dict[Way, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        share = items[turn :: options.rounds]
        start = time.perf_counter()
        found = features.embed(share, preprocess, engine, cache=cache)
        ours.append((time.perf_counter() - start) / len(share))
        assert found.computed == len(share), "some of these images were in the cache or could not be read"
        for runtime, other in others.items():
            start = time.perf_counter()
            features.embed(share, preprocess, other, cache=cache)
            also[runtime].append((time.perf_counter() - start) / len(share))
        for way in WAYS:
            network = Network(Normalise(preprocess), build_backbone(architecture, arrays), None).eval()
            theirs[way].append(eager(network, way, share[: options.torch_images], preprocess, options.decoded))
    rate = 1 / (statistics.median(ours) + ready / len(items))
    print(f"| {name} | nestling: {engine.name.rpartition(' ')[0]}, ready in {ready:.1f} s (included) | {rate:.1f} | |")
    for runtime, seconds in also.items():
        other_rate = 1 / statistics.median(seconds)
        print(f"| {name} | {runtime}, made ready before | {other_rate:.1f} | {rate / other_rate:.2f} times as fast |")
    for way, seconds in theirs.items():
        eagers = 1 / statistics.median(seconds)
        print(
            f"| {name} | torch eager, batch {way.batch}, {way.layout} | {eagers:.1f} | {rate / eagers:.1f} times as fast |",
            flush=True,
        )


def onnx_engine(bundle: Bundle, width: int) -> Engine:
    """The same graph as .onnx in ONNX Runtime, a session a core."""
    model = print_graph(float_graph(bundle), about(bundle, "embedding"))

    def make() -> Callable[[np.ndarray], np.ndarray]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {session.get_inputs()[0].name: image[None]})[0][0]

    return Engine("onnxruntime", width, lambda images: in_order(make, images))


def eager(network: torch.nn.Module, way: Way, items: tuple[Item, ...], preprocess: ImagePreprocess, decoded: bool) -> float:
    """Seconds an image of torch eager, after one batch that doesn't count."""
    layout = LAYOUTS[way.layout]
    network = network.to(memory_format=layout)

    def run(batch: list[np.ndarray]) -> None:
        normalised = network.normalise(torch.from_numpy(np.stack(batch)))
        network.backbone(normalised.contiguous(memory_format=layout)).numpy()

    with torch.inference_mode():
        run([np.zeros((*preprocess.size, 3), np.uint8)] * way.batch)
        ready = batches(items, preprocess, way.batch)
        ready = iter(list(ready)) if decoded else ready
        start = time.perf_counter()
        for batch in ready:
            run(batch)
        return (time.perf_counter() - start) / len(items)


def batches(items: tuple[Item, ...], preprocess: ImagePreprocess, size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for _, image in stream(items, preprocess, workers=os.cpu_count() or 1):
        if isinstance(image, LeftOut):
            raise SystemExit(f"{image.path}: {image.reason}")
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def photographs(folder: Path, count: int) -> Path:
    """JPEG files of varied sizes, as soft as photographs are: small noise, enlarged. The same files from run to run."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
    for index in range(count):
        width, height = (int(side) for side in rng.integers(240, 641, 2))
        noise = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / "ab"[index % 2] / f"{index:05}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
