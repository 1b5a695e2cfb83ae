"""Files of a folder, each one document."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from penstock.errors import ConfigError
from penstock.records import RAW, Failure, Listing, Read
from penstock.sources._media_types import extension_of, media_type_of
from penstock.sources._metadata import json_objects
from penstock.sources._place import Place, checked_path, grouped, list_items, locate
from penstock.sources._select import checked_patterns
from penstock.sources._trouble import Trouble

_TASK_BYTES = 4 << 20
_TASK_ITEMS = 256

# These say which files are taken, not how one is read: moving them reads nothing again.
_CHOICE = {"fingerprint": False}


@dataclass(frozen=True, slots=True)
class FileTask:
    """Files to read in one go.

    Attributes:
        place: Where they lie.
        items: Their names.
        versions: Their versions just now.
    """

    place: Place
    items: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A folder's files; made by `files`, which says what the settings mean."""

    path: str
    include: tuple[str, ...] = field(default=(), metadata=_CHOICE)
    exclude: tuple[str, ...] = field(default=(), metadata=_CHOICE)
    gitignore: bool = field(default=True, metadata=_CHOICE)
    max_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        checked_path("files.path", self.path)
        checked_patterns("files.include", self.include)
        checked_patterns("files.exclude", self.exclude)
        if not isinstance(self.max_bytes, int) or self.max_bytes < 1:
            raise ConfigError("files.max_bytes", self.max_bytes, "must be at least 1 byte")

    def list(self) -> Listing:
        """Every file that is taken, and every place that could not be listed.

        Raises:
            SourceError: The path does not exist, or the glob matches nothing.
        """
        return list_items(
            self.path, include=self.include, exclude=self.exclude, gitignore=self.gitignore
        )

    def tasks(self, items: Sequence[str]) -> Iterator[FileTask]:
        """Groups of up to 256 consecutive files and about 4 MB; a larger file goes alone."""
        place = locate(self.path).place
        for start in range(0, len(items), 4096):
            part = items[start : start + 4096]
            for names, versions in grouped(part, place.stat_items(part), _TASK_ITEMS, _TASK_BYTES):
                yield FileTask(place, names, versions)

    def read(self, task: FileTask) -> Read:
        """The files' bytes; a file that cannot be read becomes a failure."""
        items: list[str] = []
        raw: list[bytes] = []
        failures: list[Failure] = []
        finished: list[tuple[str, str]] = []
        for item, known in zip(task.items, task.versions, strict=True):
            try:
                data, version = task.place.read(item, known, self.max_bytes)
            except Trouble as trouble:
                failures.append(trouble.failure(item))
                if trouble.version is not None:
                    finished.append((item, trouble.version))
                continue
            items.append(item)
            raw.append(data)
            finished.append((item, version))
        return Read(_rows(items, raw), tuple(failures), tuple(finished))


def files(
    path: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    gitignore: bool = True,
    max_bytes: int = 1 << 30,
) -> Files:
    """Every file below a folder, one document each, named by its path relative to the folder.

    A file's media type follows from its extension (Markdown, reStructuredText,
    HTML, TeX, CSV, JSON, YAML, some thirty programming languages; else
    `text/plain`); its metadata are `name`, `folder`, `extension` (without the
    dot) and `num_bytes`. Symbolic links are followed; `.git`, `.hg` and `.svn`
    are never entered; other hidden files count.

    Args:
        path: A folder, a file, a glob or a URL (`s3://bucket/docs`). In a glob
            `**` crosses folders, and a folder that matches stands for all that
            is below it; names are then relative to what precedes the first
            `*`, `?` or `[`.
        include: Patterns as in `.gitignore`, relative to the folder (`*.md`,
            `docs/`); only files that match one, or lie in a folder that does, are
            taken. None takes all.
        exclude: Patterns of what to leave out, whatever `include` says.
        gitignore: Leave out what `.gitignore` files exclude: those below the
            folder, and those above it up to the root of its repository.
        max_bytes: A larger file is recorded as a failure, not read.

    Raises:
        ConfigError: A setting is not of the form above.
    """
    return Files(
        path=checked_path("files.path", path),
        include=checked_patterns("files.include", include),
        exclude=checked_patterns("files.exclude", exclude),
        gitignore=gitignore,
        max_bytes=max_bytes,
    )


def _rows(items: list[str], raw: list[bytes]) -> pa.RecordBatch:
    names, size = pa.array(items, pa.string()), len(items)
    parts = [item.rpartition("/") for item in items]
    metadata = {
        "name": pa.array([name for _, _, name in parts], pa.string()),
        "folder": pa.array([folder for folder, _, _ in parts], pa.string()),
        "extension": pa.array([extension_of(name) for _, _, name in parts], pa.string()),
        "num_bytes": pa.array(map(len, raw), pa.int64(), size=size),
    }
    return pa.RecordBatch.from_arrays(
        [
            names,
            names,
            pa.array(raw, pa.large_binary()),
            pa.array([media_type_of(name) for _, _, name in parts], pa.string()),
            json_objects(metadata, size),
        ],
        schema=RAW,
    )
