"""What a verb may be given in Python: networks in memory or as paths, photographs likewise, options one by one or as a config."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from nestling.progress import usual

if TYPE_CHECKING:
    from nestling.bundle import Bundle
    from nestling.data.folders import Dataset
    from nestling.progress import Progress
    from nestling.training.session import Session

    class HasBundle(Protocol):
        """What a verb gave: its bundle is the network."""

        @property
        def bundle(self) -> Bundle: ...  # noqa: D102  # said above

    Network: TypeAlias = Bundle | HasBundle | str | Path
    Photographs: TypeAlias = str | Path | Dataset

Some = TypeVar("Some")
IN_MEMORY = "network.nest"  # what one without a name of its own is called as a file


def bundle_of(network: Network) -> Bundle:
    """The bundle itself, of what a verb gave, or of a file."""
    from nestling.bundle import Bundle, load

    if isinstance(network, str | Path):
        return load(Path(network))
    return network if isinstance(network, Bundle) else network.bundle


def kept_in(folder: Path, network: Network) -> Path:
    """A network's path; one in memory is written into the folder."""
    from nestling.bundle import save

    if isinstance(network, str | Path):
        return Path(network)
    save(bundle_of(network), folder / IN_MEMORY)
    return folder / IN_MEMORY


@contextmanager
def as_file(network: Network) -> Iterator[Path]:
    """A network's path; of one in memory that of a temporary file."""
    if isinstance(network, str | Path):
        yield Path(network)
        return
    with TemporaryDirectory(prefix="nestling-") as folder:
        yield kept_in(Path(folder), network)


def source(photographs: Any) -> Any:
    """A path of a string; all else as it is."""
    return Path(photographs) if isinstance(photographs, str) else photographs


def configured(kind: type[Some], config: Some | None, options: Mapping[str, Any]) -> Some:
    """The config with the options in their places. Raises TypeError for a name that it does not have, as Python itself."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every config is a dataclass
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"there is no option {unknown[0]!r}; {kind.__name__} has {', '.join(known)}")
    made: Some = replace(config, **options) if config is not None else kind(**options)  # type: ignore[type-var]  # likewise
    return made


def session_of(session: Session | None, progress: Progress | None) -> Session:
    """The session, or one that shows its progress as usual."""
    from nestling.training.session import Session

    return session or Session(progress or usual())


def several(networks: Network | Sequence[Network]) -> Sequence[Network]:
    """Of one network a sequence."""
    return networks if isinstance(networks, list | tuple) else (networks,)


def words_of(words: str | Sequence[str]) -> list[str]:
    """Words in a list, or separated by commas, in any case."""
    return [word.strip().lower() for word in (words.split(",") if isinstance(words, str) else words)]


def warn(line: str) -> None:
    """For a verb that is given nobody to tell."""
    warnings.warn(line, stacklevel=4)
