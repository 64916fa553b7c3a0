"""Every value of every JSON file that nestling reads, replaced by every odd one in turn: it is read, or an error of ours comes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nestling import bundle as bundles
from nestling import outside
from nestling.artifacts import manifest
from nestling.device import manifest as packages
from nestling.errors import NestlingError
from nestling.formats import about
from nestling.training.loop_state import load_state
from tests.helpers.damage import ODD, archive
from tests.helpers.seeds import bundle_files, json_files, tensor_files

Read = Callable[[bytes], object]


def changed(value: Any) -> Iterator[Any]:
    """The value with one place after the other left out or replaced by each of ODD; of a list the first two places only."""
    whole = copy.deepcopy(value)
    waiting = [whole]
    while waiting:
        here = waiting.pop()
        keys = list(here) if isinstance(here, dict) else list(range(min(len(here), 2)))
        for key in keys:
            kept = here[key]
            if isinstance(kept, dict | list):
                waiting.append(kept)
            for odd in ODD:
                here[key] = odd
                yield whole
            if isinstance(here, dict):
                del here[key]
                yield whole
            here[key] = kept


def reader(kind: str, folder: Path) -> tuple[Any, Read]:
    """(the JSON value as it should be, what reads its text)."""
    path = folder / "manifest.json"

    def in_bundle(text: bytes) -> object:
        return bundles.from_bytes(archive(members | {kind: text}), "x")

    def in_checkpoint(text: bytes) -> object:
        header = json.dumps(tensors | {"__metadata__": said | {"state": text.decode()}}).encode()
        (folder / "case").write_bytes(len(header).to_bytes(8, "little") + header + body)
        return load_state(folder / "case", {"seed": 0})

    if kind in ("artifacts", "package"):
        read = manifest.read if kind == "artifacts" else packages.read
        return json_files()[kind], lambda text: (path.write_bytes(text), read(folder))
    if kind == "about":
        return json_files()[kind], lambda text: about.from_json(text, "x")
    if kind == "checkpoint":
        content = tensor_files(folder)["checkpoint.safetensors"]
        size = int.from_bytes(content[:8], "little")
        tensors, body = json.loads(content[8 : 8 + size]), content[8 + size :]
        said = tensors.pop("__metadata__")
        return json.loads(said["state"]), in_checkpoint
    members = outside.unzipped(bundle_files()["structured" if kind == "structure.json" else "quantised"], "seed")
    if kind == "structure.json":
        return json.loads(members[kind]), in_bundle
    return json.loads(members[kind]) | {"architecture": {"timm": "mobilenetv1_100", "weights": "none"}}, in_bundle


@pytest.mark.parametrize("kind", ["about", "artifacts", "package", "checkpoint", "bundle.json", "structure.json"])
def test_any_value_in_any_place(kind: str, tmp_path: Path) -> None:
    value, read = reader(kind, tmp_path)
    read(json.dumps(value).encode())  # as it should be
    refused = 0
    for case in changed(value):
        try:
            found = read(json.dumps(case).encode())
            assert found is not None
        except NestlingError as error:
            refused += 1
            assert len(error.message) < 1000, error.message
    assert refused > 100
