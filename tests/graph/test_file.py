"""What is stored comes back the same; what was tampered with gives an error and nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.errors import NestlingError, UnusableFile
from nestling.graph import ir
from nestling.graph.file import from_plain, to_plain
from nestling.graph.ir import Array, Graph, Node, Quant, Tensor, same
from nestling.graph.read_tflite import read_tflite


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
    "another schema": (lambda p, a: p.update(schema=2), "schema 2"),
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
    "objects as data": (lambda p, a: a.update({"1": np.full((2, 1, 1, 3), None)}), "its data is object"),
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
