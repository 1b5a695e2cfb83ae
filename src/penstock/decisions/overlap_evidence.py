"""Where a document and the items of evaluation sets have words in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.decisions.eval_sets import EvalSet
from penstock.decisions.overlap import Index, matched_runs


@dataclass(frozen=True, slots=True)
class Span:
    """A run of words that a document and an item have in common.

    Attributes:
        document: Where it begins and ends in the document's text, in characters.
        item: The same in the item's text.
        num_words: Its words.
        text: As the document has it.
    """

    document: tuple[int, int]
    item: tuple[int, int]
    num_words: int
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """An item that a document holds, and where.

    Attributes:
        set: The evaluation set.
        item: The item's row in the set's file, from 0.
        item_text: Its text.
        matched_runs: How many of its runs the document has.
        coverage: Share of its words in them.
        spans: The longest runs of words in common, by their place in the document.
    """

    set: str
    item: int
    item_text: str
    matched_runs: int
    coverage: float
    spans: tuple[Span, ...]


def find_evidence(
    index: Index,
    sets: Sequence[EvalSet],
    text: str,
    above: float,
    common: frozenset[int],
    limit: int,
) -> list[Evidence]:
    """The items that a text holds, those with most words in common first."""
    _, keys, places = matched_runs(index, pa.array([text], pa.large_string()))
    diagonals: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    runs: dict[int, set[int]] = defaultdict(set)
    for key, place in zip(keys.tolist(), places.tolist(), strict=True):
        if int(index.keys[key]) in common:
            continue
        for post in range(index.posts[key], index.posts[key + 1]):
            item, at = int(index.items[post]), int(index.places[post])
            runs[item].add(at)
            diagonals[item][place - at].add(at)
    found = []
    for item, at_places in runs.items():
        length = int(index.lengths[item])
        size = min(index.size, length)
        covered = len({word for at in at_places for word in range(at, at + size)})
        if covered / length > above:
            found.append((-covered, item, len(at_places), covered / length, size))
    data = text.encode()
    return [
        Evidence(
            set=sets[index.sets[item]].title,
            item=int(index.numbers[item]),
            item_text=index.texts[item],
            matched_runs=matched,
            coverage=share,
            spans=_spans(data, index.texts[item].encode(), diagonals[item], size),
        )
        for _, item, matched, share, size in sorted(found)[:limit]
    ]


def _spans(
    document: bytes, item: bytes, diagonals: dict[int, set[int]], size: int
) -> tuple[Span, ...]:
    """The runs in common that go on word by word, as places in characters."""
    pairs = []  # first word in the document, in the item, and how many
    for shift, places in diagonals.items():
        start = end = -1
        for at in sorted(places):
            if at > end:
                if end >= 0:
                    pairs.append((start + shift, start, end - start))
                start = at
            end = at + size
        pairs.append((start + shift, start, end - start))
    pairs.sort()
    in_document = _characters(document, [(place, num) for place, _, num in pairs])
    in_item = _characters(item, [(at, num) for _, at, num in pairs])
    text = document.decode("utf-8")
    return tuple(
        Span(document=one, item=two, num_words=num, text=text[one[0] : one[1]])
        for one, two, (_, _, num) in zip(in_document, in_item, pairs, strict=True)
    )


def _characters(data: bytes, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of words, each a first word and a number, as places in characters."""
    wanted = sorted({word for first, num in runs for word in (first, first + num - 1)})
    spans = dict(zip(wanted, word_spans(data, wanted), strict=True))
    places = sorted({place for span in spans.values() for place in span})
    at, before, chars = 0, 0, {}
    for place in places:
        at += len(data[before:place].decode("utf-8"))
        before = place
        chars[place] = at
    return [(chars[spans[first][0]], chars[spans[first + num - 1][1]]) for first, num in runs]


def word_spans(data: bytes, wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Where words of a text lie in its bytes.

    Args:
        data: The text in UTF-8.
        wanted: Numbers of words, ascending.
    """
    from penstock.kernels import minhash

    utf8 = np.frombuffer(data, np.uint8).view()
    utf8.flags.writeable = False
    table = minhash.characters()
    spans, i, word = [], 0, 0
    for number in wanted:
        if number > word:
            i, _ = minhash.fill_words(
                table, utf8, i, len(data), np.empty(number - word, np.uint64), 0
            )
        before = i
        i, _ = minhash.fill_words(table, utf8, i, len(data), np.empty(1, np.uint64), 0)
        word = number + 1
        piece = data[before:i].decode("utf-8")
        begins = (minhash.IN_WORD, minhash.UNSPACED)
        skipped = next(k for k, char in enumerate(piece) if _kind(table, char) in begins)
        spans.append((before + len(piece[:skipped].encode()), i))
    return spans


def _kind(table: npt.NDArray[np.uint32], char: str) -> int:
    """The class of a character, as `penstock.kernels.minhash` sees it."""
    from penstock.kernels import minhash

    code = ord(char)
    if code < len(table):
        return int(table[code] >> 24)
    return minhash.UNSPACED if code < 0x32000 else minhash.OTHER
