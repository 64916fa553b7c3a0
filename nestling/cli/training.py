"""What the commands that train have in common: their options, the epochs as they come, the tables at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar, get_args

import typer

from nestling import words
from nestling.cli import options, show
from nestling.progress import silent

if TYPE_CHECKING:
    from nestling.bundle import Bundle
    from nestling.data.folders import LeftOut
    from nestling.models.lacking import Lacking
    from nestling.training.finetune import Taught
    from nestling.training.loop_state import Epoch
    from nestling.training.session import Session

BundleFile = Annotated[Path, options.bundle()]
Epochs = Annotated[int, typer.Option(min=1, help="How often it sees each photograph.")]
Rate = Annotated[float, typer.Option(help="Learning rate of the head.")]
BackboneRate = Annotated[float, typer.Option(help="Share of it that the backbone learns with.")]
FreezeNorm = Annotated[bool, typer.Option("--freeze-norm", help="BatchNorm keeps its statistics.")]
Size = Annotated[str | None, typer.Option(help=options.SIZE, show_default="the bundle's")]
Batch = Annotated[int, typer.Option(min=1, help="Photographs a step, over all processes.")]
Micro = Annotated[
    int | None, typer.Option(min=1, help="Of these, how many go through at a time.", show_default="the quickest, or all")
]
Augment = Annotated[words.Augment, options.one_of("--augment", get_args(words.Augment), "How photographs are varied.")]
Mixup = Annotated[float, typer.Option(min=0, help="Mix photographs in pairs; 0.2 mixes a little, 1 a lot.")]
Cutmix = Annotated[float, typer.Option(min=0, help="Likewise, by pasting a part of one into the other.")]
Smoothing = Annotated[float, typer.Option(min=0, max=0.9, help="Of labels: share of the target that all classes get.")]
Ema = Annotated[bool, typer.Option("--ema", help="Keep the moving average of the weights.")]
Patience = Annotated[
    int | None, typer.Option(min=1, help="End after so many epochs without a better validation.", show_default="never")
]
Optimiser = Annotated[words.Optimiser, options.one_of("--optimiser", get_args(words.Optimiser), "What it learns with.")]
Seed = Annotated[int, options.seed("Of order and variation; the division into parts is the bundle's.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that prepare photographs; they change only the time.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last whole epoch of a run that was stopped.")]

HEADING = f"{'epoch':>5}  {'loss':>7}  {'val top-1':>9}  {'val loss':>8}  {'seconds':>7}"


class Made(Protocol):
    """What a training gives: a bundle, and files that could not be used."""

    @property
    def bundle(self) -> Bundle: ...  # noqa: D102  # said above
    @property
    def left_out(self) -> tuple[LeftOut, ...]: ...  # noqa: D102  # said above


Some = TypeVar("Some", bound=Made)


def taught(work: Callable[[Session], Some], output: Path, resume: bool, json: bool, lost: Lacking | None = None) -> Some | None:
    """Do the work, save the bundle, name files left out. None in a process of a team that does not lead it: it says nothing.

    lost: what the bundle's backbone lacks, said before the work begins.
    """
    from nestling import bundle as bundles
    from nestling.training.session import Session
    from nestling.training.team import joined

    checkpoint = output.with_name(f"{output.name}.checkpoint")
    with joined() as team:
        tell = (show.say if json else show.tell) if team.leads else _nothing
        if team.leads and checkpoint.exists() != resume:
            show.say(_about_checkpoint(checkpoint, resume))
        if team.leads and lost is not None:
            show.warnings([str(lost)])
        heading = iter([HEADING])  # above the first line: an error before that stands alone

        def told(epoch: Epoch) -> None:
            for line in (*heading, _line(epoch)):
                tell(line)

        made = work(Session(show.bars if team.leads else silent, checkpoint, resume, team, told))
    if not team.leads:
        return None
    bundles.save(made.bundle, output)
    checkpoint.unlink(missing_ok=True)
    show.left_out(made.left_out)
    return made


def begun(path: Path, output: Path) -> Bundle:
    """The bundle to train on, looked at before torch is imported. Raises NestlingError where nothing can be trained or written."""
    from nestling import bundle as bundles
    from nestling import extras
    from nestling.training.config import require_trainable

    extras.require("train", "training a whole network")
    options.room_beside(output, path)
    loaded = bundles.load(path)
    require_trainable(loaded)
    return loaded


def plain(made: Taught, output: Path) -> dict[str, object]:
    """As --json prints it."""
    from nestling.scores import doubts

    evaluation: dict[str, object] = {"top1": made.test.top1, "interval": made.test.interval} | show.majority_plain(made.test)
    evaluation |= {"one_answer": doubts.only_answered(made.test)}
    return {"bundle": str(output), "images": made.images, **evaluation, "seconds": made.seconds}


def summary(made: Taught, output: Path) -> None:
    """Tables of the test part, and what came of the training."""
    show.evaluation_tables(made.test)
    counts = ", ".join(f"{count} {part.replace('_', ' ')}" for part, count in made.images.items())
    show.tell(
        f"images      {counts}",
        f"val top-1   {show.share(made.best.val_top1)} in epoch {made.best.number}; {show.share(made.val_top1_before)} before",
        f"test top-1  {show.top1_beside(made.test)}",
        f"seconds     {show.seconds(made.seconds)}",
        f"written     {output}",
    )


def to_type(output: Path, lost: Lacking | None) -> str:
    """The command that goes on from a bundle whose network has learned."""
    from nestling.formats import usual

    if lost is None or lost.pte:
        form, precision = (usual(), "int8") if lost is None else ("pte", "fp32")
        return f"export {show.path_hint(output)} --to {form} --precision {precision} -o out/"
    return f"predict {show.path_hint(output)} PHOTO"


def next_line(command: str) -> None:
    """What to type next, on one line however narrow the terminal is."""
    show.tell(f"next:  nestling {command}")


def _line(epoch: Epoch) -> str:
    return f"{epoch.number:>5}  {epoch.loss:>7.4f}  {show.share(epoch.val_top1):>9}  {epoch.val_loss:>8.4f}  {epoch.seconds:>7.1f}"


def _about_checkpoint(checkpoint: Path, resume: bool) -> str:
    if resume:
        return f"there is no {checkpoint} to go on from: begins anew"
    return f"{checkpoint} is of a run that was stopped; begins anew and replaces it (--resume would have gone on)"


def _nothing(text: str) -> None:
    pass
