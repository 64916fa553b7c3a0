"""Which outputs take over which inputs' bytes: the plan of the smallest arena among several.

To lie over an input fixes a distance, which is not always worth it: a convolution's answer that begins before its input may get in
the way of a map that lives longer, and an add that takes over the wrong one of its operands leaves a hole where the other was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from nestling.formats.c.plan.plan import Plan, Step, over_of

TRIED = 40  # plans, where the first one is not the smallest that there can be


def smallest(steps: Sequence[Step], planned: Callable[[Sequence[Step]], Plan]) -> Plan:
    """Of steps of which `over` says what may be, not what must. planned: `plan`, with the other arguments that it takes.

    The same arguments give the same plan.
    """
    chosen, best = tuple(steps), planned(steps)
    for changed, over in islice(_changes(steps), TRIED):
        if best.arena == best.lower_bound:
            break  # no other choice lets fewer bytes live at the fullest step
        others = tuple(replace(step, over=over) if step.name in changed else step for step in chosen)
        found = planned(others)
        if found.arena < best.arena:
            chosen, best = others, found
    return best


def _changes(steps: Sequence[Step]) -> Iterator[tuple[frozenset[str], tuple[str, ...]]]:
    """(names of steps, what they take over instead): all that would begin before their inputs; then each by itself."""
    yield frozenset(step.name for step in steps if step.lead), ()
    for step in steps:
        if len(choices := over_of(step)) > 1:
            yield frozenset({step.name}), choices[1:] + choices[:1]
    for step in steps:
        if step.lead:
            yield frozenset({step.name}), ()
