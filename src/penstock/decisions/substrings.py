"""Drop documents that share long runs of words with other documents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock.decisions._judging import check_share
from penstock.decisions._pieces import SIGNATURE, judge, pack, share_verdicts, unpack
from penstock.errors import ConfigError
from penstock.kernels import text_buffers

_MAX_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SubstringDedup:
    """Drop documents most of whose words stand in long runs that earlier documents have.

    Of each `window` consecutive runs of `min_tokens` words the one of the least
    hash is remembered. So two documents that have ``min_tokens + window - 1``
    words in a row in common have a remembered run in common for certain; of
    shorter common runs, down to `min_tokens`, some are found; no shorter ones.

    A token is a word as `penstock.kernels.minhash` cuts it: folded in case, a
    letter each in scripts without spaces. Punctuation and spacing do not count.

    Documents are looked at in the order of their `doc_id`; a run is a repetition
    if a document that stays has it and comes earlier. What repeats within one
    document alone is none. The share is that of the words in repeated runs that
    are remembered: of a common run up to ``window - 1`` words are missing at each
    end.

    Guarantees: a function of the set of documents alone.

    Cost: signatures, 9 ms per MB of text on one thread without the GIL, and
        ``24 / (window + 1)`` bytes a word; decisions, 85 bytes and 0.4 us a run.

    Source: Lee et al. 2022 (Deduplicating Training Data), exact repetitions of 50
        tokens; runs are chosen by winnowing (Schleimer, Wilkerson, Aiken 2003).
        Differs: hashes of words, not a suffix array of bytes; documents are
        dropped by their share, where Lee et al. cut the spans.
    """

    min_tokens: int = 50
    """Words that a repeated run has at least."""
    window: int = 25
    """Consecutive runs of which one is remembered; at most `min_tokens`."""
    max_share: float = field(default=0.5, metadata={"fingerprint": False})
    """A document goes if more of its words are in repeated runs."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name, most in (("min_tokens", _MAX_TOKENS), ("window", self.min_tokens)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                problem = f"must be a whole number from 1 to {most}"
                raise ConfigError(f"SubstringDedup.{name}", value, problem)
        if self.max_share is None:
            raise ConfigError("SubstringDedup.max_share", None, "must be a share between 0 and 1")
        check_share("SubstringDedup.max_share", self.max_share)

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "substring_duplicate"

    @property
    def signature_type(self) -> pa.DataType:
        """The number of words; then a hash and the first word of each run, 12 bytes together."""
        return SIGNATURE

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """The runs that are remembered of each text; (num_rows,) bytes, none without words."""
        from penstock.kernels.minhash import characters
        from penstock.kernels.paragraphs import find_anchors

        offsets, utf8 = text_buffers(documents["text"])
        rows, hashes, places, totals = find_anchors(
            offsets, utf8, characters(), self.min_tokens, self.window
        )
        has_runs = np.diff(rows) > 0  # else its size is of no use
        heads = rows[:-1][has_runs]
        hashes = np.insert(hashes, heads, np.uint64(0))
        places = np.insert(places, heads, totals[has_runs].astype(np.uint32))
        rows = rows + np.concatenate([np.zeros(1, np.int64), np.cumsum(has_runs)])
        return pack(rows, hashes, places)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents repeat earlier ones; `VERDICTS`, sorted by `doc_id`.

        The score is the share of their words; `duplicate_of` the document that has
        the last of the repeated runs.
        """
        found = unpack(doc_id, signature)
        starts = found.values.astype(np.int64)
        has_runs = np.diff(found.rows) > 0
        totals = np.zeros(len(found.ids), np.int64)
        totals[has_runs] = starts[found.rows[:-1][has_runs]]
        shares, others, _ = judge(found, starts, starts + self.min_tokens, totals, self.max_share)
        return share_verdicts(self.rule, found.ids, shares, self.max_share, others)
