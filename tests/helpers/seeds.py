"""What the fuzzer damages: small networks of every kind, printed and bundled here, and the shared ones where they are at hand."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from nestling import bundle as bundles
from nestling.artifacts.manifest import Artifact
from nestling.bundle import Bundle, Split, Step, Timm, Yardstick
from nestling.device import manifest as packages
from nestling.device.manifest import Manifest, PackedFile
from nestling.formats.about import About, to_json
from nestling.formats.onnx.printing import print_graph as print_onnx
from nestling.formats.tflite.printing import print_graph
from nestling.graph import ir
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.ir import Array, Attrs, Graph, Node, Quant, Tensor
from nestling.graph.spec import check, output_shape
from nestling.graph.structure import structure_of
from nestling.preprocess.image import ImagePreprocess, to_plain
from nestling.training.loop_state import Epoch, State, save_state
from tests import SHARED

SHARED_FILES = ("vww_96_int8.tflite", "resnet8_cifar10_int8.tflite", "vww_96_float.tflite")
PREPROCESS = ImagePreprocess((8, 8), 3, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def quant(scale: float, zero: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero], np.int32))


def small_graph(integer: bool) -> Graph:
    """image [1, 8, 8, 3] -> table, convolutions, add, pools, reshape -> embedding [1, 8]. The same at each call."""
    random = np.random.default_rng(0)
    tensors = {"image": Tensor("image", (1, 8, 8, 3), "uint8")}
    nodes: list[Node] = []
    scale = quant(0.02, -3)

    def constant(name: str, shape: tuple[int, ...], bias: bool = False) -> str:
        data: Array = random.normal(0, 0.3, shape).astype(np.float32)
        of: Quant | None = None
        if integer:
            data = random.integers(-90, 90, shape).astype(np.int32 if bias else np.int8)
            of = quant(0.02 * 0.01 if bias else 0.01)
        tensors[name] = Tensor(name, shape, data.dtype.name, data, of)  # type: ignore[arg-type]  # one of its dtypes
        return name

    def node(op: str, attrs: Attrs, name: str, *inputs: str, shape: tuple[int, ...] | None = None) -> str:
        shape = shape or output_shape(op, attrs, *(tensors[i].shape for i in inputs))
        tensors[name] = Tensor(name, shape, "int8" if integer else "float32", None, scale if integer else None)
        nodes.append(Node(op, inputs, (name,), attrs, f"layer of {name}"))
        return name

    table = random.integers(-128, 128, (3, 256)).astype(np.int8) if integer else random.normal(0, 1, (3, 256)).astype(np.float32)
    tensors["table"] = Tensor("table", (3, 256), "int8" if integer else "float32", table, scale if integer else None)
    x = node("table", ir.Table(), "x", "image", "table")
    a = node(
        "conv2d", ir.Conv2d((2, 2), (1, 1), (0, 1, 0, 1), "relu6"), "a", x, constant("w1", (8, 3, 3, 3)), constant("b1", (8,), True)
    )
    d = node(
        "depthwise_conv2d",
        ir.DepthwiseConv2d(padding=(1, 1, 1, 1)),
        "d",
        a,
        constant("w2", (1, 3, 3, 8)),
        constant("b2", (8,), True),
    )
    s = node("add", ir.Add("relu"), "s", a, d)
    m = node("max_pool", ir.MaxPool((2, 2), (2, 2)), "m", s)
    c = node("concat", ir.Concat(3), "c", m, m)
    p = node("average_pool", ir.AveragePool((2, 2), (2, 2)), "p", c)
    r = node("reshape", ir.Reshape(), "r", p, shape=(1, 16))
    f = node("fully_connected", ir.FullyConnected(), "f", r, constant("w3", (8, 16)), constant("b3", (8,), True))
    return check(Graph(tensors, tuple(nodes), ("image",), (f,)))


def small_bundles() -> dict[str, Bundle]:
    head = Head(np.random.default_rng(1).normal(0, 1, (3, 8)).astype(np.float32), np.zeros(3, np.float32))
    labels, split = ("a", "b", "ü"), Split(0, ("0" * 16,), ("1" * 16,), ("2" * 16,))
    step = Step("fit", {"folder": "photos", "views": "none"}, "ab", {"val_top1": 0.5})
    yardstick = Yardstick(("1" * 16,), np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    quantised = Bundle(small_graph(False), {}, head, labels, PREPROCESS, split, (step, step), small_graph(True), yardstick)
    arrays = {"conv.weight": np.zeros((4, 3, 3, 3), np.float32), "norm.mean": np.zeros(4, np.float32)}
    return {
        "quantised": quantised,
        "imported": replace(quantised, architecture=None, head=None, labels=tuple("abcdefgh"), split=None, yardstick=None),
        "timm": Bundle(Timm("mobilenetv1_100", "none (seed 0)"), arrays, head, labels, PREPROCESS, split, (step,)),
        "structured": Bundle(*structured(), head, labels, PREPROCESS, split, (step,)),
    }


def structured() -> tuple[Timm, dict[str, Array]]:
    """small_graph as a network of timm's that carries its graph, over arrays in torch's layout; one constant is its own."""
    graph = small_graph(integer=False)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in ("image", "table")}
    body = check(replace(graph, tensors=tensors, nodes=graph.nodes[1:], inputs=("x",)))
    layouts = {"w1": (0, 3, 1, 2), "w2": (3, 0, 1, 2)}
    held = {name: tensor.data for name, tensor in tensors.items() if tensor.data is not None and name != "b3"}
    arrays = {name: np.ascontiguousarray(data.transpose(layouts.get(name, range(data.ndim)))) for name, data in held.items()}
    return Timm("mobilenetv1_100", "none (seed 0)", structure_of(body, arrays)), arrays


def tflite_files(shared: bool) -> dict[str, bytes]:
    plain, integers, floats = to_plain(PREPROCESS), small_graph(True), small_graph(False)
    found = {
        "int8": print_graph(integers, labels=tuple("abcdefgh"), preprocess=plain),
        "float": print_graph(floats, labels=("a", "b"), preprocess=plain),
        "fp16": print_graph(floats, "fp16"),
        "dynamic": print_graph(floats, "dynamic"),
    }
    there = {name: SHARED / name for name in SHARED_FILES if shared and (SHARED / name).exists()}
    return found | {name: path.read_bytes() for name, path in there.items()}


def bundle_files() -> Mapping[str, bytes]:
    return {name: bundles.to_bytes(bundle) for name, bundle in small_bundles().items()}


def json_files() -> Mapping[str, Any]:
    """What artifacts say of themselves, the manifest of an export, and that of a package, as JSON values."""
    said = About(("a", "b", "ü"), PREPROCESS, 0, "ab", "logits", "cd")
    artifact = Artifact(
        "a-int8.pte", "pte", "int8", 1000, "ab" * 32, 1.0, 0.5, 0.1, 0.1, 0.1, 200, 1.5, "../a.nest", 0.9, 4000, (1, 8), ("noise",)
    )
    packed = Manifest(
        "linux", "x86-64", "c", ("a", "b"), to_plain(PREPROCESS), "ab" * 32, 8, {"arena": 4000}, "30 photographs",
        {"nestling": "1"}, {"head.nst": PackedFile(100, "ab" * 32)},
    )  # fmt: skip
    listed = {"artifacts": [asdict(artifact), asdict(artifact)]}
    values = {"about": json.loads(to_json(said)), "artifacts": listed, "package": json.loads(packages.to_bytes(packed))}
    return {name: json.loads(json.dumps(value)) for name, value in values.items()}


def list_files() -> Mapping[str, bytes]:
    """Lists of images, of classes' names, of labels, and a package's split."""
    return {
        "images": b"a/1.jpg 0\nb/2.jpg 1\nb/3.jpg\tgood\n",
        "names": "gut 0\nschön 1\n".encode(),
        "labels": "a\nb\nü\n".encode(),
        "split": b"fingerprint,part\n0123456789abcdef,train\n0000000000000000,test\n",
    }


def weighted() -> nn.Module:
    """A module whose weights are read from files."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def _in_one_place(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The old format orders tensors by where they lie in memory, and names them by it: here there is one place."""
    floats = {name: value for name, value in weights.items() if value.is_floating_point()}
    pieces = torch.cat([value.flatten() for value in floats.values()]).split([value.numel() for value in floats.values()])
    return {name: piece.view(value.shape) for (name, value), piece in zip(floats.items(), pieces, strict=True)}


def tensor_files(folder: Path) -> Mapping[str, bytes]:
    """A checkpoint, weights in three formats, an embedding of 8 numbers in the cache, an .onnx file."""
    torch.manual_seed(0)
    weights = weighted().state_dict()
    moments = {f"0.{name}": weights["0.weight"] for name in ("exp_avg", "exp_avg_sq")} | {"0.step": torch.tensor(3.0)}
    path = folder / "seed"
    save_state(path, State((Epoch(1, 0.5, 0.9, 0.4, 2.0),), weights, {}, weights, moments, 8), {"seed": 0})
    found = {"checkpoint.safetensors": path.read_bytes(), "weights.safetensors": save(dict(weights))}
    torch.save({"state_dict": weights, "epoch": 3}, path)
    found["weights.pth"] = path.read_bytes()
    torch.save({"state_dict": _in_one_place(weights), "epoch": 3}, path, _use_new_zipfile_serialization=False)
    found["old.pth"] = re.sub(rb"\d{12,16}", lambda place: b"1".zfill(len(place[0])), path.read_bytes())
    vector = np.arange(8, dtype="<f4").tobytes()
    found["embedding"] = struct.pack("<I", zlib.crc32(vector)) + vector
    whole = with_head(small_graph(True), Head(np.zeros((3, 8), np.float32), np.zeros(3, np.float32)))
    return found | {"network.onnx": print_onnx(whole, About(("a", "b", "ü"), PREPROCESS))}
