"""Where a store lies: a folder of this machine, or a prefix of an object store.

Both are paths; what differs between them is here. Files that are written once
and mapped into memory are worked with as local copies, in either case.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock.store import copies, files
from penstock.store.objects import ObjectPath, open_objects

# Two letters at least: `C:` is a drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

Place = Path | ObjectPath
"""A path of a store; the part of `pathlib.Path` that `ObjectPath` has works with both."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files of a store on this machine; they stay there as long as this object does.

    Attributes:
        path: The folder that they are in.
        held: What keeps them.
    """

    path: Path
    held: tuple[object, ...] = ()


def open_place(store: str | os.PathLike[str] | ObjectPath) -> Place:
    """The place of a store from its folder or URL.

    Raises:
        StoreError: It is a URL of a kind that holds no stores.
        MissingExtra: The client of object stores is not installed.
    """
    if isinstance(store, ObjectPath):
        return store
    path = os.fspath(store)
    if path.startswith("file://"):
        return Path(path.removeprefix("file://"))
    return open_objects(path) if _URL.match(path) else Path(path)


def local_files(folder: Place, names: Iterable[str] = ()) -> LocalFiles:
    """A folder of immutable files and folders on this machine, with those named in it.

    New ones may be written there, under names that `attempt_name` makes; they are
    part of the store after `flush`.

    Raises:
        StoreError: One is missing or damaged.
    """
    if isinstance(folder, Path):
        return LocalFiles(folder)
    return LocalFiles(*copies.fetch(folder, names))


def attempt_name(store: Place, run: str) -> str:
    """What to name new immutable files of a run by, so that no other writer's are ever mixed in.

    On a local disk only one writer can be at work. On an object store, one that
    has lost its lease may go on for a while.
    """
    return run if isinstance(store, Path) else f"{run}-{store.bucket.token}"


def make_folder(path: Place) -> None:
    """Make a folder and those above it that are missing, durably."""
    if isinstance(path, Path):
        files.make_folder(path)
    else:
        path.mkdir(parents=True, exist_ok=True)


def known_files(store: Place) -> set[str]:
    """What is there before a run, to compare with in `flush`."""
    return files.all_files(store) if isinstance(store, Path) else copies.entries(store)


def flush(store: Place, known: set[str]) -> set[str]:
    """Make everything durable that is new; to be called before a manifest that names it.

    Returns:
        What is there now.
    """
    if isinstance(store, Path):
        return files.fsync_new(store, known)
    return copies.upload_new(store, known)


def replace_file(path: Place, data: bytes) -> None:
    """Write a file whole or not at all, durably."""
    if isinstance(path, Path):
        files.replace_file(path, data)
    else:
        path.bucket.put(path.key, data)


def file_sizes(folder: Place) -> dict[str, int]:
    """Size in bytes of every file below a folder, by its path relative to it."""
    if isinstance(folder, ObjectPath):
        skip = len(folder.key) + 1 if folder.key else 0
        return {key[skip:]: size for key, size in folder.bucket.sizes(folder.key).items()}
    sizes = {}
    for path in map(Path, files.all_files(folder)):
        with contextlib.suppress(FileNotFoundError):  # a writer may be dropping old runs
            sizes[str(path.relative_to(folder))] = path.stat().st_size
    return sizes


def delete_files(store: Place, names: Iterable[str]) -> None:
    """Delete these files, and on a local disk the folders that are empty then; durable.

    Those that are gone already are as good as deleted.
    """
    if isinstance(store, Path):
        files.delete_files(store, names)
    else:
        deleted = sorted(names)
        store.bucket.delete([(store / name).key for name in deleted])
        copies.drop(store, deleted)


def lance_options(path: Place) -> dict[str, str] | None:
    """What Lance needs to know besides a table's address."""
    return None if isinstance(path, Path) else path.bucket.options
