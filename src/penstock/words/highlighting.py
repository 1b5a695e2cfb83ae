"""Where a query's words stand in a text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.words.analysis import Analyzer, characters, query_analyzer
from penstock.words.query import Required, read_query
from penstock.words.settings import DEFAULT, WordsSettings

_Place = tuple[int, int, bytes]  # start and end in bytes, and the term there


def highlights(text: str, query: str, settings: WordsSettings = DEFAULT) -> list[tuple[int, int]]:
    """Where a query's words stand in a text, after splitting and stemming.

    Words of a phrase count only where the phrase stands, and are one span then.

    Args:
        text: Any.
        query: As in `WordsSearcher.search`; what it requires of a title or a
            heading is looked for here too.
        settings: Of which only `language` matters.

    Returns:
        Ascending, disjoint spans of characters of `text`.
    """
    analyzer = query_analyzer(settings.language)
    asked = read_query(query, analyzer)
    plain = [word for word in asked.telling() if word in asked.words or not asked.required]
    terms = {term for word in plain for term in word.terms}
    beginnings = tuple(begins for begins, _ in asked.prefixes)
    terms |= {itself for _, itself in asked.prefixes}
    encoded = text.encode("utf-8", "replace")  # one byte for a lone surrogate
    wholes, parts = _places(encoded, analyzer)
    spans = [
        (start, end)
        for start, end, term in (*wholes, *parts)
        if term in terms or (beginnings and term.startswith(beginnings))
    ]
    for required in asked.required:
        spans += _phrases(parts, required)
    return _characters(encoded, _joined(spans))


def _places(encoded: bytes, analyzer: Analyzer) -> tuple[list[_Place], list[_Place]]:
    """Every word as a whole, and every part of a word, in the order of the text."""
    from penstock.kernels.words import split

    column = pa.array([encoded.decode()], pa.large_string())
    analyzed = analyzer.analyze(column)
    cut = analyzed.columns[0]
    starts, stops = cut.starts.tolist(), cut.stops.tolist()
    ends = np.append(0, np.cumsum(cut.stops - cut.starts))
    pieces = [encoded[start:stop] for start, stop in zip(starts, stops, strict=True)]
    arena = np.frombuffer(b"".join(pieces), np.uint8)
    rows, part_ends, utf8 = split(ends, arena, 0, len(pieces), characters(), False)
    bounds, data = part_ends.tolist(), utf8.tobytes()
    wholes: list[_Place] = []
    parts: list[_Place] = []
    for i, word in enumerate(cut.words.tolist()):
        whole, terms = analyzed.terms(word)
        if whole >= 0:
            wholes.append((starts[i], stops[i], analyzer.term(whole)))
        at = starts[i]
        for k, term in enumerate(terms, int(rows[i]) + 1):
            piece = data[bounds[k] : bounds[k + 1]]
            at = encoded.index(piece, at)
            parts.append((at, at + len(piece), analyzer.term(term) if term >= 0 else b""))
            at += len(piece)
    return wholes, parts


def _phrases(parts: list[_Place], required: Required) -> list[tuple[int, int]]:
    """Where the terms follow each other, from the start of the first to the end of the last."""
    size = len(required.terms)
    terms = tuple(term for _, _, term in parts)
    return [
        (parts[i][0], parts[i + size - 1][1])
        for i in range(len(parts) - size + 1)
        if terms[i] == required.terms[0] and terms[i : i + size] == required.terms
    ]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, those that overlap or touch as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _characters(encoded: bytes, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """From spans of bytes to spans of characters."""
    before = np.append(0, np.cumsum(np.frombuffer(encoded, np.uint8) & 0xC0 != 0x80))
    return [(int(before[start]), int(before[end])) for start, end in spans]
