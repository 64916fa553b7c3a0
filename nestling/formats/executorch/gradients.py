"""Loss and gradients of a head, by ExecuTorch's training runtime."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.errors import UnusableFile
from nestling.formats.executorch.head_program import BIAS, METHOD, WEIGHT, Floats, Gradients
from nestling.formats.executorch.run import import_runtime
from nestling.formats.quiet import quiet


def gradients_of(content: bytes, name: str, rows: int, inputs: int) -> Gradients:
    """A head_train.pte as a function, run in this process. rows: classes that the head has room for.

    Raises UnusableFile where it is damaged, or of other sizes.
    """
    if content[4:8] not in (b"ET12", b"eh00"):
        raise UnusableFile(f"{name} is not an ExecuTorch program.", "pack the package again")
    import_runtime("executorch.extension.training")
    with quiet():
        from executorch.extension.training import _load_for_executorch_for_training_from_buffer

        blank = np.zeros((1, inputs), np.float32), np.zeros(1, np.int64), np.zeros(rows, np.float32)
        try:
            module = _load_for_executorch_for_training_from_buffer(content)
            _forward_backward(module, *blank)  # only then are there parameters
            weight, bias = (module.named_parameters()[parameter].numpy() for parameter in (WEIGHT, BIAS))
        except (RuntimeError, ValueError, KeyError) as error:
            wanted = f"{rows} classes of {inputs} inputs"
            raise UnusableFile(f"{name} is no training program of {wanted} ({type(error).__name__}).", "pack again") from error
    if weight.shape != (rows, inputs) or bias.shape != (rows,):
        raise UnusableFile(f"{name} trains a head of {list(weight.shape)}; this one is of {[rows, inputs]}.", "pack again")

    def gradients(weights: Floats, biases: Floats, x: Floats, y: NDArray[np.int64], mask: Floats) -> tuple[float, Floats, Floats]:
        assert content  # the module points into it
        weight[:], bias[:] = weights, biases  # views of its parameters
        loss = float(_forward_backward(module, x, y, mask))
        found = module.named_gradients()
        return loss, found[WEIGHT].numpy(), found[BIAS].numpy()

    return gradients


def _forward_backward(module: Any, x: Floats, y: NDArray[np.int64], mask: Floats) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = [torch.from_numpy(np.ascontiguousarray(some)) for some in (x, y, mask)]
        return module.forward_backward(METHOD, inputs)[0]
