"""nestling prune."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import show


def command(
    bundle: Annotated[Path, typer.Argument(help="The fitted bundle; best one that was fine-tuned.")],
    data: Annotated[Path | None, typer.Argument(help="The photographs it learned from.", show_default="where they were")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.")] = Path("pruned.nest"),
    macs: Annotated[str, typer.Option(help="Share of the multiply-accumulates that stays at most: 50% or 0.5.")] = "50%",
    importance: Annotated[
        str, typer.Option(help="What a channel is judged by: taylor (gradients), l1 (weights), norm (BatchNorm's scales).")
    ] = "taylor",
    round_to: Annotated[int, typer.Option("--round", help="Layers keep multiples of so many channels.")] = 8,
    steps: Annotated[int, typer.Option(help="Channels go in so many steps, judged anew in each.")] = 5,
    images: Annotated[int, typer.Option(help="Training photographs that taylor looks at.")] = 256,
    seed: Annotated[int, typer.Option(help="Of which photographs these are.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Remove the channels of a fitted network that matter least for what they cost. Fine-tune it afterwards.

    Example:  nestling prune my.nest photos --macs 50% -o pruned.nest
    """
    from nestling import bundle as bundles
    from nestling.compress.prune import PruneConfig, no_gain, prune

    config = PruneConfig(_share(macs), importance, round_to, steps, images, seed)  # type: ignore[arg-type]  # prune checks the word
    pruned = prune(bundles.load(bundle), data, config, show.bars)
    bundles.save(pruned.bundle, output)
    show.left_out(pruned.left_out)
    before, after = pruned.before, pruned.after
    if json:
        plain = {"bundle": str(output), "images": pruned.images, "top1": after.test.top1, "interval": after.test.interval}
        costs = {
            name: {"macs": m.macs, "parameters": m.parameters, "bytes": m.bytes, "ms": m.ms, "val_top1": m.val_top1}
            | {"top1": m.test.top1, "interval": m.test.interval}
            for name, m in (("before", before), ("after", after))
        }
        show.as_json(plain | {"seconds": pruned.seconds, "runtime": pruned.runtime, "no_gain": no_gain(pruned)} | costs)
        return
    rows = [
        ["MACs", f"{before.macs / 1e6:.2f} M", f"{after.macs / 1e6:.2f} M", show.share(after.macs / before.macs)],
        ["parameters", f"{before.parameters:,}", f"{after.parameters:,}", show.share(after.parameters / before.parameters)],
        ["float size", show.size(before.bytes), show.size(after.bytes), show.share(after.bytes / before.bytes)],
        ["ms an embedding", f"{before.ms:.2f}", f"{after.ms:.2f}", show.share(after.ms / before.ms)],
        ["val top-1", show.share(before.val_top1), show.share(after.val_top1), _points(before.val_top1, after.val_top1)],
        ["test top-1 [95%]", show.top1(before.test), show.top1(after.test), _points(before.test.top1, after.test.top1)],
    ]
    show.table(["", "before", "after", "of before"], rows, f"pruned to {show.share(after.macs / before.macs)} of its MACs")
    out = show.out()
    out.print(f"milliseconds: {pruned.runtime}, one image at a time on one thread, both networks in turns, the median")
    for line in no_gain(pruned):
        out.print(f"nothing was gained in {line}" if line.startswith("milliseconds") else line)
    out.print("only the head has learned since; fine-tuning wins back what the channels cost")
    path, tuned = show.path_hint(output), show.path_hint(output.with_name("tuned.nest"))
    where = show.path_hint(data) if data else "DATA"
    out.print(f"written     {output}\nnext:  nestling finetune {path} {where} -o {tuned}", soft_wrap=True)


def _share(text: str) -> float:
    """50% or 0.5 -> 0.5."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise typer.BadParameter(f"--macs is a share such as 50% or 0.5; found {text!r}") from None


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f} points"
