"""From words to terms: folding, splitting of identifiers, stemming; once per distinct word.

Kernels cut texts into words and number them; what a word means is worked out
when it is first seen and kept. A word's terms are those of its parts and, if
it has several, one for the whole: `HTTPServer2` is `http`, `server`, `2` and
`httpserver2`, and so is `http_server_2`. Only parts count in a text's length.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.kernels import I64, U8, text_buffers

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
_Scalar = TypeVar("_Scalar", bound=np.generic)

_VERSION = 1
"""Rises whenever some text would get other terms."""

_MAX_TERM_BYTES = 255
_MAX_WORDS = 2_000_000
"""Distinct words after which what is remembered of them is dropped: about 150 MB."""

_AT_ONCE = 1 << 16
_INVISIBLE = str.maketrans("", "", "\u00ad\u200c\u200d")


def analysis_version(language: str) -> str:
    """Names what texts become; segments are searched together only if it is the same."""
    import Stemmer

    return f"{_VERSION} {language} snowball-{Stemmer.version()}"


@cache
def characters() -> U8:
    """Class of each character below U+20000, see `penstock.kernels.words`.

    It is data of ours, made of Unicode 14, and not Python's, which differs from
    version to version: a text must have the same words everywhere.
    """
    packed = np.load(Path(__file__).with_name("characters.npy"))
    starts = np.append(packed >> 3, 0x20000).astype(np.int64)
    table = np.repeat((packed & 7).astype(np.uint8), np.diff(starts))
    return _read_only(table)


@cache
def stop_words(language: str) -> frozenset[str]:
    """Words that say little, by Snowball's list; empty where it has none.

    With the pieces that an apostrophe leaves, if they are at most two letters: `don't` is `don`
    and `t`, and `don` may be a river.
    """
    data = Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8")
    lines = (line.split(":", 1) for line in data.splitlines() if not line.startswith("#"))
    words = {name: set(listed.split()) for name, listed in lines}.get(language, set())
    pieces = {piece for word in words if "'" in word for piece in word.split("'")}
    return frozenset(words | {piece for piece in pieces if len(piece) <= 2})


class _Table:
    """Numbers distinct byte strings from 0 on. One writer at a time, any number of readers."""

    def __init__(self) -> None:
        self.count = 0
        # Slots, ends and arena; replaced as one, so that what a reader takes fits together.
        self.state: tuple[U64, I64, U8] = (
            np.zeros(1 << 10, np.uint64),
            np.zeros(1 << 9, np.int64),
            np.zeros(1 << 12, np.uint8),
        )

    def bytes(self, first: int = 0) -> tuple[I64, U8]:
        """Offsets and bytes of the strings from `first` on."""
        _, ends, arena = self.state
        return ends[first : self.count + 1], arena

    def add(self, utf8: U8, starts: I64, stops: I64) -> I32:
        """The numbers of these strings."""
        numbers = [
            self._add(utf8, starts[first : first + _AT_ONCE], stops[first : first + _AT_ONCE])
            for first in range(0, len(starts), _AT_ONCE)
        ]
        return np.concatenate([*numbers, np.empty(0, np.int32)])

    def _add(self, utf8: U8, starts: I64, stops: I64) -> I32:
        from penstock.kernels.words import intern, rehash

        most = self.count + len(starts)
        slots, ends, arena = self.state
        ends = _with_room(ends, self.count + 1, most + 1)
        used = int(ends[self.count])
        arena = _with_room(arena, used, used + int((stops - starts).sum()))
        size = len(slots)
        while 2 * most > size:
            size *= 2
        if size > len(slots):
            larger = np.zeros(size, np.uint64)
            rehash(slots, larger)
            slots = larger
        self.state = slots, ends, arena
        numbers, self.count = intern(*self.state, self.count, utf8, starts, stops)
        return numbers


class _Meanings:
    """Distinct words and their terms."""

    def __init__(self) -> None:
        self.words, self.parts = _Table(), _Table()
        self.part_terms = np.empty(0, np.int32)
        self.word_ends, self.word_terms = np.zeros(1, np.int64), np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Cut:
    """One column's words.

    Attributes:
        rows: (num_rows + 1,) offsets of each row's words.
        words: Their numbers.
        starts: Where each starts, in the column's bytes.
        stops: Where each ends.
    """

    rows: I64
    words: I32
    starts: I64
    stops: I64


@dataclass(frozen=True, slots=True)
class Analyzed:
    """Columns and what their words mean.

    Attributes:
        columns: As given.
        word_ends: Offsets of each word's terms. The first is the whole's if there are parts.
        word_terms: Numbers of terms, -1 for none.
        num_terms: All are below it.
    """

    columns: tuple[Cut, ...]
    word_ends: I64
    word_terms: I32
    num_terms: int

    def terms(self, word: int) -> tuple[int, list[int]]:
        """The term of a word as a whole, -1 if none, and those of its parts."""
        first, end = self.word_ends[word : word + 2]
        whole, *parts = self.word_terms[first:end].tolist()
        return whole, parts


class Analyzer:
    """Turns texts into terms, and numbers these in the order in which it meets them.

    Any number of threads may share one. It remembers distinct words up to a
    bound and all distinct terms.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        # In Turkish, the small letter of I is not i.
        self._fold_ascii = language != "turkish"
        self._stem = _stemmer(language)
        self._terms = _Table()
        self._meanings = _Meanings()
        self._lock = threading.Lock()
        self.meanings_of_queries: dict[str, Any] = {}
        """What queries remember of words; it goes when the analyzer goes."""

    @property
    def num_terms(self) -> int:
        """Distinct terms so far."""
        return self._terms.count

    def vocabulary(self) -> pa.Array:
        """The bytes of all terms by number, large_binary; a copy."""
        with self._lock:
            ends, arena = self._terms.bytes()
            ends, arena = ends.copy(), arena[: ends[-1]].copy()
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(arena)]
        return pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)

    def term(self, number: int) -> bytes:
        """The bytes of a term."""
        ends, arena = self._terms.bytes()
        return arena[ends[number] : ends[number + 1]].tobytes()

    def analyze(self, *columns: pa.Array) -> Analyzed:
        """Cut columns of text into words, and work out what the new ones mean."""
        from penstock.kernels.words import cut

        meanings = self._meanings
        slots, ends, arena = meanings.words.state
        texts = [text_buffers(column) for column in columns]
        cuts = [
            Cut(*cut(offsets, utf8, characters(), slots, ends, arena)) for offsets, utf8 in texts
        ]
        with self._lock:
            for (_, utf8), column in zip(texts, cuts, strict=True):
                missing = np.flatnonzero(column.words < 0)
                if len(missing):
                    column.words[missing] = meanings.words.add(
                        utf8, column.starts[missing], column.stops[missing]
                    )
            self._explain(meanings)
            if meanings is self._meanings and meanings.words.count > _MAX_WORDS:
                self._meanings = _Meanings()
            return Analyzed(tuple(cuts), meanings.word_ends, meanings.word_terms, self._terms.count)

    def _explain(self, meanings: _Meanings) -> None:
        """Work out the terms of words that have none yet."""
        from penstock.kernels.words import split

        words, parts = meanings.words, meanings.parts
        first = len(meanings.word_ends) - 1
        if words.count == first:
            return
        ends, arena = words.bytes()
        rows, part_ends, utf8 = split(
            ends, arena, first, words.count, characters(), self._fold_ascii
        )
        numbers = parts.add(utf8, part_ends[:-1], part_ends[1:])
        first_part = len(meanings.part_terms)
        if parts.count > first_part:
            new = self._number(parts.bytes(first_part))
            meanings.part_terms = np.append(meanings.part_terms, new)
        terms = meanings.part_terms[numbers]
        # A whole that says what one of its parts says would count that twice.
        wholes = terms[rows[:-1]]
        same = terms == np.repeat(wholes, np.diff(rows))
        same[rows[:-1]] = False
        terms[rows[:-1][np.add.reduceat(same, rows[:-1]) > 0]] = -1
        meanings.word_terms = np.append(meanings.word_terms, terms)
        last = meanings.word_ends[-1]
        meanings.word_ends = np.append(meanings.word_ends, rows[1:] + last)

    def _number(self, parts: tuple[I64, U8]) -> I32:
        """Numbers of the terms of parts, -1 for what is no term."""
        ends, arena = parts
        strings = pa.Array.from_buffers(
            pa.large_string(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(arena)]
        ).to_pylist()
        is_folded = str.isascii if self._fold_ascii else lambda part: not part
        terms = self._stem([part if is_folded(part) else self.fold(part) for part in strings])
        offsets, utf8 = text_buffers(pa.array(terms, pa.large_string()))
        numbers = self._terms.add(utf8, offsets[:-1], offsets[1:])
        sizes = np.diff(offsets)
        numbers[(sizes == 0) | (sizes > _MAX_TERM_BYTES)] = -1
        return numbers

    def fold(self, word: str) -> str:
        """A word with its capitals and variants of letters made alike; not stemmed."""
        if not self._fold_ascii:
            word = word.replace("I", "ı").replace("İ", "i")
        folded = unicodedata.normalize("NFKC", word.translate(_INVISIBLE)).casefold()
        # Compatibility forms may bring spaces or signs: ½ is 1⁄2.
        return "".join(char for char in folded if char == "." or char.isalnum() or _is_mark(char))


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


@cache
def shared_analyzer(language: str) -> list[Analyzer]:
    """The analyzer of queries: a cell, so that a full one can be replaced."""
    return [Analyzer(language)]


def query_analyzer(language: str) -> Analyzer:
    """An analyzer that all queries of a language share."""
    cell = shared_analyzer(language)
    analyzer = cell[0]
    if analyzer.num_terms > _AT_ONCE:
        cell[0] = analyzer = Analyzer(language)
    return analyzer


def _stemmer(language: str) -> Callable[[list[str]], Sequence[str]]:
    if language == "none":
        return lambda words: words
    import Stemmer

    # Words come once each: a cache inside would only cost.
    stem: Callable[[list[str]], Sequence[str]] = Stemmer.Stemmer(language, 0).stemWords
    return stem


def _with_room(array: npt.NDArray[_Scalar], used: int, most: int) -> npt.NDArray[_Scalar]:
    """The array, or a larger one that begins with what is used."""
    if most <= len(array):
        return array
    larger = np.empty(max(most, 2 * len(array)), array.dtype)
    larger[:used] = array[:used]
    return larger


def _read_only(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    array.flags.writeable = False
    return array
