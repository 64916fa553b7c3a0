import hashlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.bundle import PARTS, Part
from nestling.data.folders import Dataset, Item
from nestling.data.split import of_part, split
from nestling.errors import UnusableData


def item(label: int, number: int, copy: int = 0, part: Part | None = None) -> Item:
    content = hashlib.sha256(f"{label} {number}".encode()).hexdigest()[:16]
    return Item(Path(f"root/{label}/{number:05}-{copy}"), label, content, part)


def dataset(*items: Item) -> Dataset:
    labels = tuple(f"class {label}" for label in range(1 + max(item.label for item in items)))
    return Dataset(Path("root"), labels, tuple(items))


numbers = st.lists(st.integers(0, 10_000), min_size=5, max_size=60, unique=True)
classes = st.lists(numbers, min_size=2, max_size=4)


@given(classes, st.integers(0, 2**40), st.randoms())
def test_every_content_is_on_one_side_and_every_class_on_all(contents: list[list[int]], seed: int, random) -> None:
    items = [
        item(label, number, copy) for label, ns in enumerate(contents) for number in ns for copy in range(random.randint(1, 3))
    ]
    random.shuffle(items)
    data = dataset(*items)
    divided = split(data, seed)
    prints = [print_ for part in PARTS for print_ in getattr(divided, part)]
    assert sorted(prints) == sorted({item.fingerprint for item in items})  # all of them, each once
    for label, ns in enumerate(contents):
        counts = Counter(part for print_, part in divided.part_of().items() if print_ in {item(label, n).fingerprint for n in ns})
        assert all(counts[part] >= 1 for part in PARTS)
        assert abs(counts["val"] - 0.2 * len(ns)) <= 0.5
        assert abs(counts["test"] - 0.2 * len(ns)) <= 0.5


@given(classes, st.integers(0, 2**40), st.randoms())
def test_order_names_and_copies_change_nothing(contents: list[list[int]], seed: int, random) -> None:
    items = [item(label, number) for label, ns in enumerate(contents) for number in ns]
    shuffled = [item(label, number, copy=random.randint(0, 9)) for label, ns in enumerate(contents) for number in ns * 2]
    random.shuffle(shuffled)
    assert split(dataset(*items), seed) == split(dataset(*shuffled), seed)


def test_the_rule_as_written_down() -> None:
    """Worked out with another program, sha256sum:

    printf '%s' 'a' | sha256sum | cut -c1-16                   fingerprint
    printf '%s' '7:ca978112ca1bbdca' | sha256sum               key
    """
    keys = {  # fingerprints of "a" to "g", and the first digits of their keys for seed 7
        "ca978112ca1bbdca": "68581511",
        "3e23e8160039594a": "8a5cda3f",
        "2e7d2c03a9507ae2": "b2b5607d",
        "18ac3e7343f01689": "1f344056",
        "3f79bb7b435b0532": "8497b6a8",
        "252f10c83610ebca": "c66639fd",
        "cd0aa9856147b6c5": "95866110",
    }
    order = sorted(keys, key=lambda print_: keys[print_])
    items = [
        Item(Path(print_), label, print_)
        for label, prints in enumerate((order, ["f" * 15 + str(n) for n in range(5)]))
        for print_ in prints
    ]
    divided = split(dataset(*items), 7)
    mine = {part: set(getattr(divided, part)) & keys.keys() for part in PARTS}
    assert mine == {"test": {order[0]}, "val": {order[1]}, "train": set(order[2:])}


def test_seeds_differ() -> None:
    data = dataset(*(item(label, number) for label in range(2) for number in range(40)))
    assert len({split(data, seed).test for seed in range(10)}) == 10


def test_a_photograph_keeps_its_part_when_another_class_changes() -> None:
    first = [item(0, number) for number in range(30)]
    a = split(dataset(*first, *(item(1, number) for number in range(10))), 3).part_of()
    b = split(
        dataset(*first, *(item(1, number) for number in range(50, 90)), *(item(2, number) for number in range(10))), 3
    ).part_of()
    assert all(a[i.fingerprint] == b[i.fingerprint] for i in first)


@pytest.mark.parametrize(
    ("given_parts", "expected"),
    [
        (("train", "val", "test"), {"train": 20, "val": 20, "test": 20}),
        (("train", "test"), {"train": 15, "val": 5, "test": 20}),
        (("train", "val"), {"train": 15, "val": 20, "test": 5}),
        (("train",), {"train": 12, "val": 4, "test": 4}),
    ],
)
def test_given_parts_stay_and_missing_ones_come_from_train(given_parts: tuple[Part, ...], expected: dict[Part, int]) -> None:
    items = [
        item(label, 100 * place + n, part=part) for label in range(2) for place, part in enumerate(given_parts) for n in range(20)
    ]
    divided = split(dataset(*items), 0)
    assert {part: len(getattr(divided, part)) for part in PARTS} == {part: 2 * count for part, count in expected.items()}
    where = divided.part_of()
    assert all(where[i.fingerprint] == i.part for i in items if i.part != "train")


def test_too_few_is_an_error() -> None:
    with pytest.raises(UnusableData, match="at least 5"):
        split(dataset(*(item(label, number) for label in range(2) for number in range(4))), 0)


def test_of_part_gives_each_photograph_once() -> None:
    items = [item(label, number, copy) for label in range(2) for number in range(10) for copy in range(2)]
    data = dataset(*items)
    divided = split(data, 0)
    for part in PARTS:
        chosen = of_part(data, divided, part)
        assert sorted(i.fingerprint for i in chosen) == list(getattr(divided, part))
        assert all(i.path.name.endswith("-0") for i in chosen)


later = st.lists(st.integers(20_000, 30_000), max_size=40, unique=True)


@given(numbers, numbers, later, st.integers(0, 2**40))
def test_photographs_that_came_later_move_none_of_the_old(first: list[int], second: list[int], new: list[int], seed: int) -> None:
    """And are divided as a set of their own would be."""
    old = [item(0, n) for n in first] + [item(1, n) for n in second]
    added = [item(0, n) for n in new]
    before = split(dataset(*old), seed)
    after = split(dataset(*old, *added), seed, before).part_of()
    assert all(after[print_] == part for print_, part in before.part_of().items())
    mine = {one.fingerprint for one in added}
    if len(new) >= 5:
        alone = split(dataset(*added, *(item(1, n) for n in second)), seed).part_of()
        assert {print_: after[print_] for print_ in mine} == {print_: alone[print_] for print_ in mine}
    if len(new) < 3:
        assert all(after[print_] == "train" for print_ in mine)
    gone = split(dataset(*old[1:], *added), seed, before) if len(first) > 5 else None
    assert gone is None or gone.part_of()[old[0].fingerprint] == before.part_of()[old[0].fingerprint]  # it may come back
