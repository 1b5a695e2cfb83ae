"""Judge a run by queries with known answers, before it is published or after."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError, GateError, QueryError
from penstock.index import Metrics, document_ranking, evaluate, read_qrels, read_queries
from penstock.index.requirements import Requirement, missed, read_requirement
from penstock.store.store import Store

_CHUNKS = 500
"""Several chunks of one document count once: more than 100 are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a run must be worth to be published.

    Attributes:
        requirements: The least values of measures.
        queries: Texts by query id, of the judged queries.
        qrels: Their judged documents.
    """

    requirements: tuple[Requirement, ...]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def check(self, store: Store) -> Metrics:
        """Search every judged query.

        Raises:
            GateError: A requirement does not hold.
        """
        measured = measure_search(store, self.queries, self.qrels)
        failed = missed(self.requirements, measured)
        if failed:
            raise GateError(
                store.manifest.run, [(each.measure, each.least, value) for each, value in failed]
            )
        return measured


def open_gate(
    require: str | Sequence[str], judgements: str | os.PathLike[str] | None
) -> Gate | None:
    """The gate of these requirements; None where nothing is required.

    Args:
        require: Such as ``"ndcg@10>=0.40"``, or several.
        judgements: A folder in BEIR's layout: ``queries.jsonl`` and ``qrels/test.tsv``
            (else ``dev.tsv``, else the only other one).

    Raises:
        ConfigError: A requirement cannot be read, or one of both is missing.
        QueryError: The judgements cannot be read.
    """
    texts = [require] if isinstance(require, str) else list(require)
    if not texts and judgements is None:
        return None
    if not texts or judgements is None:
        raise ConfigError("require", texts, "goes together with judgements, a folder as BEIR's")
    requirements = tuple(read_requirement(text) for text in texts)
    folder = Path(judgements)
    queries, qrels = read_judged(folder / "queries.jsonl", _qrels_of(folder))
    return Gate(requirements=requirements, queries=queries, qrels=qrels)


def read_judged(queries: Path, qrels: Path) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """The queries that have judgements, and these.

    Raises:
        QueryError: A file cannot be read, or the two do not belong together.
    """
    judged = read_qrels(qrels)
    texts = read_queries(queries)
    if not texts.keys() & judged.keys():
        raise QueryError(
            str(qrels),
            f"expected judgements of the queries in {queries}, found none whose query-id is an "
            "_id there; check that the files belong together",
        )
    # A query without a text cannot be searched; it is not the search that failed it.
    known = {query: judged[query] for query in judged if query in texts}
    return {query: texts[query] for query in known}, known


def measure_search(
    store: Store,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    **settings: Any,
) -> Metrics:
    """The measures of search over judged queries; a hit counts for its document.

    Args:
        store: What to search.
        queries: Texts by query id.
        qrels: Query id to the relevance of its judged documents.
        settings: What `Store.rank` is told.
    """
    rankings = {}
    for query, text in queries.items():
        hits = store.rank(text, _CHUNKS, **settings)
        rankings[query] = document_ranking(store.doc_ids(hits))
    return evaluate(rankings, qrels)


def _qrels_of(folder: Path) -> Path:
    found = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    for name in ("test", "dev", *(list(found) if len(found) == 1 else ())):
        if name in found:
            return found[name]
    names = ", ".join(found) or "none"
    raise QueryError(str(folder / "qrels"), f"expected test.tsv or dev.tsv, found {names}")
