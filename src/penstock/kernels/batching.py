"""Write tokens into the arrays of a batch: one pass, no Python object per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
Tokens = npt.NDArray[Any]

MASKED = -100
"""A label that counts for nothing: what PyTorch's cross-entropy ignores by default."""


@kernel
def copy_ranges(flat: Tokens, begins: I64, lengths: I32, out: Tokens, offsets: I64) -> None:
    """Copy ranges of an array one after another.

    Args:
        flat: From where.
        begins: Where each range begins there.
        lengths: And how long it is.
        out: To where; as long as all ranges together.
        offsets: Takes where each begins in `out`, and the end: (n + 1,).
    """
    k = np.int64(0)
    offsets[0] = 0
    for i in range(len(begins)):
        begin, length = begins[i], np.int64(lengths[i])
        out[k : k + length] = flat[begin : begin + length]
        k += length
        offsets[i + 1] = k


@kernel
def fill(
    flat: Tokens,
    begins: I64,
    lengths: I32,
    rows: I64,
    pad: Int,
    tokens: I32,
    labels: I64,
    positions: I32,
    segments: I32,
    cu_seqlens: I32,
) -> tuple[Int, Int]:
    """Lay pieces out in rows.

    Args:
        flat: Tokens of all pieces.
        begins: Where each piece begins there: (num_pieces,).
        lengths: How long each is.
        rows: Which pieces each row has, as where they begin: (num_rows + 1,).
        pad: The token that fills a row up.
        tokens: (num_rows, width), like the next three.
        labels: The token after each of the same piece; -100 at a piece's end and in padding.
        positions: Place in the piece; in padding, place in it.
        segments: 1, 2, .. for a row's pieces, 0 for padding.
        cu_seqlens: Takes where pieces begin in the rows laid end to end, each row's
            padding counting as one more; room for num_pieces + num_rows + 1.

    Returns:
        How many entries of `cu_seqlens` are used, and the longest piece or padding.
    """
    width = tokens.shape[1]
    used, longest = np.int64(1), np.int64(0)
    cu_seqlens[0] = 0
    for r in range(len(rows) - 1):
        k = np.int64(0)
        for piece in range(rows[r], rows[r + 1]):
            begin, length = begins[piece], np.int64(lengths[piece])
            if length == 0:
                continue
            segment = np.int32(piece - rows[r] + 1)
            for j in range(length):
                token = flat[begin + j]
                tokens[r, k + j] = token
                positions[r, k + j] = j
                segments[r, k + j] = segment
            for j in range(1, length):
                labels[r, k + j - 1] = flat[begin + j]
            k += length
            labels[r, k - 1] = MASKED
            cu_seqlens[used] = r * width + k
            used += 1
            longest = max(longest, length)
        if k < width:
            for j in range(k, width):
                tokens[r, j], labels[r, j] = pad, MASKED
                positions[r, j], segments[r, j] = j - k, 0
            cu_seqlens[used] = (r + 1) * width
            used += 1
            longest = max(longest, width - k)
    return used, longest


@kernel
def _mark(position: Int, token: Int) -> Int:
    """32 bits that name the place before a token of a sample; 0 before its first."""
    if token == 0:
        return np.int64(0)
    x = np.uint64(position) * np.uint64(0xD1342543DE82EF95) + np.uint64(token)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((x ^ (x >> np.uint64(31))) >> np.uint64(32))


@kernel
def digest(positions: I64, starts: I64, lengths: I32) -> Int:
    """A sum over pieces that depends on what tokens of which samples they cover.

    A piece adds the mark of its end and takes away that of its start. So the
    pieces of a sample add up to the mark of the sample's end wherever it is cut,
    and a piece that is missing or comes twice shows.
    """
    total = np.int64(0)
    for i in range(len(positions)):
        total += _mark(positions[i], starts[i] + lengths[i]) - _mark(positions[i], starts[i])
    return total


@kernel
def digest_whole(first: Int, lengths: I32) -> Int:
    """`digest` of all samples from the position `first` on, whole."""
    total = np.int64(0)
    for i in range(len(lengths)):
        total += _mark(first + i, np.int64(lengths[i]))
    return total
