"""Where a backbone's numbers come from: an installed package, timm's hub, a file. Nothing here executes what it reads."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Set
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
from nestling.files import digest_of
from nestling.models.packages import PACKAGES, package_of, source_of, tensors_in
from nestling.models.pth import claims_in, read_pth, tensors_of
from nestling.outside import NOT_FINITE, VARIANCE, content, require_small_header

AVERAGED = re.compile(r"(?<![a-z])(ema|swa|averaged?)(?![a-z])", re.IGNORECASE)  # in what leads to a network's names
USUAL = ("", "state_dict", "model")  # where programs put what is meant to be loaded
STATE_DICT = 'save its numbers alone:  torch.save(model.state_dict(), "weights.pth")'
COUNTER = "num_batches_tracked"  # of a batch norm, which nothing reads
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


def from_file(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """The state dicts in a .safetensors or .pth file (states_in), and "file:NAME sha256:FIRST 16 HEX DIGITS"."""
    return states_in(path), f"file:{path.name} sha256:{digest_of(path)[:16]}"


def states_in(path: Path) -> dict[str, dict[str, Any]]:
    """Every state dict (names with tensors) of a .safetensors file, or of one that torch.save wrote, by where it lies in it.

    A file that is a state dict has one, "". Training programs put theirs under "state_dict", "model", "model_state_dict", beside
    optimisers, averages and whatever else; of all that tensors and plain values are read (pth.py). Raises UnusableFile, naming
    the file.
    """
    whole = content(path)
    if path.suffix == ".safetensors":
        require_small_header(whole[:8], str(path))
        try:
            return {"": load_safetensors(whole)}
        except SafetensorError as error:
            raise UnusableFile(f"{path} is not a whole .safetensors file ({error}).") from error
    saved = read_pth(whole, str(path))
    claims = claims_in(saved.value)
    if not claims:
        raise UnusableFile(f"{path} holds no state dict (names with tensors), which is what weights are read from.", STATE_DICT)
    return tensors_of(claims, saved.storages, str(path))


def network_in(states: Mapping[str, Mapping[str, Any]], wanted: Set[str], source: str) -> dict[str, Any]:
    """Of a file's state dicts the tensors of the network that has these names, without what stands before them there.

    states: as states_in gives them. In front of the names may stand what programs and wrappers put there: "model.", "module.",
    "_orig_mod.", "net.encoder.". Averaged weights (EMA, SWA) come before others: they are the ones that were evaluated.
    Where no network has all of the names, the one that has most, for a message. Raises UnusableFile where several different ones
    have all: student and teacher, say.
    """
    found = {(place, start): count for place, state in states.items() for start, count in _starts(state, wanted).items()}
    most = max(found.values(), default=0)
    if not most:
        return dict(states[max(states, key=lambda place: len(states[place]))])
    fitting = [where for where in found if found[where] == most]
    averaged = [where for where in fitting if AVERAGED.search(".".join(where))]
    alone = [where for where in fitting if where == ("", "")]
    usual = [where for where in fitting if where[0] in USUAL]
    networks = {where: _behind(states[where[0]], where[1]) for where in averaged or alone or usual or fitting}
    first, *others = networks.values()
    if most == len(wanted) and not all(_equal(first[name], other[name]) for other in others for name in wanted):
        named = ", ".join(sorted(f"{place}.{start}".strip(".") for place, start in networks))
        raise UnusableFile(f"{source} holds several such networks: {named}.", "save the one that is meant alone")
    return first


def _equal(a: Any, b: Any) -> bool:
    """Of two arrays, or tensors; a network that a program knows by two names is in its file twice."""
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(tensor(a), tensor(b)))


def _starts(state: Mapping[str, Any], wanted: Set[str]) -> Counter[str]:
    """What stands before wanted names in a state dict, with how many of them it stands before."""
    longest = max((name.count(".") for name in wanted), default=0) + 1
    starts: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, min(longest, len(parts)) + 1))
        starts.update(key.removesuffix(end) for end in ends if end in wanted)
    return starts


def _behind(state: Mapping[str, Any], start: str) -> dict[str, Any]:
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def names_of(module: nn.Module) -> set[str]:
    """Of the tensors that a module's weights are."""
    return {name for name in module.state_dict() if not name.endswith(COUNTER)}


def fill(module: nn.Module, state: Mapping[str, Any], source: str, ignore: tuple[str, ...] = ()) -> None:
    """Copy `state` (tensors or arrays) into the module, which must have exactly these names and shapes.

    ignore: prefixes of names that may stand in `state` for nothing (a classifier). Counters of batch norms don't matter either.
    Raises UnusableFile, naming `source`, how many names or shapes don't fit, and which is the first; or the first tensor whose
    numbers no network can have.
    """
    given = require_names(module, state, source, ignore)
    for key, value in given.items():
        if reason := _unsound(key, tensor(value)):
            raise UnusableFile(f"{source}: {key!r} {reason}.", "such weights answer nothing; take the file of another epoch")
    wanted = module.state_dict()
    with torch.no_grad():
        for key, value in given.items():
            wanted[key].copy_(tensor(value))


def require_names(module: nn.Module, state: Mapping[str, Any], source: str, ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    """What of `state` goes into the module, whose names and shapes it must have; see fill.

    The module may be on torch's device meta, which has shapes and no memory.
    """
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith(COUNTER)}
    given = {key: value for key, value in state.items() if not key.endswith(COUNTER) and not key.startswith(ignore)}
    missing = [f"{key} is missing" for key in wanted if key not in given]
    other = [
        f"{key} is {list(given[key].shape)}, not {list(wanted[key].shape)}"
        for key in wanted
        if key in given and tuple(given[key].shape) != tuple(wanted[key].shape)
    ]
    unknown = [f"{key} is none of its" for key in given if key not in wanted]
    kinds = {"are missing": missing, "have another shape": other, "are none of its": unknown}
    if wrong := [*missing, *other, *unknown]:
        said = ", ".join(f"{len(some)} {kind}" for kind, some in kinds.items() if some)
        raise UnusableFile(
            f"{source} does not fit this network, which has {len(wanted)} tensors: {said}; the first: {wrong[0]}.",
            "check that the file was made with the same backbone's name, in timm's names of layers or torchvision's",
        )
    return given


def tensor(value: Any) -> Tensor:
    """`value` itself, or of an array a tensor with a copy."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def _unsound(key: str, tensor: Tensor) -> str | None:
    """Why these are no weights. In sparse, quantised or absent tensors (device meta) a small file may claim any number of zeros."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        return f"is no plain tensor of real numbers ({tensor.layout}, {tensor.dtype}, {tensor.device})"
    if not torch.isfinite(tensor).all():
        return f"holds {NOT_FINITE}"
    return "holds variances below 0" if key.endswith(VARIANCE) and tensor.numel() and tensor.min() < 0 else None
