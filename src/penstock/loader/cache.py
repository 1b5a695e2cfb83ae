"""A bounded cache of one node, shared by all its processes: made once, evicted, never torn.

A file appears under its final name whole and checked or not at all. The process
that makes a file holds `flock` on its unfinished one, so the others wait and find
it there; those that read it share a lock beside it, so that nobody evicts it
under them. The system frees both when a process dies, however it dies: there is
nothing to clean up.

Only files of names that the cache gives, in its own folder, are ever deleted, and
each of them can be made again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import ShardError

_OURS = re.compile(r"[0-9a-f]{32}\.(shard|part)")


@dataclass(slots=True)
class Fetched:
    """A file on this machine; while this object lives, the cache keeps it."""

    path: Path
    lock: int | None = None

    def __del__(self) -> None:
        if self.lock is not None:
            os.close(self.lock)


@dataclass(frozen=True, slots=True)
class NodeCache:
    """Files by key, in one folder.

    Attributes:
        folder: Made when first needed; several caches may be one folder.
        max_bytes: Most bytes kept. What is being read is never evicted, so there may be
            more where the files being read are more.
    """

    folder: Path
    max_bytes: int

    def get(
        self,
        key: str,
        check: Callable[[Path], None],
        make: Callable[[Path], None],
        num_bytes: int = 0,
    ) -> Fetched:
        """The file of a key: the one that is there, or a new one.

        Args:
            key: 32 hexadecimal digits that name the content.
            check: Raises `ShardError` where a file is not what it should be, or not there.
            make: Writes the file, at the path given to it; called once on the node.
            num_bytes: How large that will be, as far as is known.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{key}.shard"
        lease = path.with_suffix(".lock")
        fetched = Fetched(path, _locked(lease, shared=True))
        os.utime(lease)  # what was used longest ago is evicted first
        try:
            check(path)
        except ShardError:
            self._make(path, check, make, num_bytes)
        return fetched

    def _make(
        self,
        path: Path,
        check: Callable[[Path], None],
        make: Callable[[Path], None],
        num_bytes: int,
    ) -> None:
        temporary = path.with_suffix(".part")
        lock = _locked(temporary, shared=False)
        try:
            with contextlib.suppress(ShardError):
                check(path)
                temporary.unlink()  # another process has made it meanwhile
                return
            self._make_room(num_bytes)
            make(temporary)
            os.replace(temporary, path)
            self._make_room(0)
        finally:
            os.close(lock)

    def _make_room(self, num_bytes: int) -> None:
        """Evict what was used longest ago until this many bytes more fit."""
        lock = _locked(self.folder / "evict.lock", shared=False)
        try:
            sizes = {}
            for entry in os.scandir(self.folder):
                if _OURS.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # it has just been renamed
                        sizes[Path(entry.path)] = entry.stat().st_size
            total = sum(sizes.values()) + num_bytes
            for path in sorted(sizes, key=_last_use):
                if total <= self.max_bytes:
                    break
                total -= _evict(path)
        finally:
            os.close(lock)


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
