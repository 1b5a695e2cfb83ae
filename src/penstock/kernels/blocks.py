"""Take records out of blocks that LZ4 compressed, many in one call.

One call of a library for each block would let go of the GIL each time, which in
a search by several threads took longer than the blocks.

Source: the LZ4 block format, https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from penstock.kernels.compiled import kernel

# Numbers of bytes have no sign: to an index that might be negative, numba adds a test.
_NONE, _ONE, _TWO, _FOUR, _EIGHT = (np.uint64(n) for n in (0, 1, 2, 4, 8))
_FIFTEEN, _STEP, _MORE = np.uint64(15), np.uint64(16), np.uint64(255)


@intrinsic
def _copy(typing: Any, source: Any, start: Any, target: Any, at: Any) -> Any:
    """Copy 16 bytes from `source[start]` on to `target[at]` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), int(_STEP)).as_pointer()

        def place(i: int) -> Any:
            array = context.make_array(signature.args[i])(context, builder, args[i])
            index = context.cast(builder, args[i + 1], signature.args[i + 1], types.int64)
            return builder.bitcast(builder.gep(array.data, [index]), vector)

        builder.store(builder.load(place(0), align=1), place(2), align=1)
        return context.get_dummy_value()

    return types.void(source, start, target, at), codegen


@kernel
def _move(source: Any, start: Any, target: Any, at: Any, length: Any) -> None:
    """Copy bytes, in steps where both arrays go on for long enough."""
    i = _NONE
    inside = np.uint64(len(source)), np.uint64(len(target))
    while i < length and start + i + _STEP <= inside[0] and at + i + _STEP <= inside[1]:
        _copy(source, start + i, target, at + i)
        i += _STEP
    while i < length:
        target[at + i] = source[start + i]
        i += _ONE


@kernel
def unpack(data: Any, end: Any, out: Any, size: Any, wanted: Any, state: Any) -> bool:
    """Decompress a block, or go on with it.

    Args:
        data: (num_bytes,) uint8 that holds the block.
        end: Behind its last byte.
        out: uint8, at least as long as `size` says; takes the bytes, and others behind them.
        size: How many bytes were compressed.
        wanted: How many are wanted now; some more may come.
        state: (2,) int64: the next byte to read, and how many were written.

    Returns:
        False if the block cannot be right; `out` is then anything.
    """
    at, done = np.uint64(state[0]), np.uint64(state[1])
    end, size, wanted = np.uint64(end), np.uint64(size), np.uint64(wanted)
    while done < wanted:
        if at >= end:
            return False
        token = np.uint64(data[at])
        at += _ONE
        length = token >> _FOUR
        if length == _FIFTEEN:
            more = _MORE
            while more == _MORE:
                if at >= end:
                    return False
                more = np.uint64(data[at])
                at += _ONE
                length += more
        if length > end - at or length > size - done:
            return False
        _move(data, at, out, done, length)
        at += length
        done += length
        if at == end:  # the last sequence is of literals only
            break
        if at + _TWO > end:
            return False
        distance = np.uint64(data[at]) | np.uint64(data[at + _ONE]) << _EIGHT
        at += _TWO
        length = token & _FIFTEEN
        if length == _FIFTEEN:
            more = _MORE
            while more == _MORE:
                if at >= end:
                    return False
                more = np.uint64(data[at])
                at += _ONE
                length += more
        length += _FOUR
        if distance == _NONE or distance > done or length > size - done:
            return False
        if distance >= _STEP:  # no step reads what it writes
            _move(out, done - distance, out, done, length)
        else:
            for i in range(length):
                out[done + i] = out[done + i - distance]
        done += length
    state[0], state[1] = at, done
    return bool(done >= wanted)


@kernel
def records(
    data: Any, firsts: Any, ends: Any, sizes: Any, places: Any, blocks: Any, out: Any, spans: Any
) -> bool:
    """Copy the records at some places, one after another.

    A block holds where each of its records ends, as int64, then the records.

    Args:
        data: (num_bytes,) uint8, all compressed blocks.
        firsts: (num_blocks + 1,) int64, the place of each block's first record.
        ends: (num_blocks + 1,) int64, where each block begins in `data`.
        sizes: (num_blocks + 1,) int64, bytes of each when decompressed.
        places: (n,) int64 of the records wanted.
        blocks: (n,) int64, the block of each.
        out: uint8, as long as the blocks of all of them.
        spans: (n + 1,) int64; becomes where each record begins in `out`, and the end.

    Returns:
        False if the data cannot be right.
    """
    room, state = np.empty(16, np.uint8), np.zeros(2, np.int64)
    opened = np.int64(-1)
    at = np.int64(0)
    for i in range(len(places)):
        block = blocks[i]
        size = sizes[block]
        if block != opened:
            if len(room) < size:
                room = np.empty(size + 32 & -16, np.uint8)
            state[0], state[1] = ends[block], 0
            opened = block
        row, head = places[i] - firsts[block], 8 * (firsts[block + 1] - firsts[block])
        if head > size or not unpack(data, ends[block + 1], room, size, head, state):
            return False
        rows = room.view(np.int64)
        start = rows[row - 1] if row > 0 else 0
        stop = rows[row]
        if not 0 <= start <= stop <= size - head:
            return False
        if not unpack(data, ends[block + 1], room, size, head + stop, state):
            return False
        spans[i] = at
        _move(room, np.uint64(head + start), out, np.uint64(at), np.uint64(stop - start))
        at += stop - start
    spans[len(places)] = at
    return True
