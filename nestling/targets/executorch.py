"""The ExecuTorch target: a .pte program from uint8 RGB NHWC to logits, run by XNNPACK."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.errors import NestlingError, UnusableFile
from nestling.preprocess import Preprocess
from nestling.targets.about import About, from_json, to_json
from nestling.targets.quiet import quiet

ABOUT_METHOD = "nestling"  # the constant method that returns the JSON


@dataclass(frozen=True)
class Printed:
    """A program's bytes, and how many of its operations XNNPACK runs."""

    content: bytes
    delegated: int
    operations: int


def print_program(module: nn.Module, what: About) -> Printed:
    """Lower an eval-mode module, uint8 [1, H, W, C] -> a tensor, to a .pte.

    Raises NestlingError where a convolution is left outside XNNPACK: such a program would crawl.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.devtools.backend_debug import get_delegation_info
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(module, (blank(what.preprocess),))
        lowered = to_edge_transform_and_lower(
            exported, partitioner=[XnnpackPartitioner()], constant_methods={ABOUT_METHOD: to_json(what)}
        )
        outside = lowered.exported_program().graph_module
        left = [str(node.target) for node in outside.graph.nodes if "convolution" in str(node.target)]
        if left:
            raise NestlingError(f"{len(left)} convolutions could not be given to XNNPACK ({left[0]}).")
        share = get_delegation_info(outside)
        content = bytes(lowered.to_executorch().buffer)
    return Printed(content, share.num_delegated_nodes, share.num_delegated_nodes + share.num_non_delegated_nodes)


def blank(preprocess: Preprocess) -> torch.Tensor:
    """One black image, uint8 [1, H, W, C]."""
    return torch.zeros(1, *preprocess.size, preprocess.channels, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class Program:
    """A loaded .pte. One output: logits or, of a features program, embeddings."""

    name: str
    about: About
    method: Any
    digest: str  # of the file's bytes
    held: tuple[Any, ...]  # what the method points into: the program and its bytes must live as long as it does

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.about.labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self.about.preprocess

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> float32 [N, classes]; the program takes one at a time."""
        rows = [self.method.execute([torch.from_numpy(np.ascontiguousarray(image[None]))])[0] for image in images]
        return torch.cat(rows).numpy().copy() if rows else np.zeros((0, len(self.labels)), np.float32)

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Not inside: the program goes from image to logits."""
        raise NestlingError(f"{self.name} gives logits only.", "embeddings come from the bundle it was exported from")


def load(path: Path, threads: int | None = None) -> Program:
    """Load a .pte that nestling printed. threads: for the whole process; None leaves ExecuTorch's choice.

    Raises UnusableFile, naming the file, for a damaged program or one that is not ours.
    """
    try:
        return load_bytes(path.read_bytes(), path.name, threads)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.") from error


def load_bytes(content: bytes, name: str, threads: int | None = None) -> Program:
    """As load, from memory."""
    if content[4:8] not in (b"ET12", b"eh00"):
        raise UnusableFile(f"{name} is not an ExecuTorch program.", "make one:  nestling export my.nest --to pte")
    with quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime, Verification

        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)  # unsafe while a program runs; none is loaded yet here
        try:
            program = Runtime.get().load_program(content, verification=Verification.InternalConsistency)
            method, text = program.load_method("forward"), program.load_method(ABOUT_METHOD)
            if method is None or text is None:
                raise UnusableFile(f"{name} has no labels inside: it was not printed by nestling.")
            said = str(text.execute([])[0])
        except (RuntimeError, ValueError) as error:
            raise UnusableFile(f"{name} is not a whole ExecuTorch program ({_first_line(error)}).", "export it again") from error
    return Program(name, from_json(said, name), method, hashlib.sha256(content).hexdigest()[:16], (program, content))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
