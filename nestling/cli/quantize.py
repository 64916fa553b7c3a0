"""nestling quantize."""

from pathlib import Path
from time import perf_counter
from typing import Annotated, get_args

import typer

from nestling.cli import show

LISTED = 15  # layers in the table of --explain; the picture and --json have more


def command(
    bundle: Annotated[Path, typer.Argument(help="The fitted bundle.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The quantised bundle.")],
    data: Annotated[Path | None, typer.Option(help="The photographs it learned from.", show_default="where they were")] = None,
    bits_weights: Annotated[int, typer.Option(min=2, max=8, help="Bits of a weight; fewer than 8 are kept in int8.")] = 8,
    bits_activations: Annotated[int, typer.Option(min=2, max=8, help="Bits of an activation, likewise.")] = 8,
    symmetric: Annotated[bool, typer.Option("--symmetric", help="Activations around zero too, as TensorRT wants.")] = False,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="One weight scale a layer, not one a channel.")] = False,
    modes: Annotated[str, typer.Option(help="Float precisions to print as well, noted for export: fp16, dynamic.")] = "",
    explain: Annotated[bool, typer.Option("--explain", help="Show which layers cost most, with a picture beside OUTPUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Give a fitted network integers: smaller files, the same answers, every format printed from the same numbers.

    Example:  nestling quantize parts.nest -o parts8.nest
    """
    from dataclasses import asdict

    from nestling import bundle as bundles
    from nestling.graph.integers import Mode, QuantizeConfig
    from nestling.graph.quantize import quantized

    wanted = [mode.strip() for mode in modes.split(",") if mode.strip()]
    if unknown := [mode for mode in wanted if mode not in get_args(Mode)]:
        raise typer.BadParameter(f"--modes is of {', '.join(get_args(Mode))}; found {unknown[0]!r}")
    config = QuantizeConfig(
        bits_weights=bits_weights,
        bits_activations=bits_activations,
        symmetric=symmetric,
        per_layer=per_layer,
        modes=tuple(mode for mode in get_args(Mode) if mode in wanted),
    )
    start = perf_counter()
    made = quantized(bundles.load(bundle), data, config, show.bars)
    bundles.save(made.bundle, output)
    step = made.bundle.lineage[-1]
    plain: dict[str, object] = {"bundle": str(output), "seconds": perf_counter() - start} | dict(step.metrics)
    plain |= {"equalized": step.settings["equalized"], "bias_corrected": step.settings["bias_corrected"]}
    if explain:
        from nestling.graph.explain import draw, explained

        costs = explained(made, data, show.bars)
        picture = output.with_name(f"{output.stem}-layers.svg")
        draw(costs, picture)
        plain |= {"layers": [asdict(cost) for cost in costs], "picture": str(picture)}
        if not json:
            worst = sorted(costs, key=lambda cost: -cost.error_gain)[:LISTED]
            rows = [
                [c.layer, c.op, f"{c.sqnr:.1f}", f"{100 * c.error_gain:+.1f}%", f"{100 * c.top1_gain:+.1f} points"] for c in worst
            ]
            show.table(["layer", "op", "SQNR, dB", "logit error without it", "top-1 gained"], rows, "layers that cost most")
            show.out().print(f"all layers: {picture}")
    if json:
        show.as_json(plain)
        return
    show.out().print(
        f"validation top-1 {show.share(step.metrics['val_top1'])}; on the yardstick's "
        f"{len(made.bundle.yardstick.fingerprints) if made.bundle.yardstick else 0} images "
        f"{show.share(step.metrics['yardstick_top1'])} in int8, {show.share(step.metrics['yardstick_float_top1'])} in float"
    )
    kept = [name for name, key in (("equalisation", "equalized"), ("bias correction", "bias_corrected")) if step.settings[key]]
    show.out().print(f"kept because it helped: {', '.join(kept) or 'neither equalisation nor bias correction'}")
    show.out().print(f"written to {output}\nnext:  nestling export {show.path_hint(output)} --to tflite -o out/")
