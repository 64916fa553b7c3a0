"""Backbones that can't be quantised are told of before anything is learned on them."""

import pytest
import timm

from nestling.bundle import Bundle
from nestling.errors import UnsupportedOp
from nestling.models.backbones import create
from nestling.models.float_graph import float_graph
from nestling.models.known import RECOMMENDED
from nestling.models.lacking import Lacking, lacking


def bundle_of(name: str, size: int | None = None) -> Bundle:
    architecture, arrays, preprocess = create(name, "none", size)
    return Bundle(architecture, arrays, None, (), preprocess)


@pytest.mark.parametrize(
    ("name", "size", "operations", "pte"),
    [
        ("test_convnext", 32, ("layer_norm (layer stem.1)",), True),
        ("test_vit", None, ("layer_norm (layer blocks.0.norm1)",), False),  # its places are enlarged by a bicubic filter
    ],
)
def test_operations_are_named_with_their_layers(name: str, size: int | None, operations: tuple[str, ...], pte: bool) -> None:
    bundle = bundle_of(name, size)
    found = lacking(bundle)
    assert found is not None and found.pte == pte and all(operation in found.what for operation in operations), found
    assert ("fp32 .pte" in str(found)) == pte and "nestling backbones" in str(found)
    with pytest.raises(UnsupportedOp):
        float_graph(bundle)


def test_a_network_that_becomes_a_graph_lacks_nothing() -> None:
    assert "test_efficientnet" not in RECOMMENDED and lacking(bundle_of("test_efficientnet", 32)) is None


def test_what_torch_cannot_follow_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: object, x):
        return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))

    bundle = bundle_of("test_efficientnet", 32)
    monkeypatch.setattr(timm.models.efficientnet.EfficientNet, "forward", forward)
    found = lacking(bundle)
    assert isinstance(found, Lacking) and not found.pte and "torch.export cannot trace" in found.what


@pytest.mark.slow
@pytest.mark.parametrize("name", RECOMMENDED)
def test_the_recommended_names_lack_nothing(name: str) -> None:
    assert len(float_graph(bundle_of(name, 64)).nodes) > 10
