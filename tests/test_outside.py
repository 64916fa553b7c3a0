"""Files that anybody may have written: what they claim costs nothing, and what is wrong with them is said."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from nestling import outside
from nestling.errors import UnusableFile
from nestling.outside import Record
from tests.helpers.damage import archive, overlapping, repeated

MEMBERS = {"a": b"1" * 1000, "b": b"2" * 3000}


def peak(read: Callable[[], object]) -> int:
    """The most bytes that Python held while something was read."""
    tracemalloc.start()
    try:
        read()
    finally:
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


# ---- bytes ---------------------------------------------------------------------------------------------------------------------


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12")
    assert outside.content(tmp_path / "file") == b"12"
    for path, reason in (
        (tmp_path, "folder"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path / "nothing", "No such file"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(UnusableFile, match=reason) as raised:
            outside.content(path, "type this")
        assert str(path) in raised.value.message and raised.value.hint == "type this"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b", "\ud800"])
def test_what_is_no_files_name(name: str) -> None:
    assert not outside.is_file_name(name) and outside.is_file_name("a b.ü")


# ---- archives ------------------------------------------------------------------------------------------------------------------


def test_an_archive_comes_back() -> None:
    assert outside.unzipped(archive(MEMBERS), "x") == MEMBERS == outside.unzipped(repeated(MEMBERS, 1), "x")
    assert outside.unzipped(overlapping(MEMBERS, 0), "x") == MEMBERS


def test_an_archive_that_unfolds_is_refused_before_it_does() -> None:
    large = {"a": bytes(2**19)}
    for content, reason in (
        (overlapping(large, 40), "lies over"),
        (repeated(large, 40), "two members of the name 'a'"),
        (archive({"a": bytes(2**24)}, compressed=True), "compressed"),
    ):
        assert peak(lambda content=content, reason=reason: refused(content, reason)) < 2**22  # type: ignore[misc]  # bound now
    refused(repeated({"a": b"1"}, outside.MOST_MEMBERS + 1), "10001 members")


def refused(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableFile, match=reason):
        outside.unzipped(content, "x")


@pytest.mark.parametrize("content", [b"", b"PK\5\6", archive(MEMBERS)[:-30], archive(MEMBERS).replace(b"1" * 100, b"3" * 100, 1)])
def test_what_is_no_archive(content: bytes) -> None:
    with pytest.raises(UnusableFile, match="not a whole archive"):
        outside.unzipped(content, "x")


# ---- arrays --------------------------------------------------------------------------------------------------------------------


def test_arrays_are_finite_and_variances_not_negative() -> None:
    fine = {"w": np.array([1e38, -1e-45, 0], np.float32), "n": np.array([-3]), "bn.running_var": np.zeros(2, np.float32)}
    found = outside.arrays(save(fine), "x")
    outside.require_sound(found, "x")
    assert all(np.array_equal(found[name], fine[name]) for name in fine)
    for name, value in (("w", np.nan), ("w", np.inf), ("w", -np.inf), ("bn.running_var", -1e-9), ("half", np.float16(np.inf))):
        array = fine.get(name, np.zeros(2, np.float16)).copy()
        array[-1] = value
        with pytest.raises(UnusableFile, match=f"x: '{name}' holds"):
            outside.require_sound(fine | {name: array}, "x")


@pytest.mark.parametrize("content", [b"", b"\1", b"\0" * 8, b"\xff" * 8 + b"{}", (2**24 + 1).to_bytes(8, "little") + b" " * 100])
def test_what_is_no_safetensors_file(content: bytes) -> None:
    with pytest.raises(UnusableFile, match="x is not a"):
        outside.arrays(content, "x")


def test_a_dtype_that_numpy_lacks_is_named() -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    with pytest.raises(UnusableFile, match="x is not a"):
        outside.arrays(len(header).to_bytes(8, "little") + header + b"12", "x")


# ---- JSON ----------------------------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"a": ' * (depth // 2) + b"[" * (depth - depth // 2) + b"1" + b"]" * (depth - depth // 2) + b"}" * (depth // 2)


def test_json_is_as_deep_as_it_may_be() -> None:
    assert outside.parsed(nested(outside.DEEPEST), "x") == json.loads(nested(outside.DEEPEST))
    for depth in (outside.DEEPEST + 1, 900, 1_000_000):
        with pytest.raises(UnusableFile, match=r"^x is (nested|no JSON)"):
            outside.parsed(nested(depth), "x")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'"\xff"', b"9" * 5000, b"[1,]", '{"a": 1}'.encode("utf-16")])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(UnusableFile, match="x is no JSON"):
        outside.parsed(text, "x", "type this")


def test_json_of_too_many_values_is_not_parsed() -> None:
    text = b"[" + b"[]," * (outside.MOST_VALUES // 2) + b"1]"

    def read() -> None:
        with pytest.raises(UnusableFile, match="more than"):
            outside.parsed(text, "x")

    assert peak(read) < 2**20


def test_half_a_character_is_text() -> None:
    assert outside.parsed(b'"\\ud800"', "x") == "\ud800"


PLAIN: dict[str, Any] = {
    "text": "a", "true": True, "one": 1, "half": 0.5, "nan": float("nan"), "huge": 10**400, "null": None, "list": ["a", "b"],
    "mixed": ["a", 1], "object": {"one": "1"}, "objects": [{}, {"a": 1}],
}  # fmt: skip
RIGHT: dict[str, tuple[Callable[[Record], object], object]] = {
    "text": (lambda r: r.text("text"), "a"),
    "whole": (lambda r: r.whole("one"), 1),
    "number": (lambda r: r.number("one"), 1.0),
    "measured": (lambda r: str(r.measured("null")), "nan"),
    "also measured": (lambda r: str(r.measured("nan")), "nan"),
    "names": (lambda r: r.names("list"), ("a", "b")),
    "record": (lambda r: r.record("object").text("one"), "1"),
    "records": (lambda r: [len(one.plain) for one in r.records("objects", 2)], [0, 1]),
    "missing": (lambda r: r.optional("missing", r.text, "b"), "b"),
    "null": (lambda r: r.optional("null", r.text), None),
    "maybe": (lambda r: r.maybe("null").plain, {}),
}
WRONG: dict[str, tuple[Callable[[Record], object], str]] = {
    "missing": (lambda r: r.text("missing"), "'missing' is missing"),
    "true is no number": (lambda r: r.whole("true"), "'true' is True; expected a whole number"),
    "half is not whole": (lambda r: r.whole("half"), "expected a whole number"),
    "too small": (lambda r: r.whole("one", 2), "from 2"),
    "too large": (lambda r: r.whole("huge"), r"1000.*\.\.\."),
    "no float": (lambda r: r.number("huge"), "finite"),
    "not measured": (lambda r: r.measured("huge"), "a number"),
    "not finite": (lambda r: r.number("nan"), "finite"),
    "a list is no text": (lambda r: r.text("list"), "expected text"),
    "mixed": (lambda r: r.names("mixed"), "list of at most 10000 of text"),
    "too many": (lambda r: r.names("list", 1), "at most 1"),
    "no object": (lambda r: r.record("list"), "expected an object"),
    "inside": (lambda r: r.record("object").whole("one"), "^x: object: 'one' is '1'"),
    "in a list": (lambda r: r.records("objects", 2)[1].text("a"), r"^x: objects\[1\]: 'a' is 1"),
    "wrong where it is not null": (lambda r: r.optional("one", r.text), "expected text"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_record_gives(name: str) -> None:
    read, expected = RIGHT[name]
    assert read(Record(PLAIN, "x")) == expected


@pytest.mark.parametrize("name", WRONG)
def test_a_record_refuses(name: str) -> None:
    read, message = WRONG[name]
    with pytest.raises(UnusableFile, match=message) as raised:
        read(Record(PLAIN, "x", "type this"))
    assert len(raised.value.message) < 200 and raised.value.hint == "type this"


def test_what_is_no_object() -> None:
    with pytest.raises(UnusableFile, match="x: an object is expected here, not"):
        Record([0] * 1000, "x")
