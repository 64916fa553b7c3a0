"""Weights in other people's files: numbers that no network can have are refused by the tensor's name, dead channels are not."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import ModelEmaV2
from torch import nn

from nestling.errors import UnusableFile
from nestling.models.backbones import create
from nestling.models.weights import fill, names_of, network_in, states_in
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
        fill(module, states_in(path)[""], str(path))
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
            states_in(path)


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
    taken = network_in(states_in(path), names_of(module), "last.ckpt")
    fill(module, taken, "last.ckpt", ignore=("criterion.", "loss") if not prefix else ())
    own = dict(state)
    assert all(torch.equal(value, own[f"{prefix}{name}"]) for name, value in module.state_dict().items())


ONES, ZEROS = ({name: torch.full_like(value, number) for name, value in weighted().state_dict().items()} for number in (1, 0))


def under(start: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{start}{name}": value for name, value in state.items()}


def averaged_by_torch() -> dict[str, Any]:
    module = weighted()
    module.load_state_dict(ONES)
    return torch.optim.swa_utils.AveragedModel(module).state_dict()


def averaged_by_timm() -> dict[str, Any]:
    module = weighted()
    module.load_state_dict(ONES)
    return ModelEmaV2(module).state_dict()


class Twice(nn.Module):
    """A network that its program knows by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.model = weighted()
        self.encoder = self.model


@pytest.mark.parametrize(
    "saved",
    [
        {"model_state_dict": ONES, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        {"epoch": 3, "net": under("module.", ONES)},
        under("_orig_mod.module.", ONES),
        {"checkpoint": {"weights": {"backbone": ONES, "neck": {"weight": torch.zeros(2)}}}},
        averaged_by_torch(),
        averaged_by_timm(),
        {"state_dict": ZEROS, "state_dict_ema": under("module.", ONES)},
        {"state_dict": under("model.", ZEROS) | under("ema_model.module.", ONES)},
        {"state_dict": under("net.", ONES), "current_model_state": under("net.", ZEROS)},
        {"state_dict": under("net.", ONES) | {"head.0.weight": torch.zeros(2, 2)}, "callbacks": {"best": {"score": 1.0}}},
    ],
    ids=lambda saved: ",".join(saved)[:40],
)
def test_wherever_the_networks_numbers_lie_they_are_found(saved: dict[str, Any], tmp_path: Path) -> None:
    """The averaged ones where there are any, and of Lightning's averages those that it puts in the others' place."""
    torch.save(saved, tmp_path / "w.ckpt")
    module = weighted()
    state = network_in(states_in(tmp_path / "w.ckpt"), names_of(module), "w.ckpt")
    fill(module, {name: state[name] for name in names_of(module)}, "w.ckpt")
    assert all((value == 1).all() for name, value in module.state_dict().items() if name in names_of(module))


def test_a_network_known_by_two_names_is_one(tmp_path: Path) -> None:
    twice = Twice()
    torch.save(twice.state_dict(), tmp_path / "w.pth")
    module = weighted()
    fill(module, network_in(states_in(tmp_path / "w.pth"), names_of(module), "w.pth"), "w.pth")
    assert all(torch.equal(value, twice.model.state_dict()[name]) for name, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved", [weighted(), {"model": weighted(), "epoch": 3}], ids=["module", "in a dictionary"])
def test_a_pickled_module_is_not_made_and_the_way_out_is_told(saved: Any, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(UnusableFile, match="no state dict") as caught:
        states_in(tmp_path / "w.pth")
    assert "torch.save(model.state_dict()" in caught.value.hint


def test_fit_finds_its_backbone_in_a_checkpoint(tmp_path: Path) -> None:
    state = timm.create_model(SMALL, num_classes=4).state_dict()
    path = stored({f"model.{name}": value for name, value in state.items()} | {"loss.scale": torch.ones(1)}, tmp_path / "w.ckpt")
    plain = stored(state, tmp_path / "plain.pth")
    found, wanted = (create(SMALL, str(file), 64)[1] for file in (path, plain))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_two_networks_in_one_file_are_asked_about() -> None:
    state = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in weighted().state_dict().items()}
    with pytest.raises(UnusableFile, match=r"x holds several such networks: student, teacher"):
        network_in({"": state}, names_of(weighted()), "x")
