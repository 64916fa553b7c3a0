"""nestling learn."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from nestling.cli import options, show
from nestling.words import HeadOptimizer


def command(
    package: Annotated[Path, options.package()],
    data: Annotated[Path, options.photographs("Folder with a folder of photographs for each class; new ones become classes.")],
    cycles: Annotated[int | None, typer.Option(min=0, help="Batches to learn from.", show_default="about 10 epochs")] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=1024, help="Photographs a batch.", show_default="the head's")] = None,
    optimizer: Annotated[
        HeadOptimizer | None,
        options.one_of("--optimizer", get_args(HeadOptimizer), "What it learns with.", show_default="the head's"),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0, max=1e9, help="Learning rate.", show_default="the head's")] = None,
    stop_accuracy: Annotated[
        float | None, typer.Option(min=0, max=1, help="End when val has this accuracy.", show_default="never")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="Cycles between two saves.")] = 20,
    replay: Annotated[
        int | None, typer.Option(min=0, help="KB of embeddings to keep for later trainings.", show_default="the head's")
    ] = None,
    begin_with: Annotated[Path | None, options.file("The head to begin with.", "--from", show_default="PACKAGE/head.nst")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training that TRAINED holds.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The trained head.", show_default="PACKAGE/trained.nst", callback=options.to_head),
    ] = None,
    json: options.Json = False,
) -> None:
    """Let a packed network's head go on learning, here, with ExecuTorch: its backbone stays as it is.

    Example:  nestling learn pkg/ photos --replay 64     and later:  nestling learn pkg/ new-things --from pkg/trained.nst
    """
    from nestling.device.learn import LearnConfig, learn

    config = LearnConfig(begin_with, output, cycles, batch, optimizer, rate, stop_accuracy, save_every, replay, resume)
    learned = learn(package, data, config, show.bars)
    for note in learned.notes:
        show.say(note)
    show.left_out(learned.left_out)
    saved = cycles != 0
    if json:
        shown = {
            part: {"before": show.evaluation_plain(learned.before[part]), "after": show.evaluation_plain(after)}
            for part, after in learned.after.items()
        }
        counts = {"cycles": learned.cycles, "new": list(learned.new), "replayed": learned.replayed}
        result: dict[str, object] = {"trained": str(learned.output) if saved else None, "images": dict(learned.images)}
        show.as_json(result | counts | {"accuracy": shown, "seconds": dict(learned.seconds)})
        return
    rows = [
        [part, str(after.images), show.share(after.majority), show.share(learned.before[part].top1), show.top1(after)]
        for part, after in learned.after.items()
    ]
    rows += [
        [f"{part}, {row.label} (new)", str(row.images), "", "", show.told_share(row.recall)]
        for part, after in learned.after.items()
        for row in after.per_class
        if row.label in learned.new and row.images
    ]
    if rows:
        show.table(["accuracy on", "images", "the largest class", "before", "after [95%]"], rows)
    if not saved:
        return
    replayed = f" and {learned.replayed} of the replay store" if learned.replayed else ""
    show.tell(
        f"learned from  {learned.images['train']} photographs{replayed}, {learned.cycles} cycles, "
        f"lowest loss {learned.head.progress.lowest_loss:.4f}",
        f"seconds       {show.seconds(learned.seconds)}",
    )
    kept = len(learned.head.replay.labels)
    store = f", with {kept} embeddings of {show.size(learned.head.replay.embeddings.nbytes)} for later trainings" if kept else ""
    again = f"nestling learn {show.path_hint(package)} MORE --from {show.path_hint(learned.output)}"
    pushed = f"nestling push {show.path_hint(package)} ssh://HOST/DIR"
    show.tell(f"written       {learned.output}{store}", f"next:  {again}   or   {pushed}")
