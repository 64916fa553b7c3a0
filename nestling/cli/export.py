"""nestling export."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from nestling.cli import options, show
from nestling.errors import WrongOption
from nestling.words import OnnxWeights

if TYPE_CHECKING:
    from nestling.artifacts.export import Exported
    from nestling.artifacts.manifest import Artifact


def command(
    bundle: Annotated[Path, options.bundle("The bundle to print.")],
    to: Annotated[
        str,
        typer.Option(
            help="pte (ExecuTorch), tflite (LiteRT), onnx, c; or several: pte,tflite.",
            show_default="pte, or tflite where ExecuTorch is not installed",
        ),
    ] = "",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16, dynamic, int8, or several; a format prints those it has.")
    ] = "fp32,int8",
    machine: Annotated[str, typer.Option(help="Of C: host, linux-arm64, cortex-m4, cortex-m7, cortex-m55, rv32imc.")] = "host",
    ram: Annotated[str, typer.Option(help="Of C: RAM that it has to fit, as 256K.", show_default="any")] = "",
    flash: Annotated[str, typer.Option(help="Of C: flash that it has to fit.", show_default="any")] = "",
    name: Annotated[
        str, typer.Option(help="Of C: what symbols, macros and files begin with; another for each network of one firmware.")
    ] = "nestling",
    output: Annotated[Path, options.new_folder("Folder for the files and their manifest.json.")] = Path("out"),
    data: Annotated[
        Path | None,
        options.file("The photographs it learned from; of an import, any.", show_default="where they were"),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="The embedding, too: a second output; for pte a file of its own, NAME.features.pte.")
    ] = False,
    int8_head: Annotated[bool, typer.Option("--int8-head", help="int8: the head in integers, too (it can't learn then).")] = False,
    onnx_weights: Annotated[
        OnnxWeights,
        options.one_of(
            "--onnx-weights", get_args(OnnxWeights), "int8: quicker on processors with 8-bit dot products, wrong on others."
        ),
    ] = "uint8",
    force: Annotated[bool, typer.Option("--force", help="Keep a file that fails its gates.")] = False,
    json: options.Json = False,
) -> None:
    """Print a bundle for a target, and judge each file before it is put in place: the integers inside it, and its answers.

    Example:  nestling export parts.nest --to tflite,onnx --precision int8 -o out/
    """
    from nestling.artifacts.export import exported, require_passed
    from nestling.formats import FORMATS, printed, usual
    from nestling.formats.c.format import NAME as C
    from nestling.formats.c.format import of_machine
    from nestling.formats.c.plan.report import parse_size
    from nestling.formats.format import ExportConfig

    machines = [form.machine for form in FORMATS.values() if form.machine]
    formats = [C, *(form.name for form in FORMATS.values() if form.printers and not form.machine)]
    known = list(dict.fromkeys(kind for _, kind in printed()))
    forms, precisions = options.words("--to", to or usual(), formats), options.words("--precision", precision, known)
    if C in forms:
        forms.remove(C)
        forms += [of_machine(name) for name in options.words("--machine", machine, machines)]
    if features:
        forms += [own for form in forms if (own := FORMATS[form].own_embedding) and own not in forms]
    wanted = [(form, kind) for form in forms for kind in precisions if kind in FORMATS[form].printers]
    if not wanted:
        raise WrongOption(f"no format of {to} is printed in {precision}.")
    room = {"ram": ram, "flash": flash}
    limits = {name: parse_size(text) for name, text in room.items() if text}
    options.room_beside(output, bundle)
    made = exported(
        bundle, output, wanted, data, ExportConfig(features, int8_head, onnx_weights, force, **limits, name=name), show.bars
    )
    if json:
        show.as_json({"artifacts": [_plain(artifact) for artifact in made.artifacts]})
        require_passed(made)
        return
    _show(made)
    require_passed(made)
    last = show.path_hint(output / made.artifacts[-1].file)
    or_ask = f"   or   nestling predict {last} PHOTO.jpg" if made.photographs else ""
    show.tell(f"written to {output}", f"next:  nestling bench {show.path_hint(output)}{or_ask}")


def _plain(artifact: "Artifact") -> dict[str, object]:
    """As --json prints it."""
    told = ("file", "format", "precision", "bytes", "agreement", "noise_ratio", "max_logit_difference", "failed", "coarse", "notes")
    return {key: getattr(artifact, key) for key in told} | {"ms_median": artifact.ms}


def _show(made: "Exported") -> None:
    rows = [
        [
            a.file,
            show.size(a.bytes),
            show.share(a.agreement) if a.images else "not judged",
            "" if a.noise_ratio is None else f"{a.noise_ratio:.2f}{' (!)' if a.coarse else ''}",
            f"{a.max_logit_difference:.2g}",
            f"{a.ms:.2f}",
            "" if a.delegated is None else show.share(a.delegated),
        ]
        for a in made.artifacts
    ]
    if rows:
        headings = ["file", "size", "agreement", "noise ratio", "largest logit difference", "ms", "operations in XNNPACK"]
        show.table(headings, rows, f"compared with the network each was printed from, on {made.said}")
    for artifact in made.artifacts:
        for problem in artifact.failed:
            show.say(f"warning: {artifact.file} was kept though {problem}")
        for finding in artifact.coarse:
            show.say(f"warning: {artifact.file}: {finding}; see docs/onnx-weights.md")
        for note in artifact.notes:
            show.say(f"{artifact.file}: {note}")
        if artifact.requantised is not None:
            channels, of = artifact.requantised
            show.say(f"{artifact.file}: {channels} of {of} output channels were requantised; the others keep their integers")
