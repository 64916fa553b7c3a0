"""Traces: what is written is what the reference answered, and the first layer that differs is the one that was changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nestling.errors import NestlingError, UnusableData
from nestling.formats.tflite.flatbuffer import Listing
from nestling.formats.tflite.flatbuffer import write as as_file
from nestling.formats.tflite.print_operators import PRINTERS
from nestling.formats.tflite.printing import _file_tensor, as_uint8, print_graph
from nestling.graph import reference
from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import Graph
from nestling.measure.trace import against, against_c, network, traced, write
from tests.helpers.networks import headed, printed
from tests.helpers.quantization_cases import Inverted, calibrated, captured, pictures, seeded
from tests.helpers.seeds import small_bundles, small_graph

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)


def changed(graph: Graph, name: str, place: int = 0) -> Graph:
    """With one number of a constant another."""
    data = np.array(graph.tensors[name].data)
    data.reshape(-1)[place] += 30
    return replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], data=data)})


def test_every_layer_is_written_in_order_with_what_its_numbers_mean(tmp_path: Path) -> None:
    graph = network(small_bundles()["quantised"])
    write(traced(graph, IMAGE), tmp_path / "new" / "trace")
    index = json.loads((tmp_path / "new" / "trace" / "index.json").read_text())
    assert [entry["name"] for entry in index] == ["image", *(node.name for node in graph.nodes)]
    assert [entry["file"] for entry in index] == sorted(p.name for p in (tmp_path / "new" / "trace").glob("*.npy"))
    assert index[2]["source"] == "layer of a" and index[0]["op"] == "input" and index[-1]["name"] == "logits"
    expected = reference.run(graph, IMAGE[None], tuple(node.name for node in graph.nodes)) | {"image": IMAGE[None]}
    for entry in index:
        array = np.load(tmp_path / "new" / "trace" / entry["file"], allow_pickle=False)
        assert_array_equal(array, expected[entry["name"]])
        assert (list(array.shape), str(array.dtype)) == (entry["shape"], entry["dtype"])
        assert (entry["scale"], entry["zero_point"]) == ((pytest.approx(0.02), -3) if array.dtype == np.int8 else (None, None))


def test_names_are_safe_for_every_file_system(tmp_path: Path) -> None:
    layers = traced(small_graph(True), IMAGE)
    names = ("../up", "a/b;c:d", "ü" * 300, "")
    write([replace(layer, name=name) for layer, name in zip(layers, names, strict=False)], tmp_path / "t")
    files = sorted(path.name for path in (tmp_path / "t").iterdir())
    assert len(files) == 5 and all(len(name) < 100 and name.isascii() and "/" not in name for name in files)
    assert [entry["name"] for entry in json.loads((tmp_path / "t" / "index.json").read_text())] == list(names)


def test_an_old_trace_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    layers = traced(small_graph(True), IMAGE)
    write(layers, tmp_path / "t")
    before = {path.name: path.read_bytes() for path in (tmp_path / "t").iterdir()}
    unwritable = replace(layers[5], values=np.array([object()]))
    with pytest.raises(ValueError, match="pickle"):
        write([*layers[:5], unwritable], tmp_path / "t")
    assert {path.name: path.read_bytes() for path in (tmp_path / "t").iterdir()} == before
    write(layers[:3], tmp_path / "t")
    assert len(list((tmp_path / "t").iterdir())) == 4 and [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UnusableData, match="other files"):
        write(traced(small_graph(True), IMAGE), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(UnusableData, match="no folder"):
        write((), tmp_path / "letter.txt")


@pytest.mark.parametrize("integer", [True, False])
def test_the_layer_that_was_changed_is_the_first_that_differs(integer: bool) -> None:
    graph = small_graph(integer)
    layers = traced(graph, IMAGE)
    same = against(layers, print_graph(graph), "x.tflite")
    assert same.differing == () and {"a", "d", "s", "m", "c", "p", "f"} <= set(same.compared)
    other = against(layers, print_graph(changed(graph, "b2")), "x.tflite")
    assert other.differing[0].layer == "d" and other.differing[0].op == "depthwise_conv2d"
    assert 0 < other.differing[0].share <= 1 / 8 + 1e-9 and other.differing[0].largest  # one channel of eight
    last = against(layers, print_graph(changed(graph, "w3")), "x.tflite")
    assert [d.layer for d in last.differing] == ["f"] and last.differing[0].share == 1 / 8


def test_old_uint8_is_compared_128_lower() -> None:
    """A file of max_pool and reshape, whose uint8 kernels are the int8 ones."""
    graph = small_graph(True)
    nodes = tuple(node for node in graph.nodes if node.op in ("table", "max_pool"))
    pool = replace(nodes[1], inputs=("x",))
    shaped = replace(graph.tensors["m"], shape=(1, 4, 4, 3))
    tensors = {name: graph.tensors[name] for name in ("image", "table", "x")} | {"m": shaped}
    pooled = Graph(tensors, (nodes[0], pool), ("image",), ("m",))
    operators, extra = PRINTERS["max_pool"](pool, pooled)
    found = {t.name: _file_tensor(t) for t in (tensors["x"], shaped)} | {t.name: t for t in extra}
    listing = Listing(found, tuple(operators), ("x",), ("m",))
    file = as_file(as_uint8(listing), {})
    compared = against(traced(pooled, IMAGE), file, "old.tflite")
    assert compared.compared == ("m",) and compared.differing == ()


def test_another_network_is_refused() -> None:
    graph = small_graph(True)
    names = {name: f"other {name}" for name in graph.tensors}
    renamed = Graph(
        {names[n]: replace(t, name=names[n]) for n, t in graph.tensors.items()},
        tuple(
            replace(n, inputs=tuple(names[i] for i in n.inputs), outputs=tuple(names[o] for o in n.outputs)) for n in graph.nodes
        ),
        tuple(names[n] for n in graph.inputs),
        tuple(names[n] for n in graph.outputs),
    )
    with pytest.raises(NestlingError, match="no layer of this network's names"):
        against(traced(graph, IMAGE), print_graph(renamed), "other.tflite")
    with pytest.raises(NestlingError, match=r"not a \.tflite file"):
        against(traced(graph, IMAGE), b"hello, world, hello", "other.tflite")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc libc6-dev")
def test_the_integers_of_a_mixed_network_are_those_of_its_c(tmp_path: Path) -> None:
    """Weights of 8, 4, 2 bits, 7-bit activations, symmetric, per layer; a weight changed in the C is found where it acts."""
    graph = captured(seeded(Inverted))
    names = [node.name for node in graph.nodes if "conv" in node.op]
    bits = dict(zip(names, (8, 4, 2, 4, 4, 2, 4, 8), strict=True))
    config = QuantizeConfig(bits_activations=7, symmetric=True, per_layer=True, layer_bits=tuple(bits.items()))
    integers = calibrated(graph, pictures(8), config)[0]
    whole = headed(integers)
    layers = traced(whole, pictures(1, seed=5)[0])
    found = against_c(layers, printed(whole, tmp_path / "c"))
    assert found.differing == () and set(names) <= set(found.compared)
    by_name = {layer.name: layer for layer in layers}
    for node in integers.nodes:
        if node.name in bits:
            assert np.abs(integers.tensors[node.inputs[1]].data.astype(int)).max() == 2 ** (bits[node.name] - 1) - 1
    assert all(len(np.unique(by_name[name].values)) > 5 for name in names)  # none of the layers is silent
    weight = next(node.inputs[1] for node in integers.nodes if node.name == names[2])
    at = int(np.flatnonzero(np.asarray(whole.tensors[weight].data).reshape(-1) == 0)[0])
    data = np.array(whole.tensors[weight].data)
    data.reshape(-1)[at] = 1
    other = replace(whole, tensors={**whole.tensors, weight: replace(whole.tensors[weight], data=data)})
    assert against_c(layers, printed(other, tmp_path / "other")).differing[0].layer == names[2]
