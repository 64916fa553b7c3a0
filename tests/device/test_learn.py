"""`learn` as a person sees it: what is learned, what is forgotten, what is saved, what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from nestling.bundle import PARTS
from nestling.data.folders import scan
from nestling.data.split import split
from nestling.device.device_features import checked_features, embedded
from nestling.device.head_file import newest, save
from nestling.device.head_format import to_bytes
from nestling.device.learn import LearnConfig, Learned, learn
from nestling.device.order import order
from nestling.device.parts import HEADING, parts, read_split
from nestling.device.replay import room
from nestling.errors import NestlingError, UnusableData, UnusableFile
from nestling.formats.c import host
from nestling.formats.executorch import gradients as executorch_gradients
from nestling.formats.executorch import run as executorch_run
from nestling.graph import reference
from nestling.preprocess.image import load as load_image
from nestling.progress import Advance, Progress, silent
from nestling.words import HeadOptimizer
from tests.helpers.packages import PREPROCESS, Photos, network, package, untrained

STEP_OFF = 0.01  # what a step's difference in a few embeddings makes of the weights
FRUIT = ("apple", "lime", "plum")
COUNTS = dict.fromkeys(FRUIT, 15)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return package(tmp_path / "pkg", untrained(FRUIT))


@pytest.fixture(params=["executorch", "c"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A package with ExecuTorch's programs, or as it is packed without: LiteRT embeds then, the C learns."""
    if request.param == "c" and host.compiler() is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    return package(tmp_path / "pkg", untrained(FRUIT), executorch=request.param == "executorch")


def trained(learned: Learned) -> bytes:
    """The file without how often it was saved."""
    return to_bytes(replace(learned.head, progress=replace(learned.head.progress, saves=0)))


# ---- learning ------------------------------------------------------------------------------------------------------------------


def test_it_learns_and_says_how_well(either: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    learned = learn(either, data, LearnConfig(cycles=60))
    assert learned.images == {"train": 27, "val": 9, "test": 9} and learned.cycles == 60
    assert learned.after["test"].top1 == 1 > learned.before["test"].top1
    saved, _, notes = newest(either / "trained.nst")
    assert to_bytes(saved) == to_bytes(learned.head) and not notes
    assert (saved.progress.steps, saved.progress.items, saved.progress.best_accuracy) == (60, 27, 1.0)
    assert (saved.progress.epoch, saved.progress.position) == (15, 0)  # 27 photographs in batches of 8, 8, 8 and 3


def test_the_weights_are_what_torch_learns_from_the_references_embeddings(either: Path, photos: Photos) -> None:
    """The split, the items' sequence, epochs, batches and the optimiser, written down again here."""
    data = photos("photos", COUNTS, spread=70)
    learned = learn(either, data, LearnConfig(cycles=11))
    head = untrained(FRUIT)
    items: list[tuple[int, str, np.ndarray]] = []
    for label, name in enumerate(FRUIT):
        prints = {hashlib.sha256(path.read_bytes()).hexdigest()[:16]: path for path in (data / name).iterdir()}
        keyed = sorted(prints, key=lambda print_: hashlib.sha256(f"7:{print_}".encode()).digest())
        for print_ in sorted(keyed[6:]):  # of 15 the first 3 are test, the next 3 val
            answer = reference.run(network(), load_image(PREPROCESS, prints[print_])[None])
            items.append((label, print_, answer["e"].reshape(-1)))
    q, y = np.stack([row for _, _, row in items]), torch.tensor([label for label, _, _ in items])
    x = torch.from_numpy(q.astype(np.float32) * np.float32(head.input_scale) - head.offset)
    weight, bias = (torch.zeros(*shape, requires_grad=True) for shape in ((3, 24), (3,)))
    groups = [{"params": [weight], "weight_decay": 1e-4}, {"params": [bias], "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    for cycle in range(11):  # 27 items are three batches of 8 and one of 3
        places = order(7, cycle // 4, 27)[cycle % 4 * 8 :][:8].copy()
        optimiser.zero_grad()
        cross_entropy(x[places] @ weight.T + bias, y[places]).backward()
        optimiser.step()
    np.testing.assert_allclose(learned.head.weights[:3], weight.detach().numpy(), atol=STEP_OFF * weight.abs().max().item())
    lines = "".join(f"{label}:{print_}\n" for label, print_, _ in items)
    assert learned.head.progress.data == hashlib.sha256(lines.encode()).hexdigest()


def test_embeddings_are_the_references_integers(either: Path, photos: Photos) -> None:
    """To a step, since XNNPACK rounds by other means; and most of them exactly."""
    head = untrained(FRUIT)
    divided = parts(photos("photos", COUNTS, spread=70), FRUIT, {}, 7)
    found = embedded(divided, checked_features(either, head), head, silent)["train"]
    wanted = [reference.run(network(), load_image(PREPROCESS, item.path)[None])["e"].reshape(-1) for item in divided.train]
    off = np.abs(found.embeddings.astype(int) - np.stack(wanted))
    assert off.max() <= 1 and (off == 0).mean() > 0.5


def test_adam_takes_its_own_rate(packed: Path, photos: Photos) -> None:
    learned = learn(packed, photos("photos", COUNTS), LearnConfig(cycles=60, optimizer="adam"))
    assert learned.head.square is not None and learned.head.training.rate == pytest.approx(0.005)
    assert learned.after["test"].top1 > 0.9


def test_it_stops_when_val_is_good_enough(either: Path, photos: Photos) -> None:
    config = LearnConfig(cycles=200, stop_accuracy=0.9, save_every=7)
    learned = learn(either, photos("photos", COUNTS), config)
    assert learned.cycles < 200 and learned.cycles % 20 == 0 and learned.head.progress.best_accuracy >= 0.9
    again = learn(either, photos.place / "photos", replace(config, resume=True))
    assert again.cycles == learned.cycles and trained(again) == trained(learned)


def test_no_cycles_save_nothing(packed: Path, photos: Photos) -> None:
    learned = learn(packed, photos("photos", COUNTS), LearnConfig(cycles=0))
    assert learned.after["test"].top1 == learned.before["test"].top1 and not (packed / "trained.nst").exists()


# ---- stopping and going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_going_on_gives_the_weights_of_never_having_stopped(either: Path, photos: Photos, optimizer: HeadOptimizer) -> None:
    """Bit for bit, from wherever it was stopped; in the middle of an epoch, too."""
    data = photos("photos", COUNTS, spread=70)
    config = LearnConfig(cycles=90, optimizer=optimizer, save_every=7, replay=1)
    whole = learn(either, data, replace(config, output=either / "whole.nst"))
    for stop in (1, 23, 50):
        with pytest.raises(Stopped):
            learn(either, data, config, stopping_after(stop))
        gone_on = learn(either, data, replace(config, resume=True))
        assert trained(gone_on) == trained(whole)
        said = " ".join(gone_on.notes)
        assert f"{stop // 7 * 7} cycles" in said if stop >= 7 else "begun anew" in said


def test_a_finished_training_goes_on_when_more_cycles_are_asked_for(packed: Path, photos: Photos) -> None:
    """Though the replay store has been filled meanwhile: its copies of the photographs do not count as others."""
    data = photos("photos", COUNTS, spread=70)
    learn(packed, data, LearnConfig(cycles=30, replay=2))
    more = learn(packed, data, LearnConfig(cycles=75, replay=2, resume=True))
    whole = learn(packed, data, LearnConfig(cycles=75, replay=2, output=packed / "whole.nst"))
    assert trained(more) == trained(whole) and more.replayed == 0


def test_another_training_is_not_gone_on_with(packed: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    learn(packed, data, LearnConfig(cycles=20))
    for config, reason in ((LearnConfig(cycles=25, batch=4), "settings"), (LearnConfig(cycles=25, rate=0.1), "settings")):
        begun = learn(packed, data, replace(config, resume=True, output=packed / "trained.nst"))
        assert any("begun anew" in note and reason in note for note in begun.notes)
        assert begun.cycles == 25
    (data / "apple" / "00.png").unlink()
    fewer = learn(packed, data, LearnConfig(cycles=25, rate=0.1, resume=True))
    assert any("photographs" in note for note in fewer.notes)


@pytest.mark.parametrize("balanced", [False, True])
def test_a_position_behind_the_end_is_refused_or_the_next_epoch(packed: Path, photos: Photos, balanced: bool) -> None:
    """The bounds know how many items there are; how long a balanced order of them is only the photographs do."""
    data, head = photos("photos", COUNTS), packed / "head.nst"
    first = newest(head)[0]
    save(replace(first, training=replace(first.training, balanced=balanced)), head)
    before = learn(packed, data, LearnConfig(cycles=1)).head
    assert before.progress.position > 0
    place = before.progress.items + (len(FRUIT) if balanced else 0)
    save(replace(before, progress=replace(before.progress, position=place)), packed / "trained.nst")
    after = learn(packed, data, LearnConfig(cycles=2, resume=True))
    assert any("gone on" in note for note in after.notes)
    assert after.head.progress.epoch == before.progress.epoch + 1 and after.head.progress.steps == 2
    assert 0 <= after.head.progress.position <= before.progress.items
    with pytest.raises(UnusableFile, match="position and its items do not fit"):
        save(replace(before, progress=replace(before.progress, position=3 * before.progress.items + 1)), packed / "trained.nst")


def test_a_training_that_diverges_ends_with_what_to_type(packed: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    learn(packed, data, LearnConfig(cycles=3))
    saved = (packed / "trained.nst").read_bytes()
    with pytest.raises(NestlingError, match="diverge") as caught:
        learn(packed, data, LearnConfig(cycles=300, rate=1e9, save_every=300))
    assert "--rate" in caught.value.hint and (packed / "trained.nst").read_bytes() == saved


def test_a_damaged_result_is_named_and_the_one_before_it_taken(packed: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    config = LearnConfig(cycles=45, save_every=10)
    whole = learn(packed, data, replace(config, output=packed / "whole.nst"))
    with pytest.raises(Stopped):
        learn(packed, data, config, stopping_after(33))
    torn = packed / "trained.nst"
    torn.write_bytes(torn.read_bytes()[:-5])
    gone_on = learn(packed, data, replace(config, resume=True))
    assert trained(gone_on) == trained(whole)
    assert any("trained.nst has" in note for note in gone_on.notes) and any("20 cycles" in note for note in gone_on.notes)


class Stopped(Exception):
    pass


def stopping_after(cycles: int) -> Progress:
    """Raises where a person might press Ctrl-C: after so many cycles."""

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if what == "learning" and done > cycles:
                raise Stopped

        yield advance

    return progress


# ---- new classes ---------------------------------------------------------------------------------------------------------------


def test_a_new_class_is_learned_and_the_old_ones_are_kept(packed: Path, photos: Photos) -> None:
    old = photos("photos", COUNTS, spread=70)
    first = learn(packed, old, LearnConfig(cycles=200, replay=1, output=packed / "first.nst"))
    begin_with = packed / "first.nst"
    new = photos("new", {"sky": 15, "coal": 15})
    config = LearnConfig(begin_with=begin_with, replay=1)
    learned = learn(packed, new, config)
    assert learned.new == ("coal", "sky") and learned.head.labels == (*FRUIT, "coal", "sky")
    assert learned.replayed == len(first.head.replay.labels) == 27 < room(1, 24)
    assert learned.after["test"].top1 > 0.8
    known = learn(packed, old, LearnConfig(begin_with=packed / "trained.nst", cycles=0))
    assert known.before["test"].top1 >= first.after["test"].top1 - 0.12  # one photograph of nine
    np.testing.assert_array_equal(learned.head.weights[:3], first.head.weights[:3])
    assert np.bincount(learned.head.replay.labels).tolist() == [8, 7, 7, 7, 7]

    begun = replace(first.head, replay=replace(first.head.replay, labels=first.head.replay.labels[:0],
                    runtimes=first.head.replay.runtimes[:0], embeddings=first.head.replay.embeddings[:0]))  # fmt: skip
    begin_with.write_bytes(to_bytes(begun))
    assert not any("will be forgotten" in note for note in learned.notes)
    without = learn(packed, new, replace(config, output=packed / "without.nst"))
    assert any("nothing is kept of apple, lime, plum" in note and "pack --replay" in note for note in without.notes)
    forgotten = learn(packed, old, LearnConfig(begin_with=packed / "without.nst", cycles=0))
    assert forgotten.before["test"].top1 < 0.2


def test_a_new_class_beside_the_old_ones(packed: Path, photos: Photos) -> None:
    learned = learn(packed, photos("photos", {**COUNTS, "sky": 5}), LearnConfig(cycles=120))
    assert learned.new == ("sky",) and learned.head.training.balanced and learned.after["test"].top1 > 0.9
    assert learned.before["test"].top1 < 0.8


def test_no_room_for_a_class_says_what_to_do(packed: Path, photos: Photos) -> None:
    (packed / "head.nst").write_bytes(to_bytes(untrained([*FRUIT, "a", "b", "c"])))
    with pytest.raises(UnusableFile, match=r"'sky'[\s\S]*--max-classes"):
        learn(packed, photos("new", {"sky": 9}), LearnConfig(cycles=5))


# ---- somebody else's package ----------------------------------------------------------------------------------------------------


def test_programs_of_somebody_else_learn_the_same_in_processes_of_their_own(
    packed: Path, photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = photos("photos", COUNTS), LearnConfig(cycles=12)
    ours = learn(packed, data, replace(config, output=packed / "ours.nst"))
    monkeypatch.setenv("NESTLING_CONFIG", str(tmp_path / "another"))
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "another cache"))
    for module, name in ((executorch_run, "load_bytes"), (executorch_gradients, "gradients_of")):
        monkeypatch.delattr(module, name)  # neither is run here
    assert trained(learn(packed, data, replace(config, output=packed / "theirs.nst"))) == trained(ours)


def test_a_training_program_that_was_changed_is_refused(packed: Path, photos: Photos) -> None:
    with (packed / "head_train.pte").open("ab") as file:
        file.write(b"!")
    with pytest.raises(UnusableFile, match=r"head_train\.pte has the SHA-256"):
        learn(packed, photos("photos", COUNTS), LearnConfig(cycles=5))


# ---- what is refused -----------------------------------------------------------------------------------------------------------


def test_other_features_are_refused(packed: Path, photos: Photos) -> None:
    data, program = photos("photos", COUNTS), packed / "features.pte"
    content = program.read_bytes()
    program.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UnusableFile, match=r"features\.pte has the SHA-256"):
        learn(packed, data, LearnConfig(cycles=5))
    program.write_bytes(content)
    (packed / "head.nst").write_bytes(to_bytes(replace(untrained(FRUIT), graph="cd" * 32)))
    with pytest.raises(UnusableFile, match="cdcdcdcd"):
        learn(packed, data, LearnConfig(cycles=5))


def test_other_integers_are_refused(photos: Photos, tmp_path: Path) -> None:
    """Of a package without ExecuTorch's programs."""
    data, packed = photos("photos", COUNTS), package(tmp_path / "pkg", untrained(FRUIT), executorch=False)
    file = packed / "features.nest"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UnusableFile, match=r"features\.nest has the SHA-256"):
        learn(packed, data, LearnConfig(cycles=5))
    file.write_bytes(content)
    (packed / "head.nst").write_bytes(to_bytes(replace(untrained(FRUIT), graph="cd" * 32)))
    with pytest.raises(UnusableFile, match="cdcdcdcd"):
        learn(packed, data, LearnConfig(cycles=5))


def test_features_that_change_meanwhile_are_noticed(packed: Path, photos: Photos) -> None:
    @contextmanager
    def changing(what: str, total: int) -> Iterator[Advance]:
        if what == "learning":
            with (packed / "features.pte").open("ab") as file:
                file.write(b"!")
        yield lambda _: None

    with pytest.raises(UnusableFile, match=r"features\.pte has the SHA-256"):
        learn(packed, photos("photos", COUNTS), LearnConfig(cycles=5), changing)


@pytest.mark.parametrize("missing", ["head.nst", "features.pte", "head_train.pte", "manifest.json"])
def test_a_missing_file_is_named(packed: Path, photos: Photos, missing: str) -> None:
    (packed / missing).unlink()
    with pytest.raises(UnusableFile, match=missing):
        learn(packed, photos("photos", COUNTS), LearnConfig(cycles=5))


def test_broken_photographs_are_left_out_and_named(packed: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    whole = (data / "plum" / "03.png").read_bytes()
    (data / "plum" / "torn.png").write_bytes(whole[: len(whole) * 2 // 3])
    learned = learn(packed, data, LearnConfig(cycles=5))
    assert [entry.path.name for entry in learned.left_out] == ["torn.png"]
    assert sum(learned.images.values()) == 45


# ---- the split -----------------------------------------------------------------------------------------------------------------


def test_without_a_split_the_parts_are_fits(photos: Photos) -> None:
    data = photos("photos", {"apple": 17, "lime": 5, "plum": 23})
    dataset = scan(data)
    wanted = split(dataset, 7)
    found = parts(data, FRUIT, {}, 7)
    for part in PARTS:
        assert sorted(item.fingerprint for item in getattr(found, part)) == sorted(getattr(wanted, part))
    assert list(found.train) == sorted(found.train, key=lambda item: (item.label, item.fingerprint))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 1000))
def test_new_photographs_are_divided_among_themselves(new: int, known: int, seed: int) -> None:
    with TemporaryDirectory() as place:
        data = Photos(Path(place))("photos", {"apple": new + known})
        prints = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted((data / "apple").iterdir())]
        (data / "apple" / "copy.png").write_bytes((data / "apple" / "00.png").read_bytes())
        found = parts(data, ("zebra", "apple"), dict.fromkeys(prints[:known], "val"), seed)
    assert found.new == () and {item.label for item in (*found.train, *found.val, *found.test)} == {1}
    others = sorted(prints[known:], key=lambda print_: hashlib.sha256(f"{seed}:{print_}".encode()).digest())
    share = max(1, (new + 2) // 5) if new >= 3 else 0
    assert {item.fingerprint for item in found.test} == set(others[:share])
    assert {item.fingerprint for item in found.val} == {*others[share : 2 * share], *prints[:known]}
    assert {item.fingerprint for item in found.train} == set(others[2 * share :])
    assert "copy.png" not in {item.path.name for item in (*found.train, *found.val, *found.test)}


def test_the_folders_parts_stay(photos: Photos) -> None:
    for part, count in (("train", 12), ("test", 4)):
        photos(f"photos/{part}", {"apple": count, "lime": count}, seed=len(part))
    found = parts(photos.place / "photos", ("apple", "lime"), {}, 7)
    assert {item.path.parent.parent.name for item in found.test} == {"test"} and len(found.test) == 8
    wanted = split(scan(photos.place / "photos"), 7)
    assert sorted(item.fingerprint for item in found.val) == sorted(wanted.val)


def test_split_csv_is_read_and_damage_named(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    assert read_split(path) == {}
    path.write_text(f"{HEADING}\n0123456789abcdef,val\nfedcba9876543210,test\n")
    assert read_split(path) == {"0123456789abcdef": "val", "fedcba9876543210": "test"}
    for text in (
        "",
        "0123456789abcdef,val\n",
        f"{HEADING}\n0123456789abcdef,dev\n",
        f"{HEADING}\n0123,val\n",
        f"{HEADING}\nü,val\n",
    ):
        path.write_text(text)
        with pytest.raises(UnusableFile, match=r"split\.csv"):
            read_split(path)


def test_split_csv_of_the_package_counts(packed: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    lines = [f"{item.fingerprint},{'val' if item.label else 'train'}" for item in scan(data).items]
    (packed / "split.csv").write_text("\n".join([HEADING, *sorted(lines), ""]))
    learned = learn(packed, data, LearnConfig(cycles=5))
    assert learned.images == {"train": 15, "val": 30, "test": 0} and set(learned.after) == {"val"}


def test_nothing_to_learn_from(packed: Path, photos: Photos) -> None:
    data = photos("photos", COUNTS)
    lines = [f"{item.fingerprint},test" for item in scan(data).items]
    (packed / "split.csv").write_text("\n".join([HEADING, *sorted(lines), ""]))
    with pytest.raises(UnusableData, match="no photographs to learn from"):
        learn(packed, data, LearnConfig(cycles=5))
