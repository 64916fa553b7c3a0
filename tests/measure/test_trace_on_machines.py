"""A folder of C for another machine is traced by that machine's own program, in QEMU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nestling.artifacts import manifest
from nestling.artifacts.manifest import Artifact
from nestling.errors import NestlingError, NotTrusted, UnusableFile
from nestling.formats.c import machines, virtual
from nestling.graph.ir import Graph
from nestling.measure.trace import against_c, plain, traced
from tests.helpers.networks import noise, printed, small

ELSEWHERE = "cortex-m4"


@pytest.fixture(autouse=True)
def _has_tools(request: pytest.FixtureRequest) -> None:
    """Tests are skipped where the tools of their machine are missing, by what to install."""
    name = request.node.callspec.params.get("machine", ELSEWHERE) if hasattr(request.node, "callspec") else ELSEWHERE
    if missing := virtual.toolchain_missing(machines.machine(name)):
        pytest.skip(missing)


def with_other_weight(graph: Graph, layer: str) -> Graph:
    weight = graph.tensors[next(node for node in graph.nodes if node.name == layer).inputs[1]]
    data = np.array(weight.data)
    data.reshape(-1)[3] += 40
    return replace(graph, tensors={**graph.tensors, weight.name: replace(weight, data=data)})


@pytest.mark.parametrize("machine", [ELSEWHERE, "cortex-m55", "rv32imc", "linux-arm64"])
def test_an_altered_weight_is_found_at_its_layer(machine: str, tmp_path: Path) -> None:
    graph = small()
    layers = traced(graph, noise(graph, 1)[0])
    same = against_c(layers, printed(graph, tmp_path / "same", machine))
    assert same.compared == ("a", "b", "e", "logits") and same.differing == () and same.machine == machine
    found = against_c(layers, printed(with_other_weight(graph, "b"), tmp_path / "other", machine))
    assert found.differing[0].layer == "b" and plain(found)["first"] == "b" and plain(found)["machine"] == machine


def test_what_goes_wrong_on_the_machine_alone_is_found(tmp_path: Path) -> None:
    """A kernel that is wrong where it is compiled for Arm: on this computer the same file is right."""
    graph = small()
    layers = traced(graph, noise(graph, 1)[0])
    for machine, first in ((ELSEWHERE, "e"), ("host", None)):
        folder = printed(graph, tmp_path / machine, machine)
        (file,) = folder.glob("nst_mean*.c")
        wrong = file.read_text().replace("layer->shift, y.zero)", "layer->shift, y.zero + OFF)")
        assert wrong != file.read_text()
        file.write_text(f"#ifdef __ARM_ARCH_7EM__\n#define OFF 8\n#else\n#define OFF 0\n#endif\n{wrong}")
        with pytest.raises(NotTrusted):
            against_c(layers, folder)
        found = against_c(layers, folder, trust=True)
        assert plain(found)["first"] == first and found.machine == machine


def test_a_folder_of_before_is_known_by_its_manifest(tmp_path: Path) -> None:
    """It does not say itself which machine it is for; without a manifest it is compiled for this computer, and that is told."""
    graph = small()
    layers = traced(graph, noise(graph, 1)[0])
    folder = printed(graph, tmp_path / f"a-c-{ELSEWHERE}", ELSEWHERE)
    about = json.loads((folder / "about.json").read_text())
    assert about.pop("machine") == ELSEWHERE
    (folder / "about.json").write_text(json.dumps(about))
    assert against_c(layers, folder, trust=True).machine == "host"
    listed = Artifact(folder.name, f"c-{ELSEWHERE}", "int8", 1000, "ab" * 32, 1.0, 0.0, 0.0, 0.0, 0.0, 2, 1.0, "../a.nest")
    manifest.note(tmp_path, [listed])
    assert against_c(layers, folder, trust=True).machine == ELSEWHERE


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small()
    layers = traced(graph, noise(graph, 1)[0])
    folder = printed(graph, tmp_path / "c", ELSEWHERE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NestlingError, match=r"^nothing can be built: cortex-m4 lacks arm-none-eabi-gcc") as refused:
        against_c(layers, folder)
    assert "apt-get install" in refused.value.hint and "qemu-system-arm" in refused.value.hint


def test_a_machine_of_a_later_nestling_is_refused(tmp_path: Path) -> None:
    graph = small()
    folder = printed(graph, tmp_path / "c", ELSEWHERE)
    text = (folder / "about.json").read_text()
    (folder / "about.json").write_text(text.replace(f'"{ELSEWHERE}"', '"cortex-\\u001bm99"'))
    with pytest.raises(UnusableFile, match=r"for a machine 'cortex-\\x1bm99'"):
        against_c(traced(graph, noise(graph, 1)[0]), folder, trust=True)
