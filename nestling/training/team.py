"""Several processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
from torch import Tensor, nn
from torch.distributed import ReduceOp, all_reduce, broadcast, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from nestling.errors import NestlingError

PATIENCE = timedelta(minutes=30)  # for a process that is slower than the others; one that ended is noticed at once


@dataclass(frozen=True)
class Team:
    """rank: which of the `size` processes this is. device: where its network lives."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable

    @property
    def leads(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over all processes; the module itself where there is one process."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def sums(self, values: Tensor) -> Tensor:
        """The values added up over all processes, the same bits in each."""
        if self.size > 1:
            values = values.to(self.device)
            all_reduce(values, ReduceOp.SUM)
        return values.cpu()

    def leaders(self, number: int) -> int:
        """The leader's number."""
        value = torch.tensor([number], device=self.device)
        if self.size > 1:
            broadcast(value, 0)
        return int(value)


@contextmanager
def joined(environment: Mapping[str, str] | None = None) -> Iterator[Team]:
    """The team that torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, ...) describes; this process alone where there is none.

    gloo between CPUs, NCCL between GPUs. Where another process ends early, so does this one: with a NestlingError.
    """
    environment = os.environ if environment is None else environment
    size, rank, local = (int(environment.get(name, default)) for name, default in _VARIABLES)
    device = torch.device("cuda", local % torch.cuda.device_count()) if torch.cuda.is_available() else torch.device("cpu")
    if size == 1:
        yield Team(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size, timeout=PATIENCE)
    try:
        with _stopped_by_word(rank, size):
            yield Team(rank, size, device)
    except RuntimeError as error:  # gloo's and NCCL's own errors are RuntimeErrors, told apart by their words alone
        if not any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "peer")):
            raise
        raise _lost(rank, size) from error
    finally:
        destroy_process_group()


_VARIABLES = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


@contextmanager
def _stopped_by_word(rank: int, size: int) -> Iterator[None]:
    """torchrun tells the others to end (SIGTERM) when one has: often before they notice it by themselves."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _lost(rank, size)

    if threading.current_thread() is not threading.main_thread():  # only there may a handler be set
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself: torchrun's word may come before it has said why
        raise
    signal.signal(signal.SIGTERM, before)


def _lost(rank: int, size: int) -> NestlingError:
    return NestlingError(
        f"process {rank} of {size} stopped, for another one ended before its work was done.",
        "what the others said stands above; the same command with --resume goes on from the last whole epoch",
    )
