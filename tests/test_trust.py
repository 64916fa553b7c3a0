"""The user's key, and the MAC that folders are known by."""

import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from nestling import trust
from nestling.errors import NestlingError

FILES = {"a.c": b"int x;", "b.h": b""}


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a new" / "configuration"
    monkeypatch.setenv("NESTLING_CONFIG", str(folder))
    return folder


def test_the_mac_is_rfc_2104s_over_parts_with_their_lengths(configuration: Path) -> None:
    mac = trust.mac_of("folder", FILES)
    parts = (b"folder", b"a.c", b"int x;", b"b.h", b"")
    text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    key = (configuration / "key").read_bytes()
    assert mac == hmac.new(key, text, hashlib.sha256).hexdigest().encode() + b"\n"
    assert trust.known("folder", dict(reversed(FILES.items())), mac)


@pytest.mark.parametrize(
    ("purpose", "files"),
    [
        ("package", FILES),
        ("folder", {"a.c": b"int x;"}),
        ("folder", FILES | {"c.h": b""}),
        ("folder", {"a.c": b"", "b.h": b"int x;"}),
        ("folder", {"a.ci": b"nt x;", "b.h": b""}),
        ("folder", {"A.c": b"int x;", "b.h": b""}),
    ],
)
def test_it_is_for_one_purpose_and_these_files_alone(purpose: str, files: dict[str, bytes]) -> None:
    assert not trust.known(purpose, files, trust.mac_of("folder", FILES))


@pytest.mark.parametrize("mac", [b"", b"\n", b"\xff" * 65, hashlib.sha256(b"int x;").hexdigest().encode() + b"\n"])
def test_what_is_no_mac_is_none(mac: bytes) -> None:
    trust.mac_of("folder", FILES)
    assert not trust.known("folder", FILES, mac)


def test_another_users_mac_is_not_known_and_looking_makes_no_key(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mac = trust.mac_of("folder", FILES)
    monkeypatch.setenv("NESTLING_CONFIG", str(tmp_path / "another"))
    assert not trust.known("folder", FILES, mac) and not (tmp_path / "another").exists()
    assert trust.mac_of("folder", FILES) != mac and not trust.known("folder", FILES, mac)


def test_the_key_is_its_owners_alone(configuration: Path) -> None:
    before = os.umask(0)
    try:
        trust.mac_of("folder", FILES)
    finally:
        os.umask(before)
    assert [path.name for path in configuration.iterdir()] == ["key"]
    assert stat.S_IMODE((configuration / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o700


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_many_that_make_the_key_at_once_all_have_the_same(links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All have seen that there is none before the first one makes it."""
    together, read = Barrier(6), trust._key
    seen = iter(range(6))

    def late() -> bytes | None:
        key = read()
        if next(seen, None) is not None:
            together.wait()
        return key

    monkeypatch.setattr(trust, "_key", late)
    if not links:  # as on a memory card
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
        together, seen = Barrier(1), iter(range(1))
    with ThreadPoolExecutor(6) as pool:
        macs = set(pool.map(lambda _: trust.mac_of("folder", FILES), range(6 if links else 1)))
    assert len(macs) == 1 and trust.known("folder", FILES, macs.pop())


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_that_is_none_is_not_used(configuration: Path, content: bytes) -> None:
    configuration.mkdir(parents=True)
    (configuration / "key").write_bytes(content)
    with pytest.raises(NestlingError, match="32 bytes"):
        trust.mac_of("folder", FILES)
