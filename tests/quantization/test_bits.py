"""Bits layer by layer: the choice against every other one, the costs against torch."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nestling.errors import NestlingError
from nestling.graph.float_twin import real
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import Graph
from nestling.quantization import bits as mixed
from nestling.quantization.bits import chosen, chosen_bits, layer_bits, least_cost, options, sensitivities
from tests.helpers.quantization_cases import Inverted, calibrated, captured, pictures, seeded

IMAGES = pictures(12)
HEAD = Head(np.random.default_rng(0).normal(0, 1, (5, 40)).astype(np.float32), np.linspace(-1, 1, 5).astype(np.float32))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return seeded(Inverted)


@pytest.fixture(scope="module")
def graph(network: nn.Module) -> Graph:
    return captured(network)


@pytest.fixture(scope="module")
def found(graph: Graph) -> mixed.Options:
    return sensitivities(graph, IMAGES, HEAD, QuantizeConfig())


# ---- the choice ----------------------------------------------------------------------------------------------------------------

CHOICES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(CHOICES, min_size=1, max_size=5), st.integers(0, 100))
def test_no_other_choice_within_the_budget_costs_less(layers: list[list[tuple[int, int]]], spare: int) -> None:
    budget = sum(min(size for size, _ in layer) for layer in layers) + spare
    sums = [(sum(s for s, _ in one), sum(c for _, c in one)) for one in product(*layers)]
    places = least_cost([[s for s, _ in layer] for layer in layers], [[c for _, c in layer] for layer in layers], budget)
    picked = [layer[place] for layer, place in zip(layers, places, strict=True)]
    assert sum(size for size, _ in picked) <= budget
    assert sum(cost for _, cost in picked) == min(cost for size, cost in sums if size <= budget)


def test_more_sums_than_are_gone_on_with_still_keep_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = np.sort(rng.integers(1, 10**6, (40, 3)), axis=1)
    costs = np.sort(rng.uniform(0, 1, (40, 3)), axis=1)[:, ::-1]

    def cost(budget: int) -> float:
        places = least_cost(sizes.tolist(), costs.tolist(), budget)
        assert sum(sizes[layer, place] for layer, place in enumerate(places)) <= budget
        return float(sum(costs[layer, place] for layer, place in enumerate(places)))

    least, most = int(sizes[:, 0].sum()), int(sizes[:, 2].sum())
    monkeypatch.setattr(mixed, "MOST", 2**12)
    finer = cost((least + most) // 2)
    monkeypatch.setattr(mixed, "MOST", 64)
    assert finer <= cost((least + most) // 2) < 1.1 * finer
    assert cost(least) == pytest.approx(costs[:, 0].sum()) and cost(most) == pytest.approx(costs[:, 2].sum())


def test_the_budget_is_kept_and_more_of_it_never_costs_more(found: mixed.Options) -> None:
    least, most = (sum(pick(row.bytes for row in rows) for rows in found) for pick in (min, max))
    plans = [(budget, chosen(found, budget)) for budget in np.linspace(least, most, 12).astype(int).tolist()]
    assert all(sum(row.bytes for row in plan) <= budget for budget, plan in plans)
    costs = [sum(row.cost for row in plan) for _, plan in plans]
    assert all(before >= after for before, after in pairwise(costs)) and costs[0] > 10 * costs[-1]
    assert {row.bits for row in plans[0][1]} == {2} and len({row.bits for row in plans[6][1]}) > 1


def test_a_budget_that_two_bits_everywhere_exceed_is_refused_before_anything_is_measured(graph: Graph) -> None:
    with pytest.raises(NestlingError) as refused:
        chosen_bits(graph, [], HEAD, 100, QuantizeConfig())
    # 16 x 27 + 2 (16 x 32 + 32 x 9 + 32 x 16) + 40 x 16 weights at 2 bits, and 9 bytes for each of 16 + 2 x 80 + 40 channels
    assert "at least 2,868 bytes; the budget is 100" in str(refused.value)
    assert refused.value.hint.startswith(f"--budget 2868 to {3696 + 9 * 216}")


# ---- the costs -----------------------------------------------------------------------------------------------------------------


def divergence(network: nn.Module, changed: nn.Module) -> float:
    """Kullback-Leibler, nats an image, by torch."""
    from tests.helpers.quantization_cases import torch_float

    logits = [torch.from_numpy(torch_float(one, IMAGES) @ HEAD.weight.T + HEAD.bias).double() for one in (network, changed)]
    wanted, answer = (nn.functional.log_softmax(one, 1) for one in logits)
    return float(nn.functional.kl_div(answer, wanted, reduction="batchmean", log_target=True))


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_cost_is_what_torch_answers_with_that_layer_rounded(network: nn.Module, graph: Graph, per_layer: bool) -> None:
    config = QuantizeConfig(per_layer=per_layer)
    rows = {(row.source, row.bits): row for rows in sensitivities(graph, IMAGES, HEAD, config) for row in rows}
    sources = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    assert [name for name, bits in rows if bits == 8] == sources
    for bits in (2, 4, 8):
        integers = calibrated(graph, IMAGES[:2], QuantizeConfig(bits_weights=bits, per_layer=per_layer))[0]
        for source in sources:
            node = next(node for node in integers.nodes if node.source == source)
            rounded = real(integers.tensors[node.inputs[1]])
            order = (3, 0, 1, 2) if node.op == "depthwise_conv2d" else (0, 3, 1, 2)
            changed: Any = deepcopy(network)
            changed.get_submodule(source).weight.data = torch.from_numpy(rounded.transpose(order).copy())
            assert rows[source, bits].cost == pytest.approx(divergence(network, changed), rel=0.02, abs=1e-7)


def test_weights_that_two_layers_share_are_rounded_in_one_of_them() -> None:
    class Twice(nn.Module):
        def __init__(self, second: nn.Conv2d | None) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = second or self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).relu()).mean((2, 3))

    shared = seeded(Twice, None)
    apart = Twice(deepcopy(shared.first)).eval()
    apart.first.load_state_dict(shared.first.state_dict())
    head = Head(HEAD.weight[:, :3], HEAD.bias)
    costs = [
        [row.cost for rows in sensitivities(captured(one), IMAGES, head, QuantizeConfig()) for row in rows]
        for one in (shared, apart)
    ]
    assert len(costs[0]) == 6 and costs[0] == pytest.approx(costs[1], rel=1e-3) and costs[0][:3] != costs[0][3:]


def test_a_layer_made_sensitive_keeps_its_8_bits(network: nn.Module) -> None:
    """One large weight in each of its channels, on an input that is always zero: with few bits nothing is left of the others."""
    changed: Any = deepcopy(network)
    changed.first[0].bias.data[0], changed.first[0].weight.data[0] = -1, 0
    changed.first[2].bias.data[0] = -1  # so channel 0 is 0 behind its relu, whatever the image
    changed.first[4].weight.data[:, 0] = 60 * changed.first[4].weight.data.abs().max()
    rows = sensitivities(captured(changed), IMAGES, HEAD, QuantizeConfig(per_layer=True))
    least, most = (sum(pick(row.bytes for row in one) for one in rows) for pick in (min, max))
    plan = {row.source: row.bits for row in chosen(rows, (2 * least + most) // 3)}
    assert plan["first.4"] == 8 and min(plan.values()) < 8
    before = sensitivities(captured(network), IMAGES, HEAD, QuantizeConfig(per_layer=True))
    assert {row.source: row.bits for row in chosen(before, (2 * least + most) // 3)}["first.4"] < 8


# ---- with the rest of quantisation -----------------------------------------------------------------------------------------------


def test_the_integers_have_the_bits_that_were_chosen(graph: Graph) -> None:
    plan = chosen_bits(graph, IMAGES, HEAD, 3600, QuantizeConfig())
    integers = calibrated(graph, IMAGES, QuantizeConfig(layer_bits=layer_bits(plan)))[0]
    weights = {node.name: integers.tensors[node.inputs[1]].data for node in integers.nodes if "conv" in node.op}
    assert {name: int(np.abs(data.astype(int)).max()) for name, data in weights.items()} == {
        row.layer: {2: 1, 4: 7, 8: 127}[row.bits] for row in plan
    }
    assert len({row.bits for row in plan}) > 1 and sum(row.weights for row in plan) == sum(data.size for data in weights.values())


def test_layers_whose_bits_are_fixed_have_no_choice(graph: Graph) -> None:
    names = [rows[0].layer for rows in options(graph, QuantizeConfig())]
    config = QuantizeConfig(ends_at_8=True, layer_bits=((names[3], 3),))
    rows = sensitivities(graph, IMAGES[:2], HEAD, config)
    assert [[row.bits for row in one] for one in rows] == [[8], [2, 4, 8], [2, 4, 8], [3], *[[2, 4, 8]] * 3, [8]]
    assert rows[3][0].bytes == options(graph, QuantizeConfig())[3][1].bytes  # 3 bits are stored as 4
    assert chosen(rows, 10**6)[3].bits == 3


def test_it_takes_an_image(graph: Graph) -> None:
    with pytest.raises(NestlingError, match="at least one image"):
        sensitivities(graph, [], HEAD, QuantizeConfig())
