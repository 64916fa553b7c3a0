"""The training loop on a network of two layers, judged by torch's own parts put together by hand."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nestling.errors import NestlingError, UnusableFile
from nestling.training.augment import AUGMENTATIONS, Augmentation, Mixing
from nestling.training.loop import Batch, LoopConfig, Task, Trained, optimiser_of, rate_at, train
from nestling.training.loop_state import Epoch
from nestling.training.samples import read_samples, shuffled
from nestling.training.session import Session
from tests import ROOT
from tests.training import tiny as program
from tests.training.tiny import CLASSES, PREPROCESS, Tiny, samples, tiny

PLAIN = LoopConfig(epochs=4, batch=8, rate=0.01, warmup=1.0)
RICH = replace(PLAIN, mixing=Mixing(0.3, 0.3), smoothing=0.1, average=0.9)


def run(config: LoopConfig, count: int = 30, augmentation: str = "none", **session: Any) -> Trained:
    inputs = samples(count, augmentation, side=20 if augmentation != "none" else 16)
    return train(tiny(), Task(inputs, samples(12, seed=1), CLASSES), config, Session(**session))


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def largest(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest difference relative to the largest weight, of the worst tensor."""
    return max(float((a[n].double() - b[n].double()).abs().max() / b[n].double().abs().max().clamp_min(1e-12)) for n in b)


class Stop(Exception):
    pass


def stop_after(number: int):
    def told(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Stop

    return told


# ---- against torch -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_it_is_torchs_own_training_step_by_step(optimiser: Literal["adamw", "sgd"]) -> None:
    """The loop written out with torch's own schedules; weight decay on matrices alone, half the rate in the stem."""
    config = replace(PLAIN, optimiser=optimiser, weight_decay=0.1, epochs=3)
    data = samples(32)
    trained = train(tiny(), Task(data, None, CLASSES, multipliers={"stem.": 0.5}), config)
    network = tiny().train()
    decaying = {"stem.weight": 0.005, "head.weight": 0.01}
    groups = [
        {"params": [p], "lr": 0.005 if name.startswith("stem") else 0.01, "weight_decay": 0.1 if name in decaying else 0.0}
        for name, p in network.named_parameters()
    ]
    torchs = torch.optim.SGD(groups, momentum=0.9, nesterov=True) if optimiser == "sgd" else torch.optim.AdamW(groups)
    up = torch.optim.lr_scheduler.LinearLR(torchs, 1 / 5, 1.0, 4)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, 8)
    schedule = torch.optim.lr_scheduler.SequentialLR(torchs, [up, down], [4])
    assert data.held is not None
    for epoch in range(3):
        for batch in shuffled(32, 8, config.seed, epoch):
            torchs.zero_grad()
            cross_entropy(network(torch.from_numpy(data.held[batch])), torch.from_numpy(data.labels[batch])).backward()
            torchs.step()
            schedule.step()
    assert largest(trained.weights, network.state_dict()) < 1e-5


@given(st.integers(1, 200), st.integers(0, 50))
def test_the_rate_rises_to_one_and_falls_to_nearly_none(steps: int, warmup: int) -> None:
    rates = [rate_at(step, steps, warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_rates_worked_by_hand() -> None:
    found = [rate_at(step, 8, 4) for step in range(8)]
    half = 0.5**0.5
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2])


def test_the_moving_average_is_the_one_of_its_formula() -> None:
    """Every step's weights, seen by a loss that looks before each step and by the checkpoint after the last."""
    seen: list[Tensor] = []

    def looking(network: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(network, Tiny)
        seen.append(network.head.weight.detach().clone())
        return cross_entropy(network(batch.images), batch.targets, reduction="none")

    averaged = train(tiny(), Task(samples(32), None, CLASSES, looking), replace(PLAIN, average=0.6))
    last = train(tiny(), Task(samples(32), None, CLASSES), PLAIN).weights["head.weight"]
    expected = seen[0].double()
    for step, weight in enumerate([*seen[1:], last]):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.double()
    assert torch.allclose(averaged.weights["head.weight"].double(), expected, rtol=1e-5, atol=1e-7)


def test_what_does_not_learn_keeps_its_numbers_and_its_statistics() -> None:
    network = tiny()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    trained = train(network, Task(samples(30), None, CLASSES), PLAIN)
    changed = {name for name, value in trained.weights.items() if not torch.equal(value, network.state_dict()[name])}
    assert changed == {"head.weight", "head.bias"}


def test_frozen_norms_keep_their_statistics_but_learn() -> None:
    before, frozen, free = tiny().state_dict(), run(replace(PLAIN, freeze_norm=True)).weights, run(PLAIN).weights
    assert torch.equal(frozen["norm.running_mean"], before["norm.running_mean"])
    assert not torch.equal(frozen["norm.weight"], before["norm.weight"])
    assert not torch.equal(free["norm.running_mean"], before["norm.running_mean"])


def test_vectors_do_not_decay() -> None:
    groups = optimiser_of(tiny(), replace(PLAIN, weight_decay=0.1), {}).param_groups
    assert {(g["weight_decay"], p.ndim > 1) for g in groups for p in g["params"]} == {(0.1, True), (0.0, False)}


# ---- always the same -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    config = replace(RICH, epochs=2)
    assert same(run(config, augmentation="strong").weights, run(replace(config, workers=workers), augmentation="strong").weights)


@pytest.mark.parametrize("config", [RICH, replace(RICH, optimiser="sgd", average=None, patience=2)], ids=["adamw", "sgd"])
@pytest.mark.parametrize("stopped", [1, 3])
def test_stopped_and_resumed_is_the_same_bit_for_bit(config: LoopConfig, stopped: int, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    whole = run(config, augmentation="light")
    with pytest.raises(Stop):
        run(config, augmentation="light", checkpoint=path, told=stop_after(stopped))
    random.seed(5)  # what happens in between must not matter
    np.random.seed(5)
    torch.manual_seed(5)
    resumed = run(replace(config, workers=1), augmentation="light", checkpoint=path, resume=True)
    assert resumed.resumed == stopped and same(resumed.weights, whole.weights)
    assert [replace(e, seconds=0) for e in resumed.history] == [replace(e, seconds=0) for e in whole.history]


def test_the_callers_random_numbers_are_not_disturbed() -> None:
    network, data = tiny(), samples(30, "strong", side=20)

    def drawn(then: LoopConfig | None) -> tuple[float, float, float]:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if then:
            train(network, Task(data, data, CLASSES), then)
        return random.random(), np.random.rand(), float(torch.rand(1))

    assert drawn(replace(RICH, epochs=1)) == drawn(None)


def test_the_module_itself_stays() -> None:
    network = tiny()
    train(network, Task(samples(30), None, CLASSES), PLAIN)
    assert same(network.state_dict(), tiny().state_dict())


def test_two_times_sixteen_is_thirty_two() -> None:
    config = replace(PLAIN, batch=32, freeze_norm=True, smoothing=0.1, optimiser="sgd")
    whole, halves = run(config, 70, "light"), run(replace(config, micro=16), 70, "light")
    assert largest(halves.weights, whole.weights) < 1e-5


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 16), st.integers(-(2**70), 2**70), st.integers(0, 99))
def test_an_epoch_shows_every_sample(count: int, size: int, seed: int, epoch: int) -> None:
    order = shuffled(count, size, seed, epoch)
    flat = [index for batch in order for index in batch]
    assert set(flat) == set(range(count)) and {len(batch) for batch in order} == {size} and len(flat) < count + size
    assert sorted(flat[:count]) == list(range(count))


# ---- variation -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["light", "strong"])
@pytest.mark.parametrize("channels", [1, 3])
def test_variation_depends_on_the_sample_and_the_epoch(name: str, channels: Literal[1, 3]) -> None:
    some = samples(2, name, side=20)
    assert some.held is not None
    some = replace(some, held=some.held[[0, 0], ..., :channels], preprocess=replace(PREPROCESS, channels=channels))
    images = [some.image(index, 0, epoch) for index in (0, 1) for epoch in range(6)]
    assert {image.shape for image in images} == {(16, 16, channels)} and {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert len({image.tobytes() for image in images}) > 8
    assert all(np.array_equal(image, some.image(i // 6, 0, i % 6)) for i, image in enumerate(images))


def test_mirroring_mirrors_about_half() -> None:
    some = samples(200, Augmentation(mirror=0.5))
    assert some.held is not None
    turned = [np.array_equal(some.image(i, 0, 0), some.held[i][:, ::-1]) for i in range(200)]
    assert all(was or np.array_equal(some.image(i, 0, 0), some.held[i]) for i, was in enumerate(turned)) and 70 < sum(turned) < 130


def test_images_that_do_not_fit_into_memory_are_read_again(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "9.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    from nestling.data.folders import Item

    items = [Item(path, 0, path.stem) for path in sorted(tmp_path.iterdir())]
    held, bad = read_samples(items, PREPROCESS, AUGMENTATIONS["light"])
    read, bad_too = read_samples(items, PREPROCESS, AUGMENTATIONS["light"], most_bytes=100)
    assert held.held is not None and read.held is None and len(held.items) == len(read.items) == 6
    assert [entry.path.name for entry in bad] == [entry.path.name for entry in bad_too] == ["9.png"]
    assert all(np.array_equal(held.image(i, 1, 2), read.image(i, 1, 2)) for i in range(6))


# ---- ends ------------------------------------------------------------------------------------------------------------------------


def test_it_ends_early_and_gives_the_best_epochs_weights(tmp_path: Path) -> None:
    """Labels of validation that are all of one class, so that what is learned makes it worse."""
    val = samples(12, seed=1)
    wrong = replace(val, labels=(val.labels + 1) % CLASSES)
    config = replace(PLAIN, epochs=30, rate=0.05, patience=2, freeze_norm=True)
    kept: list[Mapping[str, Tensor]] = []
    path = tmp_path / "c"

    def told(epoch: Epoch) -> None:
        with safe_open(path, "pt") as file:
            kept.append({name[8:]: file.get_tensor(name) for name in file.keys() if name.startswith("weights/")})  # noqa: SIM118  # no mapping

    trained = train(tiny(), Task(samples(30), wrong, CLASSES), config, Session(checkpoint=path, told=told))
    assert len(trained.history) == trained.best.number + 2 < 30
    assert trained.best.val_top1 == max(epoch.val_top1 for epoch in trained.history)
    assert same(trained.weights, kept[trained.best.number - 1])


def test_it_learns() -> None:
    trained = run(replace(PLAIN, epochs=15), 60, "light")
    assert trained.best.val_top1 > 0.9 and trained.history[-1].loss < trained.history[0].loss


def test_a_loss_that_is_no_number_is_said() -> None:
    with pytest.raises(NestlingError, match="no longer a number in epoch 1") as raised:
        run(replace(PLAIN, optimiser="sgd", rate=1e30))
    assert "lower rate" in raised.value.hint


@pytest.mark.parametrize(
    ("config", "said"),
    [(replace(PLAIN, micro=3), "3 images at a time"), (replace(PLAIN, batch=5, mixing=Mixing(0.2)), "in pairs")],
)
def test_batches_that_cannot_be(config: LoopConfig, said: str) -> None:
    with pytest.raises(NestlingError, match=said):
        run(config)


# ---- checkpoints -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Stop):
        run(RICH, checkpoint=path, told=stop_after(1))
    return path


@pytest.mark.parametrize("damage", ["short", "flipped header", "empty", "text", "another"])
def test_a_damaged_checkpoint_is_named(checkpoint: Path, damage: str) -> None:
    content = checkpoint.read_bytes()
    damaged = {
        "short": content[:-40],
        "flipped header": bytes([content[0] ^ 0x55]) + content[1:],
        "empty": b"",
        "text": b"no checkpoint at all",
        "another": content.replace(b"checkpoint", b"checkpoind", 1),
    }
    checkpoint.write_bytes(damaged[damage])
    with pytest.raises(UnusableFile, match=r"run\.checkpoint") as raised:
        run(RICH, checkpoint=checkpoint, resume=True)
    assert "--resume" in raised.value.hint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop("weights/stem.weight"), "weights/stem.weight"),
        (lambda tensors: tensors.update({"best/stem.weight": torch.zeros(3)}), "best/stem.weight"),
        (lambda tensors: tensors.update({"average/other": torch.zeros(3)}), "average/other"),
        (lambda tensors: tensors.pop("moments/0.exp_avg"), "moments of parameter 0"),
        (lambda tensors: tensors.update({"moments/0.exp_avg_sq": torch.zeros(2)}), "moments/0.exp_avg_sq"),
        (lambda tensors: tensors.update({"moments/99.step": torch.zeros(())}), "moments/99.step"),
        (lambda tensors: tensors["weights/stem.weight"].view(-1)[:1].fill_(torch.nan), "weights/stem.weight.* not finite"),
    ],
)
def test_a_checkpoint_of_other_tensors_is_named(
    checkpoint: Path, change: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    """Of the same run by its words: only its tensors are not."""
    with safe_open(checkpoint, "pt") as file:
        said = file.metadata()
    tensors = load_file(checkpoint)
    change(tensors)
    save_file(tensors, checkpoint, said)
    with pytest.raises(UnusableFile, match=rf"run\.checkpoint is not a whole checkpoint: .*{named}") as raised:
        run(RICH, checkpoint=checkpoint, resume=True)
    assert "--resume" in raised.value.hint


def test_another_runs_checkpoint_is_refused(checkpoint: Path) -> None:
    with pytest.raises(NestlingError, match=r"differs in batch \(8, now 16\), rate \(0.01, now 0.02\)"):
        run(replace(RICH, rate=0.02, batch=16), checkpoint=checkpoint, resume=True)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_bytes()

    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        run(RICH, checkpoint=checkpoint, resume=True)
    assert checkpoint.read_bytes() == before and [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]


# ---- several processes -----------------------------------------------------------------------------------------------------------


def member(rank: int, size: int, port: int, *arguments: object) -> subprocess.Popen[str]:
    """One process of a team, with the environment that torchrun gives it."""
    own = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in own.items()}
    command = [sys.executable, "-m", program.__name__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_processes_are_one_that_accumulates(tmp_path: Path) -> None:
    port = free_port()
    team = [member(rank, 2, port, tmp_path / "two", 3, 0) for rank in (0, 1)]
    said = [process.communicate()[1] for process in team]
    assert [process.returncode for process in team] == [0, 0], said
    program.main(tmp_path / "one", 3, 0)
    assert largest(load_file(tmp_path / "two"), load_file(tmp_path / "one")) < 1e-4


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_run_with_a_message(killed: int, tmp_path: Path) -> None:
    port = free_port()
    team = [member(rank, 2, port, tmp_path / "two", 10000, 0.05) for rank in (0, 1)]
    for process in team:
        assert process.stdout and process.stdout.readline().startswith("epoch of")
    team[killed].kill()
    said = team[1 - killed].communicate(timeout=120)[1]
    team[killed].communicate()
    assert team[1 - killed].returncode == 1 and "another one ended" in said and "--resume" in said and "Traceback" not in said
    assert not (tmp_path / "two").exists()


def test_a_process_that_is_told_to_end_says_why(tmp_path: Path) -> None:
    """As torchrun tells the others when one has ended."""
    port = free_port()
    team = [member(rank, 2, port, tmp_path / "two", 10000, 0.05) for rank in (0, 1)]
    for process in team:
        assert process.stdout and process.stdout.readline().startswith("epoch of")
        process.terminate()
    said = [process.communicate(timeout=120)[1] for process in team]
    assert all("another one ended" in text and "Traceback" not in text for text in said), said
    assert [process.returncode for process in team] == [1, 1]
