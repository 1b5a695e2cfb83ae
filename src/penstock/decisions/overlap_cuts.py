"""Cut what evaluation sets hold out of documents: which runs of words, and how much around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from penstock.decisions.eval_sets import EvalSet
from penstock.decisions.overlap import Bools, Covered, Index, matched_runs
from penstock.decisions.overlap_evidence import word_spans
from penstock.kernels import I64
from penstock.records import CUTS, SPANS

_Run: TypeAlias = tuple[int, int, str]

_SPACE = b" \t\r\n"
_WORD_BYTES = 64  # how far a cut goes on to where white space is


@dataclass(frozen=True, slots=True)
class Margins:
    """How much goes; see the fields of `Decontaminate` of these names."""

    around_chars: int
    min_piece_chars: int
    max_pieces: int


def overlap_cuts(
    index: Index,
    sets: Sequence[EvalSet],
    doc_id: pa.ChunkedArray,
    signature: pa.ChunkedArray,
    found: Covered,
    is_common: Bools,
) -> pa.Table:
    """`CUTS`, sorted by `doc_id`: the runs of the items that each document holds.

    A place is the number of a run in the index; `duplicate_of` names an item,
    as ``set#row``: of those that have the run, the one of most words found.
    """
    ends, keys = index.runs_of(signature)
    order = np.lexsort((found.items, -found.covered, found.documents))
    documents, first = np.unique(found.documents[order], return_index=True)
    rows = []
    for document, some in zip(documents.tolist(), np.split(order, first)[1:], strict=True):
        rank = {item: place for place, item in enumerate(found.items[some].tolist())}
        places, names = [], []
        for key in keys[ends[document] : ends[document + 1]].tolist():
            items = index.items[index.posts[key] : index.posts[key + 1]].tolist()
            best = min((item for item in items if item in rank), key=rank.__getitem__, default=None)
            if best is not None and not is_common[key]:
                places.append(key)
                names.append(f"{sets[index.sets[best]].title}#{index.numbers[best]}")
        name = doc_id[document].as_py()
        rows.append({"doc_id": name, "places": places, "duplicate_of": names})
    return pa.Table.from_pylist(rows, CUTS).sort_by("doc_id")


def overlap_spans(index: Index, text: pa.Array, cuts: pa.Table, margins: Margins) -> pa.Array:
    """`SPANS` of those runs and what is around them; null where too little or too much is left."""
    rows, keys, words = matched_runs(index, text)
    ends = np.searchsorted(rows, np.arange(len(text) + 1))
    columns = (cuts[name].to_pylist() for name in ("places", "duplicate_of"))
    spans = []
    for row, (places, names) in enumerate(zip(*columns, strict=True)):
        wanted = dict(zip(places, names, strict=True))
        mine = slice(ends[row], ends[row + 1])
        runs = _runs(index, keys[mine], words[mine], wanted)
        spans.append(_spans(text[row].as_buffer().to_pybytes(), runs, margins))
    return pa.array(spans, SPANS)


def _runs(
    index: Index, keys: I64, words: I64, wanted: dict[int, str]
) -> list[tuple[int, int, str]]:
    """Words in a row that are in wanted runs: the first, behind the last, and an item."""
    joined: list[tuple[int, int, str]] = []
    for first, key in sorted(zip(words.tolist(), keys.tolist(), strict=True)):
        if key in wanted:
            length = int(index.lengths[index.items[index.posts[key]]])
            end = first + min(index.size, length)
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]), joined[-1][2])
            else:
                joined.append((first, end, wanted[key]))
    return joined


def _spans(data: bytes, runs: list[_Run], margins: Margins) -> list[_Run] | None:
    wanted = sorted({word for first, end, _ in runs for word in (first, end - 1)})
    at = dict(zip(wanted, word_spans(data, wanted), strict=True))
    found: list[_Run] = []
    for first, end, name in runs:
        start = _before(data, at[first][0], margins.around_chars)
        stop = _behind(data, at[end - 1][1], margins.around_chars)
        last = found[-1][1] if found else 0
        if _num_chars(data[last:start]) < max(1, margins.min_piece_chars):
            # What is between two cuts is too little to stay.
            name, start = (found[-1][2], found.pop()[0]) if found else (name, 0)
        found.append((start, stop, name))
    if found and _num_chars(data[found[-1][1] :]) < max(1, margins.min_piece_chars):
        found[-1] = (found[-1][0], len(data), found[-1][2])
    pieces = len(found) + 1 - sum(start == 0 or end == len(data) for start, end, _ in found)
    if (found and found[0][:2] == (0, len(data))) or pieces > margins.max_pieces:
        return None
    return found


def _before(data: bytes, at: int, num_chars: int) -> int:
    """So many characters back, and on to behind white space if there is some near."""
    while num_chars and at:
        at -= 1
        num_chars -= (data[at] & 0xC0) != 0x80
    for place in range(at, max(0, at - _WORD_BYTES) - 1, -1):
        if place == 0 or data[place - 1] in _SPACE:
            return place
    return at


def _behind(data: bytes, at: int, num_chars: int) -> int:
    """So many characters on, and further to before white space if there is some near."""
    size = len(data)
    while num_chars and at < size:
        at += 1
        while at < size and (data[at] & 0xC0) == 0x80:
            at += 1
        num_chars -= 1
    for place in range(at, min(size, at + _WORD_BYTES) + 1):
        if place == size or data[place] in _SPACE:
            return place
    return at


def _num_chars(piece: bytes) -> int:
    return len(piece.strip().decode("utf-8"))
