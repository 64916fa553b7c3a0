"""nestling finetune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli import show

if TYPE_CHECKING:
    from nestling.training.loop_state import Epoch

HEADING = f"{'epoch':>5}  {'loss':>7}  {'val top-1':>9}  {'val loss':>8}  {'seconds':>7}"


def command(
    bundle: Annotated[Path, typer.Argument(help="The fitted bundle.")],
    data: Annotated[Path | None, typer.Argument(help="The photographs it learned from.", show_default="where they were")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.")] = Path("fine.nest"),
    epochs: Annotated[int, typer.Option(min=1, help="How often it sees each photograph.")] = 10,
    rate: Annotated[float, typer.Option(help="Learning rate of the head.")] = 2e-3,
    backbone_rate: Annotated[float, typer.Option(help="Share of it that the backbone learns with.")] = 0.5,
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Only the last so many blocks of the backbone learn.", show_default="all")
    ] = None,
    freeze_norm: Annotated[bool, typer.Option("--freeze-norm", help="BatchNorm keeps its statistics.")] = False,
    size: Annotated[int | None, typer.Option(help="Side of the input in pixels.", show_default="the bundle's")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Photographs a step, over all processes.")] = 32,
    micro: Annotated[
        int | None, typer.Option(min=1, help="Of these, how many go through at a time.", show_default="the quickest, or all")
    ] = None,
    augment: Annotated[str, typer.Option(help="How photographs are varied: none, light, strong.")] = "light",
    mixup: Annotated[float, typer.Option(min=0, help="Mix photographs in pairs; 0.2 mixes a little, 1 a lot.")] = 0.0,
    cutmix: Annotated[float, typer.Option(min=0, help="Likewise, by pasting a part of one into the other.")] = 0.0,
    smoothing: Annotated[float, typer.Option(min=0, max=0.9, help="Of labels: share of the target that all classes get.")] = 0.0,
    ema: Annotated[bool, typer.Option("--ema", help="Keep the moving average of the weights.")] = False,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many epochs without a better validation.", show_default="never")
    ] = None,
    optimiser: Annotated[str, typer.Option(help="adamw or sgd.")] = "adamw",
    seed: Annotated[int, typer.Option(help="Of order and variation; the division into parts is the bundle's.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare photographs; they change only the time.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last whole epoch of a run that was stopped.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train the whole network on, beginning with what `nestling fit` made: slower, and better where photographs are many.

    Example:  nestling finetune my.nest photos -o fine.nest

    On several processes:  torchrun --nproc-per-node 2 -m nestling finetune my.nest photos -o fine.nest
    """
    from nestling import bundle as bundles
    from nestling.progress import silent
    from nestling.training.finetune import FinetuneConfig, finetune
    from nestling.training.team import joined

    config = FinetuneConfig(
        epochs=epochs,
        rate=rate,
        backbone_rate=backbone_rate,
        blocks=blocks,
        freeze_norm=freeze_norm,
        size=size,
        batch=batch,
        micro=micro,
        augment=augment,
        mixup=mixup,
        cutmix=cutmix,
        smoothing=smoothing,
        ema=ema,
        patience=patience,
        optimiser=optimiser,
        seed=seed,
        workers=workers,
    )
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    with joined() as team:
        tell = (show.say if json else show.out().print) if team.leads else _nothing
        if team.leads and checkpoint.exists() != resume:
            show.say(_about_checkpoint(checkpoint, resume))
        tell(HEADING)
        made = finetune(
            bundles.load(bundle),
            data,
            config,
            show.bars if team.leads else silent,
            checkpoint,
            resume,
            team,
            lambda epoch: tell(_line(epoch)),
        )
    if not team.leads:
        return
    bundles.save(made.bundle, output)
    checkpoint.unlink(missing_ok=True)
    show.left_out(made.left_out)
    if made.best.val_top1 <= made.frozen_val_top1:
        show.say(
            f"warning: on the validation part it is no better than it was ({show.share(made.frozen_val_top1)} before, "
            f"{show.share(made.best.val_top1)} now); a lower --rate, or fewer --blocks, may help"
        )
    if json:
        result = {"bundle": str(output), "images": made.images, "top1": made.test.top1, "interval": made.test.interval}
        show.as_json(result | {"seconds": made.seconds})
        return
    show.evaluation_tables(made.test)
    counts = ", ".join(f"{count} {part.replace('_', ' ')}" for part, count in made.images.items())
    show.out().print(
        f"images      {counts}\n"
        f"val top-1   {show.share(made.best.val_top1)} in epoch {made.best.number}; {show.share(made.frozen_val_top1)} before\n"
        f"test top-1  {show.top1(made.test)}\nseconds     {show.seconds(made.seconds)}"
    )
    show.out().print(
        f"written     {output}\nnext:  nestling export {show.path_hint(output)} --to pte --precision int8 -o out/", soft_wrap=True
    )


def _line(epoch: "Epoch") -> str:
    return f"{epoch.number:>5}  {epoch.loss:>7.4f}  {show.share(epoch.val_top1):>9}  {epoch.val_loss:>8.4f}  {epoch.seconds:>7.1f}"


def _about_checkpoint(checkpoint: Path, resume: bool) -> str:
    if resume:
        return f"there is no {checkpoint} to go on from: begins anew"
    return f"{checkpoint} is of a run that was stopped; begins anew and replaces it (--resume would have gone on)"


def _nothing(text: str) -> None:
    pass
