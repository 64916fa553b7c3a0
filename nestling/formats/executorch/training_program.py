"""head_train.pte: loss and gradients of the head, forward and backward in one ExecuTorch program.

The optimiser is not in it: ExecuTorch's momentum can be neither read nor set again, and a training has to be (see learner.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, mm, nn
from torch.nn.functional import log_softmax

from nestling.formats.executorch.head_program import MOST
from nestling.formats.quiet import quiet


class _Loss(nn.Module):
    """Mean cross-entropy of softmax(W x + b + mask)."""

    def __init__(self, inputs: int, max_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(max_classes, inputs))
        self.bias = nn.Parameter(torch.zeros(max_classes))

    def forward(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        logits = mm(x, self.weight.t()) + (self.bias + mask)  # linear() becomes addmm, which takes twice as long here
        return -log_softmax(logits, dim=1).gather(1, y.unsqueeze(1)).mean()  # cross_entropy also looks for labels to ignore


def print_training_program(inputs: int, max_classes: int) -> bytes:
    """An ExecuTorch program with parameters weight, float32 [max_classes, inputs], and bias, float32 [max_classes], all zeros.

    Its method takes x, float32 [B, inputs]; y, int64 [B]; mask, float32 [max_classes], 0 for rows in use and MASKED for the
    others; 1 <= B <= MOST. It gives the mean cross-entropy, float32 [], and its gradients. learner.Learner runs it.
    """
    with quiet():
        from executorch.exir import ExecutorchBackendConfig, to_edge
        from executorch.exir.passes import MemoryPlanningPass
        from torch.export.experimental import _export_forward_backward

        example = (torch.zeros(4, inputs), torch.zeros(4, dtype=torch.int64), torch.zeros(max_classes))
        batch = torch.export.Dim("batch", min=1, max=MOST)
        module = _Loss(inputs, max_classes)
        exported = torch.export.export(module, example, dynamic_shapes=({0: batch}, {0: batch}, None), strict=True)
        edge = to_edge(_export_forward_backward(exported))
        planned = ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False))
        return bytes(edge.to_executorch(planned).buffer)
