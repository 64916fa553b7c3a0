"""nestling search."""

from pathlib import Path
from typing import Annotated

import typer

from nestling.cli import options, show, training


def command(
    bundle: Annotated[Path, options.bundle("The fitted bundle; best one that was fine-tuned.")],
    data: options.LearnedFrom = None,
    output: options.NewBundle = Path("searched.nest"),
    macs: Annotated[str, typer.Option(help="Share of the multiply-accumulates that stays at most: 60% or 0.6.")] = "60%",
    params: Annotated[str | None, typer.Option(help="Share of the parameters that stays at most.", show_default="any")] = None,
    candidates: Annotated[int, typer.Option(help="Try so many subnets at most.")] = 100,
    images: Annotated[int, typer.Option(help="Validation photographs that judge each of them.")] = 1000,
    round_to: Annotated[int, typer.Option("--round", help="Layers get multiples of so many channels.")] = 8,
    seed: Annotated[int, options.seed("Of which photographs these are.")] = 0,
    json: options.Json = False,
) -> None:
    """Find by FastNAS how wide each layer of a fitted network should be. Fine-tune it afterwards.

    Example:  nestling search my.nest photos --macs 60% -o searched.nest
    """
    from nestling import bundle as bundles
    from nestling import extras
    from nestling.compress.config import SearchConfig

    extras.require("search", "search")
    limits = options.share("--macs", macs), options.share("--params", params) if params else None
    asked = SearchConfig(*limits, candidates, images, round_to, seed)
    begun = training.begun(bundle, output)
    from nestling.compress.search import search

    searched = search(begun, data, asked, show.bars)
    bundles.save(searched.bundle, output)
    show.left_out(searched.left_out)
    before, after = searched.before, searched.after
    if json:
        plain = {"bundle": str(output), "images": searched.images, "top1": after.test.top1, "interval": after.test.interval}
        costs = {
            name: {"macs": m.macs, "parameters": m.parameters, "bytes": m.bytes, "ms_median": m.ms, "val_top1": m.val_top1}
            | {"top1": m.test.top1, "interval": m.test.interval}
            for name, m in (("before", before), ("after", after))
        }
        told = {"runtime": searched.runtime, "no_gain": searched.gained_nothing, "candidates": searched.tried}
        show.as_json(plain | {"seconds": searched.seconds} | told | {"widths": searched.widths} | costs)
        return
    rows = [
        ["MACs", f"{before.macs / 1e6:.2f} M", f"{after.macs / 1e6:.2f} M", show.share(after.macs / before.macs)],
        ["parameters", f"{before.parameters:,}", f"{after.parameters:,}", show.share(after.parameters / before.parameters)],
        ["float size", show.size(before.bytes), show.size(after.bytes), show.share(after.bytes / before.bytes)],
        ["ms an embedding", f"{before.ms:.2f}", f"{after.ms:.2f}", show.share(after.ms / before.ms)],
        ["val top-1", show.share(before.val_top1), show.share(after.val_top1), _points(before.val_top1, after.val_top1)],
        ["test top-1 [95%]", show.top1(before.test), show.top1(after.test), _points(before.test.top1, after.test.top1)],
    ]
    tried = f"{searched.tried} candidates in {searched.seconds['search'] / 60:.1f} minutes"
    title = f"searched to {show.share(after.macs / before.macs)} of its MACs, {tried}"
    show.table(["", "before", "after", "of before"], rows, title)
    show.tell(f"milliseconds: {searched.runtime}, one image at a time on one thread, both networks in turns, the median")
    for line in searched.gained_nothing:
        show.tell(f"nothing was gained in {line}" if line.startswith("milliseconds") else line)
    show.tell("only the head has learned since; fine-tuning wins back what the channels cost")
    path, tuned = show.path_hint(output), show.path_hint(output.with_name("tuned.nest"))
    where = show.path_hint(data) if data else "DATA"
    show.tell(f"written     {output}", f"next:  nestling finetune {path} {where} -o {tuned}")


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f} points"
