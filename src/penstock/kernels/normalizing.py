"""One pass over a text column that cleans up controls, line ends and blanks."""

from __future__ import annotations

import numpy as np

from penstock.kernels.buffers import I64, U8
from penstock.kernels.compiled import kernel
from penstock.kernels.lanes import LANE, copy_lane, first_bit, not_clean

# numba's cache looks at this file alone; this tells it which lanes are in here.
_LANES = 0x176A9972

_TAB, _LF, _CR, _SPACE, _DEL = 0x09, 0x0A, 0x0D, 0x20, 0x7F

# ASCII bytes that need no decision. A blank is plain: it is taken back when its
# line ends, which costs nothing where there is none.
_PLAIN = np.zeros(256, np.bool_)
_PLAIN[0x20:0x7F] = True
_PLAIN[_TAB] = True


@kernel
def clean(
    offsets: I64, utf8: U8, line_ends: bool, controls: bool, blanks: bool
) -> tuple[I64, U8, U8, bool]:
    """Apply the parts of `Normalize` but NFC; ``tests/kernels/twins.py`` says what it must equal.

    Args:
        offsets: ``(num_rows + 1,)``.
        utf8: Valid UTF-8.
        line_ends: Turn every kind of line end into LF.
        controls: Remove control characters.
        blanks: Remove blanks at line ends and blank lines at the end.

    Returns:
        New offsets and bytes; per row 1 where the result may not be in NFC;
        and whether any byte changed.
    """
    num_rows = len(offsets) - 1
    new_offsets = np.empty(num_rows + 1, np.int64)
    new_offsets[0] = 0
    out = np.empty(offsets[num_rows] - offsets[0] + LANE, np.uint8)
    last_lane = len(utf8) - LANE
    not_nfc = np.zeros(num_rows, np.uint8)
    changed = False
    o = 0
    for row in range(num_rows):
        begin, end = offsets[row], offsets[row + 1]
        row_start = o
        after_cr = False
        i = begin
        while i < end:
            byte = utf8[i]
            if _PLAIN[byte]:
                after_cr = False
                while i < end:
                    if 0 < i <= last_lane:
                        copy_lane(utf8, i, out, o)
                        mask = not_clean(utf8, i)
                        if mask == 0 and i + LANE <= end:
                            i += LANE
                            o += LANE
                            continue
                        width = min(first_bit(mask), end - i)
                        i += width
                        o += width
                        break
                    if not _PLAIN[utf8[i]]:
                        break
                    out[o] = utf8[i]
                    o += 1
                    i += 1
                continue
            # 1: keep `width` bytes, 2: a line end, 0: remove them.
            width, kind = 1, 1
            if byte in (_LF, _CR):
                kind = 2
            elif byte < 0x80:
                kind = 0 if controls else 1
            elif byte < 0xE0:
                width = 2
                if byte == 0xC2 and utf8[i + 1] < 0xA0:  # C1 controls
                    kind = 0 if controls else 1
                    if utf8[i + 1] == 0x85:  # NEL
                        kind = 2
                elif byte >= 0xCC:  # U+0300, the first that NFC may change
                    not_nfc[row] = 1
            elif byte < 0xF0:
                width = 3
                second, third = utf8[i + 1], utf8[i + 2]
                if byte == 0xE2 and second == 0x80:
                    if third == 0xA8 or third == 0xA9:  # LS and PS
                        kind = 2
                    elif third < 0x82:  # two spaces that NFC replaces
                        not_nfc[row] = 1
                elif byte == 0xEF and second == 0xBB and third == 0xBF:  # BOM
                    kind = 0 if controls else 1
                elif byte < 0xE4 or byte == 0xEA or byte > 0xEC:
                    # The rest are ideographs and Hangul syllables, which stand as they are.
                    not_nfc[row] = 1
            else:
                width = 4
                if byte != 0xF0 or utf8[i + 1] != 0x9F:  # emoji and other symbols
                    not_nfc[row] = 1
            if kind == 0:
                changed = True
                i += width
                continue
            if kind == 2:
                if blanks:
                    while o > row_start and (out[o - 1] == _SPACE or out[o - 1] == _TAB):
                        o -= 1
                        changed = True
                if line_ends:
                    if not (after_cr and byte == _LF):
                        out[o] = _LF
                        o += 1
                    changed = changed or byte != _LF
                    after_cr = byte == _CR
                    i += width
                    continue
            after_cr = False
            for k in range(width):
                out[o + k] = utf8[i + k]
            o += width
            i += width
        if blanks:
            kept = _without_blank_end(out, row_start, o)
            changed = changed or kept != o
            o = kept
        new_offsets[row + 1] = o
    return new_offsets, out[:o], not_nfc, changed


@kernel
def _without_blank_end(out: U8, start: int, end: int) -> int:
    """Where the row ends once blank lines at its end are gone, but for one line end."""
    while end > start and (out[end - 1] == _SPACE or out[end - 1] == _TAB):
        end -= 1
    kept = end
    while True:
        width = _line_end_width(out, start, end)
        if width == 0:
            break
        kept = end
        end -= width
        while end > start and (out[end - 1] == _SPACE or out[end - 1] == _TAB):
            end -= 1
    return kept if end > start else start


@kernel
def _line_end_width(out: U8, start: int, end: int) -> int:
    """Bytes of the line end just before `end`; 0 if there is none."""
    size = end - start
    if size == 0:
        return 0
    last = out[end - 1]
    if last == _LF:
        return 2 if size > 1 and out[end - 2] == _CR else 1
    if last == _CR:
        return 1
    if size > 1 and out[end - 2] == 0xC2 and last == 0x85:
        return 2
    if (
        size > 2
        and out[end - 3] == 0xE2
        and out[end - 2] == 0x80
        and (last == 0xA8 or last == 0xA9)
    ):
        return 3
    return 0
