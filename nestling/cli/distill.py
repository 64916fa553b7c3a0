"""nestling distill."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nestling.cli import options, show, training
from nestling.errors import MAKE_BUNDLE, WrongOption
from nestling.files import require_there

if TYPE_CHECKING:
    from nestling.models.lacking import Lacking
    from nestling.training.finetune import Taught
    from nestling.training.session import Session


def command(
    bundle: Annotated[Path, options.bundle("The fitted bundle that learns.")],
    data: options.LearnedFrom = None,
    teacher: Annotated[str, typer.Option(help="What answers: a bundle, NAME.nest, or a timm name.")] = "",
    output: options.NewBundle = Path("distilled.nest"),
    temperature: Annotated[float, typer.Option(help="Above 1 it shows what the teacher thinks of the other classes.")] = 4.0,
    alpha: Annotated[float, typer.Option(help="The teacher's share of the loss, from 0 to 1; the rest is the labels'.")] = 0.9,
    features: Annotated[float, typer.Option(help="Weight of the embeddings' similarities; 0 for none.")] = 0.0,
    teacher_size: Annotated[str | None, typer.Option(help="Likewise, of a teacher by timm's name.", show_default="its own")] = None,
    variations: Annotated[int, typer.Option(min=1, help="Of each photograph; the teacher answers each of them once.")] = 8,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often it sees each photograph.", show_default="10, or 30 from scratch")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate of the head.", show_default="0.002, or 0.004 from scratch")
    ] = None,
    backbone_rate: Annotated[
        float | None, typer.Option(help="Share of it that the backbone learns with.", show_default="0.5, or 1 from scratch")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(min=0, help="Only the last so many blocks of the backbone learn.", show_default="all")
    ] = None,
    freeze_norm: training.FreezeNorm = False,
    size: training.Size = None,
    batch: training.Batch = 32,
    micro: training.Micro = None,
    augment: training.Augment = "light",
    smoothing: training.Smoothing = 0.0,
    ema: training.Ema = False,
    patience: training.Patience = None,
    optimiser: training.Optimiser = "adamw",
    seed: training.Seed = 0,
    workers: training.Workers = 0,
    resume: training.Resume = False,
    json: options.Json = False,
) -> None:
    """Train a small network by what a better one answers to the same photographs, beside the labels.

    Example:  nestling distill student.nest photos --teacher fine.nest -o distilled.nest

    From scratch:  nestling fit photos --backbone mobilenetv2_050 --weights none --size 64 -o student.nest
    """
    from dataclasses import replace

    from nestling.models.timm_names import require_somewhere
    from nestling.training.config import DistillConfig, usual_for_distilling

    if not teacher:
        raise WrongOption("--teacher is missing: a bundle, NAME.nest, or a timm name.")
    if teacher.endswith(".nest"):
        require_there(Path(teacher), MAKE_BUNDLE)
    else:
        require_somewhere(teacher)
    student = training.begun(bundle, output)
    begun = usual_for_distilling(student)
    settings = replace(
        begun,
        epochs=epochs or begun.epochs,
        rate=begun.rate if rate is None else rate,
        backbone_rate=begun.backbone_rate if backbone_rate is None else backbone_rate,
        variations=variations, blocks=blocks, freeze_norm=freeze_norm, size=options.sides(size), batch=batch,
        micro=micro, augment=augment,
        smoothing=smoothing, ema=ema, patience=patience, optimiser=optimiser, seed=seed, workers=workers,
    )  # fmt: skip
    config = DistillConfig(temperature, alpha, features, options.sides(teacher_size, "--teacher-size"), settings)
    from nestling.models.lacking import lacking
    from nestling.training.distill import distill

    lost = lacking(student)

    def work(session: "Session") -> "Taught":
        return distill(student, data, teacher, config, session)

    made = training.taught(work, output, resume, json, lost)
    if made is None:
        return
    _show(made, output, lost, json)


def _show(made: "Taught", output: Path, lost: "Lacking | None", json: bool) -> None:
    settings = made.bundle.lineage[-1].settings
    show.doubted(made.test)
    if json:
        about = {"teacher": settings["teacher"], "teacher_val_top1": settings["teacher_val_top1"]}
        show.as_json(training.plain(made, output) | about)
        return
    training.summary(made, output)
    show.tell(f"teacher     {settings['teacher']}, val top-1 {show.share(settings['teacher_val_top1'])}")
    training.next_line(training.to_type(output, lost))
