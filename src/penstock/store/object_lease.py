"""One writer at a time on an object store: an object that says who writes, and until when.

The object is put under the condition that nobody else has put it, and renewed
while its holder lives. One that is not renewed in time is taken over, so a killed
writer loses it, and so may one that stood still for long. Therefore the lease is
a courtesy, and safety lies elsewhere: taking it replaces ``runs/current`` by the
same run under another tag, and a run is published only on top of the tag that its
writer put. A writer that was robbed can go on but never publish.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.errors import LeaseError, StoreError
from penstock.store.lease import held_by
from penstock.store.manifest import current_run, next_run
from penstock.store.objects import ObjectPath
from penstock.store.places import attempt_name

LASTS_S = 60.0
"""After so long without a renewal a lease may be taken over; the clocks of writers should not
differ by as much, or they rob each other."""
_RENEWALS = 4
"""How often it is renewed in that time."""
_ATTEMPTS = 20


class ObjectLease:
    """The right to write a store on an object store; a context manager.

    Raises:
        LeaseError: Another writer holds it; the message names it.
    """

    def __init__(self, store: ObjectPath) -> None:
        self._store, self._lock = store, store / "writer.lock"
        self._since = time.time()
        self._tag: str | None = None
        self._lost = ""
        self._renewing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, daemon=True)
        self._token = secrets.token_hex(8)

    def __enter__(self) -> ObjectLease:
        self._tag = self._take()
        # Not before: the same connection may be used by who holds it.
        self._store.bucket.token, self._store.bucket.rival = self._token, self._rival
        try:
            self._fence()
        except BaseException:
            self._release()
            raise
        self._thread.start()
        return self

    def check(self) -> None:
        """Raise unless this writer still holds the lease; renews it.

        Raises:
            LeaseError: It was taken over.
        """
        self._renew()
        if self._lost:
            raise LeaseError(
                str(self._store),
                f"this writer lost its lease ({self._lost}), so it publishes nothing; the last "
                "published run is untouched. Make sure that only one build runs, then build again",
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._release()

    def _release(self) -> None:
        if not self._lost:
            with contextlib.suppress(StoreError):  # it ends by itself
                self._store.bucket.swap(self._lock.key, self._facts(released=True), self._tag)

    def _take(self) -> str:
        bucket = self._store.bucket
        for _ in range(_ATTEMPTS):
            held, tag = self._holder()
            if held is not None:
                raise LeaseError(str(self._store), held_by(json.dumps(held)))
            taken = bucket.swap(self._lock.key, self._facts(), tag)
            if taken is not None:
                return taken
        raise LeaseError(str(self._store), "other writers take it all the time; try again later")

    def _holder(self) -> tuple[dict[str, Any] | None, str | None]:
        """Who holds the lease, or None, and the tag of the object."""
        try:
            content, tag = self._store.bucket.get(self._lock.key)
        except FileNotFoundError:
            return None, None
        try:
            facts = json.loads(content)
            free = facts["released"] or time.time() - facts["renewed"] > facts["lasts_s"]
            if facts["machine"] == _machine() and not _lives(facts["pid"]):
                free = True
        except (ValueError, KeyError, TypeError):
            return None, tag  # nothing that a writer has put
        return (None if free else facts), tag

    def _fence(self) -> None:
        """Claim what publishing puts, so that no writer from before can publish any more."""
        store, bucket = self._store, self._store.bucket
        current = store / "runs/current"
        for _ in range(_ATTEMPTS):
            tag = bucket.tag(current.key)
            run = current_run(store)
            # Looked at before the swap: had another writer published since, the swap would fail.
            claims = [store / "runs" / f"{next_run(run)}.json", store / "runs/checkpoint.json"]
            tags = [bucket.tag(path.key) for path in claims]
            content = attempt_name(store, run or "").encode() + b"\n"
            fenced = bucket.swap(current.key, content, tag)
            if fenced is not None:
                for path, its in [(current, fenced), *zip(claims, tags, strict=True)]:
                    bucket.claim(path.key, its)
                return
        raise LeaseError(str(store), "other writers publish all the time; try again later")

    def _facts(self, *, released: bool = False) -> bytes:
        facts = {
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": self._since,
            "renewed": time.time(),
            "lasts_s": LASTS_S,
            "released": released,
            "token": self._token,
        }
        return json.dumps(facts, indent=1).encode() + b"\n"

    def _renew_until_over(self) -> None:
        while not self._over.wait(LASTS_S / _RENEWALS) and not self._lost:
            with contextlib.suppress(StoreError):  # the next time, or `check` says so
                self._renew()

    def _renew(self) -> None:
        with self._renewing:
            if self._lost:
                return
            tag = self._store.bucket.swap(self._lock.key, self._facts(), self._tag)
            if tag is None:
                self._lost = f"{self._rival()} took it over, or removed it"
            self._tag = tag

    def _rival(self) -> str:
        """Who wrote into the lock last, if that is not this writer."""
        try:
            facts = json.loads(self._lock.read_bytes())
            if facts["token"] != self._token:
                return f"process {facts['pid']} on {facts['host']}"
        except (OSError, StoreError, ValueError, KeyError, TypeError):
            pass
        return "another writer"


def _machine() -> str:
    """Names where ids of processes mean the same: this container of this machine since it began."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(facts)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
