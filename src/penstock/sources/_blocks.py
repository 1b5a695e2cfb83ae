"""A file as blocks of whole lines, decompressed as it is read."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_LF = 0x0A
_BEFORE = b"\xef\xbb\xbf \t\r\n"

BLOCK_BYTES = 1 << 20

# Compressed bytes given to the decompressor at a time: few enough that little
# is lost where the stream breaks (and that a bomb does not fill the memory),
# enough that a call costs nothing.
_GZIP_STEP = 16 << 10
_ZSTD_STEP = 2 << 10


class Damaged(Exception):  # noqa: N818 - never leaves this package
    """A compressed stream ends early or is corrupt; what came before was yielded."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file.

    Attributes:
        data: The lines; only the file's last one may lack its line end.
        first_line: Number of the first one, from 1.
        damage: What ended the file early, on its last block.
        last: Whether it is the file's last block.
    """

    data: bytes
    first_line: int
    damage: Exception | None = None
    last: bool = False


def blocks(file: BinaryIO, name: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cut a file into blocks of whole lines; the last one may be empty and says so.

    Compression is recognised by the first bytes. An error while reading ends
    the iteration with a block that carries it.

    Cost: linear in the file's size however long a line is; memory for one
        block, or one line where that is longer.
    """
    pieces: list[bytes] = []
    size, line = 0, 1
    damage: Exception | None = None
    chunks = decompressed(file, name, block_bytes)
    while True:
        try:
            chunk = next(chunks, None)
        except Exception as err:  # Damaged, OSError, or what a file system of a URL raises
            damage, chunk = err, None
        if chunk is None:
            yield Block(b"".join(pieces), line, damage, last=True)
            return
        size += len(chunk)
        cut = chunk.rfind(b"\n") + 1 if size >= block_bytes else 0
        if not cut:
            pieces.append(chunk)
            continue
        data = b"".join((*pieces, memoryview(chunk)[:cut]))  # one copy, not two
        yield Block(data, line)
        line += int(np.count_nonzero(np.frombuffer(data, np.uint8) == _LF))  # 4x `bytes.count`
        pieces = [chunk[cut:]]
        size = len(pieces[0])


def decompressed(file: BinaryIO, name: str, chunk_bytes: int) -> Iterator[bytes]:
    """The file's content in chunks.

    Raises:
        Damaged: The compressed stream ends early or is corrupt.
        OSError: The file cannot be read.
    """
    start = _read_exactly(file, 4)
    if start.startswith(_GZIP):
        yield from _inflate(file, start)
    elif start == _ZSTD:
        yield from _inflate_zstd(file, start)
    elif name.lower().endswith((".gz", ".zst")) and not start.lstrip(_BEFORE).startswith(b"{"):
        # What is JSON already is read as it is: some servers decompress what
        # they send and keep its name.
        raise Damaged(f"its first bytes are {start!r}, not those of a compressed file")
    else:
        yield start
        yield from iter(lambda: file.read(chunk_bytes), b"")


def _inflate(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Decompress gzip, member after member."""
    member = zlib.decompressobj(wbits=31)
    data = start
    while True:
        if not data:
            data = file.read(_GZIP_STEP)
            if not data:
                break
        before = member.copy()
        try:
            out = member.decompress(data)
        except zlib.error as err:
            yield _salvage(before.decompress, data, zlib.error)
            raise Damaged(f"the gzip stream is corrupt: {err}") from err
        if out:
            yield out
        data = member.unused_data
        if member.eof:
            data = data.lstrip(b"\0")  # tapes and some writers pad with zeros
            if not data:
                data = file.read(_GZIP_STEP).lstrip(b"\0")
            if not data:
                return
            member = zlib.decompressobj(wbits=31)
    raise Damaged("the gzip stream ends before its end mark")


def _inflate_zstd(file: BinaryIO, start: bytes) -> Iterator[bytes]:
    """Decompress Zstandard, frame after frame."""
    import zstandard

    def new_frame() -> Any:
        return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()

    frame = new_frame()
    data = start
    while True:
        if not data:
            data = file.read(_ZSTD_STEP)
            if not data:
                break
        try:
            out = frame.decompress(data)
        except zstandard.ZstdError as err:
            raise Damaged(f"the zstd stream is corrupt: {err}") from err
        if out:
            yield out
        data = b""
        if frame.eof:
            data = frame.unused_data or file.read(_ZSTD_STEP)
            if not data:
                return
            frame = new_frame()
    raise Damaged("the zstd stream ends before its end mark")


def _salvage(decompress: Callable[[bytes], bytes], data: bytes, error: type[Exception]) -> bytes:
    """What comes before the damage in data that fails as a whole, byte by byte."""
    out = bytearray()
    with contextlib.suppress(error):
        for at in range(len(data)):
            out += decompress(data[at : at + 1])
    return bytes(out)


def _read_exactly(file: BinaryIO, num_bytes: int) -> bytes:
    data = b""
    while len(data) < num_bytes:
        more = file.read(num_bytes - len(data))
        if not more:
            break
        data += more
    return data
