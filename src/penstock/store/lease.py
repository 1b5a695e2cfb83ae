"""One writer at a time: on a local disk, a lock that a killed writer loses.

The lock is `flock` on ``writer.lock``, so the system frees it when its holder
dies, however it dies. The file's text says who holds it, for the error that a
second writer gets, and carries a token: a writer whose file was taken away
(someone deleted it, or a network file system dropped the lock) notices before
it publishes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from penstock.errors import LeaseError
from penstock.store.places import Place

if TYPE_CHECKING:
    from penstock.store.object_lease import ObjectLease


def take_lease(store: Place) -> Lease | ObjectLease:
    """The right to write the store at this place; a context manager.

    Raises:
        LeaseError: Another living writer holds it; the message names it.
    """
    from penstock.store.object_lease import ObjectLease

    return Lease(store) if isinstance(store, Path) else ObjectLease(store)


class Lease:
    """The right to write a store; a context manager.

    Raises:
        LeaseError: Another living process holds it; the message names it.
    """

    def __init__(self, store: Path) -> None:
        self._path = store / "writer.lock"
        self._token = secrets.token_hex(8)
        self._fd = -1

    def __enter__(self) -> Lease:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            if not _lock(fd):
                holder = os.read(fd, 4096).decode(errors="replace")
                os.close(fd)
                raise LeaseError(str(self._path.parent), held_by(holder))
            if _same_file(fd, self._path):
                break
            os.close(fd)  # it was replaced between open and lock
        facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.time(),
            "token": self._token,
        }
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(facts).encode(), 0)
        self._fd = fd
        return self

    def check(self) -> None:
        """Raise unless this process still holds the lease.

        Raises:
            LeaseError: The lock file was removed or taken over.
        """
        try:
            held = json.loads(self._path.read_bytes())["token"] == self._token
        except (OSError, ValueError, KeyError, TypeError):
            held = False
        if not held:
            raise LeaseError(
                str(self._path.parent),
                "this writer lost its lease (writer.lock was removed or taken over while it "
                "ran), so it publishes nothing; the last published run is untouched. "
                "Make sure that only one build runs, then build again",
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)  # frees the lock; the file stays, as its name is the meeting point


def _lock(fd: int) -> bool:
    import fcntl  # not on Windows, where Penstock reads stores but does not write them

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def held_by(holder: str) -> str:
    """What a second writer is told, from what the first one wrote into the lock."""
    try:
        facts = json.loads(holder)
        who = (
            f"process {facts['pid']} on {facts['host']} has been writing it for "
            f"{time.time() - facts['since']:.0f} s"
        )
        if "renewed" in facts:  # on an object store a dead one is known by its silence alone
            who += f" (and said so {time.time() - facts['renewed']:.0f} s ago; silent for "
            who += f"{facts['lasts_s']:.0f} s, it is taken over)"
    except (ValueError, KeyError, TypeError):
        who = "another process is writing it"
    return f"{who}; wait until it is done, or stop it, then build again"
