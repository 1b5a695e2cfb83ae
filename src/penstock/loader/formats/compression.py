"""Whole shards compressed as MDS names it: `zstd`, `gz:6`, `br`, `bz2`, `snappy`."""

from __future__ import annotations

import bz2
import gzip

import pyarrow as pa

from penstock.errors import ConfigError

# Least and highest level, and the one that MDS takes when none is named.
_LEVELS = {"br": (0, 11, 11), "bz2": (1, 9, 9), "gz": (0, 9, 9), "zstd": (1, 22, 3)}

NAMES = ("br", "bz2", "gz", "snappy", "zstd")


def checked_compression(name: str | None) -> str | None:
    """The name itself.

    Raises:
        ConfigError: There is no such compression, or no such level of it.
    """
    if name is None:
        return None
    kind, colon, level = name.partition(":")
    low, high, _ = _LEVELS.get(kind, (0, -1, 0))
    if kind not in NAMES or (colon and not (level.isdigit() and low <= int(level) <= high)):
        raise ConfigError(
            "compression",
            name,
            f"must be one of {', '.join(NAMES)}, or one with a level, as zstd:6",
        )
    return name


def extension(name: str) -> str:
    """What a compressed file's name ends with, without the dot."""
    return name.partition(":")[0]


def compress(name: str, data: bytes) -> bytes:
    """The data, compressed as `name` says."""
    kind, _, level_text = name.partition(":")
    level = int(level_text) if level_text else _LEVELS.get(kind, (0, 0, 0))[2]
    if kind == "gz":
        # No time of writing in it: the same rows give the same bytes.
        return gzip.compress(data, level, mtime=0)
    if kind == "bz2":
        return bz2.compress(data, level)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level).compress(data)
    codec = pa.Codec("brotli", level) if kind == "br" else pa.Codec("snappy")
    return bytes(codec.compress(data, asbytes=True))


def decompress(name: str, data: bytes, size: int) -> bytes:
    """What was compressed; `size` bytes of it.

    Raises:
        ValueError: The data is not what `name` says, or not of that size.
    """
    kind = extension(name)
    try:
        if kind == "gz":
            found = gzip.decompress(data)
        elif kind == "bz2":
            found = bz2.decompress(data)
        elif kind == "zstd":
            import zstandard

            found = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
        else:
            codec = pa.Codec("brotli" if kind == "br" else "snappy")
            found = bytes(codec.decompress(data, decompressed_size=size, asbytes=True))
    except Exception as err:  # every library has errors of its own
        raise ValueError(f"cannot be decompressed as {kind} ({err})") from err
    if len(found) != size:
        raise ValueError(f"expected {size} bytes when decompressed, found {len(found)}")
    return found
