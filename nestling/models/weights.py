"""Where a backbone's numbers come from: an installed package, timm's hub, a file. Nothing here executes what it reads."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from nestling.errors import NestlingError, UnusableFile
from nestling.models.packages import PACKAGES, package_of, source_of, tensors_in
from nestling.models.pth import Claim, read_pth, tensors_of
from nestling.outside import NOT_FINITE, VARIANCE, content, require_small_header

# Outer keys under which training programs put the state dict, and wrappers' prefixes.
# Averaged weights come first: they are the ones that were evaluated.
NESTS = ("state_dict_ema", "model_ema", "state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.")
HUB_SECONDS = 5.0  # to hear anything at all from the hub before giving up


def what_works(name: str) -> str:
    """A hint: the ways of getting weights that need no network, for messages."""
    package = ["--weights package"] if package_of(name) else []
    ways = [*package, "--weights FILE (.safetensors, .pth)", "--weights none (random)"]
    others = [other for other in PACKAGES if package_of(other) and not package]
    return "without a network these work:  " + ", ".join(ways + [f"--backbone {other} --weights package" for other in others])


def from_package(name: str) -> tuple[dict[str, Any], str]:
    """The state dict in timm's names (classifier included), and where it is from.

    Raises NestlingError where no installed package has weights for this name.
    """
    package = package_of(name)
    if package is None:
        raise NestlingError(f"no installed package has weights for {name}.", what_works(name))
    found = tensors_in(package)
    with torch.device("meta"):
        wanted = timm.create_model(name).state_dict()
    if [array.shape for array in found] != [tuple(tensor.shape) for tensor in wanted.values()]:
        raise UnusableFile(f"the weights in {package.distribution} are not those of timm's {name}.", what_works(name))
    return dict(zip(wanted, found, strict=True)), source_of(package)


def from_hub(name: str) -> tuple[dict[str, Any], str]:
    """timm's own weights, from the hub's cache on this machine or over the network; and where they are from.

    Raises NestlingError where timm has none, or the hub doesn't answer within seconds.
    """
    config = timm.get_pretrained_cfg(name)
    if not config or not config.has_weights:
        raise NestlingError(f"timm has no weights for {name}.", what_works(name))
    url = f"{huggingface_hub.constants.ENDPOINT}/{config.hf_hub_id}" if config.hf_hub_id else config.url
    if not in_cache(name) and not reachable(url):
        raise NestlingError(f"the weights of {name} are not on this machine, and {url} can't be reached.", what_works(name))
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # whatever the hub's client, the disk or the file may raise
        raise NestlingError(f"{url} gave no weights for {name} ({type(error).__name__}: {error}).", what_works(name)) from error
    return model.state_dict(), f"hub:{config.hf_hub_id or config.url}"


def in_cache(name: str) -> bool:
    """Whether timm's weights for `name` are in the hub's cache on this machine."""
    config = timm.get_pretrained_cfg(name)
    if not config or not config.hf_hub_id:
        return False
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file), str) for file in names)


def reachable(url: str) -> bool:
    """Whether anything answers at `url` within seconds (through the proxy of the environment, where there is one).

    The hub's own client would retry for minutes. False at once where HF_HUB_OFFLINE is set.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # an answer, even if it is "not allowed": the client has its own words for that
    except (OSError, ValueError):
        return False


def from_file(path: Path) -> tuple[dict[str, Any], str]:
    """The state dict in a .safetensors or .pth file, and "file:NAME sha256:FIRST 16 HEX DIGITS"."""
    state = read_state(path)
    return state, f"file:{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def read_state(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors file, or of one that torch.save wrote, by name; nesting and wrappers' prefixes taken off.

    Of torch's files tensors and plain values are read (pth.py). Raises UnusableFile, naming the file.
    """
    whole = content(path)
    if path.suffix == ".safetensors":
        require_small_header(whole[:8], str(path))
        try:
            return _unwrapped(load_safetensors(whole))
        except SafetensorError as error:
            raise UnusableFile(f"{path} is not a whole .safetensors file ({error}).") from error
    saved = read_pth(whole, str(path))
    return _unwrapped(tensors_of(_named(saved.value, path), saved.storages, str(path)))


def _named(found: Any, path: Path) -> dict[str, Any]:
    """The state dict in what a file holds: names with tensors, or with claims on them."""
    state = next((found[nest] for nest in NESTS if isinstance(found, Mapping) and isinstance(found.get(nest), Mapping)), found)
    kinds = (Tensor, Claim)
    tensors = {str(key): value for key, value in state.items() if isinstance(value, kinds)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise UnusableFile(f"{path} holds no state dict (names with tensors), which is what weights are read from.")
    return tensors


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def network_in(state: Mapping[str, Any], module: nn.Module, source: str) -> dict[str, Any]:
    """Of a training program's weights those of the module, under the prefix that all of its names have there ("model.", "net.").

    The state itself where there is no such prefix. Raises UnusableFile where there are several: student and teacher, say.
    """
    wanted = [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]
    starts = {key.removesuffix(wanted[0]) for key in state if key.endswith(wanted[0])}
    fitting = sorted(start for start in starts if all(f"{start}{name}" in state for name in wanted))
    if "" in fitting or not fitting:
        return dict(state)
    if len(fitting) > 1:
        raise UnusableFile(f"{source} holds several such networks: {', '.join(fitting)}.", "save the one that is meant alone")
    return {key.removeprefix(fitting[0]): value for key, value in state.items() if key.startswith(fitting[0])}


def fill(module: nn.Module, state: Mapping[str, Any], source: str, ignore: tuple[str, ...] = ()) -> None:
    """Copy `state` (tensors or arrays) into the module, which must have exactly these names and shapes.

    ignore: prefixes of names that may stand in `state` for nothing (a classifier). Counters of batch norms don't matter either.
    Raises UnusableFile, naming `source`, how many names or shapes don't fit, and which is the first; or the first tensor whose
    numbers no network can have.
    """
    given = require_names(module, state, source, ignore)
    for key, value in given.items():
        if reason := _unsound(key, _tensor(value)):
            raise UnusableFile(f"{source}: {key!r} {reason}.", "such weights answer nothing; take the file of another epoch")
    wanted = module.state_dict()
    with torch.no_grad():
        for key, value in given.items():
            wanted[key].copy_(_tensor(value))


def require_names(module: nn.Module, state: Mapping[str, Any], source: str, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """What of `state` goes into the module, whose names and shapes it must have; see fill.

    The module may be on torch's device meta, which has shapes and no memory.
    """
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    given = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked") and not key.startswith(ignore)}
    wrong = [
        *(f"{key} is missing" for key in wanted if key not in given),
        *(f"{key} is unknown" for key in given if key not in wanted),
        *(
            f"{key} is {list(given[key].shape)}, not {list(wanted[key].shape)}"
            for key in wanted
            if key in given and tuple(given[key].shape) != tuple(wanted[key].shape)
        ),
    ]
    if wrong:
        raise UnusableFile(
            f"{source} does not fit this network: {len(wrong)} of its {len(wanted)} tensors; the first: {wrong[0]}.",
            "check that the file was made with the same backbone's name, in timm's names of layers",
        )
    return given


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def _unsound(key: str, tensor: Tensor) -> str | None:
    """Why these are no weights. In sparse, quantised or absent tensors (device meta) a small file may claim any number of zeros."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        return f"is no plain tensor of real numbers ({tensor.layout}, {tensor.dtype}, {tensor.device})"
    if not torch.isfinite(tensor).all():
        return f"holds {NOT_FINITE}"
    return "holds variances below 0" if key.endswith(VARIANCE) and tensor.numel() and tensor.min() < 0 else None
