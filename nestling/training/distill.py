"""distill: the network learns what a better one answers, not the labels alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize

from nestling.bundle import Bundle
from nestling.data.choose import training_data
from nestling.data.folders import Source
from nestling.progress import Progress
from nestling.training.config import DistillConfig, require_trainable, usual_for_distilling
from nestling.training.finetune import Lesson, Taught, teach
from nestling.training.loop import Batch, Loss
from nestling.training.samples import Samples
from nestling.training.session import Session
from nestling.training.teacher import Answers, asked, teacher_bundle, teacher_of, top1, warn_of_seen
from nestling.training.team import Team


def distill(
    bundle: Bundle,
    data: Source | None,
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
    training, progress = config.training or usual_for_distilling(bundle), session.progress
    require_trainable(bundle)
    config = replace(config, training=training)  # which it looks at
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
