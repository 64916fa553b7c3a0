"""Networks of others, read as bundles: what LiteRT answers to the same image is what the bundle answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model, read_labels
from nestling.bundle import Bundle
from nestling.errors import NestlingError, UnusableFile
from nestling.formats import load
from nestling.formats.nest.floats import float_runner
from nestling.formats.nest.integers import integer_runner
from nestling.formats.tflite.flatbuffer import Listing, write
from nestling.formats.tflite.printing import print_graph
from nestling.graph import reference
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.models.backbones import build
from nestling.preprocess.image import ImagePreprocess, to_plain
from tests.helpers.seeds import small_graph
from tests.helpers.tflite_files import CODE, activation, constant, file, ints, judged, op, quant, standard_metadata

Shared = Callable[[str], Path]

RNG = np.random.default_rng(0)
SHARES: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}  # a float network that takes v / 255
INTEGER = ("vww_96_int8.tflite", "resnet8_cifar10_int8.tflite", "mobilenet_v2_1_0_224_quant.tflite")


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def kept(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---- integer networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INTEGER)
def test_an_integer_network_answers_as_its_file_given_the_raw_bytes(shared_data: Shared, name: str) -> None:
    path = shared_data(name)
    bundle = import_model(path)
    assert bundle.architecture is None and bundle.head is None and bundle.graph is not None
    assert "bytes as they are" in bundle.lineage[-1].settings["assumed"][0]
    image = RNG.integers(0, 256, (1, *bundle.preprocess.size, 3)).astype(np.uint8)
    old = "quant" in name  # uint8 in the file, its scores too
    expected = judged(path.read_bytes(), image if old else (image.astype(np.int16) - 128).astype(np.int8))
    ours = reference.run(bundle.graph, image)[bundle.graph.outputs[0]]
    assert_array_equal(ours.astype(np.int16), expected.astype(np.int16) - (128 if old else 0))
    logits = integer_runner(bundle)(image)[0]
    images = np.concatenate([image, image[:, ::-1], image[:, :, ::-1]])
    assert_array_equal(integer_runner(bundle, quick=True)(images), integer_runner(bundle)(images))
    assert_allclose(softmax(logits), (ours[0].astype(np.float32) + 128) / 256, atol=0.01)
    assert integer_runner(bundle).features(image).shape == (1, {"vww": 256, "res": 64, "mob": 1280}[name[:3]])


@pytest.mark.parametrize("name", INTEGER)
def test_the_stated_mean_and_std_say_the_same_as_the_raw_bytes(shared_data: Shared, name: str, tmp_path: Path) -> None:
    path = shared_data(name)
    raw = import_model(path)
    again = import_model(path, mean=raw.preprocess.mean, std=raw.preprocess.std)
    for bundle in (raw, again):
        assert bundle.graph is not None
        table = bundle.graph.tensors[bundle.graph.nodes[0].inputs[1]].data
        assert_array_equal(table, np.tile(np.arange(-128, 128), (3, 1)))
    bundles.save(raw, tmp_path / "a.nest")
    assert bundles.to_bytes(bundles.load(tmp_path / "a.nest")) == bundles.to_bytes(raw)


def test_resnet8_knows_its_own_classes(shared_data: Shared, tmp_path: Path) -> None:
    """It was trained on CIFAR-10's raw bytes. On all 1,000 of these (JPEG) pictures LiteRT itself has 74.8% so; with BGR 63.2%."""
    root = tmp_path / "cifar"
    subprocess.run(["tar", "xzf", shared_data("cifar10_small.tar.gz"), "-C", tmp_path], check=True)
    root = next(tmp_path.glob("*/test"))
    runner = integer_runner(import_model(shared_data("resnet8_cifar10_int8.tflite")))
    classes = sorted(folder.name for folder in root.iterdir())
    files = [(index, path) for index, name in enumerate(classes) for path in sorted((root / name).iterdir())[:20]]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for _, path in files])
    top1 = float(np.mean(runner(images).argmax(1) == [index for index, _ in files]))
    print(f"resnet8 on {len(files)} test images: {top1:.1%}")
    assert top1 > 0.68


def float_in_float_out() -> bytes:
    """x float32 -> QUANTIZE -> conv -> mean -> DEQUANTIZE, as converters write it where the caller wants floats."""
    w = RNG.integers(-127, 128, (5, 3, 3, 3)).astype(np.int8)
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    to_q, conv, mean = quant(1 / 255, -128), quant(0.1, 3), quant(0.05, 3)
    tensors = [
        activation("x", (1, 8, 8, 3)), activation("q", (1, 8, 8, 3), to_q), constant("w", w, quant(0.01)),
        constant("b", np.zeros(5, np.int32), quant(0.01 / 255)), activation("c", (1, 8, 8, 5), conv),
        ints("axes", 1, 2), activation("m", (1, 5), mean), activation("y", (1, 5)),
    ]  # fmt: skip
    return file(
        tensors,
        [
            op(CODE.QUANTIZE, "x", "q", schema.QuantizeOptionsT()),
            op(CODE.CONV_2D, "q w b", "c", options, 3),
            op(CODE.MEAN, "c axes", "m", schema.ReducerOptionsT()),
            op(CODE.DEQUANTIZE, "m", "y", schema.DequantizeOptionsT()),
        ],
    )


def test_floats_around_an_integer_network_go_into_the_table(tmp_path: Path) -> None:
    data = float_in_float_out()
    bundle = import_model(kept(tmp_path / "x.tflite", data))
    assert bundle.graph is not None and [node.op for node in bundle.graph.nodes] == ["table", "conv2d", "mean", "dequantize"]
    image = RNG.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    assert_array_equal(integer_runner(bundle)(image), judged(data, image.astype(np.float32) / 255))
    with pytest.raises(NestlingError, match="no embedding"):
        integer_runner(bundle).features(image)


# ---- what a file says of its normalisation -------------------------------------------------------------------------------------


def small_file(dtype: str, entries: dict[str, bytes], channels: int = 3) -> bytes:
    """x -> MEAN over the image: scores are the means of the channels, in real numbers."""
    q = {"float32": None, "int8": quant(0.02, -5)}[dtype]
    tensors = [activation("x", (1, 8, 8, channels), q), ints("axes", 1, 2), activation("y", (1, channels), q)]
    operators = (op(CODE.MEAN, "x axes", "y", schema.ReducerOptionsT()),)
    return write(Listing({t.name: t for t in tensors}, operators, ("x",), ("y",)), entries)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ([127.5], [127.5], lambda v: (v - 127.5) / 127.5),
        (
            [123.675, 116.28, 103.53],
            [58.395, 57.12, 57.375],
            lambda v: (v - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375]),
        ),
        ([0.0], [1.0], None),  # nothing is to be done to the bytes
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_standards_normalisation_is_believed(
    mean: list[float], std: list[float], expected: Callable | None, dtype: str, tmp_path: Path
) -> None:
    data = small_file(dtype, {"TFLITE_METADATA": standard_metadata(mean, std)})
    bundle = import_model(kept(tmp_path / "x.tflite", data))
    image = np.full((1, 8, 8, 3), 200, np.uint8)
    assert not any("its input" in note for note in bundle.lineage[-1].settings["assumed"])
    bytes_themselves = 200 if dtype == "float32" else (200 - 128 + 5) * 0.02
    real = np.full(3, bytes_themselves) if expected is None else np.broadcast_to(expected(200.0), 3)
    if dtype == "int8":
        real = np.clip(real, (-128 + 5) * 0.02, (127 + 5) * 0.02)
    runner = float_runner(bundle) if dtype == "float32" else integer_runner(bundle)
    assert_allclose(runner(image)[0], real, atol=1e-4 if dtype == "float32" else 0.0101)


@pytest.mark.parametrize("value", [float("nan"), 0.0, -1.0])
def test_a_normalisation_that_makes_no_sense_is_as_none(value: float, tmp_path: Path) -> None:
    data = small_file("float32", {"TFLITE_METADATA": standard_metadata([0.0], [value])})
    with pytest.raises(NestlingError, match=r"x\.tflite does not say which numbers it takes"):
        import_model(kept(tmp_path / "x.tflite", data))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_nestling_wrote_comes_before_the_standard(dtype: str, tmp_path: Path) -> None:
    own_words = ImagePreprocess((8, 8), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)
    entry = json.dumps({"schema": 1, "labels": ["a", "b", "c"], "preprocess": to_plain(own_words), "learned_from": {}})
    data = small_file(dtype, {"nestling": entry.encode(), "TFLITE_METADATA": standard_metadata([0.0], [255.0])})
    bundle = import_model(kept(tmp_path / "x.tflite", data))
    assert bundle.preprocess == own_words and bundle.labels == ("a", "b", "c")
    assert not any("its input" in note for note in bundle.lineage[-1].settings["assumed"])
    runner = float_runner(bundle) if dtype == "float32" else integer_runner(bundle)
    assert_allclose(runner(np.full((1, 8, 8, 3), 191, np.uint8))[0], (191 / 255 - 0.5) / 0.5, atol=0.0101)


def test_the_callers_normalisation_comes_first(tmp_path: Path) -> None:
    path = kept(tmp_path / "x.tflite", small_file("float32", {"TFLITE_METADATA": standard_metadata([1.0], [2.0])}))
    bundle = import_model(path, mean=(0.5,), std=(0.25,))
    assert_allclose(float_runner(bundle)(np.full((1, 8, 8, 3), 255, np.uint8))[0], 2.0, rtol=1e-6)
    with pytest.raises(NestlingError, match="belong together"):
        import_model(path, mean=(0.5,))
    with pytest.raises(NestlingError, match="3 channels"):
        import_model(path, mean=(0.5, 0.5), std=(1.0,))


# ---- float networks ------------------------------------------------------------------------------------------------------------


def test_a_float_network_is_backbone_and_head(shared_data: Shared) -> None:
    path = shared_data("vww_96_float.tflite")
    bundle = import_model(path, **SHARES)
    assert bundle.graph is None and bundle.head is not None and bundle.head.weight.shape == (2, 256)
    images = RNG.integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    runner = float_runner(bundle)
    assert runner.features(images).shape == (2, 256)
    for image, logits in zip(images, runner(images), strict=True):
        assert_allclose(softmax(logits), judged(path.read_bytes(), image[None].astype(np.float32) / 255)[0], atol=1e-5)
    exported = torch.export.export(build(bundle), (torch.from_numpy(images[:1]),)).module()
    assert_allclose(exported(torch.from_numpy(images[:1])).detach().numpy(), runner(images[:1]), rtol=1e-4, atol=1e-5)


def ends(dense_last: bool) -> bytes:
    """conv 1x1 -> pool, or pool -> conv 1x1, then reshape and softmax, in float."""
    window = {"strideH": 1, "strideW": 1, "padding": schema.Padding.VALID}
    conv, pool = schema.Conv2DOptionsT(), schema.Pool2DOptionsT()
    for options, more in ((conv, {"dilationHFactor": 1, "dilationWFactor": 1}), (pool, {"filterHeight": 8, "filterWidth": 8})):
        for name, value in (window | more).items():
            setattr(options, name, value)
    beta = schema.SoftmaxOptionsT()
    beta.beta = 1.0
    w, b = RNG.normal(0, 1, (5, 1, 1, 6)).astype(np.float32), RNG.normal(0, 1, 5).astype(np.float32)
    first = RNG.normal(0, 1, (6, 1, 1, 3)).astype(np.float32)
    tensors = [
        activation("x", (1, 8, 8, 3)), constant("w0", first), constant("b0", np.zeros(6, np.float32)),
        activation("a", (1, 8, 8, 6)), constant("w", w), constant("b", b),
        activation("p", (1, 1, 1, 6) if dense_last else (1, 8, 8, 5)),
        activation("s", (1, 1, 1, 5)), ints("to", 1, 5), activation("r", (1, 5)), activation("y", (1, 5)),
    ]  # fmt: skip
    middle = (
        [op(CODE.AVERAGE_POOL_2D, "a", "p", pool), op(CODE.CONV_2D, "p w b", "s", conv)]
        if dense_last
        else [op(CODE.CONV_2D, "a w b", "p", conv), op(CODE.AVERAGE_POOL_2D, "p", "s", pool)]
    )
    start = op(CODE.CONV_2D, "x w0 b0", "a", conv)
    return file(tensors, [start, *middle, op(CODE.RESHAPE, "s to", "r", version=1), op(CODE.SOFTMAX, "r", "y", beta)])


@pytest.mark.parametrize("dense_last", [True, False])
def test_a_last_convolution_on_one_place_is_the_head_too(dense_last: bool, tmp_path: Path) -> None:
    data = ends(dense_last)
    bundle = import_model(kept(tmp_path / "x.tflite", data), **SHARES)
    image = RNG.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    logits = float_runner(bundle)(image)[0]
    assert_allclose(softmax(logits), judged(data, image.astype(np.float32) / 255)[0], atol=1e-5)
    if dense_last:
        assert bundle.head is not None and bundle.head.weight.shape == (5, 6)
    else:
        assert bundle.head is None and "its own end" in bundle.lineage[-1].settings["assumed"][0]
    again = bundles.from_bytes(bundles.to_bytes(bundle), "again")
    assert_array_equal(float_runner(again)(image)[0], logits)


# ---- our own prints ------------------------------------------------------------------------------------------------------------


def own(integer: bool) -> tuple[Bundle, bytes]:
    preprocess = ImagePreprocess((8, 8), 3, 0.875, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    head = Head(RNG.normal(0, 1, (3, 8)).astype(np.float32), np.ones(3, np.float32))
    graph = small_graph(integer)
    bundle = Bundle(None if integer else graph, {}, head, ("a", "b", "ü"), preprocess, graph=graph if integer else None)
    return bundle, print_graph(with_head(graph, head, features=True), labels=bundle.labels, preprocess=to_plain(preprocess))


@pytest.mark.parametrize("integer", [True, False])
def test_what_nestling_printed_comes_back_with_its_head(integer: bool, tmp_path: Path) -> None:
    bundle, data = own(integer)
    again = import_model(kept(tmp_path / "x.tflite", data))
    assert (again.labels, again.preprocess) == (bundle.labels, bundle.preprocess)
    assert again.head is not None and bundle.head is not None
    assert_array_equal(again.head.weight, bundle.head.weight)
    images = RNG.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    runner = integer_runner if integer else float_runner
    assert_allclose(runner(again)(images), runner(bundle)(images), rtol=1e-5, atol=1e-5)
    for image, logits in zip(images, runner(again)(images), strict=True):
        assert_allclose(judged(data, image[None])[0], logits, rtol=1e-4, atol=1e-4)


def test_a_quantised_bundle_is_loaded_as_integers_and_a_tflite_as_itself(tmp_path: Path) -> None:
    bundle, data = own(True)
    bundles.save(bundle, tmp_path / "x.nest")
    images = RNG.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    answers = load(tmp_path / "x.nest")(images)
    assert_array_equal(answers, integer_runner(bundle)(images))
    assert_allclose(load(kept(tmp_path / "x.tflite", data))(images), answers, rtol=0.1, atol=0.3)


def test_printing_from_a_quantised_bundle_imports_no_torch(tmp_path: Path) -> None:
    bundle, _ = own(True)
    bundles.save(bundle, tmp_path / "x.nest")
    program = """
import sys
from pathlib import Path
from nestling import bundle as bundles
from nestling.graph.ends import with_head
from nestling.formats import load
from nestling.formats.tflite.printing import print_graph
bundle = bundles.load(Path(sys.argv[1]))
Path(sys.argv[2]).write_bytes(print_graph(with_head(bundle.graph, bundle.head), labels=bundle.labels))
load(Path(sys.argv[1]))
from nestling.artifacts.import_model import import_model
import_model(Path(sys.argv[2]))
from nestling.measure import trace
heavy = {"torch", "timm", "openvino", "executorch"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "x.nest", tmp_path / "x.tflite"], check=True)
    assert (tmp_path / "x.tflite").stat().st_size > 1000


# ---- what is refused -----------------------------------------------------------------------------------------------------------


def test_what_is_no_classifier_is_refused_by_name(tmp_path: Path) -> None:
    map_ = [activation("x", (1, 8, 8, 3)), activation("y", (1, 8, 8, 3))]
    with pytest.raises(UnusableFile, match="one score a class"):
        import_model(kept(tmp_path / "map.tflite", file(map_, [op(CODE.LOGISTIC, "x", "y")])))
    with pytest.raises(UnusableFile, match="nothing"):
        import_model(tmp_path / "nothing.tflite")


def test_labels_must_be_as_many_as_classes(tmp_path: Path) -> None:
    path = kept(tmp_path / "x.tflite", small_file("float32", {}))
    assert import_model(path, **SHARES).labels == ("class 0", "class 1", "class 2")
    assert import_model(path, ("a", "b", "c"), **SHARES).labels == ("a", "b", "c")
    with pytest.raises(NestlingError, match="knows 3 classes; --labels names 2"):
        import_model(path, ("a", "b"), **SHARES)
    (tmp_path / "l.txt").write_text("\ufeffcat\r\ndog ü\r\n\r\n", encoding="utf-8")
    assert read_labels(tmp_path / "l.txt") == ("cat", "dog ü")
    (tmp_path / "l.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UnusableFile, match="empty line"):
        read_labels(tmp_path / "l.txt")


def test_a_bundle_whose_parts_do_not_fit_is_refused() -> None:
    bundle, _ = own(True)
    other_head = Head(np.zeros((3, 9), np.float32), np.zeros(3, np.float32))
    other_size = ImagePreprocess((16, 8), 3, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    for wrong, said in (
        (replace(bundle, labels=("a", "b")), "2 labels and a head of 3"),
        (replace(bundle, head=None), "3 numbers are expected"),
        (replace(bundle, head=other_head), "9 numbers are expected"),
        (replace(bundle, graph=None), "holds no network"),
        (replace(bundle, preprocess=other_size), "not images"),
    ):
        with pytest.raises(UnusableFile, match=said):
            bundles.from_bytes(bundles.to_bytes(wrong), "x.nest")


def test_a_quick_runner_believes_kernels_only_once_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _ = own(True)
    images = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    expected = integer_runner(bundle)(images)
    for kernels in (lambda image: np.zeros((1, 8), np.int8), lambda image: np.zeros((1, 8), np.float32), None):
        monkeypatch.setattr("nestling.formats.nest.integers._kernels", lambda graph, kernels=kernels: kernels)
        assert_array_equal(integer_runner(bundle, quick=True)(images), expected)
