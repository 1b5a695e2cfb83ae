from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decisions.sampling import Limit, Mix, Sample
from penstock.decisions.urls import UrlFilter, normalise
from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint
from penstock.protocols import Decision
from penstock.records import VERDICTS

Documents = dict[str, tuple[str, dict[str, Any]]]


def _batch(documents: Documents) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "doc_id": pa.array(list(documents), pa.string()),
            "metadata": pa.array(
                [
                    json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
                    for _, facts in documents.values()
                ],
                pa.string(),
            ),
            "text": pa.array([text for text, _ in documents.values()], pa.large_string()),
        }
    )


def _decided(rule: Any, documents: Documents) -> list[dict[str, Any]]:
    batch = _batch(documents)
    signature = pa.chunked_array([rule.signature(batch)], rule.signature_type)
    table = rule.decide(pa.chunked_array([batch["doc_id"]]), signature)
    assert table.schema == VERDICTS
    rows: list[dict[str, Any]] = table.to_pylist()
    assert [row["doc_id"] for row in rows] == sorted(row["doc_id"] for row in rows)
    return rows


def _kept(rule: Any, documents: Documents) -> set[str]:
    return set(documents) - {row["doc_id"] for row in _decided(rule, documents)}


def _reason(rule: UrlFilter, url: str | None) -> str | None:
    facts = {} if url is None else {"url": url}
    rows = _decided(rule, {"d": ("text", facts)})
    return rows[0]["rule"].removeprefix("url_filter.") if rows else None


URLS = UrlFilter(
    blocked_domains=["Bad.com", "*.sub.ok.org", "bücher.de"],
    blocked_urls=["https://ok.org/one/page/"],
    blocked_words=["sex"],
    soft_words=["casino", "bet", "poker"],
    blocked_substrings=["free-money"],
)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://bad.com", "domain"),
        ("HTTPS://WWW.BAD.COM:443/x?y#z", "domain"),
        ("https://user:secret@deep.www.bad.com./", "domain"),
        ("bad.com:8080/x", "domain"),
        ("//bad.com?x", "domain"),
        ("https://notbad.com/", None),
        ("https://bad.com.org/bad.com", None),
        ("https://sub.ok.org/", "domain"),
        ("https://ok.org/sub.ok.org", None),
        ("https://xn--bcher-kva.de/", "domain"),
        ("https://www.Bücher.de/x", "domain"),
        ("http://ok.org/one/page#part", "url"),
        ("http://ok.org/one/page/two", None),
        ("http://ok.org/a-SEX-b", "word"),
        ("http://ok.org/sussex", None),
        ("http://ok.org/casino", None),
        ("http://ok.org/casino/casino", None),
        ("http://ok.org/casino?bet=1", "soft_words"),
        ("http://ok.org/get_free/money", "substring"),
        ("http://127.0.0.1/x", None),
        ("", None),
        ("not a url", None),
        (None, None),
    ],
)
def test_urls_are_blocked_for_a_reason(url: str | None, reason: str | None) -> None:
    assert _reason(URLS, url) == reason


@given(st.text(max_size=30))
def test_normalising_a_url_twice_changes_nothing_that_matters(url: str) -> None:
    once = normalise(url)

    assert "#" not in once
    assert not once.endswith("/")
    assert _reason(URLS, url) in (None, "domain", "word")


def test_lists_come_from_files_too(tmp_path: Path) -> None:
    path = tmp_path / "domains.txt"
    path.write_text("# spam\nbad.com\n\nworse.org\n", encoding="utf-8")
    rule = UrlFilter(blocked_domains=path)

    assert rule.blocked_domains == ("bad.com", "worse.org")
    assert _reason(rule, "http://a.worse.org/") == "domain"
    assert fingerprint(rule) == fingerprint(UrlFilter(blocked_words=["x"]))
    assert fingerprint(rule) != fingerprint(UrlFilter(blocked_words=["x"], field="link"))


def test_another_field_may_hold_the_url() -> None:
    rule = UrlFilter(field="link", blocked_domains=["bad.com"])
    documents: Documents = {
        "a": ("", {"link": "http://bad.com"}),
        "b": ("", {"url": "http://bad.com"}),
        "c": ("", {"link": None}),
        "d": ("", {"link": 7}),
    }

    assert [row["doc_id"] for row in _decided(rule, documents)] == ["a"]


def _corpus(seed: int, size: int = 200) -> Documents:
    rng = random.Random(seed)
    names = ["en", "de", "fr", None, 7]
    return {
        f"d{i:04}": (
            "x" * rng.randrange(0, 400),
            {} if (name := rng.choice(names)) is None else {"lang": name},
        )
        for i in range(size)
    }


def _group(facts: dict[str, Any]) -> str | None:
    value = facts.get("lang")
    return None if value is None else str(value)


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // 4)


def _scores(documents: Documents, seed: int) -> dict[str, float]:
    return {row["doc_id"]: row["score"] for row in _decided(Sample(share=0, seed=seed), documents)}


def test_a_sample_keeps_about_its_share_and_all_of_a_smaller_one() -> None:
    documents = _corpus(0, 4000)
    kept = [_kept(Sample(share=share), documents) for share in (0.0, 0.2, 0.5, 1.0)]

    assert [len(found) / 4000 for found in kept] == pytest.approx([0, 0.2, 0.5, 1], abs=0.03)
    assert kept[0] < kept[1] < kept[2] < kept[3]
    both = len(kept[2] & _kept(Sample(share=0.5, seed=1), documents)) / 4000
    assert both == pytest.approx(0.25, abs=0.03)


def test_a_sample_by_field_keeps_values_whole() -> None:
    documents: Documents = {f"d{i}": ("", {"site": f"s{i % 50}"}) for i in range(500)}
    kept = _kept(Sample(share=0.5, field="site"), documents)
    sites = {documents[doc_id][1]["site"] for doc_id in kept}

    assert kept == {i for i, (_, facts) in documents.items() if facts["site"] in sites}
    assert 10 < len(sites) < 40


def _limit_twin(rule: Limit, documents: Documents) -> set[str]:
    scores = _scores(documents, rule.seed)
    tokens: dict[str | None, int] = {}
    counts: dict[str | None, int] = {}
    kept = set()
    for doc_id in sorted(documents, key=lambda i: (scores[i], i)):
        text, facts = documents[doc_id]
        name = _group(facts) if rule.per else None
        total = tokens.get(name, 0) + _tokens(text)
        number = counts.get(name, 0) + 1
        if total <= (rule.max_tokens if rule.max_tokens is not None else 1 << 60) and number <= (
            rule.max_documents if rule.max_documents is not None else 1 << 60
        ):
            tokens[name], counts[name] = total, number
            kept.add(doc_id)
    return kept


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 99),
    st.one_of(st.none(), st.integers(0, 3000)),
    st.integers(0, 60),
    st.sampled_from([None, "lang"]),
    st.integers(0, 3),
)
def test_a_limit_fills_budgets_as_a_plain_twin_does(
    corpus: int, max_tokens: int | None, max_documents: int, per: str | None, seed: int
) -> None:
    rule = Limit(max_tokens=max_tokens, max_documents=max_documents, per=per, seed=seed)
    documents = _corpus(corpus)

    assert _kept(rule, documents) == _limit_twin(rule, documents)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 99),
    st.dictionaries(st.sampled_from(["en", "de", "fr", "7", "xx"]), st.integers(1, 9), min_size=1),
)
def test_a_mix_has_the_shares_asked_for(corpus: int, weights: dict[str, float]) -> None:
    documents = _corpus(corpus)
    kept = _kept(Mix(weights=weights, field="lang"), documents)
    have: dict[str | None, int] = {}
    left: dict[str | None, int] = {}
    for doc_id, (text, facts) in documents.items():
        name = _group(facts)
        have[name] = have.get(name, 0) + _tokens(text)
        left[name] = left.get(name, 0) + (_tokens(text) if doc_id in kept else 0)
    present = {name: weight for name, weight in weights.items() if have.get(name)}
    scale = min((have[name] / weight for name, weight in present.items()), default=0)

    assert {name for name in left if left[name]} == set(present)
    for name, weight in present.items():
        assert scale * weight - 100 <= left[name] <= scale * weight + 1e-6
    if present:
        scarcest = min(present, key=lambda name: have[name] / present[name])
        assert left[scarcest] == have[scarcest]


def test_groups_without_a_weight_are_told_apart() -> None:
    documents: Documents = {
        "a": ("x" * 40, {"lang": "en"}),
        "b": ("", {"lang": "de"}),
        "c": ("y", {}),
        "d": ("x" * 4, {"lang": "en"}),
    }
    rows = _decided(Mix(weights={"en": 1, "de": 0, "fr": 2}, field="lang"), documents)

    assert [(row["doc_id"], row["rule"]) for row in rows] == [
        ("b", "mix.no_weight"),
        ("c", "mix.no_weight"),
    ]


RULES: list[Any] = [
    URLS,
    Sample(share=0.4, seed=3),
    Sample(share=0.4, field="lang"),
    Limit(max_tokens=900, per="lang"),
    Mix(weights={"en": 1, "de": 3}, field="lang"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_random_histories_of_samples_end_in_the_verdicts_of_a_fresh_run(rule: Any) -> None:
    rng = random.Random(11)
    pool = list(_corpus(1, 60).values())
    documents: Documents = {}
    remembered: dict[str, Any] = {}
    for _ in range(60):
        doc_id = f"d{rng.randrange(30)}"
        if rng.random() < 0.3:
            documents.pop(doc_id, None)
        else:
            text, facts = rng.choice(pool)
            url = {"url": f"http://{rng.choice(['bad.com', 'ok.org/sex', 'a.org'])}"}
            documents[doc_id] = (text, facts | url)
            remembered[doc_id] = rule.signature(_batch({doc_id: documents[doc_id]}))
        order = sorted(documents)
        ids = pa.chunked_array([pa.array(order, pa.string())])
        chunks = pa.chunked_array([remembered[i] for i in order], rule.signature_type)
        fresh = _decided(rule, {i: documents[i] for i in order})
        assert rule.decide(ids, chunks).to_pylist() == fresh


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_an_empty_corpus_has_no_verdicts(rule: Any) -> None:
    assert isinstance(rule, Decision)
    assert _decided(rule, {}) == []


def test_what_only_decides_is_no_part_of_the_fingerprint() -> None:
    assert fingerprint(Sample(share=0.1)) == fingerprint(Sample(share=0.2, seed=4))
    assert fingerprint(Limit(max_tokens=1, per="x")) == fingerprint(Limit(max_documents=2, per="x"))
    assert fingerprint(Limit(max_tokens=1)) != fingerprint(Limit(max_tokens=1, per="x"))
    assert fingerprint(Mix(weights={"a": 1}, field="x")) == fingerprint(
        Mix(weights={"b": 2}, field="x")
    )


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (UrlFilter, {}),
        (UrlFilter, {"blocked_domains": "bad.com"}),
        (UrlFilter, {"blocked_domains": ["bad.com/path"]}),
        (UrlFilter, {"blocked_domains": Path("no/such/file")}),
        (UrlFilter, {"blocked_domains": 7}),
        (UrlFilter, {"blocked_words": ["two words"]}),
        (UrlFilter, {"blocked_words": [""]}),
        (UrlFilter, {"blocked_words": ["x"], "field": ""}),
        (UrlFilter, {"soft_words": ["x"], "max_soft_words": -1}),
        (Sample, {"share": 1.1}),
        (Sample, {"share": True}),
        (Sample, {"share": float("nan")}),
        (Sample, {"share": 0.5, "seed": -1}),
        (Sample, {"share": 0.5, "field": ""}),
        (Limit, {}),
        (Limit, {"max_tokens": -1}),
        (Limit, {"max_documents": 1.5}),
        (Limit, {"max_documents": 1, "per": 3}),
        (Mix, {"weights": {}, "field": "x"}),
        (Mix, {"weights": {"a": -1}, "field": "x"}),
        (Mix, {"weights": {"a": 0}, "field": "x"}),
        (Mix, {"weights": {1: 1}, "field": "x"}),
        (Mix, {"weights": {"a": float("inf")}, "field": "x"}),
        (Mix, {"weights": {"a": 1}, "field": ""}),
    ],
)
def test_invalid_settings_of_filters_and_samples_are_errors(
    kind: Any, given: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(**given)
