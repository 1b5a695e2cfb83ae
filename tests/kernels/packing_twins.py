"""What the kernels of packing and shuffling must equal, in plain Python."""

from __future__ import annotations

import math

_MASK = 2**64 - 1


def cut(lengths: list[int], most: int) -> list[tuple[int, int, int]]:
    return [
        (i, start, min(most, length - start))
        for i, length in enumerate(lengths)
        for start in range(0, length, most)
    ]


def best_fit(lengths: list[int], size: int) -> list[int]:
    """Of rows with as little room as any that fits, the one that came to it last."""
    out = [-1] * len(lengths)
    rooms: dict[int, list[int]] = {room: [] for room in range(size + 1)}
    num_rows = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [room for room in range(lengths[i], size + 1) if rooms[room]]
        if fitting:
            room = fitting[0]
            row = rooms[room].pop()
        else:
            room, row = size, num_rows
            num_rows += 1
        out[i] = row
        if room > lengths[i]:
            rooms[room - lengths[i]].append(row)
    return out


def _mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def _below(key: int, value: int, limit: int) -> int:
    return (_mix((key + (value + 1) * 0x9E3779B97F4A7C15) & _MASK) >> 32) * limit >> 32


def permuted(n: int, key: int) -> list[int]:
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)

    def send(x: int) -> int:
        left, right = divmod(x, b)
        for k in range(8):
            round_key = key ^ ((k + 1) * 0xBF58476D1CE4E5B9 & _MASK)
            if k % 2:
                right = (right + _below(round_key, left, b)) % b
            else:
                left = (left + _below(round_key, right, a)) % a
        return left * b + right

    out = []
    for i in range(n):
        x = send(i)
        while x >= n:
            x = send(x)
        out.append(x)
    return out


def shuffled(n: int, key: int) -> list[int]:
    out = list(range(n))
    for i in range(n - 1, 0, -1):
        j = _below(key, i, i + 1)
        out[i], out[j] = out[j], out[i]
    return out
