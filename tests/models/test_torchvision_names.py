"""torchvision's weights in timm's networks: torchvision's own forward is the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import MobileNet_V2_Weights, ResNet18_Weights, get_model, get_model_weights

from nestling.errors import NestlingError, UnusableFile
from nestling.models.backbones import build_backbone, create
from nestling.models.torchvision_names import TWINS
from nestling.preprocess.image import resize, table
from tests.helpers.torch_networks import difference, randomised

QUICK = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "efficientnet_b0", "mnasnet0_5")
SLOW = tuple(theirs for theirs in TWINS.values() if theirs not in QUICK)
OWN = {theirs: own for own, theirs in TWINS.items()}


def network(name: str) -> Any:
    torch.manual_seed(3)
    return randomised(get_model(name, weights=None, num_classes=5))


def embedding(network: Any, images: torch.Tensor) -> np.ndarray:
    """Before the last layer, whatever torchvision calls it."""
    head = "fc" if hasattr(network, "fc") else "classifier"
    last = getattr(network, head)
    setattr(network, head, last[:-1] if isinstance(last, nn.Sequential) else nn.Identity())
    with torch.no_grad():
        return network(images).numpy()


def found(name: str, path: Path, images: torch.Tensor) -> np.ndarray:
    architecture, arrays, _ = create(name, str(path), 64)
    with torch.no_grad():
        return build_backbone(architecture, arrays)(images).numpy()


@pytest.mark.parametrize("theirs", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_timms_network_answers_as_torchvisions(theirs: str, tmp_path: Path) -> None:
    """The norms of torchvision's MobileNetV3 add a hundred times as much to their variances: here that would be 5e-4."""
    module, images = network(theirs), torch.randn(2, 3, 64, 64)
    torch.save({"model_state_dict": {f"module.{name}": value for name, value in module.state_dict().items()}}, tmp_path / "w.pth")
    assert difference(found(OWN[theirs], tmp_path / "w.pth", images), embedding(module, images)) < 2e-6


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_of_halves_and_in_safetensors_too(kind: torch.dtype, tmp_path: Path) -> None:
    module, images = network("mobilenet_v3_small").to(kind).float(), torch.randn(2, 3, 64, 64)
    save_file({name: value.to(kind) for name, value in module.state_dict().items()}, tmp_path / "w.safetensors")
    assert difference(found("mobilenetv3_small_100", tmp_path / "w.safetensors", images), embedding(module, images)) < 2e-6


def test_images_are_made_as_torchvision_makes_them(tmp_path: Path) -> None:
    """Of a photograph: torchvision's own transforms beside ours. timm's MobileNetV2 was trained on bicubic ones."""
    torch.save(network("mobilenet_v2").state_dict(), tmp_path / "mine.pth")
    preprocess = create("mobilenetv2_100", str(tmp_path / "mine.pth"))[2]
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((400, 300), Image.Resampling.BICUBIC)
    wanted = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()(smooth).numpy()
    pixels = resize(preprocess, np.asarray(smooth))
    ours = np.stack([table(preprocess)[c][pixels[..., c]] for c in range(3)])
    assert difference(ours, wanted) < 1e-5
    assert create("mobilenetv2_100", str(tmp_path / "mine.pth"), 96)[2].size == (96, 96)


@pytest.mark.parametrize("weights", [*get_model_weights("mobilenet_v2"), ResNet18_Weights.IMAGENET1K_V1], ids=str)
def test_a_file_by_torchvisions_own_name_has_its_own_images(weights: Any, tmp_path: Path) -> None:
    """torchvision's resnet18 has timm's names of layers: only the file's name tells."""
    theirs = "resnet18" if "ResNet" in str(weights) else "mobilenet_v2"
    path = tmp_path / weights.url.rpartition("/")[2]
    torch.save(network(theirs).state_dict(), path)
    images, preprocess = weights.transforms(), create(OWN[theirs], str(path))[2]
    assert (preprocess.size[0], preprocess.size[0] / preprocess.crop) == pytest.approx((images.crop_size[0], images.resize_size[0]))
    assert preprocess.interpolation == images.interpolation.value


def test_another_of_torchvisions_is_refused_with_the_first_tensor_that_is_none_of_its(tmp_path: Path) -> None:
    torch.save(network("efficientnet_b1").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UnusableFile, match=r"w\.pth does not fit.*none of its") as caught:
        create("efficientnet_b0", str(tmp_path / "w.pth"), 64)
    assert "torchvision" in caught.value.hint


def test_torchvisions_name_leads_to_timms() -> None:
    with pytest.raises(NestlingError, match="no network called 'mobilenet_v2'") as caught:
        create("mobilenet_v2", "none")
    assert "mobilenetv2_100" in caught.value.hint
