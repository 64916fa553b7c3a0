"""net_runner, under sanitizers, on heads that lie under a right checksum: they are refused, or lead on to the next epoch."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.device.head_file import HeadFile, Progress, from_bytes, newest, save, to_bytes
from nestling.device.head_format import FIELDS
from nestling.errors import UnusableFile
from tests.device.runner_program import SANITIZED, built, network, new_head, photographs, run

LABELS = ("a", "b", "c")
NEVER = ("-a", "2")


@dataclass(frozen=True)
class Device:
    """runner: net_runner under the sanitizers. data: photographs; head: saved, of that network."""

    runner: Path
    data: Path
    head: Path


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    graph, place = network(), tmp_path_factory.mktemp("device")
    runner = built(place, graph, (f"CFLAGS={' '.join(SANITIZED)}",))
    new_head(graph, LABELS, place / "head.nst")
    return Device(runner, photographs(place / "data", LABELS, 10), place / "head.nst")


@pytest.fixture
def words(device: Device, tmp_path: Path) -> tuple[Any, ...]:
    """The command line but for its options, of a head of the test's own, which is also what --resume goes on with."""
    shutil.copyfile(device.head, tmp_path / "head.nst")
    return device.runner, "-f", tmp_path / "head.nst", "-d", device.data, *NEVER, "-s", 4


def lying(path: Path, **values: float) -> None:
    """Other numbers in the header of a head, its checksum made right."""
    content = bytearray(path.read_bytes())
    place = 0
    for field in FIELDS:
        if field.name in values:
            struct.pack_into("<" + field.code, content, place, values[field.name])
        place += struct.calcsize("<" + field.code)
    content[-4:] = struct.pack("<I", zlib.crc32(content[:-4]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crop": 1e-300}, "crop is 1e-300 and should be from 0.05 to 1"),
        ({"crop": 0.0499}, "crop is 0.0499"),
        ({"crop": float("nan")}, "crop is nan"),
        ({"image_height": 2**31, "image_width": 2}, "image_height is 2147483648"),
        ({"image_height": 65536, "image_width": 65536}, "image_height is 65536"),
        ({"batch": 2**32 - 1}, "batch is 4294967295"),
        ({"embedding_zero": 2**31 - 1}, "embedding_zero is 2147483647"),
        ({"rate": -1.0}, "rate is -1"),
        ({"input_scale": 0.0}, "input_scale is 0"),
        ({"steps": 2**64 - 1}, "steps is 1.8"),
    ],
)
def test_a_head_out_of_its_bounds_is_refused_by_name(words: tuple[Any, ...], values: dict[str, float], said: str) -> None:
    head = words[2]
    lying(head, **values)
    ended = run(*words, "-c", 2, status=1)
    assert said in ended.stderr and "head.nst" in ended.stderr
    with pytest.raises(UnusableFile, match=rf"head\.nst says that {next(iter(values))} is"):
        newest(head)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda items: {"position": items + 13, "balanced": 0}, "begun anew"),
        (lambda items: {"position": 2**32 - 1}, "begun anew"),
        (lambda items: {"position": items, "balanced": 0}, "gone on"),
        (lambda items: {"items": items - 1, "position": 2}, "begun anew"),
    ],
)
def test_a_position_that_is_not_in_the_order(
    words: tuple[Any, ...], change: Callable[[int], dict[str, int]], said: str, tmp_path: Path
) -> None:
    run(*words, "-c", 8)
    trained = tmp_path / "trained.nst"
    before = newest(trained)[0].progress
    lying(trained, **change(before.items))
    trained.with_name("trained.nst.previous").unlink()
    ended = run(*words, "-c", 9, "--resume")
    assert said in ended.stderr
    after = newest(trained)[0].progress
    if said == "gone on":
        assert (after.epoch, after.steps) == (before.epoch + 1, 9)


def test_a_balanced_training_of_a_place_behind_its_end_goes_on_with_the_next_epoch(words: tuple[Any, ...], tmp_path: Path) -> None:
    """The file does not say how long that order is, only the photographs do."""
    head = words[2]
    save(replace(newest(head)[0], training=replace(newest(head)[0].training, balanced=True)), head)
    run(*words, "-c", 4)
    trained = tmp_path / "trained.nst"
    before = newest(trained)[0].progress
    lying(trained, position=before.items + len(LABELS))  # each class has as many photographs
    ended = run(*words, "-c", 5, "--resume")
    assert "gone on" in ended.stderr
    after = newest(trained)[0].progress
    assert (after.epoch, after.steps) == (before.epoch + 1, 5)
    assert 0 < after.position <= before.items


def test_a_training_that_diverges_says_so_and_leaves_what_was_saved(words: tuple[Any, ...], tmp_path: Path) -> None:
    run(*words, "-c", 4)
    before = (tmp_path / "trained.nst").read_bytes()
    ended = run(*words, "-c", 400, "--rate", 1e9, status=1)
    assert "has diverged" in ended.stderr and "--rate 1e+08" in ended.stderr
    assert (tmp_path / "trained.nst").read_bytes() == before or np.isfinite(newest(tmp_path / "trained.nst")[0].weights).all()
    assert newest(tmp_path / "trained.nst")[0].labels == LABELS


def test_what_is_no_file_is_not_waited_for(words: tuple[Any, ...], tmp_path: Path) -> None:
    head = words[2]
    head.unlink()
    os.mkfifo(head)
    assert "head.nst" in run(*words, "-c", 2, status=1).stderr
    with pytest.raises(UnusableFile, match="not a file"):
        newest(head)
    head.unlink()
    with head.open("wb") as file:
        file.truncate(2**40)  # takes no room
    assert "File too large" in run(*words, "-c", 2, status=1).stderr
    with pytest.raises(UnusableFile, match="too large"):
        newest(head)


def test_what_was_saved_as_often_as_can_be_counted_is_not_replaced(words: tuple[Any, ...], tmp_path: Path) -> None:
    run(*words, "-c", 4)
    trained = tmp_path / "trained.nst"
    lying(trained, saves=2**31 - 1)
    before = trained.read_bytes()
    assert "cannot be saved" in run(*words, "-c", 4, status=1).stderr
    assert trained.read_bytes() == before


def test_a_head_keeps_what_it_may_hold(device: Device) -> None:
    """What the C saves Python reads, and what Python saves the C reads: here one with every number at a bound."""
    head = newest(device.head)[0]
    training = replace(head.training, rate=0.0, momentum=0.0, batch=65536)
    odd = replace(
        head, crop=0.05, embedding_zero=-128, input_scale=2.0**-126, training=training,
        progress=Progress(steps=2**40, began=2**40, items=2**31 - 1, position=2**31 - 1, lowest_loss=0.0, best_accuracy=1.0),
    )  # fmt: skip
    assert same(from_bytes(to_bytes(odd), "x"), odd)


def same(one: HeadFile, other: HeadFile) -> bool:
    return to_bytes(one) == to_bytes(other)


def test_names_do_not_steer_a_terminal(device: Device, words: tuple[Any, ...], tmp_path: Path) -> None:
    """Names of files and of classes, from the folder or from the head, are shown with what is no plain text as \\xNN."""
    head = words[2]
    labels = ("a", "b", "c", "d\x1b[31m", "e\u202e", "ü 日本")
    save(replace(newest(head)[0], labels=labels, label_bytes=200), head)
    data = shutil.copytree(device.data, tmp_path / "data")
    (data / "a" / "x\x1b]0;title\x07\n\x9b.bmp").write_bytes(b"BM")
    (data / "a" / os.fsdecode(b"y\xff\xc3.bmp")).write_bytes(b"BM")
    ended = run(*words[:4], data, *words[5:], "-c", 1)
    assert r"x\x1b]0;title\x07\n\x9b.bmp: truncated" in ended.stderr
    assert r"y\xff\xc3.bmp: truncated" in ended.stderr
    for shown in (r"d\x1b[31m", r"e\u202e", "ü 日本"):
        assert f"nothing is kept of {shown} and" in ended.stderr
