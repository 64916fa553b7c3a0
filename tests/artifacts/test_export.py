"""What export refuses, and when: before it asks a network for what its files are judged on, which takes longest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nestling.artifacts import export as exporting
from nestling.artifacts.export import exported
from nestling.artifacts.import_model import import_model
from nestling.bundle import Bundle, save
from nestling.device import package
from nestling.device.package import pack
from nestling.errors import NestlingError, UnsupportedOp
from nestling.formats.c.folder import print_network
from nestling.formats.c.machines import machine
from nestling.formats.format import ExportConfig
from nestling.formats.tflite.printing import print_graph
from nestling.graph.ir import Graph
from nestling.preprocess.image import to_plain
from tests.helpers.networks import about_of, headed
from tests.helpers.seeds import PREPROCESS, small_bundles, small_graph


def overflowing() -> Graph:
    """Whose sums of one channel may leave 32 bits, and matter."""
    graph = small_graph(True)
    bias = graph.tensors["b2"]
    data = np.array(bias.data)
    data[1] = 2**31 - 1
    return replace(graph, tensors={**graph.tensors, "b2": replace(bias, data=data)})


def bundled(imported: bool, folder: Path) -> Bundle:
    if not imported:
        return replace(small_bundles()["quantised"], graph=overflowing())
    (folder / "a.tflite").write_bytes(print_graph(overflowing(), labels=tuple("abcdefgh"), preprocess=to_plain(PREPROCESS)))
    return import_model(folder / "a.tflite")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows where a network is asked for what files are judged on."""
    found: list[str] = []

    def expected(*_: object, **__: object) -> None:
        found.append("asked")
        raise AssertionError("asked before it was refused")

    for module in (exporting, package):
        monkeypatch.setattr(module, "expected", expected)
    monkeypatch.setattr(package, "_embeddings", expected)
    return found


@pytest.mark.parametrize("imported", [False, True], ids=["a bundle", "a .tflite"])
def test_what_c_cannot_print_is_refused_before_anything_is_asked_or_written(
    imported: bool, asked: list[str], tmp_path: Path
) -> None:
    save(bundled(imported, tmp_path), tmp_path / "a.nest")
    with pytest.raises(UnsupportedOp, match=r"channel 1 of 8 may leave 32 bits") as refused:
        exported(tmp_path / "a.nest", tmp_path / "out", [("tflite", "int8"), ("c-host", "int8"), ("c-cortex-m4", "int8")])
    assert not asked and not (tmp_path / "out").exists()
    graph = headed(overflowing())
    with pytest.raises(UnsupportedOp) as printed:
        print_network(graph, about_of(graph), machine("host"))
    assert refused.value.message == printed.value.message.replace(" (layer of d)" if imported else "", "")  # which no .tflite tells


def test_so_is_what_does_not_fit(asked: list[str], tmp_path: Path) -> None:
    save(small_bundles()["quantised"], tmp_path / "a.nest")
    with pytest.raises(NestlingError, match="does not fit"):
        exported(tmp_path / "a.nest", tmp_path / "out", [("c-cortex-m4", "int8")], config=ExportConfig(ram=16))
    assert not asked


def test_a_package_too(asked: list[str], tmp_path: Path) -> None:
    save(bundled(False, tmp_path), tmp_path / "a.nest")
    with pytest.raises(UnsupportedOp, match="may leave 32 bits"):
        pack(tmp_path / "a.nest", tmp_path / "pkg")
    assert not asked and not (tmp_path / "pkg").exists()


def test_what_it_can_print_is_asked(asked: list[str], tmp_path: Path) -> None:
    """The others would not see it if nobody asked at all."""
    save(small_bundles()["quantised"], tmp_path / "a.nest")
    with pytest.raises(AssertionError, match="asked before"):
        exported(tmp_path / "a.nest", tmp_path / "out", [("c-host", "int8")])
    assert asked
