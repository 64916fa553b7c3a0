"""What a teacher brings to a small network that learns from scratch, over the same training by the labels alone.

    python benchmarks/distill.py --teacher fine.nest --data FOLDER [--student-backbone mobilenetv2_050] [--size 64] [--epochs 30]
        [--seeds 3] [--weights none] [--temperature T] [--alpha A] [--features B] [--rate R] [--augment A] [--fresh]
        [--half]

The student's division into parts is the teacher's, so that neither learned from what both are judged on. A seed makes the random
weights, the order and the variations; both trainings have the same settings. --fresh: by the labels alone each epoch has variations
of its own. --half: with the teacher also for half of the epochs. The minutes with the teacher hold those in which it answers.
Prints a row of Markdown for each seed, and the means.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from photographs import folder

from nestling.bundle import Bundle, load
from nestling.bundle import Step as LineageStep
from nestling.models.backbones import create
from nestling.processor import processor
from nestling.training.config import DistillConfig, usual_for_distilling
from nestling.training.distill import distill
from nestling.training.finetune import Taught, finetune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--student-backbone", default="mobilenetv2_050")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=DistillConfig.temperature)
    parser.add_argument("--alpha", type=float, default=DistillConfig.alpha)
    parser.add_argument("--features", type=float, default=DistillConfig.features)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--augment", default="light", help="none, light, strong; of both trainings")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--half", action="store_true")
    arguments = parser.parse_args()
    teacher = load(arguments.teacher)
    lessons = DistillConfig(arguments.temperature, arguments.alpha, arguments.features)
    with folder(arguments.data) as data:
        print(
            f"{processor()}; torch {version('torch')}, timm {version('timm')}; {arguments.data or 'ELPV'}, "
            f"{arguments.student_backbone} ({arguments.weights}) at {arguments.size} pixels, teacher {arguments.teacher} at "
            f"{teacher.preprocess.size[0]}; {arguments.augment} variations; {lessons}\n"
        )
        print("| seed | epochs | labels alone: val, test, minutes | with the teacher: val, test, minutes | gain on test, points |")
        print("|---|---|---|---|---|")
        tops = [row(data, teacher, lessons, arguments, seed) for seed in range(arguments.seeds)]
    plain, taught, *half = np.mean(tops, axis=0)
    print(f"\nmean test top-1: labels alone {plain:.2%}, with the teacher {taught:.2%}, {100 * (taught - plain):+.1f} points")
    if half:
        print(f"with the teacher for half of the epochs {half[0]:.2%}, {100 * (half[0] - plain):+.1f} points")


def row(data: Path, teacher: Bundle, lessons: DistillConfig, arguments: argparse.Namespace, seed: int) -> tuple[float, ...]:
    """Test top-1 by the labels alone, with the teacher, and where wanted with it for half of the epochs."""
    student = student_of(teacher, arguments, seed)
    config = replace(usual_for_distilling(student), epochs=arguments.epochs, seed=seed)
    config = replace(config, rate=arguments.rate or config.rate, augment=arguments.augment)
    plain, plain_minutes = timed(lambda: finetune(student, data, replace(config, variations=None) if arguments.fresh else config))
    taught, taught_minutes = timed(lambda: distill(student, data, arguments.teacher, replace(lessons, training=config)))
    line = [str(seed), str(arguments.epochs), said(plain, plain_minutes), said(taught, taught_minutes)]
    print(f"| {' | '.join(line)} | {100 * (taught.test.top1 - plain.test.top1):+.1f} |", flush=True)
    if not arguments.half:
        return plain.test.top1, taught.test.top1
    fewer = replace(config, epochs=arguments.epochs // 2)
    half, minutes = timed(lambda: distill(student, data, arguments.teacher, replace(lessons, training=fewer)))
    gain = f"{100 * (half.test.top1 - plain.test.top1):+.1f}"
    print(f"| {seed} | {fewer.epochs} | | {said(half, minutes)} | {gain} over {arguments.epochs} epochs without |", flush=True)
    return plain.test.top1, taught.test.top1, half.test.top1


def student_of(teacher: Bundle, arguments: argparse.Namespace, seed: int) -> Bundle:
    """A backbone with the teacher's labels and division, without a head: the training gives it one."""
    architecture, arrays, preprocess = create(arguments.student_backbone, arguments.weights, arguments.size, seed)
    fitted = tuple(LineageStep("fit", step.settings, step.data) for step in teacher.lineage if step.name == "fit")
    return Bundle(architecture, arrays, None, teacher.labels, preprocess, teacher.split, fitted)


def timed(work: Callable[[], Taught]) -> tuple[Taught, float]:
    start = perf_counter()
    made = work()
    return made, (perf_counter() - start) / 60


def said(made: Taught, minutes: float) -> str:
    return f"{made.best.val_top1:.1%}, {made.test.top1:.1%}, {minutes:.1f}"


if __name__ == "__main__":
    main()
