"""Which kernel each layer gets on a machine, and where everything lies: kernels that want much RAM give way where it is short."""

from __future__ import annotations

from dataclasses import replace

from nestling.errors import UnsupportedOp
from nestling.formats.c.kernels.code import code_at_most
from nestling.formats.c.kernels.layers import Layer, Program, bytes_of, plane
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import HOST, Machine
from nestling.formats.c.plan.choices import smallest
from nestling.formats.c.plan.plan import Plan, Step, Views, plan
from nestling.formats.c.plan.report import ENDLESS, STACK
from nestling.graph.ir import Graph


def arrange(graph: Graph, machine: Machine, flash: int | None = None, ram: int | None = None) -> tuple[Program, Plan]:
    """The calls for a graph, and their arena: no larger than the portable kernels need side by side, whatever is quicker.

    On processors with an operating system it may be as large as the quickest kernels want, where nobody names a limit.

    ram: bytes that arena and stack may take: kernels that are quicker with more give way sooner.
    flash: bytes that constants and code may take. With room to spare, weights that a kernel widens in RAM, as it runs, lie in flash
    as it wants them; where the constants of the machine's own kernels are too many, it gets the portable ones.
    Raises UnsupportedOp, naming the layer, for float arithmetic before the head, and where the network is none that takes one image
    and gives scores.
    """
    program = lower(graph, machine)
    found = planned(program, machine)
    unlimited = HOST in machine.features and ram is None and flash is None
    if unlimited or all(not layer.feature for layer in program.layers):
        return program, found
    plain = lower(graph, replace(machine, features=()))
    most = planned(_apart(plain), machine).arena
    if ram is not None and ram - STACK < most:
        most = max(ram - STACK, planned(plain, machine).arena)
    whole = ENDLESS if flash is None else flash
    room = whole - code_at_most(program)
    portable: frozenset[str] = frozenset()
    while found.arena > most and (wanting := _wanting(program, found)):
        wide = _one_widened(program, wanting)
        if wide is None or constants(wide) > room:
            portable |= {wanting.writes}
            wide = _as_wide(lower(graph, machine, portable), program)
        program, found = wide, planned(wide, machine)
    if constants(program) > room and constants(plain) + code_at_most(plain) <= whole:
        return plain, planned(plain, machine)
    program = program if flash is None else _widened(program, found, room - constants(program))
    return program, planned(program, machine)


def constants(program: Program) -> int:
    """Bytes of flash besides code."""
    return sum(constant.bytes for layer in program.layers for constant in layer.constants)


def notes(program: Program) -> tuple[str, ...]:
    """What was chosen, a sentence each."""
    able = [layer for layer in program.layers if layer.long is not None]
    channels = sum(plane(program.tensors[layer.writes])[2] for layer in able)
    long = sum(layer.long or 0 for layer in able)
    if not able:
        return ()
    rest = f"{long:,} the long one" if long else "none the long one"
    ways = f"{channels - long:,} of {channels:,} channels go a short way from sum to byte, proven equal for every sum; {rest}"
    narrow = sum(layer.widen is not None for layer in program.layers)
    wide = sum(layer.wide for layer in program.layers)
    in_flash = [f"the weights of {wide:,} layers lie wide in flash, as the processor wants them"] if wide else []
    more = "" if wide else " (with --flash they lie wide there, as far as it goes)"
    in_ram = [f"the weights of {narrow:,} layers are widened in RAM as they run{more}"] if narrow else []
    return (ways, *in_flash, *in_ram)


def planned(program: Program, machine: Machine) -> Plan:
    """Where each activation lies in the arena. The scores do not: they go where the caller wants them."""
    require_classifier(program)
    inside = [layer for layer in program.layers if layer.writes not in program.outputs]
    steps = [Step(x.writes, x.reads, x.writes, x.scratch, x.over or None, x.scratch_most, x.lead) for x in inside]
    last = {name for layer in program.layers if layer not in inside for name in layer.reads}
    sizes = {name: bytes_of(x) for name, x in program.tensors.items() if program.root(name)[0] not in program.outputs}
    aliases: Views = {name: view for name, view in program.aliases.items() if name in sizes}
    outputs = tuple(sorted(last | {program.embedding}))
    return smallest(steps, lambda some: plan(some, sizes, program.inputs, outputs, aliases, machine.alignment))


def require_classifier(program: Program) -> None:
    """Raises UnsupportedOp where the network is none that takes one image and gives scores."""
    image = program.tensors[program.inputs[0]]
    scores = program.tensors[program.outputs[0]]
    if len(program.inputs) != 1 or image.dtype != "uint8" or len(program.outputs) != 1 or scores.dtype != "float32":
        raise UnsupportedOp("the C target prints networks that take one image and give float32 scores.")


def _apart(program: Program) -> Program:
    """No convolution's answer over its input, which is what its own scratch is weighed against."""
    return replace(program, layers=tuple(replace(layer, over=()) if layer.lead else layer for layer in program.layers))


def _one_widened(program: Program, layer: Layer) -> Program | None:
    """The program with that layer's weights in flash as the processor wants them; None where they are no others there."""
    if layer.widen is None:
        return None
    made = replace(layer.widen(layer), widen=None, wide=True)
    return replace(program, layers=tuple(made if other is layer else other for other in program.layers))


def _as_wide(program: Program, as_here: Program) -> Program:
    """With weights as the processor wants them for the same layers as there."""
    wide = {layer.writes for layer in as_here.layers if layer.wide}
    for layer in program.layers:
        program = (_one_widened(program, layer) if layer.writes in wide else None) or program
    return program


def _widened(program: Program, found: Plan, spare: int) -> Program:
    """With as many layers' weights in flash as the processor wants them as `spare` bytes allow.

    First those of layers that would widen some channels after the others, and so read their input several times; then the smallest.
    """

    def rank(layer: Layer) -> tuple[bool, int]:
        return found.room.get(layer.writes, 0) >= layer.scratch_most, sum(constant.bytes for constant in layer.constants)

    for layer in sorted(program.layers, key=rank):
        made = _one_widened(program, layer)
        more = 0 if made is None else constants(made) - constants(program)
        if made is not None and more <= spare:
            program, spare = made, spare - more
    return program


def _wanting(program: Program, found: Plan) -> Layer | None:
    """The layer whose scratch is in the way, of those with kernels of the machine's own: at the fullest step, the most; or None."""
    alive = dict(zip(found.steps, found.alive, strict=True))

    def rank(layer: Layer) -> tuple[int, int]:
        return alive.get(layer.writes, 0), layer.scratch

    own = [layer for layer in program.layers if layer.feature and layer.scratch]
    return max(own, key=rank) if own else None
