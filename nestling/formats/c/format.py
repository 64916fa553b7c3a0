"""The formats of C: a folder for each machine. On this computer it is compiled, and answers as it would there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling.formats.about import about
from nestling.formats.c import machines
from nestling.formats.format import INTEGERS, File, Format, Image, Job, Printed, Printer, Runtime
from nestling.formats.runner import Runner
from nestling.graph.ir import Graph

NAME = "c"  # as --to has it; a machine's own is c-MACHINE


def of_machine(name: str) -> str:
    """The name of the format for a machine."""
    return f"{NAME}-{name}"


def _printer(machine: str) -> Printer:
    def print_it(job: Job) -> Printed:
        from nestling.formats.c import emit
        from nestling.formats.c.arrange import arrange, constants, notes

        target = machines.machine(machine)
        program, planned = arrange(job.inside(_format(machine), INTEGERS), target, job.config.flash, job.config.ram)
        files = emit.files(program, planned, target, about(job.bundle, integers=True), prefix=job.config.name)
        return Printed(files, flash=constants(program), arena=planned.arena, notes=notes(program))

    return print_it


def _require(machine: str) -> Callable[[Job], None]:
    def require(job: Job) -> None:
        from nestling.formats.c.arrange import require_classifier
        from nestling.formats.c.lower import lower

        anywhere = replace(machines.machine(machine), features=())  # its own kernels take no network that others do not
        require_classifier(lower(job.inside(_format(machine), INTEGERS), anywhere))

    return require


def _load(file: File) -> Runner:
    from nestling.formats.c import host

    return host.load(file.place, file.name, file.threads or 1)


def _loaded(printed: Printed, name: str) -> Runner:
    from nestling.formats.c import host

    assert not isinstance(printed.content, bytes)
    with TemporaryDirectory() as place:
        for file, content in printed.content.items():
            (Path(place) / file).write_bytes(content)
        return host.load(Path(place), Path(name))


def _missing() -> str:
    from nestling.formats.c.host import compiler

    return "" if compiler() else "there is no C compiler here (sudo apt-get install gcc libc6-dev)"


def _wrong(printed: Printed, graph: Graph, images: Image, runner: Runner) -> list[str]:
    from nestling.formats.c import inside

    return inside.wrong(runner, graph, images)


def _format(machine: str) -> Format:
    return Format(
        name=of_machine(machine),
        what=f"C for {machine}",
        suffix="",
        mark=("v", "▼"),
        runtimes={"C": Runtime(_load)},
        printers={INTEGERS: _printer(machine)},
        machine=machine,
        embedding="always",
        require=_require(machine),
        missing=_missing,
        loaded=_loaded,
        wrong=_wrong,
        exact=True,
    )


FORMATS = tuple(map(_format, machines.names()))
