"""A bundle as an ExecuTorch program: from its Graph, or where the Graph does not hold the network from torch itself."""

from __future__ import annotations

from nestling.bundle import Bundle
from nestling.errors import NestlingError, UnsupportedOp
from nestling.formats.about import Gives, about
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.executorch.printing import print_program
from nestling.formats.executorch.symmetric import symmetric_weights
from nestling.formats.format import INTEGERS, Format, Job, Printed
from nestling.preprocess.image import Numbers


def printed(job: Job, form: Format, gives: Gives, precision: str) -> Printed:
    """Raises UnsupportedOp where the Graph does not hold the network."""
    graph, changed = symmetric_weights(job.inside(form, precision))
    made = print_program(GraphProgram(graph).eval(), about(job.bundle, gives, precision == INTEGERS))
    return Printed(made.content, made.delegated / made.operations, (changed.channels, changed.of) if changed.of else None)


def as_torch_has_it(bundle: Bundle, refusal: UnsupportedOp) -> Printed:
    """What the Graph does not hold ExecuTorch may."""
    if isinstance(bundle.preprocess, Numbers):
        raise refusal
    from nestling.models.backbones import build  # brings timm, which other programs do without

    try:
        made = print_program(build(bundle).eval(), about(bundle, "logits"))
    except NestlingError:
        raise
    except Exception as error:  # whatever ExecuTorch's passes make of an operation
        words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        hint = "the bundle itself still answers (predict, eval); backbones that can be printed:  nestling backbones"
        raise UnsupportedOp(f"{refusal.message}; nor does ExecuTorch take the network as it is: {words}", hint) from error
    return Printed(made.content, made.delegated / made.operations)
