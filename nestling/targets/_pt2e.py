"""int8 for ExecuTorch by torchao's PT2E and the stock XNNPACK quantiser. Private, and replaced as soon as the Graph prints .pte.

Known to cost accuracy: it quantises between a convolution and its ReLU6, so a part of the range is never used.
"""

from collections.abc import Iterable

import torch
from torch import nn

from nestling.errors import NestlingError
from nestling.targets.executorch import quiet


def quantized(backbone: nn.Module, calibration: Iterable[torch.Tensor]) -> nn.Module:
    """A backbone in int8 (quantise and dequantise nodes): weights per channel and symmetric, activations per tensor.

    calibration: normalised float32 [1, C, H, W], at least one. Raises NestlingError where a convolution stayed in float.
    """
    images = list(calibration)
    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        observed = prepare_pt2e(torch.export.export(backbone, (images[0],)).module(), quantizer)
        for image in images:
            observed(image)
        converted: nn.Module = convert_pt2e(observed)
    _require_int8(converted)
    return converted


def _require_int8(module: torch.nn.Module) -> None:
    convolutions = [node for node in module.graph.nodes if "aten.conv" in str(node.target)]  # type: ignore[union-attr]
    in_float = [node for node in convolutions if not all("dequantize" in str(source) for source in node.all_input_nodes[:2])]
    if in_float or not convolutions:
        raise NestlingError(f"{len(in_float)} of {len(convolutions)} convolutions were left in float ({in_float[:1]}).")
