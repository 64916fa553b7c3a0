"""head.nst: what Python writes the C reads and the other way round, field by field; what is not whole is refused by both."""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nestling.device import head_file
from nestling.device.head_file import HeadFile, from_bytes, made, newest, plain_head, save, to_bytes, with_class
from nestling.errors import NestlingError, UnusableFile
from nestling.graph.head import Head
from tests import SHARED
from tests.device.c_head import HEADER, PREPROCESS, TRAININGS, CHead, full_head, new_head, parsed, random_embeddings

HEADER_BYTES = 232


@pytest.fixture(scope="module")
def lib(c_learner: Any) -> Any:
    return c_learner


def assert_same(one: HeadFile, other: HeadFile) -> None:
    for field in fields(HeadFile):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("training", "progress", "replay"):
            for inner in fields(a):
                assert_array_equal(getattr(a, inner.name), getattr(b, inner.name), err_msg=inner.name)
        else:
            assert_array_equal(a, b, err_msg=field.name)
            assert getattr(a, "dtype", None) == getattr(b, "dtype", None), field.name


SIZES = st.tuples(st.integers(1, 70), st.integers(1, 5), st.integers(0, 4), st.sampled_from(sorted(TRAININGS)), st.integers(0, 6))


@settings(deadline=None, max_examples=80)
@given(SIZES, st.integers(0, 1000))
def test_what_python_writes_is_what_struct_and_c_read(lib: Any, sizes: tuple[int, int, int, str, int], seed: int) -> None:
    inputs, classes, more, kind, replay = sizes
    head = full_head(inputs, classes, classes + more, kind, replay, seed)
    content = to_bytes(head)
    found = parsed(content)
    assert found["crc"] == zlib.crc32(content[:-4])
    assert found["bytes"] == len(content)
    expected = {
        "magic": b"NSTHEAD\n", "version": 1, "inputs": inputs, "classes": classes, "max_classes": classes + more,
        "optimizer": int(kind == "adam"), "moment_type": int(kind == "bfloat16"), "replay_capacity": replay,
        "replay_count": len(head.replay.labels), "replay_seen": head.replay.seen, "rate": np.float32(head.training.rate),
        "momentum": np.float32(head.training.momentum), "beta2": np.float32(head.training.beta2), "saves": 6,
        "epsilon": np.float32(head.training.epsilon), "decay": np.float32(head.training.decay), "embedding_zero": -7,
        "input_scale": np.float32(head.input_scale), "embedding_scale": np.float32(0.05), "seed": head.training.seed,
        "steps": 2**40 + 1, "began": 2**39, "epoch": 3, "position": 4, "items": 5, "balanced": int(kind == "sgd"),
        "batch": head.training.batch, "lowest_loss": 0.25, "best_accuracy": 0.5, "image_height": 48, "image_width": 64,
        "image_channels": 3, "interpolation": 1, "crop": 0.875, "graph": b"\xab" * 32, "data": b"\xcd" * 32,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert found["labels"].tobytes().rstrip(b"\0") == b"".join(b"class %d\n" % c for c in range(classes))
    assert found["runtimes"].tobytes() == b"c".ljust(32, b"\0") + b"executorch".ljust(96, b"\0")
    for name in ("offset", "weights", "bias", "bias_moment"):
        assert_array_equal(found[name], getattr(head, name).reshape(-1), err_msg=name)
    moment = (found["moment"].astype(np.uint32) << 16).view(np.float32) if kind == "bfloat16" else found["moment"]
    assert_array_equal(moment[: head.moment.size], head.moment.reshape(-1))
    assert not moment[head.moment.size :].any()
    for name in ("square", "bias_square") if kind == "adam" else ():
        assert_array_equal(found[name], getattr(head, name).reshape(-1), err_msg=name)
    entries = found["replay"][: len(head.replay.labels)]
    assert_array_equal(entries[:, 0] + 256 * entries[:, 1].astype(int), head.replay.labels)
    assert_array_equal(entries[:, 2], head.replay.runtimes)
    assert_array_equal(entries[:, 4 : 4 + inputs].view(np.int8), head.replay.embeddings)

    read = CHead(content, lib)
    assert read.state == 0
    seen = read.described()
    assert {name: value for name, value in seen.items() if name[0] != "@"} == {n: found[n] for n in seen if n[0] != "@"}
    assert {name: value for name, value in seen.items() if name[0] == "@"} == {n: found[n] for n in seen if n[0] == "@"}
    assert_same(from_bytes(content, "x"), from_bytes(to_bytes(from_bytes(content, "x")), "x"))


@settings(deadline=None, max_examples=40)
@given(SIZES)
def test_what_c_writes_python_reads(lib: Any, sizes: tuple[int, int, int, str, int]) -> None:
    """c_head.c's fill() gives each field a number; those numbers stand here again."""
    inputs, classes, more, kind, replay = sizes
    written = CHead(to_bytes(new_head(inputs, classes, classes + more, TRAININGS[kind], replay)), lib)
    written.fill()
    head = from_bytes(written.sealed(), "x")
    assert head.labels == tuple(f"class {c}" for c in range(classes))
    assert head.runtimes == ("c",)
    assert head.training.__dict__ == {
        "optimizer": "adam" if kind == "adam" else "sgd", "moment_type": "bfloat16" if kind == "bfloat16" else "float32",
        "rate": 0.375, "momentum": 0.8125, "beta2": 0.96875, "epsilon": 2**-20, "decay": 2**-9, "seed": 0xFEDCBA9876543210,
        "balanced": True, "batch": 34,
    }  # fmt: skip
    assert head.progress.__dict__ == {
        "steps": 5_000_000_001, "began": 4_000_000_002, "epoch": 31, "position": 32, "items": 33, "lowest_loss": 0.0625,
        "best_accuracy": 0.875, "saves": 36, "data": bytes(range(200, 168, -1)).hex(),
    }  # fmt: skip
    assert (head.input_scale, head.embedding_scale, head.embedding_zero) == (0.0078125, 0.09375, -77)
    assert (head.image, head.interpolation, head.crop) == ((41, 42, 1), "bilinear", 0.8)
    assert head.graph == bytes(range(1, 33)).hex()
    numbers = np.arange(classes * inputs, dtype=np.float32).reshape(classes, inputs)
    assert_array_equal(head.offset, np.arange(inputs) + 0.25)
    assert_array_equal(head.weights[:classes], numbers + 0.5)
    assert_array_equal(head.moment[:classes], numbers % 256 * -0.5)
    assert_array_equal(head.bias[:classes], np.arange(classes) + 100)
    assert_array_equal(head.bias_moment[:classes], np.arange(classes) + 200)
    if kind == "adam":
        assert_array_equal(head.square[:classes], numbers * 0.125)
        assert_array_equal(head.bias_square[:classes], np.arange(classes) + 300)
    assert head.replay.seen == replay + 70_000_000_000
    assert_array_equal(head.replay.labels, np.arange(replay) % classes)
    expected = (np.arange(replay)[:, None] + 3 * np.arange(inputs)).astype(np.uint8).view(np.int8)
    assert_array_equal(head.replay.embeddings, expected)


# ---- damage ------------------------------------------------------------------------------------------------------------------


def places_of_parts(content: bytes) -> dict[str, int]:
    """A byte of every header field and of every part, by name."""
    places, offset = {}, 0
    for name, code in HEADER:
        places[name] = offset
        offset += struct.calcsize("<" + code)
    return places | {name: place for name, place in parsed(content).items() if name[0] == "@" and place > HEADER_BYTES}


@pytest.mark.parametrize("kind", sorted(TRAININGS))
def test_a_changed_byte_is_refused_wherever_it_is(lib: Any, kind: str) -> None:
    content = to_bytes(full_head(9, 3, 4, kind, 5))
    for name, place in {**places_of_parts(content), "crc": len(content) - 2}.items():
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        with pytest.raises(UnusableFile, match=r"^here/head\.nst "):
            from_bytes(bytes(damaged), "here/head.nst")
        assert CHead(bytes(damaged), lib).state != 0, name


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(TRAININGS)), st.data())
def test_flipped_bits_and_cut_files_are_refused(lib: Any, kind: str, data: st.DataObject) -> None:
    content = to_bytes(full_head(9, 3, 4, kind, 5))
    if data.draw(st.booleans()):
        damaged = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        bits = data.draw(st.sets(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=4))
        flipped = bytearray(content)
        for bit in bits:
            flipped[bit // 8] ^= 1 << bit % 8
        damaged = bytes(flipped)
    with pytest.raises(UnusableFile):
        from_bytes(damaged, "head.nst")
    assert CHead(damaged, lib).state != 0


EXTREMES = (0, 1, 2, 3, 4, 7, 8, 255, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 0x7F800000, 0x7FC00000, 2**63)


def assert_both_judge_alike(lib: Any, content: bytearray, what: object) -> None:
    """With its checksum made right, both read it or both refuse it."""
    content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    try:
        from_bytes(bytes(content), "head.nst")
        read = True
    except UnusableFile:
        read = False
    assert read == (CHead(bytes(content), lib).state == 0), what


@pytest.mark.parametrize("kind", sorted(TRAININGS))
def test_a_file_that_lies_under_a_right_checksum(lib: Any, kind: str) -> None:
    """Sizes that do not fit, settings without sense, classes and runtimes that are not named: every field, every byte behind it."""
    content = to_bytes(full_head(5, 2, 3, kind, 2, seed=1))
    assert parsed(content)["replay_count"] > 0
    places = places_of_parts(content)
    for name, code in HEADER:
        size = struct.calcsize("<" + code)
        for value in EXTREMES:
            lying = bytearray(content)
            lying[places[name] : places[name] + size] = value.to_bytes(8, "little")[:size].ljust(size, b"\0")
            assert_both_judge_alike(lib, lying, (name, value))
    for place in range(HEADER_BYTES, len(content) - 4):
        for value in (0, 1, 3, 10, 65):
            lying = bytearray(content)
            lying[place] = value
            assert_both_judge_alike(lib, lying, place)


def test_more_classes_than_rows_or_more_replay_than_room(lib: Any) -> None:
    """What would make the C write behind its memory is refused even where all the rest fits."""
    content = bytearray(to_bytes(new_head(5, 2, 3, replay=2)))
    places, more = places_of_parts(bytes(content)), bytearray(content)
    more[HEADER_BYTES : HEADER_BYTES + 16] = b"a\nb\nc\nd\n".ljust(16, b"\0")
    more[places["classes"]] = 3
    assert_both_judge_alike(lib, more, "three")
    more[-4:] = struct.pack("<I", zlib.crc32(more[:-4]))
    more[places["classes"]] = 4
    full = bytearray(to_bytes(replace(new_head(5, 2, 3, replay=2), runtimes=("c",))))
    full[places["replay_count"]], full[places["replay_seen"]] = 3, 9
    for lying in (more, full):
        lying[-4:] = struct.pack("<I", zlib.crc32(lying[:-4]))
        assert CHead(bytes(lying), lib).state != 0
        with pytest.raises(UnusableFile):
            from_bytes(bytes(lying), "head.nst")


def test_a_velocity_is_rounded_to_bfloat16_as_torch_does() -> None:
    head = new_head(64, training=TRAININGS["bfloat16"])
    moment = np.random.default_rng(0).normal(size=head.moment.shape).astype(np.float32)
    moment.view(np.uint32)[:, ::2] = moment.view(np.uint32)[:, ::2] & 0xFFFF0000 | 0x8000  # halves
    rounded = from_bytes(to_bytes(replace(head, moment=moment)), "x").moment
    assert_array_equal(rounded, torch.from_numpy(moment).to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("content", [b"", b"N", b"PK\3\4" + bytes(400), b"NSTHEAD\n", b"NSTHEAD\n" + bytes(400)])
def test_other_files_are_refused_by_name(lib: Any, content: bytes) -> None:
    with pytest.raises(UnusableFile, match=r"^other\.bin "):
        from_bytes(content, "other.bin")
    assert CHead(content, lib).state != 0


# ---- making ------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 6), st.integers(0, 3), st.integers(-128, 127), st.booleans(), st.integers(0, 99))
def test_a_head_keeps_its_answers(inputs: int, classes: int, more: int, zero: int, with_embeddings: bool, seed: int) -> None:
    """The answers of the float head on real embeddings, computed here in float64, are those of head.nst and of plain_head of it."""
    rng = np.random.default_rng(seed)
    scale = float(np.float32(rng.uniform(0.001, 1)))
    float_head = Head(rng.normal(size=(classes, inputs)).astype(np.float32), rng.normal(size=classes).astype(np.float32))
    embeddings = random_embeddings(40, inputs, seed)
    made_head = made(
        [f"c{i}" for i in range(classes)], classes + more, embeddings if with_embeddings else None, float_head,
        embedding_scale=scale, embedding_zero=zero, preprocess=PREPROCESS, graph="12" * 32,
    )  # fmt: skip
    real = scale * (embeddings.astype(np.float64) - zero)
    expected = real @ float_head.weight.T.astype(np.float64) + float_head.bias
    largest = np.abs(real).max() * np.abs(float_head.weight).sum(axis=1).max() + 1
    assert_allclose(head_file.logits(made_head, embeddings), expected, rtol=0, atol=4e-6 * largest)
    again = plain_head(made_head)
    assert_allclose(real @ again.weight.T.astype(np.float64) + again.bias, expected, rtol=0, atol=4e-6 * largest)
    x = head_file.inputs_of(made_head, embeddings).astype(np.float64)
    if with_embeddings:  # centred, mean squared distance 1
        assert_allclose(x.mean(axis=0), 0, atol=1e-6)
        assert_allclose((x**2).sum(axis=1).mean(), 1, rtol=1e-5)
    else:  # scale * q and scale * zero, each at most 128 steps, and their difference are rounded to 24 bits
        assert_allclose(x, real, rtol=0, atol=(128 + 128 + 256) * 2.0**-24 * scale)


def test_a_new_class_has_a_row_of_zeros_and_room_for_its_name() -> None:
    head = with_class(new_head(8, 2, 4), "übung")
    assert head.labels == ("class 0", "class 1", "übung")
    assert not head.weights[2].any()
    assert from_bytes(to_bytes(head), "x").labels == head.labels
    with pytest.raises(UnusableFile, match="no room for the class 'y'"):
        with_class(with_class(head, "x"), "y")
    with pytest.raises(UnusableFile, match="no room"):
        with_class(head, "x" * 100)
    with pytest.raises(UnusableFile, match="cannot hold"):
        with_class(head, "a\nb")


def test_parts_that_do_not_fit_are_not_written() -> None:
    head = new_head(8, 2, 4)
    for wrong in (
        {"bias": head.bias[:-1]}, {"weights": head.weights.astype(np.float64)}, {"weights": head.weights + 1},
        {"square": head.moment}, {"crop": 2.0}, {"graph": "xy"}, {"embedding_zero": 2**40}, {"runtimes": ("a" * 40,)},
        {"runtimes": ("a", "b", "c", "d", "e")}, {"input_scale": float("nan")}, {"image": (8, 8, 2)},
        {"training": replace(head.training, batch=0)},
    ):  # fmt: skip
        with pytest.raises(UnusableFile):
            to_bytes(replace(head, **wrong))


# ---- saving ------------------------------------------------------------------------------------------------------------------


def at_step(head: HeadFile, steps: int) -> HeadFile:
    return replace(head, progress=replace(head.progress, steps=steps))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """head.nst of 30 steps, head.nst.previous of 20 and head.nst.part of 40, each with one save more than the one before."""
    path = tmp_path / "head.nst"
    for steps in (10, 20, 30, 40):
        part = save(at_step(new_head(8, 2, 3), steps), path)
        if steps == 30:
            older = {name: (tmp_path / name).read_bytes() for name in ("head.nst", "head.nst.previous")}
    for name, content in older.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "head.nst.part").write_bytes(to_bytes(part))
    return path


def test_saving_counts_and_keeps_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "head.nst"
    first = save(at_step(new_head(8), 1), path)
    second = save(at_step(first, 2), path)
    assert (first.progress.saves, second.progress.saves) == (1, 2)
    assert sorted(file.name for file in path.parent.iterdir()) == ["head.nst", "head.nst.previous"]
    assert from_bytes(path.with_name("head.nst.previous").read_bytes(), "x").progress.steps == 1
    found, where, notes = newest(path)
    assert (found.progress.steps, where, notes) == (2, path, ())


def test_a_training_that_begins_anew_is_newer_than_what_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "trained.nst"
    old = new_head(8)
    for steps in range(5):
        old = save(at_step(old, steps + 100), path)
    save(at_step(new_head(8), 1), path)
    assert newest(path)[0].progress.steps == 1


def test_the_newest_whole_one_is_taken_and_the_others_are_named(three: Path) -> None:
    part, previous = three.with_name("head.nst.part"), three.with_name("head.nst.previous")
    found, where, notes = newest(three)
    assert (found.progress.steps, where) == (40, part)
    assert notes == (f"{three} is older: 30 steps", f"taken: {part}, 40 steps")
    part.write_bytes(part.read_bytes()[:500])
    found, where, notes = newest(three)
    assert (found.progress.steps, where) == (30, three)
    assert len(notes) == 1
    assert str(part) in notes[0]
    three.unlink()
    found, where, notes = newest(three)
    assert (found.progress.steps, where) == (20, previous)
    assert notes[-1] == f"taken: {previous}, 20 steps"
    previous.write_bytes(b"")
    with pytest.raises(UnusableFile, match="no whole head") as caught:
        newest(three)
    assert all(str(file) in caught.value.message for file in (three, part, previous))


def test_a_save_that_was_stopped_before_its_rename_is_finished_first(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part is the newest: it is put in place before the next is written, so that nothing is lost if that fails."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(head_file, "flush", lambda folder: None)
    with pytest.raises(NestlingError, match="No space left on device"):
        save(at_step(new_head(8, 2, 3), 50), three)
    assert newest(three)[0].progress.steps == 40
    assert not three.with_name("head.nst.part").exists()


def test_a_damaged_head_does_not_replace_the_whole_one_before_it(three: Path) -> None:
    three.with_name("head.nst.part").unlink()
    three.write_bytes(three.read_bytes()[:-1])
    save(at_step(new_head(8, 2, 3), 50), three)
    assert from_bytes(three.with_name("head.nst.previous").read_bytes(), "x").progress.steps == 20
    assert newest(three)[0].progress.steps == 50


def test_a_file_system_without_links(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(at_step(new_head(8, 2, 3), 50), three)
    assert newest(three)[0].progress.steps == 50
    assert from_bytes(three.with_name("head.nst.previous").read_bytes(), "x").progress.steps == 40


def test_nothing_there_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match="cannot be read") as caught:
        newest(tmp_path / "head.nst")
    assert "nestling pack" in caught.value.hint
    assert json.dumps(caught.value.message)


@pytest.mark.parametrize(("name", "said"), [("crop-1e-300.nst", "crop is 1e-300"), ("pos-25.nst", "position")])
def test_what_people_met(name: str, said: str) -> None:
    path = SHARED.parent / "cases" / "hostile" / name
    if not path.exists():
        pytest.skip(f"needs {name}, which is not part of the repository (looked in {path.parent})")
    with pytest.raises(UnusableFile, match=said):
        from_bytes(path.read_bytes(), name)
