"""Our .onnx and .pte against those of the usual tools, and what uint8 images as input cost (.tflite, too).

    python benchmarks/others.py [--data PHOTOS] [--bundle my8.nest] [--rounds 20]

Others: torch.onnx.export, onnxruntime.quantization.quantize_static (its defaults), torch.export with XNNPACK, and the stock
XNNPACKQuantizer. Theirs take a normalised float image, ours bytes; "float input" is ours without its normalisation. Each file has a
process of its own, one thread; rounds take turns; medians. The distance is rms(file - float) over what our int8 reference has, so 1
is as far from float as our integers are; the noise ratio is rms(file - int8 reference) over the same, for our int8 files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photographs import folder
from torch import nn

from nestling import bundle as bundles
from nestling.artifacts.yardstick import expected
from nestling.bundle import Bundle
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.formats import FORMATS
from nestling.formats.about import about
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.format import ExportConfig, Job
from nestling.formats.onnx import printing as onnx
from nestling.formats.quiet import quiet
from nestling.formats.tflite import printing as tflite
from nestling.graph.edit import with_nodes
from nestling.graph.ir import Graph, Node, Quantize, Tensor
from nestling.graph.spec import check
from nestling.models.backbones import Network, build
from nestling.preprocess.image import table
from nestling.processor import processor, versions
from nestling.quantization.quantize import quantize
from nestling.scores.agree import rms
from nestling.training.fit import FitConfig, fit

RUNS, CALIBRATION = 10, 100


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="photographs, a folder or a .tar.gz; the demo's by default")
    arguments.add_argument("--bundle", type=Path, help="a quantised bundle of these photographs; by default one is made")
    arguments.add_argument("--rounds", type=int, default=20)
    chosen = arguments.parse_args()
    with folder(chosen.data) as data, tempfile.TemporaryDirectory() as place:
        bundle = bundles.load(chosen.bundle) if chosen.bundle else quantize(fit(data, config=FitConfig()).bundle, data)
        print(f"{processor()}; {', '.join(f'{package} {version}' for package, version in versions().items())}")
        _compare(bundle, data, Path(place), chosen.rounds)


def _compare(bundle: Bundle, data: Path, place: Path, rounds: int) -> None:
    wanted = expected(bundle, True, data)
    assert wanted.floats is not None
    normal = normalised(bundle, wanted.images)
    items = part(training_data(bundle, data), bundle, "train", CALIBRATION)
    calibration = normalised(bundle, np.stack(images_of(items, bundle.preprocess)))
    np.save(place / "bytes.npy", wanted.images)
    np.save(place / "floats.npy", normal)
    np.save(place / "nhwc.npy", np.ascontiguousarray(normal.transpose(0, 2, 3, 1)))
    files = [*_ours(bundle, place), *_theirs(bundle, place, calibration)]
    times, answers = _run(place, files, rounds)
    quantisation = rms(wanted.floats, wanted.answers)
    medians = {name: float(np.median(times[name])) for name, _, _ in files}
    inputs = [
        f"{name}: {medians[name] / medians[f'{name}, float input']:.2f}" for name in medians if f"{name}, float input" in medians
    ]
    print(f"bytes as input over a normalised float image: {'; '.join(inputs)}")
    print(f"{len(wanted.images)} photographs; medians of {rounds * RUNS} runs in {rounds} turns, 1 thread\n")
    print("| file | ms | over | ratio | distance from float | noise ratio | answers equal to float's |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name, _, rival in files:
        ratio = f"{medians[name] / medians[rival]:.2f}" if rival else ""
        own = answers[name]
        noise = f"{rms(own, wanted.answers) / quantisation:.2f}" if name.startswith("our int8") else ""
        equal = 100 * (own.argmax(1) == wanted.floats.argmax(1)).mean()
        distance = rms(own, wanted.floats) / quantisation
        print(f"| {name} | {medians[name]:.2f} | {rival} | {ratio} | {distance:.2f} | {noise} | {equal:.1f}% |")


# ---- files: (name, inputs, whom it is compared with) ---------------------------------------------------------------------------

File = tuple[str, str, str]
RIVALS = {
    ("onnx", "fp32"): "torch.onnx fp32",
    ("onnx", "int8"): "onnx of the stock quantizer",
    ("pte", "fp32"): "stock fp32",
    ("pte", "int8"): "pte of the stock quantizer",
}


def _ours(bundle: Bundle, place: Path) -> Iterator[File]:
    job, other = Job(bundle, ExportConfig()), Job(bundle, ExportConfig(onnx_weights="int8"))
    for form, precision in itertools.product(("onnx", "pte", "tflite"), ("fp32", "int8")):
        name = f"our {precision} .{form}"
        (place / f"{name}.{form}").write_bytes(FORMATS[form].printers[precision](job).content)
        yield name, "bytes", RIVALS.get((form, precision), "")
        graph, name = job.inside(form, precision), f"{name}, float input"
        inputs, content = WITHOUT_TABLE[form](graph, bundle)
        (place / f"{name}.{form}").write_bytes(content)
        yield name, inputs, ""
    name = "our int8 .onnx, int8 weights"
    (place / f"{name}.onnx").write_bytes(FORMATS["onnx"].printers["int8"](other).content)
    yield name, "bytes", "our int8 .onnx"


def _without_table(graph: Graph) -> Graph:
    """From the normalised image on, float32 [1, H, W, C]; an int8 graph quantises it first."""
    out = graph.tensors[graph.nodes[0].name]
    image = Tensor("normalised image", out.shape, "float32")
    first = (Node("quantize", (image.name,), (out.name,), Quantize()),) if out.quant is not None else ()
    renamed = {} if first else {out.name: image.name}
    made = replace(graph, inputs=(image.name,))
    return check(with_nodes(made, (*first, *graph.nodes[1:]), (image,), renamed))


def _onnx_without_table(graph: Graph, bundle: Bundle) -> tuple[str, bytes]:
    return "nhwc", onnx.print_graph(_without_table(graph), about(bundle))


def _tflite_without_table(graph: Graph, bundle: Bundle) -> tuple[str, bytes]:
    return "nhwc", tflite.print_graph(_without_table(graph))


def _pte_without_table(graph: Graph, bundle: Bundle) -> tuple[str, bytes]:
    """From the normalised image on, float32 [1, C, H, W]."""

    class WithoutTable(GraphProgram):
        def _normalised(self, node: Node, image: torch.Tensor) -> torch.Tensor:
            return image

    height, width = bundle.preprocess.size
    image = torch.zeros(1, bundle.preprocess.channels, height, width)
    return "floats", _lowered(torch.export.export(WithoutTable(graph).eval(), (image,)))


WITHOUT_TABLE = {"onnx": _onnx_without_table, "pte": _pte_without_table, "tflite": _tflite_without_table}


def _theirs(bundle: Bundle, place: Path, calibration: np.ndarray) -> Iterator[File]:
    """The same network (the bundle's float one under the bundle's head), from normalised float32 [1, C, H, W]."""
    module = _without_normalisation(bundle)
    example = (torch.from_numpy(calibration[:1]),)
    with quiet(), torch.no_grad():
        torch.onnx.export(module, example, str(place / "torch.onnx fp32.onnx"), dynamo=False, input_names=["image"])
        yield "torch.onnx fp32", "floats", ""
        stock_int8_onnx(bundle, place / "onnx of the stock quantizer.onnx", calibration)
        yield "onnx of the stock quantizer", "floats", ""
        (place / "stock fp32.pte").write_bytes(_lowered(torch.export.export(module, example)))
        yield "stock fp32", "floats", ""
        (place / "pte of the stock quantizer.pte").write_bytes(_lowered(_stock_quantized(module, calibration)))
        yield "pte of the stock quantizer", "floats", ""


def _without_normalisation(bundle: Bundle) -> nn.Module:
    network = build(bundle)
    assert isinstance(network, Network) and network.head is not None
    return nn.Sequential(network.backbone, network.head).eval()


def _lowered(exported: torch.export.ExportedProgram) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quiet():
        return bytes(to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)


def _stock_quantized(module: nn.Module, calibration: np.ndarray) -> torch.export.ExportedProgram:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = (torch.from_numpy(calibration[:1]),)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    for image in calibration:
        prepared(torch.from_numpy(image[None]))
    return torch.export.export(convert_pt2e(prepared), example)


def stock_int8_onnx(bundle: Bundle, target: Path, calibration: np.ndarray) -> None:
    """onnxruntime.quantization.quantize_static with its defaults, of torch.onnx's file. calibration: as `normalised` gives it."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {"image": row[None]}

    source, prepared = target.with_name("float.onnx"), target.with_name("prepared.onnx")
    example = (torch.from_numpy(calibration[:1]),)
    with quiet(), torch.no_grad():
        torch.onnx.export(_without_normalisation(bundle), example, str(source), dynamo=False, input_names=["image"])
        quant_pre_process(str(source), str(prepared))  # as its own documentation advises
        quantize_static(str(prepared), str(target), Images())


def normalised(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """As the others' files take images: float32 [N, C, H, W]."""
    lines = table(bundle.preprocess)
    normal = lines[np.arange(images.shape[3]), images].astype(np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


# ---- running ------------------------------------------------------------------------------------------------------------------


def _run(place: Path, files: Sequence[File], rounds: int) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_worker(place, name, inputs)) for name, inputs, _ in files}
        times: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                times[name] += _ask(worker, RUNS)["ms"]
        answers = {name: np.load(_ask(worker, 0)["answers"]) for name, worker in workers.items()}
        for worker in workers.values():
            worker.kill()
    return times, answers


def _worker(place: Path, name: str, inputs: str) -> subprocess.Popen[str]:
    file = next(path for path in (place / f"{name}.{form}" for form in ("onnx", "pte", "tflite")) if path.exists())
    script = Path(__file__).with_name("raw_worker.py")
    command = [sys.executable, str(script), str(file), str(place / f"{inputs}.npy")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _ask(worker: subprocess.Popen[str], runs: int) -> dict[str, Any]:
    assert worker.stdin and worker.stdout
    worker.stdin.write(f"{runs}\n")
    worker.stdin.flush()
    answer: dict[str, Any] = json.loads(worker.stdout.readline())
    return answer


if __name__ == "__main__":
    main()
