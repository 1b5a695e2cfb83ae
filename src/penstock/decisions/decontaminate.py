"""Drop documents that hold items of evaluation sets, or cut the items out of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from penstock.decisions.eval_sets import EvalSet, digest
from penstock.decisions.overlap import F64, Bools, Covered, Index, matched_runs, num_documents
from penstock.decisions.overlap_checks import index_of
from penstock.decisions.overlap_cuts import Margins, overlap_cuts, overlap_spans
from penstock.decisions.overlap_evidence import Evidence, find_evidence
from penstock.decisions.overlap_report import OverlapReport, summarize
from penstock.errors import ConfigError
from penstock.kernels import I64
from penstock.records import VERDICTS

METHODS = {"ngram13": 13, "coverage8": 8}
"""The methods and the words in their runs."""

HITS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("set", pa.string(), nullable=False),
        pa.field("item", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("matched_runs", pa.int32(), nullable=False),
        pa.field("covered_words", pa.int32(), nullable=False),
        pa.field("item_words", pa.int32(), nullable=False),
    ]
)
"""An item that a document holds; `item` counts the rows of the set's file from 0."""

_MAX_WORDS = 64
_DECIDES = {"fingerprint": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decontaminate:
    """Drop documents that have runs of words in common with items of sets, or cut those runs.

    `ngram13`: a document goes if it holds any run of 13 words of an item; runs
    that more than `max_documents` documents hold are ignored. The score is the
    number of the item's runs that were found. `coverage8`: a document goes if
    its runs of 8 words that occur in an item cover more than `min_coverage` of
    the item's words; the score is that share.

    The rule is `decontaminate.<set>`, of the set with the best item. `hits` tells
    every item of every document, `evidence` the spans on both sides, `report`
    what was loaded, indexed, scanned and found.

    With `action="cut"` the runs that count go, with some text around them, to where white
    space is; so do pieces that are too short to stay. A document that is left in no
    piece, or in too many, is dropped. `store.edits()` tells the spans and whose they are.

    Words are those of `penstock.kernels.minhash`: runs of letters, digits and
    marks, with case folded; punctuation and white space count for nothing. An
    item of fewer words than a run matches as a whole, in one run; below
    `min_words` it is never looked for, and the report counts it.

    The first use plants items in other words, with other case, punctuation and
    line breaks, and raises unless all are found: no hits means that there are none.

    A signature lists the runs of a document that occur in any set (8 bytes each:
    none in most documents), so it depends on the sets: after a change of what
    they hold signatures are computed from the stored texts, not from the source.

    Raises:
        ConfigError: A setting is not as said, or a set has no item of `min_words`.
        SourceError: A set cannot be read, has no items, lacks a column or has no text.

    Guarantees: which documents go is a function of the set of documents and of
        the sets alone.

    Cost: 5 ns per byte of text on one core, of which 4 cut words (30 us for the 5.8 kB of
        an average web document) against 1.2 million runs; memory, some 80 bytes a run
        of the sets, and 1.5 bytes per byte of the longest batch.

    Source: `ngram13`, Brown et al. 2020 (GPT-3), appendix C, with the limit of
        10 documents and the shortest run of 8 words of NeMo Curator 0.9, and its cuts;
        `coverage8`, Lambert et al. 2024 (Tulu 3), section 3.2. Differs: documents go
        whole unless told to cut; pieces stay one document; words are cut by Unicode's
        classes, where Tulu 3 asks spaCy; runs are compared by 64-bit hashes.
    """

    revision: ClassVar[int] = 1

    against: Sequence[EvalSet]
    """The evaluation sets, of different names."""
    method: Literal["ngram13", "coverage8"] = "ngram13"
    """What counts as a hit."""
    words: int | None = None
    """Words in a run, 1 to 64; None: as the method's name says."""
    min_words: int = 8
    """Fewest words of an item that is looked for, at most `words`."""
    min_coverage: float = field(default=0.5, metadata=_DECIDES)
    """Share of an item's words that must be exceeded, in [0, 1); of `coverage8` alone."""
    max_documents: int | None = field(default=10, metadata=_DECIDES)
    """Most documents that hold a run that counts; None: no limit. Of `ngram13` alone."""
    action: Literal["drop", "cut", "flag"] = field(default="drop", metadata=_DECIDES)
    """Documents go; or stay, cut; or stay as they are, with rule and score in their verdict."""
    around_chars: int = field(default=200, metadata=_DECIDES)
    """To cut: characters that go on each side of a run, at least."""
    min_piece_chars: int = field(default=200, metadata=_DECIDES)
    """To cut: fewest characters of a piece that stays."""
    max_pieces: int = field(default=10, metadata=_DECIDES)
    """To cut: most pieces of a document that stays."""
    digests: tuple[str, ...] = field(init=False, metadata=_DECIDES)
    """What the sets held when the decision was made."""

    def __post_init__(self) -> None:
        self._check_sets()
        for name, known in (("method", tuple(METHODS)), ("action", ("drop", "cut", "flag"))):
            if getattr(self, name) not in known:
                raise _wrong(name, getattr(self, name), f"must be one of {', '.join(known)}")
        if self.words is not None and not _is_whole(self.words, 1, _MAX_WORDS):
            raise _wrong("words", self.words, f"must be from 1 to {_MAX_WORDS}, or None")
        if not _is_whole(self.min_words, 1, self.run_words):
            problem = f"must be from 1 to the words in a run, {self.run_words}"
            raise _wrong("min_words", self.min_words, problem)
        share = self.min_coverage
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
            raise _wrong("min_coverage", share, "must be a share of at least 0 and below 1")
        if self.max_documents is not None and not _is_whole(self.max_documents, 1, 1 << 62):
            raise _wrong("max_documents", self.max_documents, "must be at least 1, or None")
        for name, least in (("around_chars", 0), ("min_piece_chars", 0), ("max_pieces", 1)):
            if not _is_whole(getattr(self, name), least, 1 << 62):
                raise _wrong(name, getattr(self, name), f"must be at least {least}")
        digests = tuple(digest(one.read()) for one in self.against)
        object.__setattr__(self, "digests", digests)

    def _check_sets(self) -> None:
        sets = self.against
        if not isinstance(sets, (tuple, list)) or not sets:
            raise _wrong("against", sets, "must be at least one EvalSet")
        if not all(isinstance(one, EvalSet) for one in sets):
            raise _wrong("against", sets, "must be EvalSets, such as EvalSet(path, columns)")
        titles = [one.title for one in sets]
        for title in titles:
            if titles.count(title) > 1:
                raise _wrong("against", title, "names two sets; give one of them a name")
        object.__setattr__(self, "against", tuple(sets))

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "decontaminate"

    @property
    def run_words(self) -> int:
        """Words in a run."""
        return METHODS[self.method] if self.words is None else self.words

    @property
    def signature_type(self) -> pa.DataType:
        """Hashes of the runs that occur in a set."""
        return pa.list_(pa.uint64())

    def fingerprint(self) -> str:
        """What signatures depend on: the texts of the items, and what a run is."""
        texts = ",".join(sorted(set(self.digests)))
        return f"{self.revision}, {self.run_words}, {self.min_words}, {texts}"

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """The distinct runs of each text that occur in a set, ascending; empty for most."""
        index = self._index()
        rows, keys, _ = matched_runs(index, documents["text"])
        both = np.unique(rows * len(index.keys) + keys)  # by row, then by hash
        rows, keys = np.divmod(both, len(index.keys))
        ends = np.searchsorted(rows, np.arange(documents.num_rows + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), pa.array(index.keys[keys]))

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents hold an item; `VERDICTS`, sorted by `doc_id`.

        With another action than ``drop`` their verdict is `kept`, with rule and score.
        """
        return self._verdicts(doc_id, self._covered(signature))

    @property
    def cut_by(self) -> str | None:
        """Names what spans depend on; None unless this cuts."""
        return f"{self.fingerprint()}, {self._margins}" if self.action == "cut" else None

    def cut(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> tuple[pa.Table, pa.Table]:
        """Verdicts, and the runs to cut; see `Cutting`."""
        index = self._index()
        found, common = self._covered(signature), self._is_common(index, signature)
        cuts = overlap_cuts(index, self.against, doc_id, signature, found, common)
        return self._verdicts(doc_id, found), cuts

    def spans(self, text: pa.Array, cuts: pa.Table) -> pa.Array:
        """Where those runs lie, with what is around them; `SPANS`."""
        return overlap_spans(self._index(), text, cuts, self._margins)

    @property
    def _margins(self) -> Margins:
        return Margins(self.around_chars, self.min_piece_chars, self.max_pieces)

    def _verdicts(self, doc_id: pa.ChunkedArray, found: Covered) -> pa.Table:
        index = self._index()
        scores = self._scores(found)
        order = np.lexsort((found.items, -scores, found.documents))  # its best item first
        _, first = np.unique(found.documents[order], return_index=True)
        best = order[first]
        rules = pa.array([f"{self.rule}.{one.title}" for one in self.against], pa.string())
        verdict = "dropped" if self.action == "drop" else "kept"
        return pa.table(
            {
                "doc_id": _take(doc_id, found.documents[best]),
                "verdict": pa.repeat(verdict, len(best)),
                "rule": rules.take(pa.array(index.sets[found.items[best]])),
                "score": pa.array(scores[best], pa.float64()),
                "duplicate_of": pa.nulls(len(best), pa.string()),
            },
            schema=VERDICTS,
        ).sort_by("doc_id")

    def hits(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Every item that a document holds; `HITS`, by document, the best item first.

        Args:
            doc_id: As given to `decide`.
            signature: The same.
        """
        index = self._index()
        found = self._covered(signature)
        scores = self._scores(found)
        order = np.lexsort((found.items, -scores, found.documents))
        items = found.items[order]
        titles = pa.array([one.title for one in self.against], pa.string())
        return pa.table(
            {
                "doc_id": _take(doc_id, found.documents[order]),
                "set": titles.take(pa.array(index.sets[items])),
                "item": pa.array(index.numbers[items], pa.int64()),
                "score": pa.array(scores[order], pa.float64()),
                "matched_runs": pa.array(found.matched[order], pa.int32()),
                "covered_words": pa.array(found.covered[order], pa.int32()),
                "item_words": pa.array(index.lengths[items], pa.int32()),
            },
            schema=HITS,
        )

    def common_runs(self, signature: pa.ChunkedArray) -> pa.Array:
        """Hashes of the runs that count for nothing, for too many documents hold them; uint64."""
        index = self._index()
        return pa.array(index.keys[self._is_common(index, signature)])

    def evidence(
        self, text: str, common: Collection[int] = (), *, limit: int = 10
    ) -> list[Evidence]:
        """Why a document with this text goes: the items that it holds, and where.

        Args:
            text: The document's.
            common: Hashes of runs that count for nothing, from `common_runs`.
            limit: Most items to tell, the best ones.
        """
        least = self._threshold
        return find_evidence(self._index(), self.against, text, least, frozenset(common), limit)

    def report(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> OverlapReport:
        """What was loaded, indexed, scanned and found.

        Args:
            doc_id: As given to `decide`.
            signature: The same.
        """
        index = self._index()
        found = self._covered(signature)
        num_common = int(self._is_common(index, signature).sum())
        with_runs = int(np.count_nonzero(np.diff(index.runs_of(signature)[0])))
        counts = (len(doc_id), with_runs, num_common)
        return summarize(index, self.against, self.method, *counts, found)

    @property
    def _threshold(self) -> float:
        """Share of an item's words that must be covered and exceeded."""
        return float(self.min_coverage) if self.method == "coverage8" else -1.0

    def _scores(self, found: Covered) -> F64:
        if self.method == "ngram13":
            return found.matched.astype(np.float64)
        return found.covered / np.maximum(self._index().lengths[found.items], 1)

    def _covered(self, signature: pa.ChunkedArray | pa.Array) -> Covered:
        index = self._index()
        return index.cover(signature, self._is_common(index, signature), self._threshold)

    def _is_common(self, index: Index, signature: pa.ChunkedArray | pa.Array) -> Bools:
        if self.method != "ngram13" or self.max_documents is None:
            return np.zeros(len(index.keys), np.bool_)
        return num_documents(index, signature) > self.max_documents

    def _index(self) -> Index:
        """The index, which the first use makes and tests.

        Raises:
            SourceError: A set has changed since the decision was made.
            ConfigError: A set has no item of enough words.
            PenstockError: The self-test did not find what it planted.
        """
        return index_of(tuple(self.against), self.digests, self.run_words, self.min_words)


def _take(doc_id: pa.ChunkedArray | pa.Array, rows: I64) -> pa.Array:
    taken = doc_id.take(pa.array(rows))
    if isinstance(taken, pa.ChunkedArray):
        taken = taken.combine_chunks()
    return taken.cast(pa.string())


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _wrong(name: str, value: object, problem: str) -> ConfigError:
    return ConfigError(f"Decontaminate.{name}", value, problem)
