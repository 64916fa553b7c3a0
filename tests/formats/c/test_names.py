"""Networks of other names than nestling's: two in one program, and a folder of such a name as any other."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from nestling.errors import NestlingError, UnusableData, UnusableFile
from nestling.formats.c import host, machines, names, virtual
from nestling.formats.c.folder import print_network, write
from nestling.formats.c.trusted import copied, is_known
from nestling.graph import ir, reference
from nestling.graph.ir import Graph
from tests.formats.c.boards import tools
from tests.helpers.networks import Net as Network
from tests.helpers.networks import about_of, concats, headed, noise, printed, small

# Both networks answer an image that is made up here and in NumPy, below.
TWO = r"""
#include "board.h"
#include "cats_model.h"
#include "Dogs2_model.h"

static uint8_t cats_arena[CATS_ARENA_BYTES] __attribute__((aligned(16)));
static uint8_t dogs_arena[DOGS2_ARENA_BYTES] __attribute__((aligned(16)));

static const uint8_t *filled(uint8_t *image, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        image[i] = (uint8_t)(i * 37u + (i >> 6));
    return image;
}

static void print_hex(const void *bytes, uint32_t count)
{
    char pair[3] = {0};
    board_print("{\"logits\": \"");
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t byte = ((const uint8_t *)bytes)[i];
        pair[0] = "0123456789abcdef"[byte >> 4];
        pair[1] = "0123456789abcdef"[byte & 15];
        board_print(pair);
    }
    board_print("\"}\n");
}

int main(void)
{
    static float cats[CATS_CLASSES], dogs[DOGS2_CLASSES];
    const uint32_t cats_bytes = CATS_INPUT_HEIGHT * CATS_INPUT_WIDTH * CATS_INPUT_CHANNELS;
    const uint32_t dogs_bytes = DOGS2_INPUT_HEIGHT * DOGS2_INPUT_WIDTH * DOGS2_INPUT_CHANNELS;
    const uint8_t *first = filled(cats_input(cats_arena), cats_bytes), *second = filled(Dogs2_input(dogs_arena), dogs_bytes);
    cats_predict(cats_arena, first, cats);
    Dogs2_predict(dogs_arena, second, dogs);
    print_hex(cats, sizeof cats);
    print_hex(dogs, sizeof dogs);
    return 0;
}
"""


def made_up(graph: Graph) -> NDArray[np.uint8]:
    shape = graph.tensors[graph.inputs[0]].shape
    i = np.arange(np.prod(shape), dtype=np.uint32)
    return (i * np.uint32(37) + (i >> 6)).astype(np.uint8).reshape(shape)


def other() -> Graph:
    """Of a depthwise kernel, too, of another size of the image, and of other classes than small()."""
    net = Network(16)
    net.conv("a", "x", 12, 3, stride=(2, 2), padding=(0, 1, 0, 1))
    weight = net.constant("d.w", net.rng.integers(-90, 90, (1, 3, 3, 12)).astype(np.int8), net.tensors["a.w"].quant)
    net.node("depthwise_conv2d", ir.DepthwiseConv2d(padding=(1, 1, 1, 1)), "d", "a", weight)
    net.node("mean", ir.Mean(), "e", "d")
    return headed(net.graph("e"), 3)


def named(graph: Graph, name: str, machine: str = "host") -> dict[str, bytes]:
    return print_network(graph, about_of(graph), machines.machine(machine), prefix=name)


@pytest.mark.parametrize("board", ["host", "cortex-m4"])
def test_two_networks_in_one_program(board: str, tmp_path: Path) -> None:
    """With one copy of the kernels; judge: the reference executor."""
    machine, graphs = tools(board), {"cats": small(), "Dogs2": other()}
    folder: dict[str, bytes] = {}
    for name, graph in graphs.items():
        mine = {file: text for file, text in named(graph, name, board).items() if file.startswith((name, "nst_"))}
        both = folder.keys() & mine.keys()
        assert all(file.startswith("nst_") and folder[file] == mine[file] for file in both)
        folder |= mine
    folder |= {name: file.read_bytes() for name, file in machines.files(machine).items() if name != "main_bench.c"}
    for name, content in (folder | {"main.c": TWO.encode()}).items():
        (tmp_path / name).write_bytes(content)
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror")
    sources = sorted(file.name for file in tmp_path.glob("*.c"))
    command = [machine.compiler, *strict, *machine.cflags, *sources, *machine.ldflags, "-o", "two.elf"]
    subprocess.run(command, cwd=tmp_path, check=True)
    said = virtual.launch(machine, tmp_path / "two.elf")
    for line, graph in zip(said, graphs.values(), strict=True):
        expected = reference.run(graph, made_up(graph))[graph.outputs[0]].reshape(-1)
        logits = np.frombuffer(bytes.fromhex(line["logits"]), "<f4")
        assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_nothing_of_the_folder_is_called_nestling() -> None:
    """But for the switches of what is compiled, and for those who printed it."""
    for file, content in named(concats(), "parts", "cortex-m4").items():
        words = set(re.findall(r"\w*nestling\w*", f"{file}\n{content.decode()}", re.IGNORECASE))
        assert words <= {"nestling", "NESTLING_TRACE", "NESTLING_PROFILE"}, file


def test_it_is_the_usual_folder_but_for_the_name() -> None:
    usual, zebra = named(concats(), "nestling"), named(concats(), "zebra")
    back = {file.replace("zebra", "nestling"): content.replace(b"zebra", b"nestling") for file, content in zebra.items()}
    assert {file: content.replace(b"ZEBRA", b"NESTLING") for file, content in back.items()} == usual


def test_a_folder_of_another_name_is_a_folder_of_c(tmp_path: Path) -> None:
    graph = small()
    write(named(graph, "parts"), tmp_path / "c")
    assert is_known(tmp_path / "c") and not (tmp_path / "c" / "nestling_model.h").exists()
    image = noise(graph, 1)[0]
    with copied(tmp_path / "c") as place:
        runner = host.load(place)
        answers, embedding = runner.activations(image), runner.embeddings(image[None])
    assert embedding.tobytes() == answers["e"].tobytes()
    expected = {name: answer for name, answer in reference.activations(graph, image[None]) if name in answers}
    assert len(answers) == 4 and all(answers[name].tobytes() == expected[name].tobytes() for name in ("a", "b", "e"))
    if shutil.which("make"):
        subprocess.run(["make", "-C", tmp_path / "c", "libparts.a", "bench"], check=True, capture_output=True)
    write(named(graph, "wholes"), tmp_path / "c")
    assert {path.name for path in (tmp_path / "c").glob("*_model.h")} == {"wholes_model.h"}


@pytest.mark.parametrize("lacking", [False, True])
def test_the_emulator_runs_it(lacking: bool, tmp_path: Path) -> None:
    """Also without the machine's files, whose place nestling's own take."""
    graph, machine = small(), tools("cortex-m4")
    files = named(graph, "parts", "cortex-m4")
    write({file: files[file] for file in files if not lacking or file not in machines.files(machine)}, tmp_path / "c")
    image = noise(graph, 1)[0]
    ran = virtual.run(tmp_path / "c", machine, image)
    expected = reference.run(graph, image[None])[graph.outputs[0]].reshape(-1)
    assert_allclose(ran.logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert ran.stack_bound is not None and sum(layer.instructions or 0 for layer in ran.layers) > 0


def test_a_header_of_such_a_name_makes_no_network(tmp_path: Path) -> None:
    """Somebody's folder, which is not written over; two networks in one are not told apart."""
    (tmp_path / "solar_model.h").write_text("")
    with pytest.raises(UnusableData, match="holds other files"):
        write(named(small(), "parts"), tmp_path)
    two = tmp_path / "two"
    two.mkdir()
    for name in ("cats", "dogs"):
        for file, content in named(small(), name).items():
            (two / file).write_bytes(content)
    for load in (host.load, lambda folder: virtual.run(folder, tools("host"), noise(small(), 1)[0])):
        with pytest.raises(NestlingError, match=r"holds no nestling_model\.h, nor one network of another name"):
            load(two)
    assert names.of(printed(small(), tmp_path / "usual")) == "nestling"


@pytest.mark.parametrize("name", ["", "9lives", "my-net", "é", "_own", "a b", "a\n", "a" * 65, "nst", "NST_2"])
def test_a_name_that_c_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(NestlingError, match=re.escape(f"found {name!r}")) as refused:
        named(small(), name)
    suggested = re.search(r"--name (\w+)$", refused.value.hint)
    assert suggested and not isinstance(refused.value, UnusableFile)
    names.require_name(suggested[1])
