"""What stands in a folder of C: files that compile without a warning, numbers that are true, names that do no harm."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nestling.errors import NestlingError, UnsupportedOp, UnusableData
from nestling.formats.c import host, machines
from nestling.formats.c.folder import print_network, write
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import Machine
from nestling.formats.c.machines import machine as machine_of
from nestling.graph import ir, reference
from nestling.graph.ends import with_head, with_own_end
from nestling.graph.head import Head
from nestling.graph.ir import Graph, Node, Tensor
from nestling.graph.macs import macs
from tests.helpers.networks import Net, about_of, headed, imported, noise, printed, quant, small
from tests.helpers.quantization_cases import Everything, calibrated, captured, pictures, seeded

HOST = machine_of("host")
PORTABLE = replace(HOST, features=())  # with the kernels of every machine

Shared = Callable[[str], Path]
MODEL = {"nestling_model.h", "nestling_model.c", "nestling_weights.h", "nestling_weights.c"}
GENERATED = MODEL | {"Makefile", "README.md", "about.json"}


def everything() -> Graph:
    return headed(calibrated(captured(seeded(Everything)), pictures(4))[0])


def texts(graph: Graph, machine: Machine = PORTABLE, name: str = "nestling") -> dict[str, str]:
    made = print_network(graph, about_of(graph), machine, name)
    return {file: content.decode() for file, content in made.items()}


def defines(header: str) -> dict[str, str]:
    return dict(re.findall(r"#define NESTLING_(\w+) (\S+)", header))


# ---- which files ---------------------------------------------------------------------------------------------------------------


def test_only_the_kernels_that_are_called_are_there() -> None:
    files = texts(small())
    kernels = {file for file in files if file.startswith("nst_") and file.endswith(".c")}
    assert kernels == {"nst_conv.c", "nst_conv_1x1.c", "nst_products.c", "nst_fixed.c", "nst_mean.c", "nst_head.c"}
    headers = {file for file in files if file.startswith("nst_") and file.endswith(".h")}
    included = {name for text in files.values() for name in re.findall(r'#include "(nst_.*)"', text)}
    assert headers == included
    machine = {Path(source).name for source in machines.machine("host").sources}
    assert set(files) == kernels | headers | machine | GENERATED


def test_a_computers_kernels_bring_all_kits() -> None:
    """One folder serves every processor that compiles it."""
    files = texts(small(), HOST)
    names = {file for file in files if file.startswith("nst_")}
    kits = {"portable", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod"}
    assert {f"nst_kit_{kit}.c" for kit in kits} | {"nst_crew.c", "nst_threads.c", "nst_conv_host.c"} <= names
    assert {file for file in names if file.endswith(".h")} == {
        name for text in files.values() for name in re.findall(r'#include "(nst_.*)"', text)
    }


def test_every_file_of_a_machine_comes_along() -> None:
    for name in machines.names():
        found = machines.machine(name)
        files = texts(small(), found)
        assert set(machines.files(found)) <= set(files)
        for word in (found.compiler, *found.cflags, *found.ldflags):
            assert word in files["Makefile"]


def test_a_machine_may_bring_a_kernel_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own.c"
    own.write_text("/* quicker */\n")
    machine = replace(PORTABLE, replaces={"nst_mean.c": str(own)})
    graph = small()
    made = print_network(graph, about_of(graph), machine)
    assert made["nst_mean.c"] == b"/* quicker */\n"
    assert made["nst_head.c"] != b"/* quicker */\n"


def test_the_same_network_gives_the_same_bytes() -> None:
    assert texts(everything()) == texts(everything())


def test_printing_needs_no_torch(shared_data: Shared, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from nestling.artifacts.import_model import import_model\n"
        "from nestling.graph.ends import with_own_end\n"
        "from nestling.formats.about import about\n"
        "from nestling.formats.c.folder import print_network, write\n"
        "from nestling.formats.c.machines import machine\n"
        "bundle = import_model(Path(sys.argv[1]))\n"
        "write(print_network(with_own_end(bundle.graph), about(bundle), machine('cortex-m4')), Path(sys.argv[2]))\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(shared_data("resnet8_cifar10_int8.tflite")), str(tmp_path / "c")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"
    assert (tmp_path / "c" / "nestling_model.c").is_file()


def test_a_folder_is_put_in_place_as_a_whole(tmp_path: Path) -> None:
    folder = printed(everything(), tmp_path / "c")
    assert (folder / "nst_add_host.c").is_file()
    printed(small(), folder)
    assert not (folder / "nst_add_host.c").exists() and not list(tmp_path.glob(".*"))
    other = tmp_path / "photographs"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    with pytest.raises(UnusableData, match="photographs holds other files"):
        write({"nestling_model.h": b""}, other)
    with pytest.raises(UnusableData, match=r"cat\.jpg is no folder"):
        write({}, other / "cat.jpg")


# ---- what the compilers say -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("make", [small, everything])
def test_it_compiles_without_a_warning(compiler: str, make: Callable[[], Graph], tmp_path: Path) -> None:
    """Also with the watching of layers, and the header alone in C++."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    folder = printed(make(), tmp_path / "c")
    strict = (compiler, "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-fsyntax-only")
    sources = list(map(str, host.sources(folder)))
    for mode in ("-DPLAIN", "-DNESTLING_TRACE", "-DNESTLING_PROFILE"):
        ended = subprocess.run([*strict, mode, *sources], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    user = 'extern "C++" { template <int N> struct Size {}; }\n#include "nestling_model.h"\nSize<NESTLING_ARENA_BYTES> size;\n'
    command = [compiler, "-x", "c++", "-Wall", "-Werror", "-fsyntax-only", "-I", str(folder), "-"]
    ended = subprocess.run(command, input=user, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_all_kernels_and_their_twins_compile_without_a_warning() -> None:
    runtime = Path(str(machines.FOLDER)).with_name("runtime")
    for compiler in filter(shutil.which, ("gcc", "clang")):
        for mode in ("-DNST_TWO_IN_ONE=0", "-DNST_TWO_IN_ONE=1"):
            command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-fsyntax-only", mode]
            ended = subprocess.run([*command, *runtime.glob("*.c")], capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("feature", "target"),
    [
        ("dsp", "--target=thumbv7em-none-eabi -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16"),
        ("mve", "--target=thumbv8.1m.main-none-eabi -mcpu=cortex-m55 -mfloat-abi=hard"),
        ("rv32", "--target=riscv32 -march=rv32imc"),
    ],
)
def test_clang_compiles_kernels_of_a_machines_own(feature: str, target: str, tmp_path: Path) -> None:
    """As far as objects: whether assembly finds its registers is not told before."""
    if shutil.which("clang") is None:
        pytest.skip("needs clang")
    runtime = Path(str(machines.FOLDER)).with_name("runtime")
    command = ["clang", *target.split(), "-std=c99", "-O2", "-ffreestanding", "-Wall", "-Wextra", "-Werror", f"-I{runtime}", "-c"]
    sources = list((runtime / feature).glob("*.c"))
    ended = subprocess.run([*command, *sources], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(list(tmp_path.glob("*.o"))) == len(sources) > 0


def test_make_builds_a_library_and_a_program_that_runs(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    folder = printed(small(), tmp_path / "c")
    subprocess.run(["make", "-C", folder], check=True, capture_output=True)
    assert (folder / "libnestling.a").is_file()
    said = subprocess.run([folder / "bench"], check=True, capture_output=True, text=True, cwd=folder).stdout
    assert '"logits": "' in said


def test_no_heap_and_no_libm_is_called(tmp_path: Path) -> None:
    """Judge: the names that the compiled objects leave to be found elsewhere; threads and the environment are the crew's."""
    folder = printed(everything(), tmp_path / "c")
    for source in host.sources(folder):
        subprocess.run(["cc", "-std=c99", "-O2", "-fno-stack-protector", "-fno-pie", "-c", source, "-o", f"{source}.o"], check=True)
    objects = sorted(folder.glob("*.o"))
    names = subprocess.run(["nm", *objects], check=True, capture_output=True, text=True).stdout
    needed = set(re.findall(r"^ +U (\w+)$", names, re.MULTILINE))
    defined = set(re.findall(r"^[0-9a-f]+ [TR] (\w+)$", names, re.MULTILINE))
    system = {name for name in needed if name.startswith(("pthread_", "__cpu_"))} | {"sched_yield", "getenv", "getauxval"}
    assert needed - defined - system <= {"memcpy", "memset", "memmove", "strcmp", "_GLOBAL_OFFSET_TABLE_"}
    assert not re.findall(r"^[0-9a-f]+ [BDbd] (\w+)$", names, re.MULTILINE)  # no variables
    assert {name for name in defined if not name.startswith(("nst_", "nestling_"))} == set()


# ---- numbers --------------------------------------------------------------------------------------------------------------------


def test_the_header_says_the_network_s_sizes(shared_data: Shared) -> None:
    graph = imported(shared_data("vww_96_int8.tflite"))
    said = defines(texts(graph, machine_of("cortex-m4"))["nestling_model.h"])
    assert [said[f"INPUT_{side}"] for side in ("HEIGHT", "WIDTH", "CHANNELS")] == ["96", "96", "3"]
    assert (said["CLASSES"], said["EMBEDDING"]) == ("2", "256")
    assert int(said["ARENA_BYTES"]) <= 57_500


def test_the_readme_adds_up() -> None:
    graph = everything()
    files = texts(graph, machine_of("cortex-m4"))
    rows = [line.split(" | ") for line in files["README.md"].splitlines() if re.match(r"\| \d+ \|", line)]

    def number(text: str) -> int:
        return int(text.replace(",", ""))

    total = sum(macs(node, graph) for node in graph.nodes)
    assert sum(number(row[4]) for row in rows) == total
    sizes = {"int8_t": 1, "int32_t": 4, "float": 4, "double": 8}
    arrays = re.findall(r"const (\w+) nestling_\w+\[(\d+)\] = \{\n(.*?)\n\};", files["nestling_weights.c"], re.DOTALL)
    assert all(len(values.split(",")) == int(count) for _, count, values in arrays)
    flash = sum(sizes[kind] * int(count) for kind, count, _ in arrays)
    assert sum(number(row[5]) for row in rows) == flash
    assert f"| flash: constants | {flash:,} |" in files["README.md"]
    arena = int(defines(files["nestling_model.h"])["ARENA_BYTES"])
    assert f"| RAM: the arena, the image in it | {arena:,} |" in files["README.md"]
    assert len(rows) == int(defines(files["nestling_model.h"])["LAYERS"])


def test_every_layer_has_its_shapes_and_cost_beside_it(shared_data: Shared) -> None:
    text = texts(imported(shared_data("vww_96_int8.tflite")), machine_of("cortex-m4"))["nestling_model.c"]
    call = re.search(r"/\* 3  (.*) \*/\n    (nst_\w+)\(a \+ (\d+), &layer3, a \+ (\d+), a \+ \d+, 0, \d+\);", text)
    assert call
    shapes = f"[48, 48, 16] -> [24, 24, 16]   in {call[3]} -> out {call[4]}   relu   0.08 M MACs"
    assert call[1] == f"depthwise 3x3 s2   {shapes}" and call[2] == "nst_depthwise_3_dsp"


def test_zeros_are_folded_and_weights_interleaved() -> None:
    """A 1x1 convolution of three channels to five: every weight at its place, missing channels 0, the input's zero in the bias."""
    net = Net()
    net.conv("a", "x", 5)
    net.conv("b", "a", 5)
    net.node("mean", ir.Mean(), "e", "b")
    program = lower(headed(net.graph("e")), PORTABLE)
    layer = next(layer for layer in program.layers if layer.writes == "b")
    weights, bias = (np.asarray(constant.data) for constant in layer.constants[:2])
    own, old = (np.asarray(net.tensors[name].data) for name in ("b.w", "b.b"))
    flat = weights.reshape(-1)
    for o in range(8):
        for k in range(5):
            assert flat[(o // 4 * 5 + k) * 4 + o % 4] == (own[o, 0, 0, k] if o < 5 else 0)
    assert bias.tolist() == [int(old[o]) + 3 * int(own[o].astype(int).sum()) for o in range(5)]


# ---- names ----------------------------------------------------------------------------------------------------------------------


def test_names_that_are_not_words_do_no_harm(tmp_path: Path) -> None:
    """Labels and layers as somebody else's file may have them: they come back as they were, and nothing is compiled of them."""
    net = Net()
    nasty = ['"; } */ #error "', "??/\n/* é", "%s\\", "a|b`<c>"]
    for i, name in enumerate(nasty):
        net.conv(name, "x" if i == 0 else nasty[i - 1], 4)
        net.nodes[-1] = replace(net.nodes[-1], source=name)
    net.node("mean", ir.Mean(), "e", nasty[-1])
    graph = headed(net.graph("e"), 3)
    labels = ("*/", "\\", '"\t')
    made = print_network(graph, about_of(graph, labels), machines.machine("host"), 'name */ "\\\n |')
    write(made, tmp_path / "c")
    runner = host.load(tmp_path / "c")
    assert set(nasty) <= set(runner.activations(noise(graph, 1)[0])) and runner.labels == labels
    assert all(letter.isascii() for letter in made["nestling_model.c"].decode())
    rows = [line for line in made["README.md"].decode().splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == len(lower(graph, HOST).layers) and all(row.count("|") == 9 for row in rows)


def test_labels_that_are_missing_are_numbered(tmp_path: Path) -> None:
    graph = small()
    runner = host.load(printed(graph, tmp_path / "c", about=about_of(graph, ())))
    assert runner.labels == tuple(f"class {i}" for i in range(7))


# ---- what is refused ------------------------------------------------------------------------------------------------------------


def test_float_arithmetic_before_the_head_names_the_layer() -> None:
    net = Net()
    net.conv("a", "x", 4)
    net.tensors["real"] = Tensor("real", net.tensors["a"].shape, "float32")
    net.tensors["twice"] = Tensor("twice", net.tensors["a"].shape, "float32")
    net.nodes += [
        Node("dequantize", ("a",), ("real",), ir.Dequantize()),
        Node("add", ("real", "real"), ("twice",), ir.Add(), "blocks.3.float"),
    ]
    with pytest.raises(UnsupportedOp, match=r"add 'twice' \(blocks\.3\.float\) is in float.*\.tflite works"):
        lower(net.graph("twice"), HOST)


def test_networks_without_an_image_or_scores_are_refused() -> None:
    net = Net()
    net.conv("a", "x", 4)
    net.node("mean", ir.Mean(), "e", "a")
    graph = net.graph("e")
    with pytest.raises(UnsupportedOp, match="take one image and give float32 scores"):
        print_network(graph, about_of(graph), machines.machine("host"))


def test_sums_that_leave_32_bits_are_refused() -> None:
    net = Net()
    net.conv("a", "x", 4)
    bias = net.tensors["a.b"]
    net.tensors["a.b"] = replace(bias, data=np.full(4, 2**31 - 1, np.int32))
    with pytest.raises(UnsupportedOp, match=r"conv2d 'a' \(layers\.a\): the sums of channels 0, 1, 2, 3 of 4 may leave 32 bits"):
        lower(net.graph("a"), HOST)


def test_a_head_that_is_not_finite_is_refused() -> None:
    net = Net()
    net.node("mean", ir.Mean(), "e", "x")
    with pytest.raises(NestlingError, match=r"'head\.weight': it holds numbers that are not finite"):
        with_head(net.graph("e"), Head(np.full((2, 3), np.nan, np.float32), np.zeros(2, np.float32)))


# ---- ends -----------------------------------------------------------------------------------------------------------------------


def test_a_network_that_ends_in_no_dense_layer_gives_its_scores_as_features(tmp_path: Path) -> None:
    net = Net()
    net.conv("a", "x", 4, 3)
    net.node("mean", ir.Mean(), "e", "a", to=quant(0.03, 5))
    graph = with_own_end(net.graph("e"))
    runner = host.load(printed(graph, tmp_path / "c"))
    images = noise(graph, 3)
    expected = reference.run(graph, images, keep=("e",))
    np.testing.assert_array_equal(runner(images), expected[graph.outputs[0]])
    np.testing.assert_array_equal(runner.embeddings(images), expected["e"])
    np.testing.assert_array_equal(runner.features(images), expected[graph.outputs[0]])
