"""Weights in other people's files: numbers that no network can have are refused by the tensor's name, dead channels are not."""

from __future__ import annotations

import argparse
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from nestling.errors import UnusableFile
from nestling.models.backbones import create
from nestling.models.pth import MAKERS, Claim, tensors_of
from nestling.models.weights import fill, network_in, read_state
from nestling.outside import unzipped
from tests.helpers.damage import archive, overlapping, repeated
from tests.helpers.seeds import weighted

SMALL = "test_efficientnet"


def stored(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "ckpt"])
@pytest.mark.parametrize(
    ("name", "value"), [("0.weight", torch.nan), ("0.bias", torch.inf), ("1.running_var", -1e-9), ("1.running_mean", -torch.inf)]
)
def test_broken_numbers_name_their_tensor(name: str, value: float, suffix: str, tmp_path: Path) -> None:
    state = weighted().state_dict()
    state[name].reshape(-1)[1] = value
    path = stored(state, tmp_path / f"w.{suffix}")
    module = weighted()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(UnusableFile, match=rf"w\.{suffix}: '{name}' holds"):
        fill(module, read_state(path), str(path))
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


def test_a_classifier_that_is_not_taken_may_be_broken() -> None:
    state = {**weighted().state_dict(), "head.weight": torch.full((2, 2), torch.nan)}
    fill(weighted(), state, "x", ignore=("head.",))


def test_dead_channels_are_taken_and_broken_weights_refused_by_fit(tmp_path: Path) -> None:
    """By the name of the file and of the tensor, as a user meets them."""
    _, arrays, _ = create(SMALL, "none", 64)
    state = timm.create_model(SMALL, num_classes=0).state_dict()
    variance = next(name for name in state if name.endswith("running_var"))
    state[variance][:2] = 0
    path = stored(state, tmp_path / "w.safetensors")
    taken = create(SMALL, str(path), 64)[1]
    assert taken.keys() == arrays.keys()
    assert any((array == 0).any() for name, array in taken.items() if name.endswith("running_var"))
    state[variance][0] = -1
    with pytest.raises(UnusableFile, match=rf"w\.safetensors.*{variance}"):
        create(SMALL, str(stored(state, path)), 64)


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_a_claim_are_refused() -> None:
    """A sparse or absent tensor of the right shape takes no bytes of the file, whatever its shape."""
    module = nn.Linear(2, 3)
    for weight in (
        torch.sparse_coo_tensor(size=(3, 2)),  # type: ignore[call-arg]  # torch takes a size alone, its types do not say so
        torch.empty(3, 2, device="meta"),
        torch.zeros(3, 2, dtype=torch.complex64),
        torch.quantize_per_tensor(torch.zeros(3, 2), 1.0, 0, torch.qint8),
    ):
        with pytest.raises(UnusableFile, match="x: 'weight' is no plain tensor"):
            fill(module, {"weight": weight, "bias": torch.zeros(3)}, "x")


def test_archives_that_unfold_are_refused(tmp_path: Path) -> None:
    path = stored(weighted().state_dict(), tmp_path / "w.pth")
    members = unzipped(path.read_bytes(), "seed")
    for content in (archive(members, compressed=True), repeated(members, 2), overlapping(members, 3)):
        path.write_bytes(content)
        with pytest.raises(UnusableFile, match=r"w\.pth"):
            read_state(path)


# ---- what a .pth may hold ------------------------------------------------------------------------------------------------------


class Schedule:
    """What a training program keeps beside its weights."""

    def __init__(self) -> None:
        self.steps = {"a": [1, 2]}


@pytest.mark.parametrize("prefix", ["", "model.", "net.encoder."])
def test_checkpoints_of_training_programs_are_read(prefix: str, tmp_path: Path) -> None:
    """Whatever is no tensor is skipped; the network is found under its prefix, beside others."""
    state = {f"{prefix}{name}": value for name, value in weighted().state_dict().items()}
    beside = {"criterion.weight": torch.ones(3), "loss": nn.Parameter(torch.zeros(1))}
    saved = {
        "state_dict": OrderedDict(state | beside),
        "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.99)),
        "schedule": Schedule(),
        "rng": np.random.default_rng(0).bit_generator.state,
        "seen": {frozenset({1, 2}), (1, "a")},
        "epoch": 3,
        "optimizer": torch.optim.SGD(weighted().parameters(), 0.1, 0.9).state_dict(),
    }
    path = tmp_path / "last.ckpt"
    torch.save(saved, path)
    module = weighted()
    found = read_state(path)
    taken = network_in(found, module, "last.ckpt")
    fill(module, taken, "last.ckpt", ignore=("criterion.", "loss") if not prefix else ())
    own = dict(state)
    assert all(torch.equal(value, own[f"{prefix}{name}"]) for name, value in module.state_dict().items())


def test_fit_finds_its_backbone_in_a_checkpoint(tmp_path: Path) -> None:
    state = timm.create_model(SMALL, num_classes=4).state_dict()
    path = stored({f"model.{name}": value for name, value in state.items()} | {"loss.scale": torch.ones(1)}, tmp_path / "w.ckpt")
    plain = stored(state, tmp_path / "plain.pth")
    found, wanted = (create(SMALL, str(file), 64)[1] for file in (path, plain))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_two_networks_in_one_file_are_asked_about() -> None:
    state = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in weighted().state_dict().items()}
    with pytest.raises(UnusableFile, match=r"x holds several such networks: student\., teacher\."):
        network_in(state, weighted(), "x")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_are_torchs_own(dtype: torch.dtype, tmp_path: Path) -> None:
    """Views, transposed and empty ones, and several of one storage."""
    whole = torch.arange(24).reshape(4, 6).to(dtype)
    state = {"whole": whole, "part": whole[1:, 2:5], "turned": whole.T, "one": whole[2, 3], "none": whole[:0], "row": whole[3]}
    path = tmp_path / "w.pth"
    torch.save(state, path)
    found = read_state(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == dtype for name in state)
    assert found["part"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


PICKLES = {
    "bytes of any length": b"c__builtin__\nbytearray\nJ\0\0\0\x40\x85R",
    "an opcode for these": b"\x96" + (2**28).to_bytes(8, "little"),
    "a memo of any number": b"}r\xff\xff\xff\x7f",
    "tuples in tuples as a key": b"}" + b")" + b"2\x86" * 60 + b"K\1s",
    "a set of these": b"(" + b")" + b"2\x86" * 60 + b"\x91",
    "copies of a text": b"X\0\0\x10\0" + b"a" * 2**20 + b"q\0" + b"ctorch\nSize\nh\0\x85R" * 200,
    "copies of a dictionary": b"}q\0("
    + b"".join(b"J" + i.to_bytes(4, "little") + b"K\1" for i in range(10_000))
    + b"u"
    + b"ccollections\nOrderedDict\nh\0\x85R" * 400,
    "code": b"cos\nsystem\nX\x05\0\0\0false\x85R",
    "an attribute of a class": b"ccollections\nOrderedDict\n}X\x01\0\0\0aK\1sb",
    "nothing": b"",
    "no end of lists": b"]" * 100_000 + b"a" * 99_999,
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_would_take_memory_or_run_are_harmless(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(archive({"w/data.pkl": b"\x80\x02" + PICKLES[name] + b".", "w/data/0": bytes(8)}))
    tracemalloc.start()
    with pytest.raises(UnusableFile, match=r"w\.pth"):
        read_state(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25
    assert not any(hasattr(maker, "a") for maker in MAKERS.values())


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ((0, (3,), (1,)), "numbers of a storage"),
        ((1, (2,), (1,)), "numbers of a storage"),
        ((0, (2**30,), (0,)), "numbers of a storage"),
        ((0, (2,), (2**38,)), "numbers of a storage"),
        ((-1, (2,), (1,)), "no tensor"),
        ((0, (-2,), (1,)), "no tensor"),
        ((0, (2,), ()), "no tensor"),
        ((0.0, (2,), (1,)), "no tensor"),
        ((0, [2], (1,)), "no tensor"),
        ((0, (True,), (1,)), "no tensor"),
    ],
)
def test_a_tensor_has_no_more_than_its_storage(claim: tuple[Any, Any, Any], reason: str) -> None:
    with pytest.raises(UnusableFile, match=f"x: 'w' .*{reason}"):
        tensors_of({"w": Claim(torch.float32, "0", *claim)}, {"w/data/0": bytes(8)}, "x")
    for dtype, key in ((torch.float32, "1"), ("float32", "0"), (torch.float32, 0)):
        with pytest.raises(UnusableFile, match="x: 'w' is no tensor"):
            tensors_of({"w": Claim(dtype, key, 0, (2,), (1,))}, {"w/data/0": bytes(8)}, "x")
