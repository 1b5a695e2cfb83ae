"""FineWeb's rules about lines, over counts that are kept for each document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.decisions import _words
from penstock.decisions._judging import (
    Check,
    above,
    below,
    check_count,
    check_share,
    columns_of,
    counts_array,
    counts_type,
    share,
    verdicts,
)
from penstock.errors import ConfigError

_NAMES = ("lines", "terminal_lines", "short_lines", "repeated_chars", "chars", "newlines", "words")


@dataclass(frozen=True, slots=True, kw_only=True)
class FineWebQuality:
    """Drop documents whose lines are a list or a menu rather than sentences.

    The rules in their order: `empty`, `few_terminal_lines`, `short_lines`,
    `repeated_chars`, `newlines`. Only lines that are not blank count. Thresholds
    act on stored counts; None leaves a rule out.

    Source: Penedo et al. 2024 (FineWeb), section 3.5, as datatrove's `FineWebQualityFilter`
        counts it, with the code's 0.01 for repeated characters where the paper
        has 0.1. A line ends with its last character, blank or not.

    Cost: 28 bytes a document, before compression.
    """

    min_terminal_lines: float | None = field(default=0.12, metadata={"fingerprint": False})
    """Smallest share of lines that end with terminal punctuation of any script."""
    keep_without_terminal_lines: bool = field(default=False, metadata={"fingerprint": False})
    """Let documents pass of which no line ends so."""
    max_short_lines: float | None = field(default=0.67, metadata={"fingerprint": False})
    """Largest share of short lines."""
    short_line_chars: int = 30
    """Characters of the longest short line."""
    max_repeated_chars: float | None = field(default=0.01, metadata={"fingerprint": False})
    """Largest share of characters in second and later copies of lines."""
    max_newlines_per_word: float | None = field(default=0.3, metadata={"fingerprint": False})
    """Most line feeds per word."""
    words: _words.Rules = "english"
    """How words are cut; see `GopherQuality.words`."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("min_terminal_lines", "max_short_lines", "max_repeated_chars"):
            check_share(f"FineWebQuality.{name}", getattr(self, name))
        check_count("FineWebQuality.max_newlines_per_word", self.max_newlines_per_word)
        if not isinstance(self.short_line_chars, int) or self.short_line_chars < 0:
            raise ConfigError(
                "FineWebQuality.short_line_chars", self.short_line_chars, "must be at least 0"
            )
        _words.check_rules("FineWebQuality.words", self.words)

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "fineweb_quality"

    @property
    def signature_type(self) -> pa.DataType:
        """Seven counts."""
        return counts_type(_NAMES)

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Counts of lines, characters and words; (num_rows,) struct of int32."""
        from penstock.kernels.text_stats import count_lines, most_lines

        offsets, utf8, cut = _words.cut(documents["text"], self.words)
        num_slots = 1 << max(4, (2 * most_lines(offsets, utf8) + 1).bit_length())
        out = np.zeros((documents.num_rows, 6), np.int32)
        keys, stamps = np.empty(num_slots, np.uint64), np.zeros(num_slots, np.int32)
        count_lines(offsets, utf8, _words.flags(), self.short_line_chars, keys, stamps, out)
        return counts_array(_NAMES, out, np.diff(cut.rows))

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents fail a rule; `VERDICTS`, sorted by `doc_id`."""
        c = columns_of(signature)
        lines = c["lines"]
        terminal = share(c["terminal_lines"], lines)
        checks: list[Check] = [("empty", lines == 0, lines)]
        for reason, drops, value in below("few_terminal_lines", terminal, self.min_terminal_lines):
            spared = (value == 0) & self.keep_without_terminal_lines
            checks.append((reason, drops & ~spared, value))
        repeated = share(c["repeated_chars"], c["chars"])
        checks += above("short_lines", share(c["short_lines"], lines), self.max_short_lines)
        checks += above("repeated_chars", repeated, self.max_repeated_chars)
        newlines = share(c["newlines"], c["words"])
        checks += above("newlines", newlines, self.max_newlines_per_word)
        return verdicts(self.rule, doc_id, checks)
