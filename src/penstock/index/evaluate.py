"""Score rankings against relevance judgements, as `trec_eval` and `ir_measures` do."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.errors import QueryError

Measure = Literal["ndcg@10", "recall@100", "mrr@10", "map"]

MEASURES: Mapping[Measure, str] = {
    "ndcg@10": "ndcg_at_10",
    "recall@100": "recall_at_100",
    "mrr@10": "mrr_at_10",
    "map": "map",
}
"""The measures' usual names, and the attributes that hold them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryMetrics:
    """The same four figures for one query; all 0 where it has no relevant document."""

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    map: float

    def to_json(self) -> dict[str, float]:
        """The figures by their usual names."""
        return {name: getattr(self, field) for name, field in MEASURES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Means over the judged queries, each in [0, 1].

    Attributes:
        ndcg_at_10: Gain is the relevance, discount log2(rank + 1).
        recall_at_100: Share of the relevant documents among the first 100.
        mrr_at_10: One over the rank of the first relevant document, 0 after rank 10.
        map: Mean of the precision at each relevant document, over the whole ranking.
        per_query: The same for each query, in the order of the judgements.
    """

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    map: float
    per_query: Mapping[str, QueryMetrics]

    def to_json(self) -> dict[str, float]:
        """The means by their usual names."""
        return {name: getattr(self, field) for name, field in MEASURES.items()}

    def values(self, measure: Measure) -> list[float]:
        """One measure for each query, in the order of `per_query`."""
        field = MEASURES[measure]
        return [getattr(metrics, field) for metrics in self.per_query.values()]


def evaluate(
    rankings: Mapping[str, Sequence[str] | Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
) -> Metrics:
    """Score one ranking per query.

    Every judged query counts: one without a ranking, or whose documents were all
    judged not relevant, counts 0, as in `ir_measures` (and `trec_eval -c`). A
    ranking without judgements is ignored, and so is the second and any later
    place of a document in a ranking.

    Args:
        rankings: Query to its documents, best first; or to their scores, which
            are then ordered as `trec_eval` does (`ranked`).
        qrels: Query to the relevance of its judged documents; relevant is 1 or
            more. A query without any judged document is left out.

    Source: trec_eval 9, measures ndcg_cut_10, recall_100, recip_rank (over 10 places), map.
    """
    per_query = {
        query: _score(_ranking(rankings.get(query, ())), judged)
        for query, judged in qrels.items()
        if judged
    }

    def mean(name: str) -> float:
        scores = [getattr(metrics, name) for metrics in per_query.values()]
        return math.fsum(scores) / len(scores) if scores else 0.0

    return Metrics(
        ndcg_at_10=mean("ndcg_at_10"),
        recall_at_100=mean("recall_at_100"),
        mrr_at_10=mean("mrr_at_10"),
        map=mean("map"),
        per_query=per_query,
    )


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Documents by score, high to low; of equal ones the greater id first, as in `trec_eval`."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def document_ranking(doc_ids: Iterable[str]) -> list[str]:
    """Each document once, where its best chunk stands: a hit counts for its document."""
    return list(dict.fromkeys(doc_ids))


def read_queries(path: str | Path) -> dict[str, str]:
    """Read BEIR queries: JSON lines with `_id` and `text`.

    Raises:
        QueryError: The file or a line of it cannot be read.
    """
    queries: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            queries[str(row["_id"])] = str(row["text"])
        except (ValueError, KeyError, TypeError) as err:
            raise QueryError(
                f"{path}, line {number}",
                f'expected a JSON object such as {{"_id": "1", "text": "..."}} ({err!r})',
            ) from err
    return queries


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read BEIR judgements: tab-separated `query-id`, `corpus-id`, `score`, with a header.

    Raises:
        QueryError: The file or a line of it cannot be read.
    """
    qrels: dict[str, dict[str, int]] = {}
    rows = csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    if next(rows, None) != ["query-id", "corpus-id", "score"]:
        raise QueryError(
            f"{path}, line 1", "expected the header query-id, corpus-id, score, split by tabs"
        )
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        try:
            query, document, score = row
            qrels.setdefault(query, {})[document] = int(score)
        except ValueError as err:
            raise QueryError(
                f"{path}, line {number}",
                f"expected query-id, corpus-id and a whole number, split by tabs ({err})",
            ) from err
    return qrels


def _lines(path: str | Path) -> list[str]:
    try:
        # Not `splitlines`: a query's text may hold other line separators.
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise QueryError(str(path), f"cannot be read as UTF-8 text ({err})") from err
    return [line.removesuffix("\r") for line in text.split("\n")]


def _ranking(found: Sequence[str] | Mapping[str, float]) -> list[str]:
    return ranked(found) if isinstance(found, Mapping) else document_ranking(found)


def _score(ranking: Sequence[str], judged: Mapping[str, int]) -> QueryMetrics:
    gains = [max(judged.get(document, 0), 0) for document in ranking]
    ideal = sorted((max(relevance, 0) for relevance in judged.values()), reverse=True)
    num_relevant = sum(gain > 0 for gain in ideal)
    if not num_relevant:
        return QueryMetrics(ndcg_at_10=0.0, recall_at_100=0.0, mrr_at_10=0.0, map=0.0)
    places = [place for place, gain in enumerate(gains, 1) if gain > 0]
    return QueryMetrics(
        ndcg_at_10=_dcg(gains[:10]) / _dcg(ideal[:10]),
        recall_at_100=sum(place <= 100 for place in places) / num_relevant,
        mrr_at_10=1 / places[0] if places and places[0] <= 10 else 0.0,
        map=math.fsum(found / place for found, place in enumerate(places, 1)) / num_relevant,
    )


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))
