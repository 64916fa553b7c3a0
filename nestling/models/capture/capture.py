"""torch -> float Graph, by torch.export: the one place where NCHW becomes NHWC and a Python program becomes a list of nodes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.export.graph_signature import InputKind

from nestling.errors import NestlingError, NoGraph
from nestling.graph.builder import NHWC, Builder, Constant, Pieces, Value
from nestling.graph.ir import Array, Dtype, Graph, Table
from nestling.graph.spec import check
from nestling.models.capture.aten import ATEN, getitem

Takes = Literal["nchw float32", "nhwc float32", "nhwc uint8"]
Seen = Value | Constant | Pieces | tuple[Constant, ...]  # what an operation of the program is here
# where the axes of torch's image are in the Graph's, and its type in both worlds
LAYOUT: Mapping[Takes, tuple[tuple[int, ...], torch.dtype, Dtype]] = {
    "nchw float32": (NHWC, torch.float32, "float32"),
    "nhwc float32": ((0, 1, 2, 3), torch.float32, "float32"),
    "nhwc uint8": ((0, 1, 2, 3), torch.uint8, "uint8"),
}


def capture(
    module: nn.Module, input_shape: tuple[int, int, int], table: NDArray[np.float32] | None = None, takes: Takes = "nchw float32"
) -> Graph:
    """A network as a float Graph: NHWC activations, OHWI weights, batch 1; batch_norm and clamps are nodes of their own.

    module: in evaluation mode, taking one image of `takes` ("nchw float32" as torch's networks do; a GraphModule: as its Graph).
    input_shape: (height, width, channels).
    table: float32 [C, 256], the normalisation; with it the Graph's input is uint8 [1, H, W, C], without it float32 (or as `takes`).
    A tensor is called after its layer (`blocks.0.0.conv_dw`) or its parameter, a node's source is its layer.
    Raises UnsupportedOp for an operation that the Graph does not hold, NoGraph for a module that can't be traced, NestlingError for
    one that trains.
    """
    if any(part.training for part in module.modules()):
        raise NestlingError("capture takes a network in evaluation mode, found one that is training", "network.eval()")
    axes, torch_dtype, dtype = LAYOUT[takes]
    builder = Builder()
    image = Value(_image(builder, input_shape, table, dtype), axes)
    example = torch.zeros(builder.source_shape(image), dtype=torch_dtype)
    program = exported(module, example)
    outputs = _walk(program, image, builder)
    return check(builder.graph(("image",), tuple(value.tensor for value in outputs)))


def _image(builder: Builder, input_shape: tuple[int, int, int], table: NDArray[np.float32] | None, dtype: Dtype) -> str:
    """The Graph's input, and behind it the normalisation: the name of what the module takes."""
    shape = (1, *input_shape)
    if table is None:
        return builder.input("image", shape, dtype)
    if dtype != "float32" or table.shape != (input_shape[2], 256):
        raise NestlingError(
            f"a table is float32 [{input_shape[2]}, 256] in front of float32 images, found {table.shape} in front of {dtype}"
        )
    builder.input("image", shape, "uint8")
    builder.source = "normalised"
    return builder.emit(Table(), ["image", builder.constant("normalised.table", table)], shape)


def exported(module: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    """The network as ATen operations; NoGraph where torch.export cannot follow it.

    The empty table of decompositions keeps them whole, but makes plain ones of those that write (relu_).
    """
    try:
        with torch.no_grad():
            program: torch.export.ExportedProgram = torch.export.export(module, (example,), strict=False).run_decompositions({})
    except Exception as error:  # whatever the network's own code raises, or torch's tracing of it
        reason = str(error).strip().partition("\n")[0]
        raise NoGraph(f"torch.export cannot trace the network for an input {list(example.shape)}: {reason}") from error
    return program


def _walk(program: torch.export.ExportedProgram, image: Value, builder: Builder) -> tuple[Value, ...]:
    """Go through the program in order; what each of its values is in the Graph is in `values`."""
    values: dict[fx.Node, Seen] = {}
    held = {**program.constants, **program.state_dict}
    inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op == "call_function" and node.users:  # without readers: torch's assertions
            values[node] = _operation(node, values, builder)
        elif node.op == "placeholder":
            spec = inputs[node.name]
            values[node] = image if spec.kind is InputKind.USER_INPUT else Constant(str(spec.target), array(held[str(spec.target)]))
    builder.source, builder.where, builder.op = "", "", "the network's result"
    by_name = {node.name: value for node, value in values.items()}
    return tuple(builder.plain(by_name.get(str(name))) for name in program.graph_signature.user_outputs)


def _operation(node: fx.Node, values: Mapping[fx.Node, Seen], builder: Builder) -> Seen:
    """One operation: computed here where it reads constants only, else the handler of its name puts it into the Graph."""
    target: Any = node.target
    parts = node.all_input_nodes
    if all(isinstance(values[part], Constant | tuple) for part in parts):
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda part: _held(values[part]))
        found = target(*args, **kwargs)
        if isinstance(found, torch.Tensor):
            return Constant(node.name, array(found))
        return tuple(Constant(node.name, array(part)) for part in found)
    builder.source, builder.where = layer_of(node), _where(node)
    builder.before_permute = bool(node.users) and all("permute" in str(user.target) for user in node.users)
    seen = node.meta["val"]
    results = [seen] if isinstance(seen, torch.Tensor) else [result for result in seen if isinstance(result, torch.Tensor)]
    builder.shapes = tuple(tuple(int(size) for size in result.shape) for result in results)
    if not isinstance(target, torch._ops.OpOverload):
        builder.op = "getitem"
        return getitem(builder, values[parts[0]], node.args[1])  # type: ignore[arg-type]  # an int here
    name = str(target._schema.name)
    builder.op = name.removeprefix("aten::")
    if builder.op not in ATEN:
        builder.refuse(f"{name} is not among the Graph's operations")
    names = [argument.name for argument in target._schema.arguments]
    defaults = {argument.name: argument.default_value for argument in target._schema.arguments if argument.has_default_value()}
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    arguments: dict[str, Any] = fx.map_arg(defaults | given, lambda part: values[part])  # type: ignore[arg-type,return-value]  # torch.fx's types are narrower
    handler = ATEN[builder.op]
    try:
        inspect.signature(handler).bind(builder, **arguments)
    except TypeError as error:  # another overload of the same name
        builder.refuse(f"{name}: {error}")
    return handler(builder, **arguments)


def _held(constant: Seen) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """As torch takes it."""
    if isinstance(constant, tuple):
        return tuple(torch.from_numpy(part.data) for part in constant)
    assert isinstance(constant, Constant)
    return torch.from_numpy(constant.data)


def array(data: torch.Tensor) -> Array:
    """A float tensor as float32, any other as it is."""
    values: Array = (data.float() if data.is_floating_point() else data).detach().cpu().numpy()
    return values


def layer_of(node: fx.Node) -> str:
    """The innermost module's path: blocks.0.0.conv_dw."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    return str(list(stack.values())[-1][0])


def _where(node: fx.Node) -> str:
    """The innermost source line that is not torch's own: "timm/layers/norm_act.py line 148: x = self.act(x)"."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in \S+\n\s+(.*)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/" not in frame[0].replace("\\", "/")] or frames
    return "" if not own else f"{own[-1][0]} line {own[-1][1]}: {own[-1][2].strip()}"
