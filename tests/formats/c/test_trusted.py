"""Folders of C that this user's nestling wrote, and all others."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nestling.errors import NotTrusted, UnusableFile
from nestling.formats.c.folder import print_network, write
from nestling.formats.c.machines import machine
from nestling.formats.c.trusted import copied, is_known, require_trusted
from nestling.graph import ir
from tests.helpers.networks import Net, about_of, headed


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    net = Net()
    net.conv("a", "x", 8, 3, stride=(2, 2))
    net.node("mean", ir.Mean(), "e", "a")
    graph = headed(net.graph("e"))
    return print_network(graph, about_of(graph), machine("host"))


@pytest.fixture
def folder(content: dict[str, bytes], tmp_path: Path) -> Path:
    write(content, tmp_path / "c")
    return tmp_path / "c"


def test_all_but_the_mac_is_what_was_printed(folder: Path, content: dict[str, bytes]) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "nestling.mac"} == content
    assert len((folder / "nestling.mac").read_bytes()) == 65


def test_ours_is_known_wherever_it_lies_and_whatever_make_leaves_there(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "another name")
    (moved / "libnestling.a").write_bytes(b"!<arch>")
    (moved / "nst_conv.o").write_bytes(b"ELF")
    (moved / "sub").mkdir()
    (moved / "sub" / "evil.h").write_text("#error")
    (moved / "README.md").unlink()
    with copied(moved) as place:
        names = {path.name for path in place.iterdir()}
        assert names == {path.name for path in folder.iterdir() if path.suffix in (".c", ".h", ".json")}
        assert all((place / name).read_bytes() == (folder / name).read_bytes() for name in names)


def changed(folder: Path) -> None:
    with (folder / "nst_conv_host.c").open("a") as file:
        file.write("/* */")


def swapped(folder: Path) -> None:
    one, other = folder / "nst_mean.c", folder / "nst_head.c"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def hashed(folder: Path) -> None:
    """As somebody does who knows how the MAC is made, but not the key."""
    changed(folder)
    whole = b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".c", ".h"))
    (folder / "nestling.mac").write_text(hashlib.sha256(whole).hexdigest() + "\n")


def folder_for_a_mac(folder: Path) -> None:
    (folder / "nestling.mac").unlink()
    (folder / "nestling.mac").mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": changed,
    "one more source": lambda folder: (folder / "nst_more.c").write_text("int more;"),
    "a header before the system's": lambda folder: (folder / "string.h").write_text("int x;"),
    "a header that is a link": lambda folder: (folder / "stdint.h").symlink_to("nst_kernels.h"),
    "a linker script": lambda folder: (folder / "x.ld").write_text(""),
    "labels": lambda folder: (folder / "about.json").write_text((folder / "about.json").read_text().replace("thing", "thong")),
    "one less": lambda folder: (folder / "nst_mean.c").unlink(),
    "renamed": lambda folder: (folder / "nst_mean.c").rename(folder / "nst_men.c"),
    "swapped": swapped,
    "no mac": lambda folder: (folder / "nestling.mac").unlink(),
    "a hash for a mac": hashed,
    "a folder for a mac": folder_for_a_mac,
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_folder_needs_trust(folder: Path, change: str) -> None:
    assert is_known(folder)
    CHANGES[change](folder)
    with pytest.raises(NotTrusted, match="does whatever its author wrote") as caught, copied(folder):
        pass
    assert str(folder) in caught.value.message and "--trust" in caught.value.hint
    with pytest.raises(NotTrusted):
        require_trusted([folder], False)
    require_trusted([folder], True)
    with copied(folder, True):
        assert not is_known(folder)


def test_another_users_folder_needs_trust(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_CONFIG", str(tmp_path / "another"))
    with pytest.raises(NotTrusted, match="another user or computer"), copied(folder):
        pass


def test_what_is_compiled_is_what_was_looked_at(folder: Path) -> None:
    with copied(folder) as place:
        changed(folder)
        assert not (place / "nst_conv_host.c").read_bytes().endswith(b"/* */")


@pytest.mark.parametrize("trust", [False, True])
def test_what_is_no_file_is_not_read(folder: Path, trust: bool) -> None:
    """A pipe would be waited for, a device gives bytes without end, and so nearly does a file with a hole."""
    for make in (os.mkfifo, lambda path: Path(path).symlink_to("/dev/zero"), lambda path: _hole(Path(path))):
        make(str(folder / "x.h"))
        with pytest.raises(UnusableFile, match=r"x\.h"), copied(folder, trust):
            pass
        (folder / "x.h").unlink()


def _hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def test_a_folder_without_a_key_to_keep_is_written_and_told_of(
    content: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NESTLING_CONFIG", str(tmp_path / "file" / "x"))
    with pytest.warns(UserWarning, match="with --trust only"):
        write(content, tmp_path / "c")
    assert {path.name for path in (tmp_path / "c").iterdir()} == set(content)
