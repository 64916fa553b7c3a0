"""nestling import."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show


def command(
    file: Annotated[Path, typer.Argument(help="A .tflite file: int8, uint8 or float.", callback=options.there(""))],
    output: options.NewBundle,
    labels: Annotated[Path | None, options.file("A text file with one label a line.", show_default="those in the file")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Normalisation: a number, or one a channel, for values in 0..1.", show_default="the file's")
    ] = None,
    std: Annotated[str | None, typer.Option(help=options.STD, show_default="the file's")] = None,
    signature: Annotated[
        str | None, typer.Option(help="Which of the file's networks, by its signature.", show_default="the only one")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Of images, where the file takes any: HEIGHTxWIDTH, or one number.", show_default="the file's"),
    ] = None,
    numbers: Annotated[
        bool, typer.Option("--numbers", help="It takes no photographs, though its input has the shape of one.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Take somebody else's .tflite network: an integer one to run, trace and print, a float one as a backbone to learn on.

    Example:  nestling import mobilenet.tflite --labels labels.txt -o mobilenet.nest
    """
    from nestling.artifacts.import_model import import_model, read_labels
    from nestling.bundle import save
    from nestling.formats.format import ReadConfig
    from nestling.preprocess.image import Numbers, sides_of

    names = read_labels(labels) if labels else None
    asked = options.sides(size)
    config = ReadConfig(signature, None if asked is None else sides_of(asked))
    bundle = import_model(file, names, options.numbers(mean, "--mean"), options.numbers(std, "--std"), config, numbers)
    save(bundle, output)
    assumed, takes = list(bundle.lineage[-1].settings["assumed"]), bundle.lineage[-1].settings["normalisation"]
    for note in assumed:
        show.say(f"assumed: {note}" if note.startswith("its input") else f"note: {note}")
    kind = "integer" if bundle.architecture is None else "float"
    taken = bundle.preprocess
    if json:
        plain: dict[str, object] = {"bundle": str(output), "kind": kind, "classes": len(bundle.labels)}
        if isinstance(taken, Numbers):
            plain |= {"shape": list(taken.shape), "dtype": taken.dtype}
        else:
            plain |= {"size": list(taken.size), "channels": taken.channels, "mean": list(taken.mean), "std": list(taken.std)}
        embedding = bundle.head.weight.shape[1] if bundle.head is not None else None
        show.as_json(plain | {"embedding": embedding, "normalisation": takes, "assumed": assumed})
        return
    hint = show.path_hint(output)
    if isinstance(taken, Numbers):
        what = f"{taken.dtype} numbers {list(taken.shape)}"
        following = f"nestling export {hint} --to tflite,onnx --precision {'int8' if kind == 'integer' else 'fp32'}"
    else:
        what = f"images of {taken.size[0]}x{taken.size[1]}"
        following = f"nestling predict {hint} PHOTO" if kind == "integer" else f"nestling fit PHOTOS --backbone {hint} -o my.nest"
    show.tell(
        f"{kind} network, {len(bundle.labels)} classes, {what}",
        f"takes       {takes}",
        f"written to  {output}",
        f"next:  {following}",
    )
