"""Put pieces of documents into rows: best fit first, longest first, a row never too long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import I64, Int
from penstock.kernels.compiled import kernel

I32 = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@kernel
def cut(lengths: I32, most: Int) -> tuple[I64, I64, I32]:
    """Cut samples into pieces of at most `most` tokens, all but a sample's last of just as many.

    Returns:
        The sample of each piece, where it begins in it, and its length. A sample of no
        tokens has no piece.
    """
    n = np.int64(0)
    for i in range(len(lengths)):
        n += (lengths[i] + most - 1) // most
    sample, start, length = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int32)
    k = np.int64(0)
    for i in range(len(lengths)):
        for begin in range(0, lengths[i], most):
            sample[k], start[k] = i, begin
            length[k] = min(most, lengths[i] - begin)
            k += 1
    return sample, start, length


@kernel
def by_length(lengths: I32, most: Int) -> I64:
    """Pieces from the longest to the shortest, equally long ones as they come: a counting sort."""
    places = np.zeros(most + 2, np.int64)
    for length in lengths:
        places[most - length + 1] += 1
    for i in range(1, len(places)):
        places[i] += places[i - 1]
    out = np.empty(len(lengths), np.int64)
    for i in range(len(lengths)):
        slot = most - lengths[i]
        out[places[slot]] = i
        places[slot] += 1
    return out


@kernel
def _tightest(tree: Flags, leaves: Int, room: Int) -> Int:
    """The smallest room of at least `room` that some row has; -1 if none has."""
    node = leaves + room
    if tree[node]:
        return room
    # Up, until there is something to the right; then down, to its leftmost leaf.
    while node & 1 or not tree[node + 1]:
        node >>= 1
        if node <= 1:
            return -1
    node += 1
    while node < leaves:
        node <<= 1
        if not tree[node]:
            node += 1
    return node - leaves


@kernel
def _mark(tree: Flags, node: Int) -> None:
    while node and not tree[node]:
        tree[node] = True
        node >>= 1


@kernel
def _clear(tree: Flags, node: Int) -> None:
    tree[node] = False
    node >>= 1
    while node and not (tree[2 * node] or tree[2 * node + 1]):
        tree[node] = False
        node >>= 1


@kernel
def best_fit(lengths: I32, size: Int) -> tuple[I64, Int]:
    """Give each piece a row of `size` tokens: of the rows that have room the fullest.

    Pieces are placed from the longest to the shortest. A segment tree over the
    room that rows have left tells whether some row has it, and so finds the
    tightest in O(log size).

    Args:
        lengths: Tokens of each piece, 1 to `size`.
        size: Tokens of a row.

    Returns:
        The row of each piece, and how many rows there are.

    Source: Ding et al., Fewer Truncations Improve Language Modeling, ICML 2024, section 3.
    """
    leaves = np.int64(1)
    while leaves < size + 1:
        leaves *= 2
    tree = np.zeros(2 * leaves, np.bool_)
    newest = np.full(size + 1, -1, np.int64)  # of the rows with that room; the others follow
    older = np.empty(len(lengths), np.int64)
    out = np.empty(len(lengths), np.int64)
    num_rows: Int = 0
    for i in by_length(lengths, size):
        room: Int = _tightest(tree, leaves, lengths[i])
        row: Int = -1
        if room < 0:
            row, room = num_rows, size
            num_rows += 1
        else:
            row = newest[room]
            newest[room] = older[row]
            if newest[room] < 0:
                _clear(tree, leaves + room)
        out[i] = row
        room -= lengths[i]
        if room:
            older[row] = newest[room]
            newest[room] = row
            _mark(tree, leaves + room)
    return out, num_rows


@kernel
def by_row(row: I64, num_rows: Int, order: I64) -> tuple[I64, I64]:
    """List the pieces row after row, the rows in this order; those of a row as they come.

    Args:
        row: The row of each piece.
        num_rows: How many rows there are.
        order: A permutation of the rows.

    Returns:
        The pieces, and where each row's begin among them, (num_rows + 1,).
    """
    place = np.empty(num_rows, np.int64)
    for i in range(num_rows):
        place[order[i]] = i
    begins = np.zeros(num_rows + 1, np.int64)
    for i in range(len(row)):
        begins[place[row[i]] + 1] += 1
    for i in range(num_rows):
        begins[i + 1] += begins[i]
    ends = begins[:-1].copy()
    out = np.empty(len(row), np.int64)
    for i in range(len(row)):
        k = place[row[i]]
        out[ends[k]] = i
        ends[k] += 1
    return out, begins


@kernel
def groups(lengths: I32, budget: Int) -> I64:
    """Cut pieces, sorted from the longest to the shortest, into groups within a budget.

    A group costs its pieces times its longest. Each group but for the one of
    leftovers is as large as it may be; the leftovers take pieces from the group
    before them, and that from the one before it, so that every group has as many
    pieces as of the longest of all fit into one, unless there are too few for that.

    Returns:
        Where each group begins, and the end: (num_groups + 1,).
    """
    begins = np.empty(len(lengths) + 1, np.int64)
    n: Int = 0
    first: Int = 0
    begins[0] = 0
    while first < len(lengths):
        first = min(len(lengths), first + max(1, budget // max(1, lengths[first])))
        n += 1
        begins[n] = first
    if n > 1:
        least = max(1, budget // max(1, lengths[0]))
        if len(lengths) >= n * least:
            for i in range(n - 1, 0, -1):
                begins[i] = min(begins[i], begins[i + 1] - least)
    return begins[: n + 1].copy()
