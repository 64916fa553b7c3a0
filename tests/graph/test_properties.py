"""Random small graphs: the reference gives the bytes of LiteRT's reference kernels, and a printed graph is read back as it was."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.read import read_tflite
from nestling.graph import ir, reference
from nestling.graph.ir import Array, Graph
from tests.helpers.strategies import LONGER, QUICK, STEPS, Case, graphs, old_graphs, valid


@pytest.mark.parametrize("op", STEPS)
@QUICK
@given(data=st.data())
def test_each_op_equals_litert_reference_kernels(op: str, data: st.DataObject) -> None:
    graph, value = valid(data.draw(graphs(integer=True, op=op, most=1)))
    assert_equal_bytes(graph, value)


@LONGER
@given(case=graphs(integer=True, most=6))
def test_chains_of_ops_equal_litert_reference_kernels(case: Case) -> None:
    assert_equal_bytes(*valid(case))


@LONGER
@given(case=graphs(integer=False, most=4))
def test_float_graphs_agree_with_litert(case: Case) -> None:
    graph, value = valid(case)
    judged = tflite_run.run(tflite.print_graph(graph), [value])
    for ours, theirs in zip(reference.run(graph, value).values(), judged, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * max(float(np.abs(theirs).max()), 1e-6))


@pytest.mark.parametrize("integer", [True, False])
@LONGER
@given(data=st.data())
def test_a_printed_graph_is_read_back_as_it_was(integer: bool, data: st.DataObject) -> None:
    graph, _ = valid(data.draw(graphs(integer=integer, most=5)))
    again, _ = read_tflite(tflite.print_graph(graph))
    assert ir.same(graph, again)


@LONGER
@given(case=old_graphs())
def test_an_old_uint8_network_is_printed_as_it_was(case: Case) -> None:
    graph, value = valid(case)
    printed = tflite.print_graph(graph)
    assert ir.same(graph, read_tflite(printed)[0])
    (theirs,) = tflite_run.run(printed, [value.view(np.uint8) ^ np.uint8(128)])
    assert theirs.dtype == np.uint8
    (ours,) = reference.run(graph, value).values()
    np.testing.assert_array_equal(ours.view(np.uint8) ^ np.uint8(128), theirs)


def assert_equal_bytes(graph: Graph, value: Array) -> None:
    judged = tflite_run.run(tflite.print_graph(graph), [value])
    for ours, theirs in zip(reference.run(graph, value).values(), judged, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
