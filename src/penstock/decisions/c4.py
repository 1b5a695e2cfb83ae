"""C4's rules about whole documents, judged by the lines that would stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.decisions import _words
from penstock.decisions._judging import (
    Check,
    below,
    check_count,
    columns_of,
    counts_array,
    counts_type,
    verdicts,
)
from penstock.errors import ConfigError
from penstock.kernels import text_from_buffers
from penstock.steps.c4_lines import C4Lines

_NAMES = ("sentences", "lorem_line", "curly_line")


@dataclass(frozen=True, slots=True, kw_only=True)
class C4Quality:
    """Drop pages with too few sentences, placeholder text or code.

    The rules: `lorem_ipsum` or `curly_bracket`, whichever line comes first, then
    `too_few_sentences`. It only judges: `C4Lines`, after it in the flow, removes
    the lines that do not count here, and both together do to a document what
    the reference does. The score of the first two is the line's number from 0.

    Source: Raffel et al. 2020 (C4), section 2.2, as datatrove's `C4QualityFilter`;
        sentences as spaCy's rule-based sentencizer counts them in each line.

    Cost: 12 bytes a document, before compression.
    """

    lines: C4Lines = field(default_factory=C4Lines)
    """Which lines count."""
    min_sentences: int | None = field(default=5, metadata={"fingerprint": False})
    """Fewest sentences in those lines; None for any."""
    lorem_ipsum: bool = field(default=True, metadata={"fingerprint": False})
    """Drop pages that say "lorem ipsum" in a line that counts."""
    curly_bracket: bool = field(default=True, metadata={"fingerprint": False})
    """Drop pages with ``{`` in a line that counts."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("C4Quality.min_sentences", self.min_sentences)
        if not isinstance(self.lines, C4Lines):
            raise ConfigError("C4Quality.lines", self.lines, "must be a C4Lines")

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "c4_quality"

    @property
    def signature_type(self) -> pa.DataType:
        """Three counts."""
        return counts_type(_NAMES)

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Sentences, and the lines that end a page's hopes; (num_rows,) struct of int32."""
        from penstock.kernels.text_stats import count_sentences

        offsets, utf8, firsts = self.lines.kept(documents["text"], strip=False)
        kept = text_from_buffers(offsets, utf8)
        starts, data, cut = _words.cut(kept, "english", keep=False)
        out = np.zeros(documents.num_rows, np.int32)
        count_sentences(starts, data, cut.rows, cut.starts, cut.sizes, cut.chars, cut.every, out)
        return counts_array(_NAMES, out, firsts)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents fail a rule; `VERDICTS`, sorted by `doc_id`."""
        c = columns_of(signature)
        lorem, curly = c["lorem_line"], c["curly_line"]
        has_lorem = (lorem >= 0) & self.lorem_ipsum
        has_curly = (curly >= 0) & self.curly_bracket
        checks: list[Check] = [
            ("lorem_ipsum", has_lorem & (~has_curly | (lorem <= curly)), lorem),
            ("curly_bracket", has_curly, curly),
            *below("too_few_sentences", c["sentences"], self.min_sentences),
        ]
        return verdicts(self.rule, doc_id, checks)
