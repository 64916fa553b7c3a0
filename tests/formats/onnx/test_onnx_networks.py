"""Networks printed as ONNX, against torch, LiteRT's reference kernels and ONNX Runtime's own fused graph."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import nn

from nestling.artifacts.import_model import import_model
from nestling.formats.about import about
from nestling.formats.onnx.printing import print_graph
from nestling.formats.onnx.run import activations, load_bytes
from nestling.formats.onnx.runtimes import Runtime
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph import ir
from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import Graph, Node, Tensor
from nestling.words import OnnxWeights
from tests.formats.onnx.onnx_cases import (
    EMBEDDING,
    EXACT,
    RUNTIMES,
    SIXTEEN,
    WEIGHTS,
    judge,
    needs_exact_products,
    outputs,
    quant,
    session,
)
from tests.helpers.quantization_cases import (
    Everything,
    Inverted,
    calibrated,
    captured,
    litert,
    noise,
    pictures,
    seeded,
    torch_float,
)

CALIBRATION, UNSEEN = pictures(32), pictures(40, seed=1)


@pytest.fixture(scope="module", params=[Everything, Inverted])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Graph]:
    module = seeded(request.param)
    return module, calibrated(captured(module), CALIBRATION)[0]


@pytest.mark.kernels
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("weights", ["uint8", "int8"])
def test_a_network_adds_less_noise_than_quantisation_did(
    case: tuple[nn.Module, Graph], weights: OnnxWeights, runtime: Runtime
) -> None:
    if weights == "int8" and not EXACT[runtime]:
        pytest.skip(f"needs a processor on which {runtime} sums products of bytes in 32 bits (VNNI)")
    module, graph = case
    expected = litert(graph, UNSEEN)
    answers = load_bytes(print_graph(graph, EMBEDDING, weights), "net.onnx", 1, runtime).features(np.stack(UNSEEN))
    assert noise(expected, answers) < 0.75 * noise(expected, torch_float(module, UNSEEN))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_float_network_answers_as_torch(case: tuple[nn.Module, Graph], runtime: Runtime) -> None:
    module, _ = case
    wanted = torch_float(module, UNSEEN)
    answers = load_bytes(print_graph(captured(module), EMBEDDING), "net.onnx", 1, runtime).features(np.stack(UNSEEN))
    np.testing.assert_allclose(answers, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.kernels
@needs_exact_products
def test_both_forms_of_weights_answer_the_same(case: tuple[nn.Module, Graph]) -> None:
    images = np.stack(UNSEEN)
    unsigned, signed = (
        load_bytes(print_graph(case[1], EMBEDDING, weights), "net.onnx", 1).features(images) for weights in ("uint8", "int8")
    )
    np.testing.assert_array_equal(unsigned, signed)


@pytest.mark.kernels
def test_the_activations_are_those_of_a_run(case: tuple[nn.Module, Graph]) -> None:
    """Every int8 tensor that the Graph computes, in its order; and asking for them does not change the answer."""
    _, graph = case
    content = print_graph(graph, EMBEDDING)
    found = activations(content, UNSEEN[0][None])
    integers = {node.name: graph.tensors[node.name].shape for node in graph.nodes if graph.tensors[node.name].dtype == "int8"}
    assert {name: values.shape for name, values in found.items()} == integers
    out = graph.tensors[graph.outputs[0]]
    real = (found[out.name].astype(np.float32) - out.quant.zero_point) * out.quant.scale
    np.testing.assert_allclose(load_bytes(content, "net.onnx", 1).features(UNSEEN[0][None]), real, rtol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("weights", ["uint8", "int8"])
def test_every_layer_is_fused_to_integers(tmp_path: Path, weights: OnnxWeights, symmetric: bool) -> None:
    """symmetric: no clamp is free then."""
    graph = calibrated(captured(seeded(Inverted)), CALIBRATION, QuantizeConfig(symmetric=symmetric))[0]
    session(print_graph(graph, SIXTEEN, weights), tmp_path / "fused.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    ops = Counter(node.op for node in graph.nodes)
    assert kinds["QLinearConv"] == ops["conv2d"] + ops["depthwise_conv2d"]
    assert kinds["QLinearAdd"] == ops["add"] and kinds["QLinearGlobalAveragePool"] == ops["mean"]
    assert not {"Conv", "FusedConv", "ReduceMean"} & kinds.keys()
    assert kinds["QuantizeLinear"] <= 1 and kinds["DequantizeLinear"] == 1  # the image's, and the answer's


@pytest.mark.parametrize("weights", ["uint8", "int8"])
def test_the_graphs_integers_stand_in_the_file(case: tuple[nn.Module, Graph], weights: OnnxWeights) -> None:
    _, graph = case
    model = onnx.load_model_from_string(print_graph(graph, SIXTEEN, weights))
    stored = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    order = {"conv2d": (0, 3, 1, 2), "depthwise_conv2d": (3, 0, 1, 2), "fully_connected": (0, 1)}
    layers = [node for node in graph.nodes if node.op in order]
    assert layers
    for node in layers:
        printed = next(operator for operator in model.graph.node if operator.name == node.name)
        weight, *biases = (graph.tensors[name] for name in node.inputs[1:])
        values, scales, zero_points = (stored[name] for name in makers[printed.input[1]].input)
        shift = 128 if weights == "uint8" else 0
        np.testing.assert_array_equal(values.astype(int) - shift, weight.data.transpose(order[node.op]))
        np.testing.assert_array_equal(scales, weight.quant.scale)
        assert values.dtype == zero_points.dtype == weights and set(zero_points.flat) == {shift}
        for bias in biases:
            values, scales = (stored[name] for name in makers[printed.input[2]].input)
            assert values.dtype == np.int32
            np.testing.assert_array_equal(values, bias.data)
            np.testing.assert_allclose(scales, graph.tensors[node.inputs[0]].quant.scale * weight.quant.scale, rtol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_initialiser_is_read_twice_and_exact_products_may_be_asked_for(
    case: tuple[nn.Module, Graph], weights: OnnxWeights
) -> None:
    """session.x64quantprecision rewrites int8 weights while it loads, and refuses those that two nodes read."""
    content = print_graph(case[1], SIXTEEN, weights)
    body = onnx.load_model_from_string(content).graph
    constants = {constant.name for constant in body.initializer}
    readings = Counter(name for node in body.node for name in node.input if name in constants)
    assert constants == readings.keys() and set(readings.values()) == {1}
    image = UNSEEN[0][None]
    np.testing.assert_array_equal(outputs(content, image, x64quantprecision="1")[0], outputs(content, image)[0])


def test_weights_that_two_layers_share_are_written_twice() -> None:
    rng = np.random.default_rng(0)
    weight = Tensor("w", (4, 1, 1, 4), "int8", rng.integers(-127, 128, (4, 1, 1, 4)).astype(np.int8), quant(0.01, 0))
    tensors = (weight, *(Tensor(name, (1, 4, 4, 4), "int8", None, quant(0.05, 0)) for name in ("x", "y", "z")))
    nodes = tuple(Node("conv2d", (a, "w"), (b,), ir.Conv2d()) for a, b in ("xy", "yz"))
    content = print_graph(Graph({tensor.name: tensor for tensor in tensors}, nodes, ("x",), ("z",)), SIXTEEN, "int8")
    image = rng.integers(0, 256, (1, 4, 4, 4)).astype(np.uint8)
    assert outputs(content, image, x64quantprecision="1")[0].shape == (1, 4, 4, 4)


def test_the_same_graph_gives_the_same_bytes() -> None:
    first, second = (print_graph(calibrated(captured(seeded(Everything)), CALIBRATION)[0], SIXTEEN) for _ in range(2))
    assert first == second


def test_names_that_look_like_the_printers_own_are_kept_apart(case: tuple[nn.Module, Graph]) -> None:
    """Each tensor is called as parts of its neighbour are."""
    _, graph = case
    parts = ("", ":real", ":float", ":quantize", ":dequantize", ":weight", ":quantize:scale", ":dequantize:scale")
    new = {name: f"t{i // len(parts)}{parts[i % len(parts)]}" for i, name in enumerate(graph.tensors)}

    def named(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new[name] for name in names)

    renamed = Graph(
        {new[name]: replace(tensor, name=new[name]) for name, tensor in graph.tensors.items()},
        tuple(replace(node, inputs=named(node.inputs), outputs=named(node.outputs)) for node in graph.nodes),
        named(graph.inputs),
        named(graph.outputs),
    )
    plain, odd = (outputs(print_graph(g, SIXTEEN), UNSEEN[0][None])[0] for g in (graph, renamed))
    np.testing.assert_array_equal(plain, odd)


# ---- networks of others ---------------------------------------------------------------------------------------------------------

FILES = ("resnet8_cifar10_int8.tflite", "vww_96_int8.tflite", "mobilenet_v2_1_0_224_quant.tflite")


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", FILES)
def test_imported_networks_keep_their_integers_and_their_end(
    shared_data: Callable[[str], Path], name: str, weights: OnnxWeights
) -> None:
    """Each node at most a step off; at the end within a few steps of LiteRT's reference kernels, and of the same opinion."""
    bundle = import_model(shared_data(name))
    assert bundle.graph is not None
    image = np.random.default_rng(0).integers(0, 256, bundle.graph.tensors[bundle.graph.inputs[0]].shape).astype(np.uint8)
    judge(bundle.graph, image, weights)
    answer = load_bytes(print_graph(bundle.graph, about(bundle), weights), name, 1)(image)
    (steps,) = tflite_run.run(tflite.print_graph(bundle.graph), [image])
    grid = bundle.graph.tensors[bundle.graph.outputs[0]].quant
    shift = 128 if steps.dtype == np.uint8 else 0
    wanted = (steps.astype(np.float32) - shift - grid.zero_point) * grid.scale
    np.testing.assert_allclose(answer, wanted, rtol=0, atol=4.5 * float(grid.scale[0]))
    assert answer.argmax() == wanted.argmax()
