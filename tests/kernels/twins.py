"""What each kernel must equal: the same in plain Python, slow and clear."""

from __future__ import annotations

import re

from penstock.kernels import breaks

_LINE_END = r"(?:\r\n|[\r\n\x85\u2028\u2029])"


def clean(text: str, line_ends: bool, controls: bool, blanks: bool) -> str:
    if controls:
        text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]", "", text)
    if line_ends:
        text = re.sub(_LINE_END, "\n", text)
    if blanks:
        text = re.sub(rf"[ \t]+(?={_LINE_END}|\Z)", "", text)
        text = re.sub(rf"({_LINE_END}){_LINE_END}*\Z", r"\1", text)
        if re.fullmatch(rf"{_LINE_END}*", text):
            text = ""
    return text


def cut(
    counts: list[int], strengths: list[int], max_tokens: int, overlap: int
) -> list[tuple[int, int]]:
    """First and last atom + 1 of each chunk of one text."""
    chunks: list[tuple[int, int]] = []
    first = fresh = 0
    while fresh < len(counts):
        place = _best(counts, strengths, first, fresh, max_tokens)
        if place is None:
            first = fresh
            place = _best(counts, strengths, first, fresh, max_tokens) or fresh + 1
        chunks.append((first, place))
        first, fresh = _next_first(counts, strengths, first, place, overlap), place
    return chunks


def _best(
    counts: list[int], strengths: list[int], first: int, fresh: int, max_tokens: int
) -> int | None:
    ends = [*strengths, breaks.END]
    fitting = [i for i in range(fresh + 1, len(ends)) if sum(counts[first:i]) <= max_tokens]
    if not fitting:
        return None
    forced = [i for i in fitting if ends[i] >= breaks.FORCED]
    if forced:
        return forced[0]
    share = {breaks.SECTION: 8, breaks.BORDER: 4}
    allowed = [i for i in fitting if ends[i] > breaks.NEVER]
    full = [i for i in allowed if sum(counts[first:i]) * share.get(ends[i], 3) >= max_tokens]
    if full:
        return max(full, key=lambda i: (ends[i], i))
    return allowed[-1] if allowed else fitting[0]


def _next_first(
    counts: list[int], strengths: list[int], first: int, place: int, overlap: int
) -> int:
    if place == len(counts) or strengths[place] > breaks.BLOCK:
        return place
    near = [i for i in range(first + 1, place) if sum(counts[i:place]) <= overlap]
    borders = [i for i in near if strengths[i] > breaks.BLOCK]
    near = [i for i in near if i >= max(borders, default=0)]
    for least in (breaks.SENTENCE, breaks.WORD):
        good = [i for i in near if strengths[i] >= least]
        if good:
            return good[0]
    return place
