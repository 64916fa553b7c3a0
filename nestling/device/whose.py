"""Whose a package is: its manifest, which has the SHA-256 of every other file, carries the MAC of the nestling that packed it.

A package's scripts do on a device whatever its user may do there. Hashes alone prove nothing: see nestling.trust.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling import trust
from nestling.device import manifest
from nestling.errors import NotTrusted, UnusableFile

PURPOSE = "package"


def signed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A package's files, content by name, with the MAC of their manifest."""
    try:
        return dict(files) | {trust.MAC: trust.mac_of(PURPOSE, {manifest.NAME: files[manifest.NAME]})}
    except OSError as error:
        warnings.warn(trust.without_key(error), stacklevel=2)
        return dict(files)


def is_known(package: Path) -> bool:
    """Whether this user's nestling wrote the package's manifest. That the other files are the manifest's is not looked at."""
    try:
        mac = (package / trust.MAC).read_bytes()
        return trust.known(PURPOSE, {manifest.NAME: (package / manifest.NAME).read_bytes()}, mac)
    except OSError:
        return False


@contextmanager
def copied(package: Path, trusting: bool = False) -> Iterator[Path]:
    """A temporary folder with the package's files, those that were looked at: whatever becomes of the package, these are run.

    trusting: whoever packed them. Raises NotTrusted; UnusableFile where the package is not whole.
    """
    with TemporaryDirectory() as place:
        copy = Path(place)
        try:
            for name in (manifest.NAME, *manifest.read(package).files, trust.MAC):
                if (package / name).is_file():  # and no device, whose bytes never end
                    shutil.copy(package / name, copy / name)  # with its mode
        except OSError as error:
            raise UnusableFile(f"{error.filename or package} cannot be read: {error.strerror}.", manifest.AGAIN) from error
        if not trusting and not is_known(copy):
            raise NotTrusted(
                f"{package} was not packed by this user's nestling, or has been changed. Running its scripts on the device does "
                "whatever their author wrote.",
                "where you trust its author, add --trust; else pack it again:  nestling pack my8.nest -o pkg/",
            )
        manifest.require_whole(copy)
        yield copy
