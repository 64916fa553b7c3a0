"""nestling plan."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show


def command(
    bundle: Annotated[Path, options.bundle("A quantised bundle, or an imported integer network.")],
    machine: Annotated[str, typer.Option(help="host, linux-arm64, cortex-m4, cortex-m7, cortex-m55 or rv32imc.")] = "cortex-m4",
    ram: Annotated[str, typer.Option(help="RAM that there is: 256K, 1M, or bytes.")] = "256K",
    flash: Annotated[str, typer.Option(help="Flash that there is.")] = "1M",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A picture of the arena, .svg.", callback=options.to_picture)
    ] = None,
    json: options.Json = False,
) -> None:
    """Show a network's RAM over time and its flash in C, and whether they fit, before anything is written. Status 1: they don't.

    Example:  nestling plan my8.nest --machine cortex-m4 --ram 256K --flash 1M
    """
    from nestling import bundle as bundles
    from nestling.files import write_atomically
    from nestling.formats.c import machines
    from nestling.formats.c.fitting import advice, needs, verdict, whole
    from nestling.formats.c.plan.report import draw, parse_size, picture

    target, sizes = machines.machine(machine), (parse_size(ram), parse_size(flash))
    loaded = bundles.load(bundle)
    found = needs(whole(loaded), target, *sizes)
    outcome = verdict(found, *sizes)
    hint = "" if outcome.fits else advice(loaded, target, *sizes)
    if output is not None:
        write_atomically(output, picture(found.plan).encode())
    if json:
        memory = {"arena_bytes": found.plan.arena, "lower_bound_bytes": found.plan.lower_bound}
        memory |= {"constants_bytes": found.constants, "code_bytes_at_most": found.code}
        told = {"notes": found.notes, "in_the_way": outcome.in_the_way, "hint": hint}
        show.as_json({"machine": machine, "fits": outcome.fits} | memory | told)
    else:
        show.tell(*draw(found.plan).split("\n"))
        show.tell("", target.title, *outcome.words.split("\n"), *found.notes)
        if hint:
            show.tell(f"  {hint}")
    if not outcome.fits:
        raise typer.Exit(1)
