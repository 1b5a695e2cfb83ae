"""How many tokens each piece of a text has, by the tokenizer's own count but mostly without it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.kernels import I64, U8

I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]

_MAX_ENTRIES = 1 << 20
_MAX_ARENA_BYTES = 64 << 20
"""A table stops growing at about 100 MB; what it does not hold is counted each time."""

_SLAB_BYTES = 1 << 16
"""Text that an unknown kind of tokenizer gets at a time, so that a huge text costs no memory."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Places of `kernels.breaks.find_breaks`, with the range that lies in each text."""

    at: I64
    strength: U8
    low: I64
    high: I64


@dataclass(frozen=True, slots=True)
class Atoms:
    """The pieces that a text is cut between, and those alone.

    Attributes:
        starts: Where each begins, (num_atoms,).
        ends: Where each ends.
        counts: Its tokens.
        strengths: How good a cut before it is.
        rows: Offsets per text, (num_texts + 1,).
    """

    starts: I64
    ends: I64
    counts: I32
    strengths: U8
    rows: I64


class RunTable:
    """Runs of bytes and their counts, read without a lock and written under one."""

    def __init__(self, num_slots: int = 1 << 12, arena_bytes: int = 1 << 15) -> None:
        self._lock = threading.Lock()
        self._used = self._num_entries = 0
        self.arrays: tuple[U64, U64, U8] = (
            np.zeros(num_slots, np.uint64),
            np.zeros(num_slots, np.uint64),
            np.zeros(arena_bytes, np.uint8),
        )

    def add(self, utf8: U8, starts: I64, ends: I64, counts: I32) -> None:
        """Add these runs, unless the table is full. Any number of threads may."""
        from penstock.kernels.tokens import MAX_WORD, insert

        sizes = ends - starts
        new_bytes = int(sizes[sizes <= MAX_WORD].sum())
        with self._lock:
            full = self._num_entries + len(starts) > _MAX_ENTRIES
            if full or self._used + new_bytes > _MAX_ARENA_BYTES:
                return
            self._make_room(len(starts), new_bytes)
            num_new, self._used = insert(*self.arrays, self._used, utf8, starts, ends, counts)
            self._num_entries += num_new

    def _make_room(self, num_new: int, new_bytes: int) -> None:
        """Replace what is too small; a reader keeps the arrays that it has."""
        from penstock.kernels.tokens import rehash

        keys, meta, arena = self.arrays
        if self._used + new_bytes > len(arena):
            larger = np.zeros(2 * (self._used + new_bytes), np.uint8)
            larger[: self._used] = arena[: self._used]
            arena = larger
        num_slots = len(keys)
        while 2 * (self._num_entries + num_new) > num_slots:
            num_slots *= 2
        if num_slots > len(keys):
            new_keys, new_meta = np.zeros((2, num_slots), np.uint64)
            rehash(keys, meta, new_keys, new_meta)
            keys, meta = new_keys, new_meta
        self.arrays = keys, meta, arena


class TokenCounter:
    """Counts tokens as one tokenizer does, without the tokens that it adds at the ends.

    Args:
        tokenizer: A `tokenizers.Tokenizer`; it is copied.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        described = tokenizer.to_str()
        self._tokenizer = Tokenizer.from_str(described)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        settings = json.loads(described)
        self._table = RunTable()
        self.is_exact = _splits_into_runs(settings)
        """Whether the counts of atoms add up to the count of a text."""
        added = [token["content"].encode() for token in settings["added_tokens"]]
        self._added = np.frombuffer(b"".join(added) or b"\0", np.uint8)
        self._added_ends = np.cumsum([len(token) for token in added], dtype=np.int64)
        self._added_first = np.zeros(256, np.uint8)
        self._added_first[[token[0] for token in added if token]] = 1
        normalizer = settings["normalizer"] or {}
        self._ideographs = bool(normalizer.get("handle_chinese_chars"))
        self._fold = bool(normalizer.get("lowercase"))
        self._max_letters = int(settings["model"].get("max_input_chars_per_word", 0))
        self._pieces = _piece_tables(settings) if self.is_exact else None

    def count(self, texts: list[str]) -> I32:
        """Tokens of each text, by the tokenizer itself; (num_texts,) int32."""
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return np.fromiter((len(each) for each in encoded), np.int32, len(texts))

    def atoms(self, utf8: U8, begins: I64, stops: I64, marks: Marks) -> Atoms:
        """Split texts into atoms and count each.

        Args:
            utf8: Valid UTF-8, read-only.
            begins: Where each text begins, (num_texts,).
            stops: Where it ends.
            marks: Good places to cut.
        """
        from penstock.kernels.tokens import scan

        starts, ends, counts, strengths, rows = scan(
            utf8, begins, stops,
            marks.at, marks.strength, marks.low, marks.high,
            self._ideographs, self._added, self._added_ends, self._added_first,
            *self._table.arrays,
        )  # fmt: skip
        if self.is_exact:
            unknown = np.flatnonzero(counts < 0)
            if len(unknown):
                counts[unknown] = self._count_runs(utf8, starts[unknown], ends[unknown])
        else:
            for text in range(len(begins)):
                part = slice(rows[text], rows[text + 1])
                counts[part] = self._estimate(utf8, starts[part], ends[part])
        return Atoms(starts, ends, counts, strengths, rows)

    def _count_runs(self, utf8: U8, starts: I64, ends: I64) -> I32:
        """Count runs that the table lacks, each different one once, and add them."""
        from penstock.kernels.tokens import count_pieces, distinct

        assert self._pieces is not None
        groups, firsts = distinct(utf8, starts, ends)
        starts, ends = starts[firsts], ends[firsts]
        first, following = self._pieces
        counts: I32 = count_pieces(
            utf8, starts, ends, self._fold, self._max_letters, *first.arrays, *following.arrays
        )
        rest = np.flatnonzero(counts < 0)
        if len(rest):
            spans = zip(starts[rest], ends[rest], strict=True)
            counts[rest] = self.count([utf8[start:end].tobytes().decode() for start, end in spans])
        self._table.add(utf8, starts, ends, counts)
        return counts[groups]

    def _estimate(self, utf8: U8, starts: I64, ends: I64) -> I32:
        """Tokens that begin in each atom of one text, where a sum of atoms is no exact count."""
        counts = np.zeros(len(starts), np.int32)
        low = 0
        while low < len(starts):
            high = max(low + 1, int(np.searchsorted(ends, starts[low] + _SLAB_BYTES)))
            begin = int(starts[low])
            slab = utf8[begin : ends[high - 1]]
            encoded = self._tokenizer.encode(slab.tobytes().decode(), add_special_tokens=False)
            letters = np.flatnonzero((slab & 0xC0) != 0x80)
            # A token's span may begin with the white space before its word: its end decides.
            last = np.array([end for _, end in encoded.offsets], np.int64) - 1
            places = begin + letters[np.maximum(last, 0)] if len(last) else last
            owner = np.searchsorted(starts[low:high], places, side="right") - 1
            counts[low:high] = np.bincount(np.maximum(owner, 0), minlength=high - low)
            low = high
        return counts


def split_oversized(atoms: Atoms, utf8: U8, counter: TokenCounter, max_tokens: int) -> Atoms:
    """Cut every atom of too many tokens, by force, between letters."""
    from penstock.kernels.breaks import FORCED

    oversized = np.flatnonzero(atoms.counts > max_tokens)
    if not len(oversized):
        return atoms
    starts: list[I64] = []
    counts: list[I32] = []
    repeats = np.ones(len(atoms.starts), np.int64)
    for i in oversized.tolist():
        places, tokens = _halved(
            utf8, int(atoms.starts[i]), int(atoms.ends[i]), counter, max_tokens
        )
        repeats[i] = len(places)
        starts.append(np.array(places, np.int64))
        counts.append(np.array(tokens, np.int32))
    owner = np.repeat(np.arange(len(repeats)), repeats)
    new = np.flatnonzero(np.isin(owner, oversized))
    new_starts, new_counts = atoms.starts[owner], atoms.counts[owner]
    new_ends, new_strengths = atoms.ends[owner], atoms.strengths[owner]
    new_starts[new], new_counts[new] = np.concatenate(starts), np.concatenate(counts)
    within = new[new_starts[new] != atoms.starts[owner[new]]]
    new_strengths[within] = FORCED
    new_ends[within - 1] = new_starts[within]
    rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(repeats)])[atoms.rows]
    return Atoms(new_starts, new_ends, new_counts, new_strengths, rows)


def _halved(
    utf8: U8, start: int, end: int, counter: TokenCounter, max_tokens: int
) -> tuple[list[int], list[int]]:
    """Starts and counts of pieces of at most `max_tokens`, by halving until they are."""
    from penstock.kernels.tokens import is_extending

    count = int(counter.count([utf8[start:end].tobytes().decode()])[0])
    inner = (
        [i for i in range(start + 1, end) if utf8[i] & 0xC0 != 0x80] if count > max_tokens else []
    )
    if not inner:
        return [start], [count]
    middle = inner[len(inner) // 2]
    clean = [i for i in inner if not is_extending(utf8, i, end)]
    if clean:
        middle = min(clean, key=lambda i: abs(i - middle))
    left = _halved(utf8, start, middle, counter, max_tokens)
    right = _halved(utf8, middle, end, counter, max_tokens)
    return left[0] + right[0], left[1] + right[1]


def _splits_into_runs(settings: dict[str, Any]) -> bool:
    """Whether the tokenizer is of the kind that `kernels.tokens` can count for."""

    def kind(part: str) -> str:
        return str((settings[part] or {}).get("type"))

    stands_apart = all(
        not token["normalized"] and not token["single_word"] and _is_bracketed(token["content"])
        for token in settings["added_tokens"]
    )
    kinds = kind("normalizer"), kind("pre_tokenizer"), kind("model")
    return (
        kinds == ("BertNormalizer", "BertPreTokenizer", "WordPiece")
        and bool(settings["normalizer"].get("clean_text"))
        and stands_apart
    )


def _is_bracketed(token: str) -> bool:
    """Whether a special token cannot touch the runs beside it, nor overlap another one."""
    inner = token[1:-1]
    marks = [char for char in token if char.isascii() and not char.isalnum() and char != "_"]
    return len(token) > 2 and len(marks) == 2 and token[0] in marks and inner.isascii()


def _piece_tables(settings: dict[str, Any]) -> tuple[RunTable, RunTable]:
    """The vocabulary's pieces of ASCII letters and digits: those that begin a word, and others."""
    prefix = settings["model"]["continuing_subword_prefix"]
    first: list[str] = []
    following: list[str] = []
    for piece in settings["model"]["vocab"]:
        rest = piece.removeprefix(prefix)
        if rest.isascii() and rest.isalnum():
            (following if rest != piece else first).append(rest)
    return _table_of(first), _table_of(following)


def _table_of(words: list[str]) -> RunTable:
    ends = np.cumsum([len(word) for word in words], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    utf8 = np.frombuffer("".join(words).encode() or b"\0", np.uint8)
    table = RunTable()
    table.add(utf8, starts, ends, np.ones(len(words), np.int32))
    return table
