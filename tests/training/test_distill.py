"""distill: whose answers are learned from, that they are of the images that were seen, and what they are made into."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from nestling.bundle import Bundle, Split, load, save
from nestling.data.folders import Item
from nestling.embedding.cache import embed
from nestling.errors import NestlingError
from nestling.formats.nest.floats import float_runner
from nestling.formats.nest.integers import integer_runner
from nestling.measure.answers import evaluate
from nestling.models import weights
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph
from nestling.preprocess.image import ImagePreprocess, Preprocess
from nestling.quantization.quantize import quantize
from nestling.training import distill as module
from nestling.training.augment import AUGMENTATIONS, Augmentation
from nestling.training.config import DistillConfig, TrainingConfig, usual_for_distilling
from nestling.training.distill import distill, distilling, similarities
from nestling.training.finetune import Taught
from nestling.training.fit import FitConfig, fit
from nestling.training.loop import Batch
from nestling.training.samples import Samples, read_samples
from nestling.training.session import Session
from nestling.training.teacher import Answers, Teacher, asked, teacher_of, warn_of_seen
from nestling.training.team import Team
from nestling.words import Augment
from tests.helpers.colour_photos import colour_photos

QUICK = TrainingConfig(epochs=3, batch=8, rate=1e-3, variations=2)
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("data"), 50, 60)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all tests of this file: what is tested of it has folders of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("NESTLING_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _cache(shared: Path) -> None:
    """NESTLING_CACHE is set for every test."""


@pytest.fixture(scope="module")
def student(photos: Path, shared: Path) -> Bundle:
    return fit(photos, config=FitConfig("mobilenetv3_small_050", "none", 32)).bundle


@pytest.fixture(scope="module")
def teaching(photos: Path, shared: Path) -> Bundle:
    """Another network, of another size."""
    return fit(photos, config=FitConfig("lcnet_035", "none", 48)).bundle


@pytest.fixture(scope="module")
def teacher(teaching: Bundle, shared: Path) -> Path:
    save(teaching, shared / "teacher.nest")
    return shared / "teacher.nest"


@pytest.fixture(scope="module")
def made(student: Bundle, photos: Path, teacher: Path) -> Taught:
    return distill(student, photos, teacher, DistillConfig(features=2.0, training=QUICK))


# ---- the loss --------------------------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """Gives these logits, by way of a head."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.head = nn.Linear(embeddings.shape[1], 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.embeddings)


def test_the_loss_is_hintons() -> None:
    """Written out with logarithms and sums, an image at a time; the targets are smoothed ones."""
    torch.manual_seed(0)
    network = Fixed(torch.randn(2, 5))
    answers = Answers(np.random.default_rng(0).normal(0, 3, (4, 6, 3)).astype(np.float32), None)
    targets = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])
    indices, variation, alpha, t = torch.tensor([5, 2]), 3, 0.7, 2.5
    loss = distilling(answers, DistillConfig(t, alpha))(network, Batch(torch.zeros(2, 1), targets, indices, variation))
    logits = network(torch.zeros(2, 1)).detach().double().numpy()
    for row, wanted in enumerate(loss.tolist()):
        p, q = (np.exp(z / t) / np.exp(z / t).sum() for z in (logits[row], answers.logits[variation, [5, 2][row]].astype(float)))
        hard = -(targets[row].double().numpy() * np.log(np.exp(logits[row]) / np.exp(logits[row]).sum())).sum()
        assert wanted == pytest.approx((1 - alpha) * hard + alpha * t * t * (q * np.log(q / p)).sum(), rel=1e-5)


def test_without_a_teachers_share_it_is_the_labels_loss() -> None:
    network, answers = Fixed(torch.randn(4, 5)), Answers(np.ones((1, 4, 3), np.float32), None)
    targets = torch.eye(3)[[0, 1, 2, 0]]
    loss = distilling(answers, DistillConfig(alpha=0))(network, Batch(torch.zeros(4, 1), targets, torch.arange(4)))
    torch.testing.assert_close(loss, cross_entropy(network(torch.zeros(4, 1)), torch.tensor([0, 1, 2, 0]), reduction="none"))


def test_similarities_are_those_of_numpy() -> None:
    """Pearson's correlation needs a vector's own mean; here it is the batch's: so cosines are written out."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(2, 1, (5, 7)), rng.normal(-1, 3, (5, 4))

    def cosines(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = x - x.mean(0)
        return np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in x] for a in x])

    found = similarities(torch.from_numpy(ours), torch.from_numpy(theirs)).numpy()
    np.testing.assert_allclose(found, ((cosines(ours) - cosines(theirs)) ** 2).mean(1), rtol=1e-9)
    turned = ours @ np.linalg.qr(rng.normal(0, 1, (7, 7)))[0] * 3 + 1  # the same pictures alike, in other numbers
    assert similarities(torch.from_numpy(ours), torch.from_numpy(turned)).max() < 1e-20


def test_embeddings_are_compared_where_it_is_asked_for() -> None:
    """The embedding is what the head was given; its gradient arrives, and a single image has nothing to be compared with."""
    embeddings = torch.randn(4, 5, requires_grad=True)
    network = Fixed(embeddings)
    answers = Answers(np.zeros((1, 4, 3), np.float32), np.random.default_rng(0).normal(0, 1, (1, 4, 6)).astype(np.float32))
    batch = Batch(torch.zeros(4, 1), torch.eye(3)[[0, 1, 2, 0]], torch.tensor([3, 1, 0, 2]))
    without = distilling(answers, DistillConfig(features=0))(network, batch)
    loss = distilling(answers, DistillConfig(features=5))(network, batch)
    assert answers.embeddings is not None
    theirs = torch.from_numpy(answers.embeddings[0, [3, 1, 0, 2]])
    torch.testing.assert_close(loss - without, 5 * similarities(embeddings, theirs))
    (gradient,) = torch.autograd.grad((loss - without).sum(), embeddings)
    assert gradient.isfinite().all() and gradient.abs().max() > 0.01
    assert similarities(embeddings[:1], theirs[:1]).tolist() == [0]


# ---- what the teacher answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["light", "none"])
def test_the_answers_are_of_the_images_that_are_seen(
    teaching: Bundle, photos: Path, teacher: Path, augment: Augment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher runs in torch on the very batches of the training: a student of its own size sees what it sees."""
    network = build(teaching)
    seen: set[tuple[int, int]] = set()
    images: dict[int, set[bytes]] = {}

    def spying(answers: Answers, lessons: DistillConfig) -> Any:
        real = distilling(answers, lessons)

        def loss(module: nn.Module, batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                wanted = network(batch.images)
            found = torch.from_numpy(answers.logits)[batch.variation, batch.indices]
            assert (found - wanted).abs().max() <= 1e-3 * wanted.abs().max()
            seen.update((batch.variation, int(index)) for index in batch.indices)
            for index, image in zip(batch.indices, batch.images, strict=True):
                images.setdefault(int(index), set()).add(image.numpy().tobytes())
            return real(module, batch)

        return loss

    monkeypatch.setattr(module, "distilling", spying)
    pupil = fit(photos, config=FitConfig("mobilenetv3_small_050", "none", 48)).bundle
    learned = distill(pupil, photos, teacher, DistillConfig(alpha=1.0, training=replace(QUICK, augment=augment, seed=5)))
    assert seen == {(k, i) for k in range(2) for i in range(27)}
    assert {len(found) for found in images.values()} == {2 if augment == "light" else 1}
    assert learned.history[-1].loss < learned.history[0].loss  # it comes nearer to its teacher


@dataclass
class Colours:
    """An engine that answers with an image's mean colour, and counts."""

    name: str = "colours"
    width: int = 3
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def embed(self, images: Iterator[NDArray[np.uint8]]) -> Iterator[Floats]:
        for image in images:
            self.asked.append(image.shape)
            yield image.mean((0, 1)).astype(np.float32)


PIXEL = 215 / 20  # how much redder one pixel is than the one to its left, in `pictures` at the student's size
PREPROCESS = ImagePreprocess((20, 20), 3, 0.9, "bilinear", (0.5,) * 3, (0.5,) * 3)


def colours(preprocess: Preprocess = PREPROCESS, order: tuple[int, ...] = (0, 1, 2)) -> tuple[Teacher, Colours]:
    engine = Colours()
    return Teacher(preprocess, engine, None, np.array(order)), engine


def pictures(folder: Path, count: int, augmentation: Augmentation = AUGMENTATIONS["light"]) -> Samples:
    """Photographs whose red grows to the right, whose green grows downwards, and whose blue is that of the photograph."""
    items = []
    for i in range(count):
        down, across = np.meshgrid(np.linspace(20, 235, 200), np.linspace(20, 235, 260), indexing="ij")
        Image.fromarray(np.stack([across, down, np.full_like(down, 10 * i)], 2).astype(np.uint8)).save(folder / f"{i}.png")
        items.append(Item(folder / f"{i}.png", i % 3, f"{i:016x}"))
    return read_samples(items, PREPROCESS, augmentation)[0]


@pytest.mark.parametrize("augment", ["none", "light", "strong"])
@pytest.mark.parametrize(("side", "crop"), [(20, 0.7), (32, 0.9), (26, 1.0)])
def test_a_teacher_of_another_size_sees_the_same_region(tmp_path: Path, augment: str, side: int, crop: float) -> None:
    """Of a picture whose colours are places: the student's image, enlarged by Pillow, is the teacher's, to within a pixel.

    Random erasing is left out of "strong": its rectangles are drawn in whole pixels of the varied image."""
    samples = pictures(tmp_path, 4, replace(AUGMENTATIONS[augment], erase=0.0))
    seen: list[NDArray[np.uint8]] = []
    teacher, engine = colours(replace(PREPROCESS, size=(side, side), crop=crop, interpolation="bicubic"))
    real = engine.embed
    engine.embed = lambda images: real(seen.append(image) or image for image in images)  # type: ignore[method-assign, func-returns-value]  # a spy
    asked(teacher, samples, 7, 3, cache=tmp_path / "cache")
    ours = [samples.image(i, 7, k) for k in range(3) for i in range(4)]
    assert [image.shape for image in seen] == [(side, side, 3)] * 12
    for mine, theirs in zip(ours, seen, strict=True):
        enlarged = np.asarray(Image.fromarray(mine).resize((side, side), Image.Resampling.BILINEAR)).astype(float)
        inner = slice(2, -2)  # at the edges interpolations differ
        off = np.abs(enlarged - theirs)[inner, inner]
        # RandAugment posterises and turns values over at a threshold: there a pixel may be far off
        assert np.median(off) < PIXEL and (augment == "strong" or off.mean() < PIXEL / 2)


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    samples = pictures(tmp_path, 5)
    teacher, engine = colours()
    first = asked(teacher, samples, 1, 3, cache=tmp_path / "cache")
    assert len(engine.asked) == 15 and first.embeddings is None
    again = asked(teacher, samples, 1, 3, cache=tmp_path / "cache")
    assert len(engine.asked) == 15 and np.array_equal(first.logits, again.logits)
    wanted = [[samples.image(i, 1, k).mean((0, 1)) for i in range(5)] for k in range(3)]
    np.testing.assert_allclose(first.logits, wanted, rtol=1e-5)
    asked(teacher, samples, 1, 4, cache=tmp_path / "cache")
    assert len(engine.asked) == 20  # one variation more
    damaged = sorted((tmp_path / "cache").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:-7])
    mended = asked(teacher, samples, 1, 4, cache=tmp_path / "cache")
    assert len(engine.asked) == 25 and np.array_equal(first.logits, mended.logits[:3])
    with_embeddings = asked(teacher, samples, 1, 3, embeddings=True, cache=tmp_path / "cache")
    assert with_embeddings.embeddings is not None and with_embeddings.embeddings.shape == (3, 5, 3)


@pytest.mark.parametrize("what", ["seed", "teacher", "labels", "augmentation", "photographs", "size", "order"])
def test_what_depends_on_something_else_is_asked_anew(tmp_path: Path, what: str) -> None:
    samples = pictures(tmp_path, 3)
    asked(colours()[0], samples, 1, 1, cache=tmp_path / "cache")
    teacher, engine = colours(order=(2, 0, 1)) if what == "labels" else colours()
    if what == "teacher":
        engine.name = "other colours"
    other = {
        "augmentation": replace(samples, augmentation=AUGMENTATIONS["strong"]),
        "photographs": replace(samples, items=(replace(samples.items[0], fingerprint="f" * 16), *samples.items[1:])),
        "size": replace(samples, preprocess=replace(PREPROCESS, size=(24, 24))),
        "order": replace(samples, items=samples.items[::-1]),
    }.get(what, samples)
    asked(teacher, other, 2 if what == "seed" else 1, 1, cache=tmp_path / "cache")
    assert len(engine.asked) == 3


def test_a_team_divides_the_questions(tmp_path: Path) -> None:
    """Each process has zeros where another one asks, so that their sum is what one alone has."""

    @dataclass(frozen=True)
    class Half(Team):
        def sums(self, values: torch.Tensor) -> torch.Tensor:
            return values

    samples = pictures(tmp_path, 70)
    alone = asked(colours()[0], samples, 1, 2, cache=tmp_path / "alone").logits
    engines = []
    halves = []
    for rank in range(2):
        teacher, engine = colours()
        halves.append(asked(teacher, samples, 1, 2, team=Half(rank, 2), cache=tmp_path / str(rank)).logits)
        engines.append(len(engine.asked))
    assert sum(engines) == 140 and min(engines) > 0
    assert np.array_equal(halves[0] + halves[1], alone) and not ((halves[0] != 0) & (halves[1] != 0)).any()


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NestlingError, match="24x20 pixels, the student of 20x20"):
        asked(colours(replace(PREPROCESS, size=(24, 20)))[0], pictures(tmp_path, 1), 0, 1, cache=tmp_path)


# ---- who teaches -----------------------------------------------------------------------------------------------------------------


def logits(teacher: Teacher, images: NDArray[np.uint8]) -> Floats:
    return teacher.logits(np.array(list(teacher.engine.embed(iter(images)))))


def noise(side: int, count: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def test_labels_in_another_order_are_put_in_the_students(teaching: Bundle) -> None:
    usual_order = float_runner(teaching)(noise(48))
    teacher = teacher_of(teaching, ("plum", "apple", "lime"), 4)
    np.testing.assert_allclose(logits(teacher, noise(48)), usual_order[:, [2, 0, 1]], rtol=1e-5)


def test_other_labels_are_refused(student: Bundle, teaching: Bundle, photos: Path, tmp_path: Path) -> None:
    for labels, said in (
        (("apple", "lime", "pear"), "apple, lime, pear; the student apple, lime, plum"),
        ((), "of no photographs"),
    ):
        save(replace(teaching, labels=labels, head=teaching.head if labels else None), tmp_path / "other.nest")
        with pytest.raises(NestlingError, match=said):
            distill(student, photos, tmp_path / "other.nest", DistillConfig(training=QUICK))


def test_a_graph_teaches_and_so_does_one_that_keeps_its_own_end(teaching: Bundle, student: Bundle) -> None:
    graph = replace(student, architecture=float_graph(student), arrays={})
    wanted = float_runner(student)(noise(32))
    for count in (4, 100):  # torch, OpenVINO
        np.testing.assert_allclose(logits(teacher_of(graph, student.labels, count), noise(32)), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_integers_teach(student: Bundle, photos: Path) -> None:
    """An imported integer network has no float one; LiteRT's quick kernels stand for the reference within quantisation's noise."""
    integers = replace(quantize(student, photos), architecture=None, arrays={})
    wanted = integer_runner(integers)(noise(32))
    found = logits(teacher_of(integers, ("lime", "apple", "plum"), 100), noise(32))
    assert np.sqrt(((found[:, [1, 0, 2]] - wanted) ** 2).mean()) < 0.2 * wanted.std()


def test_a_timm_teacher_learns_from_train_alone(student: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head is that of `fit` with the same division; none of its photographs are of the test part."""
    seen: set[str] = set()
    from nestling.training import teacher as teachers

    real = embed

    def spied(items, *more, **named):
        seen.update(item.fingerprint for item in items)
        return real(items, *more, **named)

    monkeypatch.setattr(teachers, "embed", spied)
    made = distill(student, photos, "tf_efficientnet_lite0", DistillConfig(teacher_size=32, training=replace(QUICK, epochs=1)))
    assert student.split is not None and seen == {*student.split.train, *student.split.val}
    direct = fit(photos, config=FitConfig("tf_efficientnet_lite0", "package", 32)).bundle.lineage[-1].metrics["val_top1"]
    assert made.bundle.lineage[-1].settings["teacher_val_top1"] == pytest.approx(direct)
    assert made.bundle.preprocess == student.preprocess and made.bundle.architecture == student.architecture


def test_weights_that_cannot_be_had(student: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "reachable", lambda url: False)
    with pytest.raises(NestlingError, match=r"resnet50.a1_in1k are not on this machine, and .* can't be reached") as error:
        distill(student, photos, "resnet50.a1_in1k", DistillConfig(training=QUICK))
    assert "--backbone resnet50.a1_in1k --weights FILE -o teacher.nest" in error.value.hint


def test_a_teacher_that_has_seen_the_judges_photographs_is_named(student: Bundle, teaching: Bundle) -> None:
    assert teaching.split is not None and student.split == teaching.split
    split = Split(1, (*teaching.split.train, *teaching.split.val[:4], teaching.split.test[0]))
    with pytest.warns(UserWarning, match="learned from 4 of the photographs that this bundle is validated on, and from 1 that"):
        warn_of_seen(replace(teaching, split=split), student)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_seen(teaching, student)


# ---- what comes of it ------------------------------------------------------------------------------------------------------------


def test_the_distilled_bundle(student: Bundle, teacher: Path, made: Taught, photos: Path, tmp_path: Path) -> None:
    save(made.bundle, tmp_path / "distilled.nest")
    found = load(tmp_path / "distilled.nest")
    assert evaluate(tmp_path / "distilled.nest", photos).evaluation.top1 == pytest.approx(made.test.top1)
    assert (found.architecture, found.labels, found.split) == (student.architecture, student.labels, student.split)
    step = found.lineage[-1]
    told = {"teacher": str(teacher), "temperature": 4.0, "alpha": 0.9, "features": 2.0, "variations": 2, "epochs": 3}
    assert step.name == "distill" and told.items() <= step.settings.items()


def test_resumed_is_the_same_bundle(student: Bundle, photos: Path, teacher: Path, made: Taught, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(epoch: object) -> None:
        raise StopError

    checkpoint, lessons = tmp_path / "a.checkpoint", DistillConfig(features=2.0, training=QUICK)
    with pytest.raises(StopError):
        distill(student, photos, teacher, lessons, session=Session(checkpoint=checkpoint, told=stop))
    resumed = distill(student, photos, teacher, lessons, session=Session(checkpoint=checkpoint, resume=True))
    assert resumed.resumed == 1
    assert all(np.array_equal(resumed.bundle.arrays[name], array) for name, array in made.bundle.arrays.items())
    with pytest.raises(NestlingError, match="belongs to another run; it differs in alpha"):
        distill(student, photos, teacher, replace(lessons, alpha=0.5), session=Session(checkpoint=checkpoint, resume=True))


def test_only_the_last_blocks_learn(student: Bundle, photos: Path, teacher: Path) -> None:
    after = distill(student, photos, teacher, DistillConfig(features=1.0, training=replace(QUICK, epochs=1, blocks=1))).bundle
    changed = {name for name, array in student.arrays.items() if not np.array_equal(after.arrays[name], array)}
    assert changed == {name for name in student.arrays if name.startswith("conv_head.")}


def test_random_weights_want_other_settings(student: Bundle, made: Taught) -> None:
    random, learned = usual_for_distilling(student), usual_for_distilling(made.bundle)
    assert random.rate > learned.rate and random.epochs > learned.epochs


@pytest.mark.parametrize(
    ("change", "training", "lessons", "said"),
    [
        ({"architecture": None}, {}, {}, "no float weights"),
        ({"split": None}, {}, {}, "not learned any classes"),
        ({}, {"augment": "wild"}, {}, "none, light, strong"),
        ({}, {"mixup": 0.2}, {}, "leave out --mixup and --cutmix"),
        ({}, {"cutmix": 1.0}, {}, "leave out --mixup and --cutmix"),
        ({}, {}, {"temperature": 0}, "--temperature is above 0"),
        ({}, {}, {"alpha": 1.5}, "--alpha is from 0"),
        ({}, {}, {"features": -1}, "--features is 0 or more"),
        ({}, {}, {"teacher_size": 64}, "leave out --teacher-size"),
    ],
)
def test_what_cannot_be_is_said(
    student: Bundle,
    photos: Path,
    teacher: Path,
    change: dict[str, Any],
    training: dict[str, Any],
    lessons: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(NestlingError) as error:
        config = DistillConfig(**lessons, training=replace(QUICK, **training))
        distill(replace(student, **change), photos, teacher, config)
    assert said in str(error.value)
