"""Drop documents that consist of paragraphs or lines that other documents have too."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.decisions._judging import check_share
from penstock.decisions._pieces import (
    SIGNATURE,
    U32,
    Flags,
    Pieces,
    group,
    judge,
    pack,
    share_verdicts,
    sums,
    unpack,
)
from penstock.errors import ConfigError
from penstock.kernels import I64, U8, text_buffers, text_from_buffers

_DECIDES = {"fingerprint": False}
_FOLDED = np.uint32(0x1FFFFF)

PIECES = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("pieces", pa.large_list(pa.uint32()), nullable=False),
    ]
)
"""Which pieces of a document repeat others: their numbers, from 0, of those that have words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParagraphDedup:
    """Drop documents most of whose text is paragraphs that earlier documents have.

    A paragraph ends at a blank line. Two are equal if their words are, whatever
    their case, digits (each counts as 0), punctuation and spacing; what a word is
    says `penstock.kernels.minhash`. Paragraphs without words count for nothing.

    Documents are looked at in the order of their `doc_id`: a paragraph is a
    repetition if a document that stays has it and comes earlier. What a dropped
    document alone had is not lost: the next that has it counts as its first.

    Guarantees: a function of the set of documents alone.

    Cost: signatures, 6 ms per MB of text on one thread without the GIL, 12 bytes
        a paragraph; decisions, 85 bytes and 0.4 us a paragraph of the corpus.

    Source: Wenzek et al. 2020 (CCNet), section 3.1, hashes of normalised
        paragraphs. Differs: 64-bit hashes; accents stay; paragraphs, not lines;
        whole documents are dropped by the share of their characters, as Lee et al.
        2022 and Dolma do, where CCNet removes the paragraphs; see `repeated` and `cut`.
    """

    max_share: float = field(default=0.5, metadata=_DECIDES)
    """A document goes if more of its characters are in repeated paragraphs."""
    min_words: int = 1
    """Paragraphs of fewer words are part of a document's size alone."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check("ParagraphDedup", self.max_share, self.min_words)

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "paragraph_duplicate"

    @property
    def signature_type(self) -> pa.DataType:
        """A hash and the number of characters of each paragraph, 12 bytes together."""
        return SIGNATURE

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """The hashes and sizes of each text's paragraphs; (num_rows,) bytes."""
        return _sign(documents["text"], by_lines=False, min_words=self.min_words)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents repeat earlier ones; `VERDICTS`, sorted by `doc_id`.

        The score is the share of their characters; `duplicate_of` the document that
        has the last of the repeated paragraphs.
        """
        found = unpack(doc_id, signature)
        shares, others, _ = self._judged(found)
        return share_verdicts(self.rule, found.ids, shares, self.max_share, others)

    def repeated(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """What `cut` would remove from the documents that stay; `PIECES`, sorted by `doc_id`."""
        found = unpack(doc_id, signature)
        shares, _, repeated = self._judged(found)
        return _pieces_table(found, repeated, shares <= self.max_share)

    def cut(self, text: pa.Array, pieces: pa.Array) -> pa.Array:
        """The texts without the paragraphs of these numbers, and the blank lines behind them.

        Args:
            text: (num_rows,) strings.
            pieces: (num_rows,) lists as in `PIECES`; null for none.
        """
        return _cut(text, pieces, by_lines=False)

    def _judged(self, found: Pieces) -> tuple[np.ndarray, I64, Flags]:
        ends = np.cumsum(found.values, dtype=np.int64)
        totals = sums(found.rows, found.values)
        return judge(found, ends - found.values, ends, totals, self.max_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineDedup:
    """Drop documents most of whose text is lines that many documents have: menus, notices, forms.

    Lines are compared as `ParagraphDedup` compares paragraphs. All documents
    that have a line count alike, the first as well, so that what a line is does
    not depend on the order of the documents.

    Guarantees: a function of the set of documents alone.

    Cost: signatures, 10 ms per MB of text on one thread without the GIL, 12 bytes
        a line; decisions, 85 bytes and 0.4 us a line of the corpus.

    Source: Wenzek et al. 2020 (CCNet), section 3.1. Differs: a line may occur in
        `max_documents` documents before it counts as a repetition; documents are
        dropped by the share of their characters, lines are not removed; see
        `repeated` and `cut`.
    """

    max_documents: int = field(default=10, metadata=_DECIDES)
    """A line that more documents have is a repetition."""
    max_share: float = field(default=0.5, metadata=_DECIDES)
    """A document goes if more of its characters are in such lines."""
    min_words: int = 1
    """Lines of fewer words are part of a document's size alone."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check("LineDedup", self.max_share, self.min_words)
        _check_whole("LineDedup.max_documents", self.max_documents)

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "repeated_lines"

    @property
    def signature_type(self) -> pa.DataType:
        """A hash and the number of characters of each line, 12 bytes together."""
        return SIGNATURE

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """The hashes and sizes of each text's lines; (num_rows,) bytes."""
        return _sign(documents["text"], by_lines=True, min_words=self.min_words)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents are lines of many; `VERDICTS`, sorted by `doc_id`.

        The score is the share of their characters.
        """
        found = unpack(doc_id, signature)
        covered = sums(found.rows, found.values * self._common(found))
        totals = sums(found.rows, found.values)
        shares = np.divide(covered, totals, out=np.zeros(len(totals)), where=totals > 0)
        return share_verdicts(self.rule, found.ids, shares, self.max_share, None)

    def repeated(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """What `cut` would remove from these documents; `PIECES`, sorted by `doc_id`."""
        found = unpack(doc_id, signature)
        return _pieces_table(found, self._common(found), np.ones(len(found.ids), np.bool_))

    def cut(self, text: pa.Array, pieces: pa.Array) -> pa.Array:
        """The texts without the lines of these numbers; arguments as of `ParagraphDedup.cut`."""
        return _cut(text, pieces, by_lines=True)

    def _common(self, found: Pieces) -> Flags:
        """Which lines more than `max_documents` documents have."""
        groups, num_groups = group(found.hashes)
        places = np.flatnonzero(groups >= 0)
        places = places[np.argsort(groups[places], kind="stable")]
        groups_in_order, documents = groups[places], found.documents[places]
        is_other = np.ones(len(places), np.bool_)
        is_other[1:] = np.diff(groups_in_order) != 0
        is_other[1:] |= np.diff(documents) != 0
        counts = np.bincount(groups_in_order[is_other], minlength=num_groups)
        common = np.zeros(len(groups), np.bool_)
        common[places] = counts[groups_in_order] > self.max_documents
        return common


def _check(name: str, max_share: float, min_words: int) -> None:
    if max_share is None:
        raise ConfigError(f"{name}.max_share", max_share, "must be a share between 0 and 1")
    check_share(f"{name}.max_share", max_share)
    _check_whole(f"{name}.min_words", min_words)


def _check_whole(setting: str, value: object, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(setting, value, f"must be a whole number of at least {least}")


@cache
def _characters() -> U32:
    """`minhash.characters` with every decimal digit folded to 0."""
    import unicodedata

    from penstock.kernels.minhash import characters

    table = characters().copy()
    digits = [c for c in range(len(table)) if unicodedata.category(chr(c)) == "Nd"]
    table[digits] = (table[digits] & ~_FOLDED) | np.uint32(ord("0"))
    table.flags.writeable = False
    return table


def _hashed(text: pa.Array, by_lines: bool) -> tuple[I64, U8, I64, np.ndarray, U32, U32, I64]:
    from penstock.kernels.paragraphs import hash_pieces

    offsets, utf8 = text_buffers(text)
    return offsets, utf8, *hash_pieces(offsets, utf8, _characters(), by_lines)


def _sign(text: pa.Array, *, by_lines: bool, min_words: int) -> pa.Array:
    _, _, rows, hashes, sizes, words, _ = _hashed(text, by_lines)
    hashes[words < min_words] = 0
    return pack(rows, hashes, sizes)


def _pieces_table(found: Pieces, repeated: Flags, stays: Flags) -> pa.Table:
    places = np.flatnonzero(repeated & stays[found.documents])
    documents = found.documents[places]
    numbers = (places - found.rows[documents]).astype(np.uint32)
    changed = np.unique(documents)
    ends = np.searchsorted(documents, changed, side="right")
    offsets = np.concatenate([np.zeros(1, np.int64), ends]).astype(np.int64)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(numbers))
    ids = found.ids.take(pa.array(changed)).cast(pa.string())
    return pa.table({"doc_id": ids, "pieces": lists}, schema=PIECES)


def _cut(text: pa.Array, pieces: pa.Array, *, by_lines: bool) -> pa.Array:
    offsets, utf8, rows, _, _, _, spans = _hashed(text, by_lines)
    keep = np.ones(int(offsets[-1] - offsets[0]), np.bool_)
    for row, numbers in enumerate(pieces.to_pylist()):
        for number in numbers or ():
            place = int(rows[row]) + number
            start, stop = spans[place].tolist()
            is_last = place + 1 == rows[row + 1]
            after = int(offsets[row + 1]) if is_last else int(spans[place + 1, 0])
            keep[start - offsets[0] : _after(utf8, stop, after) - offsets[0]] = False
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    kept = utf8[offsets[0] : offsets[-1]][keep]
    return text_from_buffers(ends[offsets - offsets[0]], kept)


def _after(utf8: U8, stop: int, end: int) -> int:
    """Behind the line ends and blanks that follow a piece, before a line of anything else."""
    last = stop
    for i in range(stop, end):
        if utf8[i] == 0x0A:
            last = i + 1
        elif utf8[i] not in (0x20, 0x09, 0x0D):
            break
    return last
