"""What `nestling quantize --qat` adds to quantize: its settings, the training, and what is told of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestling.cli import show, training

if TYPE_CHECKING:
    from nestling.graph.integers import QuantizeConfig
    from nestling.training.config import QatConfig
    from nestling.training.qat import Qat
    from nestling.words import Rounding


def wished(method: "Rounding", config: "QuantizeConfig", told: Mapping[str, Any], fold_after: int, distill: float) -> "QatConfig":
    """The settings, those that were told in the place of the usual ones."""
    from dataclasses import replace

    from nestling.training.config import QatConfig, usual_for_qat

    settings = replace(usual_for_qat(), **{name: value for name, value in told.items() if value is not None})
    return QatConfig(method, config, settings, fold_after, distill)


def trained(bundle: Path, data: Path | None, output: Path, config: "QatConfig", resume: bool, json: bool) -> "Qat | None":
    """None in a process of a team that does not lead it."""
    loaded = training.begun(bundle, output)
    from nestling.training.qat import qat

    return training.taught(lambda session: qat(loaded, data, config, session), output, resume, json)


def plain(found: "Qat") -> dict[str, object]:
    """As --json prints it."""
    return {
        "kept": found.which,
        "noise": found.noise,
        "best_epoch": found.best.number,
        "val_top1_qat": found.val_top1,
        "val_top1_post_training": found.post_val_top1,
        "val_top1_float": found.float_val_top1,
    }


def show_training(found: "Qat") -> None:
    """How the training compares with what it began from."""
    show.tell(
        f"validation top-1: trained {show.share(found.val_top1)} (epoch {found.best.number}), "
        f"post-training {show.share(found.post_val_top1)} with the same bits, float {show.share(found.float_val_top1)}",
        f"noise ratio {found.noise:.3f}: the int8 reference to the network that was trained, over that one to float",
    )
    if found.which == "post-training":
        show.say("the training is not better than post-training quantisation on the validation part: kept is the latter")
