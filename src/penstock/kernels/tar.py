"""Walk the headers of a tar file: where each regular member's name and bytes are.

Understood are ustar (with its prefix), the extended headers of pax (`path` and
`size`) and GNU's long names; numbers are octal or, as GNU writes large ones,
binary. Members of other kinds are passed over.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from penstock.kernels.buffers import Int
from penstock.kernels.compiled import kernel

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

BLOCK = 512

# What a walk ends with.
COMPLETE, CUT, NO_HEADER, NO_END = 0, 1, 2, 3

# Columns of the table of members: header, bytes, and the name's parts (a prefix, a slash
# between, the rest), all as places in the file.
HEADER, DATA, SIZE, PREFIX, PREFIX_SIZE, NAME, NAME_SIZE = range(7)

_ZERO, _SEVEN, _SPACE, _LF, _EQUALS = 0x30, 0x37, 0x20, 0x0A, 0x3D
_FILE, _CONTIGUOUS, _LONG_NAME, _EXTENDED = 0x30, 0x37, 0x4C, 0x78


def tar_members(data: U8) -> tuple[I64, int, int]:
    """The regular members of a tar file, in their order.

    Args:
        data: (num_bytes,) uint8, the file.

    Returns:
        (num_members, 7) int64 with the columns above; what the walk ended with: `COMPLETE`,
        `CUT` (inside a member), `NO_HEADER` (a block that is none) or `NO_END` (the two
        zero blocks are missing); and the byte where it ended.
    """
    read_only = data.view()
    read_only.flags.writeable = False
    count, _, _ = _walk(read_only, np.empty((0, 7), np.int64))
    members = np.empty((count, 7), np.int64)
    _, status, end = _walk(read_only, members)
    return members, int(status), int(end)


@kernel
def _walk(data: U8, members: I64) -> tuple[Int, Int, Int]:
    """Fill the table as far as it reaches; (members found, status, where it ended)."""
    at, count = 0, 0
    name, name_size, size_told = -1, 0, -1  # what an extended header said of the next member
    while True:
        if at + BLOCK > len(data):
            return count, NO_END if at == len(data) else CUT, at
        if _is_zero(data, at):
            if at + 2 * BLOCK > len(data) or not _is_zero(data, at + BLOCK):
                return count, NO_END, at
            return count, COMPLETE, at
        if not _checksum_holds(data, at):
            return count, NO_HEADER, at
        kind = data[at + 156]
        size = _number(data, at + 124, 12)
        if size < 0:
            return count, NO_HEADER, at
        if size_told >= 0 and kind != _EXTENDED and kind != _LONG_NAME:
            size = size_told
        start = at + BLOCK
        if start + size > len(data):
            return count, CUT, at
        if kind == _EXTENDED:
            name, name_size, size_told = _extended(data, start, size, name, name_size)
        elif kind == _LONG_NAME:
            name, name_size = start, _text_size(data, start, size)
        else:
            if kind in (0, _FILE, _CONTIGUOUS):
                if count < len(members):
                    row = members[count]
                    row[HEADER], row[DATA], row[SIZE] = at, start, size
                    row[PREFIX], row[PREFIX_SIZE] = at + 345, 0
                    row[NAME], row[NAME_SIZE] = at, _text_size(data, at, 100)
                    if name >= 0:
                        row[NAME], row[NAME_SIZE] = name, name_size
                    elif data[at + 257 + 5] == 0 and data[at + 257] == 0x75:  # ustar, not GNU
                        row[PREFIX_SIZE] = _text_size(data, at + 345, 155)
                count += 1
            name, size_told = -1, -1
        at = start + (size + BLOCK - 1) // BLOCK * BLOCK


@kernel
def _is_zero(data: U8, at: Int) -> bool:
    for i in range(BLOCK):  # noqa: SIM110 - a kernel knows no `all`
        if data[at + i]:
            return False
    return True


@kernel
def _checksum_holds(data: U8, at: Int) -> bool:
    total = 8 * _SPACE
    for i in range(BLOCK):
        if i < 148 or i >= 156:
            total += data[at + i]
    return bool(total == _number(data, at + 148, 8))


@kernel
def _number(data: U8, at: Int, width: Int) -> Int:
    """An octal number, or a binary one; -1 where there is none."""
    if data[at] == 0x80:
        value = 0
        for i in range(width - 8, width):
            value = value * 256 + data[at + i]
        return value
    value, digits = 0, 0
    for i in range(width):
        byte = data[at + i]
        if _ZERO <= byte <= _SEVEN:
            value = value * 8 + (byte - _ZERO)
            digits += 1
        elif byte == 0 or byte == _SPACE:
            if digits:
                break
        else:
            return -1
    return value if digits else -1


@kernel
def _text_size(data: U8, at: Int, most: Int) -> Int:
    size = 0
    while size < most and data[at + size]:
        size += 1
    return size


@kernel
def _extended(data: U8, start: Int, size: Int, name: Int, name_size: Int) -> tuple[Int, Int, Int]:
    """Records ``LENGTH KEY=VALUE`` and a line feed: the place of `path`, and `size`."""
    at, end, told = start, start + size, -1
    while at < end:
        length, digits = 0, 0
        while at + digits < end and _ZERO <= data[at + digits] <= 0x39:
            length = length * 10 + (data[at + digits] - _ZERO)
            digits += 1
        if length <= digits + 1 or at + length > end:
            break
        key = at + digits + 1
        equals = key
        while equals < at + length and data[equals] != _EQUALS:
            equals += 1
        value, value_size = equals + 1, at + length - 1 - (equals + 1)
        if equals - key == 4 and data[key] == 0x70 and data[key + 1] == 0x61:  # path
            name, name_size = value, value_size
        elif equals - key == 4 and data[key] == 0x73 and data[key + 1] == 0x69:  # size
            told = 0
            for i in range(value_size):
                told = told * 10 + (data[value + i] - _ZERO)
        at += length
    return name, name_size, told


def tar_samples(data: U8, members: I64) -> tuple[I64, I64, I64, I64]:
    """Which sample each member is a field of: that of its neighbours with the same key.

    A name is split at the first dot of its last part: the key before, the field
    behind. Members without a dot, and those in or named ``__*__``, belong to none.

    Returns:
        Per member, (n,): the sample's number or -1; the length of the key, with the
        prefix; where the field begins in the file; its length.
    """
    read_only = data.view()
    read_only.flags.writeable = False
    sample, keys, fields, sizes = np.empty((4, len(members)), np.int64)
    _samples(read_only, members, sample, keys, fields, sizes)
    return sample, keys, fields, sizes


@kernel
def _samples(data: U8, members: I64, sample: I64, keys: I64, fields: I64, sizes: I64) -> None:
    number, last = -1, -1
    for m in range(len(members)):
        row = members[m]
        sample[m] = keys[m] = fields[m] = sizes[m] = -1
        base = 0
        for i in range(row[NAME_SIZE]):
            if data[row[NAME] + i] == 0x2F:
                base = i + 1
        dot = base
        while dot < row[NAME_SIZE] and data[row[NAME] + dot] != 0x2E:
            dot += 1
        if dot == row[NAME_SIZE] or _is_meta(data, row):
            continue
        keys[m] = dot + (row[PREFIX_SIZE] + 1 if row[PREFIX_SIZE] else 0)
        fields[m], sizes[m] = row[NAME] + dot + 1, row[NAME_SIZE] - dot - 1
        if last < 0 or not _same_key(data, members[last], keys[last], row, keys[m]):
            number += 1
        sample[m] = number
        last = m


@kernel
def _at(data: U8, row: I64, i: Int) -> Int:
    """Byte `i` of a member's whole name."""
    if row[PREFIX_SIZE]:
        if i < row[PREFIX_SIZE]:
            return data[row[PREFIX] + i]
        if i == row[PREFIX_SIZE]:
            return np.uint8(0x2F)
        i -= row[PREFIX_SIZE] + 1
    return data[row[NAME] + i]


@kernel
def _same_key(data: U8, one: I64, one_size: Int, other: I64, other_size: Int) -> bool:
    if one_size != other_size:
        return False
    for i in range(one_size):  # noqa: SIM110 - as above
        if _at(data, one, i) != _at(data, other, i):
            return False
    return True


@kernel
def _is_meta(data: U8, row: I64) -> bool:
    """Whether the name, or its first folder, begins and ends with two underscores."""
    size = row[NAME_SIZE] + (row[PREFIX_SIZE] + 1 if row[PREFIX_SIZE] else 0)
    end = 0
    while end < size and _at(data, row, end) != 0x2F:
        end += 1
    if end < 4:
        return False
    for i in (0, 1, end - 2, end - 1):  # noqa: SIM110 - as above
        if _at(data, row, i) != 0x5F:
            return False
    return True
