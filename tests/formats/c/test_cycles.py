"""Cycles, estimated. Judges: examples of Arm's manual, loops counted by hand, and the timer's own count of instructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.errors import NestlingError
from nestling.formats.c import machines, virtual
from nestling.formats.c.cycles import cortex_m4, cortex_m7, cortex_m55, executed, instructions, pipeline
from nestling.formats.c.cycles.estimate import CORES, estimate
from nestling.formats.c.cycles.instructions import UNKNOWN, Block, parse
from tests.formats.c.boards import tools
from tests.formats.c.programs import program

TOY = Path(__file__).parent / "toy"
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
CORTEX = ("cortex-m4", "cortex-m7", "cortex-m55")


def block(text: str, start: int = 0, size: int = 4) -> Block:
    """Instructions, separated by ";", of `size` bytes each."""
    return tuple(parse(start + size * i, size, one) for i, one in enumerate(text.split(";")))


# ---- what an instruction is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "reads", "writes"),
    [
        ("smlad\tr0, r1, r2, r3", "multiply and add", "r0", "r1 r2 r3"),
        ("smmlar\tr0, r1, r2, r0", "multiply and add", "r0", "r0 r1 r2"),
        ("smlal\tr0, r1, r2, r3", "long multiply and add", "r0 r1", "r0 r1 r2 r3"),
        ("smull\tr0, r1, r2, r3", "long multiply", "r0 r1", "r2 r3"),
        ("ssat\tr0, #8, r1, asr #3", "saturate", "r0", "r1"),
        ("addcc.w\tr0, r1, r2, lsl #2", "arithmetic", "r0", "r1 r2"),
        ("adds\tr0, r1", "arithmetic", "r0", "r0 r1"),
        ("movseq.w\tr0, r1", "move", "r0", "r1"),
        ("movt\tr0, #3", "move", "r0", "r0"),
        ("bics.w\tr0, r1, #15", "arithmetic", "r0", "r1"),
        ("cmp\tr0, sl", "arithmetic", "", "r0 r10"),
        ("bls.n\t2954 <memcpy+0x12>", "branch", "", ""),
        ("teqne\tr0, r1", "arithmetic", "", "r0 r1"),
        ("lsls\tr0, r1, #2", "shift", "r0", "r1"),
        ("ldrd\tr0, r1, [r2], #8", "load pair", "r0 r1 r2", "r2"),
        ("ldrsb.w\tr0, [r1, r2, lsl #1]", "load narrow", "r0", "r1 r2"),
        ("ldrbne.w\tr0, [r1, #4]!", "load narrow", "r0 r1", "r1"),
        ("ldmia.w\tr0!, {r1, r2, lr}", "load several", "r0 r1 r2 lr", "r0"),
        ("pop\t{r4, pc}", "load several", "r4 pc sp", "sp"),
        ("strb.w\tr0, [r1], #1", "store", "r1", "r0 r1"),
        ("vmov\tr0, s3", "float move", "r0", "s3"),
        ("vmov\tr0, r1, d1", "float move", "r0 r1", "s2 s3"),
        ("vldmia\tr0!, {s0-s2}", "float load several", "r0 s0 s1 s2", "r0"),
        ("vmlava.s8\tr0, q1, q2", "vector sum", "r0", "r0 s4 s5 s6 s7 s8 s9 s10 s11"),
        ("vmladav.s8\tr0, q1, q1", "vector sum", "r0", "s4 s5 s6 s7"),
        ("vldrbt.u8\tq0, [r1], #16", "vector load", "s0 s1 s2 s3 r1", "r1"),
        ("vstrb.32\tq0, [r1, q1]", "vector store", "", "r1 s0 s1 s2 s3 s4 s5 s6 s7"),
        ("vmov\tq0[2], q0[0], r0, r1", "vector move", "s0 s1 s2 s3", "r0 r1"),
        ("vmovlb.s8\tq0, q1", "vector integer", "s0 s1 s2 s3", "s4 s5 s6 s7"),
        ("vqrdmulh.s32\tq0, q0, r1", "vector multiply", "s0 s1 s2 s3", "s0 s1 s2 s3 r1"),
        ("vaddt.i32\tq0, q0, q0", "vector integer", "s0 s1 s2 s3", "s0 s1 s2 s3"),
        ("vmul.f32\ts0, s1, s2", "float", "s0", "s1 s2"),
        ("le\tlr, 626 <nst_average_pool+0x116>", "loop end", "", "lr"),
        ("itte\tne", "if-then", "", ""),
        ("frobnicate\tr0, r1", UNKNOWN, "", ""),
    ],
)
def test_what_an_instruction_is(text: str, kind: str, reads: str, writes: str) -> None:
    """reads: the columns are (what is written, what is read)."""
    one = parse(0, 4, text)
    assert one.kind == kind
    assert one.writes | one.updated == set(reads.split())
    assert one.reads | one.first | one.addresses == set(writes.split())


def test_every_kind_has_its_time_on_every_core_that_has_it() -> None:
    """Long shifts, loops and vectors are Cortex-M55's."""
    kinds = set(instructions.KINDS) | set(instructions.VECTOR_KINDS)
    newer = set(instructions.VECTOR_KINDS) | {"long shift", "clear several", "loop start", "loop end", "vector predicate"}
    assert set(cortex_m55.TABLE) == kinds
    assert set(cortex_m4.CYCLES) == set(cortex_m7.TABLE) == kinds - newer


# ---- what neighbours are --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("ldr r0, [r1]; ldr r1, [r2]", 3),  # these four are the manual's own
        ("ldr r0, [r1, r2]; str r0, [r3, #20]", 3),
        ("ldr r0, [r1, r2]; str r1, [r3, r2]", 3),
        ("ldr r0, [r1, r5]; ldr r1, [r2]; ldr r2, [r3, #4]", 4),
        ("ldr r0, [r1]; ldr r2, [r0]", 4),
        ("str r0, [r1, #4]; str r0, [r1, #8]", 2),
        ("str r0, [r1, r2]", 2),
        ("add r1, r1, r2; ldr r0, [r1]", 4),
        ("add r1, r1, r2; ldr r0, [r3]", 3),
        ("ldrd r0, r1, [r2]; smlad r3, r0, r1, r3", 4),
        ("ldrd r0, r1, [r2]; ldr r3, [r4]", 5),
        ("push {r4, r5, r6, lr}", 5),
        ("vmov r0, s1; smlad r2, r0, r1, r2", 2),
        ("vmov r0, r1, d1", 2),
        ("vldmia r0, {s0-s7}", 9),
    ],
)
def test_cortex_m4_and_its_neighbours(text: str, cycles: int) -> None:
    assert cortex_m4.cycles((), block(text)) == cycles


@pytest.mark.parametrize(
    ("branch", "target", "lost"),
    [
        ("bne.n 0 <f>", block("movs r0, #1", 100, 2), 1),
        ("bne.n 0 <f>", block("add.w r0, r1, r2", 100), 1),
        ("bne.n 0 <f>", block("add.w r0, r1, r2", 102), 2),
        ("bx lr", block("movs r0, #1", 100, 2), 3),
        ("pop {r4, pc}", block("movs r0, #1", 100, 2), 3),
        ("bne.n 0 <f>", block("movs r0, #1", 2, 2), 0),
    ],
)
def test_cortex_m4_refills_its_pipeline_where_it_branches(branch: str, target: Block, lost: int) -> None:
    assert cortex_m4.cycles(block(branch, size=2), target) == 1 + lost


@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("add r0, r0, #1; add r1, r1, #1; add r2, r2, #1; add r3, r3, #1", 2),
        ("add r0, r0, #1; add r0, r0, #1", 2),
        ("ldr r0, [r1]; ldr r2, [r1, #4]", 1),
        ("ldr r0, [r1]; ldr r2, [r1, #8]", 2),  # the same bank
        ("smlad r0, r1, r2, r0; smlad r0, r3, r4, r0; smlad r0, r1, r4, r0", 3),  # sums follow each other
        ("smlad r0, r1, r2, r0; add r0, r0, #1", 3),
        ("ldr r0, [r1]; str r0, [r2]", 1),
        ("ldrd r0, r1, [r2]; ldrd r3, r4, [r2, #8]", 2),
        ("str r0, [r1]; str r2, [r3]", 2),
        ("uxtb r0, r1; uxtb r2, r3", 2),
        ("ldr r0, [r1]; ldr r2, [r0]", 3),
    ],
)
def test_cortex_m7_starts_two_at_once(text: str, cycles: int) -> None:
    assert pipeline.cycles(cortex_m7.CORE, (), block(text)) == cycles


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("vldrw.u32 q0, [r0]; vadd.i32 q1, q2, q3; vmul.i32 q4, q5, q6; vstrw.32 q7, [r1]", 4),  # of three units, in turns
        ("vldrw.u32 q0, [r0]; vldrw.u32 q1, [r0, #16]; vadd.i32 q2, q3, q4; vstrw.32 q5, [r1]", 5),  # loads can't overlap
        ("vldrw.u32 q2, [r0]; vmla.s32 q2, q1, r9; vmla.s32 q2, q1, r9; vstrw.32 q2, [r1]", 5),
        ("vldrb.u8 q0, [r0]; vldrb.u8 q1, [r1]; vmlava.s8 r2, q0, q1; vmlava.s8 r3, q0, q1", 6),
        ("vstrb.8 q0, [r0, q1]; vstrb.8 q0, [r0, q1]", 9),  # sixteen places, two a cycle
        ("add.w r0, r1, r2; add.w r3, r4, r5", 2),
        ("mul r0, r1, r2; add.w r0, r0, #1", 3),
    ],
)
def test_cortex_m55_overlaps_vectors_of_different_units(text: str, last: int) -> None:
    """last: the cycle in which the last of them starts."""
    assert pipeline.cycles(cortex_m55.CORE, (), block(text)) == last


def test_cortex_m55_pairs_short_instructions() -> None:
    assert pipeline.cycles(cortex_m55.CORE, (), block("ands r0, r1; adds r2, #1; lsls r3, r3, #2; movs r4, #0", size=2)) == 2
    assert pipeline.cycles(cortex_m55.CORE, (), block("ands r0, r1; adds r0, #1", size=2)) == 2


# ---- programs -------------------------------------------------------------------------------------------------------------------

MAIN = """
__asm__(
    ".syntax unified\\n.thumb\\n.balign 4\\n"
    ".global marker\\n.type marker, %function\\nmarker: bx lr\\n"
    ".balign 4\\n.global main\\n.type main, %function\\nmain: push {r4, r5, r6, lr}\\nsub sp, #64\\nmov r5, sp\\nbl marker\\n"
    "LOOP"
    "bl marker\\nmovs r0, #0\\nadd sp, #64\\npop {r4, r5, r6, pc}\\n");
"""
LOOP = "movs r0, #100; 1: ldr r2, [sp]; ldr r3, [sp, #4]; smlad r4, r2, r3, r4; subs r0, #1; bne 1b"
VECTORS = "movs r0, #100; dls lr, r0; 1: vldrb.u8 q0, [r5]; vldrb.u8 q1, [r5, #16]; vmladava.s8 r4, q0, q1; le lr, 1b"


def followed(board: str, folder: Path, text: str) -> tuple[Path, machines.Machine]:
    made = tools(board)
    return program(made, folder, MAIN.replace("LOOP", text.replace("; ", "\\n") + "\\n")), made


@pytest.mark.parametrize(
    ("board", "text", "instructions", "cycles"),
    [
        # 2 + 1 + 1 + 1 + 1 a round, one more for each of 99 ways back; movs and bl
        ("cortex-m4", LOOP, 502, 600 + 99 + 2),
        # Both loads; two cycles later the sum, with subs; the branch: 4 a round. At first one more, with movs; bl; a branch missed
        ("cortex-m7", LOOP, 502, 400 + 1 + 1 + 6),
        # A load; two later the other; one later the sum, one later the next round's load: 4 a round, the last way on 3 more
        ("cortex-m55", VECTORS, 403, 2 + 4 * 100 + 3 + 1),
    ],
)
def test_a_loop_is_counted_as_by_hand(board: str, text: str, instructions: int, cycles: int, tmp_path: Path) -> None:
    elf, made = followed(board, tmp_path, text)
    found = estimate(made, elf, "marker", 1)
    assert (found.instructions, found.cycles) == ((instructions,), (cycles,))
    assert "estimate" in found.note and "nothing is known" not in found.note


def test_what_no_table_knows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elf, made = followed("cortex-m4", tmp_path, LOOP)
    monkeypatch.delitem(instructions.KIND_OF, "smlad")
    found = estimate(made, elf, "marker", 1)
    assert "of 100 smlad nothing is known" in found.note and found.instructions == (502,)


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_log_is_read_as_it_comes(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As QEMU writes it, of three instructions, one a block. The second is interrupted before it begins, and comes again."""
    monkeypatch.setattr(executed, "CHUNK", chunk)
    line = "Trace 0: 0x7f02dc000100 [00800408/{:08x}/00000110/ff000200] name\n"
    listed = "----------------\nIN: name\n0x{:08x}:  bf00       nop\n\n"
    stopped = "Stopped execution of TB chain before 0x7f02dc000100 [00000002] name\n"
    new = [listed.format(at) + line.format(at) for at in (0, 2, 4)]
    (tmp_path / "log").write_text("".join([new[0], new[1], stopped, line.format(2), new[2], line.format(2), line.format(0)]))
    shown = executed.Program({at: parse(at, 2, "nop") for at in (0, 2, 4)}, {"marker": 0})
    (section,) = executed.walks(shown, ["sh", "-c", "cat log >&2"], tmp_path, "marker")
    second, third = ((shown.instructions[at],) for at in (2, 4))
    assert section == {((), second): 1, (second, third): 1, (third, second): 1}
    assert executed.executed(section) == {second[0]: 2, third[0]: 1}
    with pytest.raises(NestlingError, match="status 3"):
        executed.walks(shown, ["sh", "-c", "exit 3"], tmp_path, "marker")


@pytest.mark.parametrize("board", CORTEX)
def test_instructions_are_the_timers(board: str, tmp_path: Path) -> None:
    """Of each layer, to two ticks: one is what is left of a tick at either end, one what reading the timer takes."""
    made = tools(board)
    built = virtual.build(TOY, made, tmp_path)
    ran = virtual.with_cycles(built, virtual.answer(built, IMAGE))
    found = estimate(made, tmp_path / "followed.elf", "nestling_layer_done", 3)
    assert [layer.cycles_estimate for layer in ran.layers] == list(found.cycles) and ran.cycles_note == found.note
    for layer, instructions_ in zip(ran.layers, found.instructions, strict=True):
        assert abs(layer.instructions - instructions_) <= 2 * ran.calibration.tick
        assert instructions_ / 2 <= layer.cycles_estimate <= 3 * instructions_


def test_machines_without_a_table_have_no_estimate() -> None:
    assert {name for name in machines.names() if machines.machine(name).cycles} == set(CORES) == set(CORTEX)
    ran = virtual.run(TOY, tools("rv32imc"), IMAGE, cycles=True)
    assert ran.cycles_note == "" and all(layer.cycles_estimate is None for layer in ran.layers)
