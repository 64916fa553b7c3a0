"""Who computes C on a computer: which instructions, and how many threads. The answers are the reference's for all of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from nestling.errors import NestlingError
from nestling.formats.c import host, machines
from nestling.graph import reference
from nestling.graph.ir import Graph
from tests.helpers.networks import headed, printed
from tests.helpers.quantization_cases import Everything, calibrated, captured, pictures, seeded

RUNTIME = Path(str(machines.FOLDER)).with_name("runtime")
ISA = "NESTLING_ISA"


@pytest.fixture(scope="module")
def graph() -> Graph:
    return headed(calibrated(captured(seeded(Everything)), pictures(4))[0])


@pytest.fixture(scope="module")
def folder(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return printed(graph, tmp_path_factory.mktemp("c") / "c")


@pytest.mark.parametrize("flags", [("-O2",), ("-O1", "-g", "-fsanitize=thread")], ids=["quick", "thread sanitizer"])
def test_every_number_of_a_job_is_done_once(flags: tuple[str, ...], tmp_path: Path) -> None:
    program = tmp_path / "share_work"
    sources = [Path(__file__).with_name("share_work.c"), RUNTIME / "host" / "nst_threads.c"]
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", *flags, f"-I{RUNTIME}", f"-I{RUNTIME / 'host'}"]
    made = subprocess.run([*command, *sources, "-o", program], capture_output=True, text=True, check=False)
    if made.returncode and "sanitize" in " ".join(flags):
        pytest.skip(f"this compiler has no thread sanitizer: {made.stderr.splitlines()[-1]}")
    assert made.returncode == 0, made.stderr
    ended = subprocess.run([program], capture_output=True, text=True, check=False, timeout=300)
    if "unexpected memory mapping" in ended.stderr:
        pytest.skip("the thread sanitizer does not run under this kernel")
    assert ended.returncode == 0, ended.stderr


def test_any_number_of_threads_and_any_instructions_give_the_reference_bytes(
    graph: Graph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = graph.tensors[graph.inputs[0]].shape
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = dict(reference.activations(graph, image))
    for isa in kits(folder, monkeypatch):
        monkeypatch.setenv(ISA, isa)
        for threads in (1, 2, 3, 7):
            runner = host.load(folder, threads=threads)
            assert runner.isa == isa
            for name, answer in runner.activations(image[0]).items():
                if answer.dtype == np.int8:
                    assert answer.tobytes() == expected[name].tobytes(), f"{isa} {threads} {name}"


def kits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that this processor has, as the message names them."""
    monkeypatch.setenv(ISA, "mmx")
    with pytest.raises(NestlingError, match="NESTLING_ISA is 'mmx', which this processor has not") as raised:
        host.load(folder)
    found = str(raised.value.hint).removeprefix("it has ").partition(":")[0].split(", ")
    assert found[-1] == "portable"
    return found
