"""Drop documents that consist of paragraphs or lines that others have too, or cut those out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.decisions._judging import check_share
from penstock.decisions._pieces import (
    SIGNATURE,
    U32,
    Action,
    Flags,
    Judged,
    Pieces,
    check_action,
    group,
    judge,
    pack,
    piece_cuts,
    share_verdicts,
    span_array,
    staying_share,
    sums,
    unpack,
)
from penstock.errors import ConfigError
from penstock.kernels import I64, U8, text_buffers

_DECIDES = {"fingerprint": False}
_FOLDED = np.uint32(0x1FFFFF)
_BLANKS_BEHIND = re.compile(rb"(?:[ \t\r]*\n)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParagraphDedup:
    """Drop documents most of whose text is paragraphs that earlier documents have, or cut those.

    A paragraph ends at a blank line. Two are equal if their words are, whatever
    their case, digits (each counts as 0), punctuation and spacing; what a word is
    says `penstock.kernels.minhash`. Paragraphs without words count for nothing.

    Documents are looked at in the order of their `doc_id`: a paragraph is a
    repetition if a document that stays has it and comes earlier. What a dropped
    document alone had is not lost: the next that has it counts as its first.

    With `action="cut"` the repeated paragraphs of documents that stay are cut, with the
    blank lines behind them; `store.edits()` tells where, and whose they are.

    Guarantees: a function of the set of documents alone.

    Cost: signatures, 6 ms per MB of text on one thread without the GIL, 12 bytes
        a paragraph; decisions, 85 bytes and 0.4 us a paragraph of the corpus.

    Source: Wenzek et al. 2020 (CCNet), section 3.1, hashes of normalised
        paragraphs, which CCNet cuts. Differs: 64-bit hashes; accents stay;
        paragraphs, not lines; whole documents are dropped by the share of their
        characters, as Lee et al. 2022 and Dolma do.
    """

    max_share: float = field(default=0.5, metadata=_DECIDES)
    """A document goes if more of its characters are in repeated paragraphs."""
    action: Action = field(default="drop", metadata=_DECIDES)
    """``drop`` documents over `max_share`; also ``cut`` what others repeat; or ``flag`` alone."""
    min_words: int = 1
    """Paragraphs of fewer words are part of a document's size alone, and never cut."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check("ParagraphDedup", self.max_share, self.min_words, self.action)

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
        return self._judged(unpack(doc_id, signature))[1]

    @property
    def cut_by(self) -> str | None:
        """Names what spans depend on; None unless this cuts."""
        return f"{self.revision}, {self.min_words}" if self.action == "cut" else None

    def cut(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
        """Verdicts, and the numbers of the paragraphs to cut; see `Cutting`."""
        found = unpack(doc_id, signature)
        judged, verdicts = self._judged(found)
        return verdicts, piece_cuts(found, judged, verdicts)

    def spans(self, text: pa.Array, cuts: pa.Table) -> pa.Array:
        """Where those paragraphs lie, with the blank lines behind them; `SPANS`."""
        return _spans(text, cuts, by_lines=False)

    def _judged(self, found: Pieces) -> tuple[Judged, pa.Table]:
        ends = np.cumsum(found.values, dtype=np.int64)
        totals = sums(found.rows, found.values)
        stays = staying_share(self.max_share, self.action)
        judged = judge(found, ends - found.values, ends, totals, stays)
        return judged, share_verdicts(self.rule, found.ids, judged, self.max_share, self.action)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineDedup:
    """Drop documents most of whose text is lines that many have (menus, notices), or cut those.

    Lines are compared as `ParagraphDedup` compares paragraphs. All documents
    that have a line count alike, the first as well, so that what a line is does
    not depend on the order of the documents: if it is cut, it is cut in all of them.

    Guarantees: a function of the set of documents alone.

    Cost: signatures, 10 ms per MB of text on one thread without the GIL, 12 bytes
        a line; decisions, 85 bytes and 0.4 us a line of the corpus.

    Source: Wenzek et al. 2020 (CCNet), section 3.1, which cuts. Differs: a line may
        occur in `max_documents` documents before it counts as a repetition;
        documents are dropped by the share of their characters.
    """

    max_documents: int = field(default=10, metadata=_DECIDES)
    """A line that more documents have is a repetition."""
    max_share: float = field(default=0.5, metadata=_DECIDES)
    """A document goes if more of its characters are in such lines."""
    action: Action = field(default="drop", metadata=_DECIDES)
    """``drop`` documents over `max_share`; also ``cut`` such lines elsewhere; or ``flag`` alone."""
    min_words: int = 1
    """Lines of fewer words are part of a document's size alone, and never cut."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check("LineDedup", self.max_share, self.min_words, self.action)
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
        return self._judged(unpack(doc_id, signature))[1]

    @property
    def cut_by(self) -> str | None:
        """Names what spans depend on; None unless this cuts."""
        return f"{self.revision}, {self.min_words}" if self.action == "cut" else None

    def cut(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
        """Verdicts, and the numbers of the lines to cut; see `Cutting`."""
        found = unpack(doc_id, signature)
        judged, verdicts = self._judged(found)
        return verdicts, piece_cuts(found, judged, verdicts)

    def spans(self, text: pa.Array, cuts: pa.Table) -> pa.Array:
        """Where those lines lie, with the blank lines behind them; `SPANS`."""
        return _spans(text, cuts, by_lines=True)

    def _judged(self, found: Pieces) -> tuple[Judged, pa.Table]:
        common = self._common(found)
        covered = sums(found.rows, found.values * common)
        totals = sums(found.rows, found.values)
        shares = np.divide(covered, totals, out=np.zeros(len(totals)), where=totals > 0)
        nobody = np.full(len(totals), -1, np.int64)
        judged = Judged(shares, nobody, common, np.full(len(common), -1, np.int64))
        return judged, share_verdicts(self.rule, found.ids, judged, self.max_share, self.action)

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


def _check(name: str, max_share: float, min_words: int, action: Action) -> None:
    if max_share is None:
        raise ConfigError(f"{name}.max_share", max_share, "must be a share between 0 and 1")
    check_share(f"{name}.max_share", max_share)
    _check_whole(f"{name}.min_words", min_words)
    check_action(f"{name}.action", action)


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


def _spans(text: pa.Array, cuts: pa.Table, *, by_lines: bool) -> pa.Array:
    offsets, utf8, rows, _, _, _, pieces = _hashed(text, by_lines)
    data = utf8.data
    numbers, others = cuts["places"].to_pylist(), cuts["duplicate_of"].to_pylist()

    def of_row(row: int) -> list[tuple[int, int, str | None]]:
        first = int(offsets[row])
        chosen = pieces[rows[row] + np.array(numbers[row], np.int64)].tolist()
        # What follows a piece on its line, and blank lines, go with it.
        return [
            (start - first, _behind(data, stop, int(offsets[row + 1])) - first, other)
            for (start, stop), other in zip(chosen, others[row], strict=True)
        ]

    return span_array(of_row(row) for row in range(len(text)))


def _behind(data: memoryview, stop: int, end: int) -> int:
    """Behind the blank lines that follow a piece."""
    found = _BLANKS_BEHIND.match(data, stop, end)
    return stop if found is None else found.end()
