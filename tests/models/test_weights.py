"""Weights in other people's files: numbers that no network can have are refused by the tensor's name, dead channels are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fuzz.damage import archive, overlapping, repeated
from fuzz.seeds import weighted
from safetensors.torch import save_file
from torch import nn

from nestling.errors import UnusableFile
from nestling.models.backbones import create
from nestling.models.weights import fill, read_state
from nestling.outside import unzipped

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
        torch.sparse_coo_tensor(size=(3, 2)),
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
