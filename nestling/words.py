"""Words that settings take, each kind a Literal: an editor completes them, mypy checks them, the command line lists them."""

from typing import Literal

Views = Literal["none", "mirror", "flips"]
"""Which mirrored photographs are learned from, too: keys of embedding.refit.VIEW_SETS."""
Augment = Literal["none", "light", "strong"]
"""How photographs are varied while a network learns: keys of training.augment.AUGMENTATIONS."""
Optimiser = Literal["adamw", "sgd"]
Rounding = Literal["lsq", "pact", "minmax"]
"""How the grids of quantisation-aware training move, see training/fake_quant.py."""
Zeros = Literal["unstructured", "block1x4"]
"""Single weights, or four neighbouring input channels, that become zero: see training/zeros.py."""
Importance = Literal["l1", "taylor", "norm"]
"""What a channel is judged by when it may be pruned: weights, weights times gradients, BatchNorm's scales."""
Ranking = Literal["lamp", "magnitude"]
"""What a weight is judged by: within its layer (Lee et al. 2021), or over all of them."""
SavedAs = Literal["jpg", "bmp", "png"]
"""What `data prepare` writes photographs as."""
System = Literal["linux", "android", "mcu"]
RunBy = Literal["c", "executorch"]
"""What runs a packed network on its device."""
Momentum = Literal["float32", "bf16"]
HeadOptimizer = Literal["sgd", "adam"]
"""What a head learns with on a device, see docs/head-file.md."""
Mode = Literal["fp16", "dynamic"]
"""Float precisions that are printed as well."""
OnnxWeights = Literal["uint8", "int8"]
"""How int8 weights are stored in an .onnx, see docs/onnx-weights.md."""
