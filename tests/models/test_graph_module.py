"""A Graph as a torch module: torch's answers, torch's training, and the same Graph back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nestling.errors import UnsupportedOp
from nestling.graph import reference
from nestling.graph.edit import canonical
from nestling.graph.ir import (
    Attrs,
    AveragePool,
    Gelu,
    Graph,
    LeakyRelu,
    MaxPool,
    Node,
    PadChannels,
    Quantize,
    ResizeNearest,
    Slice,
    Softmax,
    same,
)
from nestling.graph.ir import Tensor as GraphTensor
from nestling.graph.passes import prepare
from nestling.graph.spec import check, output_shape
from nestling.models.capture.capture import capture
from nestling.models.graph_module import GraphModule, to_graph
from tests.helpers.torch_networks import NINE, difference, image, network, randomised, torch_answer


def answer(module: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(x)).numpy()


def assert_round_trip(name: str) -> None:
    module, table = network(name, 5), image((3, 256))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    expected = torch_answer(module, np.stack([table[c][pixels[..., c]] for c in range(3)], axis=-1))
    graph = capture(module, (96, 96, 3), table)
    for one, again in ((graph, lambda back: back), (prepare(graph), prepare)):
        trainable = GraphModule(one).eval()
        assert difference(answer(trainable, pixels), expected) < 1e-5
        assert same(to_graph(trainable), one)
        back = again(capture(trainable, (96, 96, 3), takes="nhwc uint8"))
        assert same(canonical(back), canonical(one))


def test_a_small_network_answers_as_torch_and_comes_back_the_same() -> None:
    assert_round_trip("mobilenetv3_small_050")


@pytest.mark.slow
@pytest.mark.parametrize("name", NINE)
def test_nine_networks_answer_as_torch_and_come_back_the_same(name: str) -> None:
    assert_round_trip(name)


class Small(nn.Module):
    """A residual block with a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = (
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8, padding=1),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x)))
        return self.head((x + nn.functional.hardswish(self.b(x))).mean((2, 3)))


def test_training_moves_weights_and_statistics_as_in_torch() -> None:
    torch.manual_seed(0)
    ours_before, x = capture(randomised(theirs := Small()), (8, 8, 3)), image((6, 8, 8, 3))
    ours = GraphModule(ours_before)
    for module, take in ((theirs.train(), torch.from_numpy(x).permute(0, 3, 1, 2)), (ours.train(), torch.from_numpy(x))):
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(take), torch.tensor([0, 1, 2, 3, 0, 1])).backward()
            optimiser.step()
    trained = to_graph(ours)
    expected = capture(theirs.eval(), (8, 8, 3))
    for name, tensor in expected.tensors.items():
        if tensor.data is not None:
            assert np.allclose(trained.tensors[name].data, tensor.data, rtol=1e-4, atol=1e-6), name
            assert not np.array_equal(tensor.data, ours_before.tensors[name].data), f"{name} was not trained"


def test_parameters_are_what_is_learned_and_the_rest_are_buffers() -> None:
    module = GraphModule(capture(randomised(Small()), (8, 8, 3), image((3, 256))))
    learned = {name.removeprefix("constants.") for name, _ in module.named_parameters()}
    assert learned == {"a/weight", "norm/weight", "norm/bias", "b/weight", "b/bias", "head/weight", "head/bias"}
    fixed = {name.removeprefix("constants.") for name, _ in module.named_buffers()}
    assert fixed == {"normalised/table", "norm/running_mean", "norm/running_var"}
    assert module.constant("a.weight").shape == (8, 3, 3, 3)


def test_hooks_see_every_value_in_the_graphs_layout_and_may_change_it() -> None:
    graph, x = prepare(capture(randomised(Small()), (8, 8, 3))), image((1, 8, 8, 3))
    module = GraphModule(graph).eval()
    plain, seen = answer(module, x), {}

    def record(name: str, value: Tensor) -> Tensor:
        seen[name] = value.numpy()
        return value

    module.observe = module.observe_constant = record
    assert np.array_equal(answer(module, x), plain)
    assert seen.keys() == graph.tensors.keys()
    for name, value in reference.activations(graph, x):
        assert difference(seen[name], value) < 1e-5, name
    assert all(np.array_equal(seen[name], t.data) for name, t in graph.tensors.items() if t.data is not None)

    module.observe, module.observe_constant = None, lambda name, value: value * 2 if name == "head.weight" else value
    assert not np.allclose(answer(module, x), plain)
    module.observe_constant = None
    module.observe = lambda name, value: value * 0 if name == graph.outputs[0] else value
    assert np.array_equal(answer(module, x), np.zeros_like(plain))


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("average_pool", AveragePool((3, 3), (2, 2), (0, 1, 0, 1))),
        ("average_pool", AveragePool((3, 2), (1, 1), (1, 1, 1, 1), "relu")),
        ("average_pool", AveragePool((3, 3), (1, 1), (2, 2, 2, 2))),
        ("max_pool", MaxPool((3, 3), (2, 2), (0, 1, 0, 1))),
        ("max_pool", MaxPool((3, 3), (2, 2), (2, 2, 2, 2), "relu6")),
        ("pad_channels", PadChannels(1, 3)),
        ("leaky_relu", LeakyRelu(0.2)),
        ("resize_nearest", ResizeNearest((14, 5), align_corners=True)),
        ("slice", Slice(2, 1, 5)),
        ("gelu", Gelu()),
        ("gelu", Gelu(True)),
        ("softmax", Softmax(0.5)),
    ],
)
def test_what_torch_has_no_words_for(op: str, attrs: Attrs) -> None:
    """Padding of one side only, windows half outside, beta: against the NumPy reference."""
    shape = (1, 7, 6, 2)
    tensors = [GraphTensor("x", shape, "float32"), GraphTensor("y", output_shape(op, attrs, shape), "float32")]
    graph = check(Graph({t.name: t for t in tensors}, (Node(op, ("x",), ("y",), attrs),), ("x",), ("y",)))
    x = image(shape)
    assert difference(answer(GraphModule(graph), x), reference.run(graph, x)["y"]) < 1e-6


def test_names_that_torch_would_not_allow() -> None:
    graph = capture(randomised(Small()), (8, 8, 3))
    new = dict(zip(graph.tensors, ["training", "a.b", "a/b", "forward", "", "é;:0", "x y"], strict=False))
    odd = Graph(
        {new.get(n, n): GraphTensor(new.get(n, n), t.shape, t.dtype, t.data) for n, t in graph.tensors.items()},
        tuple(
            Node(n.op, tuple(new.get(i, i) for i in n.inputs), tuple(new.get(o, o) for o in n.outputs), n.attrs)
            for n in graph.nodes
        ),
        tuple(new.get(n, n) for n in graph.inputs),
        tuple(new.get(n, n) for n in graph.outputs),
    )
    module, x = GraphModule(odd).eval(), image((1, 8, 8, 3))
    assert np.array_equal(answer(module, x), answer(GraphModule(graph).eval(), x))
    assert same(to_graph(module), odd)
    assert same(canonical(capture(module, (8, 8, 3), takes="nhwc float32")), canonical(graph))


def test_integers_cannot_be_trained() -> None:
    tensors = {"x": GraphTensor("x", (1, 4), "float32"), "y": GraphTensor("y", (1, 4), "int8")}
    with pytest.raises(UnsupportedOp, match="quantize 'y'"):
        GraphModule(Graph(tensors, (Node("quantize", ("x",), ("y",), Quantize()),), ("x",), ("y",)))
