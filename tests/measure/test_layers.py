"""Layer times of ExecuTorch and LiteRT: whose they are, that they make up a run, and that a heavy layer is the slow one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from torch import Tensor, nn

from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About
from nestling.formats.executorch import layer_times as executorch_layers
from nestling.formats.executorch import printing as executorch
from nestling.formats.executorch import run as executorch_run
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.layer_time import LayerTime, named, with_names
from nestling.formats.tflite import layer_times as tflite_layers
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.quantization_cases import Inverted, calibrated, captured, pictures, seeded

SIDE = 64
WHAT = About(("a", "b"), ImagePreprocess((SIDE, SIDE), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3))
Shared = Callable[[str], Path]
DENSE = ("conv2d", "depthwise_conv2d", "fully_connected")


class Heavy(nn.Module):
    """The third convolution does nearly all the work."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 64, 1), nn.Conv2d(64, 64, 5, 1, 2), nn.Conv2d(64, 64, 3, 1, 1, groups=64)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean((2, 3))


def network(module: nn.Module, integer: bool) -> Graph:
    graph = captured(module, SIDE)
    if integer:
        graph, _ = calibrated(graph, pictures(8, SIDE))
    width = graph.tensors[graph.outputs[0]].shape[1]
    return with_head(graph, Head(np.random.default_rng(0).normal(0, 1, (2, width)).astype(np.float32), np.zeros(2, np.float32)))


def pte(graph: Graph) -> bytes:
    return executorch.print_program(GraphProgram(graph).eval(), WHAT).content


@pytest.fixture(scope="module", params=[False, True], ids=["float", "int8"])
def inverted(request: pytest.FixtureRequest) -> tuple[Graph, bytes]:
    graph = network(seeded(Inverted), request.param)
    return graph, pte(graph)


@pytest.fixture(scope="module")
def heavy() -> tuple[Graph, bytes]:
    graph = network(seeded(Heavy), True)
    return graph, pte(graph)


def of_nodes(times: tuple[LayerTime, ...], graph: Graph, ops: tuple[str, ...]) -> list[str]:
    nodes = [node.name for node in graph.nodes if node.op in ops]
    return [time.name for time in times if time.name in nodes]


def require_a_run_of(times: Callable[[], tuple[LayerTime, ...]], run: Callable[[], object], graph: Graph) -> None:
    """They add up to a run, and the heavy layer is the slowest. The least of many tries: what else the machine does only adds."""
    tries = [times() for _ in range(12)]
    least = [LayerTime(time.name, time.kind, min(row[i].ms for row in tries)) for i, time in enumerate(tries[0])]
    heavy = [node.name for node in graph.nodes if node.op == "conv2d"][2]
    assert max(least, key=lambda time: time.ms).name == heavy
    runs = []
    for _ in range(60):
        start = perf_counter()
        run()
        runs.append((perf_counter() - start) * 1e3)
    assert 0.5 < min(sum(time.ms for time in row) for row in tries) / min(runs) < 2


# ---- ExecuTorch ----------------------------------------------------------------------------------------------------------------


def test_every_layer_of_a_program_goes_by_its_nodes_name_in_running_order(inverted: tuple[Graph, bytes]) -> None:
    graph, content = inverted
    times = with_names(executorch_layers.layer_times(content, 5, 1), graph)
    for ops in (DENSE, ("add",), ("mean",)):
        wanted = [node.name for node in graph.nodes if node.op in ops]
        assert of_nodes(times, graph, ops) == wanted and wanted
    deep = {node.name for node in graph.nodes if node.op == "depthwise_conv2d"}
    assert {time.name for time in times if "DWConv" in time.kind} == deep
    assert all(time.ms >= 0 for time in times)


def test_the_images_cast_is_all_that_runs_outside_the_delegate(inverted: tuple[Graph, bytes]) -> None:
    graph, content = inverted
    times = with_names(executorch_layers.layer_times(content, 2, 1), graph)
    outside = [time for time in times if time.kind.startswith("native_call")]
    assert [(time.name, time.kind) for time in outside] == [(graph.nodes[0].name, "native_call__to_copy.out")]


def test_a_programs_layers_make_up_a_run_and_the_heavy_one_is_the_slowest(heavy: tuple[Graph, bytes]) -> None:
    graph, content = heavy
    program = executorch_run.load_bytes(content, "x.pte", 1)
    image = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    require_a_run_of(lambda: with_names(executorch_layers.layer_times(content, 2, 1), graph), lambda: program(image), graph)


def test_what_does_not_run_is_refused(heavy: tuple[Graph, bytes]) -> None:
    _, content = heavy
    for damaged in (b"nothing", content[: len(content) // 2]):
        with pytest.raises(UnusableFile, match=r"\.pte cannot be run"):
            executorch_layers.layer_times(damaged, 2, 1)


# ---- whose an operator is ------------------------------------------------------------------------------------------------------


def test_operators_are_named_by_kind_and_order_only_where_nothing_contradicts() -> None:
    graph = network(seeded(Inverted), True)
    dense = [node for node in graph.nodes if node.op in DENSE]
    kinds = [
        "Convolution (NHWC, QC8) DWConv" if node.op == "depthwise_conv2d" else "Convolution (NHWC, QC8) GEMM" for node in dense
    ]
    addition = next(node.name for node in graph.nodes if node.op == "add")
    names = [node.name for node in dense]
    assert named(["Convert (NC)", *kinds], graph) == [None, *names]
    table = graph.nodes[0].name
    assert named(["Add (ND)", "Transpose (ND, X8)", "Add (ND)"], graph) == [table, None, addition]
    one_less, swapped = kinds[:-1], [kinds[1], kinds[2], kinds[0], *kinds[3:]]
    wide_as_a_matrix = ["Fully Connected (NC, QS8, QC8W) GEMM", *kinds[1:]]  # the first is 3 x 3
    for uncertain in (one_less, swapped, wide_as_a_matrix):
        assert named(uncertain, graph) == [None] * len(uncertain)


# ---- LiteRT --------------------------------------------------------------------------------------------------------------------

OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def written(model: bytes) -> list[str]:
    """The tensors that the file's convolutions and fully connected layers write, in the file's order, as LiteRT lists them."""
    interpreter = tflite_run.open_interpreter(model, "x", "reference")
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    return [names[int(op["outputs"][0])] for op in interpreter._get_ops_details() if op["op_name"] in OPERATORS]


@pytest.mark.parametrize("name", ["vww_96_int8", "vww_96_float", "resnet8_cifar10_int8", "mobilenet_v2_1_0_224_quant"])
def test_every_layer_of_a_tflite_goes_by_the_name_of_its_tensor(shared_data: Shared, name: str) -> None:
    model = shared_data(f"{name}.tflite").read_bytes()
    wanted = written(model)
    times = tflite_layers.layer_times(model, 3, 1)
    assert [time.name for time in times if time.name in wanted] == wanted and len(wanted) > 9


@pytest.mark.parametrize("precision", ["as-is", "fp16", "dynamic"])
def test_printed_floats_are_timed_in_every_precision(precision: tflite.Precision) -> None:
    graph = network(seeded(Inverted), False)
    times = tflite_layers.layer_times(tflite.print_graph(graph, precision), 3, 1)
    assert of_nodes(times, graph, DENSE) == [node.name for node in graph.nodes if node.op in DENSE]
    assert graph.nodes[0].name in [time.name for time in times]  # the normalisation


def test_a_tflites_layers_make_up_a_run_and_the_heavy_one_is_the_slowest(heavy: tuple[Graph, bytes]) -> None:
    graph, _ = heavy
    model = tflite.print_graph(graph)
    interpreter = tflite_run.open_interpreter(model, "x")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, SIDE, SIDE, 3), np.uint8))
    require_a_run_of(lambda: tflite_layers.layer_times(model, 2, 1), interpreter.invoke, graph)


def test_a_damaged_file_is_refused() -> None:
    with pytest.raises(UnusableFile):
        tflite_layers.layer_times(b"nothing", 2, 1)


def test_a_profiler_that_falls_over_is_an_error_and_not_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As another version of LiteRT might make its process end."""
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho it fell over >&2\nkill -SEGV $$\n")
    stand_in.chmod(0o755)
    model = tflite.print_graph(network(seeded(Inverted), False))
    monkeypatch.setattr(sys, "executable", str(stand_in))
    with pytest.raises(NestlingError, match="it fell over") as caught:
        tflite_layers.layer_times(model, 2, 1)
    assert "ai-edge-litert" in caught.value.hint
