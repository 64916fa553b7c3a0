"""Files of torch.save's, of both formats: torch's own tensors come out of them, and from damaged ones nothing but UnusableFile."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from nestling.errors import UnusableFile
from nestling.models.pth import KINDS, MAGIC, MAKERS, PROTOCOL, Claim, read_pth, tensors_of
from tests.helpers.damage import archive, old_pth
from tests.helpers.seeds import weighted
from tests.helpers.strategies import QUICK

DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
FORMATS = pytest.mark.parametrize("old", [False, True], ids=["archive", "stream"])


def saved(value: Any, old: bool, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not old, **settings)
    return buffer.getvalue()


def read(content: bytes) -> dict[str, NDArray[Any]]:
    """Every tensor in a dictionary; there must be one."""
    found = read_pth(content, "x")
    values = found.value.items() if isinstance(found.value, dict) else ()
    claims = {name: value for name, value in values if isinstance(value, Claim)}
    if not claims:
        raise UnusableFile("x: no tensors")
    return tensors_of({"": claims}, found.storages, "x")[""]


def same(found: NDArray[Any], tensor: torch.Tensor) -> bool:
    """The same numbers, shape and type; bfloat16 as float32."""
    wanted = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


# ---- what torch wrote ----------------------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_are_torchs_own(dtype: torch.dtype, old: bool) -> None:
    """Views, transposed and empty ones, and several of one storage."""
    whole = torch.arange(-3, 21).reshape(4, 6).to(dtype)
    state = {
        "whole": whole, "part": whole[1:, 2:5], "turned": whole.T, "every other": whole[:, ::2], "one": whole[2, 3],
        "none": whole[:0], "row": whole[3], "another": torch.ones(3).to(dtype), "no axis": torch.tensor(1).to(dtype),
    }  # fmt: skip
    found = read(saved(state, old))
    assert list(found) == list(state)
    assert all(same(found[name], state[name]) for name in state)
    assert np.shares_memory(found["part"], found["whole"]) and not np.shares_memory(found["another"], found["whole"])
    assert not found["whole"].flags.writeable


class Own(torch.Tensor):
    """As libraries have them."""


@FORMATS
@pytest.mark.filterwarnings("ignore")
def test_parameters_and_classes_of_their_own_are_tensors(old: bool) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    given = nn.Parameter(weight.clone())
    given.said = "something"  # type: ignore[attr-defined]  # that is what is tried
    state = OrderedDict(plain=nn.Parameter(weight), fixed=nn.Parameter(weight, False), said=given, own=weight.as_subclass(Own))
    found = read(saved(state, old))
    assert list(found) == list(state) and all(same(found[name], weight) for name in state)


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_protocol_of_pickles(old: bool, protocol: int) -> None:
    state = {name: tensor for name, tensor in weighted().state_dict().items() if tensor.ndim}
    found = read(saved(state | {"epoch": 3, "args": {"lr": [0.1]}}, old, pickle_protocol=protocol))
    assert list(found) == list(state) and all(same(found[name], state[name]) for name in state)


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """A view of a storage that holds as many numbers as the view has, at least."""
    size = draw(st.lists(st.integers(0, 4), max_size=4))
    stride = draw(st.lists(st.integers(0, 7), min_size=len(size), max_size=len(size)))
    offset = draw(st.integers(0, 5))
    last = offset + sum(max(side - 1, 0) * step for side, step in zip(size, stride, strict=True))
    length = max(last + 1, int(np.prod(size))) + draw(st.integers(0, 3))
    return (torch.arange(length) % 100).to(draw(st.sampled_from(DTYPES))).as_strided(size, stride, offset)


@QUICK
@given(views(), st.booleans())
def test_any_view_is_torchs(view: torch.Tensor, old: bool) -> None:
    content = saved({"view": view, "after": torch.ones(2)}, old)
    found = read(content)
    theirs = torch.load(io.BytesIO(content), weights_only=True)
    assert same(found["view"], theirs["view"]) and same(found["after"], theirs["after"])


# ---- what nobody wrote, or half -------------------------------------------------------------------------------------------------


def measured(content: bytes, most: float) -> str:
    """What reading is refused with; it takes at most so much memory."""
    tracemalloc.start()
    with pytest.raises(UnusableFile, match=r"^x") as refused:
        read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most
    return refused.value.message


@FORMATS
def test_a_file_that_ends_too_early(old: bool) -> None:
    whole = saved({"a": torch.zeros(3000), "b": torch.ones(5, dtype=torch.int64)}, old)
    for end in (*range(0, len(whole), 100), *range(len(whole) - 60, len(whole))):
        measured(whole[:end], 3 * len(whole) + 2**20)


PICKLES = {
    "bytes of any length": b"c__builtin__\nbytearray\nJ\0\0\0\x40\x85R",
    "an opcode for these": b"\x96" + (2**28).to_bytes(8, "little"),
    "text of a claimed length": b"\x8d" + (2**60).to_bytes(8, "little"),
    "bytes of a claimed length": b"\x8e" + (2**60).to_bytes(8, "little"),
    "a frame of a claimed length": b"\x95" + (2**60).to_bytes(8, "little"),
    "a memo of any number": b"}r\xff\xff\xff\x7f",
    "tuples in tuples as a key": b"}" + b")" + b"2\x86" * 60 + b"K\1s",
    "a set of these": b"(" + b")" + b"2\x86" * 60 + b"\x91",
    "copies of a text": b"X\0\0\x10\0" + b"a" * 2**20 + b"q\0" + b"ctorch\nSize\nh\0\x85R" * 200,
    "copies of a dictionary": b"}q\0("
    + b"".join(b"J" + i.to_bytes(4, "little") + b"K\1" for i in range(10_000))
    + b"u"
    + b"ccollections\nOrderedDict\nh\0\x85R" * 400,
    "code": b"cos\nsystem\nX\x12\0\0\0touch touched-by-it\x85R",
    "code, called otherwise": b"(X\x12\0\0\0touch touched-by-itios\nsystem\n",
    "an attribute of a class": b"ccollections\nOrderedDict\n}X\x01\0\0\0aK\1sb",
    "nothing": b"",
    "no end of lists": b"]" * 100_000 + b"a" * 99_999,
    "a view of a storage, as before torch 0.4": b"(X\7\0\0\0storagectorch\nFloatStorage\n"
    + b"X\1\0\0\x000X\3\0\0\0cpuK\2X\1\0\0\0vK\1K\1\x87tQ",
    "no storage": b"K\1Q",
}


@FORMATS
@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_would_take_memory_or_run_are_harmless(
    name: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled = b"\x80\x02" + PICKLES[name] + b"."
    content = old_pth(pickled, pickle.dumps([], 2)) if old else archive({"w/data.pkl": pickled, "w/data/0": bytes(8)})
    measured(content, 2**25)
    assert not any(tmp_path.iterdir())
    assert not any(hasattr(maker, "a") for maker in MAKERS.values())


def of_one(count: int, keys: object = ("0",), key: str = "0", body: bytes = bytes(8)) -> bytes:
    """An old file whose "w" claims two floats of storage `key`; it lists `keys`, and says that each is `count` numbers long."""
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + key.encode() + b"X\3\0\0\0cpuK\2NtQ"
    claim = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\0K\2\x85K\1\x85tR"
    listed = pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2)
    return old_pth(b"\x80\x02}X\1\0\0\0w" + claim + b"s.", listed, count.to_bytes(8, "little") + body)


def test_the_old_format_as_it_should_be_and_not() -> None:
    numbers = np.array([1, 2], "<f4")
    assert np.array_equal(read(of_one(2, body=numbers.tobytes()))["w"], numbers)
    for content, reason in (
        (of_one(3), "ends within its storages"),
        (of_one(2**60), "ends within its storages"),
        (of_one(2**64 - 1), "ends within its storages"),
        (of_one(1), "claims .* numbers of a storage of 1"),
        (of_one(2, ("0", "0")), "ends within its storages|claims"),
        (of_one(2, ("1",)), "names storages that none of its tensors has"),
        (of_one(2, ("0", 1)), "names storages that none of its tensors has"),
        (of_one(2, ()), "no tensor"),
        (of_one(2, "0"), "names storages"),
        (of_one(2, key="1", keys=("0",)), "names storages"),
    ):
        with pytest.raises(UnusableFile, match=f"^x.*({reason})"):
            read(content)


@pytest.mark.parametrize("place", range(4))
def test_what_comes_before_the_tensors_of_the_old_format(place: int) -> None:
    first = [pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {"little_endian": True})]
    parts = [*first, pickle.dumps({"epoch": 3}, 2), pickle.dumps([], 2)]
    assert read_pth(b"".join(parts), "x").value == {"epoch": 3}
    parts[place] = pickle.dumps(MAGIC + 1, 2) if place < 2 else b"\x80\x02cos\nsystem\n)R." if place == 3 else b"\x80\x02"
    with pytest.raises(UnusableFile, match=r"^x"):
        read(b"".join(parts))


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        ((0, (3,), (1,)), "numbers of a storage"),
        ((1, (2,), (1,)), "numbers of a storage"),
        ((0, (2**30,), (0,)), "numbers of a storage"),
        ((0, (2,), (2**38,)), "numbers of a storage"),
        ((-1, (2,), (1,)), "no tensor"),
        ((0, (-2,), (1,)), "no tensor"),
        ((0, (2,), ()), "no tensor"),
        ((0.0, (2,), (1,)), "no tensor"),
        ((0, [2], (1,)), "no tensor"),
        ((0, (True,), (1,)), "no tensor"),
        ((0, (0, 2**39, 2**39), (1, 1, 1)), "no tensor"),
    ],
)
def test_a_tensor_has_no_more_than_its_storage(claim: tuple[Any, Any, Any], reason: str) -> None:
    kind = KINDS["FloatStorage"]
    with pytest.raises(UnusableFile, match=f"x: 'w' .*{reason}"):
        tensors_of({"": {"w": Claim(kind, "0", *claim)}}, {"0": bytes(8)}, "x")
    for other, key in ((kind, "1"), ("float32", "0"), (torch.float32, "0"), (kind, 0)):
        with pytest.raises(UnusableFile, match="x: 'w' is no tensor"):
            tensors_of({"": {"w": Claim(other, key, 0, (2,), (1,))}}, {"0": bytes(8)}, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_claims_of_one_storage_take_no_memory_each(kind: str) -> None:
    claims = {str(i): {"w": Claim(KINDS[kind], "0", 0, (2**16,), (1,))} for i in range(1000)}
    storage = bytes(2**16 * KINDS[kind].dtype.itemsize)
    tracemalloc.start()
    tensors_of(claims, {"0": storage}, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(storage) + 2**20


def test_a_kind_of_numbers_that_numpy_has_no_place_for_is_named() -> None:
    """In an archive they are no tensor among others."""
    state = {"w": torch.ones(2), "z": torch.ones(2, dtype=torch.complex64)}
    with pytest.raises(UnusableFile, match="x: 'z' is no tensor of real numbers"):
        read(saved(state, old=False))
