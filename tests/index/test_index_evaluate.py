"""Measures equal trec_eval's and ir_measures'."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import QueryError
from penstock.index.evaluate import (
    MEASURES,
    document_ranking,
    evaluate,
    ranked,
    read_qrels,
    read_queries,
)

_QRELS = {"q": {"a": 2, "b": 1, "c": 0, "d": -1, "e": 1}}


@pytest.mark.parametrize(
    ("ranking", "ndcg", "mrr", "average"),
    [
        pytest.param(["a", "b", "e"], 1.0, 1.0, 1.0, id="ideal"),
        pytest.param([], 0.0, 0.0, 0.0, id="nothing-found"),
        pytest.param(["c", "d", "x"], 0.0, 0.0, 0.0, id="nothing-relevant"),
        pytest.param(
            ["x", "a", "d", "b"],
            (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3) + 1 / 2),
            0.5,
            (1 / 2 + 2 / 4) / 3,
            id="by-hand",
        ),
        pytest.param(["a", "a", "b", "e"], 1.0, 1.0, 1.0, id="second-chunk-of-a-document"),
        pytest.param([*"0123456789", "a"], 0.0, 0.0, 1 / 11 / 3, id="after-rank-ten"),
    ],
)
def test_measures_one_ranking(ranking: list[str], ndcg: float, mrr: float, average: float) -> None:
    metrics = evaluate({"q": ranking}, _QRELS)

    assert metrics.ndcg_at_10 == pytest.approx(ndcg)
    assert metrics.mrr_at_10 == pytest.approx(mrr)
    assert metrics.map == pytest.approx(average)


def test_recall_looks_at_the_first_hundred() -> None:
    ranking = ["a", *(f"x{i}" for i in range(98)), "b", "e"]

    assert evaluate({"q": ranking}, _QRELS).recall_at_100 == pytest.approx(2 / 3)


def test_every_judged_query_counts() -> None:
    qrels = {"found": {"a": 1}, "absent": {"a": 1}, "nothing": {"a": 0}, "unjudged": {}}

    metrics = evaluate({"found": ["a"], "nothing": ["a"], "unknown": ["a"]}, qrels)

    assert metrics.ndcg_at_10 == pytest.approx(1 / 3)
    assert list(metrics.per_query) == ["found", "absent", "nothing"]
    assert metrics.values("map") == [1.0, 0.0, 0.0]
    assert metrics.per_query["found"].to_json() == dict.fromkeys(MEASURES, 1.0)
    assert metrics.to_json()["mrr@10"] == pytest.approx(1 / 3)


def test_no_judgements_give_zero() -> None:
    assert evaluate({"q": ["a"]}, {}).ndcg_at_10 == 0.0


def test_equal_scores_are_ordered_as_trec_eval_does() -> None:
    assert ranked({"a": 1.0, "c": 2.0, "b": 1.0}) == ["c", "b", "a"]


_DOCUMENTS = [f"d{number}" for number in range(14)]
# Not below -1: pytrec_eval dies of -2.
_JUDGEMENTS = st.dictionaries(st.sampled_from(_DOCUMENTS), st.integers(-1, 3), min_size=1)
_QRELS_OF = st.dictionaries(st.sampled_from("pqrs"), _JUDGEMENTS, min_size=1)


def _runs(scores: st.SearchStrategy[int], *, ties: bool) -> st.SearchStrategy[Any]:
    def of(values: list[int]) -> dict[str, float]:
        return {document: float(value) for document, value in zip(_DOCUMENTS, values, strict=False)}

    lists = st.lists(scores, min_size=1, max_size=len(_DOCUMENTS), unique=not ties)
    return st.dictionaries(st.sampled_from("pqrst"), lists.map(of), min_size=1)


@settings(max_examples=60, deadline=None)
@given(_runs(st.integers(0, 1000), ties=False), _QRELS_OF)
def test_means_equal_those_of_ir_measures(run: Any, qrels: Any) -> None:
    reference = pytest.importorskip("ir_measures")
    names = {"ndcg@10": "nDCG@10", "recall@100": "R@100", "mrr@10": "RR@10", "map": "AP"}
    measures = {name: reference.parse_measure(text) for name, text in names.items()}

    expected = reference.calc_aggregate(list(measures.values()), qrels, run)

    found = evaluate(run, qrels).to_json()
    assert found == pytest.approx({name: expected[each] for name, each in measures.items()})


@settings(max_examples=60, deadline=None)
@given(_runs(st.integers(0, 3), ties=True), _QRELS_OF)
def test_each_query_with_ties_equals_pytrec_eval(run: Any, qrels: Any) -> None:
    reference = pytest.importorskip("pytrec_eval")
    names = {"ndcg_cut_10": "ndcg@10", "recall_100": "recall@100", "map": "map"}
    expected = reference.RelevanceEvaluator(qrels, {*names, "recip_rank"}).evaluate(run)

    metrics = evaluate(run, qrels)

    for query, values in expected.items():
        found = metrics.per_query[query].to_json()
        reciprocal = values.pop("recip_rank")  # over the whole ranking
        assert found.pop("mrr@10") == pytest.approx(reciprocal if reciprocal >= 0.1 else 0.0)
        assert found == pytest.approx({names[name]: value for name, value in values.items()})


def _ranking(query: int) -> list[str]:
    """A fixed shuffle of 120 documents for each query."""
    return sorted((f"d{i}" for i in range(120)), key=lambda d: hash_of(f"{query}/{d}"))


def hash_of(text: str) -> int:
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value


def _judged(query: int) -> dict[str, int]:
    return {
        f"d{i}": hash_of(f"rel{query}/{i}") % 4 - 1
        for i in range(120)
        if hash_of(f"judged{query}/{i}") % 5 == 0
    }


# pytrec_eval 0.5 on the rankings and judgements above: ndcg_cut_10, recall_100,
# recip_rank over the first 10, map.
_TREC_EVAL = {
    1: (0.040684, 0.818182, 0.100000, 0.085709),
    2: (0.173655, 0.846154, 0.333333, 0.157690),
    3: (0.127417, 0.769231, 0.333333, 0.130031),
    4: (0.095090, 0.818182, 0.166667, 0.107815),
    5: (0.000000, 0.888889, 0.000000, 0.076638),
    6: (0.084214, 0.700000, 0.125000, 0.095285),
}


@pytest.mark.parametrize("query", sorted(_TREC_EVAL))
def test_equals_trec_eval(query: int) -> None:
    metrics = evaluate({"q": _ranking(query)}, {"q": _judged(query)})

    found = (metrics.ndcg_at_10, metrics.recall_at_100, metrics.mrr_at_10, metrics.map)
    assert found == pytest.approx(_TREC_EVAL[query], abs=1e-6)


def test_a_document_stands_where_its_best_chunk_does() -> None:
    assert document_ranking(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_reads_the_beir_layout(tmp_path: Path) -> None:
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "test.tsv"
    queries.write_text(
        '{"_id": "1", "text": "line\u2028ends"}\n\n{"_id": 2, "text": "é"}\n', "utf-8"
    )
    qrels.write_bytes(b'query-id\tcorpus-id\tscore\r\n1\t"a\t1\r\n1\tb\t0\r\n2\ta\t2\r\n')

    assert read_queries(queries) == {"1": "line\u2028ends", "2": "é"}
    assert read_qrels(qrels) == {"1": {'"a': 1, "b": 0}, "2": {"a": 2}}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("1\ta\t1\n", "line 1", id="no-header"),
        pytest.param("query-id\tcorpus-id\tscore\n1\ta\n", "line 2", id="too-few-columns"),
        pytest.param("query-id\tcorpus-id\tscore\n1\ta\tyes\n", "line 2", id="no-number"),
    ],
)
def test_names_the_bad_line_of_judgements(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "q.tsv").write_text(text, "utf-8")

    with pytest.raises(QueryError, match=place):
        read_qrels(tmp_path / "q.tsv")


@pytest.mark.parametrize("line", ["{", "[]", '{"_id": "1"}', "3"])
def test_names_the_bad_line_of_queries(tmp_path: Path, line: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "a"}\n' + line, "utf-8")

    with pytest.raises(QueryError, match="line 2"):
        read_queries(tmp_path / "q.jsonl")


def test_a_missing_file_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="cannot be read"):
        read_queries(tmp_path / "none.jsonl")
