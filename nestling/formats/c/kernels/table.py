"""The kernels: for each op its variants. The first that the machine has what it needs for, and that takes the node, is called.

Each function that lowers says how the constants are packed, what scratch the call needs and what its answer may be written over.
The kernels' side of it is runtime/nst_kernels.h, the formulas are in docs/integer-semantics.md. The graph is checked.

    windows.py    convolutions, pools
    sums.py       fully connected, head, mean, softmax
    blocks.py     1x1 convolutions whose zeros are skipped
    bytewise.py   element by element, tables, concat, pad
    dsp_*.py, host*.py, mve*.py, rv32.py, sums_of_two.py    those of a machine's own
    rescaling.py  short ways from a sum to its byte, proven; few_bits.py weights of 4 and 2 bits; code.py what code takes of flash

A new kernel is a file in runtime/ and a line here: see CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nestling.formats.c.kernels import (
    blocks,
    bytewise,
    dsp_bytewise,
    dsp_convolutions,
    dsp_depthwise,
    host,
    host_blocks,
    host_others,
    mve,
    mve_depthwise,
    mve_others,
    rv32,
    sums,
    sums_of_two,
    windows,
)
from nestling.formats.c.kernels.layers import Layer, View, without_kernel
from nestling.formats.c.kernels.variant import Variant
from nestling.formats.c.machines import Machine
from nestling.graph.ir import Graph, Node

FIXED = ("nst_fixed.c",)
PRODUCTS = ("nst_products.c", *FIXED)
MVE = ("mve/nst_products_mve.c",)
PRODUCTS_DSP = ("dsp/nst_products_dsp.c", *FIXED)
RV32_PRODUCTS = ("rv32/nst_products_rv32.c", *FIXED)


def _depthwise(function: str, takes: Callable[[Node, Graph], bool]) -> Variant:
    return Variant(
        function, windows.depthwise, takes,
        calls=FIXED, pack=windows.as_they_are, scratch=windows.plane_bytes, few_bits=f"{function}_packed",
    )  # fmt: skip


def _depthwise_dsp(size: int) -> Variant:
    return Variant(
        f"nst_depthwise_{size}_dsp", dsp_depthwise.depthwise, dsp_depthwise.is_depthwise_of(size),
        needs="dsp", calls=("dsp/nst_depthwise_dsp.c", *FIXED), pack=windows.as_they_are, scratch=dsp_depthwise.scratch,
    )  # fmt: skip


DEPTHWISE = (
    Variant("nst_depthwise_host", host.depthwise, host.takes_depthwise, "host", FIXED, scratch=host.weights_and_rows),
    Variant("nst_depthwise_3_mve", mve_depthwise.depthwise_3, mve_depthwise.takes_3, "mve", MVE),
    Variant("nst_depthwise_mve", mve_depthwise.depthwise, mve_depthwise.takes_any, "mve", MVE),
    *(_depthwise_dsp(size) for size in (3, 5, 7)),
    Variant(
        "nst_depthwise_3_rv32", rv32.depthwise_3, rv32.takes_depthwise_3, "rv32", FIXED,
        pack=windows.as_they_are, scratch=windows.plane_bytes,
    ),
    _depthwise("nst_depthwise_3", windows.is_depthwise_of(3)),
    _depthwise("nst_depthwise_5", windows.is_depthwise_of(5)),
    _depthwise("nst_depthwise", windows.is_depthwise),
)  # fmt: skip
CONV_1X1 = (
    Variant("nst_conv_1x1_blocks_host", host_blocks.conv_1x1, host_blocks.takes, "host", scratch=host_blocks.numbers),
    Variant("nst_conv_1x1_host", host.conv_1x1, host.takes_1x1, "host", FIXED, scratch=host.pixels),
    Variant("nst_conv_1x1_blocks_mve", blocks.conv_1x1, blocks.pays("mve"), "mve", FIXED, scratch=blocks.tile_bytes_mve),
    Variant("nst_conv_1x1_mve", mve.conv_1x1, mve.takes_1x1, "mve", MVE, scratch=mve.patches),
    Variant("nst_conv_1x1_blocks_dsp", blocks.conv_1x1, blocks.pays("dsp"), "dsp", FIXED, scratch=blocks.tile_bytes),
    Variant("nst_fully_connected_dsp", dsp_convolutions.fully_connected, dsp_convolutions.takes_pixel, "dsp"),
    Variant("nst_conv_1x1_dsp", dsp_convolutions.conv_1x1, dsp_convolutions.takes_1x1, "dsp", PRODUCTS_DSP),
    Variant("nst_conv_1x1_blocks", blocks.conv_1x1, blocks.pays(""), calls=FIXED, scratch=blocks.tile_bytes),
    Variant("nst_conv_1x1_rv32", rv32.conv_1x1, rv32.takes_1x1, "rv32", RV32_PRODUCTS, rv32.in_blocks, rv32.two_depth_words),
    Variant(
        "nst_conv_1x1", windows.conv_1x1, windows.is_1x1,
        calls=PRODUCTS, scratch=windows.depth_words, few_bits="nst_conv_1x1_packed",
    ),
)  # fmt: skip
CONV = (
    Variant("nst_conv_host", host.conv, host.takes_conv, "host", FIXED, scratch=host.rows, of_image="nst_conv_image_host"),
    Variant(
        "nst_conv_mve", mve.conv, mve.one_group, "mve", MVE,
        scratch=mve.patches_and_places, of_image="nst_conv_image_mve",
    ),
    Variant("nst_conv_dsp", dsp_convolutions.conv, dsp_convolutions.takes_conv, "dsp", PRODUCTS_DSP),
    Variant(
        "nst_conv_rv32", rv32.conv, rv32.takes_conv, "rv32", RV32_PRODUCTS,
        pack=rv32.in_blocks, scratch=rv32.four_patches, of_image="nst_conv_image_rv32",
    ),
    Variant(
        "nst_conv", windows.conv,
        calls=PRODUCTS, scratch=windows.patch_bytes, few_bits="nst_conv_packed", of_image="nst_conv_image",
    ),
)  # fmt: skip
FULLY_CONNECTED = (
    Variant("nst_head", sums.head, sums.is_head),
    Variant("nst_fully_connected_dsp", dsp_convolutions.fully_connected, dsp_convolutions.takes_fully_connected, "dsp"),
    Variant("nst_conv_1x1_dsp", dsp_convolutions.dense, dsp_convolutions.takes_dense, "dsp", PRODUCTS_DSP),
    Variant("nst_fully_connected", sums.fully_connected, calls=PRODUCTS, few_bits="nst_fully_connected_packed"),
)
LOOKUP = (Variant("nst_lookup_host", host_others.lookup, needs="host"), Variant("nst_lookup", bytewise.lookup))
OF_ONE_BYTE = tuple(replace(variant, takes=bytewise.one_byte) for variant in LOOKUP)

KERNELS: dict[str, tuple[Variant, ...]] = {
    "conv2d": (*DEPTHWISE, *CONV_1X1, *CONV),
    "depthwise_conv2d": DEPTHWISE,
    "fully_connected": FULLY_CONNECTED,
    "add": (
        *OF_ONE_BYTE,
        Variant("nst_add_host", host_others.add, host_others.takes_add, "host"),
        Variant("nst_add_rv32", sums_of_two.add, sums_of_two.takes, "rv32"),
        Variant("nst_add_mve", mve_others.add, mve_others.takes_add, "mve", MVE),
        Variant("nst_add_dsp", dsp_bytewise.add, dsp_bytewise.takes_add, "dsp", FIXED),
        Variant("nst_add", bytewise.add, calls=FIXED),
    ),
    "mul": (
        *OF_ONE_BYTE,
        Variant("nst_mul_host", host_others.mul, host_others.takes_mul, "host", scratch=host_others.repeated),
        Variant("nst_mul", bytewise.mul, calls=FIXED),
    ),
    "average_pool": (
        Variant("nst_average_pool_host", host_others.pool, host_others.takes_pool, "host"),
        Variant("nst_average_pool_mve", windows.pool, mve_others.takes_average_pool, "mve"),
        Variant("nst_average_pool_dsp", windows.pool, dsp_bytewise.takes_pool, "dsp"),
        Variant("nst_average_pool", windows.pool),
    ),
    "max_pool": (
        Variant("nst_max_pool_host", host_others.pool, host_others.takes_pool, "host"),
        Variant("nst_max_pool_mve", windows.pool, needs="mve"),
        Variant("nst_max_pool_dsp", windows.pool, dsp_bytewise.takes_pool, "dsp"),
        Variant("nst_max_pool", windows.pool),
    ),
    "mean": (
        Variant("nst_mean_host", host_others.mean, host_others.takes_mean, "host", FIXED),
        Variant("nst_mean_mve", sums.mean, mve_others.takes_mean, "mve", FIXED),
        Variant("nst_mean_dsp", sums.mean, dsp_bytewise.takes_mean, "dsp", FIXED),
        Variant("nst_mean", sums.mean, calls=FIXED),
    ),
    "pad": (Variant("nst_pad", bytewise.pad),),
    "pad_channels": (Variant("nst_pad", bytewise.pad_channels),),
    "resize_nearest": (Variant("nst_resize_nearest", bytewise.resize_nearest),),
    "concat": (Variant("nst_concat", bytewise.concat),),
    "slice": (Variant("nst_slice", bytewise.cut),),
    "reshape": (Variant("", bytewise.reshape),),
    "softmax": (Variant("nst_softmax", sums.softmax, calls=FIXED),),
    "hard_swish": LOOKUP,
    "leaky_relu": LOOKUP,
    "logistic": LOOKUP,
    "gelu": LOOKUP,
    "quantize": LOOKUP,
    "dequantize": (Variant("nst_dequantize", sums.dequantize),),
    "table": (Variant("nst_table", bytewise.table),),
}


def kernel(node: Node, graph: Graph, machine: Machine) -> Layer | View:
    """The call that a node becomes. Raises UnsupportedOp where there is none: float arithmetic before the head, mostly."""
    y = graph.tensors[node.name]
    head = node.op == "fully_connected" and y.dtype == "float32"
    moving = [tensor for name in node.inputs if (tensor := graph.tensors[name]).data is None]
    floats = any(tensor.dtype == "float32" for tensor in moving)
    gives = ("float32",) if node.op in ("dequantize", "reshape") or head else ("int8",)
    if (floats and not head and node.op != "reshape") or (y.dtype not in (*gives, "int8")) or node.op not in KERNELS:
        raise without_kernel(node)
    variant = next((one for one in KERNELS[node.op] if one.can(node, graph, machine)), None)
    if variant is None:
        raise without_kernel(node)
    return variant.lower(node, graph, variant)
