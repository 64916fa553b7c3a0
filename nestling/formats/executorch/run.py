"""A .pte in ExecuTorch: loaded and asked."""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nestling import outside
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About, from_json, require_labels
from nestling.formats.executorch.printing import ABOUT_METHOD
from nestling.formats.quiet import quiet
from nestling.preprocess.image import Preprocess, require_taken


@dataclass(frozen=True, eq=False)
class ExecutorchRunner:
    """A loaded .pte. One output: logits or, where its about says so, the embedding."""

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
        """uint8 [N, H, W, C] -> logits float32 [N, classes]; NestlingError where the program gives the embedding."""
        if self.about.gives != "logits":
            raise NestlingError(
                f"{self.name} gives the embedding, not logits.", "take the program with the head, printed beside it"
            )
        return self._outputs(images)

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> embedding float32 [N, D]; NestlingError where the program gives logits."""
        if self.about.gives != "embedding":
            hint = "print the embedding's program, too:  nestling export my.nest --to pte --features"
            raise NestlingError(f"{self.name} gives logits, not the embedding.", hint)
        return self._outputs(images)

    def _outputs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One image after the other: the program takes one at a time."""
        require_taken(self.preprocess, images, self.name)
        rows = np.empty((len(images), math.prod(self.method.metadata.output_tensor_meta(0).sizes())), np.float32)
        try:
            for row, image in zip(rows, images, strict=True):
                row[:] = self.method.execute([torch.from_numpy(np.ascontiguousarray(image[None]))])[0].numpy().reshape(-1)
        except (RuntimeError, ValueError) as error:
            raise UnusableFile(f"{self.name} stops while it runs ({_first_line(error)}).", "export it again") from error
        return rows


def import_runtime(module: str = "executorch.runtime") -> None:
    """Import it without the exporter, of which it wants a class and a decorator of warnings: 1.5 seconds in place of 6."""
    exporter, warned = "executorch.exir", "executorch.exir._warnings"
    if exporter in sys.modules or module in sys.modules:
        return
    stand_ins = {exporter: ModuleType(exporter), warned: ModuleType(warned)}
    vars(stand_ins[warned]).update(ExperimentalWarning=UserWarning, experimental=lambda _text: lambda thing: thing)
    sys.modules |= stand_ins
    try:
        with quiet():
            importlib.import_module(module)
    finally:
        for name in stand_ins:
            del sys.modules[name]


def load(path: Path, threads: int | None = None) -> ExecutorchRunner:
    """Load a .pte that nestling printed. threads: for the whole process; None leaves ExecuTorch's choice.

    Raises UnusableFile, naming the file, for a damaged program or one that is not ours.
    """
    return load_bytes(outside.content(path), path.name, threads)


def load_bytes(content: bytes, name: str, threads: int | None = None) -> ExecutorchRunner:
    """As load, from memory."""
    if content[4:8] not in (b"ET12", b"eh00"):
        raise UnusableFile(f"{name} is not an ExecuTorch program.", "make one:  nestling export my.nest --to pte")
    import_runtime()
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
    about = from_json(said, name)
    require_labels(about, math.prod(method.metadata.output_tensor_meta(0).sizes()), name)
    return ExecutorchRunner(name, about, method, hashlib.sha256(content).hexdigest()[:16], (program, content))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
