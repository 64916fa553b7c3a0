"""Each field of head.nst has its bounds: docs/head-file.md, Python and C say the same ones, and both readers hold to them."""

from __future__ import annotations

import ctypes
import math
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nestling.device import head_format
from nestling.device.head_file import HeadFile, Training, from_bytes, to_bytes
from nestling.device.head_format import FIELDS, Field
from nestling.errors import UnusableFile
from nestling.preprocess.image import LONGEST, from_plain
from tests import ROOT
from tests.device.c_head import CHead, address, full_head, new_head, parsed

DOCUMENT = ROOT / "docs" / "head-file.md"
CODES = {"8 bytes": "8s", "32 bytes": "32s", "uint32": "I", "int32": "i", "uint64": "Q", "float32": "f", "float64": "d"}
C_TYPES = "IiQfd"  # of its field_type, in order
BOUNDED = [field for field in FIELDS if field.least is not None]
SIZES = (
    "version",
    "inputs",
    "classes",
    "max_classes",
    "label_bytes",
    "optimizer",
    "moment_type",
    "replay_capacity",
    "replay_count",
)
KINDS = {"sgd": Training(), "bfloat16": Training(moment_type="bfloat16"), "adam": Training("adam")}


@pytest.fixture(scope="module")
def lib(c_learner: Any) -> Any:
    c_learner.bound_of.restype = c_learner.outside.restype = ctypes.c_char_p
    return c_learner


def place_of(name: str) -> int:
    codes = [field.code for field in FIELDS]
    names = [field.name for field in FIELDS]
    return struct.calcsize("<" + "".join(codes[: names.index(name)]))


def sealed(content: bytes) -> bytes:
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def changed(content: bytes, **values: float) -> bytes:
    """The file with other numbers in its header, its checksum right."""
    made = bytearray(content)
    for field in FIELDS:
        if field.name in values:
            struct.pack_into("<" + field.code, made, place_of(field.name), values[field.name])
    return sealed(bytes(made))


def refusal(lib: Any, content: bytes) -> str | None:
    """What Python says, None where it reads the file; the C is of the same mind."""
    state = CHead(content, lib).state
    try:
        from_bytes(content, "head.nst")
    except UnusableFile as error:
        assert state != 0, error
        return error.message
    assert state == 0
    return None


# ---- the three tables --------------------------------------------------------------------------------------------------------


def documented() -> dict[str, tuple[int, str, float | None, float | None]]:
    """name -> offset, struct code, least, most, of the document's table."""
    rows = re.findall(r"^\| (\d+) \| ([\w ]+) \| (\w+) \|([^|]*)\|([^|]*)\|", DOCUMENT.read_text(), re.M)

    def number(text: str) -> float | None:
        return eval(text.strip().replace("^", "**"), {"inf": math.inf}) if text.strip() else None  # noqa: S307  # our own table

    return {name: (int(offset), CODES[kind], number(least), number(most)) for offset, kind, name, least, most in rows}


def test_the_document_says_what_python_holds_to() -> None:
    assert documented() == {field.name: (place_of(field.name), field.code, field.least, field.most) for field in FIELDS}


def test_c_holds_to_the_same(lib: Any) -> None:
    found: list[object] = []
    place, kind, least, most = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_double(), ctypes.c_double()
    pointers = [ctypes.byref(each) for each in (place, kind, least, most)]
    while (name := lib.bound_of(len(found), *pointers)) is not None:
        found.append((name.decode(), place.value, C_TYPES[kind.value], least.value, most.value))
    assert found == [(field.name, place_of(field.name), field.code, field.least, field.most) for field in BOUNDED]
    assert (lib.most_bytes(), lib.longest()) == (head_format.MOST_BYTES, LONGEST)


def test_the_images_are_those_that_a_network_may_take() -> None:
    plain = {"kind": "image", "channels": 3, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    of = {field.name: field for field in FIELDS}
    crop, side = of["crop"], of["image_height"]
    assert crop.least is not None
    for size, share, right in (
        ([side.least, side.most], 1.0, True), ([side.least] * 2, crop.least, True), ([7, 8], 1.0, False), ([8, 4097], 1.0, False),
        ([8, 8], math.nextafter(crop.least, 0), False), ([8, 8], math.nextafter(1, 2), False), ([4096] * 2, 0.4, False),
    ):  # fmt: skip
        if right:
            from_plain(plain | {"size": size, "crop": share})
            continue
        with pytest.raises(UnusableFile):
            from_plain(plain | {"size": size, "crop": share})


# ---- at the bound and past it ------------------------------------------------------------------------------------------------


def beyond(field: Field) -> list[float]:
    """What is just out of its bounds, and what is no number, as far as the field's type has such."""
    assert field.least is not None and field.most is not None
    if field.code in "fd":
        kind: Any = np.float32 if field.code == "f" else np.float64
        past = [float(np.nextafter(kind(field.least), kind(-np.inf))), math.nan, -math.inf]
        return past if field.most == math.inf else [*past, float(np.nextafter(kind(field.most), kind(np.inf))), math.inf]
    least = -(2**31) if field.code == "i" else 0
    return [value for value in (int(field.least) - 1, int(field.most) + 1) if value >= least]


@pytest.mark.parametrize("field", BOUNDED, ids=[field.name for field in BOUNDED])
def test_the_bound_is_read_and_one_past_it_refused(lib: Any, field: Field) -> None:
    content = to_bytes(full_head(5, 2, 3, "bfloat16", 2, seed=1))
    roomy = {
        "steps": {"began": 0}, "began": {"steps": 2**48}, "position": {"items": 2**31 - 1}, "items": {"position": 0},
        "crop": {"image_height": 8, "image_width": 8}, "replay_seen": {"replay_count": 0},
    }.get(field.name, {})  # fmt: skip  # so that nothing else is wrong
    for value in (field.least, field.most):
        assert value is not None
        at_bound = changed(content, **roomy | {field.name: value})
        assert lib.outside(ctypes.c_char_p(at_bound)) is None
        if field.name in SIZES:  # with another size the file would be another one
            assert f"says that {field.name}" not in (refusal(lib, at_bound) or "")
        else:
            assert refusal(lib, at_bound) is None, value
    for value in beyond(field):
        past = changed(content, **roomy | {field.name: value})
        said = refusal(lib, past)
        if field.name == "version":
            assert said is not None and "of version" in said
            continue
        assert said is not None and said.startswith(f"head.nst says that {field.name} is "), (value, said)
        assert lib.outside(ctypes.c_char_p(past)).decode() == field.name


@pytest.mark.parametrize(
    ("values", "right"),
    [
        ({"position": 24, "items": 24, "balanced": 0}, True),  # the end of the epoch
        ({"position": 25, "items": 24, "balanced": 0}, False),
        ({"position": 48, "items": 24, "balanced": 1}, True),  # two classes take turns
        ({"position": 49, "items": 24, "balanced": 1}, False),
        ({"position": 1, "items": 1, "balanced": 0}, True),
        ({"position": 2, "items": 1, "balanced": 0}, False),
        ({"position": 1, "items": 0, "balanced": 0}, True),  # a firmware need not count them
        ({"steps": 7, "began": 7}, True),
        ({"steps": 7, "began": 8}, False),
        ({"image_channels": 2}, False),
        ({"image_height": 4096, "image_width": 4096, "crop": 0.4096}, True),
        ({"image_height": 4096, "image_width": 8, "crop": 0.4095}, False),
        ({"image_height": 8, "image_width": 4096, "crop": 0.4095}, False),
        ({"replay_count": 3, "replay_seen": 9}, False),
        ({"replay_count": 1, "replay_seen": 0}, False),
        ({"classes": 4}, False),
        ({"label_bytes": 47}, False),
        ({"optimizer": 1}, False),
        ({"bytes": 2**29 + 1}, False),
    ],
)
def test_what_fields_say_of_each_other(lib: Any, values: dict[str, float], right: bool) -> None:
    content = to_bytes(full_head(5, 2, 3, "bfloat16", 2, seed=1))
    said = refusal(lib, changed(content, **values))
    assert (said is None) == right, said


def test_a_file_that_would_be_too_large_is_neither_written_nor_read(lib: Any) -> None:
    head = new_head(5)
    for wrong in ({"label_bytes": 2**40}, {"replay": replace(head.replay, capacity=2**40)}, {"label_bytes": 2**29}):
        with pytest.raises(UnusableFile, match="would take"):
            to_bytes(replace(head, **wrong))
    rows = changed(to_bytes(head), max_classes=65535, inputs=2**24, bytes=2**32 - 1)  # 2^40 weights
    assert (refusal(lib, rows) or "").startswith("head.nst is damaged: its sizes")


def test_anything_else_is_judged_alike(lib: Any) -> None:
    """Words of the header and bytes behind it changed at random, the sizes and the checksum made right where they can be."""
    rng, whole = np.random.default_rng(0), 0
    contents = [to_bytes(full_head(5, 2, 3, kind, 2, seed=1)) for kind in ("sgd", "bfloat16", "adam")]
    values = (0, 1, 2, 3, 7, 128, 65536, 2**31 - 1, 2**31, 2**32 - 1, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0xBF800000)
    for _ in range(4000):
        lying = bytearray(contents[rng.integers(3)])
        for _ in range(int(rng.integers(1, 3))):
            at = 8 + 4 * int(rng.integers(56)) if rng.random() < 0.7 else int(rng.integers(232, len(lying) - 8))
            struct.pack_into("<I", lying, at, values[rng.integers(len(values))])
        size = ctypes.c_uint32(lib.nestling_head_bytes(ctypes.c_char_p(bytes(lying)))).value
        if 0 < size < 2 * len(lying):
            lying = bytearray(changed(bytes(lying.ljust(size, b"\0")[:size]), bytes=size))
        whole += refusal(lib, sealed(bytes(lying))) is None
    assert 400 < whole < 3600


# ---- what follows the header -------------------------------------------------------------------------------------------------

ARRAYS = ("offset", "weights", "bias", "moment", "bias_moment", "square", "bias_square")
WRONG = {"nan": 0x7FC00000, "inf": 0x7F800000, "-inf": 0xFF800000, "odd nan": 0xFF812345}


@pytest.mark.parametrize(
    ("part", "kind"), [(part, kind) for part in ARRAYS for kind in KINDS if "square" not in part or kind == "adam"]
)
def test_numbers_are_finite_and_unused_rows_0(lib: Any, part: str, kind: str) -> None:
    content = to_bytes(new_head(5, 2, 3, KINDS[kind]))
    begin = int(parsed(content)[f"@{part}"])
    half = part == "moment" and kind == "bfloat16"
    width = 2 if half else 4
    columns = 1 if "bias" in part else 5

    def put(place: int, bits: int) -> bytes:
        at = begin + place * width
        return sealed(content[:at] + struct.pack("<I", bits)[4 - width :] + content[at + width :])

    for place in (0, columns * (1 if part == "offset" else 2) - 1):
        for name, bits in WRONG.items():
            assert part in (refusal(lib, put(place, bits)) or ""), (place, name)
        for bits in (0x7F7F0000, 0x00010000, 0, 0x80000000):  # the largest, a small one, 0 and -0
            assert refusal(lib, put(place, bits)) is None, place
        assert (refusal(lib, put(place, 0xBF800000)) is None) == ("square" not in part)
    if part != "offset":
        unused = columns * 3 - 1
        assert refusal(lib, put(unused, 0x80000000)) is None
        for bits in (0x3F800000, 0x00010000, *WRONG.values()):
            assert refusal(lib, put(unused, bits)) is not None


def named(*labels: bytes, classes: int | None = None) -> bytes:
    """A head with these names in it."""
    lines = b"".join(label + b"\n" for label in labels)
    count = classes or len(labels)
    head = new_head(3, count, count)
    content = to_bytes(replace(head, label_bytes=-(-max(len(lines), 12 * count) // 8) * 8))
    start = int(parsed(content)["@labels"])
    room = int(parsed(content)["label_bytes"])
    return sealed(content[:start] + lines.ljust(room, b"\0") + content[start + room :])


@pytest.mark.parametrize(
    ("labels", "right"),
    [
        ((b"a", b"b"), True),
        (("übung".encode(), "日本 🐦".encode(), b"\xf4\x8f\xbf\xbf"), True),
        ((b"a", b"a"), False),
        ((b"a", b"b", b"a"), False),
        ((b"a", b"ab", b"b"), True),
        ((b"ab", b"a", b"abc"), True),
        ((b"a", b""), False),
        ((b"a\0b", b"c"), False),
        ((b"\xff", b"c"), False),
        ((b"\xc3", b"c"), False),  # cut short
        ((b"\xc0\xaf", b"c"), False),  # longer than need be
        ((b"\xe0\x80\xaf", b"c"), False),
        ((b"\xf0\x80\x80\xaf", b"c"), False),
        ((b"\xed\xa0\x80", b"c"), False),  # half a surrogate pair
        ((b"\xf4\x90\x80\x80", b"c"), False),  # beyond Unicode
        ((b"\x80", b"c"), False),
    ],
)
def test_labels_are_text_and_differ(lib: Any, labels: tuple[bytes, ...], right: bool) -> None:
    said = refusal(lib, named(*labels))
    assert (said is None) == right, said


@pytest.mark.parametrize("twice", [(0, 1), (0, 99), (31, 32), (5, 64), (32, 33), (63, 95), (98, 99)])
def test_a_name_that_comes_twice_among_many(lib: Any, twice: tuple[int, int]) -> None:
    labels = [b"name %d" % number for number in range(100)]
    assert refusal(lib, named(*labels)) is None
    labels[twice[1]] = labels[twice[0]]
    assert "two classes of one name" in (refusal(lib, named(*labels)) or "")


def test_names_that_are_no_names_are_not_written(lib: Any) -> None:
    head = new_head(3, 2, 4)
    for labels in (("a", "a"), ("\ud800", "b"), ("a", "b\n")):
        with pytest.raises(UnusableFile, match="cannot hold"):
            to_bytes(replace(head, labels=labels))
    read = CHead(to_bytes(head), lib)
    for label in (b"class 0", b"class 1", b"", b"a\nb", b"\xff", b"\xc3", b"x" * 200):
        assert read.add_class(label) == -1, label
    assert [read.add_class(label) for label in (b"class", b"class 10", "ü".encode())] == [2, 3, -1]
    assert from_bytes(read.sealed(), "x").labels == ("class 0", "class 1", "class", "class 10")


def test_names_of_runtimes_are_text(lib: Any) -> None:
    content = to_bytes(replace(new_head(3, 2), runtimes=("c",)))
    start = int(parsed(content)["@runtimes"])
    for name, right in ((b"\xc3\xbc", True), (b"\xff", False), (b"x" * 30 + b"\xc3", False), (b"x" * 29 + b"\xc3\xbc", True)):
        lying = sealed(content[:start] + name.ljust(32, b"\0") + content[start + 32 :])
        assert (refusal(lib, lying) is None) == right, name


# ---- what a diverged training leaves -----------------------------------------------------------------------------------------


class _Flash(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("user", "slot", "erase", "write")]


def flash_of(slots: list[Any]) -> tuple[_Flash, list[Any]]:
    """Two slots of memory; the functions must be kept as long as the flash is used."""

    def erase(_: object, slot: int) -> int:
        ctypes.memset(slots[slot].ctypes.data, 0xFF, slots[slot].nbytes)
        return 0

    def write(_: object, slot: int, offset: int, content: int, count: int) -> int:
        ctypes.memmove(slots[slot].ctypes.data + offset, content, count)
        return 0

    void, number, word = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
    kinds: list[Callable[..., Any]] = [
        ctypes.CFUNCTYPE(void, void, number)(lambda _, slot: slots[slot].ctypes.data),
        ctypes.CFUNCTYPE(number, void, number)(erase),
        ctypes.CFUNCTYPE(number, void, number, word, void, word)(write),
    ]
    return _Flash(None, *(ctypes.cast(kind, void) for kind in kinds)), kinds  # type: ignore[arg-type]  # ctypes' own


def diverged(head: HeadFile) -> HeadFile:
    weights = head.weights.copy()
    weights[1, 2] = np.nan
    return replace(head, weights=weights)


def test_flash_keeps_what_was_whole(lib: Any) -> None:
    """A head with numbers that are not finite is not written; one that is there all the same counts for nothing."""
    content = to_bytes(new_head(5, 2, 3))
    slots = [np.zeros(-(-len(content) // 8), np.uint64) for _ in range(2)]
    flash, kept = flash_of(slots)
    head = CHead(content, lib)
    for _ in range(2):
        assert lib.nestling_flash_save(ctypes.byref(flash), ctypes.byref(head.head)) == 0
    before = [slot.tobytes() for slot in slots]
    weights = head.memory.view(np.uint8)[int(parsed(content)["@weights"]) :][:4]
    weights[:] = np.frombuffer(struct.pack("<f", math.nan), np.uint8)
    assert lib.nestling_flash_save(ctypes.byref(flash), ctypes.byref(head.head)) == 1
    assert [slot.tobytes() for slot in slots] == before

    lying = changed(head.content()[: len(content)], saves=40)
    slots[0].view(np.uint8)[: len(lying)] = np.frombuffer(lying, np.uint8)
    found = CHead(content, lib)
    slot = lib.nestling_flash_load(ctypes.byref(flash), address(found.memory), found.memory.nbytes, ctypes.byref(found.head))
    assert (slot, parsed(found.content())["saves"]) == (1, 2)
    assert kept


def test_a_head_that_diverged_is_not_written() -> None:
    with pytest.raises(UnusableFile, match="weights that are not finite"):
        to_bytes(diverged(new_head(5)))
