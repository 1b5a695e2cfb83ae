"""Exact BM25 over the live rows of several segments."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from penstock.errors import ConfigError, StoreError
from penstock.kernels import I64
from penstock.words.analysis import query_analyzer
from penstock.words.files import Words, damaged
from penstock.words.highlighting import highlights
from penstock.words.query import Query, Required, read_query
from penstock.words.settings import DEFAULT, WordsSettings

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", bound=np.generic)

MAX_TERMS = 256
"""Distinct terms of a query that count; of more, those that weigh most."""

MAX_EXPANSIONS = 64
"""Terms that a beginning stands for: the most frequent."""

MAX_SIMILAR = 8
"""Terms that a mistyped word stands for: the nearest, of these the most frequent."""

SIMILAR_WEIGHT = 0.7
"""What each edit leaves of a term's weight."""

_RARE = 1e-4
"""Share of the rows below which a word may be mistyped; one that is absent always may."""

_FREQUENT = 512
"""Rows of a term from which on it is worth to be expanded."""

_MAX_EXPANDED = 1 << 22
"""Rows of expanded terms in a segment, of 8 bytes each."""

_MAX_KNOWN = 20_000
"""Terms that are remembered with where they are."""

_TOP = 1 << 30  # scores are whole numbers below it, see penstock.kernels.ranking
_ALL = np.empty(0, np.bool_)
_NO_LENGTHS = np.empty((3, 0), np.int32)
_LOOK_UP_COST = 25
_KNOWN_QUERIES = 64
_LONG_QUERY = 1000  # in characters: not kept
"""What a look-up of one row costs in a search for a term, in rows of which all are summed up."""


@dataclass(slots=True, eq=False)
class _Segment:
    """A segment that is open for searching, and what is remembered of it."""

    words: Words
    first_row: int
    live: Mask | None
    num_live: int
    norms: F32
    kept: I32
    """0 for live rows, -1 for others, where there are others."""
    frequent: _Frequent


class _Frequent:
    """Frequent terms of a segment, expanded when they are asked for again.

    They are what most of the time of a search goes to, and few of them are in
    most of the queries. When there is no more room, all are forgotten.
    """

    def __init__(self, num_rows: int) -> None:
        self._room = min(_MAX_EXPANDED, 16 * num_rows)
        self._lock = threading.Lock()
        self._asked: set[int] = set()
        self._used = 0
        # Replaced as one: where a list is says something of these two arrays alone.
        self._state: tuple[dict[int, int], I32, F32] = (
            {},
            _nothing(np.int32),
            _nothing(np.float32),
        )

    def find(self, words: Words, norms: F32, records: list[int], counts: list[int]) -> _Expanded:
        """Where the expanded rows of some terms are, by their records and numbers of rows."""
        known, rows, shares = self._state
        for record, count in zip(records, counts, strict=True):
            if count >= _FREQUENT and record not in known:
                if record in self._asked:
                    known, rows, shares = self._add(words, norms, record, count)
                else:
                    self._asked.add(record)
        places = np.array([known.get(record, -1) for record in records], np.int64)
        return _Expanded(places, rows, shares)

    def _add(
        self, words: Words, norms: F32, record: int, count: int
    ) -> tuple[dict[int, int], I32, F32]:
        from penstock.kernels.ranking import expand

        with self._lock:
            known, rows, shares = self._state
            if record in known or count > self._room:
                return self._state
            if not len(rows) or self._used + count > self._room:
                # Memory that nothing was written to costs nothing.
                known, rows, shares = (
                    {},
                    np.empty(self._room, np.int32),
                    np.empty(self._room, np.float32),
                )
                self._used = 0
                self._asked.clear()
            if not expand(words.postings, record, norms, rows, shares, self._used):
                raise damaged(words.folder / "postings.npy")
            known[record] = self._used
            self._used += count
            self._state = known, rows, shares
            return self._state


class _Expanded(NamedTuple):
    """What `ranking.search` takes."""

    places: I64
    rows: I32
    shares: F32


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a term.

    Attributes:
        num_rows: Live rows in which it occurs, of all segments.
        records: Per segment, the bit where its record starts, or -1.
        stored: Per segment, rows in its record, deleted ones too.
    """

    num_rows: int
    records: list[int]
    stored: list[int]


@dataclass(frozen=True, slots=True)
class _Scoring:
    """What a query's scores are made of.

    Attributes:
        entries: The terms in which a row may score.
        weights: Of each, scaled.
        scale: What a score is multiplied by.
    """

    entries: list[_Entry]
    weights: F32
    scale: float


class WordsSearcher:
    """Segments open for searching, by any number of threads.

    Args:
        segments: In the order in which ties are broken.
        live: Per segment, (num_rows,) True for rows that are not deleted; None for all.
        settings: `language` must be the segments'.

    Attributes:
        num_rows: Live rows.

    Raises:
        ConfigError: A mask is not of its segment's length.
        StoreError: The segments' terms are not those of the settings.

    Guarantees: scores depend on the query and the live rows alone, to the last
        bit, not on how these are cut into segments or what was deleted.

    Cost: to open, 4 bytes a row, 8 where rows are deleted, and about 1 ns a row.
    """

    def __init__(
        self,
        segments: Sequence[Words],
        live: Sequence[Mask | None] | None = None,
        settings: WordsSettings = DEFAULT,
    ) -> None:
        self._settings = settings
        masks = [None] * len(segments) if live is None else list(live)
        if len(masks) != len(segments):
            raise ConfigError("live", len(masks), f"must be {len(segments)}, one per segment")
        for words in segments:
            _check_analysis(words, segments[0], settings)
        masks = [_mask(mask, words) for mask, words in zip(masks, segments, strict=True)]
        masks = [None if mask is None or mask.all() else mask for mask in masks]
        self.num_rows = sum(
            words.num_rows if mask is None else int(mask.sum())
            for words, mask in zip(segments, masks, strict=True)
        )
        total = sum(
            int(words.lengths[0].sum(dtype=np.int64, where=True if mask is None else mask))
            for words, mask in zip(segments, masks, strict=True)
        )
        # A text without words is as long as any other then.
        mean = total / self.num_rows if total else 1.0
        self._base = settings.k1 * (1.0 - settings.b)
        self._slope = settings.k1 * settings.b / mean
        self._known: dict[bytes, _Entry] = {}
        self._queries: dict[tuple[str, int], tuple[Query, _Scoring]] = {}
        self._segments: list[_Segment] = []
        first_row = 0
        for words, mask in zip(segments, masks, strict=True):
            norms = self._base + self._slope * words.lengths[0].astype(np.float64)
            kept = np.empty(0, np.int32) if mask is None else mask.astype(np.int32) - 1
            norms, frequent = norms.astype(np.float32), _Frequent(words.num_rows)
            num_live = words.num_rows if mask is None else int(mask.sum())
            self._segments.append(_Segment(words, first_row, mask, num_live, norms, kept, frequent))
            first_row += words.num_rows
        self._firsts = np.array([segment.first_row for segment in self._segments], np.int64)
        sizes = [segment.words.num_rows for segment in self._segments]
        self._largest_first = sorted(range(len(sizes)), key=lambda i: -sizes[i])

    def search(
        self,
        text: str,
        k: int,
        allowed: Sequence[Mask | None] | None = None,
        *,
        typos: int = 0,
    ) -> tuple[F64, I32, I64]:
        """The best rows by BM25; any text is a query, see `penstock.words.query`.

        Args:
            text: Words, of which a row needs one or more.
            k: How many.
            allowed: Per segment, (num_rows,) True for rows that may be found, all of
                them live; None for all live rows.
            typos: Edits, 0 to 2, by which a word of the query that is absent or rare
                may differ from what it stands for.

        Returns:
            Scores from high to low, segment numbers, and places; of equal scores,
            lower segments and then lower places come first.

        Raises:
            ConfigError: A mask is not of its segment's length; `typos` is not 0 to 2.
            StoreError: A file is damaged.
        """
        k = min(k, self.num_rows)
        if allowed is not None and len(allowed) != len(self._segments):
            problem = f"must be {len(self._segments)}, one per segment"
            raise ConfigError("allowed", len(allowed), problem)
        query, scoring = self._understood(text, typos)
        if k <= 0 or not scoring.entries:
            return np.empty(0), np.empty(0, np.int32), np.empty(0, np.int64)
        from penstock.kernels.ranking import ROW_BITS

        heap, size = np.zeros(k, np.int64), 0
        # The largest first: the sooner good rows are found, the more others can be left out.
        for i in self._largest_first:
            segment = self._segments[i]
            mask = segment.live if allowed is None else _mask(allowed[i], segment.words)
            if allowed is not None and mask is None:
                mask = segment.live
            mask = self._that_meet(query.required, i, mask)
            heap, size = self._search(i, scoring, mask, heap, size)
        keys = np.sort(heap[:size])[::-1]
        rows = ((1 << ROW_BITS) - 1) - (keys & ((1 << ROW_BITS) - 1))
        firsts = self._firsts
        numbers = np.searchsorted(firsts, rows, side="right") - 1
        # Of segments that begin at the same row, all but the last are empty.
        return (keys >> ROW_BITS) / scoring.scale, numbers.astype(np.int32), rows - firsts[numbers]

    def scores(self, text: str, segment_no: int, places: I64, *, typos: int = 0) -> F64:
        """BM25 of rows of one segment, as `search` would give them.

        Args:
            text: As in `search`.
            segment_no: The segment.
            places: Rows, in any order; all live.
            typos: As in `search`.

        Returns:
            A score per place; 0 where no word occurs, or not all that must.
        """
        places = np.asarray(places, np.int64)
        segment = self._segments[segment_no]
        if len(places) and not 0 <= places.min() <= places.max() < segment.words.num_rows:
            raise ConfigError("places", places, f"must be in [0, {segment.words.num_rows})")
        query, scoring = self._understood(text, typos)
        sums = self._scores(segment_no, scoring, places)
        mask = self._that_meet(query.required, segment_no, None)
        if mask is not None:
            sums[~mask[places]] = 0
        return sums / scoring.scale

    def highlights(self, text: str, query: str) -> list[tuple[int, int]]:
        """Where a query's words stand in a text: see `highlights`."""
        return highlights(text, query, self._settings)

    def _understood(self, text: str, typos: int) -> tuple[Query, _Scoring]:
        """A query read and weighed; the last ones are remembered, as `scores` follows `search`."""
        known = self._queries.get((text, typos))
        if known is None:
            query = read_query(text, query_analyzer(self._settings.language))
            known = query, self._scoring(query, _checked(typos))
            if len(self._queries) >= _KNOWN_QUERIES:
                self._queries.clear()
            if len(text) < _LONG_QUERY:
                self._queries[text, typos] = known
        return known

    def _search(
        self, segment_no: int, scoring: _Scoring, mask: Mask | None, heap: I64, size: int
    ) -> tuple[I64, int]:
        """Add the best rows of a segment to the best so far."""
        from penstock.kernels.ranking import search

        segment = self._segments[segment_no]
        records, counts, weights = _present(scoring, segment_no)
        if not records:
            return heap, size
        if mask is not None:
            num_allowed = segment.num_live if mask is segment.live else np.count_nonzero(mask)
            if num_allowed * len(records) * _LOOK_UP_COST < sum(counts):
                return self._search_few(segment_no, scoring, np.flatnonzero(mask), heap, size)
        places, rows, shares = segment.frequent.find(segment.words, segment.norms, records, counts)
        size = search(
            segment.words.postings,
            np.array(records, np.int64),
            weights,
            segment.norms,
            self._base,
            self._slope,
            places,
            rows,
            shares,
            _ALL if mask is None else mask,
            segment.first_row,
            heap,
            size,
        )
        if size < 0:
            raise damaged(segment.words.folder / "postings.npy")
        return heap, size

    def _search_few(
        self, segment_no: int, scoring: _Scoring, places: I64, heap: I64, size: int
    ) -> tuple[I64, int]:
        """As `_search`, by looking each row up."""
        from penstock.kernels.ranking import ROW_BITS

        sums = self._scores(segment_no, scoring, places)
        last = (1 << ROW_BITS) - 1 - self._segments[segment_no].first_row
        keys = (sums << ROW_BITS) | (last - places)
        best = np.sort(np.concatenate([heap[:size], keys[sums > 0]]))[-len(heap) :]
        kept = np.zeros_like(heap)
        kept[: len(best)] = best  # ascending is in the order of a heap
        return kept, len(best)

    def _scores(self, segment_no: int, scoring: _Scoring, places: I64) -> I64:
        """Scores of rows as whole numbers."""
        from penstock.kernels.ranking import score

        segment = self._segments[segment_no]
        sums, sorted_sums = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
        records, _, weights = _present(scoring, segment_no)
        order = np.argsort(places, kind="stable")
        if not score(
            segment.words.postings,
            np.array(records, np.int64),
            weights,
            segment.norms,
            places[order],
            sorted_sums,
        ):
            raise damaged(segment.words.folder / "postings.npy")
        sums[order] = sorted_sums
        return sums

    def _that_meet(
        self, required: Sequence[Required], segment_no: int, mask: Mask | None
    ) -> Mask | None:
        """The mask, cut down to rows in which all occurs that must."""
        from penstock.kernels.ranking import find_phrase

        words = self._segments[segment_no].words
        for one in required:
            found = np.zeros(words.num_rows, np.bool_)
            entries = self._entries(one.terms)
            records = np.array([entries[t].records[segment_no] for t in one.terms], np.int64)
            lengths = words.lengths.astype(np.int32) if one.field else _NO_LENGTHS
            if (records >= 0).all() and not find_phrase(
                words.postings, records, lengths, one.field, found
            ):
                raise damaged(words.folder / "postings.npy")
            mask = found if mask is None else found & mask
        return mask

    def _entries(self, terms: Iterable[bytes]) -> dict[bytes, _Entry]:
        """What is known of terms, after looking up those that are new."""
        known = self._known
        new = [term for term in dict.fromkeys(terms) if term not in known]
        if not new:
            return known
        if len(known) > _MAX_KNOWN:  # others may still read the one that is replaced
            self._known = known = {}
            new = list(dict.fromkeys(terms))
        from penstock.kernels.vocabulary import look_up

        joined = _joined(new)
        live = np.zeros(len(new), np.int64)
        records, stored = np.zeros((2, len(self._segments), len(new)), np.int64)
        for i, segment in enumerate(self._segments):
            words = segment.words
            numbers = look_up(words.terms, words.term_offsets, *joined)[1]
            starts = words.record_offsets[np.maximum(numbers, 0)] if words.num_terms else numbers
            records[i] = np.where(numbers < 0, -1, starts.astype(np.int64) * 8)
            stored[i], live_counts = self._counts(segment, numbers)
            live += live_counts
        by_term = zip(new, live.tolist(), records.T.tolist(), stored.T.tolist(), strict=True)
        known.update((term, _Entry(*about)) for term, *about in by_term)
        return known

    def _counts(self, segment: _Segment, numbers: I64) -> tuple[I64, I64]:
        """Rows and live rows per term of a segment; 0 for a negative number."""
        from penstock.kernels.postings import unpack
        from penstock.kernels.vocabulary import count_rows

        words = segment.words
        stored = count_rows(words.postings, words.record_offsets, numbers)
        if segment.live is None:
            return stored, stored
        live, occurrences = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
        starts = words.record_offsets[np.maximum(numbers, 0)] if words.num_terms else numbers
        records = np.where(numbers < 0, -1, starts.astype(np.int64) * 8)
        nothing = np.empty(0, np.int32)
        if unpack(
            words.postings,
            records,
            segment.kept,
            words.num_rows,
            occurrences,
            live,
            nothing,
            nothing,
        ):
            raise damaged(words.folder / "postings.npy")
        return stored, live

    def _rarity(self, num_rows: float) -> float:
        return math.log1p((self.num_rows - num_rows + 0.5) / (num_rows + 0.5))

    def _scoring(self, query: Query, typos: int) -> _Scoring:
        """Weigh a query's terms: by how often it has them and how rare they are."""
        terms = query.counts()
        entries = self._entries(terms)
        weights = {
            term: count * self._rarity(entries[term].num_rows)
            for term, count in terms.items()
            if entries[term].num_rows
        }
        groups = [self._beginning(*prefix) for prefix in query.prefixes]
        if typos:
            asked = {part for word in query.telling() for part in word.parts if part is not None}
            rare = [t for t in sorted(asked) if entries[t].num_rows <= _RARE * self.num_rows]
            groups += [self._similar(term, typos) for term in rare]
        for group in groups:
            # Terms of a group stand for one word: they are as rare as all of them together.
            together = self._rarity(min(self.num_rows, sum(count for count, _ in group.values())))
            for term, (_, share) in group.items():
                weights[term] = max(weights.get(term, 0.0), share * together)
        weightiest = sorted(weights, key=lambda term: (-weights[term], term))[:MAX_TERMS]
        raw = np.array([weights[term] for term in weightiest]) * (self._settings.k1 + 1.0)
        total = math.fsum(raw)
        scale = 2.0 ** math.floor(math.log2((_TOP - (1 << 20)) / total)) if total else 1.0
        entries = self._entries(weightiest)
        return _Scoring(
            [entries[term] for term in weightiest], (raw * scale).astype(np.float32), scale
        )

    def _beginning(self, begins: bytes, itself: bytes) -> dict[bytes, tuple[int, float]]:
        """The most frequent terms that begin so: live rows and share of the weight of each."""
        from penstock.kernels.vocabulary import look_up

        # No byte of UTF-8 is 0xFF, so what comes before it begins so.
        joined = _joined([begins, begins + b"\xff"])
        candidates = []
        for segment in self._segments:
            words = segment.words
            low, high = look_up(words.terms, words.term_offsets, *joined)[0].tolist()
            numbers = np.arange(low, high)
            candidates.append((segment, numbers, self._counts(segment, numbers)[1]))
        counts = _sums(candidates)
        counts[itself] = self._entries([itself])[itself].num_rows
        best = sorted((-count, term) for term, count in counts.items() if count)[:MAX_EXPANSIONS]
        return {term: (-count, 1.0) for count, term in best}

    def _similar(self, term: bytes, typos: int) -> dict[bytes, tuple[int, float]]:
        """The terms that are nearest to one that may be mistyped, and how much each weighs."""
        from penstock.kernels.vocabulary import MAX_LETTERS, find_similar

        letters = np.array([ord(char) for char in term.decode()], np.int64)
        # Short words are near to too many others to mean any of them.
        typos = min(typos, 0 if len(letters) < 3 else 1 if len(letters) < 6 else 2)
        if not typos or len(letters) > MAX_LETTERS:
            return {}
        candidates, edits = [], {}
        for segment in self._segments:
            words = segment.words
            numbers, distances = find_similar(words.terms, words.term_offsets, letters, typos)
            candidates.append((segment, numbers, self._counts(segment, numbers)[1]))
            for number, distance in zip(numbers.tolist(), distances.tolist(), strict=True):
                edits[_term(words, number)] = distance
        counts = {other: count for other, count in _sums(candidates).items() if other != term}
        best = sorted((edits[other], -count, other) for other, count in counts.items() if count)
        return {
            other: (-count, SIMILAR_WEIGHT**distance)
            for distance, count, other in best[:MAX_SIMILAR]
        }


def _present(scoring: _Scoring, segment_no: int) -> tuple[list[int], list[int], F32]:
    """Of the terms that a segment has: records, rows and weights."""
    records = [entry.records[segment_no] for entry in scoring.entries]
    counts = [entry.stored[segment_no] for entry in scoring.entries]
    if -1 not in records:
        return records, counts, scoring.weights
    present = [i for i, record in enumerate(records) if record >= 0]
    return [records[i] for i in present], [counts[i] for i in present], scoring.weights[present]


def _nothing(kind: type[_Scalar]) -> npt.NDArray[_Scalar]:
    return np.empty(0, kind)


def _sums(candidates: Iterable[tuple[_Segment, I64, I64]]) -> dict[bytes, int]:
    """Live rows of all segments per term, of the terms given by number and count."""
    sums: dict[bytes, int] = {}
    for segment, numbers, counts in candidates:
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            term = _term(segment.words, number)
            sums[term] = sums.get(term, 0) + count
    return sums


def _term(words: Words, number: int) -> bytes:
    return words.terms[words.term_offsets[number] : words.term_offsets[number + 1]].tobytes()


def _joined(strings: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], I64]:
    """Byte strings end to end, and where each ends, beginning with 0."""
    ends = np.zeros(len(strings) + 1, np.int64)
    ends[1:] = np.cumsum([len(string) for string in strings])
    return np.frombuffer(b"".join(strings), np.uint8), ends


def _mask(mask: Mask | None, words: Words) -> Mask | None:
    if mask is None:
        return None
    mask = np.ascontiguousarray(mask, np.bool_)
    if mask.shape != (words.num_rows,):
        raise ConfigError("mask", mask.shape, f"must be ({words.num_rows},), one per row")
    return mask


def _check_analysis(words: Words, first: Words, settings: WordsSettings) -> None:
    if words.language != settings.language:
        raise StoreError(
            str(words.folder),
            f"its words are of language {words.language!r} and the settings say"
            f" {settings.language!r}; rebuild the index: penstock index rebuild",
        )
    if words.analysis != first.analysis:
        raise StoreError(
            str(words.folder),
            f"its words were analyzed by {words.analysis!r}, those of other segments by"
            f" {first.analysis!r}; rebuild the index: penstock index rebuild",
        )


def _checked(typos: int) -> int:
    if typos not in (0, 1, 2):
        raise ConfigError("typos", typos, "must be 0, 1 or 2")
    return typos
