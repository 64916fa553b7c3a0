"""Engines against torch run plainly on one image; and what must not change: bytes, homes, networks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.artifacts.import_model import import_model
from nestling.bundle import Bundle
from nestling.compress.channels import thinned, total_macs
from nestling.embedding import engine as engine_module
from nestling.embedding import of_bundle as bundle_engine_module
from nestling.embedding.engine import FEW, engine_for
from nestling.embedding.of_bundle import bundle_engine
from nestling.formats.tflite.printing import print_graph
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.models.backbones import Network, Normalise, build, build_backbone, create, preprocess_of
from nestling.models.capture.capture import capture
from nestling.models.float_graph import float_graph
from nestling.models.plain import plain
from nestling.preprocess.image import ImagePreprocess, Preprocess, table
from tests.helpers.seeds import small_graph
from tests.helpers.tflite_files import judged
from tests.helpers.torch_networks import difference, network

MANY = FEW + 1
VIT = pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)  # attention, and 224 pixels


def _network(name: str = "mobilenetv2_050") -> tuple[nn.Module, ImagePreprocess]:
    architecture, arrays, preprocess = create(name, "none", 96)
    return build_backbone(architecture, arrays), preprocess


def _images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 96, 96, 3), np.uint8)


def _by_torch(backbone: nn.Module, preprocess: Preprocess, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    normalised = np.stack([table(preprocess)[c][images[..., c]] for c in range(3)], axis=1)
    with torch.no_grad():
        return backbone(torch.from_numpy(normalised)).numpy()


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("name", ["mobilenetv2_050", "tf_efficientnet_lite0", "mobilenetv3_small_050", VIT])
def test_embeddings_are_torchs(name: str, count: int) -> None:
    architecture, arrays, preprocess = create(name, "none", None if name.startswith("vit") else 96)
    backbone = build_backbone(architecture, arrays)
    images = np.random.default_rng(1).integers(0, 256, (3, *preprocess.size, 3), np.uint8)
    engine = engine_for(backbone, preprocess, count)
    assert engine.name.startswith("torch-" if count == FEW else "openvino-")
    wanted = _by_torch(backbone, preprocess, images)
    found = engine(images)
    assert found.dtype == np.float32 and found.shape == (3, engine.width)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_the_same_image_gives_the_same_bytes_everywhere(count: int) -> None:
    backbone, preprocess = _network()
    images = _images(12)
    first = engine_for(backbone, preprocess, count)
    again = engine_for(backbone, preprocess, count)
    vectors = first(images)
    order = np.random.default_rng(2).permutation(12)
    assert np.array_equal(first(images[order]), vectors[order])
    assert np.array_equal(again(np.concatenate([images[5:], images]))[7:], vectors)
    assert np.array_equal(first(images[3:4])[0], vectors[3])
    assert first.name == again.name


def test_bytes_do_not_depend_on_how_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, preprocess = _network()
    vectors = engine_for(backbone, preprocess, MANY)(_images(4))
    for cores in (1, 3):
        monkeypatch.setattr(engine_module, "_cores", lambda cores=cores: cores)
        assert np.array_equal(engine_for(backbone, preprocess, MANY)(_images(4)), vectors)


def test_names_tell_networks_apart() -> None:
    backbone, preprocess = _network()
    name = engine_for(backbone, preprocess, 1).name
    stem: Any = backbone.conv_stem
    with torch.no_grad():
        stem.weight[0, 0, 0, 0] += 1e-3
    assert engine_for(backbone, preprocess, 1).name != name


@pytest.mark.parametrize("count", [FEW, MANY])
def test_training_afterwards_does_not_reach_the_engine(count: int) -> None:
    backbone, preprocess = _network()
    engine = engine_for(backbone, preprocess, count)
    before = engine(_images(2))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    assert np.array_equal(engine(_images(2)), before)
    assert next(backbone.parameters()).requires_grad


@pytest.mark.parametrize("count", [FEW, MANY])
def test_nothing_in_nothing_out(count: int) -> None:
    backbone, preprocess = _network()
    engine = engine_for(backbone, preprocess, count)
    assert engine(_images(0)).shape == (0, engine.width)


@pytest.mark.parametrize("count", [FEW, MANY])
def test_an_error_while_decoding_comes_through(count: int) -> None:
    def images() -> Iterator[NDArray[np.uint8]]:
        yield from _images(3)
        raise OSError("the disk is gone")

    backbone, preprocess = _network()
    with pytest.raises(OSError, match="the disk is gone"):
        list(engine_for(backbone, preprocess, count).embed(images()))


def test_it_looks_ahead_only_a_little() -> None:
    """Or a folder of a million images would wait in memory."""
    backbone, preprocess = _network()
    asked = 0

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal asked
        for image in _images(60):
            asked += 1
            yield image

    ahead = 0
    for taken, _ in enumerate(engine_for(backbone, preprocess, MANY).embed(images())):
        ahead = max(ahead, asked - taken)
    assert ahead < 20


def test_stopping_early_leaves_a_usable_engine() -> None:
    backbone, preprocess = _network()
    engine = engine_for(backbone, preprocess, MANY)
    wanted = engine(_images(4))
    vectors = engine.embed(iter(_images(30)))
    next(vectors)
    del vectors
    assert np.array_equal(engine(_images(4)), wanted)


def test_without_openvino_torch_does_it_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise ImportError("No module named 'openvino'")

    monkeypatch.setattr(engine_module, "_openvino", absent)
    backbone, preprocess = _network()
    with pytest.warns(UserWarning, match="OpenVINO can't run this network"):
        engine = engine_for(backbone, preprocess, MANY)
    assert engine.name.startswith("torch-")
    assert np.array_equal(engine(_images(2)), engine_for(backbone, preprocess, 1)(_images(2)))


def test_a_wrong_openvino_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network gets other weights than torch's: the test image shows it."""
    trace = engine_module._traced

    def spoiled(network: nn.Module, shape: tuple[int, int, int]) -> Any:
        other, preprocess = _network("mobilenetv3_small_050")
        return trace(Network(Normalise(preprocess), other, None).eval(), shape)

    monkeypatch.setattr(engine_module, "_traced", spoiled)
    backbone, preprocess = _network("mobilenetv1_100")  # embeddings of the same length, 1024
    with pytest.warns(UserWarning, match="differs from torch's"):
        assert engine_for(backbone, preprocess, MANY).name.startswith("torch-")


# ---- bundles whose architecture is a Graph --------------------------------------------------------------------------------------


@cache
def _graph_bundle(takes: str = "bytes", name: str = "mobilenetv3_small_050") -> tuple[Bundle, nn.Module]:
    """A bundle as pruning makes it, batch norms and all, and timm's own network. takes: bytes, or numbers (normalised outside)."""
    module, preprocess = network(name), preprocess_of(name, 64)
    graph = capture(plain(module), (64, 64, 3), table(preprocess) if takes == "bytes" else None)
    return Bundle(graph, {}, None, (), preprocess), module


def _small_images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("takes", ["bytes", "numbers"])
def test_embeddings_of_a_graph_are_torchs(takes: str, count: int) -> None:
    bundle, module = _graph_bundle(takes)
    engine = bundle_engine(bundle, count)
    assert engine.name.startswith("torch-" if count == FEW else "openvino-")
    found = engine(_small_images(3))
    assert found.dtype == np.float32 and found.shape == (3, engine.width)
    assert difference(found, _by_torch(module, bundle.preprocess, _small_images(3))) <= 1e-4


def test_embeddings_of_a_pruned_network_are_torchs() -> None:
    bundle, _ = _graph_bundle("numbers", "mobilenetv2_050")
    assert isinstance(bundle.architecture, Graph)
    head = Head(np.ones((2, 1280), np.float32), np.zeros(2, np.float32))
    thin = thinned(bundle.architecture, head, total_macs(bundle.architecture) // 2)
    pruned = replace(bundle, architecture=thin.graph, head=thin.head, labels=("a", "b"))
    engine, images = bundle_engine(pruned, MANY), _small_images(3)
    with torch.no_grad():
        wanted = build(replace(pruned, head=None))(torch.from_numpy(images)).numpy()
    assert engine.name.startswith("openvino-")
    assert difference(engine(images), wanted) <= 1e-4


def test_an_imported_networks_embedding_under_its_head_is_the_files_answer(tmp_path: Path) -> None:
    """The file's answer is LiteRT's."""
    head = Head(np.random.default_rng(2).normal(size=(3, 8)).astype(np.float32), np.ones(3, np.float32))
    content = print_graph(with_head(small_graph(integer=False), head), labels=("a", "b", "c"))
    (tmp_path / "x.tflite").write_bytes(content)
    bundle = import_model(tmp_path / "x.tflite")
    engine, images = bundle_engine(bundle, MANY), _images(3)[:, :8, :8]
    assert engine.name.startswith("openvino-") and bundle.head is not None
    found = engine(images) @ bundle.head.weight.T + bundle.head.bias
    assert difference(found, np.concatenate([judged(content, image[None]) for image in images])) <= 1e-4


def test_an_image_gives_the_same_bytes_everywhere_from_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone or among others, in another order, with other cores."""
    bundle, _ = _graph_bundle()
    engine, images = bundle_engine(bundle, MANY), _small_images(12)
    vectors = engine(images)
    order = np.random.default_rng(2).permutation(12)
    assert engine.name.startswith("openvino-")
    assert np.array_equal(engine(images[order]), vectors[order])
    assert np.array_equal(engine(images[3:4])[0], vectors[3])
    for cores in (1, 3):
        monkeypatch.setattr(engine_module, "_cores", lambda cores=cores: cores)
        again = bundle_engine(bundle, MANY)
        assert np.array_equal(again(images), vectors) and again.name == engine.name


def test_names_tell_graphs_apart() -> None:
    bundle, _ = _graph_bundle()
    assert isinstance(bundle.architecture, Graph)
    tensors = bundle.architecture.tensors
    some = next(tensor for tensor in tensors.values() if tensor.data is not None)
    other = replace(bundle.architecture, tensors={**tensors, some.name: replace(some, data=np.add(some.data, np.float32(1e-3)))})
    assert bundle_engine(replace(bundle, architecture=other), MANY).name != bundle_engine(bundle, MANY).name


def test_a_graph_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would answer the same, more slowly."""

    def refuse(*_: object) -> Any:
        raise AssertionError("traced")

    monkeypatch.setattr(engine_module, "_traced", refuse)
    assert bundle_engine(_graph_bundle()[0], MANY).name.startswith("openvino-")


def test_a_graph_that_openvino_cannot_read_goes_through_torch_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _ = _graph_bundle()
    monkeypatch.setattr(bundle_engine_module, "print_graph", lambda *_: b"no onnx")
    with pytest.warns(UserWarning, match="OpenVINO can't run this network"):
        engine = bundle_engine(bundle, MANY)
    assert engine.name.startswith("torch-")
    assert np.array_equal(engine(_small_images(2)), bundle_engine(bundle, FEW)(_small_images(2)))


def test_a_wrong_print_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle, _), (other, _) = _graph_bundle(), _graph_bundle(name="mobilenetv3_small_075")  # both give 1024 numbers
    right = float_graph
    monkeypatch.setattr(bundle_engine_module, "float_graph", lambda _: right(other))
    with pytest.warns(UserWarning, match="differs from torch's"):
        assert bundle_engine(bundle, MANY).name.startswith("torch-")


# ---- the network and the home folder --------------------------------------------------------------------------------------------


PHONES_NOBODY = """
import socket, sys
def refuse(*args, **kwargs):
    print("NETWORK", args)
    raise OSError("no network in this test")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import numpy as np
from nestling.bundle import Bundle
from nestling.models.capture.capture import capture
from nestling.models.backbones import build_backbone, create
from nestling.embedding.of_bundle import bundle_engine
architecture, arrays, preprocess = create("mobilenetv3_small_050", "none", 64)
graph = capture(build_backbone(architecture, arrays), (64, 64, 3))
for bundle in (Bundle(architecture, arrays, None, (), preprocess), Bundle(graph, {}, None, (), preprocess)):
    engine = bundle_engine(bundle, 1000)
    engine(np.zeros((2, 64, 64, 3), np.uint8))
    assert engine.name.startswith("openvino-"), engine.name
print("TELEMETRY", [name for name in sys.modules if name.startswith("openvino_telemetry")])
"""


def test_openvino_phones_nobody_and_leaves_the_home_folder_alone(tmp_path: Path) -> None:
    """In a process of its own, with one thread as all tests have."""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PHONES_NOBODY]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "TELEMETRY []\n"
    assert not (tmp_path / "intel").exists()


SIGNALLED = """
import gc, os, signal
from nestling.bundle import Bundle
from nestling.models.backbones import create
from nestling.embedding.of_bundle import bundle_engine
architecture, arrays, preprocess = create("mobilenetv3_small_050", "none", 64)
engines = [bundle_engine(Bundle(architecture, arrays, None, (), preprocess), 1000) for _ in range(2)]
while engines:
    del engines[0]
    gc.collect()
held = [bytearray(b"x" * 20000) for _ in range(3000)]
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
assert all(each.count(b"x") == len(each) for each in held)
"""


def test_signals_are_heard_after_networks_are_let_go() -> None:
    """OpenVINO's stack for signals outlives the networks: see openvino_core."""
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SIGNALLED], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
