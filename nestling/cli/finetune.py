"""nestling finetune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli import options, show, training

if TYPE_CHECKING:
    from nestling.models.lacking import Lacking
    from nestling.training.finetune import Taught


def command(
    bundle: training.BundleFile,
    data: options.LearnedFrom = None,
    output: options.NewBundle = Path("fine.nest"),
    epochs: training.Epochs = 10,
    rate: training.Rate = 2e-3,
    backbone_rate: training.BackboneRate = 0.5,
    blocks: Annotated[
        int | None,
        typer.Option(min=0, help="Only the last so many blocks of the backbone learn; 0 for the head alone.", show_default="all"),
    ] = None,
    variations: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="So many variations of each photograph, again and again, instead of a new one each time: "
            "with --blocks the part that does not learn then sees each of them once.",
            show_default="8 with --blocks, else new ones",
        ),
    ] = None,
    freeze_norm: training.FreezeNorm = False,
    size: training.Size = None,
    batch: training.Batch = 32,
    micro: training.Micro = None,
    augment: training.Augment = "light",
    mixup: training.Mixup = 0.0,
    cutmix: training.Cutmix = 0.0,
    smoothing: training.Smoothing = 0.0,
    ema: training.Ema = False,
    patience: training.Patience = None,
    optimiser: training.Optimiser = "adamw",
    seed: training.Seed = 0,
    workers: training.Workers = 0,
    resume: training.Resume = False,
    json: options.Json = False,
) -> None:
    """Train the whole network on, beginning with what `nestling fit` made: slower, and better where photographs are many.

    Example:  nestling finetune my.nest photos -o fine.nest

    On several processes:  torchrun --nproc-per-node 2 -m nestling finetune my.nest photos -o fine.nest
    """
    from nestling.training.config import TrainingConfig

    config = TrainingConfig(
        epochs=epochs,
        rate=rate,
        backbone_rate=backbone_rate,
        blocks=blocks,
        variations=variations,
        freeze_norm=freeze_norm,
        size=options.sides(size),
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
    begun = training.begun(bundle, output)
    from nestling.models.lacking import lacking
    from nestling.training.finetune import finetune

    lost = lacking(begun)
    made = training.taught(
        lambda session: finetune(begun, data, config, session),
        output,
        resume,
        json,
        lost,
    )
    if made is None:
        return
    _show(made, output, lost, json)


def _show(made: "Taught", output: Path, lost: "Lacking | None", json: bool) -> None:
    if made.best.val_top1 <= made.val_top1_before:
        show.say(
            f"warning: on the validation part it is no better than it was ({show.share(made.val_top1_before)} before, "
            f"{show.share(made.best.val_top1)} now); a lower --rate, or fewer --blocks, may help"
        )
    show.doubted(made.test)
    if json:
        show.as_json(training.plain(made, output))
        return
    training.summary(made, output)
    training.next_line(training.to_type(output, lost))
