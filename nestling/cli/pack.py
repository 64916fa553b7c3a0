"""nestling pack."""

from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer

from nestling.cli import show

T = TypeVar("T", bound=str)


def command(
    bundle: Annotated[Path, typer.Argument(help="A quantised bundle.")],
    system: Annotated[str, typer.Option("--for", help="linux, android or mcu.")] = "linux",
    machine: Annotated[
        str | None,
        typer.Option(
            help="linux: x86-64, arm64; android: arm64; mcu: cortex-m4, cortex-m7, cortex-m55, rv32imc.",
            show_default="this computer's; arm64; cortex-m4",
        ),
    ] = None,
    runner: Annotated[str, typer.Option(help="What runs the network on the device: c or executorch.")] = "c",
    max_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes that there is room for.", show_default="8 more than there are")
    ] = None,
    momentum: Annotated[str, typer.Option(help="float32 or bf16, which takes half the memory.")] = "float32",
    optimizer: Annotated[str, typer.Option(help="sgd or adam.")] = "sgd",
    untrained: Annotated[bool, typer.Option("--untrained", help="A head of zeros that learns everything on the device.")] = False,
    replay: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="KB of embeddings that keep a new class from making it forget the others.",
            show_default="64; 0 for mcu, and with --untrained",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The photographs it learned from.", show_default="where they were, else made-up ones")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write.")] = Path("pkg"),
    force: Annotated[bool, typer.Option("--force", help="Keep what does not pass its gates.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Pack all that a device needs to run a network and go on learning: program, head, scripts; or C for a microcontroller.

    Example:  nestling pack parts8.nest --for linux --machine arm64 -o pkg/
    """
    from nestling.device.head_format import Optimizer
    from nestling.device.manifest import System
    from nestling.device.package import Momentum, PackConfig, Runner, pack

    config = PackConfig(
        _one_of("--for", system, get_args(System)),
        machine,
        _one_of("--runner", runner, get_args(Runner)),
        max_classes,
        _one_of("--momentum", momentum, get_args(Momentum)),
        _one_of("--optimizer", optimizer, get_args(Optimizer)),
        untrained,
        replay,
        force,
    )
    made = pack(bundle, output, config, data, show.bars)
    for problem in made.failed:
        show.say(f"warning: packed all the same: {problem}")
    if json:
        from dataclasses import asdict

        show.as_json({"package": str(output)} | asdict(made))
        return
    rows = [[name, show.size(file.bytes)] for name, file in made.files.items()]
    show.table(["file", "size"], [*rows, ["all", show.size(sum(file.bytes for file in made.files.values()))]])
    what = {"arena": "the network (arena)", "head": "the head", "embeddings": "a batch's embeddings", "work": "a step of learning"}
    memory = [[what.get(name, name), show.size(count)] for name, count in made.ram.items()]
    show.table(["RAM for", "size"], [*memory, ["all", show.size(sum(made.ram.values()))]])
    show.tell(f"the head's inputs are centred by {made.centred_on}")
    hint = show.path_hint(output)
    following = f"make -C {hint} run" if made.system == "mcu" else f"nestling push {hint} {_PUSH[made.system]}"
    show.tell(f"packed for {made.system} on {made.machine} in {output}", f"next:  {following}")


_PUSH = {"linux": "ssh://user@host/home/user/pkg --run /home/user/photos", "android": "adb --run /data/local/tmp/photos"}


def _one_of(option: str, text: str, known: tuple[T, ...]) -> T:
    for word in known:
        if word == text:
            return word
    raise typer.BadParameter(f"{option} is one of {', '.join(known)}; found {text!r}")
