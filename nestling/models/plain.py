"""plain(): a timm network out of PyTorch's own layers, one operation a module, nothing in place.

timm fuses batch normalisation and activation in one module, and writes activations over their input. Pruners, searches and
calibration see neither the norm nor the value in between. The plain network computes the same numbers, bit for bit.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from timm.layers import BatchNormAct2d
from timm.layers.activations import Sigmoid, Tanh
from torch import nn

# timm's wrappers that only add an `inplace` argument
TORCHS_OWN: dict[type[nn.Module], type[nn.Module]] = {Sigmoid: nn.Sigmoid, Tanh: nn.Tanh}


def plain(module: nn.Module) -> nn.Module:
    """A copy of `module` without timm's fused layers; same outputs, bit for bit, in eval and in training.

    BatchNormAct2d becomes nn.Sequential(norm, act), or BatchNorm2d alone where it has no activation. State-dict names stay, except
    that a norm with an activation is called X.norm.weight where timm says X.weight. Activations stop working in place.
    Left alone: convolutions with TensorFlow's padding (Conv2dSame, which torch.export resolves at a fixed size), attention,
    other norms. `module` itself is not changed; its device, dtypes and mode are kept.
    """
    return _plain(copy.deepcopy(module))


def _plain(module: nn.Module) -> nn.Module:
    """Rewrites the children in place (it is our copy) and gives the module to stand in `module`'s stead."""
    for name, child in module.named_children():
        module.add_module(name, _plain(child))
    if getattr(module, "inplace", False) is True:
        module.inplace = False  # type: ignore[assignment]  # nn.Module's attributes are typed as tensors and modules
    if isinstance(module, BatchNormAct2d):
        return _norm_then_act(module)
    own = TORCHS_OWN.get(type(module))
    return own() if own else module


def _norm_then_act(fused: nn.BatchNorm2d) -> nn.Module:
    norm = nn.BatchNorm2d(
        fused.num_features, fused.eps, fused.momentum, fused.affine, fused.track_running_stats, device=torch.device("meta")
    )  # on "meta", for its own numbers are thrown away in the next line
    norm.load_state_dict(fused.state_dict(), strict=False, assign=True)
    if fused.affine:
        norm.weight, norm.bias = fused.weight, fused.bias  # the parameters themselves, with their requires_grad
    norm.train(fused.training)
    parts = OrderedDict(norm=norm) | {
        name: part for name in ("drop", "act") if not isinstance(part := getattr(fused, name), nn.Identity)
    }
    return nn.Sequential(parts).train(fused.training) if len(parts) > 1 else norm
