"""Cut documents into chunks: the unit of embedding and search."""

from __future__ import annotations

import html
import re
import threading
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError
from penstock.kernels import I64, U8, text_buffers, text_from_buffers
from penstock.records import CHUNKS, hash_column
from penstock.steps.text_kinds import kinds_of
from penstock.steps.token_counts import Marks, TokenCounter, split_oversized

_REVISION = 1
"""Bumped when the chunks of some text change."""

_WINDOW_BYTES = 4 << 20
"""A longer document is cut there first, so that memory does not grow with it."""

_GROUP_BYTES = 8 << 20
"""Text that is split into atoms at a time; they take about 5 bytes a byte."""

_MAX_TITLE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Cut each document into chunks of at most `max_tokens`.

    Breaks, strongest first: a heading, or a definition at the left edge of
    code; a fence, or a definition inside another; a blank line; a line or list
    item; a sentence; a word. What stands directly above a definition
    (decorators, a comment) stays with it. A chunk ends at the strongest break
    that leaves it at least a third full (an eighth for a heading), so tiny
    sections are gathered. After a break that is not a heading, fence or
    definition, the next chunk repeats up to `overlap_tokens` from the end of
    the one before.

    Guarantees: a chunk's text is bytes `start` to `end` of its document's text
    in UTF-8; chunks hold every byte that is not blank; the tokenizer counts at
    most `max_tokens` in each, special tokens at the ends aside; the chunks of a
    document depend on its text, its media type and these settings alone. A
    document of blanks has none.

    Cost: linear in the text, several times faster than tokenizing it, and
    without the GIL.
    """

    max_tokens: int = 240
    """Most tokens of a chunk, as the tokenizer counts them; at least 8."""

    overlap_tokens: int = 24
    """Most tokens that a chunk repeats of the one before; at most half of `max_tokens`."""

    tokenizer: str = "all-MiniLM-L6-v2"
    """The model whose tokenizer counts: a name or folder, as `Embed` takes it."""

    def __post_init__(self) -> None:
        if self.max_tokens < 8:
            raise ConfigError("Chunk.max_tokens", self.max_tokens, "must be at least 8")
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            problem = f"must be from 0 to half of max_tokens, which is {self.max_tokens}"
            raise ConfigError("Chunk.overlap_tokens", self.overlap_tokens, problem)

    def fingerprint(self) -> str:
        """What the chunks of a text depend on: the settings and the tokenizer's bytes."""
        from penstock.models import tokenizer_fingerprint

        tokenizer = tokenizer_fingerprint(self.tokenizer)
        return f"{_REVISION}.{self.max_tokens}.{self.overlap_tokens}.{tokenizer}"

    def cut(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        """Cut a batch of documents; runs in any number of threads at once.

        Args:
            documents: `doc_id`, `media_type` and `text`.

        Returns:
            Batch of `CHUNKS`, in the documents' order.

        Raises:
            ModelError: The tokenizer cannot be found.
        """
        from penstock.kernels.breaks import find_breaks
        from penstock.kernels.cutting import gather

        counter = _counter(self.tokenizer)
        offsets, utf8 = text_buffers(documents["text"])
        at, strength, _, heading_at, title_starts, title_ends, parents, heading_rows = find_breaks(
            offsets, utf8, kinds_of(documents["media_type"])
        )
        begins, stops, owner = _windows(offsets, utf8, at, strength)
        spans = self._spans(utf8, begins, stops, at, strength, counter)
        spans = _without_blank(spans, utf8)
        document, starts, ends = owner[spans[:, 0]], spans[:, 1].copy(), spans[:, 2].copy()
        heading = np.searchsorted(heading_at, starts, side="right") - 1
        heading[heading < heading_rows[document]] = -1
        text = text_from_buffers(*gather(utf8, starts, ends))
        ordinal = _ordinals(document)
        doc_id = documents["doc_id"].take(pa.array(document)).cast(pa.string())
        columns = {
            "chunk_id": pc.binary_join_element_wise(doc_id, ordinal.cast(pa.string()), "#"),
            "doc_id": doc_id,
            "ordinal": ordinal,
            "chunk_hash": hash_column(text),
            "start": pa.array(starts - offsets[document]),
            "end": pa.array(ends - offsets[document]),
            "heading_path": _heading_paths(utf8, heading, title_starts, title_ends, parents),
            "num_tokens": pa.array(spans[:, 3].astype(np.int32)),
            "text": text,
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in CHUNKS.names], schema=CHUNKS)

    def _spans(
        self, utf8: U8, begins: I64, stops: I64, at: I64, strength: U8, counter: TokenCounter
    ) -> I64:
        """(num_chunks, 4) int64: text, start and end in `utf8`, tokens."""
        low, high = np.searchsorted(at, begins), np.searchsorted(at, stops)
        parts = [np.empty((0, 4), np.int64)]
        for first, last in _groups(stops - begins):
            part = slice(first, last)
            marks = Marks(at, strength, low[part], high[part])
            if counter.is_exact:
                spans = self._exact_spans(utf8, begins[part], stops[part], marks, counter)
            else:
                spans = self._checked_spans(utf8, begins[part], stops[part], marks, counter)
            spans[:, 0] += first
            parts.append(spans)
        return np.concatenate(parts)

    def _exact_spans(
        self, utf8: U8, begins: I64, stops: I64, marks: Marks, counter: TokenCounter
    ) -> I64:
        """Spans where the counts of atoms add up."""
        from penstock.kernels.cutting import cut

        atoms = counter.atoms(utf8, begins, stops, marks)
        atoms = split_oversized(atoms, utf8, counter, self.max_tokens)
        limits = np.full((2, len(begins)), [[self.max_tokens], [self.overlap_tokens]])
        return cut(
            utf8, begins, atoms.rows, atoms.starts, atoms.ends, atoms.counts, atoms.strengths,
            limits[0], limits[1],
        )  # fmt: skip

    def _checked_spans(
        self, utf8: U8, begins: I64, stops: I64, marks: Marks, counter: TokenCounter
    ) -> I64:
        """Spans where a chunk counts other than its atoms do: cut, count, tighten, repeat."""
        from penstock.kernels.cutting import cut

        atoms = counter.atoms(utf8, begins, stops, marks)
        atoms = split_oversized(atoms, utf8, counter, self.max_tokens // 2)
        limits = np.full((2, len(begins)), [[self.max_tokens], [self.overlap_tokens]])
        while True:
            spans: I64 = cut(
                utf8, begins, atoms.rows, atoms.starts, atoms.ends, atoms.counts, atoms.strengths,
                limits[0], limits[1],
            )  # fmt: skip
            spans[:, 3] = counter.count(_texts(utf8, spans[:, 1], spans[:, 2]))
            again = np.flatnonzero((spans[1:, 0] == spans[:-1, 0]) & (spans[1:, 1] < spans[:-1, 2]))
            repeated = counter.count(_texts(utf8, spans[again + 1, 1], spans[again, 2]))
            excess = np.zeros_like(limits)
            np.maximum.at(excess[0], spans[:, 0], spans[:, 3] - self.max_tokens)
            np.maximum.at(excess[1], spans[again, 0], repeated - self.overlap_tokens)
            done = (excess <= 0) | (limits <= 0)
            if done.all():
                return spans
            limits = np.where(done, limits, np.maximum(limits - excess, 0))


_counters: dict[str, TokenCounter] = {}
_counters_lock = threading.Lock()


def _counter(tokenizer: str) -> TokenCounter:
    """The process's one counter for this tokenizer: what it learns serves every thread."""
    counter = _counters.get(tokenizer)
    if counter is None:
        from penstock.models import load_tokenizer

        with _counters_lock:
            counter = _counters.get(tokenizer)
            if counter is None:
                counter = _counters[tokenizer] = TokenCounter(load_tokenizer(tokenizer))
    return counter


def _texts(utf8: U8, starts: I64, ends: I64) -> list[str]:
    return [utf8[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)]


def _windows(offsets: I64, utf8: U8, at: I64, strength: U8) -> tuple[I64, I64, I64]:
    """Where texts begin and end, and whose they are: documents, or pieces of a huge one."""
    sizes = np.diff(offsets)
    owner = np.arange(len(sizes))
    huge = np.flatnonzero(sizes > _WINDOW_BYTES)
    if not len(huge):
        return offsets[:-1], offsets[1:], owner
    inner = {row: _inner_borders(offsets, utf8, at, strength, row) for row in huge.tolist()}
    borders: list[I64] = []
    repeats = np.ones(len(sizes), np.int64)
    for row in owner.tolist():
        places = inner.get(row, [])
        repeats[row] += len(places)
        borders.append(np.array([offsets[row], *places], np.int64))
    begins = np.concatenate(borders)
    return begins, np.append(begins[1:], offsets[-1]), np.repeat(owner, repeats)


def _inner_borders(offsets: I64, utf8: U8, at: I64, strength: U8, row: int) -> list[int]:
    """Places in a huge document to cut it at, none further apart than a window."""
    from penstock.kernels.breaks import LINE

    begin, stop = int(offsets[row]), int(offsets[row + 1])
    places = []
    while stop - begin > _WINDOW_BYTES:
        limit = begin + _WINDOW_BYTES
        low, high = np.searchsorted(at, [limit - _WINDOW_BYTES // 8, limit])
        near = strength[low:high]
        if len(near) and near.max() >= LINE:
            begin = int(at[low + np.flatnonzero(near == near.max())[-1]])
        else:
            blanks = np.flatnonzero(np.isin(utf8[limit - (1 << 16) : limit], [0x20, 0x09, 0x0A]))
            begin = limit - (1 << 16) + int(blanks[-1]) + 1 if len(blanks) else limit
            while utf8[begin] & 0xC0 == 0x80:
                begin -= 1
        places.append(begin)
    return places


def _groups(sizes: I64) -> list[tuple[int, int]]:
    """Ranges of texts of about `_GROUP_BYTES`."""
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _GROUP_BYTES)) + 1
    borders = [0, *cuts.tolist(), len(sizes)]
    return [(a, b) for a, b in pairwise(borders) if a < b]


def _without_blank(spans: I64, utf8: U8) -> I64:
    """Leave out chunks of white space that the tokenizer does not take for white space."""
    empty = np.flatnonzero(spans[:, 3] == 0)
    texts = _texts(utf8, spans[empty, 1], spans[empty, 2])
    return np.delete(spans, empty[[text.isspace() for text in texts]] if texts else empty, axis=0)


def _ordinals(document: I64) -> pa.Array:
    """Number the chunks of each document from 0."""
    place = np.arange(len(document))
    is_first = np.ones(len(document), bool)
    is_first[1:] = document[1:] != document[:-1]
    first = np.maximum.accumulate(np.where(is_first, place, 0)) if len(place) else place
    return pa.array((place - first).astype(np.int32))


def _heading_paths(utf8: U8, heading: I64, starts: I64, ends: I64, parents: I64) -> pa.Array:
    """The titles above each chunk, joined by ` > `; the empty string above none."""
    paths = {-1: ""}

    def path_of(number: int) -> str:
        chain = []
        while number not in paths:
            chain.append(number)
            number = int(parents[number])
        for number in reversed(chain):
            above = paths[int(parents[number])]
            title = _title(utf8[starts[number] : ends[number]].tobytes())
            paths[number] = f"{above} > {title}" if above and title else above or title
        return paths[number]

    distinct, back = np.unique(heading, return_inverse=True)
    names = pa.array([path_of(number) for number in distinct.tolist()], pa.string())
    return names.take(pa.array(back))


def _title(raw: bytes) -> str:
    text = raw.decode()
    if "<" in text:
        text = html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", "", text))
    return " ".join(text.split())[:_MAX_TITLE]
