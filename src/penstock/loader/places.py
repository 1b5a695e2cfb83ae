"""Where shards lie: a folder, read in place, or a URL, kept by the node in a bounded cache.

Files in the cache are named by the hash of the full URL and of the hash that is
expected, so two folders with files of one name, or two states of one, never meet.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from penstock.errors import ShardError
from penstock.loader.cache import Fetched, NodeCache
from penstock.loader.formats.checks import Expected, check_file, check_size
from penstock.sources._objects import connect

_TRIES = 4
_FIRST_WAIT_S = 0.5

_log = logging.getLogger("penstock")

# Files that this process has checked: path, size, inode, time of change and hashes.
_checked: set[tuple[Any, ...]] = set()


class Place(Protocol):
    """A folder of shards, on this machine or behind a URL; picklable, safe for many threads."""

    @property
    def url(self) -> str:
        """The folder, as the user named it."""
        ...

    def names(self) -> dict[str, int]:
        """Size of each file below the folder, by its path."""
        ...

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none of that name."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file to read parts of, where it lies."""
        ...

    def check(self, expected: Expected) -> None:
        """Raise `ShardError` where it is plain already that a file is missing or cut short."""
        ...

    def fetch(self, expected: Expected) -> Fetched:
        """A file on this machine, checked; raises `ShardError` where it cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of this machine: its files are read where they are, and never deleted."""

    path: Path

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.path)

    def names(self) -> dict[str, int]:
        """Size of each file below the folder, by its path."""
        found = {}
        for parent, _, names in os.walk(self.path):
            for name in names:
                file = Path(parent, name)
                with contextlib.suppress(FileNotFoundError):  # a broken link
                    found[file.relative_to(self.path).as_posix()] = file.stat().st_size
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none of that name."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, name: str) -> BinaryIO:
        """A file to read parts of."""
        return open(self.path / name, "rb")

    def check(self, expected: Expected) -> None:
        """Raise `ShardError` where it is plain already that a file is missing or cut short."""
        check_size(self.path / expected.name, expected)

    def fetch(self, expected: Expected) -> Fetched:
        """The file itself, checked once by this process."""
        path = self.path / expected.name
        _check_once(path, expected)
        return Fetched(path)


@dataclass(frozen=True, slots=True)
class Remote:
    """A folder behind a URL; its files are fetched whole and kept in a cache of this node.

    Attributes:
        url: The folder.
        cache: Where they are kept; many processes and many URLs may share it.
    """

    url: str
    cache: NodeCache
    _sizes: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def names(self) -> dict[str, int]:
        """Size of each file below the folder, by its path."""
        files, root = connect(self.url)
        found = _patiently(lambda: files.find(root, detail=True), self.url)
        skip = len(root.rstrip("/")) + 1
        names = {path[skip:]: int(info.get("size") or 0) for path, info in found.items()}
        return dict(sorted(names.items()))

    def read(self, name: str) -> bytes | None:
        """A small file's bytes; None where there is none of that name."""
        files, root = connect(self.url)
        try:
            data = _patiently(lambda: files.cat_file(f"{root.rstrip('/')}/{name}"), name)
        except FileNotFoundError:
            return None
        return bytes(data)

    def open(self, name: str) -> BinaryIO:
        """A file to read parts of; each part is a request."""
        files, root = connect(self.url)
        path = f"{root.rstrip('/')}/{name}"
        opened: BinaryIO = _patiently(lambda: files.open(path, "rb"), name)
        return opened

    def check(self, expected: Expected) -> None:
        """Raise `ShardError` where it is plain already that a file is missing or cut short."""
        if not self._sizes:
            self._sizes.update(self.names())
        found = self._sizes.get(expected.name)
        if found is None:
            raise ShardError(expected.name, 0, f"expected a shard at {self.url}, but it is missing")
        if expected.num_bytes not in (None, found):
            problem = f"expected {expected.num_bytes} bytes, found {found} at {self.url}"
            raise ShardError(expected.name, min(found, expected.num_bytes or 0), problem)

    def fetch(self, expected: Expected) -> Fetched:
        """The file in the cache: fetched once a node, and again where it is not as expected."""
        return self.cache.get(
            self._key(expected),
            lambda path: _check_once(path, expected),
            lambda path: self._get(expected, path),
            expected.num_bytes or 0,
        )

    def _get(self, expected: Expected, target: Path) -> None:
        files, root = connect(self.url)
        remote = f"{root.rstrip('/')}/{expected.name}"
        for tries_left in reversed(range(_TRIES)):
            try:
                _patiently(lambda: files.get_file(remote, str(target)), expected.name)
                check_file(target, expected)
                return
            except FileNotFoundError as err:
                problem = f"expected a shard at {self.url}, but it is missing"
                raise ShardError(expected.name, 0, problem) from err
            except ShardError as err:
                if not tries_left:
                    err.add_note(f"It was fetched {_TRIES} times from {self.url}.")
                    raise
                _log.warning("%s; fetching it again", err.problem)

    def _key(self, expected: Expected) -> str:
        facts = [self.url.rstrip("/"), expected.name, expected.num_bytes, dict(expected.hashes)]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def place_of(url: str | os.PathLike[str], cache: NodeCache) -> Place:
    """A folder of this machine, or one behind a URL."""
    text = os.fspath(url)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return Folder(Path(text).expanduser().absolute())
    if text.startswith(("file://", "local://")):
        return Folder(Path(text.partition("://")[2]))
    connect(text)  # a scheme that nothing opens is told now
    return Remote(text, cache)


def _check_once(path: Path, expected: Expected) -> None:
    """Check a file, unless this process has and it did not change since."""
    check_size(path, expected)
    facts = os.stat(path)
    key = (str(path), facts.st_size, facts.st_ino, facts.st_ctime_ns, *expected.hashes.values())
    if key not in _checked:
        check_file(path, expected)
        _checked.add(key)


def _patiently(call: Callable[[], Any], what: str) -> Any:
    """The call's result; what may heal is tried again, ever later.

    Raises:
        FileNotFoundError: There is no such object.
        ShardError: It failed every time.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as err:  # every file system has errors of its own
            if attempt == _TRIES:
                reason = f"cannot be fetched: {type(err).__name__}: {err}"
                raise ShardError(what, 0, reason) from err
            wait = _FIRST_WAIT_S * 2 ** (attempt - 1) * (1 + random.random())
            _log.warning("%s: %s; trying again in %.1f s", what, err, wait)
            time.sleep(wait)
