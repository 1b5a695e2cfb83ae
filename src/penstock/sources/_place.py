"""Where a source's items lie: a path, a glob or a URL, resolved when it is used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import pyarrow as pa

from penstock.errors import ConfigError, SourceError
from penstock.records import ITEMS, Listing
from penstock.sources._local import Found, LocalFolder
from penstock.sources._objects import locate_object
from penstock.sources._select import Selection, split_glob

# Two letters at least: `C:` is a drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")

_LOCAL = re.compile(r"^(file|local)://")


class Place(Protocol):
    """A root below which items lie, on this machine or behind a URL; small and picklable."""

    def find(self, selection: Selection) -> Found:
        """Every selected file below the root."""
        ...

    def find_file(self, name: str) -> Found:
        """One file of the root."""
        ...

    def stat_items(self, items: Sequence[str]) -> list[tuple[int, str]]:
        """(size in bytes, version) of each item."""
        ...

    def open(self, item: str, version: str) -> tuple[BinaryIO, str]:
        """The item as a file, and its version; raises `Trouble`."""
        ...

    def read(self, item: str, version: str, max_bytes: int) -> tuple[bytes, str]:
        """The item's bytes and their version; raises `Trouble`."""
        ...


@dataclass(frozen=True, slots=True)
class Location:
    """What a source's path stands for.

    Attributes:
        place: The root that items are relative to.
        only: The one item, if the path names a file.
        glob: Which files below the root are meant, if the path is a glob.
    """

    place: Place
    only: str | None
    glob: str | None


def checked_path(setting: str, path: str | os.PathLike[str]) -> str:
    """The path as text; a local one absolute, so that one place is one source from anywhere.

    Raises:
        ConfigError: It is empty, or not text.
    """
    found = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    local = _LOCAL.sub("", found) if isinstance(found, str) else ""
    if not local or "\0" in local:
        raise ConfigError(setting, path, "must be a path, a glob or a URL, such as 'docs'")
    return found if _URL.match(local) else _absolute(local)


def locate(path: str) -> Location:
    """Find out what a path stands for; a file or folder of that very name comes before a glob.

    Raises:
        SourceError: No file system opens such a URL.
    """
    local = _LOCAL.sub("", path)
    if _URL.match(local):
        folder, only, glob = locate_object(local)
        return Location(folder, only, glob)
    full = _absolute(local)
    if os.path.lexists(full):
        if os.path.isdir(full):
            return Location(LocalFolder(full.rstrip("/") or "/"), None, None)
        parent, name = os.path.split(full)
        return Location(LocalFolder(parent), name, None)
    root, glob = split_glob(full)
    return Location(LocalFolder(root.rstrip("/") or "/"), None, glob)


def list_items(
    path: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    gitignore: bool = False,
    endings: tuple[str, ...] = (),
) -> Listing:
    """List what a path stands for; the patterns are those of `Selection`.

    Raises:
        SourceError: There is nothing at the path, or it cannot be listed.
    """
    location = locate(path)
    if location.only is not None:
        found = location.place.find_file(location.only)
    else:
        _check_folder(path, location)
        selection = Selection(
            include=include,
            exclude=exclude,
            glob=location.glob,
            gitignore=gitignore,
            endings=endings,
        )
        found = location.place.find(selection)
        if location.glob is not None and not found.files and not found.failures:
            raise SourceError(path, "expected files that match this glob, found none")
    files = sorted(found.files)
    columns = [pa.array([file[n] for file in files], pa.string()) for n in (0, 1)]
    failures = sorted(found.failures, key=lambda failure: failure.item)
    return Listing(pa.Table.from_arrays(columns, schema=ITEMS), tuple(failures))


def grouped(
    items: Sequence[str], stats: Sequence[tuple[int, str]], max_items: int, max_bytes: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Consecutive items, with their versions, in groups of bounded size."""
    names: list[str] = []
    versions: list[str] = []
    total = 0
    for item, (num_bytes, version) in zip(items, stats, strict=True):
        if names and (len(names) == max_items or total + num_bytes > max_bytes):
            yield tuple(names), tuple(versions)
            names, versions, total = [], [], 0
        names.append(item)
        versions.append(version)
        total += num_bytes
    if names:
        yield tuple(names), tuple(versions)


def _absolute(path: str) -> str:
    full = os.path.expanduser(path)
    if not os.path.isabs(full):
        full = os.path.join(os.getcwd(), full)
    plain = os.path.abspath(full)
    if ".." in full.split(os.sep) and os.path.realpath(full) != os.path.realpath(plain):
        return full  # after a symbolic link `..` leads elsewhere than it reads
    # `x*/` takes folders alone.
    return plain + "/" if full.endswith("/") and split_glob(plain)[1] else plain


def _check_folder(path: str, location: Location) -> None:
    place = location.place
    if not isinstance(place, LocalFolder) or os.path.isdir(place.folder):
        return
    where = "" if location.glob is None else f" (for the glob {location.glob!r} below it)"
    raise SourceError(
        path, f"expected a file or a folder, found nothing at {place.folder}{where}. Check the path"
    )
