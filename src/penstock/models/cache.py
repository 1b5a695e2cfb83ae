"""Keep what is costly to make from a model: built graphs and hashes of large files.

Everything here can be made again, so a cache that is missing, read-only, full or
corrupt costs time and never an answer. Files appear under their final name whole
or not at all, so any number of processes may share the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """`$PENSTOCK_CACHE`, else `penstock` in the user's cache folder; it need not exist."""
    chosen = os.environ.get("PENSTOCK_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "penstock"


def file_hash(file: Path) -> str:
    """SHA-256 of a file's bytes, remembered by its path, size, mtime and ctime.

    A copy that keeps the time of change (`cp -p`, `rsync -t`) has a ctime of its own.

    Cost: one read of the file the first time, under a millisecond after that.
    """
    facts = file.stat()
    key = [os.fspath(file.resolve()), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
    name = f"hashes/{_digest(key[0])}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        remembered = json.loads((cache_folder() / name).read_bytes())
        if remembered["file"] == key:
            return str(remembered["sha256"])
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    with contextlib.suppress(OSError):
        record = json.dumps({"file": key, "sha256": digest}).encode()
        _write(cache_folder() / name, record)
    return digest


def cached_file(key: str, suffix: str, build: Callable[[], bytes]) -> Path:
    """The file that `build` makes, built once per key.

    A file's name ends with the hash of its bytes, which is checked at every use:
    one that was cut short or has flipped bits is built again.

    Args:
        key: Names the content: whatever changes the bytes changes the key.
        suffix: Of the file, such as ``.onnx``.
        build: Makes the bytes.

    Returns:
        A file in the cache folder; in a temporary folder of this process where the
        cache folder cannot be written.
    """
    for file in sorted((cache_folder() / "graphs").glob(f"{key}-*{suffix}")):
        if _is_intact(file, suffix):
            return file
        with contextlib.suppress(OSError):
            file.unlink()
    content = build()
    name = f"{key}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    try:
        return _write(cache_folder() / "graphs" / name, content)
    except OSError:
        return _write(_fallback_folder() / name, content)


def _is_intact(file: Path, suffix: str) -> bool:
    stated = file.name.removesuffix(suffix).rsplit("-", 1)[-1]
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()[:16] == stated
    except OSError:
        return False


def _write(file: Path, content: bytes) -> Path:
    """Publish content under a name: written aside, synced to disk, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(aside, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    return file


@cache
def _fallback_folder() -> Path:
    # Private to this process: a shared, guessable name in a temporary folder would let
    # another user plant a graph there.
    folder = tempfile.mkdtemp(prefix="penstock-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _digest(text: object) -> str:
    return hashlib.sha256(str(text).encode("utf-8", "surrogateescape")).hexdigest()[:32]
