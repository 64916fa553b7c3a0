"""nestling quantize."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from nestling.cli import options, show, training
from nestling.cli import qat as qat_training
from nestling.errors import WrongOption
from nestling.words import Mode, Rounding

if TYPE_CHECKING:
    from nestling.quantization.bits import LayerBits
    from nestling.quantization.quantize import Quantized
    from nestling.training.qat import Qat

LISTED = 15  # layers in the table of --explain; the picture and --json have more


def command(
    bundle: Annotated[Path, options.bundle()],
    output: options.NewBundle,
    data: options.DataOption = None,
    bits_weights: Annotated[int, typer.Option(min=2, max=8, help="Bits of a weight; fewer than 8 are kept in int8.")] = 8,
    bits: Annotated[str, typer.Option(help="auto: 2, 4 or 8 bits of weights layer by layer, within --budget.")] = "",
    budget: Annotated[str, typer.Option(help="Of --bits auto: bytes for the weights, as 100K or 100000.")] = "",
    bits_activations: Annotated[int, typer.Option(min=2, max=8, help="Bits of an activation, likewise.")] = 8,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Activations around zero too, as TensorRT wants.")] = False,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="One weight scale a layer, not one a channel.")] = False,
    first_last_8: Annotated[
        bool, typer.Option("--first-last-8", help="8 bits for the weights of the first and last layer.")
    ] = False,
    qat: Annotated[
        Rounding | None,
        options.one_of("--qat", get_args(Rounding), "Train with rounded values before.", show_default="no"),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of --qat: how often it sees each photograph.")] = 15,
    rate: Annotated[float | None, typer.Option(help="Of --qat: learning rate of the head.", show_default="0.002")] = None,
    fold_after: Annotated[int, typer.Option(min=0, help="Of --qat: epochs in which BatchNorm learns before it is folded.")] = 0,
    distill: Annotated[float, typer.Option(help="Of --qat: share of the loss that the float network's answers have.")] = 0.0,
    augment: training.Augment = "light",
    batch: training.Batch = 32,
    seed: training.Seed = 0,
    workers: training.Workers = 0,
    resume: training.Resume = False,
    modes: Annotated[str, typer.Option(help="Float precisions to print as well, noted for export: fp16, dynamic.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Show which layers cost most, with a picture beside OUTPUT.")] = False,
    json: options.Json = False,
) -> None:
    """Give a fitted network integers: smaller files, the same answers, every format printed from the same numbers.

    Example:  nestling quantize parts.nest -o parts8.nest

    Few bits, trained:  nestling quantize parts.nest -o parts4.nest --qat lsq --bits-weights 4
    """
    from dataclasses import asdict, replace

    from nestling import bundle as bundles
    from nestling.graph.integers import QuantizeConfig
    from nestling.quantization.quantize import quantized
    from nestling.scores import doubts

    most = _budget(bits, budget, bits_weights)
    config = QuantizeConfig(
        bits_weights=bits_weights,
        bits_activations=bits_activations,
        symmetric=symmetric,
        per_layer=per_layer,
        ends_at_8=first_last_8,
        modes=tuple(options.words("--modes", modes, get_args(Mode))) if modes else (),
    )
    options.room_beside(output, bundle)
    start = perf_counter()
    plan: tuple[LayerBits, ...] = ()
    if most is not None:
        from nestling.quantization.bits import bits_for, layer_bits

        plan = bits_for(bundles.load(bundle), data, most, config, show.bars)
        config = replace(config, layer_bits=layer_bits(plan))
    found: Qat | None = None
    if qat:
        told = {"epochs": epochs, "augment": augment, "batch": batch, "seed": seed, "workers": workers, "rate": rate}
        wished = qat_training.wished(qat, config, told, fold_after, distill)
        found = qat_training.trained(bundle, data, output, wished, resume, json)
        if found is None:
            return
        made = found.kept
    else:
        made = quantized(bundles.load(bundle), data, config, show.bars)
        bundles.save(made.bundle, output)
    step = made.bundle.lineage[-1]
    alone = doubts.int8_answer(made.bundle)
    show.warnings([doubts.of_int8_answer(alone)] if alone is not None else [])
    plain: dict[str, object] = {"bundle": str(output), "seconds": {"all": perf_counter() - start}} | dict(step.metrics)
    plain |= {"one_answer": alone} | {key: step.settings[key] for key in ("equalized", "bias_corrected")}
    plain |= (qat_training.plain(found) if found else {}) | (_explained(made, data, output, json) if explain else {})
    if plan:
        plain |= {"bits": [asdict(row) for row in plan], "budget_bytes": most, "weight_bytes": sum(row.bytes for row in plan)}
        if not json:
            _show_bits(plan)
    if not json:
        return _show(made, found, output)
    show.as_json(plain)


def _explained(made: "Quantized", data: Path | None, output: Path, json: bool) -> dict[str, object]:
    from dataclasses import asdict

    from nestling.quantization.explain import draw, explained

    costs = explained(made, data, show.bars)
    picture = output.with_name(f"{output.stem}-layers.svg")
    draw(costs, picture)
    if not json:
        worst = sorted(costs, key=lambda cost: -cost.error_gain)[:LISTED]
        rows = [[c.layer, c.op, f"{c.sqnr:.1f}", f"{100 * c.error_gain:+.1f}%", f"{100 * c.top1_gain:+.1f} points"] for c in worst]
        show.table(["layer", "op", "SQNR, dB", "logit error without it", "top-1 gained"], rows, "layers that cost most")
        show.tell(f"all layers: {picture}")
    return {"layers": [asdict(cost) for cost in costs], "picture": str(picture)}


def _show(made: "Quantized", found: "Qat | None", output: Path) -> None:
    step = made.bundle.lineage[-1]
    show.tell(
        f"validation top-1 {show.share(step.metrics['val_top1'])}; on the yardstick's "
        f"{len(made.bundle.yardstick.fingerprints) if made.bundle.yardstick else 0} images "
        f"{show.share(step.metrics['yardstick_top1'])} in int8, {show.share(step.metrics['yardstick_float_top1'])} in float"
    )
    if found:
        qat_training.show_training(found)
    kept = [name for name, key in (("equalisation", "equalized"), ("bias correction", "bias_corrected")) if step.settings[key]]
    if found is None or found.which == "post-training":
        show.tell(f"kept because it helped: {', '.join(kept) or 'neither equalisation nor bias correction'}")
    show.tell(f"written to {output}", f"next:  nestling export {show.path_hint(output)} --to tflite -o out/")


def _budget(bits: str, budget: str, bits_weights: int) -> int | None:
    """Bytes; None without --bits auto."""
    from nestling.formats.c.plan.report import parse_size

    if bits not in ("", "auto"):
        raise WrongOption(f"--bits is auto, found {bits!r}; one number for all layers is --bits-weights.")
    if (bits == "auto") != bool(budget):
        raise WrongOption("--bits auto and --budget BYTES go together.")
    if bits and bits_weights < 8:
        raise WrongOption("--bits auto chooses what --bits-weights would fix; give one of them.")
    return parse_size(budget) if budget else None


def _show_bits(plan: "Sequence[LayerBits]") -> None:
    rows = [[r.source or r.layer, r.op, f"{r.weights:,}", str(r.bits), f"{r.bytes:,}", f"{r.cost:.2g}"] for r in plan]
    counts = ", ".join(f"{sum(row.bits == n for row in plan)} at {n} bits" for n in sorted({row.bits for row in plan}))
    title = f"{sum(row.bytes for row in plan):,} bytes of weights: layers {counts}"
    show.table(["layer", "op", "weights", "bits", "bytes", "cost alone, nats"], rows, title)
