"""Which folder of this machine to watch for changes of a source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.errors import ConfigError
from penstock.sources._local import LocalFolder
from penstock.sources._place import locate


@dataclass(frozen=True, slots=True)
class Watched:
    """A place whose changes are a source's.

    Attributes:
        folder: The folder, with all below it.
        only: The one file in it that counts; None for all.
    """

    folder: Path
    only: str | None


def watched(source: object) -> Watched:
    """The folder that a source reads.

    Raises:
        ConfigError: It lies elsewhere, or is a source of another kind.
        SourceError: Its URL cannot be opened.
    """
    path = getattr(source, "path", None)
    location = None if not isinstance(path, str) else locate(path)
    if location is None or not isinstance(location.place, LocalFolder):
        raise ConfigError(
            "source",
            source,
            "cannot be watched: only folders and files of this machine tell of their changes; "
            "run `penstock build` at intervals instead",
        )
    return Watched(Path(location.place.folder), location.only)
