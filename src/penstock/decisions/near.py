"""Drop documents that are nearly the same as another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.decisions._order import Values, parse_order, ranked
from penstock.decisions.near_clusters import (
    COUNT_BYTES,
    F64,
    U64,
    Candidates,
    TruePairs,
    estimate,
    find_candidates,
    join_pairs,
    most_different,
    num_different,
    similar_clusters,
    take_ids,
    true_pairs,
)
from penstock.errors import ConfigError
from penstock.kernels import I64, text_buffers
from penstock.records import VERDICTS

U32 = npt.NDArray[np.uint32]

Texts = Callable[[pa.Array], pa.Array]
"""Gives the texts of documents by `doc_id`, in the order asked for."""

DEFAULT_BANDING = (14, 8)
"""Bands and rows where neither they nor a threshold is given: FineWeb's."""

_MAX_HASHES = 1 << 14
# Settings of `decide` alone: signatures are kept when they change.
_DECIDES = {"fingerprint": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class MinHashDedup:
    """Keep one of the documents whose texts have most of their shingles in common.

    A shingle is a run of `shingle` words (or characters) of the text. Two
    documents of Jaccard similarity ``s`` between their sets of shingles share a
    band of their signatures with probability ``1 - (1 - s**rows) ** bands``, and
    such pairs are linked; with a `threshold`, only if they prove similar enough.
    Of the documents that are linked, directly or through others, one stays.

    A text of fewer words than a shingle has one shingle, of all its words; one
    without words is never a duplicate. What a word is: `penstock.kernels.minhash`.

    A signature takes ``4 + num_hashes`` bytes: the number of words, and one byte
    per hash function, which serves the bands, the estimate and any threshold.

    Guarantees: which documents go is a function of the set of documents alone;
        the score is the estimated similarity to the document kept instead,
        which is below the threshold where others link the two.

    Cost: signatures, 5 ns per byte of text of 112 functions on one core; decisions,
        about 1.5 us per document. 100 million documents take 11.6 GB of signatures
        and 3.3 GB to decide, and 13 GB more if all of them are candidates.

    Source: Broder 1997; bands: Leskovec, Rajaraman, Ullman, Mining of Massive
        Datasets, 3.4; defaults: FineWeb (Penedo et al. 2024) and datatrove.
        Differs: one byte per function is kept (Li and König 2010) instead of 4 or
        8; functions are multiplications modulo 2**32 of a 64-bit hash's halves;
        words are cut by Unicode classes and folded, where datatrove asks a
        tokenizer and removes accents; pairs can be verified.
    """

    revision: ClassVar[int] = 1

    shingle: int = 5
    """Words, or characters, in a shingle."""
    unit: Literal["words", "chars"] = "words"
    """What a shingle is made of."""
    seed: int = 0
    """Picks the hash functions. Signatures of two seeds cannot be compared."""
    num_hashes: int = 0
    """Hash functions; 0: as many as `bands` and `rows` need, at least 112."""
    threshold: float | None = field(default=None, metadata=_DECIDES)
    """Least similarity of linked documents, in (0, 1]; None: a shared band is enough."""
    bands: int | None = field(default=None, metadata=_DECIDES)
    """Bands; None: chosen for the threshold, or 14."""
    rows: int | None = field(default=None, metadata=_DECIDES)
    """Hash functions in a band; None: chosen for the threshold, or 8."""
    verify: Literal["estimate", "jaccard", "none"] = field(default="estimate", metadata=_DECIDES)
    """How a pair proves similar: by its signatures, by its texts, or not at all."""
    keep: str = field(default="first", metadata=_DECIDES)
    """Which document stays: ``"first"``, that of the smallest `doc_id`; ``"longest"``, that of
    most words; or the first by columns and fields of the metadata, as in SQL's ORDER BY:
    ``"num_bytes DESC"``, ``"metadata.stars DESC, date ASC"``, ``"max(stars)"``; a document
    without a value comes last. Among equals, that of the smallest `doc_id`."""

    def __post_init__(self) -> None:
        self._check_choices()
        for name in ("bands", "rows", "shingle"):
            value = getattr(self, name)
            if value is not None and not (_is_whole(value) and value >= 1):
                raise _wrong(name, value, "must be a whole number of at least 1")
        if not (_is_whole(self.seed) and 0 <= self.seed < 1 << 64):
            raise _wrong("seed", self.seed, "must be a whole number from 0 to 2**64 - 1")
        if self.shingle > 1024:
            raise _wrong("shingle", self.shingle, "must be at most 1024")
        if (self.bands is None) != (self.rows is None):
            given = "bands" if self.rows is None else "rows"
            raise _wrong(given, getattr(self, given), "needs the other of bands and rows too")
        needed = (self.bands or 1) * (self.rows or 1)
        if not (_is_whole(self.num_hashes) and 0 <= self.num_hashes <= _MAX_HASHES):
            raise _wrong("num_hashes", self.num_hashes, f"must be from 0 to {_MAX_HASHES}")
        if needed > (self.num_hashes or _MAX_HASHES):
            most = self.num_hashes or _MAX_HASHES
            problem = f"with rows={self.rows} needs {needed} hash functions; there are {most}"
            raise _wrong("bands", self.bands, problem)
        default = DEFAULT_BANDING[0] * DEFAULT_BANDING[1]
        # Resolved here, so that the fingerprint tells how wide signatures are.
        object.__setattr__(self, "num_hashes", self.num_hashes or max(default, needed))

    def _check_choices(self) -> None:
        choices = {
            "unit": ("words", "chars"),
            "verify": ("estimate", "jaccard", "none"),
        }
        if not isinstance(self.keep, str):
            raise _wrong("keep", self.keep, 'must be text, such as "first" or "num_bytes DESC"')
        if self.needs_values:
            parse_order("MinHashDedup.keep", self.keep)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise _wrong(name, getattr(self, name), f"must be one of {', '.join(known)}")
        threshold = self.threshold
        if threshold is not None and (
            isinstance(threshold, bool)
            or not isinstance(threshold, (int, float))
            or not 0.0 < threshold <= 1.0
        ):
            raise _wrong("threshold", threshold, "must be a number above 0 and at most 1")

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "near_duplicate"

    @property
    def signature_type(self) -> pa.DataType:
        """The number of words in 4 bytes, little-endian, and a byte per hash function."""
        return pa.binary(COUNT_BYTES + self.num_hashes)

    @property
    def banding(self) -> tuple[int, int]:
        """Bands and rows in use."""
        if self.bands is not None and self.rows is not None:
            return self.bands, self.rows
        if self.threshold is None:
            bands, rows = DEFAULT_BANDING
            return min(bands, max(1, self.num_hashes // rows)), min(rows, self.num_hashes)
        return best_banding(self.threshold, self.num_hashes, self._verifies)

    @property
    def needs_texts(self) -> bool:
        """Whether `decide` must be given a way to read texts."""
        return self._verifies and self.verify == "jaccard"

    @property
    def needs_values(self) -> bool:
        """Whether `decide` must be given a way to read columns."""
        return self.keep not in ("first", "longest")

    @property
    def _verifies(self) -> bool:
        return self.threshold is not None and self.verify != "none"

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """The signature of each text; (num_rows,) of `signature_type`, null without words."""
        from penstock.kernels import minhash

        offsets, utf8 = text_buffers(documents["text"])
        flips, multipliers = _functions(self.seed, self.num_hashes)
        table, by_words = minhash.characters(), self.unit == "words"
        data = minhash.sign(offsets, utf8, table, by_words, self.shingle, flips, multipliers)
        has_units = pa.array(data[:, :COUNT_BYTES].any(axis=1))
        validity = has_units.buffers()[1] if not data[:, :COUNT_BYTES].any(axis=1).all() else None
        buffers = [validity, pa.py_buffer(data)]
        return pa.Array.from_buffers(self.signature_type, len(data), buffers)

    def decide(
        self,
        doc_id: pa.ChunkedArray,
        signature: pa.ChunkedArray,
        texts: Texts | None = None,
        values: Values | None = None,
    ) -> pa.Table:
        """Which documents are near-duplicates of one that stays; `VERDICTS`, sorted by `doc_id`.

        Args:
            doc_id: Documents that earlier steps kept, sorted.
            signature: Their signatures, in the same order.
            texts: How to read texts; only asked for candidates, and only if `needs_texts`.
            values: How to read columns; only asked for candidates, and only if `needs_values`.

        Raises:
            ConfigError: `texts` or `values` is needed and not given.
            QueryError: There is no column that `keep` names, or it has no order.
        """
        found = find_candidates(signature, self.num_hashes, *self.banding)
        roots, scores = self._clusters(found, doc_id, texts)
        kept = roots if self.keep == "first" else _best(roots, self._order(found, doc_id, values))
        dropped = np.flatnonzero(kept != np.arange(len(kept)))
        twins = kept[dropped]
        return pa.table(
            {
                "doc_id": take_ids(doc_id, found.rows[dropped]),
                "verdict": pa.repeat("dropped", len(dropped)),
                "rule": pa.repeat(self.rule, len(dropped)),
                "score": pa.array(scores(dropped, twins), pa.float64()),
                "duplicate_of": take_ids(doc_id, found.rows[twins]),
            },
            schema=VERDICTS,
        )

    def _order(self, found: Candidates, doc_id: pa.ChunkedArray, values: Values | None) -> I64:
        """The candidates, the best first; equal ones in their order."""
        if self.keep == "longest":
            return np.lexsort((np.arange(len(found.units)), -found.units.astype(np.int64)))
        if values is None:
            raise _wrong("keep", self.keep, "needs a way to read the documents' columns")
        order = parse_order("MinHashDedup.keep", self.keep)
        return ranked(order, take_ids(doc_id, found.rows), values)

    def _clusters(
        self, found: Candidates, doc_id: pa.ChunkedArray, texts: Texts | None
    ) -> tuple[I64, Callable[[I64, I64], F64]]:
        """The root of each candidate's cluster, and how pairs of candidates are scored."""

        def scores(left: I64, right: I64) -> F64:
            return estimate(num_different(found, left, right), self.num_hashes)

        if self.threshold is None or self.verify == "none":
            return found.roots, scores
        if self.verify == "estimate":
            most = most_different(self.threshold, self.num_hashes)
            return similar_clusters(found, *self.banding, most), scores
        if texts is None:
            raise _wrong("verify", "jaccard", "needs a way to read the documents' texts")
        pairs = self._true_pairs(found, doc_id, texts)
        roots = join_pairs(found, pairs.left, pairs.right, pairs.jaccard >= self.threshold)
        return roots, lambda left, right: pairs.scores(left, right, scores(left, right))

    def _true_pairs(self, found: Candidates, doc_id: pa.ChunkedArray, texts: Texts) -> TruePairs:
        """Similarity by their texts of the pairs that may reach the threshold."""
        assert self.threshold is not None
        # 3 standard deviations: 1 pair in 700 at the threshold is missed.
        margin = 3.0 * (self.threshold * (1.0 - self.threshold) / self.num_hashes) ** 0.5
        most = most_different(max(0.0, self.threshold - margin), self.num_hashes)

        def shingles(candidates: I64) -> tuple[I64, U64]:
            return self.shingle_hashes(texts(take_ids(doc_id, found.rows[candidates])))

        return true_pairs(found, *self.banding, most, shingles)

    def shingle_hashes(self, text: pa.Array | pa.ChunkedArray) -> tuple[I64, U64]:
        """The distinct shingles of each text, as 64-bit hashes in ascending order.

        Returns:
            Offsets of the texts' shingles, (num_rows + 1,), and the shingles.
        """
        from penstock.kernels import minhash

        whole = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
        offsets, utf8 = text_buffers(whole)
        table, by_words = minhash.characters(), self.unit == "words"
        return minhash.shingle_hashes(offsets, utf8, table, by_words, self.shingle)


@cache
def best_banding(threshold: float, num_hashes: int, verified: bool) -> tuple[int, int]:
    """Bands and rows that err least around a threshold, of at most so many functions.

    The error is the area under the probability of sharing a band below the
    threshold, and over it above, as in datasketch's MinHashLSH, where both
    count alike. If pairs are verified, one too many costs a comparison only:
    then what is missed counts 49 times as much.
    """
    missed = 0.98 if verified else 0.5
    similarity = np.linspace(0.0, 1.0, 1001)
    above = similarity >= threshold
    best = (np.inf, 1, 1)
    for rows in range(1, num_hashes + 1):
        none = 1.0 - similarity**rows
        for bands in range(1, num_hashes // rows + 1):
            shares_none = none**bands
            error = missed * shares_none[above].sum()
            error += (1.0 - missed) * (1.0 - shares_none[~above]).sum()
            best = min(best, (float(error), bands, rows))
    return best[1], best[2]


def share_found(similarity: float, bands: int, rows: int) -> float:
    """Probability that documents of this similarity share a band."""
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def _best(roots: I64, order: I64) -> I64:
    """The candidate that stays of each one's cluster: the first in an order."""
    stays = np.empty(len(roots), np.int64)
    stays[roots[order[::-1]]] = order[::-1]  # the last write wins
    return stays[roots]


@cache
def _functions(seed: int, num_hashes: int) -> tuple[U32, U32]:
    """What to flip and what to multiply by, per hash function (splitmix64's sequence)."""
    mask, state = (1 << 64) - 1, seed
    values = []
    for _ in range(num_hashes):
        state = (state + 0x9E3779B97F4A7C15) & mask
        value = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        values.append(value ^ (value >> 31))
    both = np.array(values, np.uint64)
    flips = (both & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return flips, (both >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(name: str, value: object, problem: str) -> ConfigError:
    return ConfigError(f"MinHashDedup.{name}", value, problem)
