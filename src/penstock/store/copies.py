"""Copies on this machine of what an object store holds in immutable files.

    CACHE/stores/<hash of the store's URL>/index/segment-000007-5f1c.../...
    CACHE/stores/<hash of the store's URL>/index/.segment-000007-5f1c....lock

An entry, a file or a folder, appears under its name whole or not at all, checked
against the hashes that its writer put beside it. Names are never used twice, so a
copy never goes stale. Whoever uses one holds its lock in common with others;
entries are removed, those used longest ago first, only while nobody does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from penstock.errors import StoreError
from penstock.models.cache import cache_folder
from penstock.store.files import all_files, fsync_all
from penstock.store.objects import ObjectPath

_CONNECTIONS = 8
_DAY_S = 86_400.0
_DEFAULT_GB = 20.0

LISTING = ".files"
"""What the object that lists an entry's files is named by; it is put last, so without it the entry
is not complete."""


def fetch(folder: ObjectPath, names: Iterable[str]) -> tuple[Path, tuple[object, ...]]:
    """The local folder that holds copies of these entries, and what keeps them there.

    Raises:
        StoreError: An entry is missing or is not what was written, or there is no room for it.
    """
    here = _folder(folder.parent) / folder.name
    try:
        here.mkdir(parents=True, exist_ok=True)
        return here, tuple(_held(folder, here, name) for name in names)
    except OSError as err:
        raise StoreError(
            str(here),
            f"copies of {folder} cannot be kept here ({err.strerror or err}); free some space, or "
            "set PENSTOCK_CACHE to another folder",
        ) from err


def entries(store: ObjectPath) -> set[str]:
    """The copies of a store that are complete, as `folder/name`."""
    found = _folder(store).glob("*/[!.]*")
    return {f"{path.parent.name}/{path.name}" for path in found}


def upload_new(store: ObjectPath, known: set[str]) -> set[str]:
    """Put every entry that this writer has made and that is not known yet; all that are there."""
    now = entries(store)
    for entry in sorted(now - known):
        folder, _, name = entry.partition("/")
        if store.bucket.token and store.bucket.token in name:
            _upload(store / folder, _folder(store) / folder / name)
    make_room(0)
    return now


def _folder(store: ObjectPath) -> Path:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    name = hashlib.sha256(f"{endpoint} {store}".encode()).hexdigest()[:24]
    return cache_folder() / "stores" / name


class _Lock:
    """A lock file that is open; closed when this object goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.close = weakref.finalize(self, os.close, self.fd)

    def take(self, *, alone: bool, wait: bool = True) -> bool:
        """Lock it; False if the file is gone, or others hold it and we are not to wait."""
        if sys.platform == "win32":
            return True  # what is mapped cannot be removed there
        import fcntl

        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            fcntl.flock(self.fd, kind if wait else kind | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except (BlockingIOError, FileNotFoundError):
            return False


def _held(folder: ObjectPath, here: Path, name: str) -> _Lock:
    """Make sure that there is a copy, and keep it for as long as the result lives."""
    while True:
        lock = _Lock(here / f".{name}.lock")
        # Many readers of one machine wait here for the first one's download.
        if lock.take(alone=False) and (here / name).exists():
            os.utime(lock.path)
            return lock
        if lock.take(alone=True) and not (here / name).exists():
            _download(folder, here, name)
        lock.close()


def _download(folder: ObjectPath, here: Path, name: str) -> None:
    try:
        listing: list[dict[str, Any]] = json.loads((folder / f"{name}{LISTING}").read_bytes())
    except FileNotFoundError as err:
        raise StoreError(
            str(folder / name), "it is not there; was this run removed by `penstock gc`?"
        ) from err
    make_room(sum(int(file["size"]) for file in listing))
    aside = Path(tempfile.mkdtemp(dir=here, prefix=f".{name}."))
    try:
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(lambda file: _download_file(folder, aside, file), listing))
        fsync_all((aside / file["path"] for file in listing), top=aside)
        (aside / name).rename(here / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _download_file(folder: ObjectPath, aside: Path, file: dict[str, Any]) -> None:
    source, target = folder / file["path"], aside / file["path"]
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    try:
        with target.open("wb") as opened:
            for piece in source.bucket.stream(source.key):
                digest.update(piece)
                size += len(piece)
                opened.write(piece)
    except FileNotFoundError as err:
        raise StoreError(str(source), "it is not there any more") from err
    if (size, digest.hexdigest()) != (file["size"], file["sha256"]):
        raise StoreError(
            str(source),
            f"it is not what was written: expected {file['size']} bytes of SHA-256 "
            f"{file['sha256'][:16]}, found {size} of {digest.hexdigest()[:16]}. Build the index "
            "again: penstock index rebuild STORE",
        )


def _upload(folder: ObjectPath, entry: Path) -> None:
    files = sorted(all_files(entry)) if entry.is_dir() else [str(entry)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        listing = list(pool.map(lambda file: _upload_file(folder, entry.parent, file), files))
    fsync_all(map(Path, files), top=entry.parent)
    listed = folder / f"{entry.name}{LISTING}"
    listed.bucket.put(listed.key, json.dumps(listing).encode())
    # From now on it is like any other copy, also for who looks for room.
    _Lock(entry.parent / f".{entry.name}.lock").close()


def _upload_file(folder: ObjectPath, here: Path, file: str) -> dict[str, Any]:
    path = Path(file)
    target = folder / path.relative_to(here).as_posix()
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    target.bucket.put(target.key, path)
    name = path.relative_to(here).as_posix()
    return {"path": name, "size": path.stat().st_size, "sha256": digest}


def drop(store: ObjectPath, names: Iterable[str]) -> None:
    """Remove the copies of entries that are deleted, given as files of the store."""
    for name in names:
        entry = _folder(store) / name.removesuffix(LISTING)
        if name.endswith(LISTING) and entry.exists():
            _remove(entry)


def make_room(num_bytes: int) -> None:
    """Remove copies, those used longest ago first, until so many bytes more fit into the cache.

    The cache may hold ``PENSTOCK_CACHE_GB`` gigabytes of copies, 20 unless told.
    What is in use stays, also where that is more.
    """
    limit = float(os.environ.get("PENSTOCK_CACHE_GB") or _DEFAULT_GB) * 1e9
    _clear_leftovers()
    found = sorted(_copies())
    total = num_bytes + sum(size for _, size, _ in found)
    for _, size, entry in found:
        if total <= limit:
            return
        if _remove(entry):
            total -= size


def _copies() -> list[tuple[float, int, Path]]:
    """(when last used, bytes, entry) of each copy; leftovers of killed writers among them."""
    found = []
    for entry in (cache_folder() / "stores").glob("*/*/[!.]*"):
        files = all_files(entry) if entry.is_dir() else {str(entry)}
        with contextlib.suppress(FileNotFoundError):  # another process removes some, too
            size = sum(os.stat(file).st_size for file in files)
            lock = entry.with_name(f".{entry.name}.lock")
            used = lock if lock.exists() else entry
            # What has no lock is being written.
            if used is lock or time.time() - entry.stat().st_mtime > _DAY_S:
                found.append((used.stat().st_mtime, size, entry))
    return found


def _clear_leftovers() -> None:
    """Remove what killed processes were downloading."""
    for aside in (cache_folder() / "stores").glob("*/*/.*/"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - aside.stat().st_mtime > _DAY_S:
                shutil.rmtree(aside, ignore_errors=True)


def _remove(entry: Path) -> bool:
    lock = _Lock(entry.with_name(f".{entry.name}.lock"))
    if free := lock.take(alone=True, wait=False):
        aside = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".removed-"))
        with contextlib.suppress(FileNotFoundError):
            entry.rename(aside / entry.name)
        shutil.rmtree(aside, ignore_errors=True)
        lock.path.unlink(missing_ok=True)
    lock.close()
    return free
