"""Networks of timm's that the tests try, and torch's own answers: the independent judge."""

from __future__ import annotations

from copy import deepcopy
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.graph.ir import Graph
from nestling.models.capture.capture import capture

SMALL = ("mobilenetv2_050", "mobilenetv3_small_050")
NINE = (
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "mnasnet_100",
    "resnet18",
)
FURTHER = (  # branches that become one layer, gelu, slices, splits, nearest neighbours
    "repvgg_a0",
    "mobileone_s1",
    "repvit_m0_9",
    "fastvit_t8",
    "mixnet_s",
    "rexnet_100",
    "ghostnetv2_100",
    "ghostnetv3_050",
    "hrnet_w18_small",
)

M = TypeVar("M", bound=nn.Module)


def randomised(module: M, seed: int = 0) -> M:
    """`module` in evaluation mode, its norms given statistics and affine parameters that a fold must not lose."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5)):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
            norm.running_mean.uniform_(-0.5, 0.5, generator=generator)
            norm.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


def network(name: str, classes: int = 0) -> nn.Module:
    torch.manual_seed(0)
    return randomised(timm.create_model(name, num_classes=classes))


_CAPTURED: dict[bytes, Graph] = {}


def captured_once(module: nn.Module, shape: tuple[int, int, int], table: NDArray[np.float32] | None = None) -> Graph:
    """capture(), but torch exports a network with the same layers and weights only once in a process; a copy for each test.

    For tests of what comes after it: forward() has to follow from the class and the layers.
    """
    said = sha256(repr((type(module), module, module.training, shape)).encode())
    for name, tensor in module.state_dict().items():
        said.update(name.encode() + tensor.numpy().tobytes())
    said.update(b"" if table is None else table.tobytes())
    key = said.digest()
    if key not in _CAPTURED:
        _CAPTURED[key] = capture(module, shape, table)
    return deepcopy(_CAPTURED[key])


def image(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """float32 NHWC."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_answer(module: nn.Module, nhwc: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the NCHW network answers; maps as NHWC."""
    with torch.no_grad():
        answer = module(torch.from_numpy(nhwc).permute(0, 3, 1, 2)).numpy()
    return answer.transpose(0, 2, 3, 1) if answer.ndim == 4 else answer


def difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The largest difference, relative to the largest value of b."""
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())
