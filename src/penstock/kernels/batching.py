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
def _convert(source: Tokens, out: Tokens) -> None:
    for j in range(len(source)):
        out[j] = source[j]


@kernel
def _count_up(out: I32) -> None:
    for j in range(len(out)):
        out[j] = j


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
    flat_tokens, flat_labels = tokens.reshape(-1), labels.reshape(-1)
    flat_positions, flat_segments = positions.reshape(-1), segments.reshape(-1)
    used, longest = np.int64(1), np.int64(0)
    cu_seqlens[0] = 0
    for r in range(len(rows) - 1):
        k, end = np.int64(r * width), np.int64((r + 1) * width)
        for piece in range(rows[r], rows[r + 1]):
            length = np.int64(lengths[piece])
            if length == 0:
                continue
            # A loop for each array, over slices: so each is a few wide instructions.
            source = flat[begins[piece] : begins[piece] + length]
            after = k + length
            _convert(source, flat_tokens[k:after])
            _convert(source[1:], flat_labels[k : after - 1])
            flat_labels[after - 1] = MASKED
            _count_up(flat_positions[k:after])
            flat_segments[k:after] = piece - rows[r] + 1
            k = after
            cu_seqlens[used] = k
            used += 1
            longest = max(longest, length)
        if k < end:
            flat_tokens[k:end] = pad
            flat_labels[k:end] = MASKED
            _count_up(flat_positions[k:end])
            flat_segments[k:end] = 0
            cu_seqlens[used] = end
            used += 1
            longest = max(longest, end - k)
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
def digest(positions: I64, starts: I64, lengths: I32) -> tuple[Int, Int]:
    """A sum over pieces that depends on what tokens of which samples they cover; and their tokens.

    A piece adds the mark of its end and takes away that of its start. So the
    pieces of a sample add up to the mark of the sample's end wherever it is cut,
    and a piece that is missing or comes twice shows.
    """
    total, tokens = np.int64(0), np.int64(0)
    for i in range(len(positions)):
        total += _mark(positions[i], starts[i] + lengths[i]) - _mark(positions[i], starts[i])
        tokens += lengths[i]
    return total, tokens


@kernel
def digest_whole(first: Int, lengths: I32) -> Int:
    """`digest` of all samples from the position `first` on, whole."""
    total = np.int64(0)
    for i in range(len(lengths)):
        total += _mark(first + i, np.int64(lengths[i]))
    return total
