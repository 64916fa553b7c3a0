"""Virtual platforms. Judges: NumPy on a network that a person can check by hand, loops of known length, sizes asked for."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.errors import NestlingError
from nestling.formats.c import machines, virtual
from nestling.formats.c.machines import machine
from tests.formats.c.boards import tools
from tests.formats.c.programs import program

TOY = Path(__file__).parent / "toy"
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
NAMES = ("host", "linux-arm64", "cortex-m4", "cortex-m7", "cortex-m55", "rv32imc")
COUNTING = ("cortex-m4", "cortex-m7", "cortex-m55", "rv32imc")
CORTEX = COUNTING[:3]


def toy(image: NDArray[np.uint8]) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.float32]]:
    """What the three layers of toy/nestling_model.c answer."""
    shifted = image.astype(np.int64) - 128
    sums = 3 * shifted.sum(axis=(0, 2)) + np.arange(1, 7)
    embedding = sums.astype(np.uint8).view(np.int8)
    logit = np.float32(0.25) * embedding.astype(np.float32).sum() - 1
    return shifted.astype(np.int8), embedding, np.array([logit, -logit], np.float32)


def test_the_six_machines_are_there_with_all_their_files() -> None:
    assert set(NAMES) <= set(machines.names())
    for name in machines.names():
        found = machine(name)
        assert found.name == name and all(file.is_file() for file in machines.files(found).values())
        assert found.install and "{elf}" in found.run
    with pytest.raises(NestlingError, match="rv32imc"):
        machine("vax")


@pytest.mark.parametrize("name", NAMES)
def test_answers_and_every_layer_are_what_they_should_be(name: str) -> None:
    ran = virtual.run(TOY, tools(name), IMAGE, trace=True)
    shifted, embedding, logits = toy(IMAGE)
    np.testing.assert_array_equal(ran.embedding, embedding)
    np.testing.assert_array_equal(ran.logits, logits)
    assert ran.trace == (shifted.tobytes(), embedding.tobytes(), logits.tobytes())
    assert [layer.name for layer in ran.layers] == ['first "quoted"', "second", "café"]
    assert [(layer.kind, layer.shape, layer.macs) for layer in ran.layers] == [
        ("table", (8, 6, 3), 0),
        ("sum", (1, 1, 6), 432),
        ("head", (1, 1, 2), 12),
    ]


@pytest.mark.parametrize("name", ["host", "rv32imc"])
def test_a_wrong_answer_is_seen_in_the_layer_where_it_begins(name: str) -> None:
    ran = virtual.run(TOY, tools(name), IMAGE, trace=True, flags=("-DWRONG=1",))
    shifted, embedding, logits = toy(IMAGE)
    right = (shifted.tobytes(), embedding.tobytes(), logits.tobytes())
    assert [a == b for a, b in zip(ran.trace, right, strict=True)] == [True, False, False]
    np.testing.assert_array_equal(ran.embedding, (embedding.view(np.uint8) + np.uint8(1)).view(np.int8))


def test_one_build_answers_one_image_after_the_other(tmp_path: Path) -> None:
    built = virtual.build(TOY, tools("host"), tmp_path)
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
        np.testing.assert_array_equal(virtual.answer(built, image).embedding, toy(image)[1])


def test_what_is_measured_is_said() -> None:
    """Milliseconds here; instructions where they are counted, and that they are no cycles."""
    here = virtual.run(TOY, tools("host"), IMAGE)
    assert all(layer.instructions is None and layer.ms is not None for layer in here.layers)
    assert here.calibration is None and "milliseconds" in here.note
    there = virtual.run(TOY, tools("rv32imc"), IMAGE)
    assert all(layer.instructions is not None and layer.ms is None for layer in there.layers)
    assert "not cycles" in there.note and there.trace == ()


# ---- the timers ---------------------------------------------------------------------------------------------------------------

LOOPS = r"""
#include "board.h"

static void print(uint64_t value) {
    char text[32];
    char *digit = text + 31;
    *digit = 0;
    do { *--digit = (char)('0' + value % 10); value /= 10; } while (value);
    board_print("{\"ticks\": ");
    board_print(digit);
    board_print("}\n");
}

int main(void) {
    board_start();
    const uint32_t rounds[] = {1000000, 3000000, 23000000};
    for (int i = 0; i < 3; i++) {
        const uint64_t begun = board_ticks();
        board_loop(rounds[i]);
        print(board_ticks() - begun);
    }
    return 0;
}
"""


@pytest.mark.parametrize("name", COUNTING)
def test_loops_of_known_length_are_counted_to_a_tick(name: str, tmp_path: Path) -> None:
    """Two instructions a round. A tick is 40 instructions at 25 MHz, 31.25 at 32 MHz; RISC-V counts every one."""
    tick = {"rv32imc": 1.0, "cortex-m55": 31.25}.get(name, 40.0)
    made = tools(name)
    ticks = [line["ticks"] for line in virtual.launch(made, program(made, tmp_path, LOOPS))]
    for rounds, counted in zip((1e6, 3e6, 23e6), ticks, strict=True):
        assert 0 <= counted - 2 * rounds / tick <= 1 + 40 / tick
    calibration = virtual.run(TOY, made, IMAGE).calibration
    assert calibration is not None and (calibration.tick, calibration.instructions) == (tick, 10_000_000)
    assert 0 <= calibration.counted - 10_000_000 <= 80


@pytest.mark.parametrize("name", CORTEX)
def test_a_counter_that_goes_round_a_thousand_times_loses_nothing(name: str, tmp_path: Path) -> None:
    """SysTick reloaded at 2,048: its interrupt takes a few instructions each time, and no round is missed or counted twice."""
    made = tools(name)
    ticks = [line["ticks"] for line in virtual.launch(made, program(made, tmp_path, LOOPS, "-DSYSTICK_RELOAD=2047u"))]
    tick = {"cortex-m55": 31.25}.get(name, 40.0)
    for rounds, counted in zip((1e6, 3e6, 23e6), ticks, strict=True):
        interrupts = counted / 2048
        assert 2 * rounds / tick <= counted <= 2 * rounds / tick + 2 + interrupts * 25 / tick


# ---- endings ------------------------------------------------------------------------------------------------------------------

FAULTS = {"cortex-m4": "*(volatile int *)0xfffffff0 = 1;", "rv32imc": '__asm__ volatile(".word 0");'}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [0, 7])
def test_a_programs_exit_status_passes_through(name: str, status: int, tmp_path: Path) -> None:
    made = tools(name)
    text = f'#include "board.h"\nint main(void) {{ board_print("{{}}\\n"); return {status}; }}'
    elf = program(made, tmp_path, text)
    if status:
        with pytest.raises(NestlingError, match="status 7"):
            virtual.launch(made, elf)
    else:
        assert virtual.launch(made, elf) == [{}]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_the_program(name: str, tmp_path: Path) -> None:
    made = tools(name)
    elf = program(made, tmp_path, f'#include "board.h"\nint main(void) {{ {FAULTS[name]} return 0; }}')
    with pytest.raises(NestlingError, match=r"status 125.*the processor stopped"):
        virtual.launch(made, elf)


@pytest.mark.parametrize("name", ["cortex-m4", "rv32imc"])
def test_data_are_there_and_the_rest_is_zero(name: str, tmp_path: Path) -> None:
    text = '#include "board.h"\nint set = 5, zero; float half = 0.5f;\nint main(void) { return set + zero + (int)(4 * half); }'
    made = tools(name)
    elf = program(made, tmp_path, text.replace("int set", "volatile int set"))
    with pytest.raises(NestlingError, match="status 7"):
        virtual.launch(made, elf)


def test_c_that_does_not_compile_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    for file in TOY.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "broken.c").write_text("int broken(void) { return missing; }")
    with pytest.raises(NestlingError, match=r"broken\.c.*missing"):
        virtual.run(tmp_path, tools("host"), IMAGE)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(NestlingError, match="bench_image_must_have_the_size"):
        virtual.run(TOY, tools("host"), IMAGE[:7])


def test_a_folder_that_holds_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NestlingError, match=r"no nestling_model\.h"):
        virtual.run(tmp_path, tools("host"), IMAGE)


def test_a_missing_toolchain_is_named_with_its_packages() -> None:
    lacking = replace(machine("rv32imc"), prefix="nonesuch-")
    said = virtual.toolchain_missing(lacking)
    assert said is not None and "nonesuch-gcc" in said and "apt-get install gcc-riscv64-unknown-elf" in said
    said = virtual.toolchain_missing(replace(tools("host"), run=("nonesuch-qemu", "{elf}")))
    assert said is not None and "nonesuch-qemu" in said
    with pytest.raises(NestlingError, match="nonesuch-gcc") as refused:
        virtual.run(TOY, lacking, IMAGE)
    assert "picolibc-riscv64-unknown-elf" in refused.value.hint


# ---- flash and stack ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTING)
def test_constants_and_stack_grow_by_what_is_added(name: str) -> None:
    small = virtual.run(TOY, tools(name), IMAGE)
    large = virtual.run(TOY, tools(name), IMAGE, flags=("-DTABLE=1006", "-DSTACK=900"))
    assert small.constants is not None and large.constants is not None and small.code is not None and large.code is not None
    assert 1000 <= large.constants - small.constants <= 1004
    assert abs(large.code - small.code) <= 16 and 200 < small.code < 6000
    for before, after in ((small.stack, large.stack), (small.stack_bound, large.stack_bound)):
        assert before is not None and after is not None and 800 <= after - before <= 816 and 100 <= before < 400
    assert small.stack is not None and small.stack_bound is not None and small.stack >= small.stack_bound - 32


CALLS = r"""
int shared(int);
__attribute__((noinline)) static int leaf(int x) { volatile char room[64]; room[x & 63] = 1; return room[0]; }
__attribute__((noinline)) static int branch(int x) { volatile char room[256]; room[x & 255] = 1; return leaf(x) + room[1]; }
int nestling_features(int x) { return leaf(x) + 1; }
int nestling_predict(int x) { return branch(x) + nestling_features(x) + DEEP; }
int recursive(int x) { return x ? 1 + shared(recursive(x - 1)) : 0; }
"""


@pytest.mark.parametrize(
    ("deep", "known"),
    [("0", True), ("recursive(x)", False), ("((int (*)(int))(long)x)(1)", False), ("shared(x)", True)],
    ids=["a tree", "recursion", "a pointer", "a library"],
)
def test_a_stack_bound_is_the_deepest_way_down_or_none(deep: str, known: bool, tmp_path: Path) -> None:
    (tmp_path / "calls.c").write_text(CALLS.replace("DEEP", deep))
    made = tools("cortex-m4")
    command = [made.compiler, *made.cflags, "-O1", "-fno-optimize-sibling-calls", "-fcallgraph-info=su", "-c", "calls.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    bound = virtual.stack_bound([next(tmp_path.glob("*.ci")).read_text()])
    if known:
        assert bound is not None and 256 + 64 <= bound <= 256 + 64 + 3 * 32
    else:
        assert bound is None
