"""Semantic duplicates: what is found, who stays, and that order and threads change nothing."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from penstock.decisions import semantic_links
from penstock.decisions.semantic import SemanticDedup, semantic_duplicates
from penstock.errors import ConfigError
from penstock.records import VERDICTS


def families(num: int, dim: int = 32, seed: int = 0) -> npt.NDArray[np.float32]:
    """Directions by chance, a third of them with near copies."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num, dim))
    copies = random.integers(0, num // 3, num // 3)
    rows[-len(copies) :] = rows[copies] + random.normal(size=(len(copies), dim)) * 0.2
    return rows.astype(np.float32)


def names(num: int) -> pa.Array:
    return pa.array([f"d{i:06d}" for i in range(num)])


def cosines(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    units = rows.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return np.asarray(units @ units.T)


def twin(rows: npt.NDArray[Any], eps: float) -> dict[int, float]:
    """Who goes, with the cosine, by comparing all in their order."""
    near = cosines(rows)
    stays: list[int] = []
    goes = {}
    for i in range(len(rows)):
        best = max((near[i, j] for j in stays), default=-1.0)
        if best >= 1 - eps:
            goes[i] = best
        else:
            stays.append(i)
    return goes


@pytest.mark.parametrize("seed", range(3))
def test_drops_what_comparing_all_drops(seed: int) -> None:
    rows = families(900, seed=seed)
    every_cell = SemanticDedup(eps=0.07, probes=1000, seed=seed)
    expected = twin(rows, 0.07)

    found = semantic_duplicates(names(900), rows, every_cell)

    assert found.schema == VERDICTS
    assert found["doc_id"].to_pylist() == [f"d{i:06d}" for i in sorted(expected)]
    np.testing.assert_allclose(found["score"], [expected[i] for i in sorted(expected)], atol=1e-6)


def test_few_cells_find_nearly_all() -> None:
    rows = families(3000)
    expected = twin(rows, 0.07)

    found = semantic_duplicates(names(3000), rows)
    assert found.num_rows >= 0.95 * len(expected)


@pytest.mark.parametrize("keep", ["first", "hardest", "easiest"])
@pytest.mark.parametrize("rule", ["representative", "component"])
def test_order_and_threads_change_nothing(keep: Any, rule: Any) -> None:
    rows, ids = families(2000), names(2000)
    mixed = np.random.default_rng(1).permutation(2000)
    settings = SemanticDedup(eps=0.1, keep=keep, rule_of_links=rule)

    one = semantic_duplicates(ids, rows, settings, num_threads=1)
    other = semantic_duplicates(ids.take(pa.array(mixed)), rows[mixed], settings, num_threads=3)

    assert one.num_rows > 200
    assert one.equals(other)
    dropped = set(one["doc_id"].to_pylist())
    assert not dropped & set(one["duplicate_of"].to_pylist())


@pytest.mark.parametrize("keep", ["first", "hardest"])
@pytest.mark.parametrize("most", [1, 30, 3000])
def test_few_pairs_at_once_give_the_same(
    keep: Any, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, ids = families(1500, dim=8), names(1500)
    rows[700:900] = rows[0] + rows[700:900] * 0.01  # a crowd of which all are linked
    settings = SemanticDedup(eps=0.1, keep=keep)
    expected = semantic_duplicates(ids, rows, settings)
    bounded = functools.partial(semantic_links.by_representative, most=most)
    monkeypatch.setattr("penstock.decisions.semantic.by_representative", bounded)

    assert len(expected) > 400
    assert semantic_duplicates(ids, rows, settings).equals(expected)


def test_a_chain_loses_its_links_or_all_but_one() -> None:
    angles = np.arange(10) * 0.1
    rows = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    eps = 1 - float(np.cos(0.1)) + 1e-6

    links = semantic_duplicates(names(10), rows, SemanticDedup(eps=eps))
    whole = semantic_duplicates(names(10), rows, SemanticDedup(eps=eps, rule_of_links="component"))

    assert links["doc_id"].to_pylist() == [f"d{i:06d}" for i in (1, 3, 5, 7, 9)]
    assert min(links["score"].to_pylist()) >= 1 - eps - 1e-6
    assert whole["doc_id"].to_pylist() == [f"d{i:06d}" for i in range(1, 10)]
    assert set(whole["duplicate_of"].to_pylist()) == {"d000000"}
    assert whole["score"][-1].as_py() == pytest.approx(np.cos(0.9))


def test_equal_vectors_go_at_an_eps_of_zero_whatever_their_length() -> None:
    rows = families(200)
    rows = np.concatenate((rows, rows * 7))

    found = semantic_duplicates(names(400), rows, SemanticDedup(eps=0.0, probes=100))
    assert found["doc_id"].to_pylist() == [f"d{i:06d}" for i in range(200, 400)]


def test_documents_without_a_vector_stay() -> None:
    rows = np.ones((6, 4), np.float32)
    rows[1], rows[2, 0], rows[3, 1] = 0, np.nan, np.inf
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(rows.reshape(-1)), 4, mask=pa.array([False] * 4 + [True, False])
    )

    found = semantic_duplicates(names(6), column)
    assert found["doc_id"].to_pylist() == ["d000005"]


@pytest.mark.parametrize("num", [0, 1, 2])
def test_hardly_any_documents(num: int) -> None:
    found = semantic_duplicates(names(num), np.ones((num, 3), np.float32))

    assert found.num_rows == max(0, num - 1)


def test_many_equal_vectors_are_bounded() -> None:
    rows = np.ones((3000, 8), np.float32)

    found = semantic_duplicates(names(3000), rows)
    assert found.num_rows == 2999


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"eps": 1.0}, "eps"),
        ({"eps": -0.1}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"eps": "0.1"}, "eps"),
        ({"clusters": 0}, "clusters"),
        ({"probes": 0}, "probes"),
        ({"probes": None}, "probes"),
        ({"keep": "best"}, "keep"),
        ({"rule_of_links": "some"}, "rule_of_links"),
        ({"seed": -1}, "seed"),
    ],
    ids=str,
)
def test_wrong_settings_are_told(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        SemanticDedup(**change)


def test_another_number_of_vectors_is_told() -> None:
    with pytest.raises(ConfigError, match="a vector for each of 3"):
        semantic_duplicates(names(3), np.ones((2, 4)))
