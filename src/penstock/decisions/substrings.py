"""Drop documents that share long runs of words with other documents, or cut those runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.decisions._judging import check_share
from penstock.decisions._pieces import (
    SIGNATURE,
    Action,
    Judged,
    Pieces,
    check_action,
    judge,
    pack,
    piece_cuts,
    share_verdicts,
    span_array,
    staying_share,
    unpack,
)
from penstock.decisions.overlap_evidence import word_spans
from penstock.errors import ConfigError
from penstock.kernels import text_buffers

_MAX_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SubstringDedup:
    """Drop documents most of whose words are in long runs that earlier ones have, or cut those.

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
    end, and with `action="cut"` as many stay. With ``window=1`` none do.

    Guarantees: a function of the set of documents alone.

    Cost: signatures, 9 ms per MB of text on one thread without the GIL, and
        ``24 / (window + 1)`` bytes a word; decisions, 85 bytes and 0.4 us a run.

    Source: Lee et al. 2022 (Deduplicating Training Data), exact repetitions of 50
        tokens; runs are chosen by winnowing (Schleimer, Wilkerson, Aiken 2003).
        Differs: hashes of words, not a suffix array of bytes; documents are
        dropped by their share, which Lee et al. leave out; the first has its runs left.
    """

    min_tokens: int = 50
    """Words that a repeated run has at least."""
    window: int = 25
    """Consecutive runs of which one is remembered; at most `min_tokens`."""
    max_share: float = field(default=0.5, metadata={"fingerprint": False})
    """A document goes if more of its words are in repeated runs."""
    action: Action = field(default="drop", metadata={"fingerprint": False})
    """``drop`` documents over `max_share`; also ``cut`` what others repeat; or ``flag`` alone."""

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
        check_action("SubstringDedup.action", self.action)

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
        return self._judged(unpack(doc_id, signature))[1]

    @property
    def cut_by(self) -> str | None:
        """Names what spans depend on; None unless this cuts."""
        return f"{self.revision}, {self.min_tokens}" if self.action == "cut" else None

    def cut(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
        """Verdicts, and the first words of the runs to cut; see `Cutting`."""
        found = unpack(doc_id, signature)
        judged, verdicts = self._judged(found)
        cuts = piece_cuts(found, judged, verdicts)
        if not len(cuts):
            return verdicts, cuts
        # A piece's number says which run of the document; its value, where that begins.
        owner = pc.index_in(cuts["doc_id"].cast(pa.large_string()), value_set=found.ids)
        first = np.repeat(found.rows[owner.to_numpy()], pc.list_value_length(cuts["places"]))
        places = found.values[first + cuts["places"].combine_chunks().flatten().to_numpy()]
        offsets = cuts["places"].combine_chunks().offsets
        where = cuts.schema.get_field_index("places")
        lists = pa.LargeListArray.from_arrays(offsets, pa.array(places))
        return verdicts, cuts.set_column(where, cuts.schema.field(where), lists)

    def spans(self, text: pa.Array, cuts: pa.Table) -> pa.Array:
        """Where the words of those runs lie, with the blanks behind them; `SPANS`."""
        numbers, others = cuts["places"].to_pylist(), cuts["duplicate_of"].to_pylist()
        return span_array(
            self._spans(whole.as_buffer().to_pybytes(), places, twins)
            for whole, places, twins in zip(text, numbers, others, strict=True)
        )

    def _spans(
        self, data: bytes, places: list[int], others: list[str]
    ) -> list[tuple[int, int, str | None]]:
        runs: list[tuple[int, int, str]] = []  # first word, behind the last, and whose they are
        for first, other in zip(places, others, strict=True):
            end = first + self.min_tokens
            if runs and runs[-1][2] == other and first <= runs[-1][1]:
                runs[-1] = (runs[-1][0], end, other)
            else:
                # Of words in two runs of different documents the former's are told.
                runs.append((max(first, runs[-1][1] if runs else 0), end, other))
        words = sorted({word for first, end, _ in runs for word in (first, end - 1)})
        at = dict(zip(words, word_spans(data, words), strict=True))
        found: list[tuple[int, int, str | None]] = []
        for first, end, other in runs:
            stop = at[end - 1][1]
            while stop < len(data) and data[stop] in b" \t":
                stop += 1
            found.append((at[first][0], stop, other))
        return found

    def _judged(self, found: Pieces) -> tuple[Judged, pa.Table]:
        starts = found.values.astype(np.int64)
        has_runs = np.diff(found.rows) > 0
        totals = np.zeros(len(found.ids), np.int64)
        totals[has_runs] = starts[found.rows[:-1][has_runs]]
        stays = staying_share(self.max_share, self.action)
        judged = judge(found, starts, starts + self.min_tokens, totals, stays)
        return judged, share_verdicts(self.rule, found.ids, judged, self.max_share, self.action)
