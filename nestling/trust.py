"""Which folders this user's nestling wrote itself: they carry a MAC (HMAC-SHA256) under a key that only this user has.

C that is compiled and run does whatever its author wrote, and so do a package's scripts. Hashes in the folder itself prove
nothing: whoever changes the one changes the other. The MAC lies in a file of its own, so that all else in the folder is the same
for everybody; the key lies in the user's configuration, so that nothing has to be remembered folder by folder.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_config_path

from nestling.errors import NestlingError
from nestling.temporary import temporary

MAC = "nestling.mac"  # in the folder: 64 hex digits and a line break
KEY, BYTES = "key", 32  # in the configuration


def configuration() -> Path:
    """The user's configuration folder; the environment variable NESTLING_CONFIG names another one."""
    named = os.environ.get("NESTLING_CONFIG")
    return Path(named) if named else user_config_path("nestling")


def mac_of(purpose: str, files: Mapping[str, bytes]) -> bytes:
    """The content of a folder's MAC file. purpose: what the folder is, so that one thing is not taken for another.

    Makes the user's key where there is none yet. Raises OSError where it can be neither read nor kept, NestlingError for no key.
    """
    return _mac(_key() or _new_key(), purpose, files)


def known(purpose: str, files: Mapping[str, bytes], mac: bytes) -> bool:
    """Whether `mac`, the content of a folder's MAC file, was made by this user's nestling for just these files."""
    key = _key()
    return key is not None and hmac.compare_digest(_mac(key, purpose, files), mac)


def without_key(error: OSError) -> str:
    """A warning for a folder that is written although mac_of raised `error`."""
    return f"no key can be kept in {configuration()} ({error.strerror}): the folder will be run with --trust only"


def _mac(key: bytes, purpose: str, files: Mapping[str, bytes]) -> bytes:
    """Every part with its length before it: no two sets of files give the same bytes."""
    made = hmac.new(key, digestmod="sha256")
    named = ((os.fsencode(name), content) for name, content in files.items())
    for part in (purpose.encode(), *(part for pair in sorted(named) for part in pair)):
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return f"{made.hexdigest()}\n".encode()


def _key() -> bytes | None:
    path = configuration() / KEY
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(key) != BYTES:
        raise NestlingError(
            f"{path} is to hold nestling's key, {BYTES} bytes; it holds {len(key)}.",
            "remove it: there will be a new one, and folders of C from before will need --trust",
        )
    return key


def _new_key() -> bytes:
    """Whole or not at all, and of two processes that make one at once both take the first one's."""
    path = configuration() / KEY
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with temporary(path.parent) as place:
        beside = place / KEY
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)  # a rename would put another key in the place of one that has come meanwhile
        except OSError:
            if not path.exists():  # this file system has no links
                beside.replace(path)
    key = _key()
    if key is None:
        raise NestlingError(f"{path} could not be kept.")
    return key
