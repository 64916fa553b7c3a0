"""The .pte as a runner: what it says of itself, what it refuses, the normalisation of every byte, float programs from the Graph."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from nestling.errors import NestlingError, UnsupportedOp, UnusableFile
from nestling.formats.about import About, Gives, from_json, to_json
from nestling.formats.executorch import printing as executorch
from nestling.formats.executorch import run as executorch_run
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.executorch.run import ExecutorchRunner
from nestling.formats.tflite.read_builder import DTYPES
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.integers import Range, quant_of
from nestling.graph.ir import Graph, Node, Table, Tensor
from nestling.preprocess.image import ImagePreprocess
from nestling.preprocess.pictures import Reading
from tests.helpers.quantization_cases import Everything, Inverted, calibrated, captured, litert, pictures, seeded, torch_float

PREPROCESS = ImagePreprocess((16, 16), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, Reading(16383, "srgb"))
UNSEEN = pictures(24, seed=1)


def what(gives: Gives = "logits", preprocess: ImagePreprocess = PREPROCESS) -> About:
    return About(("a", "b"), preprocess, 3, "print", gives)


def printed(graph: Graph, about: About) -> ExecutorchRunner:
    return executorch_run.load_bytes(executorch.print_program(GraphProgram(graph).eval(), about).content, "x.pte")


@pytest.fixture(scope="module")
def backbone() -> Graph:
    return calibrated(captured(seeded(Inverted)), pictures(32))[0]


@pytest.fixture(scope="module")
def head(backbone: Graph) -> Head:
    width = backbone.tensors[backbone.outputs[0]].shape[1]
    return Head(np.random.default_rng(0).normal(0, 1, (2, width)).astype(np.float32), np.array([0.5, -1], np.float32))


@pytest.fixture(scope="module")
def features_program(backbone: Graph) -> ExecutorchRunner:
    return printed(backbone, what("embedding"))


@pytest.fixture(scope="module")
def logits_program(backbone: Graph, head: Head) -> ExecutorchRunner:
    return printed(with_head(backbone, head), what())


# ---- what it says of itself ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gives", ["logits", "embedding"])
def test_what_is_said_comes_back(gives: Gives) -> None:
    assert from_json(to_json(what(gives)), "x") == what(gives)


def test_programs_of_before_there_was_a_choice_give_logits() -> None:
    plain = json.loads(to_json(what("embedding")))
    del plain["gives"]
    assert from_json(json.dumps(plain), "x") == what("logits")


@pytest.mark.parametrize("nonsense", ["labels", ["logits"], 1])
def test_an_output_that_is_neither_is_refused_by_name(nonsense: object) -> None:
    plain = json.loads(to_json(what())) | {"gives": nonsense}
    with pytest.raises(UnusableFile, match=r"odd\.pte"):
        from_json(json.dumps(plain), "odd.pte")


def test_labels_that_are_not_its_scores_are_refused(backbone: Graph, head: Head) -> None:
    with pytest.raises(UnusableFile, match=r"x\.pte gives 2 scores and names 1 classes"):
        printed(with_head(backbone, head), replace(what(), labels=("a",)))


# ---- embedding and logits ------------------------------------------------------------------------------------------------------


def test_the_backbone_alone_gives_the_embeddings_real_numbers(backbone: Graph, features_program: ExecutorchRunner) -> None:
    """As LiteRT's reference kernels have them, but for the steps that one rounding instead of two makes."""
    step = backbone.tensors[backbone.outputs[0]].quant.scale[0]
    found, wanted = features_program.features(np.stack(UNSEEN)), litert(backbone, UNSEEN)
    assert found.dtype == np.float32 and found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2.01 * step and np.mean(np.abs(found - wanted) > 0.5 * step) < 0.25
    np.testing.assert_allclose(found / step, np.rint(found / step), atol=1e-3)


def test_each_program_gives_what_it_says_and_nothing_else(
    head: Head, features_program: ExecutorchRunner, logits_program: ExecutorchRunner
) -> None:
    images = np.stack(UNSEEN[:4])
    np.testing.assert_allclose(
        logits_program(images), features_program.features(images) @ head.weight.T + head.bias, rtol=1e-4, atol=1e-4
    )
    with pytest.raises(NestlingError, match=r"x\.pte gives the embedding, not logits"):
        features_program(images)
    with pytest.raises(NestlingError, match=r"x\.pte gives logits, not the embedding"):
        logits_program.features(images)


def test_no_images_give_no_rows_of_the_right_width(
    backbone: Graph, features_program: ExecutorchRunner, logits_program: ExecutorchRunner
) -> None:
    nothing = np.zeros((0, 16, 16, 3), np.uint8)
    assert logits_program(nothing).shape == (0, 2)
    assert features_program.features(nothing).shape == (0, backbone.tensors[backbone.outputs[0]].shape[1])


@pytest.mark.parametrize("images", [np.zeros((1, 15, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), np.float32)])
def test_other_images_are_refused_with_what_it_takes(logits_program: ExecutorchRunner, images: np.ndarray) -> None:
    with pytest.raises(NestlingError, match=r"uint8 images of shape \(16, 16, 3\)"):
        logits_program(images)


def test_a_damaged_program_is_refused_by_name(backbone: Graph) -> None:
    content = executorch.print_program(GraphProgram(backbone).eval(), what("embedding")).content
    for damaged in (b"", b"no program at all", content[: len(content) // 2]):
        with pytest.raises(UnusableFile, match=r"torn\.pte"):
            executorch_run.load_bytes(damaged, "torn.pte")


# ---- normalisation -------------------------------------------------------------------------------------------------------------

WAYS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "halves": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "bytes": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "grey": ((0.31,), (0.21,)),
}
Numbers = tuple[float, ...]


def normalised(mean: Numbers, std: Numbers, integer: bool) -> tuple[Graph, np.ndarray, np.ndarray]:
    """(a graph that is a table only, its table as real numbers, its entries)."""
    real = ((np.arange(256) / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]).astype(np.float32)
    quant = quant_of(Range(float(real.min()), float(real.max())), 8, False) if integer else None
    entries = real
    if quant is not None:
        entries = np.clip(np.rint(real.astype(np.float64) / quant.scale[0]) + quant.zero_point[0], -128, 127).astype(np.int8)
    shape, dtype = (1, 16, 16, len(mean)), DTYPES[entries.dtype.name]
    tensors = (
        Tensor("image", shape, "uint8"),
        Tensor("table", entries.shape, dtype, entries, quant),
        Tensor("normalised", shape, dtype, None, quant),
    )
    node = Node("table", ("image", "table"), ("normalised",), Table())
    return Graph({tensor.name: tensor for tensor in tensors}, (node,), ("image",), ("normalised",)), real, entries


def every_byte(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """(an image with every byte in every channel, what the program makes of it)."""
    channels = graph.tensors["image"].shape[3]
    rng = np.random.default_rng(0)
    image = np.stack([rng.permutation(256).astype(np.uint8).reshape(16, 16) for _ in range(channels)], -1)
    preprocess = ImagePreprocess((16, 16), 1 if channels == 1 else 3, 1.0, "bicubic", (0.5,) * channels, (0.5,) * channels)
    return image, printed(graph, what("embedding", preprocess)).features(image[None]).reshape(image.shape)


@pytest.mark.parametrize("way", WAYS)
def test_every_byte_is_normalised_to_the_tables_integer(way: str) -> None:
    graph, _, entries = normalised(*WAYS[way], integer=True)
    image, found = every_byte(graph)
    quant = graph.tensors["normalised"].quant
    steps = np.rint(found / quant.scale[0]).astype(np.int64) + quant.zero_point[0]
    np.testing.assert_array_equal(steps, entries[np.arange(len(entries)), image])


@pytest.mark.parametrize("way", WAYS)
def test_every_byte_is_normalised_to_the_tables_real_number(way: str) -> None:
    graph, real, _ = normalised(*WAYS[way], integer=False)
    image, found = every_byte(graph)
    np.testing.assert_allclose(found, real[np.arange(len(real)), image], atol=2e-6 * np.abs(real).max())


def test_entries_right_between_two_integers_are_a_step_off_at_the_most() -> None:
    """255 * 0.3 = 76.5: every byte's value lies on a tie, which the table may have rounded to either side."""
    graph, _, entries = normalised((0.3,), (0.21,), integer=True)
    image, found = every_byte(graph)
    quant = graph.tensors["normalised"].quant
    assert np.abs(found / quant.scale[0] + quant.zero_point[0] - entries[0][image]).max() < 1.01


def test_a_normalisation_that_is_no_line_is_refused() -> None:
    graph, _, entries = normalised(*WAYS["halves"], integer=False)
    bent = replace(graph.tensors["table"], data=np.sqrt(np.abs(entries)))
    with pytest.raises(UnsupportedOp, match="straight line"):
        printed(replace(graph, tensors={**graph.tensors, "table": bent}), what("embedding"))


# ---- float programs from the Graph ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Everything, Inverted])
def test_a_float_graph_answers_as_torch_does(make: type[torch.nn.Module]) -> None:
    module = seeded(make)
    program = printed(captured(module), what("embedding"))
    wanted = torch_float(module, UNSEEN)
    np.testing.assert_allclose(program.features(np.stack(UNSEEN)), wanted, atol=1e-5 * np.abs(wanted).max())
