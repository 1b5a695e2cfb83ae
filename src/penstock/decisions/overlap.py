"""Runs of words of evaluation items: their index, and the search for them in texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.kernels import I64, text_buffers

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

_FIRST_ROOM = 1 << 12
_BITS_PER_RUN = 8


@dataclass(frozen=True, slots=True)
class Covered:
    """Items of which documents hold runs, by document.

    Attributes:
        documents: (num_hits,) number of the document.
        items: The item.
        covered: Words of the item in runs that were found.
        matched: Runs of the item that were found.
    """

    documents: I64
    items: I64
    covered: I64
    matched: I64


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The runs of all items, and where they occur; `penstock.kernels.overlap` says how.

    Attributes:
        size: Words in a run.
        least: Words in an anchor, and fewest of an item.
        texts: Of the items, set by set.
        sets: (num_items,) the set of each.
        numbers: (num_items,) its number in its set.
        rows: (num_items + 1,) offsets of the items' words.
        keys: (num_runs,) distinct runs, ascending.
        posts: (num_runs + 1,) offsets of each run into `items` and `places`.
        items: Where runs occur: the item.
        places: The number of the first word in it.
        shift: Of the filter.
        bits: The filter.
        slots: The anchors' table.
        masks: Its values.
        planted: How many items the self-test planted and found, per set.
    """

    size: int
    least: int
    texts: list[str]
    sets: I64
    numbers: I64
    rows: I64
    keys: U64
    posts: I64
    items: I32
    places: I32
    shift: np.uint64
    bits: U64
    slots: U64
    masks: U64
    planted: list[int]

    @property
    def lengths(self) -> I64:
        """Words in each item."""
        return np.diff(self.rows)

    def cover(
        self, signature: pa.ChunkedArray | pa.Array, is_common: Bools, above: float
    ) -> Covered:
        """What the runs of each document cover, where that exceeds a share of an item."""
        from penstock.kernels import overlap

        texts, keys = self.runs_of(signature)
        counts = ~is_common[keys]
        texts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[texts]
        has_runs = np.flatnonzero(np.diff(texts))
        offsets = np.append(texts[has_runs], texts[-1])
        num_items = len(self.sets)
        out = np.empty((_FIRST_ROOM, 4), np.int64)
        while True:
            num_hits = overlap.cover(
                offsets,
                keys[counts],
                self.posts,
                self.items,
                self.places,
                self.rows,
                self.size,
                above,
                np.zeros(self.rows[-1], np.int64),
                np.zeros(num_items, np.int64),
                np.zeros(num_items, np.int32),
                np.zeros(num_items, np.int32),
                np.zeros(num_items, np.int64),
                out,
            )
            if num_hits <= len(out):
                break
            out = np.empty((num_hits, 4), np.int64)
        texts_of, items, covered, matched = np.ascontiguousarray(out[:num_hits].T)
        return Covered(has_runs[texts_of], items, covered, matched)

    def runs_of(self, signature: pa.ChunkedArray | pa.Array) -> tuple[I64, I64]:
        """Offsets of each document's runs, (num_documents + 1,), and their numbers."""
        chunks = signature.chunks if isinstance(signature, pa.ChunkedArray) else [signature]
        sizes = [np.zeros(1, np.int64)]
        hashes = [np.zeros(0, np.uint64)]
        for chunk in chunks:
            sizes.append(chunk.value_lengths().fill_null(0).to_numpy().astype(np.int64))
            hashes.append(chunk.flatten().to_numpy())
        found = np.concatenate(hashes)
        numbers = np.searchsorted(self.keys, found)
        numbers[numbers == len(self.keys)] = 0
        assert (self.keys[numbers] == found).all(), "signatures of other sets"
        return np.cumsum(np.concatenate(sizes)), numbers


def build(texts_of: Sequence[Sequence[str]], size: int, least: int) -> Index:
    """Index the runs of the items of some sets."""
    from penstock.kernels import overlap

    texts = [text for texts in texts_of for text in texts]
    rows, words = cut(pa.array(texts, pa.large_string()))
    room = max(1, len(words))
    runs, anchors = np.empty(room, np.uint64), np.empty(room, np.uint64)
    items, places = np.empty(room, np.int32), np.empty(room, np.int32)
    n = overlap.item_runs(rows, words, size, least, runs, anchors, items, places)
    order = np.argsort(runs[:n], kind="stable")
    keys, first = np.unique(runs[:n][order], return_index=True)
    lengths = np.minimum(size, np.diff(rows))[items[:n]] - least
    num_words = 1 << max(0, (n * _BITS_PER_RUN // 64).bit_length())
    num_slots = 1 << max(4, (2 * n).bit_length())
    shift = np.uint64(64 - (num_words.bit_length() - 1)) if num_words > 1 else np.uint64(63)
    bits = np.zeros(max(2, num_words), np.uint64)
    slots, masks = np.zeros(num_slots, np.uint64), np.zeros(num_slots, np.uint64)
    flags = np.uint64(1) << lengths.astype(np.uint64)
    overlap.fill_table(anchors[:n], flags, shift, bits, slots, masks)
    sizes = [len(texts) for texts in texts_of]
    return Index(
        size=size,
        least=least,
        texts=texts,
        sets=np.repeat(np.arange(len(sizes)), sizes),
        numbers=np.concatenate([np.arange(size) for size in sizes]),
        rows=rows,
        keys=keys,
        posts=np.append(first, n).astype(np.int64),
        items=items[:n][order],
        places=places[:n][order],
        shift=shift,
        bits=bits,
        slots=slots,
        masks=masks,
        planted=[],
    )


def cut(text: pa.Array) -> tuple[I64, U64]:
    """Hashes of the words of each text: offsets, (num_rows + 1,), and the hashes."""
    from penstock.kernels import minhash

    offsets, utf8 = text_buffers(text)
    table = minhash.characters()
    # A word takes two bytes with what ends it, or three without; nothing but the words is touched.
    words = np.empty((offsets[-1] - offsets[0]) // 2 + len(offsets) + 1, np.uint64)
    rows, n = [0], 0
    ends = offsets.tolist()
    for start, end in pairwise(ends):
        _, n = minhash.fill_words(table, utf8, start, end, words, n)
        rows.append(n)
    return np.array(rows, np.int64), words[:n]


def matched_runs(index: Index, text: pa.Array) -> tuple[I64, I64, I64]:
    """Runs of the texts that occur in an item: row, number of the run, number of its first word."""
    from penstock.kernels import overlap

    whole = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    rows, words = cut(whole)
    room = _FIRST_ROOM
    while True:
        out = [np.empty(room, np.int64) for _ in range(3)]
        filters = (index.shift, index.bits, index.slots, index.masks)
        found = overlap.scan(rows, words, index.least, *filters, index.keys, *out)
        if found <= room:
            return out[0][:found], out[1][:found], out[2][:found]
        room = found


def num_documents(index: Index, signature: pa.ChunkedArray | pa.Array) -> I64:
    """How many documents hold each run, (num_runs,)."""
    return np.bincount(index.runs_of(signature)[1], minlength=len(index.keys))
