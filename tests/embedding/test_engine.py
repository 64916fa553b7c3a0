"""The engine of a Graph against torch, LiteRT's reference kernels and whole(); and what must not change: an image's bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from nestling import pool
from nestling.artifacts.import_model import import_model
from nestling.bundle import Bundle
from nestling.compress.channels import thinned, total_macs
from nestling.embedding.engine import graph_engine
from nestling.embedding.of_bundle import bundle_engine
from nestling.formats.tflite import floats
from nestling.formats.tflite.floats import whole
from nestling.formats.tflite.printing import print_graph
from nestling.graph import ir
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.ir import Graph, Node, Tensor
from nestling.graph.passes import prepare
from nestling.graph.spec import check, output_shape
from nestling.models.backbones import build, create, preprocess_of
from nestling.models.capture.capture import capture
from nestling.models.float_graph import with_structure
from nestling.models.plain import plain
from nestling.preprocess.image import table
from nestling.processor import cores
from tests.helpers.seeds import small_graph
from tests.helpers.tflite_files import judged
from tests.helpers.torch_networks import difference, network

MANY = 1000


@cache
def _graph_bundle(takes: str = "bytes", name: str = "mobilenetv3_small_050") -> tuple[Bundle, nn.Module]:
    """A bundle as pruning makes it, batch norms and all, and timm's own network. takes: bytes, or numbers (normalised outside)."""
    module, preprocess = network(name), preprocess_of(name, 64)
    graph = capture(plain(module), (64, 64, 3), table(preprocess) if takes == "bytes" else None)
    return Bundle(graph, {}, None, (), preprocess), module


def _images(count: int, side: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), np.uint8)


def _odd_pool() -> Graph:
    """A float graph that no .tflite can hold: its pool's padding is neither SAME nor VALID."""
    body = small_graph(integer=False)
    attrs = ir.AveragePool((3, 3), (1, 1), (1, 0, 1, 0))
    image = body.tensors["x"]
    out = Tensor("odd", output_shape("average_pool", attrs, image.shape), "float32")
    tensors = {name: body.tensors[name] for name in ("image", "table", "x")} | {"odd": out}
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    conv = ir.Conv2d(clamp="relu6")
    tensors["w"] = Tensor("w", weight.shape, "float32", weight)
    tensors["y"] = Tensor("y", output_shape("conv2d", conv, out.shape, weight.shape), "float32")
    nodes = (body.nodes[0], Node("average_pool", ("x",), ("odd",), attrs), Node("conv2d", ("odd", "w"), ("y",), conv))
    return check(Graph(tensors, nodes, ("image",), ("y",)))


@pytest.mark.parametrize("takes", ["bytes", "numbers"])
def test_embeddings_of_a_graph_are_torchs(takes: str) -> None:
    bundle, module = _graph_bundle(takes)
    engine, images = bundle_engine(bundle, MANY), _images(3)
    found = engine(images)
    normalised = np.stack([table(bundle.preprocess)[c][images[..., c]] for c in range(3)], axis=1)
    with torch.no_grad():
        wanted = module(torch.from_numpy(normalised)).numpy()
    assert engine.name.startswith("litert-") and found.dtype == np.float32 and found.shape == (3, engine.width)
    assert difference(found, wanted) <= 1e-4


def test_embeddings_of_a_named_backbone_are_torchs_with_its_structure_or_without() -> None:
    bundle = Bundle(*(create("mobilenetv2_050", "none", 64)[:2]), None, (), preprocess_of("mobilenetv2_050", 64))
    with torch.no_grad():
        wanted = build(bundle)(torch.from_numpy(_images(2))).numpy()
    first, second = bundle_engine(bundle, MANY), bundle_engine(with_structure(bundle), MANY)
    assert difference(first(_images(2)), wanted) <= 1e-4
    assert first.name == second.name  # so that the cache knows them


def test_embeddings_of_a_pruned_network_are_torchs() -> None:
    bundle, _ = _graph_bundle("numbers", "mobilenetv2_050")
    assert isinstance(bundle.architecture, Graph)
    head = Head(np.ones((2, 1280), np.float32), np.zeros(2, np.float32))
    thin = thinned(bundle.architecture, head, total_macs(bundle.architecture) // 2)
    pruned = replace(bundle, architecture=thin.graph, head=thin.head, labels=("a", "b"))
    with torch.no_grad():
        wanted = build(replace(pruned, head=None))(torch.from_numpy(_images(3))).numpy()
    assert difference(bundle_engine(pruned, MANY)(_images(3)), wanted) <= 1e-4


def test_an_imported_networks_embedding_under_its_head_is_the_files_answer(tmp_path: Path) -> None:
    """The file's answer is LiteRT's."""
    head = Head(np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32), np.ones(3, np.float32))
    content = print_graph(with_head(small_graph(integer=False), head), labels=("a", "b", "c"))
    (tmp_path / "x.tflite").write_bytes(content)
    bundle = import_model(tmp_path / "x.tflite")
    engine, images = bundle_engine(bundle, MANY), _images(3, 8)
    assert bundle.head is not None
    found = engine(images) @ bundle.head.weight.T + bundle.head.bias
    assert difference(found, np.concatenate([judged(content, image[None]) for image in images])) <= 1e-4


def test_a_network_that_the_graph_has_no_place_for_goes_through_torch() -> None:
    architecture, arrays, preprocess = create("test_convnext", "none", 32)
    bundle = Bundle(architecture, arrays, None, (), preprocess)
    engine = bundle_engine(bundle, 1)
    with torch.no_grad():
        wanted = build(bundle)(torch.from_numpy(_images(2, 32))).numpy()
    assert engine.name.startswith("torch-") and difference(engine(_images(2, 32)), wanted) <= 1e-5


def test_a_network_that_torch_export_cannot_follow_goes_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: object, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))

    architecture, arrays, preprocess = create("test_efficientnet", "none", 32)
    monkeypatch.setattr(timm.models.efficientnet.EfficientNet, "forward", forward)
    bundle = Bundle(architecture, arrays, None, (), preprocess)
    engine, images = bundle_engine(bundle, 1), _images(2, 32)
    means = table(preprocess)[np.arange(3), images].mean((1, 2))
    assert difference(engine(images), np.where(means.sum(1, keepdims=True) > 0, means, -means)) <= 1e-4


def test_integers_under_reference_kernels_are_the_reference_kernels_own() -> None:
    graph = small_graph(integer=True)
    quant = graph.tensors[graph.outputs[0]].quant
    assert quant is not None
    engine, images = graph_engine(graph, "reference"), _images(5, 8)
    wanted = np.concatenate([judged(print_graph(graph), image[None]) for image in images]).reshape(5, -1)
    real = (wanted.astype(np.float32) - np.float32(quant.zero_point[0])) * quant.scale[0]
    np.testing.assert_array_equal(engine(images), real)
    assert engine.name != graph_engine(graph).name != graph_engine(small_graph(integer=False)).name


def _graph() -> Graph:
    graph = _graph_bundle()[0].architecture
    assert isinstance(graph, Graph)
    return prepare(graph)


GRAPHS: Mapping[str, Callable[[], Graph]] = {
    "a network": _graph,
    "no tflite": _odd_pool,
    "integers": lambda: small_graph(integer=True),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_an_image_gives_the_same_bytes_everywhere(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone or among others, in another order, on any number of cores: those of the graph run as a whole."""
    graph = GRAPHS[what]()
    images = _images(12, graph.tensors[graph.inputs[0]].shape[1])
    by_itself, quant = whole(graph), graph.tensors[graph.outputs[0]].quant
    rows = np.concatenate([by_itself(image[None]).reshape(1, -1) for image in images])
    wanted = rows if quant is None else quant.real(rows)
    order = np.random.default_rng(2).permutation(12)
    for count in (1, 3, 7):
        for module in (pool, floats):
            monkeypatch.setattr(module, "cores", lambda count=count: count)
        engine = graph_engine(graph)
        assert engine(images).tobytes() == wanted.tobytes()
        assert engine(images[order]).tobytes() == wanted[order].tobytes()
        assert engine(images[3:4]).tobytes() == wanted[3:4].tobytes()
        assert engine.name == graph_engine(graph).name


def test_names_tell_graphs_apart() -> None:
    graph = small_graph(integer=False)
    some = next(tensor for tensor in graph.tensors.values() if tensor.data is not None)
    other = replace(graph, tensors={**graph.tensors, some.name: replace(some, data=np.add(some.data, np.float32(1e-3)))})
    assert graph_engine(other).name != graph_engine(graph).name


def test_nothing_in_nothing_out() -> None:
    engine = graph_engine(small_graph(integer=False))
    assert engine(_images(0, 8)).shape == (0, engine.width)


def test_an_error_while_decoding_comes_through() -> None:
    def images() -> Iterator[NDArray[np.uint8]]:
        yield from _images(3, 8)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(graph_engine(small_graph(integer=False)).embed(images()))


def test_it_looks_ahead_only_a_little() -> None:
    """Or a folder of a million images would wait in memory."""
    asked = 0

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal asked
        for image in _images(60, 8):
            asked += 1
            yield image

    ahead = 0
    for taken, _ in enumerate(graph_engine(small_graph(integer=False)).embed(images())):
        ahead = max(ahead, asked - taken)
    assert ahead <= 2 * cores() + 1


def test_stopping_early_leaves_a_usable_engine() -> None:
    engine = graph_engine(small_graph(integer=False))
    wanted = engine(_images(4, 8))
    vectors = engine.embed(iter(_images(30, 8)))
    next(vectors)
    del vectors
    assert np.array_equal(engine(_images(4, 8)), wanted)
