"""Cut what evaluation sets hold out of documents, instead of dropping them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.decisions.decontaminate import Decontaminate
from penstock.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOverlap:
    """Cut runs of words that evaluation items hold, and some text around them, out of documents.

    A document step: it sees one document at a time, so that `max_documents` of
    `found_by` does not apply. What is left is joined by empty lines. A document
    that is left in no piece, or in too many, has an empty text, for a later
    decision to drop.

    Source: Brown et al. 2020 (GPT-3), appendix C: 200 characters to each side,
        pieces of fewer than 200 dropped, documents in more than 10 pieces dropped.
    """

    found_by: Decontaminate
    """Says what to look for; its action and `max_documents` do not matter."""
    around_chars: int = 200
    """Characters that go on each side of a run."""
    min_piece_chars: int = 200
    """Fewest characters of a piece that stays, in documents that are cut."""
    max_pieces: int = 10
    """Most pieces of a document that stays."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not isinstance(self.found_by, Decontaminate):
            raise ConfigError("CutOverlap.found_by", self.found_by, "must be a Decontaminate")
        for name, least in (("around_chars", 0), ("min_piece_chars", 0), ("max_pieces", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"CutOverlap.{name}", value, f"must be at least {least}")

    def fingerprint(self) -> str:
        """What the texts depend on: this step's settings, and what is looked for."""
        search = self.found_by
        share = search.min_coverage if search.method == "coverage8" else None
        limits = (self.around_chars, self.min_piece_chars, self.max_pieces)
        return f"{self.revision}, {limits}, {search.method}, {share}, {search.fingerprint()}"

    def apply(self, documents: pa.RecordBatch) -> pa.RecordBatch:
        """The same rows, with the texts that hold an item cut."""
        where = documents.schema.get_field_index("text")
        column = documents["text"]
        held = self.found_by.signature(documents).value_lengths().to_numpy()
        rows = np.flatnonzero(held).tolist()
        if not rows:
            return documents
        texts = {row: self.cut(column[row].as_py()) for row in rows}
        new = pa.array([texts.get(row) for row in range(len(column))], column.type)
        is_cut = pa.array(held > 0)
        column = pc.if_else(is_cut, new, column)
        return documents.set_column(where, documents.schema.field(where), column)

    def cut(self, text: str) -> str:
        """What is left of one text."""
        spans = [
            span.document
            for found in self.found_by.evidence(text, limit=len(text))
            for span in found.spans
        ]
        if not spans:
            return text
        pieces, at = [], 0
        for start, end in sorted(spans):
            if start - self.around_chars > at:
                pieces.append(text[at : start - self.around_chars])
            at = max(at, end + self.around_chars)
        pieces.append(text[at:])
        pieces = [piece.strip() for piece in pieces]
        pieces = [piece for piece in pieces if piece and len(piece) >= self.min_piece_chars]
        return "\n\n".join(pieces) if len(pieces) <= self.max_pieces else ""
