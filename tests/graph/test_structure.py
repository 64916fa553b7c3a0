"""A structure filled with its network's arrays is the network's Graph again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling import bundle as bundles
from nestling.bundle import Bundle, Timm
from nestling.errors import UnusableFile
from nestling.graph import structure as structures
from nestling.graph.ir import Array, Graph, same
from nestling.graph.structure import filled, image_of, structure_of
from nestling.models.backbones import build_backbone, create
from nestling.models.capture.capture import capture
from nestling.models.float_graph import float_graph, has_graph, unfolded_graph, with_structure
from nestling.models.known import RECOMMENDED
from nestling.outside import Record, parsed
from nestling.printable import json_text
from tests.helpers.strategies import QUICK, Case, graphs

QUICKLY = ("mobilenetv3_small_050",)


def constants(graph: Graph) -> dict[str, Array]:
    return {name: np.asarray(tensor.data) for name, tensor in graph.tensors.items() if tensor.data is not None}


@QUICK
@given(case=graphs(integer=False), data=st.data())
def test_any_graph_over_arrays_with_their_axes_in_any_order(case: Case, data: st.DataObject) -> None:
    """Some of the constants are the structure's own; it goes through JSON and back."""
    graph = replace(case[0], outputs=case[0].outputs[:1])
    held = constants(graph)
    known = data.draw(st.sets(st.sampled_from(sorted(held)))) if held else set()
    arrays = {
        name: np.ascontiguousarray(held[name].transpose(data.draw(st.permutations(range(held[name].ndim))))) for name in known
    }
    structure = structure_of(graph, arrays)
    assert set(structure.of) == known and len(structure.own) == len(held) - len(known)
    text = json_text(structures.to_plain(structure)).encode()
    again = structures.from_plain(Record(parsed(text, "x"), "x"), structure.own)
    assert same(filled(structure, arrays), graph) and same(filled(again, arrays), graph)
    assert image_of(again) == graph.tensors[graph.inputs[0]].shape


@QUICK
@given(case=graphs(integer=False))
def test_other_numbers_make_another_graph_and_none_is_none(case: Case) -> None:
    graph = replace(case[0], outputs=case[0].outputs[:1])
    held = constants(graph)
    structure = structure_of(graph, held)
    other = {name: np.add(array, np.float32(1)) for name, array in held.items()}
    wanted = {name: replace(t, data=other[name]) if name in held else t for name, t in graph.tensors.items()}
    assert same(filled(structure, other), replace(graph, tensors=wanted))
    for name, array in held.items():
        for wrong in ({}, {name: array[None]}):
            rest = {key: value for key, value in held.items() if key != name}
            with pytest.raises(UnusableFile, match=rf"^x: .*'{name}'"):
                filled(structure, rest | wrong, "x")


@pytest.mark.parametrize("name", [n if n in QUICKLY else pytest.param(n, marks=pytest.mark.slow) for n in RECOMMENDED])
def test_a_backbones_structure_is_what_torch_captures(name: str) -> None:
    """In a bundle that was written and read."""
    architecture, arrays, preprocess = create(name, "none", 64)
    wanted = capture(build_backbone(architecture, arrays), (64, 64, 3))
    bare = Bundle(architecture, arrays, None, (), preprocess)
    made = bundles.from_bytes(bundles.to_bytes(with_structure(bare)), "x")
    assert isinstance(made.architecture, Timm) and made.architecture.structure is not None
    assert all(array.size == 1 for array in made.architecture.structure.own.values())  # a 6 that somebody divides by
    assert has_graph(made) and not has_graph(bare)
    assert same(unfolded_graph(made), wanted) and same(float_graph(made), float_graph(bare))
    assert bundles.to_bytes(made) == bundles.to_bytes(with_structure(bare))


def test_of_another_size_torch_captures_it_anew() -> None:
    architecture, arrays, preprocess = create("mobilenetv3_small_050", "none", 64)
    made = with_structure(Bundle(architecture, arrays, None, (), preprocess))
    other = replace(made, preprocess=replace(preprocess, size=(96, 96)))
    assert not has_graph(other) and unfolded_graph(other).tensors["image"].shape == (1, 96, 96, 3)


def test_a_network_that_the_graph_has_no_place_for_has_none() -> None:
    architecture, arrays, preprocess = create("test_convnext", "none", 32)
    made = with_structure(Bundle(architecture, arrays, None, (), preprocess))
    assert isinstance(made.architecture, Timm) and made.architecture.structure is None
    assert not has_graph(bundles.from_bytes(bundles.to_bytes(made), "x"))
