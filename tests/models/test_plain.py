"""plain() against timm's own modules: the same bits, and nothing fused left."""

from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from nestling.models.plain import plain

NAMES = [
    "mobilenetv1_100",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "mnasnet_100",
    "resnet18",
    "lcnet_050",
    "tinynet_e",
    "regnety_002",
    "ghostnet_100",
    "mixnet_s",
    "mobileone_s0",
    "rexnet_100",
    "densenet121",
    "fbnetc_100",
]


def _network(name: str) -> nn.Module:
    """Random weights, and batch norms as after training: every channel with a mean and a scale of its own."""
    torch.manual_seed(3)
    network = timm.create_model(name, num_classes=0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


@pytest.mark.parametrize("name", NAMES)
def test_same_bits_and_nothing_fused_left(name: str) -> None:
    network = _network(name)
    images = torch.randn(1, 3, 32, 32)
    made_plain = plain(network)
    with torch.no_grad():
        assert torch.equal(made_plain(images), network(images))
    assert not any(isinstance(module, BatchNormAct2d) for module in made_plain.modules())
    assert not any(getattr(module, "inplace", False) for module in made_plain.modules())


def test_training_is_the_same_too() -> None:
    network: Any = _network("mobilenetv3_small_050")
    made_plain: Any = plain(network)
    images = torch.randn(4, 3, 64, 64)
    for module in (network, made_plain):
        module.train()
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.eval()
        module(images).square().mean().backward()
    assert torch.equal(network.conv_stem.weight.grad, made_plain.conv_stem.weight.grad)
    assert torch.equal(network.bn1.running_mean, made_plain.bn1.norm.running_mean)


def test_the_original_is_left_alone() -> None:
    network = _network("mobilenetv2_050")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made_plain = plain(network)
    with torch.no_grad():
        for parameter in made_plain.parameters():
            parameter.zero_()
    assert isinstance(network.bn1, BatchNormAct2d)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_names_change_only_where_a_norm_had_an_activation() -> None:
    network = _network("mobilenetv2_050")
    fused = {
        name for name, part in network.named_modules() if isinstance(part, BatchNormAct2d) and not isinstance(part.act, nn.Identity)
    }
    expected = {
        f"{owner}.norm.{leaf}" if owner in fused else f"{owner}.{leaf}"
        for owner, _, leaf in (name.rpartition(".") for name in network.state_dict())
    }
    assert fused
    assert set(plain(network).state_dict()) == expected


def test_mode_and_requires_grad_are_kept() -> None:
    network: Any = _network("mobilenetv2_050").train()
    network.bn1.weight.requires_grad_(False)
    made_plain: Any = plain(network)
    assert made_plain.bn1.training and made_plain.bn1.norm.training
    assert not made_plain.bn1.norm.weight.requires_grad
    assert made_plain.bn1.norm.bias.requires_grad
