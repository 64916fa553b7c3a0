"""Engines of torch's networks against torch run plainly on one image; and what must not change: bytes, homes, networks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.embedding import network_engine
from nestling.embedding.engine import Engine
from nestling.embedding.network_engine import FEW, engine_of
from nestling.models.backbones import Network, Normalise, build_backbone, create
from nestling.preprocess.image import ImagePreprocess, Preprocess, table

MANY = FEW + 1
VIT = pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)  # attention, and 224 pixels


def _network(name: str = "mobilenetv2_050") -> tuple[nn.Module, ImagePreprocess]:
    architecture, arrays, preprocess = create(name, "none", 96)
    return build_backbone(architecture, arrays), preprocess


def _images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 96, 96, 3), np.uint8)


def engine_for(backbone: nn.Module, preprocess: ImagePreprocess, count: int) -> Engine:
    """The backbone's, with the normalisation in front."""
    return engine_of(Network(Normalise(preprocess), backbone, None).eval(), (*preprocess.size, 3), count)


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
        monkeypatch.setattr(network_engine, "available", lambda cores=cores: cores)
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

    monkeypatch.setattr(network_engine, "_openvino", absent)
    backbone, preprocess = _network()
    with pytest.warns(UserWarning, match="OpenVINO can't run this network"):
        engine = engine_for(backbone, preprocess, MANY)
    assert engine.name.startswith("torch-")
    assert np.array_equal(engine(_images(2)), engine_for(backbone, preprocess, 1)(_images(2)))


def test_a_wrong_openvino_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network gets other weights than torch's: the test image shows it."""
    trace = network_engine._traced

    def spoiled(network: nn.Module, shape: tuple[int, int, int]) -> Any:
        other, preprocess = _network("mobilenetv3_small_050")
        return trace(Network(Normalise(preprocess), other, None).eval(), shape)

    monkeypatch.setattr(network_engine, "_traced", spoiled)
    backbone, preprocess = _network("mobilenetv1_100")  # embeddings of the same length, 1024
    with pytest.warns(UserWarning, match="differs from torch's"):
        assert engine_for(backbone, preprocess, MANY).name.startswith("torch-")


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
from nestling.models.backbones import build, create
from nestling.embedding.network_engine import engine_of
architecture, arrays, preprocess = create("mobilenetv3_small_050", "none", 64)
engine = engine_of(build(Bundle(architecture, arrays, None, (), preprocess)), (64, 64, 3), 1000)
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
from nestling.models.backbones import build, create
from nestling.embedding.network_engine import engine_of
architecture, arrays, preprocess = create("mobilenetv3_small_050", "none", 64)
network = build(Bundle(architecture, arrays, None, (), preprocess))
engines = [engine_of(network, (64, 64, 3), 1000) for _ in range(2)]
assert all(engine.name.startswith("openvino-") for engine in engines)
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
