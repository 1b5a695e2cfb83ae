"""What the kernels of near-duplicates must equal: the same in plain Python, slow and clear."""

from __future__ import annotations

from penstock.kernels import minhash

_ALL = (1 << 64) - 1


def words(text: str) -> list[str]:
    """The words of a text, folded."""
    found: list[str] = []
    grows = letter = False  # does the last word go on; is it one letter with its marks
    for char in text:
        kind, folded = _look_up(char)
        if kind == minhash.MARK:
            if grows:
                found[-1] += folded
        elif kind == minhash.UNSPACED:
            found.append(folded)
            grows = letter = True
        elif kind == minhash.IN_WORD:
            if grows and not letter:
                found[-1] += folded
            else:
                found.append(folded)
            grows, letter = True, False
        else:
            grows = False
    return found


def chars(text: str) -> list[str]:
    """The characters of a text, folded, white space as one space, and none at the ends."""
    kinds = [_look_up(char)[0] for char in text]
    inside = [i for i, kind in enumerate(kinds) if kind != minhash.SPACE]
    out: list[str] = []
    for i in range(inside[0], inside[-1] + 1) if inside else ():
        if kinds[i] != minhash.SPACE:
            out += _look_up(text[i])[1]
        elif kinds[i - 1] != minhash.SPACE:
            out.append(" ")
    return out


def shingles(units: list[str], size: int, in_words: bool) -> list[int]:
    """Hash of each run of `size` units; of all of them if there are fewer."""
    hashes = []
    for unit in units:
        value = 0xCBF29CE484222325
        for char in unit:
            value ^= ord(char)
            value = value * 0x100000001B3 & _ALL if in_words else value
        hashes.append(mix(value))
    runs = [hashes[i : i + size] for i in range(len(hashes) - size + 1)]
    if hashes and not runs:
        runs = [hashes]
    return [mix(_polynomial(run)) for run in runs]


def mix(value: int) -> int:
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _ALL
    return value ^ (value >> 31)


def signature(
    units: list[str], size: int, in_words: bool, flips: list[int], multipliers: list[int]
) -> bytes:
    found = shingles(units, size, in_words)
    if not found:
        return bytes(4 + len(flips))
    out = len(units).to_bytes(4, "little")
    for j, (flip, multiplier) in enumerate(zip(flips, multipliers, strict=True)):
        halves = [(value >> (32 * (j & 1))) & 0xFFFFFFFF for value in found]
        least = min((half ^ flip) * multiplier & 0xFFFFFFFF for half in halves)
        out += bytes([_byte(least)])
    return out


def _byte(value: int) -> int:
    value = (value ^ (value >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    value = (value ^ (value >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return (value ^ (value >> 16)) & 0xFF


def _polynomial(run: list[int]) -> int:
    value = 0
    for unit in run:
        value = (value * minhash.BASE + unit) & _ALL
    return value


def _look_up(char: str) -> tuple[int, str]:
    code = ord(char)
    if code < 0x20000:
        entry = int(minhash.characters()[code])
        folded = entry & 0xFFFFFF
        return entry >> 24, chr(folded) if folded else ""
    if code < 0x32000:
        return minhash.UNSPACED, char
    return (minhash.MARK if 0xE0100 <= code < 0xE01F0 else minhash.OTHER), char


def components(num: int, links: list[tuple[int, int]]) -> list[int]:
    """The smallest member of each node's component."""
    smallest = list(range(num))
    for _ in range(num):
        for a, b in links:
            smallest[a] = smallest[b] = min(smallest[a], smallest[b])
    return smallest
