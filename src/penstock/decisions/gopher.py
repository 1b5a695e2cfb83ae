"""Gopher's quality and repetition rules, over counts that are kept for each document."""

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
    check_range,
    check_share,
    columns_of,
    counts_array,
    counts_type,
    share,
    verdicts,
)
from penstock.errors import ConfigError

_QUALITY = (
    "words",
    "plain_words",
    "plain_chars",
    "letter_words",
    "stop_words",
    "hashes",
    "ellipses",
    "lines",
    "bullet_lines",
    "ellipsis_lines",
)
_REPETITION = (
    "chars",
    "paragraphs",
    "repeated_paragraphs",
    "repeated_paragraph_chars",
    "lines",
    "repeated_lines",
    "repeated_line_chars",
    *(f"top_{n}" for n in range(2, 5)),
    *(f"repeated_{n}" for n in range(5, 11)),
)
_MAX_STOP_WORDS = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class GopherQuality:
    """Drop documents that do not read like running text.

    The rules in their order, which is the order in which a document's first
    failure is told: `too_few_words`, `too_many_words`, `short_words`,
    `long_words`, `hashes`, `ellipses`, `bullet_lines`, `ellipsis_lines`,
    `few_letter_words`, `few_stop_words`. Counts are stored, so that moving a
    threshold decides again without reading; None leaves a rule out.

    Source: Rae et al. 2021 (Gopher), appendix A.1.1, with the choices of datatrove's
        `GopherQualityFilter`: words of symbols alone count only where symbols
        are counted against words, and stop words must match in case. Differs: a
        threshold of 0 is a threshold; a text without words is dropped by the
        first rule that needs some, where the reference divides by zero.

    Cost: 44 bytes a document, before compression.
    """

    min_words: int | None = field(default=50, metadata={"fingerprint": False})
    """Fewest words that are not symbols alone."""
    max_words: int | None = field(default=100_000, metadata={"fingerprint": False})
    """Most such words."""
    min_mean_word_chars: float | None = field(default=3, metadata={"fingerprint": False})
    """Smallest mean length of such words, in characters."""
    max_mean_word_chars: float | None = field(default=10, metadata={"fingerprint": False})
    """Largest mean length of such words."""
    max_symbols_per_word: float | None = field(default=0.1, metadata={"fingerprint": False})
    """Most hash signs per word, and most ellipses per word."""
    max_bullet_lines: float | None = field(default=0.9, metadata={"fingerprint": False})
    """Largest share of lines that begin with a bullet or hyphen."""
    max_ellipsis_lines: float | None = field(default=0.3, metadata={"fingerprint": False})
    """Largest share of lines that end with an ellipsis."""
    min_letter_words: float | None = field(default=0.8, metadata={"fingerprint": False})
    """Smallest share of words that have a letter."""
    min_stop_words: int | None = field(default=2, metadata={"fingerprint": False})
    """How many of the stop words must occur."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """Words that running text has; at most 62."""
    words: _words.Rules = "english"
    """How words are cut: as spaCy's English tokenizer does, which is what the reference
    thresholds mean, or by the classes of Unicode, with a word per letter where a script has no
    spaces."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("min_words", "max_words", "min_mean_word_chars", "max_mean_word_chars"):
            check_count(f"GopherQuality.{name}", getattr(self, name))
        for name in ("max_symbols_per_word", "min_stop_words"):
            check_count(f"GopherQuality.{name}", getattr(self, name))
        for name in ("max_bullet_lines", "max_ellipsis_lines", "min_letter_words"):
            check_share(f"GopherQuality.{name}", getattr(self, name))
        check_range("GopherQuality.min_words", self.min_words, self.max_words)
        check_range(
            "GopherQuality.min_mean_word_chars", self.min_mean_word_chars, self.max_mean_word_chars
        )
        _words.check_rules("GopherQuality.words", self.words)
        if isinstance(self.stop_words, str) or not all(
            isinstance(word, str) and word for word in self.stop_words
        ):
            raise ConfigError("GopherQuality.stop_words", self.stop_words, "must be words")
        if len(set(self.stop_words)) > _MAX_STOP_WORDS:
            raise ConfigError(
                "GopherQuality.stop_words", self.stop_words, f"must be at most {_MAX_STOP_WORDS}"
            )
        if (self.min_stop_words or 0) > len(set(self.stop_words)):
            raise ConfigError(
                "GopherQuality.min_stop_words",
                self.min_stop_words,
                f"must not be above the number of stop words, {len(set(self.stop_words))}",
            )

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "gopher_quality"

    @property
    def signature_type(self) -> pa.DataType:
        """Ten counts."""
        return counts_type(_QUALITY)

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Counts of words, lines and marks; (num_rows,) struct of int32."""
        from penstock.kernels.text_stats import count_marks, count_words

        offsets, utf8, cut = _words.cut(documents["text"], self.words)
        by_word = np.zeros((documents.num_rows, 5), np.int32)
        stop_words = np.unique(_words.hashes_of(sorted(set(self.stop_words))))
        count_words(cut.rows, cut.chars, cut.some, cut.every, cut.hashes, stop_words, by_word)
        by_line = np.zeros((documents.num_rows, 5), np.int32)
        count_marks(offsets, utf8, _words.flags(), by_line)
        return counts_array(_QUALITY, by_word, by_line)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents fail a rule; `VERDICTS`, sorted by `doc_id`."""
        c = columns_of(signature)
        # Where every word is a symbol there is no mean, and no rule about it.
        mean = np.divide(
            c["plain_chars"],
            c["plain_words"],
            out=np.full(len(c["words"]), np.nan),
            where=c["plain_words"] > 0,
        )
        most_symbols = self.max_symbols_per_word
        checks: list[Check] = [
            *below("too_few_words", c["plain_words"], self.min_words),
            *above("too_many_words", c["plain_words"], self.max_words),
            *below("short_words", mean, self.min_mean_word_chars),
            *above("long_words", mean, self.max_mean_word_chars),
            *above("hashes", share(c["hashes"], c["words"]), most_symbols),
            *above("ellipses", share(c["ellipses"], c["words"]), most_symbols),
            *above("bullet_lines", share(c["bullet_lines"], c["lines"]), self.max_bullet_lines),
            *above(
                "ellipsis_lines", share(c["ellipsis_lines"], c["lines"]), self.max_ellipsis_lines
            ),
            *below("few_letter_words", share(c["letter_words"], c["words"]), self.min_letter_words),
            *below("few_stop_words", c["stop_words"], self.min_stop_words),
        ]
        return verdicts(self.rule, doc_id, checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class GopherRepetition:
    """Drop documents that repeat their own paragraphs, lines or phrases.

    The rules in their order: `empty`, `repeated_paragraphs`,
    `repeated_paragraph_chars`, `repeated_lines`, `repeated_line_chars`,
    `top_N_words` and `repeated_N_words`. Shares of characters are of the whole
    text. Thresholds act on stored counts; None leaves a rule out.

    Source: Rae et al. 2021 (Gopher), table A1, as datatrove's `GopherRepetitionFilter`
        counts it: a copy is the second and later occurrence; after a repeated
        run of words the search goes on behind it; runs of words of equal bytes
        are equal wherever the words are cut. Differs: pieces are compared by
        64-bit hashes; in documents of more than 4 million words runs are looked
        for in the first 4 million.

    Cost: 64 bytes a document, before compression.
    """

    max_repeated_paragraphs: float | None = field(default=0.3, metadata={"fingerprint": False})
    """Largest share of paragraphs that are copies."""
    max_repeated_paragraph_chars: float | None = field(default=0.2, metadata={"fingerprint": False})
    """Largest share of characters in such copies."""
    max_repeated_lines: float | None = field(default=0.3, metadata={"fingerprint": False})
    """Largest share of lines that are copies."""
    max_repeated_line_chars: float | None = field(default=0.2, metadata={"fingerprint": False})
    """Largest share of characters in such copies."""
    max_top_words: tuple[tuple[int, float], ...] = field(
        default=((2, 0.2), (3, 0.18), (4, 0.16)), metadata={"fingerprint": False}
    )
    """For runs of 2 to 4 words, the largest share of characters in the most frequent one."""
    max_repeated_words: tuple[tuple[int, float], ...] = field(
        default=((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)),
        metadata={"fingerprint": False},
    )
    """For runs of 5 to 10 words, the largest share of characters in repeated ones."""
    words: _words.Rules = "english"
    """How words are cut; see `GopherQuality.words`."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("paragraphs", "paragraph_chars", "lines", "line_chars"):
            check_share(
                f"GopherRepetition.max_repeated_{name}", getattr(self, f"max_repeated_{name}")
            )
        _check_runs("GopherRepetition.max_top_words", self.max_top_words, range(2, 5))
        _check_runs("GopherRepetition.max_repeated_words", self.max_repeated_words, range(5, 11))
        _words.check_rules("GopherRepetition.words", self.words)

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "gopher_repetition"

    @property
    def signature_type(self) -> pa.DataType:
        """Sixteen counts."""
        return counts_type(_REPETITION)

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Counts of what is repeated; (num_rows,) struct of int32."""
        from penstock.kernels.repetition import MAX_WORDS, NUM_COLUMNS, count_repetition
        from penstock.kernels.text_stats import most_lines

        offsets, utf8, cut = _words.cut(documents["text"], self.words)
        num_words = min(int(np.diff(cut.rows).max(initial=0)), MAX_WORDS)
        num_slots = 1 << max(
            4, (2 * max(num_words, most_lines(offsets, utf8) + 1) - 1).bit_length()
        )
        out = np.zeros((documents.num_rows, NUM_COLUMNS), np.int32)
        count_repetition(
            offsets,
            utf8,
            _words.flags(),
            cut.rows,
            cut.sizes,
            cut.chars,
            cut.hashes,
            _words.powers(),
            np.empty(num_slots, np.uint64),
            np.zeros(num_slots, np.int32),
            np.empty(num_slots, np.int64),
            np.empty(num_words + 1, np.uint64),
            np.empty(num_words + 1, np.int64),
            np.empty(num_words + 1, np.int64),
            out,
        )
        return counts_array(_REPETITION, out)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents fail a rule; `VERDICTS`, sorted by `doc_id`."""
        c = columns_of(signature)
        chars = c["chars"]
        checks: list[Check] = [("empty", chars == 0, chars)]
        for piece in ("paragraph", "line"):
            copies = share(c[f"repeated_{piece}s"], c[f"{piece}s"])
            in_copies = share(c[f"repeated_{piece}_chars"], chars)
            most = getattr(self, f"max_repeated_{piece}s")
            most_chars = getattr(self, f"max_repeated_{piece}_chars")
            checks += above(f"repeated_{piece}s", copies, most)
            checks += above(f"repeated_{piece}_chars", in_copies, most_chars)
        for size, limit in self.max_top_words:
            checks += above(f"top_{size}_words", share(c[f"top_{size}"], chars), limit)
        for size, limit in self.max_repeated_words:
            checks += above(f"repeated_{size}_words", share(c[f"repeated_{size}"], chars), limit)
        return verdicts(self.rule, doc_id, checks)


def _check_runs(setting: str, limits: tuple[tuple[int, float], ...], sizes: range) -> None:
    try:
        pairs = [(size, limit) for size, limit in limits]
    except (TypeError, ValueError):
        raise ConfigError(setting, limits, "must be pairs of words in a run and a share") from None
    for size, limit in pairs:
        if size not in sizes:
            raise ConfigError(setting, limits, f"must have runs of {sizes[0]} to {sizes[-1]} words")
        check_share(setting, limit)
