from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.decisions import near_clusters
from penstock.decisions.near import MinHashDedup, best_banding, share_found
from penstock.errors import ConfigError, QueryError
from penstock.fingerprint import fingerprint
from penstock.protocols import Decision
from penstock.records import VERDICTS


def signature(decision: MinHashDedup, texts: list[str | None]) -> pa.Array:
    return decision.signature(pa.record_batch({"text": pa.array(texts, pa.large_string())}))


def verdicts(decision: MinHashDedup, texts: dict[str, str]) -> list[dict[str, Any]]:
    ids = sorted(texts, key=str.encode)

    def read(doc_id: pa.Array) -> pa.Array:
        assert isinstance(doc_id, pa.Array)
        return pa.chunked_array([pa.array([texts[name] for name in doc_id.to_pylist()])])

    table = decision.decide(
        pa.chunked_array([pa.array(ids, pa.string())]),
        pa.chunked_array([signature(decision, [texts[name] for name in ids])]),
        read if decision.needs_texts else None,
    )
    assert table.schema.equals(VERDICTS)
    return list(table.to_pylist())


def duplicates(decision: MinHashDedup, texts: dict[str, str]) -> dict[str, str]:
    return {row["doc_id"]: row["duplicate_of"] for row in verdicts(decision, texts)}


def numbers(first: int, last: int) -> str:
    return " ".join(f"w{i}" for i in range(first, last))


def family(rng: random.Random, num: int, length: int = 120) -> list[str]:
    """Versions of one text, each with some other words."""
    words = [f"x{rng.randrange(1 << 30)}" for _ in range(length)]
    found = []
    for _ in range(num):
        version = list(words)
        for _ in range(rng.choice([0, 1, 2, 3, 6])):
            version[rng.randrange(length)] = f"y{rng.randrange(1 << 30)}"
        found.append(" ".join(version))
    return found


EVERY = [
    pytest.param(MinHashDedup(), id="any-band"),
    pytest.param(MinHashDedup(threshold=0.8), id="estimate"),
    pytest.param(MinHashDedup(threshold=0.8, verify="jaccard"), id="jaccard"),
    pytest.param(MinHashDedup(threshold=0.8, verify="none"), id="none"),
    pytest.param(MinHashDedup(threshold=0.8, unit="chars", shingle=24), id="chars"),
    pytest.param(MinHashDedup(bands=20, rows=13), id="260-hashes"),
]


@pytest.mark.parametrize("decision", EVERY)
@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param({}, {}, id="no-documents"),
        pytest.param({"a": numbers(0, 50), "b": numbers(60, 99)}, {}, id="all-differ"),
        pytest.param({"a": "", "b": "", "c": "  \n", "d": " "}, {}, id="nothing-in-them"),
        pytest.param(
            {"b": numbers(0, 99), "a": numbers(0, 99), "c": numbers(0, 99).upper()},
            {"b": "a", "c": "a"},
            id="the-smallest-stays",
        ),
        pytest.param({"a": "hello", "b": "Hello", "c": "hell"}, {"b": "a"}, id="one-word"),
        pytest.param(
            {"a": "本日は晴天なり" * 3, "b": "本日は晴天なり" * 3, "c": "明日は雨が降る" * 3},
            {"b": "a"},
            id="japanese",
        ),
        pytest.param(
            {"é": "one two " * 30, "z": "one two " * 30}, {"é": "z"}, id="order-of-utf8-bytes"
        ),
        pytest.param({"a": "a" * 9999, "b": "a" * 9999}, {"b": "a"}, id="one-letter-repeated"),
    ],
)
def test_drops_all_but_one_of_near_duplicates(
    decision: MinHashDedup, texts: dict[str, str], expected: dict[str, str]
) -> None:
    assert duplicates(decision, texts) == expected


@pytest.mark.parametrize("decision", EVERY)
def test_few_changed_words_make_a_near_duplicate_and_many_do_not(decision: MinHashDedup) -> None:
    text = numbers(0, 400)
    texts = {"a": text, "b": text.replace("w7 ", "v7 "), "c": numbers(300, 700)}

    [row] = verdicts(decision, texts)

    assert (row["doc_id"], row["duplicate_of"], row["rule"]) == ("b", "a", "near_duplicate")
    assert 0.9 < row["score"] <= 1.0


def test_texts_without_words_have_no_signature() -> None:
    column = signature(MinHashDedup(), ["word", "", "...", None, "語"])

    assert column.is_valid().to_pylist() == [True, False, False, False, True]
    assert column.type == MinHashDedup().signature_type == pa.binary(116)


def test_the_longest_stays_if_asked() -> None:
    text = numbers(0, 300)
    texts = {"a": text, "b": text + " more", "c": text + " words"}

    assert duplicates(MinHashDedup(keep="longest"), texts) == {"a": "b", "c": "b"}


def test_a_chain_is_one_cluster_scored_against_the_one_that_stays() -> None:
    decision = MinHashDedup(threshold=0.8, verify="jaccard", num_hashes=256)
    texts = {f"{i}": numbers(40 * i, 40 * i + 400) for i in range(4)}  # neighbours: 356 of 436

    rows = verdicts(decision, texts)

    assert {row["doc_id"]: row["duplicate_of"] for row in rows} == {"1": "0", "2": "0", "3": "0"}
    assert rows[0]["score"] == pytest.approx(356 / 436)  # by the texts, as it was compared
    assert rows[2]["score"] == pytest.approx(276 / 516, abs=0.12)  # by the signatures


def test_true_similarity_decides_where_the_estimate_would_err() -> None:
    rng = random.Random(0)
    texts = {f"{i}": text for i, text in enumerate(family(rng, 40, 60))}
    decision = MinHashDedup(threshold=0.75, verify="jaccard", num_hashes=256)
    sets = {name: frozenset(_shingles(text)) for name, text in texts.items()}
    names = sorted(texts)
    links = [(a, b) for a in names for b in names if a < b and _jaccard(sets[a], sets[b]) >= 0.75]

    assert duplicates(decision, texts) == _expected(names, links)


def _shingles(text: str) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + 5]) for i in range(len(words) - 4)]


def _jaccard(a: frozenset[Any], b: frozenset[Any]) -> float:
    return len(a & b) / len(a | b)


def _expected(names: list[str], links: list[tuple[str, str]]) -> dict[str, str]:
    root = {name: name for name in names}
    for _ in names:
        for a, b in links:
            root[a] = root[b] = min(root[a], root[b])
    return {name: kept for name, kept in root.items() if kept != name}


@pytest.mark.parametrize("decision", EVERY)
@pytest.mark.parametrize("window", [2, 1024], ids=["window-of-2", "window-of-1024"])
def test_the_result_does_not_depend_on_how_columns_are_cut(
    decision: MinHashDedup, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_clusters, "WINDOW", window)
    rng = random.Random(1)
    texts = [text for _ in range(5) for text in family(rng, 8)] + ["", "one"]
    ids = pa.array([f"{i:03d}" for i in range(len(texts))])
    column = signature(decision, list(texts))

    def read(doc_id: pa.Array) -> pa.Array:
        return pa.array([texts[int(name)] for name in doc_id.to_pylist()])

    given_texts = read if decision.needs_texts else None
    whole = decision.decide(pa.chunked_array([ids]), pa.chunked_array([column]), given_texts)
    cut = decision.decide(
        pa.chunked_array([ids[:3], ids[3:]]),
        pa.chunked_array([column[:11], column[11:11], column[11:]]),
        given_texts,
    )

    assert whole.equals(cut)
    assert len(whole) > 10


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_estimates_decide_exactly_as_a_plain_search_would(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 1000)))
    texts = {f"{i:02d}": text for i, text in enumerate([*family(rng, 12, 40), *family(rng, 6, 9)])}
    threshold = data.draw(st.sampled_from([0.4, 0.6, 0.8]))
    decision = MinHashDedup(threshold=threshold)
    names = sorted(texts)
    column = signature(decision, [texts[name] for name in names]).to_pylist()
    rows = {name: value[4:] for name, value in zip(names, column, strict=True)}
    bands, size = decision.banding
    links = [
        (a, b)
        for a in names
        for b in names
        if a < b
        and any(rows[a][k * size :][:size] == rows[b][k * size :][:size] for k in range(bands))
        and _estimate(rows[a], rows[b]) >= threshold
    ]

    assert duplicates(decision, texts) == _expected(names, links)


def _estimate(a: bytes, b: bytes) -> float:
    agree = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
    return (agree - 1 / 256) / (255 / 256)


@pytest.mark.parametrize(
    ("keep", "stays"),
    [
        pytest.param("stars DESC", "b", id="most"),
        pytest.param("max(metadata.stars)", "b", id="most-as-a-function"),
        pytest.param("min( stars )", "a", id="least"),
        pytest.param("stars asc", "a", id="least-in-words"),
        pytest.param("site DESC, stars ASC", "d", id="two-columns"),
        pytest.param('"odd name" DESC', "c", id="quoted"),
    ],
)
def test_the_survivor_is_chosen_by_columns(keep: str, stays: str) -> None:
    text = " ".join(f"word{i}" for i in range(30))
    rows: dict[str, Any] = {
        "stars": dict(zip("abcde", [1, 9, None, 2, 9], strict=True)),
        "site": dict(zip("abcde", ["x", "x", None, "y", "x"], strict=True)),
        "odd name": dict(zip("abcde", [1, 1, 2, 1, 1], strict=True)),
    }
    rows["metadata.stars"] = rows["stars"]
    decision = MinHashDedup(keep=keep)
    ids = pa.chunked_array([list("abcde")])
    signed = pa.chunked_array([signature(decision, [text] * 5)])

    def values(name: str, doc_id: pa.Array) -> pa.Array:
        return pa.array([rows[name][each] for each in doc_id.to_pylist()])

    found = decision.decide(ids, signed, values=values)

    assert decision.needs_values
    assert set(found["duplicate_of"].to_pylist()) == {stays}
    assert set(found["doc_id"].to_pylist()) == set("abcde") - {stays}
    with pytest.raises(ConfigError, match="keep"):
        decision.decide(ids, signed)


def test_what_has_no_order_is_told() -> None:
    decision = MinHashDedup(keep="tags DESC")
    ids = pa.chunked_array([["a", "b"]])
    signed = pa.chunked_array([signature(decision, ["one two", "one two"])])

    with pytest.raises(QueryError, match="no order"):
        decision.decide(ids, signed, values=lambda _, doc_id: pa.array([["x"]] * len(doc_id)))


@pytest.mark.parametrize("keep", ["first", "longest"])
def test_any_history_ends_where_a_fresh_start_does(keep: Any) -> None:
    # Signatures are kept per document, as the store does, and never computed again.
    rng = random.Random(2)
    decision = MinHashDedup(threshold=0.8, keep=keep)
    pool = [text for _ in range(4) for text in family(rng, 6, 60)]
    texts: dict[str, str] = {}
    kept: dict[str, bytes | None] = {}
    for _ in range(60):
        name = f"{rng.randrange(15):02d}"
        if rng.random() < 0.4:
            texts.pop(name, None)
            kept.pop(name, None)
        else:
            texts[name] = rng.choice(pool)
            kept[name] = signature(decision, [texts[name]])[0].as_py()
        ids = sorted(texts)
        stored = pa.array([kept[i] for i in ids], decision.signature_type)

        table = decision.decide(pa.chunked_array([ids], pa.string()), pa.chunked_array([stored]))

        assert table.to_pylist() == verdicts(decision, texts)
        survivors = set(ids) - set(table["doc_id"].to_pylist())
        assert set(table["duplicate_of"].to_pylist()) <= survivors


def _kept(store: Path) -> dict[str, str | None]:
    rows = ps.Store.open(store).verdicts().to_pylist()
    return {row["doc_id"]: row["duplicate_of"] for row in rows}


def test_a_deleted_survivor_promotes_its_twin_in_a_store(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    text = numbers(0, 300)
    for name, content in {"a": text, "b": text + " b", "c": text + " c", "d": "alone"}.items():
        (tree / f"{name}.txt").write_text(content)
    (tree / "dots.txt").write_text("...")
    (tree / "marks.txt").write_text("!?")
    flow = ps.Flow(source=ps.files(tree), steps=[ps.Normalize(), MinHashDedup(), ps.Chunk()])

    flow.run(tmp_path / "store")
    before = _kept(tmp_path / "store")
    (tree / "a.txt").unlink()
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "fresh")

    alone = {"a.txt": None, "d.txt": None, "dots.txt": None, "marks.txt": None}
    assert before == alone | {"b.txt": "a.txt", "c.txt": "a.txt"}
    assert _kept(tmp_path / "store") == _kept(tmp_path / "fresh")
    assert _kept(tmp_path / "store")["c.txt"] == "b.txt"


def test_a_huge_band_costs_no_quadratic_time() -> None:
    # 20,000 distinct signatures that agree in the first band and hardly elsewhere.
    rng = np.random.default_rng(0)
    decision = MinHashDedup(threshold=0.8)
    num = 20_000
    data = rng.integers(0, 256, (num, 116), np.uint8)
    data[:, 4:11] = 7
    column = pa.Array.from_buffers(pa.binary(116), num, [None, pa.py_buffer(data.tobytes())])
    ids = pa.array(np.char.mod("%06d", np.arange(num)))

    assert len(decision.decide(pa.chunked_array([ids]), pa.chunked_array([column]))) == 0


def test_in_a_huge_band_rows_that_begin_the_next_band_alike_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near_clusters, "WINDOW", 2)
    decision = MinHashDedup(num_hashes=16, bands=2, rows=8, threshold=0.9)
    rows = [bytes([1, 0, 0, 0]) + b"7" * 8 + bytes([i % 30] * 7 + [i // 30]) for i in range(60)]
    ids = pa.array([f"{i:02d}" for i in range(60)])

    table = decision.decide(
        pa.chunked_array([ids]), pa.chunked_array([pa.array(rows, decision.signature_type)])
    )

    assert table["doc_id"].to_pylist() == ids[30:].to_pylist()
    assert table["duplicate_of"].to_pylist() == ids[:30].to_pylist()


def test_estimates_are_unbiased_with_the_variance_of_independent_functions() -> None:
    rng = random.Random(0)
    pairs = []
    for _ in range(60):
        length, common = rng.randrange(5, 200), rng.random()
        left = [str(rng.randrange(1 << 40)) for _ in range(length)]
        right = [word if rng.random() < common else str(rng.randrange(1 << 40)) for word in left]
        pairs.append((left, right))
    true = np.array([_jaccard(frozenset(a), frozenset(b)) for a, b in pairs])
    errors = []
    for seed in range(60):
        decision = MinHashDedup(shingle=1, seed=seed)
        column = signature(decision, [" ".join(words) for pair in pairs for words in pair])
        data = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, 2, 116)[:, :, 4:]
        agree = (data[:, 0] == data[:, 1]).mean(axis=1)
        errors.append((agree - 1 / 256) / (255 / 256) - true)
    found = np.array(errors)
    match = true + (1 - true) / 256
    variance = match * (1 - match) / 112

    assert abs(found.mean()) < 0.003
    assert 0.85 < (found.var(axis=0)[true < 0.99] / variance[true < 0.99]).mean() < 1.15


def test_equal_minima_of_short_texts_are_no_chance() -> None:
    # One shingle each: if 32 bits decided, some of these 60,000 would be equal.
    texts: list[str | None] = [f"{i}" for i in range(60_000)]

    column = signature(MinHashDedup(), texts)

    assert len(column.unique()) == len(texts)
    ids = pa.array(texts).sort()
    assert len(MinHashDedup().decide(pa.chunked_array([ids]), pa.chunked_array([column]))) == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        pytest.param({"threshold": 0.0}, "threshold", id="threshold-0"),
        pytest.param({"threshold": 1.01}, "threshold", id="threshold-above-1"),
        pytest.param({"threshold": float("nan")}, "threshold", id="threshold-nan"),
        pytest.param({"threshold": "0.8"}, "threshold", id="threshold-text"),
        pytest.param({"bands": 0, "rows": 8}, "bands", id="no-bands"),
        pytest.param({"bands": 3}, "bands", id="bands-alone"),
        pytest.param({"rows": 3}, "rows", id="rows-alone"),
        pytest.param({"bands": 20, "rows": 8, "num_hashes": 112}, "bands", id="too-many"),
        pytest.param({"shingle": 0}, "shingle", id="no-shingle"),
        pytest.param({"shingle": 2.0}, "shingle", id="shingle-float"),
        pytest.param({"unit": "lines"}, "unit", id="unit"),
        pytest.param({"verify": "maybe"}, "verify", id="verify"),
        pytest.param({"keep": "last"}, "keep", id="keep"),
        pytest.param({"keep": "stars UP"}, "keep", id="keep-direction"),
        pytest.param({"keep": "max(stars"}, "keep", id="keep-parenthesis"),
        pytest.param({"keep": "stars DESC,"}, "keep", id="keep-nothing"),
        pytest.param({"keep": "length(text) DESC"}, "keep", id="keep-function"),
        pytest.param({"keep": 3}, "keep", id="keep-number"),
        pytest.param({"seed": -1}, "seed", id="seed"),
        pytest.param({"num_hashes": -1}, "num_hashes", id="num-hashes"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"MinHashDedup\.{named} is"):
        MinHashDedup(**wrong)


def test_true_similarity_needs_the_texts() -> None:
    decision = MinHashDedup(threshold=0.8, verify="jaccard")
    columns = pa.chunked_array([["a"]]), pa.chunked_array([signature(decision, ["x"])])

    with pytest.raises(ConfigError, match="verify"):
        decision.decide(*columns)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        pytest.param({"threshold": 0.7}, True, id="threshold"),
        pytest.param({"bands": 10, "rows": 10}, True, id="bands-that-fit"),
        pytest.param({"keep": "longest", "verify": "none"}, True, id="keep-and-verify"),
        pytest.param({"bands": 20, "rows": 13}, False, id="bands-that-need-more"),
        pytest.param({"shingle": 4}, False, id="shingle"),
        pytest.param({"unit": "chars"}, False, id="unit"),
        pytest.param({"seed": 1}, False, id="seed"),
        pytest.param({"num_hashes": 128}, False, id="num-hashes"),
    ],
)
def test_only_what_shapes_signatures_changes_the_fingerprint(
    changed: dict[str, Any], same: bool
) -> None:
    assert (fingerprint(MinHashDedup(**changed)) == fingerprint(MinHashDedup())) == same


def test_replacing_the_threshold_chooses_other_bands() -> None:
    decision = MinHashDedup(threshold=0.9)

    assert replace(decision, threshold=0.6).banding != decision.banding
    assert replace(decision, threshold=None).banding == (14, 8)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0], ids=str)
def test_bands_fit_the_hashes_and_find_what_is_to_be_verified(threshold: float) -> None:
    bands, rows = best_banding(threshold, 112, True)

    assert bands * rows <= 112
    assert share_found(threshold, bands, rows) > 0.95


def test_bands_of_a_threshold_are_those_of_datasketch() -> None:
    # MinHashLSH(threshold=0.8, num_perm=128).b and .r
    assert best_banding(0.8, 128, False) == (9, 13)


def test_is_a_decision() -> None:
    assert isinstance(MinHashDedup(), Decision)
