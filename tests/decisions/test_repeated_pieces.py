from __future__ import annotations

import random
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.decisions._pieces import group
from penstock.decisions.paragraphs import LineDedup, ParagraphDedup
from penstock.decisions.substrings import SubstringDedup
from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint
from penstock.kernels import minhash
from penstock.protocols import Cutting, Decision
from penstock.records import CUTS, VERDICTS
from penstock.store.edits import without

RULES: list[Any] = [
    ParagraphDedup(),
    LineDedup(max_documents=2, max_share=0.3),
    SubstringDedup(min_tokens=4, window=3, max_share=0.4),
]
IDS = ["paragraphs", "lines", "substrings"]


def _batch(documents: dict[str, str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "doc_id": pa.array(list(documents), pa.string()),
            "text": pa.array(list(documents.values()), pa.large_string()),
        }
    )


def _decided(rule: Any, documents: dict[str, str]) -> list[dict[str, Any]]:
    batch = _batch(documents)
    signature = pa.chunked_array([rule.signature(batch)], rule.signature_type)
    table = rule.decide(pa.chunked_array([batch["doc_id"]], pa.string()), signature)
    assert table.schema == VERDICTS
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _dropped(rule: Any, documents: dict[str, str]) -> dict[str, tuple[float, str | None]]:
    rows = _decided(rule, documents)
    return {row["doc_id"]: (round(row["score"], 9), row["duplicate_of"]) for row in rows}


# Plain twins: words of ASCII letters and digits alone.


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall("[a-z0-9]+", text.lower()))


def _pieces(text: str, separator: str) -> list[tuple[Any, int]]:
    found = []
    for block in re.split(separator, text):
        piece = re.sub(r"^[ \t\r\n]*\n", "", block)
        words = tuple(re.sub("[0-9]", "0", word) for word in _words(piece))
        if words:
            found.append((words, len(piece)))
    return found


def _paragraph_twin(rule: ParagraphDedup, documents: dict[str, str]) -> dict[str, Any]:
    first: dict[Any, str] = {}
    dropped = {}
    for doc_id, text in sorted(documents.items()):
        pieces = _pieces(text, r"\n[ \t\r]*\n")
        repeated = [(words, size) for words, size in pieces if words in first]
        total = sum(size for _, size in pieces)
        share = sum(size for _, size in repeated) / total if total else 0.0
        if share > rule.max_share:
            dropped[doc_id] = (round(share, 9), first[repeated[-1][0]])
        else:
            for words, _ in pieces:
                first.setdefault(words, doc_id)
    return dropped


def _line_twin(rule: LineDedup, documents: dict[str, str]) -> dict[str, Any]:
    pieces = {doc_id: _pieces(text, r"\n") for doc_id, text in documents.items()}
    counts: dict[Any, int] = {}
    for found in pieces.values():
        for words in {words for words, _ in found}:
            counts[words] = counts.get(words, 0) + 1
    dropped = {}
    for doc_id, found in sorted(pieces.items()):
        total = sum(size for _, size in found)
        common = sum(size for words, size in found if counts[words] > rule.max_documents)
        if total and common / total > rule.max_share:
            dropped[doc_id] = (round(common / total, 9), None)
    return dropped


LINES = [
    "Home",
    "about us!",
    "About  US",
    "page 12",
    "Page 34",
    "",
    " ",
    "one two three",
    "--",
    "z",
]
TEXTS = st.lists(st.sampled_from(LINES), max_size=8).map("\n".join)
CORPORA = st.dictionaries(st.sampled_from([f"d{i}" for i in range(8)]), TEXTS, max_size=8)


@settings(deadline=None)
@given(CORPORA, st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_paragraphs_are_judged_as_a_plain_twin_does(
    documents: dict[str, str], max_share: float
) -> None:
    rule = ParagraphDedup(max_share=max_share)

    assert _dropped(rule, documents) == _paragraph_twin(rule, documents)


@settings(deadline=None)
@given(CORPORA, st.sampled_from([0.0, 0.5, 0.9]), st.integers(1, 4))
def test_lines_are_judged_as_a_plain_twin_does(
    documents: dict[str, str], max_share: float, max_documents: int
) -> None:
    rule = LineDedup(max_share=max_share, max_documents=max_documents)

    assert _dropped(rule, documents) == _line_twin(rule, documents)


def _anchors(words: tuple[str, ...], size: int, window: int) -> list[tuple[int, int]]:
    """Least hash of each window of runs, the one before if it is still there and least."""
    units = [_unit(word) for word in words]
    mask = (1 << 64) - 1
    runs = []
    for start in range(len(units) - size + 1):
        value = 0
        for unit in units[start : start + size]:
            value = (value * minhash.BASE + unit) & mask
        runs.append(int(minhash.mix(np.uint64(value))))
    chosen: list[int] = []
    for end in range(min(window, len(runs)), len(runs) + 1) if runs else ():
        seen = range(max(0, end - window), end)
        least = min(runs[i] for i in seen)
        if not chosen or chosen[-1] not in seen or runs[chosen[-1]] != least:
            # The first window is filled from the left, and an equal run does not replace one.
            ties = [i for i in seen if runs[i] == least]
            chosen.append(ties[-1] if chosen else ties[0])
    return [(runs[i], i) for i in chosen]


def _unit(word: str) -> int:
    data = np.frombuffer(word.encode(), np.uint8)
    units = np.empty(2, np.uint64)
    minhash.fill_words(minhash.characters(), data, 0, len(data), units, 0)
    return int(units[0])


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcd"), max_size=40).map(tuple), st.integers(1, 5), st.integers(1, 5)
)
def test_remembered_runs_are_those_of_a_plain_twin(
    words: tuple[str, ...], size: int, window: int
) -> None:
    rule = SubstringDedup(min_tokens=max(size, window), window=window)
    found = rule.signature(_batch({"d": " ".join(words)}))[0].as_py()
    records = np.array([], [("hash", "<u8"), ("value", "<u4")])
    records = np.frombuffer(found, records.dtype) if found else records
    expected = _anchors(words, rule.min_tokens, window)

    assert [(int(h), int(v)) for h, v in records[1:]] == expected
    assert not len(records) or tuple(records[0]) == (0, len(words))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(1, 12), st.data())
def test_every_common_span_of_a_run_and_a_window_is_found(
    seed: int, window: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(window, 20))
    rng = random.Random(seed)
    span = [f"s{rng.randrange(9)}" for _ in range(size + window - 1)]
    left, right = (
        [f"{name}{rng.randrange(99)}" for _ in range(rng.randrange(40))] for name in "lr"
    )
    documents = {
        "a": " ".join([*left, *span, *left]),
        "b": " ".join([*right, *span, *right]),
    }
    rule = SubstringDedup(min_tokens=size, window=window, max_share=0.0)
    share = _dropped(rule, documents)["b"][0]
    num_words = len(documents["b"].split())

    assert size / num_words - 1e-6 <= share <= len(span) / num_words + 1e-6


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32), st.integers(2, 20))
def test_no_span_shorter_than_a_run_is_found(seed: int, size: int) -> None:
    rng = random.Random(seed)
    span = [f"s{rng.randrange(9)}" for _ in range(size - 1)]
    documents = {
        "a": " ".join(["left", *span, "left"]),
        "b": " ".join(["right", *span, "right"]),
    }

    assert _dropped(SubstringDedup(min_tokens=size, window=1, max_share=0.0), documents) == {}


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_random_histories_end_in_the_verdicts_of_a_fresh_run(rule: Any) -> None:
    rng = random.Random(7)
    texts = ["\n\n".join(rng.choices(["a b c d e f", "g h i 1 2 3", "xyz", "q w e r t"], k=4))]
    texts += ["\n".join(rng.choices(LINES, k=rng.randrange(9))) for _ in range(30)] + ["", "…"]
    remembered: dict[str, tuple[str, Any]] = {}
    for _ in range(40):
        doc_id = f"d{rng.randrange(20)}"
        if rng.random() < 0.3:
            remembered.pop(doc_id, None)
        else:
            text = rng.choice(texts) + rng.choice(["", "\n\n", "\n"]) + rng.choice(texts)
            remembered[doc_id] = (text, rule.signature(_batch({doc_id: text}))[0])
        order = sorted(remembered)
        signature = pa.chunked_array(
            [pa.array([remembered[i][1].as_py()], rule.signature_type) for i in order],
            rule.signature_type,
        )
        kept = rule.decide(pa.chunked_array([pa.array(order, pa.string())]), signature)
        fresh = _decided(rule, {i: remembered[i][0] for i in order})
        assert kept.to_pylist() == fresh


@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_order_of_rows_makes_no_difference(rule: Any) -> None:
    documents = {f"d{i}": "a b c d e\n\nf g h i j" for i in range(4)}

    assert _decided(rule, dict(reversed(documents.items()))) == _decided(rule, documents)
    assert len(_decided(rule, documents)) >= 3


@pytest.mark.parametrize("rule", RULES, ids=IDS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "… —\n\n--",
        "a" * 3_000_000,
        "a " * 500_000,
        "\n" * 500_000,
        "שלום עולם " * 99,
        "漢字 " * 99,
    ],
    ids=["empty", "no words", "one letter", "one word", "line feeds", "hebrew", "han"],
)
def test_hard_texts_are_signed_and_decided(rule: Any, text: str) -> None:
    rows = _decided(rule, {"a": text, "b": "other", "c": text})

    assert isinstance(rule, Decision)
    assert all(0 <= row["score"] <= 1 for row in rows)


def test_no_documents_give_no_verdicts() -> None:
    assert [_decided(rule, {}) for rule in RULES] == [[], [], []]


def test_what_only_a_dropped_document_had_stays_in_the_next() -> None:
    documents = {
        "a": "one two three four\n\nfive six seven",
        "b": "one two three four\n\nfive six seven\n\nnew",
        "c": "new",
    }

    assert list(_dropped(ParagraphDedup(), documents)) == ["b"]


def test_short_paragraphs_count_for_the_size_alone() -> None:
    documents = {"a": "menu\n\nfirst text", "b": "menu\n\nother"}

    assert _dropped(ParagraphDedup(max_share=0.0), documents) == {"b": (round(4 / 9, 9), "a")}
    assert _dropped(ParagraphDedup(max_share=0.0, min_words=2), documents) == {}


def _final(rule: Any, documents: dict[str, str]) -> dict[str, str | None]:
    """What is left of the documents that are cut; None for those dropped."""
    batch = _batch(documents)
    ids = pa.chunked_array([batch["doc_id"]], pa.string())
    signature = pa.chunked_array([rule.signature(batch)], rule.signature_type)
    verdicts, cuts = rule.cut(ids, signature)
    assert verdicts.equals(rule.decide(ids, signature))
    kept = verdicts.filter(pc.equal(verdicts["verdict"], "kept"))
    assert kept["doc_id"].to_pylist() == cuts["doc_id"].to_pylist()
    names = cuts["doc_id"].to_pylist()
    text = pa.array([documents[name] for name in names], pa.large_string())
    spans = rule.spans(text, cuts.cast(CUTS)).to_pylist()
    final: dict[str, str | None] = {
        name: without(documents[name].encode(), [(s["start"], s["end"]) for s in found]).decode()
        for name, found in zip(names, spans, strict=True)
    }
    gone = verdicts.filter(pc.equal(verdicts["verdict"], "dropped"))["doc_id"].to_pylist()
    return documents | final | dict.fromkeys(gone, None)


@pytest.mark.parametrize(
    ("rule", "documents", "expected"),
    [
        pytest.param(
            ParagraphDedup(max_share=1.0, action="cut"),
            {"a": "One.\n\ntwo 1\nthree", "b": "new\n\n \none\n\n\nkept", "c": "two 2 three\n\nx"},
            {"b": "new\n\n \nkept", "c": "x"},
            id="paragraphs",
        ),
        pytest.param(
            ParagraphDedup(action="cut"),
            {"a": "One.\n\ntwo", "b": "new\n\none", "c": "one\n\ntwo\n\nc", "d": "three\n\ntwo"},
            {"b": "new\n\n", "c": None, "d": "three\n\n"},
            id="paragraphs-of-what-stays",
        ),
        pytest.param(
            LineDedup(max_documents=1, action="cut", max_share=0.9),
            {"a": "Home\nfirst\n", "b": "  home!\n\nsecond\nHOME", "c": "third", "d": "home"},
            {"a": "first\n", "b": "second\n", "d": None},
            id="lines",
        ),
        pytest.param(
            SubstringDedup(min_tokens=3, window=1, max_share=0.9, action="cut"),
            {"a": "v w x y z", "b": "é, w x (y) z. ü", "c": "q X Y Z\n\nw, x, y! r", "d": "x y z"},
            {"b": "é, . ü", "c": "q ! r", "d": None},
            id="substrings",
        ),
        pytest.param(
            ParagraphDedup(max_share=1.0, action="cut"), {"a": "One", "b": "one"}, {"b": None},
            id="nothing-would-be-left",
        ),
    ],
)  # fmt: skip
def test_repetitions_can_be_cut(
    rule: Any, documents: dict[str, str], expected: dict[str, str | None]
) -> None:
    assert isinstance(rule, Cutting)
    assert _final(rule, documents) == documents | expected


def test_spans_name_the_document_that_has_the_same() -> None:
    rule = ParagraphDedup(max_share=1.0, action="cut")
    documents = {"a": "one\n\ntwo", "b": "three", "c": "one\n\nnew\n\nthree\n\ntwo\n\none"}
    batch = _batch(documents)
    _, cuts = rule.cut(
        pa.chunked_array([batch["doc_id"]]), pa.chunked_array([rule.signature(batch)])
    )
    (spans,) = rule.spans(pa.array([documents["c"]], pa.large_string()), cuts).to_pylist()

    assert [(s["start"], s["end"], s["duplicate_of"]) for s in spans] == [
        (0, 5, "a"), (10, 17, "b"), (17, 25, "a")
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(CORPORA, st.sampled_from([0.3, 1.0]))
def test_no_paragraph_of_what_is_left_repeats_one_before(
    documents: dict[str, str], max_share: float
) -> None:
    final = _final(ParagraphDedup(max_share=max_share, action="cut"), documents)
    seen: set[Any] = set()
    for _, text in sorted(final.items()):
        words = {words for words, _ in _pieces(text or "", r"\n[ \t\r]*\n")}
        assert not words & seen
        seen |= words
    whole = {words for text in documents.values() for words, _ in _pieces(text, r"\n[ \t\r]*\n")}
    assert max_share < 1.0 or seen == whole


@pytest.mark.parametrize(
    "kind", [ParagraphDedup, LineDedup, SubstringDedup], ids=["paragraphs", "lines", "substrings"]
)
def test_what_is_only_flagged_stays_and_has_the_score(kind: Any) -> None:
    few = {"max_documents": 1} if kind is LineDedup else {}
    few |= {"min_tokens": 3, "window": 1} if kind is SubstringDedup else {}
    documents = {"a": "one two three", "b": "one two three", "c": "one two three\n\nx y z v w t u"}
    flagged = _decided(kind(action="flag", **few), documents)
    dropped = _decided(kind(action="drop", **few), documents)

    assert [(row["doc_id"], row["verdict"]) for row in dropped][-1] == ("b", "dropped")
    assert [{**row, "verdict": "dropped"} for row in flagged] == dropped
    assert kind(action="flag").cut_by is kind().cut_by is None


@given(st.lists(st.integers(0, 6), max_size=30))
def test_hashes_that_occur_twice_are_numbered(values: list[int]) -> None:
    groups, num_groups = group(np.array(values, np.uint64))
    several = {v for v in values if v and values.count(v) > 1}

    assert len(set(groups[groups >= 0].tolist())) == num_groups == len(several)
    assert [g >= 0 for g in groups.tolist()] == [v in several for v in values]
    assert len({(v, g) for v, g in zip(values, groups.tolist(), strict=True) if g >= 0}) == (
        num_groups
    )


def test_thresholds_are_no_part_of_the_fingerprint() -> None:
    assert fingerprint(ParagraphDedup()) == fingerprint(ParagraphDedup(max_share=0.9))
    assert fingerprint(LineDedup()) == fingerprint(LineDedup(max_share=0.9, max_documents=2))
    assert fingerprint(SubstringDedup()) == fingerprint(SubstringDedup(max_share=0.9))
    assert fingerprint(ParagraphDedup()) == fingerprint(ParagraphDedup(action="cut"))
    assert fingerprint(SubstringDedup()) != fingerprint(SubstringDedup(window=9))


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ParagraphDedup, {"max_share": 1.5}),
        (ParagraphDedup, {"max_share": None}),
        (ParagraphDedup, {"min_words": 0}),
        (LineDedup, {"max_documents": 0}),
        (LineDedup, {"max_documents": True}),
        (SubstringDedup, {"min_tokens": 0}),
        (SubstringDedup, {"window": 51}),
        (SubstringDedup, {"max_share": -0.1}),
        (ParagraphDedup, {"action": "remove"}),
        (LineDedup, {"action": None}),
        (SubstringDedup, {"action": "keep"}),
    ],
)
def test_invalid_settings_of_duplicates_are_errors(kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(**given)


def test_the_file_that_uses_word_cutting_names_it_by_its_checksum() -> None:
    source = Path(minhash.__file__)
    checksum = f"_MINHASH = 0x{zlib.crc32(source.read_bytes()):08X}\n"
    users = [p for p in source.parent.glob("*.py") if "kernels.minhash import" in p.read_text()]

    assert "paragraphs.py" in [path.name for path in users]
    assert checksum in source.with_name("paragraphs.py").read_text(), checksum
