"""Where shards lie: a folder, read in place, or a URL, kept by the node in a bounded cache.

One cache serves every process of a node. A file appears in it under its final
name whole and checked or not at all. The process that fetches a file holds
`flock` on the file's lock, so the others wait and find it there; those that
read it share that lock, so that nobody evicts it under them. The system frees
both when a process dies, however it dies: there is nothing to clean up.

Files are named by the hash of the full URL and of the hash that is expected, so
two folders with files of one name, or two states of one, never meet. Only
files of such names in the cache's own folder are ever deleted, and those come
from a remote.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from penstock.errors import ConfigError, ShardError
from penstock.loader.formats.checks import Expected, check_file, check_size
from penstock.sources._objects import connect

_TRIES = 4
_FIRST_WAIT_S = 0.5
_OURS = re.compile(r"[0-9a-f]{32}\.(shard|part)")

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

    def check(self, expected: Expected) -> None:
        """Raise `ShardError` where it is plain already that a file is missing or cut short."""
        ...

    def fetch(self, expected: Expected) -> Fetched:
        """A file on this machine, checked; raises `ShardError` where it cannot be had."""
        ...


@dataclass(slots=True)
class Fetched:
    """A file on this machine; while this object lives, the cache keeps it."""

    path: Path
    lock: int | None = None

    def __del__(self) -> None:
        if self.lock is not None:
            os.close(self.lock)


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
        cache: The cache's folder; many processes and many URLs may share it.
        max_bytes: Most bytes that the cache keeps. What is being read is never evicted, so
            it may hold more where the files being read are more.
    """

    url: str
    cache: Path
    max_bytes: int
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
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"{self._key(expected)}.shard"
        lease = path.with_suffix(".lock")
        fetched = Fetched(path, _locked(lease, shared=True))
        os.utime(lease)  # what was used longest ago is evicted first
        try:
            _check_once(path, expected)
        except ShardError:
            self._download(expected, path)
        return fetched

    def _download(self, expected: Expected, path: Path) -> None:
        temporary = path.with_suffix(".part")
        lock = _locked(temporary, shared=False)
        try:
            with contextlib.suppress(ShardError):
                _check_once(path, expected)  # another process has fetched it meanwhile
                return
            self._make_room(expected.num_bytes or 0)
            self._get(expected, temporary)
            os.replace(temporary, path)
            self._make_room(0)
        finally:
            os.close(lock)

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

    def _make_room(self, num_bytes: int) -> None:
        """Evict what was used longest ago until this many bytes more fit."""
        lock = _locked(self.cache / "evict.lock", shared=False)
        try:
            files = [entry for entry in os.scandir(self.cache) if _OURS.fullmatch(entry.name)]
            total = sum(entry.stat().st_size for entry in files) + num_bytes
            for path in sorted((Path(entry.path) for entry in files), key=_last_use):
                if total <= self.max_bytes:
                    break
                total -= _evict(path)
        finally:
            os.close(lock)

    def _key(self, expected: Expected) -> str:
        facts = [self.url.rstrip("/"), expected.name, expected.num_bytes, dict(expected.hashes)]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def place_of(url: str | os.PathLike[str], cache: Path, max_bytes: int) -> Place:
    """A folder of this machine, or one behind a URL."""
    text = os.fspath(url)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return Folder(Path(text).expanduser().absolute())
    if text.startswith(("file://", "local://")):
        return Folder(Path(text.partition("://")[2]))
    if max_bytes < 1:
        raise ConfigError("cache_bytes", max_bytes, "must be positive")
    connect(text)  # a scheme that nothing opens is told now
    return Remote(text, cache, max_bytes)


def free_share(folder: Path, share: float = 0.5) -> int:
    """Bytes of the disk below a folder that need not exist: this share of what is free now."""
    while not folder.exists():
        folder = folder.parent
    return int(shutil.disk_usage(folder).free * share)


def _check_once(path: Path, expected: Expected) -> None:
    """Check a file, unless this process has and it did not change since."""
    check_size(path, expected)
    facts = os.stat(path)
    key = (str(path), facts.st_size, facts.st_ino, facts.st_ctime_ns, *expected.hashes.values())
    if key not in _checked:
        check_file(path, expected)
        _checked.add(key)


def _locked(path: Path, *, shared: bool, wait: bool = True) -> int:
    """Open a file, make it where it is not, and lock it; the lock goes with the descriptor.

    Raises:
        BlockingIOError: Another holds it, and we were not to wait.
    """
    import fcntl  # not on Windows, where shards are read in place

    mode = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, mode)
            # It may have been evicted, or renamed, between opening and locking.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _last_use(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.with_suffix(".lock").stat().st_mtime_ns
    return 0


def _evict(path: Path) -> int:
    """Delete a file of the cache unless it is being read or fetched; how many bytes that frees."""
    lease = path.with_suffix(".lock") if path.suffix == ".shard" else path
    try:
        lock = _locked(lease, shared=False, wait=False)
    except BlockingIOError:
        return 0
    try:
        size = path.stat().st_size
        path.unlink()
        if lease != path:
            lease.unlink()
    except FileNotFoundError:
        return 0
    finally:
        os.close(lock)
    return size


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
