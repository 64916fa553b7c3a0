"""distill: the network learns what a better one answers, not the labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize

from nestling.bundle import Bundle, Timm
from nestling.data.choose import training_data
from nestling.errors import NestlingError
from nestling.progress import Progress
from nestling.training.finetune import Lesson, Taught, TrainingConfig, require_sensible, teach
from nestling.training.loop import Batch, Loss
from nestling.training.samples import Samples
from nestling.training.session import Session
from nestling.training.teacher import Answers, asked, teacher_bundle, teacher_of, top1, warn_of_seen
from nestling.training.team import Team


@dataclass(frozen=True)
class DistillConfig:
    """How the teacher is listened to, and how the student learns.

    temperature: what both networks' logits are divided by; above 1 it shows what the teacher thinks of the other classes.
    alpha: share of the loss that is the teacher's, the rest is the labels'. features: weight of the embeddings' similarities
    beside them, 0 for none. teacher_size: side of the input of a teacher by timm's name, None for its own.
    training: None for what is usual for the bundle.
    """

    temperature: float = 4.0
    alpha: float = 0.9
    features: float = 0.0
    teacher_size: int | None = None
    training: TrainingConfig | None = None


def usual(bundle: Bundle) -> TrainingConfig:
    """Settings to distill this bundle with; those for a network of random weights differ from those for one that has learned."""
    if from_scratch(bundle):
        return TrainingConfig(epochs=30, rate=4e-3, backbone_rate=1.0, variations=8)
    return TrainingConfig(epochs=10, variations=8)


def from_scratch(bundle: Bundle) -> bool:
    """Whether the backbone's weights are random."""
    random = isinstance(bundle.architecture, Timm) and bundle.architecture.weights.startswith("none")
    return random and not any(step.name in ("finetune", "distill", "prune", "search") for step in bundle.lineage)


def distill(
    bundle: Bundle,
    data: Path | None,
    teacher: str | Path,
    config: DistillConfig | None = None,
    session: Session | None = None,
) -> Taught:
    """Train the bundle's float network on, by the labels and by what a teacher answers to the same images.

    teacher: a bundle (NAME.nest) of the same classes, or a timm name (see teacher_bundle). It answers each variation of each
    training photograph once, before the training; without variations in config.training each epoch has images and answers of its
    own. See teach() for the rest. Raises NestlingError where the teacher knows other classes, and for settings that cannot be.
    """
    config, session = config or DistillConfig(), session or Session()
    training, progress = config.training or usual(bundle), session.progress
    require_sensible(bundle, training)
    _require_possible(training, config)
    dataset = training_data(bundle, data)
    teaching = teacher_bundle(str(teacher), bundle, dataset, config.teacher_size, progress)
    warn_of_seen(teaching, bundle)
    variations = min(training.variations or training.epochs, training.epochs)
    answering = teacher_of(teaching, bundle.labels, len(dataset.items) * variations)
    settings = {
        "teacher": str(teacher),
        "teacher_val_top1": round(top1(answering, bundle, dataset, progress), 6),
        "temperature": config.temperature,
        "alpha": config.alpha,
        "features": config.features,
    }

    def loss_of(sized: Bundle, samples: Samples, team: Team, progress: Progress) -> Loss:
        answers = asked(answering, samples, training.seed, variations, config.features > 0, training.workers, team, progress)
        return distilling(answers, config)

    lesson = Lesson("distill", settings, loss_of, settings | {"teacher": answering.name})
    return teach(bundle, data, training, lesson, session)


def distilling(answers: Answers, config: DistillConfig) -> Loss:
    """by_teacher + features * similarities, an image."""
    teacher = torch.from_numpy(answers.logits)
    embeddings = torch.from_numpy(answers.embeddings) if answers.embeddings is not None else None

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        logits, embedding = _both(network, batch.images) if embeddings is not None else (network(batch.images).float(), None)
        device = logits.device
        theirs = teacher[batch.variation, batch.indices].to(device)
        both = by_teacher(logits, theirs, batch.targets, config.alpha, config.temperature)
        if embeddings is None or embedding is None:
            return both
        return both + config.features * similarities(embedding, embeddings[batch.variation, batch.indices].to(device))

    return loss


def by_teacher(logits: Tensor, theirs: Tensor, targets: Tensor, alpha: float, temperature: float) -> Tensor:
    """(1 - alpha) CE(targets, p) + alpha T^2 KL(softmax(teacher / T) || softmax(student / T)), an image: float32 [N, C] -> [N].

    Source: Hinton et al. 2015; T^2 keeps the gradients' size the same at any T.
    """
    hard = cross_entropy(logits, targets, reduction="none")
    ours, wanted = log_softmax(logits / temperature, 1), log_softmax(theirs / temperature, 1)
    soft = kl_div(ours, wanted, reduction="none", log_target=True).sum(1)
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def similarities(student: Tensor, teacher: Tensor) -> Tensor:
    """How differently two networks find the images of a batch alike: float32 [N, D], [N, E] -> [N].

    Of each image the mean square of (cosine in one - cosine in the other) over all images of the batch, of embeddings without the
    batch's mean, which else makes all of them alike. It asks for no map from D to E, so it has no parameters.
    Source: Tung and Mori 2019 (similarity-preserving), with cosines in place of their row-normalised products.
    """
    ours, theirs = (normalize(x - x.mean(0, keepdim=True), dim=1) for x in (student, teacher))
    return (ours @ ours.T - theirs @ theirs.T).square().mean(1)


def _both(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, embeddings) by one call of the network, wrapped by a team or not: the embedding is what its head was given."""
    head: nn.Module = getattr(network, "module", network).get_submodule("head")
    given: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda head, inputs: given.append(inputs[0]))
    try:
        logits = network(images).float()
    finally:
        hook.remove()
    return logits, given[0].float()


def _require_possible(training: TrainingConfig, config: DistillConfig) -> None:
    if training.mixup or training.cutmix:
        raise NestlingError("the teacher was not asked about mixed photographs.", "leave out --mixup and --cutmix")
    if not config.temperature > 0:
        raise NestlingError(f"--temperature is above 0; found {config.temperature:g}.")
    if not 0 <= config.alpha <= 1:
        raise NestlingError(f"--alpha is from 0 (the labels alone) to 1 (the teacher alone); found {config.alpha:g}.")
    if not config.features >= 0:
        raise NestlingError(f"--features is 0 or more; found {config.features:g}.")
