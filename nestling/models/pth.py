"""A .pth, .ckpt or .pth.tar file read as tensors and plain values alone: nothing that it names is run, or takes more memory.

torch.save writes an archive: data.pkl, a pickle in which each tensor is a claim on a piece of a storage, and the storages' bytes.
Here the pickle may make lists, dictionaries, numbers and text; claims, which are held against the storages before they become
tensors; and, for whatever else a training program put beside them (argparse.Namespace, a schedule), a Skipped, which does nothing.
Format: PyTorch, torch/serialization.py and torch/_utils.py, since version 1.6.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor

from nestling.errors import UnusableFile

DTYPES: Mapping[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


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

    dtype: object
    key: Any
    offset: Any
    size: object
    stride: object


def read_pth(members: Mapping[str, bytes], where: str) -> Any:
    """What torch.save was given, with a Claim for each tensor (see tensors_of). members: of the archive, by name.

    Raises UnusableFile, naming `where`, for what is no such archive.
    """
    pickled = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    if len(pickled) != 1:
        raise UnusableFile(f"{where} is no file of torch.save: it holds {len(pickled)} members data.pkl.")
    try:
        return _Reader(io.BytesIO(members[pickled[0]])).load()
    except Exception as error:  # a damaged pickle does anything to anything
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UnusableFile(f"{where} is not a whole file of weights ({reason}).") from error


def tensors_of(claims: Mapping[str, Claim], members: Mapping[str, bytes], where: str) -> dict[str, Tensor]:
    """The tensors, by the claims' names; those of one storage are views of it.

    Raises UnusableFile, naming `where` and the claim, where one asks for more than its storage has, or there is no such storage.
    """
    storages = {name.rpartition("/data/")[2]: content for name, content in members.items() if "/data/" in name}
    made: dict[object, Tensor] = {}
    found = {}
    for name, claim in claims.items():
        dtype, key, offset, size, stride = claim.dtype, claim.key, claim.offset, claim.size, claim.stride
        known = type(key) is str and key in storages and type(offset) is int and offset >= 0
        if not isinstance(dtype, torch.dtype) or not known or not _sides(size) or not _sides(stride) or len(size) != len(stride):
            raise UnusableFile(f"{where}: {name!r} is no tensor of real numbers.")
        if (dtype, key) not in made:
            content = bytearray(storages[key][: len(storages[key]) // dtype.itemsize * dtype.itemsize])
            made[dtype, key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        storage = made[dtype, key]
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if math.prod(size) and (last >= len(storage) or math.prod(size) > len(storage)):
            raise UnusableFile(f"{where}: {name!r} claims {list(size)} numbers of a storage of {len(storage)}.")
        found[name] = storage.as_strided(size, stride, offset) if math.prod(size) else torch.empty(size, dtype=dtype)
    return found


def _sides(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and len(values) <= 8 and all(type(value) is int and 0 <= value < 2**40 for value in values)


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
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
}


PurePython: Any = pickle._Unpickler  # rather than C's, whose memos take the memory that a number says


class _Reader(PurePython):  # type: ignore[misc]
    """A pickle's operations, but for those by which a few bytes take much memory or time.

    Keys are text and numbers, for a tuple in a tuple in a tuple takes for ever to hash; sets are skipped for the same reason, and
    bytes of a length that the file only claims are refused.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(PurePython.dispatch)

    def find_class(self, module: str, name: str) -> object:
        """A dtype for a storage's class, one of MAKERS, else Skipped."""
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        return MAKERS.get(f"{module}.{name}", Skipped)

    def persistent_load(self, pid: object) -> object:
        """("storage", its class, its name, its device, its length) -> what a Claim says of it."""
        if isinstance(pid, tuple) and len(pid) == 5 and type(pid[0]) is str and pid[0] == "storage":
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
