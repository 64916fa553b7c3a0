"""How much flash the code of a program takes, before a compiler is asked: its kernels at their most, and what is around them."""

from __future__ import annotations

from pathlib import PurePosixPath

from nestling.formats.c.kernels.layers import Program

AROUND, A_LAYER = 8 * 1024, 80  # bytes: start, what the C library brings for floats; and of each call
UNKNOWN = 4096  # a kernel that nobody has measured yet
# A file's code by GCC 12.2 at -O2, the most of the machines that take it, and a tenth more: `make size` tells the exact number.
BYTES = {
    "nst_add": 600, "nst_add_dsp": 700, "nst_add_mve": 1100, "nst_add_rv32": 400, "nst_average_pool": 500,
    "nst_average_pool_dsp": 1100, "nst_average_pool_mve": 500, "nst_concat": 200, "nst_conv": 1400, "nst_conv_1x1": 600,
    "nst_conv_1x1_blocks": 4600, "nst_conv_1x1_blocks_dsp": 2500, "nst_conv_1x1_blocks_mve": 1600, "nst_conv_1x1_dsp": 400,
    "nst_conv_1x1_mve": 400, "nst_conv_1x1_mve_packed": 300, "nst_conv_1x1_packed": 300, "nst_conv_1x1_rv32": 600,
    "nst_conv_1x1_rv32_packed": 300, "nst_conv_dsp": 2000, "nst_conv_mve": 2000, "nst_conv_mve_packed": 400,
    "nst_conv_packed": 900, "nst_conv_rv32": 1200, "nst_conv_rv32_packed": 500, "nst_depthwise": 1500, "nst_depthwise_3": 3300,
    "nst_depthwise_3_dsp": 2700, "nst_depthwise_3_mve": 4100, "nst_depthwise_3_packed": 300, "nst_depthwise_3_rv32": 5800,
    "nst_depthwise_5": 3600, "nst_depthwise_5_dsp": 4900, "nst_depthwise_5_packed": 300, "nst_depthwise_7_dsp": 7300,
    "nst_depthwise_dsp": 2800, "nst_depthwise_mve": 4000, "nst_depthwise_packed": 300, "nst_dequantize": 100, "nst_fixed": 200,
    "nst_fully_connected": 600, "nst_fully_connected_dsp": 500, "nst_fully_connected_packed": 400, "nst_head": 600,
    "nst_lookup": 100, "nst_max_pool": 400, "nst_max_pool_dsp": 700, "nst_max_pool_mve": 400, "nst_mean": 400,
    "nst_mean_dsp": 500, "nst_mean_mve": 300, "nst_mul": 500, "nst_packed": 400, "nst_packed_mve": 300, "nst_packed_rv32": 300,
    "nst_pad": 500, "nst_products": 3000, "nst_products_dsp": 5600, "nst_products_mve": 2700, "nst_products_rv32": 3600,
    "nst_resize_nearest": 500, "nst_slice": 200, "nst_softmax": 600, "nst_table": 100,
}  # fmt: skip


def code_at_most(program: Program) -> int:
    """Bytes that the code of its kernels and of the calls stays under."""
    files = {PurePosixPath(file).stem for layer in program.layers for file in layer.files}
    return AROUND + A_LAYER * len(program.layers) + sum(BYTES.get(file, UNKNOWN) for file in files)
