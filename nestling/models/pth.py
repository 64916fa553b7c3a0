"""A .pth, .ckpt or .pth.tar file read as tensors and plain values alone: nothing that it names is run, or takes more memory.

torch.save writes an archive: data.pkl, a pickle in which each tensor is a claim on a piece of a storage, and the storages' bytes.
Before torch 1.6 it wrote one stream: four pickles (a magic number, a version, the machine, and the tensors as claims), a fifth with
the storages' names, then each storage with its length in front.
Here a pickle may make lists, dictionaries, numbers and text; claims, which are held against the storages before they become
tensors; and, for whatever else a training program put beside them (argparse.Namespace, a schedule), a Skipped, which does nothing.
NumPy only. Format: PyTorch, torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from nestling.errors import UnusableFile
from nestling.outside import unzipped

Array = NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """What a storage holds. bfloat: the upper halves of float32, which NumPy does not have."""

    dtype: np.dtype[Any]
    bfloat: bool = False


KINDS: Mapping[str, Kind] = {
    "FloatStorage": Kind(np.dtype("<f4")),
    "DoubleStorage": Kind(np.dtype("<f8")),
    "HalfStorage": Kind(np.dtype("<f2")),
    "BFloat16Storage": Kind(np.dtype("<u2"), bfloat=True),
    "LongStorage": Kind(np.dtype("<i8")),
    "IntStorage": Kind(np.dtype("<i4")),
    "ShortStorage": Kind(np.dtype("<i2")),
    "CharStorage": Kind(np.dtype("i1")),
    "ByteStorage": Kind(np.dtype("u1")),
    "BoolStorage": Kind(np.dtype("?")),
}
ARCHIVE = b"PK\3\4"  # what torch.save's files have begun with since torch 1.6
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # before
MOST = 2**40  # numbers of a tensor
DEEPEST = 8  # dictionaries in one another in which tensors are looked for


class Skipped:
    """Whatever is neither tensor nor plain value: it takes all that a pickle does to it and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> Skipped:
        """With anything."""
        return super().__new__(cls)

    def append(self, value: object) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Claim:
    """A tensor as the pickle tells it: elements of the storage called `key`. Not checked yet."""

    kind: object
    key: Any
    offset: Any
    size: object
    stride: object


@dataclass(frozen=True, eq=False)
class Saved:
    """What torch.save was given, with a Claim for each tensor (see tensors_of), and the storages' bytes by key."""

    value: Any
    storages: Mapping[str, bytes | memoryview]


def read_pth(content: bytes, where: str) -> Saved:
    """A file's content. Raises UnusableFile, naming `where`, for what is no such file."""
    try:
        return _archive(content, where) if content.startswith(ARCHIVE) else _stream(content, where)
    except UnusableFile:
        raise
    except Exception as error:  # a damaged pickle does anything to anything
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UnusableFile(f"{where} is not a whole file of weights ({reason}).") from error


def _archive(content: bytes, where: str) -> Saved:
    members = unzipped(content, where)
    pickled = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickled) != 1:
        raise UnusableFile(f"{where} is no file of torch.save: it holds {len(pickled)} members data.pkl.")
    storages = {name.rpartition("/data/")[2]: member for name, member in members.items() if "/data/" in name}
    return Saved(_Reader(io.BytesIO(members[pickled[0]])).load(), storages)


def _stream(content: bytes, where: str) -> Saved:
    stream = io.BytesIO(content)
    if _Reader(stream).load() != MAGIC or _Reader(stream).load() != PROTOCOL:
        raise UnusableFile(f"{where} is no file of torch.save.")
    _Reader(stream).load()  # the machine that wrote it; little-endian, as all that torch runs on
    reader = _Reader(stream)
    value, keys = reader.load(), _Reader(stream).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in reader.kinds for key in keys):
        raise UnusableFile(f"{where} names storages that none of its tensors has.")
    storages: dict[str, bytes | memoryview] = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        first, size = stream.tell(), count * reader.kinds[key].dtype.itemsize
        if first + size > len(content):
            raise UnusableFile(f"{where} ends within its storages.")
        storages[key] = memoryview(content)[first : first + size]
        stream.seek(first + size)
    return Saved(value, storages)


def claims_in(value: Any) -> dict[str, dict[str, Claim]]:
    """The claims on real numbers in what was saved, with their names: of each dictionary that has any, by the keys that lead to it.

    Those of a state dict that was saved alone lie at "", of a training program's perhaps at "state_dict".
    """
    found: dict[str, dict[str, Claim]] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    seen = set[int]()
    for path, held in waiting:
        if type(held) is not dict or id(held) in seen or len(path) > DEEPEST:
            continue
        seen.add(id(held))
        claims = {str(key): part for key, part in held.items() if isinstance(part, Claim) and isinstance(part.kind, Kind)}
        if claims:
            found[".".join(path)] = claims
        waiting += (((*path, str(key)), part) for key, part in held.items())
    return found


def tensors_of(
    claims: Mapping[str, Mapping[str, Claim]], storages: Mapping[str, bytes | memoryview], where: str
) -> dict[str, dict[str, Array]]:
    """The tensors, where the claims stand; those of one storage are views of it. bfloat16 becomes float32.

    Raises UnusableFile, naming `where` and the claim, where one asks for more than its storage has, or there is no such storage.
    """
    held = dict[tuple[str, Kind], Array]()
    return {
        place: {name: _tensor_of(name, claim, storages, held, where) for name, claim in named.items()}
        for place, named in claims.items()
    }


def _tensor_of(
    name: str, claim: Claim, storages: Mapping[str, bytes | memoryview], held: dict[tuple[str, Kind], Array], where: str
) -> Array:
    """held: the numbers of the storages that were read, filled here."""
    kind, key, offset, size, stride = claim.kind, claim.key, claim.offset, claim.size, claim.stride
    known = type(key) is str and key in storages and type(offset) is int and offset >= 0
    if not isinstance(kind, Kind) or not known or not _sides(size) or not _steps(stride) or len(size) != len(stride):
        raise UnusableFile(f"{where}: {name!r} is no tensor of real numbers.")
    if (key, kind) not in held:
        held[key, kind] = _numbers(storages[key], kind)
    storage = held[key, kind]
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= len(storage) or math.prod(size) > len(storage)):
        raise UnusableFile(f"{where}: {name!r} claims {list(size)} numbers of a storage of {len(storage)}.")
    steps = tuple(step * storage.itemsize for step in stride)
    empty = not math.prod(size)
    return np.empty(size, storage.dtype) if empty else as_strided(storage[offset:], size, steps, writeable=False)


def _numbers(storage: bytes | memoryview, kind: Kind) -> Array:
    """What a storage holds; of bfloat16 a copy, one however many tensors claim it."""
    numbers = np.frombuffer(storage, kind.dtype, count=len(storage) // kind.dtype.itemsize)
    return (numbers.astype("<u4") << 16).view("<f4") if kind.bfloat else numbers


def _steps(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and len(values) <= 8 and all(type(value) is int and 0 <= value < MOST for value in values)


def _sides(values: object) -> TypeGuard[tuple[int, ...]]:
    """NumPy multiplies them, and those that are 0 do not count then."""
    return _steps(values) and math.prod(side or 1 for side in values) < MOST


# ---- the pickle ----------------------------------------------------------------------------------------------------------------


def _tensor(storage: Any, offset: object, size: object, stride: object, *_: object) -> object:
    return Claim(*storage, offset, size, stride) if isinstance(storage, tuple) and len(storage) == 2 else Skipped()


def _parameter(data: object, *_: object) -> object:
    return data


def _of_type(function: Any, kind: object, arguments: Any, *_: object) -> object:
    """A tensor of a class of its own is a tensor."""
    return function(*arguments) if function in (_tensor, _parameter) else Skipped()


def _dictionary(*given: object) -> object:
    """An empty one, to be filled; a copy of one that is there already could be made a million times."""
    return Skipped() if given else {}


MAKERS: Mapping[str, Callable[..., object]] = {
    "collections.OrderedDict": _dictionary,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
}


PurePython: Any = pickle._Unpickler  # rather than C's, whose memos take the memory that a number says


class _Reader(PurePython):  # type: ignore[misc]  # it has no type
    """A pickle's operations, but for those by which a few bytes take much memory or time.

    Keys are text and numbers, for a tuple in a tuple in a tuple takes for ever to hash; sets are skipped for the same reason, and
    bytes of a length that the file only claims are refused.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(PurePython.dispatch)

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.kinds: dict[str, Kind] = {}  # of each storage that was named

    def find_class(self, module: str, name: str) -> object:
        """A Kind for a storage's class, one of MAKERS, else Skipped."""
        if module == "torch" and name in KINDS:
            return KINDS[name]
        return MAKERS.get(f"{module}.{name}", Skipped)

    def persistent_load(self, pid: object) -> object:
        """("storage", its class, its name, its device, its length; in older files: None) -> what a Claim says of it.

        Before torch 0.4 there could stand whose view it is, which nobody has to read any more.
        """
        if isinstance(pid, tuple) and type(pid[0]) is str and pid[0] == "storage" and (len(pid) == 5 or pid[5:] == (None,)):
            if isinstance(pid[1], Kind) and type(pid[2]) is str:
                self.kinds[pid[2]] = pid[1]
            return pid[1:3]
        raise pickle.UnpicklingError("a storage that is none")

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(target) is dict and type(key) in (str, int, float, bool):
                target[key] = value

    def _item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _items(self) -> None:
        self._put(self.pop_mark())

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put(items)

    def _set(self) -> None:
        self.append(Skipped())

    def _marked_set(self) -> None:
        self.pop_mark()
        self.append(Skipped())

    def _added(self) -> None:
        self.pop_mark()

    def _state(self) -> None:
        """The attributes of an object: nobody asks for them."""
        self.stack.pop()

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("bytes of a length that the file only claims")

    dispatch |= {
        pickle.SETITEM[0]: _item,
        pickle.SETITEMS[0]: _items,
        pickle.DICT[0]: _dict,
        pickle.EMPTY_SET[0]: _set,
        pickle.FROZENSET[0]: _marked_set,
        pickle.ADDITEMS[0]: _added,
        pickle.BUILD[0]: _state,
        pickle.BYTEARRAY8[0]: _refuse,
    }
