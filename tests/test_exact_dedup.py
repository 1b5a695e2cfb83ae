from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decisions import ExactDedup
from penstock.protocols import Decision
from penstock.records import HASH, VERDICTS, hash_column


def batch(texts: list[str]) -> pa.RecordBatch:
    column = pa.array(texts, pa.large_string())
    return pa.record_batch({"text": column, "text_hash": hash_column(column)})


def verdicts(texts: dict[str, str]) -> pa.Table:
    decision = ExactDedup()
    ids = pa.array(sorted(texts), pa.string())
    signature = decision.signature(batch([texts[doc] for doc in sorted(texts)]))
    return decision.decide(pa.chunked_array([ids]), pa.chunked_array([signature]))


def duplicates(texts: dict[str, str]) -> dict[str, str]:
    table = verdicts(texts)
    return dict(zip(table["doc_id"].to_pylist(), table["duplicate_of"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param({}, {}, id="no-documents"),
        pytest.param({"a": "x", "b": "y"}, {}, id="all-differ"),
        pytest.param({"b": "x", "a": "x", "c": "x"}, {"b": "a", "c": "a"}, id="smallest-stays"),
        pytest.param({"a": "x", "B": "x"}, {"a": "B"}, id="bytes-order-capitals-first"),
        pytest.param({"é": "x", "z": "x", "😀": "x"}, {"é": "z", "😀": "z"}, id="utf8-order"),
        pytest.param({"a": "", "b": "", "c": " "}, {"b": "a"}, id="empty-texts-are-equal"),
        pytest.param(
            {"a": "x", "b": "y", "c": "y", "d": "x"}, {"c": "b", "d": "a"}, id="two-groups"
        ),
    ],
)
def test_drops_all_but_the_smallest(texts: dict[str, str], expected: dict[str, str]) -> None:
    assert duplicates(texts) == expected


def test_a_verdict_names_its_rule_and_score() -> None:
    table = verdicts({"a": "x", "b": "x"})

    assert table.schema.equals(VERDICTS)
    assert table.to_pylist() == [
        {
            "doc_id": "b",
            "verdict": "dropped",
            "rule": "exact_duplicate",
            "score": 1.0,
            "duplicate_of": "a",
        }
    ]


@settings(deadline=None)
@given(texts=st.dictionaries(st.text(max_size=3), st.sampled_from("xyz"), max_size=20))
def test_equals_a_dictionary_of_texts(texts: dict[str, str]) -> None:
    first: dict[str, str] = {}
    expected = {}
    for doc_id in sorted(texts, key=str.encode):
        kept = first.setdefault(texts[doc_id], doc_id)
        if kept != doc_id:
            expected[doc_id] = kept

    assert duplicates(texts) == expected


@settings(deadline=None)
@given(texts=st.lists(st.sampled_from("xyz"), min_size=4, max_size=9), cut=st.integers(0, 4))
def test_chunks_of_the_columns_make_no_difference(texts: list[str], cut: int) -> None:
    decision = ExactDedup()
    ids = pa.array([f"d{i}" for i in range(len(texts))])
    signature = decision.signature(batch(texts))

    whole = decision.decide(pa.chunked_array([ids]), pa.chunked_array([signature]))
    in_two = decision.decide(
        pa.chunked_array([ids[:cut], ids[cut:]]),
        pa.chunked_array([signature[: cut + 1], signature[cut + 1 :]]),
    )

    assert whole.equals(in_two)


def test_no_rows_at_all_is_no_verdict() -> None:
    nothing = ExactDedup().decide(pa.chunked_array([], pa.string()), pa.chunked_array([], HASH))

    assert nothing.equals(VERDICTS.empty_table())


def test_unsorted_identifiers_are_sorted_first() -> None:
    decision = ExactDedup()
    signature = decision.signature(batch(["x", "x"]))

    table = decision.decide(pa.chunked_array([["b", "a"]]), pa.chunked_array([signature]))

    assert table["doc_id"].to_pylist() == ["b"]


def test_a_million_documents_take_about_a_second() -> None:
    num = 1_000_000
    ids = pa.array(np.char.mod("dir/file%07d", np.arange(num)))
    hashes = np.random.default_rng(0).integers(0, num // 2, num).astype("<u8")
    both = np.stack([hashes, hashes], axis=1)
    signature = pa.Array.from_buffers(HASH, num, [None, pa.py_buffer(both.tobytes())])

    start = time.perf_counter()
    table = ExactDedup().decide(pa.chunked_array([ids]), pa.chunked_array([signature]))
    took = time.perf_counter() - start

    assert table.num_rows == num - len(np.unique(hashes))
    assert took < 5.0  # 0.5 s when the machine is idle


def test_is_a_decision() -> None:
    assert isinstance(ExactDedup(), Decision)
    assert ExactDedup().signature_type == HASH
