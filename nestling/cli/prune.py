"""nestling prune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from nestling.cli import options, show, training
from nestling.errors import WrongOption
from nestling.words import Importance, Ranking, Zeros

if TYPE_CHECKING:
    from nestling.compress.measure import Measured, Packed
    from nestling.compress.prune import Pruned
    from nestling.scores.evaluate import Evaluation
    from nestling.training.finetune import Taught

STRUCTURED = "structured"


def command(
    bundle: Annotated[Path, options.bundle("The fitted bundle; best one that was fine-tuned.")],
    data: options.LearnedFrom = None,
    output: options.NewBundle = Path("pruned.nest"),
    method: Annotated[
        str, options.one_of("--method", (STRUCTURED, *get_args(Zeros)), "Whole channels, single weights, or four neighbours.")
    ] = STRUCTURED,
    macs: Annotated[
        str | None, typer.Option(help="structured: share of the multiply-accumulates that stays at most.", show_default="50%")
    ] = None,
    sparsity: Annotated[
        str | None, typer.Option(help="unstructured, block1x4: share of the weights that become zero.", show_default="80%")
    ] = None,
    importance: Annotated[
        Importance,
        options.one_of("--importance", get_args(Importance), "A channel is judged by weights, gradients, or BatchNorm's scales."),
    ] = "taylor",
    ranking: Annotated[
        Ranking, options.one_of("--ranking", get_args(Ranking), "A weight is judged within its layer, or by its size alone.")
    ] = "lamp",
    round_to: Annotated[int, typer.Option("--round", help="Layers keep multiples of so many channels.")] = 8,
    steps: Annotated[int, typer.Option(help="Channels go in so many steps, judged anew in each.")] = 5,
    images: Annotated[int, typer.Option(help="Training photographs that channels are judged on.")] = 256,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="How often it sees each photograph.", show_default="structured: 0, others: 10")
    ] = None,
    rate: training.Rate = 2e-3,
    backbone_rate: training.BackboneRate = 0.5,
    freeze_norm: training.FreezeNorm = False,
    batch: training.Batch = 32,
    micro: training.Micro = None,
    augment: training.Augment = "light",
    smoothing: training.Smoothing = 0.0,
    optimiser: training.Optimiser = "adamw",
    seed: Annotated[int, options.seed("Of the photographs that are drawn, their order and variation.")] = 0,
    workers: training.Workers = 0,
    resume: training.Resume = False,
    json: options.Json = False,
) -> None:
    """Make a fitted network smaller: take away the channels, or the weights, that matter least.

    Whole channels make every format quicker. Zeros among the weights make it only compress better; they are made while it learns.

    Example:  nestling prune my.nest photos --macs 50% --epochs 10 -o pruned.nest

    Example:  nestling prune my.nest photos --method block1x4 --sparsity 80% -o sparse.nest
    """
    from nestling.training.config import TrainingConfig

    structured = method == STRUCTURED
    if structured and sparsity is not None:
        raise WrongOption("--sparsity is for --method unstructured and block1x4; whole channels take --macs.")
    if not structured and macs is not None:
        raise WrongOption("--macs is for --method structured; zeros take --sparsity.")
    config = TrainingConfig(
        epochs=epochs if epochs is not None else 0 if structured else 10,
        rate=rate,
        backbone_rate=backbone_rate,
        freeze_norm=freeze_norm,
        batch=batch,
        micro=micro,
        augment=augment,
        smoothing=smoothing,
        optimiser=optimiser,
        seed=seed,
        workers=workers,
    )
    if structured:
        from nestling.compress.config import PruneConfig

        pruning = PruneConfig(options.share("--macs", macs or "50%"), importance, round_to, steps, images, seed)
        _structured(bundle, data, output, pruning, config, resume, json)
    else:
        from nestling.compress.config import SparseConfig

        zeros = SparseConfig(method, options.share("--sparsity", sparsity or "80%"), ranking)  # type: ignore[arg-type]  # it checks the words
        _sparse(bundle, data, output, zeros, config, resume, json)


# ---- whole channels --------------------------------------------------------------------------------------------------------------


def _structured(path: Path, data: Path | None, output: Path, config: Any, teaching: Any, resume: bool, json: bool) -> None:
    from nestling import bundle as bundles

    begun = training.begun(path, output)
    from nestling.compress.prune import prune
    from nestling.training.finetune import finetune

    pruned = prune(begun, data, config, show.bars)
    tuned = None
    if not teaching.epochs:
        bundles.save(pruned.bundle, output)
        show.left_out(pruned.left_out)
    else:
        tuned = training.taught(
            lambda session: finetune(pruned.bundle, data, teaching, session),
            output,
            resume,
            json,
        )
        if tuned is None:
            return
    test = tuned.test if tuned else pruned.after.test
    show.doubted(test)
    if json:
        plain: dict[str, object] = {"bundle": str(output), "images": pruned.images, "top1": test.top1, "interval": test.interval}
        plain |= show.majority_plain(test)
        seconds = dict(pruned.seconds) | ({"training": tuned.seconds["training"]} if tuned else {})
        costs = {"before": _costs(pruned.before), "after": _costs(pruned.after)}
        costs |= {"tuned": _answers(tuned.best.val_top1, tuned.test)} if tuned else {}
        show.as_json(plain | {"seconds": seconds, "runtime": pruned.runtime, "no_gain": pruned.no_gain} | costs)
        return
    _tell_structured(pruned, tuned)
    hint = show.path_hint(output)
    show.tell(f"written     {output}")
    if tuned:
        training.next_line(f"quantize {hint} -o {show.path_hint(output.with_name('int8.nest'))}")
    else:
        training.next_line(f"finetune {hint} {_where(data)} -o {show.path_hint(output.with_name('tuned.nest'))}")


def _tell_structured(pruned: Pruned, tuned: Taught | None) -> None:
    before, after = pruned.before, pruned.after
    rows = _rows(before, after)
    if tuned:
        rows += _tops(before, tuned.best.val_top1, tuned.test, ", fine-tuned")
    show.table(["", "before", "after", "of before"], rows, f"pruned to {show.share(after.macs / before.macs)} of its MACs")
    show.tell(_how(pruned.runtime))
    for line in pruned.no_gain:
        show.tell(f"nothing was gained in {line}" if line.startswith("milliseconds") else line)
    if not tuned:
        show.tell("only the head has learned since; fine-tuning wins back what the channels cost")


# ---- zeros -----------------------------------------------------------------------------------------------------------------------


def _sparse(path: Path, data: Path | None, output: Path, config: Any, teaching: Any, resume: bool, json: bool) -> None:
    old = training.begun(path, output)
    from nestling.compress.measure import RUNTIME, compare_costs, packed
    from nestling.compress.prune import sparsify
    from nestling.data.choose import training_data
    from nestling.models.float_graph import unfolded_graph

    made = training.taught(
        lambda session: sparsify(old, data, config, teaching, session),
        output,
        resume,
        json,
    )
    if made is None:
        return
    show.doubted(made.test)
    new = made.bundle
    dataset = training_data(old, data)
    with show.bars("capturing", 1) as advance:
        graphs = unfolded_graph(old), unfolded_graph(new)
        advance(1)
    compared = compare_costs(old, graphs[0], new, graphs[1], dataset, show.bars, refit=False)
    with show.bars("packing", 1) as advance:
        sizes = packed(graphs[0]), packed(graphs[1])
        advance(1)
    sparsity = new.lineage[-1].metrics["sparsity"]
    if json:
        costs = {
            name: _costs(measured) | {"zeros": size.zeros, "macs_left": size.macs_left, "compressed_bytes": dict(size.encoded)}
            for name, measured, size in zip(("before", "after"), (compared.before, compared.after), sizes, strict=True)
        }
        more = {"sparsity": sparsity, "compressed": _smallest(sizes), "no_gain": [_no_time(config)], "runtime": RUNTIME}
        show.as_json(training.plain(made, output) | asdict(config) | more | costs)
        return
    before, after = compared.before, compared.after
    rows = _rows(before, after)
    rows[1:1] = [_row("MACs with weights not 0", sizes[0].macs_left, sizes[1].macs_left, lambda count: f"{count / 1e6:.2f} M")]
    rows += [["zeros of all weights", show.share(sizes[0].zeros), show.share(sizes[1].zeros), ""]]
    rows += [_row(f"int8 weights, {name}", sizes[0].encoded[name], sizes[1].encoded[name], show.size) for name in sizes[0].encoded]
    show.table(["", "before", "after", "of before"], rows, f"{show.share(sparsity)} of the pruned layers' weights are zero")
    smallest = _smallest(sizes)
    show.tell(
        f"compressed  int8 weights take {smallest['share']:.3f} of the dense ones: {show.size(int(smallest['after']))} by "
        f"{smallest['after_by']}, {show.size(int(smallest['before']))} by {smallest['before_by']} before",
        f"zeros       {_no_time(config)}",
        _how(RUNTIME),
        f"val top-1   {show.share(made.best.val_top1)} in epoch {made.best.number}; {show.share(made.val_top1_before)} before",
        f"seconds     {show.seconds(made.seconds)}",
        f"written     {output}",
    )
    training.next_line(f"quantize {show.path_hint(output)} -o {show.path_hint(output.with_name('int8.nest'))}")


def _smallest(sizes: tuple[Packed, Packed]) -> dict[str, Any]:
    """Each by the encoding that suits it best."""
    (before_by, before), (after_by, after) = (size.best for size in sizes)
    return {"share": after / before, "before": before, "before_by": before_by, "after": after, "after_by": after_by}


def _no_time(config: Any) -> str:
    skipped = (
        "no runtime here skips single ones"
        if config.method == "unstructured"
        else "C skips them in 1x1 convolutions; other runtimes do not"
    )
    return f"{skipped}: files, memory and milliseconds are as before, only what is compressed is smaller"


# ---- both ------------------------------------------------------------------------------------------------------------------------


def _rows(before: Measured, after: Measured) -> list[list[str]]:
    return [
        _row("MACs", before.macs, after.macs, lambda count: f"{count / 1e6:.2f} M"),
        _row("parameters", before.parameters, after.parameters, lambda count: f"{count:,}"),
        _row("float size", before.bytes, after.bytes, show.size),
        _row("ms an embedding", before.ms, after.ms, lambda ms: f"{ms:.2f}"),
        *_tops(before, after.val_top1, after.test),
    ]


def _tops(before: Measured, val_top1: float, test: Evaluation, said: str = "") -> list[list[str]]:
    return [
        [f"val top-1{said}", show.share(before.val_top1), show.share(val_top1), _points(before.val_top1, val_top1)],
        [f"test top-1 [95%]{said}", show.top1(before.test), show.top1(test), _points(before.test.top1, test.top1)],
    ]


def _row(name: str, before: Any, after: Any, text: Any) -> list[str]:
    return [name, text(before), text(after), show.share(after / before) if before else ""]


def _costs(m: Measured) -> dict[str, object]:
    return {"macs": m.macs, "parameters": m.parameters, "bytes": m.bytes, "ms_median": m.ms} | _answers(m.val_top1, m.test)


def _answers(val_top1: float, test: Evaluation) -> dict[str, object]:
    return {"val_top1": val_top1, "top1": test.top1, "interval": test.interval}


def _how(runtime: str) -> str:
    return f"milliseconds: {runtime}, one image at a time on one thread, both networks in turns, the median"


def _where(data: Path | None) -> str:
    return show.path_hint(data) if data else "DATA"


def _points(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f} points"
