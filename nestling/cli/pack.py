"""nestling pack."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from nestling.cli import options, show
from nestling.words import HeadOptimizer, Momentum, RunBy, System


def command(
    bundle: Annotated[Path, options.bundle("A quantised bundle.")],
    system: Annotated[System, options.one_of("--for", get_args(System), "The kind of device.")] = "linux",
    machine: Annotated[
        str | None,
        typer.Option(
            help="linux: x86-64, arm64; android: arm64; mcu: cortex-m4, cortex-m7, cortex-m55, rv32imc.",
            show_default="this computer's; arm64; cortex-m4",
        ),
    ] = None,
    runner: Annotated[RunBy, options.one_of("--runner", get_args(RunBy), "What runs the network on the device.")] = "c",
    max_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes that there is room for.", show_default="8 more than there are")
    ] = None,
    momentum: Annotated[Momentum, options.one_of("--momentum", get_args(Momentum), "bf16 takes half the memory.")] = "float32",
    optimizer: Annotated[
        HeadOptimizer, options.one_of("--optimizer", get_args(HeadOptimizer), "What the head learns with.")
    ] = "sgd",
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
        Path | None, options.file("The photographs it learned from.", show_default="where they were, else made-up ones")
    ] = None,
    output: Annotated[Path, options.new_folder("The folder to write.")] = Path("pkg"),
    force: Annotated[bool, typer.Option("--force", help="Keep what does not pass its gates.")] = False,
    json: options.Json = False,
) -> None:
    """Pack all that a device needs to run a network and go on learning: program, head, scripts; or C for a microcontroller.

    Example:  nestling pack parts8.nest --for linux --machine arm64 -o pkg/
    """
    from nestling.device.package import PackConfig, pack

    config = PackConfig(system, machine, runner, max_classes, momentum, optimizer, untrained, replay, force)
    made = pack(bundle, output, config, data, show.bars)
    for problem in made.failed:
        show.say(f"warning: packed all the same: {problem}")
    if json:
        from dataclasses import asdict

        told = asdict(made)
        show.as_json({"package": str(output), "ram_bytes": told.pop("ram"), "ram_all_bytes": sum(made.ram.values())} | told)
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
