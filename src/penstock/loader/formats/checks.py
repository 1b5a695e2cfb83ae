"""Is a file what its index says? Its size first, then one hash over its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.errors import MissingExtra, ShardError

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Expected:
    """A file as an index names it.

    Attributes:
        name: Its path below the folder.
        num_bytes: Its size; None where no index says it.
        hashes: Hexadecimal digests by algorithm, as MDS names them; may be empty.
    """

    name: str
    num_bytes: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)


def check_file(path: Path, expected: Expected) -> None:
    """Compare a file with what is expected of it.

    Raises:
        ShardError: It is missing, of another size or of another hash.
        MissingExtra: Only hashes of xxhash are known, and it is not installed.

    Cost: 0.7 ms/MB for SHA-256.
    """
    check_size(path, expected)
    if not expected.hashes:
        return
    name, digest = _chosen(expected.hashes)
    with open(path, "rb", buffering=0) as file:
        hashing = _new(name)
        while block := file.read(_BLOCK):
            hashing.update(block)
    if hashing.hexdigest() != digest:
        raise ShardError(expected.name, 0, f"expected {name} {digest}, found {hashing.hexdigest()}")


def check_size(path: Path, expected: Expected) -> None:
    """As `check_file`, but look at the file's size alone.

    Raises:
        ShardError: It is missing or of another size.
    """
    try:
        size = os.stat(path).st_size
    except OSError as err:
        reason = "it is missing" if isinstance(err, FileNotFoundError) else str(err)
        raise ShardError(expected.name, 0, f"expected a shard, but {reason}") from err
    if expected.num_bytes is not None and size != expected.num_bytes:
        kept = min(size, expected.num_bytes)
        raise ShardError(expected.name, kept, f"expected {expected.num_bytes} bytes, found {size}")


def digests(data: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Hexadecimal digests of bytes, by algorithm.

    Raises:
        MissingExtra: One is of xxhash, and it is not installed.
    """
    found = {}
    for name in names:
        hashing = _new(name)
        hashing.update(data)
        found[name] = hashing.hexdigest()
    return found


def is_known(name: str) -> bool:
    """Whether there is a hash of that name with a digest of fixed length."""
    fixed = hashlib.algorithms_available - {"shake_128", "shake_256"}
    return name in fixed or name.startswith("xxh")


def _chosen(hashes: Mapping[str, str]) -> tuple[str, str]:
    """What is checked of several: SHA-256, else what needs no other package."""
    order = sorted(hashes, key=lambda name: (name != "sha256", name.startswith("xxh"), name))
    return order[0], hashes[order[0]]


def _new(name: str) -> Any:
    if not name.startswith("xxh"):
        return hashlib.new(name, usedforsecurity=False)
    try:
        import xxhash
    except ImportError as err:
        raise MissingExtra("xxhash", f"checking shards by their {name}") from err
    return getattr(xxhash, name)()
