"""What is stored comes back the same; what was tampered with gives an error and nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.errors import NestlingError, UnusableFile
from nestling.formats.tflite.read import read_tflite
from nestling.graph import ir
from nestling.graph.file import digest, from_plain, to_plain
from nestling.graph.ir import Array, Graph, Node, Quant, Tensor, same


def small() -> Graph:
    quant = Quant(np.array([0.1], np.float32), np.array([-128], np.int32))
    weights = Quant(np.array([0.01, 0.02], np.float32), np.zeros(2, np.int32), 0)
    tensors = [
        Tensor("x é", (1, 4, 4, 3), "int8", None, quant),
        Tensor("w", (2, 1, 1, 3), "int8", np.arange(6, dtype=np.int8).reshape(2, 1, 1, 3), weights),
        Tensor("c", (1, 2, 2, 2), "int8", None, quant),
        Tensor("y", (1, 2), "int8", None, quant),
    ]
    nodes = (
        Node("conv2d", ("x é", "w"), ("c",), ir.Conv2d((2, 2), clamp="relu"), "stem.conv"),
        Node("mean", ("c",), ("y",), ir.Mean((1, 2))),
    )
    return Graph({t.name: t for t in tensors}, nodes, ("x é",), ("y",))


def stored(graph: Graph) -> tuple[Any, dict[str, Array]]:
    plain, arrays = to_plain(graph)
    return json.loads(json.dumps(plain)), arrays


@pytest.mark.parametrize("name", ["vww_96_int8", "vww_96_float", "mobilenet_v2_1_0_224_quant"])
def test_networks_come_back_the_same(name: str, shared_data: Callable[[str], Path]) -> None:
    graph, _ = read_tflite(shared_data(f"{name}.tflite"))
    assert same(from_plain(*stored(graph)), graph)


def test_sources_come_back_too() -> None:
    again = from_plain(*stored(small()))
    assert same(again, small()) and [node.source for node in again.nodes] == ["stem.conv", ""]


Change = Callable[[Any, dict[str, Array]], object]
TAMPERED: dict[str, tuple[Change, str]] = {
    "another schema": (lambda p, a: p.update(schema=3), "schema 3.*newer nestling"),
    "schema true": (lambda p, a: p.update(schema=True), "schema"),
    "a member too many": (lambda p, a: p.update(more=1), "members"),
    "a member missing": (lambda p, a: p.pop("nodes"), "members"),
    "nodes that are no list": (lambda p, a: p.update(nodes={}), "nodes"),
    "a node that is no object": (lambda p, a: p["nodes"].append(3), "nodes"),
    "an unknown op": (lambda p, a: p["nodes"][0].update(op="exec"), "no op 'exec'"),
    "an unknown attribute": (lambda p, a: p["nodes"][0]["attrs"].update(code="x"), r"nodes\[0\]: attrs"),
    "an attribute missing": (lambda p, a: p["nodes"][0]["attrs"].pop("clamp"), r"nodes\[0\]: attrs"),
    "a stride of text": (lambda p, a: p["nodes"][0]["attrs"].update(stride="22"), "stride"),
    "a stride of lists": (lambda p, a: p["nodes"][0]["attrs"].update(stride=[[1], [1]]), "stride"),
    "a huge stride": (lambda p, a: p["nodes"][0]["attrs"].update(stride=[10**30, 1]), "stride"),
    "huge padding": (lambda p, a: p["nodes"][0]["attrs"].update(padding=[10**9] * 4), "padding"),
    "an attribute that is an object": (lambda p, a: p["nodes"][0]["attrs"].update(clamp={}), "clamp"),
    "a huge shape": (lambda p, a: p["tensors"][0].update(shape=[1, 10**6, 10**6, 3]), "elements"),
    "a shape of booleans": (lambda p, a: p["tensors"][0].update(shape=[True, 4, 4, 3]), "shape"),
    "a name twice": (lambda p, a: p["tensors"][0].update(name="w"), "one name"),
    "a name that is no text": (lambda p, a: p["tensors"][0].update(name=["w"]), "name"),
    "a dtype of Python": (lambda p, a: p["tensors"][0].update(dtype="object"), "dtype"),
    "a constant missing": (lambda p, a: a.pop("1"), "array '1' is missing"),
    "a scale missing": (lambda p, a: a.pop("1.scale"), "array '1.scale' is missing"),
    "scales of another number": (lambda p, a: a.update({"1.scale": np.ones(7, np.float32)}), "needs 2 scales"),
    "objects as data": (lambda p, a: a.update({"1": np.full((2, 1, 1, 3), None)}), "its array is object"),
    "an axis of text": (lambda p, a: p["tensors"][1]["quant"].update(axis="0"), "axis"),
    "an input that is no name": (lambda p, a: p["nodes"][0].update(inputs=[0, 1]), "inputs"),
    "a cycle": (lambda p, a: p["nodes"][0].update(inputs=["y", "w"]), "before"),
    "no output": (lambda p, a: p.update(outputs=[]), "inputs and outputs"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_an_error_that_names_the_place(name: str) -> None:
    change, message = TAMPERED[name]
    plain, arrays = stored(small())
    change(plain, arrays)
    with pytest.raises(UnusableFile, match=message) as caught:
        from_plain(plain, arrays, "a.nest")
    assert "a.nest" in str(caught.value)


# ---- packed constants -----------------------------------------------------------------------------------------------------------


def with_weights(values: Any) -> Graph:
    """small() with other weights, int8 [2, 1, 1, 3]."""
    graph = small()
    weights = replace(graph.tensors["w"], data=np.asarray(values, np.int8).reshape(2, 1, 1, 3))
    return replace(graph, tensors={**graph.tensors, "w": weights})


@pytest.mark.parametrize(
    ("values", "bits", "content"),
    [
        ((0, 1, 2, 3, 4, 5), 4, "103254"),
        ((-8, 7, -1, 0, 1, -2), 4, "780fe1"),
        ((1, -1, -2, 0, 1, -1), 2, "2d0d"),
    ],
)
def test_weights_of_few_bits_are_packed_low_bits_first(values: Any, bits: int, content: str) -> None:
    """Bytes worked out by hand; what is read again are whole numbers."""
    graph = with_weights(values)
    plain, arrays = stored(graph)
    assert plain["schema"] == 2 and plain["tensors"][1]["bits"] == bits
    assert arrays["1"].dtype == np.uint8 and arrays["1"].tobytes().hex() == content
    assert same(from_plain(plain, arrays), graph)


def test_weights_that_need_8_bits_are_stored_as_ever() -> None:
    for values in ((-9, 0, 0, 0, 0, 0), (8, 0, 0, 0, 0, 0)):
        plain, arrays = stored(with_weights(values))
        assert plain["schema"] == 1 and "bits" not in plain["tensors"][1] and arrays["1"].dtype == np.int8


def test_graphs_stored_before_there_was_packing_still_load() -> None:
    graph = with_weights((0, 1, 2, 3, 4, 5))
    plain, arrays = stored(graph)
    plain["schema"] = 1
    del plain["tensors"][1]["bits"]
    data = graph.tensors["w"].data
    assert data is not None and same(from_plain(plain, arrays | {"1": data}), graph)


def test_the_digest_does_not_know_of_packing() -> None:
    """What the versions without packing gave for the same graph."""
    assert digest(small()) == "a2985006be1b706e7f8741dfc190f6df90dfe099bdaa1765d15764e2d66782db"


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.sampled_from((1, 2, 3, 4, 5, 8)), st.integers(0, 2**32 - 1))
def test_any_weights_come_back_the_same(depth: int, bits: int, seed: int) -> None:
    graph, half = small(), 2 ** (bits - 1)
    values = np.random.default_rng(seed).integers(-half, half, (2, 1, 1, depth)).astype(np.int8)
    changed = {"x é": (1, 4, 4, depth), "w": values.shape}
    tensors = {name: replace(t, shape=changed.get(name, t.shape)) for name, t in graph.tensors.items()}
    graph = replace(graph, tensors=tensors | {"w": replace(tensors["w"], data=values)})
    plain, arrays = stored(graph)
    assert same(from_plain(plain, arrays), graph)
    stored_bits = 2 if bits <= 2 else 4 if bits <= 4 else 8
    assert arrays["1"].nbytes <= (2 * depth * stored_bits + 7) // 8


DAMAGED: dict[str, tuple[Change, str]] = {
    "a byte too few": (lambda p, a: a.update({"1": a["1"][:-1]}), "take 3 bytes"),
    "a byte too many": (lambda p, a: a.update({"1": np.append(a["1"], np.uint8(0))}), "take 3 bytes"),
    "no bytes": (lambda p, a: a.update({"1": a["1"][:0]}), "take 3 bytes"),
    "whole numbers": (lambda p, a: a.update({"1": np.zeros((2, 1, 1, 3), np.int8)}), "take 3 bytes"),
    "signed bytes": (lambda p, a: a.update({"1": a["1"].view(np.int8)}), "take 3 bytes"),
    "two sides": (lambda p, a: a.update({"1": a["1"].reshape(1, 3)}), "take 3 bytes"),
    "fewer bits than it was packed in": (lambda p, a: p["tensors"][1].update(bits=2), "take 2 bytes"),
    "more values": (lambda p, a: p["tensors"][1].update(shape=[4, 1, 1, 3]), "take 6 bytes"),
    "a value behind the last one": (lambda p, a: p["tensors"][1].update(shape=[1, 1, 1, 5]), "behind its last value"),
    "huge": (lambda p, a: p["tensors"][1].update(shape=[10**4000] * 6), "at most"),
    "huge and negative": (lambda p, a: p["tensors"][1].update(shape=[-(2**40), -(2**40)]), "at most"),
    "bits missing": (lambda p, a: p["tensors"][1].pop("bits"), "its data is uint8"),
    "no constant": (lambda p, a: p["tensors"][1].update(constant=False), "only int8 constants"),
    "another dtype": (lambda p, a: p["tensors"][1].update(dtype="int32"), "only int8 constants"),
    "bits in the first schema": (lambda p, a: p.update(schema=1), "members"),
    "an activation of few bits": (lambda p, a: p["tensors"][0].update(bits=4), "only int8 constants"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_packed_weights_are_refused(name: str) -> None:
    change, message = DAMAGED[name]
    plain, arrays = stored(small())
    change(plain, arrays)
    with pytest.raises(UnusableFile, match=message) as caught:
        from_plain(plain, arrays, "a.nest")
    assert "a.nest" in str(caught.value)


@pytest.mark.parametrize("bits", [0, 1, 3, 8, -4, 4.0, True, "4", None, [4], 10**400])
def test_any_other_number_of_bits_is_refused(bits: object) -> None:
    plain, arrays = stored(small())
    plain["tensors"][1]["bits"] = bits
    with pytest.raises(UnusableFile, match="bits"):
        from_plain(plain, arrays)


# ---- anything else --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [None, 3, [], "graph", {}, {"schema": 1}])
def test_what_is_no_graph(plain: object) -> None:
    with pytest.raises(UnusableFile):
        from_plain(plain, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_anything_in_any_place_gives_a_graph_or_an_error(data: st.DataObject) -> None:
    plain, arrays = stored(small())
    plain = copy.deepcopy(plain)
    path = data.draw(st.sampled_from(places(plain)[1:]))
    target = plain
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = data.draw(JSON)
    with contextlib.suppress(NestlingError):
        assert isinstance(from_plain(plain, arrays), Graph)
