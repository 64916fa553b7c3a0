"""What a figure leaves open, in words: no better than always saying the largest class, classes of which too little is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle, never_taught
from nestling.scores.evaluate import LEAST_TOLD, Evaluation

UNEVEN = 5  # times as many photographs of one class as of another
ENOUGH = 5 * LEAST_TOLD - 2  # photographs of a class of which LEAST_TOLD fall into test


def one_answer(logits: NDArray[np.float32], labels: Sequence[str]) -> str | None:
    """The class that all of two or more photographs get; None where they get different ones. logits: float32 [N, classes]."""
    answers = np.unique(logits.argmax(axis=1))
    return labels[int(answers[0])] if len(answers) == 1 and len(logits) > 1 and len(labels) > 1 else None


def only_answered(evaluation: Evaluation) -> str | None:
    """The class that photographs of several classes all get; None where they get different ones."""
    answered = np.flatnonzero(evaluation.confusion.sum(axis=0))
    return evaluation.labels[int(answered[0])] if len(answered) == 1 and _several(evaluation) else None


def int8_answer(bundle: Bundle) -> str | None:
    """The class that the int8 reference gives all of the yardstick's photographs; None where they get several, or it has none."""
    return one_answer(bundle.yardstick.logits, bundle.labels) if bundle.yardstick else None


def of_int8_answer(label: str) -> str:
    """That said."""
    return of_one_answer(label, "the yardstick's validation photographs", "the int8 network")


def of_one_answer(label: str, part: str, network: str = "the network") -> str:
    """That said."""
    return f"{network} answers {label!r} for every photograph of {part}: it tells nothing apart"


def of_random_weights(bundle: Bundle) -> str:
    """Why quantisation leaves little of a network that has learned nothing; "" for one that has."""
    if not never_taught(bundle):
        return ""
    return (
        "the backbone's weights are random (--weights none): to such a network photographs differ by little more than the "
        "roundings of quantisation, which leave hardly anything of it; take weights that have learned (fit --weights), or let it "
        "learn (nestling finetune, distill)"
    )


def of_answers(test: Evaluation, part: str = "the test part") -> tuple[str, ...]:
    """Whether the answers are worth more than none."""
    if (label := only_answered(test)) is not None:
        return (of_one_answer(label, part),)
    if test.interval[0] <= test.majority and _several(test):
        better = "not better than" if test.top1 <= test.majority else "not surely better than"
        always = f"always answering {test.majority_class!r} ({100 * test.majority:.1f}%)"
        return (f"top-1 on {part}, {100 * test.top1:.1f}%, is {better} {always}",)
    return ()


def of_classes(test: Evaluation, train: Mapping[str, int], balanced: bool) -> tuple[str, ...]:
    """Classes that are tiny, or far smaller than others; with what to type. train: of each class, photographs learned from."""
    said = []
    tiny = [row.label for row in test.per_class if row.images < LEAST_TOLD]
    if tiny:
        rest = [label for label in test.labels if label not in tiny]
        leave = f", or leave out with  --classes {','.join(rest)}" if len(rest) > 1 else ""
        said.append(
            f"fewer than {LEAST_TOLD} test photographs of {_listed(tiny)}: how well they are recognised cannot be told; "
            f"add photographs ({ENOUGH} of a class are enough){leave}"
        )
    most, least = max(train, key=lambda label: train[label]), min(train, key=lambda label: train[label])
    if train[most] >= UNEVEN * max(train[least], 1) and not balanced:
        said.append(
            f"{train[most]} photographs of {most!r} to learn from and {train[least]} of {least!r}: the many weigh more; "
            "add photographs of the few, or let each class weigh the same with  --balanced"
        )
    return tuple(said)


def _several(evaluation: Evaluation) -> bool:
    return int(np.count_nonzero(evaluation.confusion.sum(axis=1))) > 1


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
