from __future__ import annotations

import gzip
import json
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import near_twins

from penstock.decisions import overlap, overlap_checks
from penstock.decisions.decontaminate import HITS, Decontaminate
from penstock.decisions.eval_sets import EvalSet
from penstock.errors import ConfigError, PenstockError, SourceError
from penstock.fingerprint import fingerprint
from penstock.records import VERDICTS

QUESTIONS = (
    "How many boats came home in the morning if seven of them left on Monday and nine on Friday?",
    "A train leaves the station at noon and runs for three hours, so when does it come to a stop?",
    "Which of the two brothers sold his horse to the miller in the spring of that long dry year?",
)
SHORT = "Why do cats always land on all four feet?"  # nine words


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def quiz(tmp_path: Path) -> EvalSet:
    rows = [{"question": text, "answer": "yes"} for text in (*QUESTIONS, SHORT, "Why?")]
    return EvalSet(str(_write(tmp_path / "quiz.jsonl", rows)), ("question",))


def _signed(step: Decontaminate, texts: list[str]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    ids = pa.array([f"{i:03d}" for i in range(len(texts))], pa.string())
    signature = step.signature(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert signature.type == step.signature_type
    return pa.chunked_array([ids]), pa.chunked_array([signature])


def _decided(step: Decontaminate, texts: list[str]) -> list[tuple[str, str, float]]:
    table = step.decide(*_signed(step, texts))
    assert table.schema == VERDICTS
    return [(row["doc_id"], row["rule"], row["score"]) for row in table.to_pylist()]


def test_drops_a_document_that_holds_an_item(quiz: EvalSet) -> None:
    texts = ["Nothing of the kind.", f"Before. {QUESTIONS[1]} After.", ""]

    assert _decided(Decontaminate(against=(quiz,)), texts) == [("001", "decontaminate.quiz", 8.0)]


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(QUESTIONS[0].upper(), id="case"),
        pytest.param(QUESTIONS[0].replace(" ", "\n"), id="line-breaks"),
        pytest.param(QUESTIONS[0].replace(" ", " -- ").replace("?", "!"), id="punctuation"),
        pytest.param(" ".join(QUESTIONS[0].split()[3:16]), id="one-run-of-13-words"),
    ],
)
@pytest.mark.parametrize("method", ["ngram13", "coverage8"])
def test_finds_an_item_however_it_is_written(quiz: EvalSet, written: str, method: Any) -> None:
    step = Decontaminate(against=(quiz,), method=method)

    assert [row[0] for row in _decided(step, ["None.", f"So: {written} Right."])] == ["001"]


def test_twelve_words_are_no_hit_of_runs_of_13(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))

    assert _decided(step, [" ".join(QUESTIONS[0].split()[:12])]) == []


@pytest.mark.parametrize(
    ("num_words", "dropped"),
    [pytest.param(9, False, id="half"), pytest.param(10, True, id="more-than-half")],
)
def test_coverage_must_exceed_half_of_the_item(
    tmp_path: Path, num_words: int, dropped: bool
) -> None:
    words = [f"word{i}" for i in range(18)]
    path = _write(tmp_path / "a.jsonl", [{"q": " ".join(words)}])
    step = Decontaminate(against=(EvalSet(str(path), ("q",)),), method="coverage8")

    found = _decided(step, ["x " + " ".join(words[:num_words]) + " y"])

    assert found == ([("000", "decontaminate.a", num_words / 18)] if dropped else [])


def test_coverage_adds_up_pieces_of_one_document_alone(tmp_path: Path) -> None:
    words = [f"word{i}" for i in range(24)]
    path = _write(tmp_path / "a.jsonl", [{"q": " ".join(words)}])
    step = Decontaminate(against=(EvalSet(str(path), ("q",)),), method="coverage8")
    pieces = [" ".join(words[:8]), " ".join(words[16:])]

    assert _decided(step, [*pieces, " and ".join(pieces)]) == [("002", "decontaminate.a", 16 / 24)]


def test_an_item_shorter_than_a_run_matches_as_a_whole(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))

    found = _decided(step, [SHORT, SHORT.rpartition(" ")[0], "Why? Why?"])

    assert found == [("000", "decontaminate.quiz", 1.0)]


def test_runs_that_too_many_documents_hold_are_ignored(quiz: EvalSet) -> None:
    texts = [QUESTIONS[0]] * 11 + [QUESTIONS[1]] * 10
    step = Decontaminate(against=(quiz,))
    ids, signature = _signed(step, texts)

    assert step.decide(ids, signature)["doc_id"].to_pylist() == ids.to_pylist()[11:]
    common = step.common_runs(signature)
    assert len(common) == 7
    report = step.report(ids, signature)
    assert (report.runs_ignored, report.documents_hit, report.documents_below) == (7, 10, 11)
    assert step.evidence(QUESTIONS[0], common.to_pylist()) == []
    assert step.evidence(QUESTIONS[0])[0].item == 0
    for lifted in (None, 11):
        every = Decontaminate(against=(quiz,), max_documents=lifted)
        assert every.decide(ids, signature).num_rows == 21


def test_evidence_tells_the_spans_on_both_sides(tmp_path: Path) -> None:
    item = "«Été» à la mer: où sont donc les bateaux qui ne sont jamais rentrés au port hier soir?"
    path = _write(tmp_path / "a.jsonl", [{"q": "Other things"}, {"q": item}])
    step = Decontaminate(against=(EvalSet(str(path), ("q",), "fr"),), min_words=2)
    text = f"Ça… {item[1:].upper()} Fin.".replace(" QUI", "\nQUI")

    (found,) = step.evidence(text)

    assert (found.set, found.item, found.item_text, found.coverage) == ("fr", 1, item, 1.0)
    (span,) = found.spans
    assert span.text == text[slice(*span.document)]
    assert span.text == text[4:-6].rstrip("? ")
    assert item[slice(*span.item)] == item[1:-1]
    assert span.num_words == found.matched_runs + 12 == 18


def test_evidence_has_a_span_for_each_piece(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(30)]
    path = _write(tmp_path / "a.jsonl", [{"q": " ".join(words)}])
    step = Decontaminate(against=(EvalSet(str(path), ("q",)),), method="coverage8")
    text = " ".join(["a", *words[15:], "b", *words[:9], "c"])

    (found,) = step.evidence(text)

    assert [(span.num_words, span.text.split()[0]) for span in found.spans] == [
        (15, "w15"),
        (9, "w0"),
    ]


def test_hits_tell_every_item_the_best_first(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))
    part = " ".join(QUESTIONS[2].split()[:14])

    table = step.hits(*_signed(step, ["", f"{part}. {QUESTIONS[0]}"]))

    assert table.schema == HITS
    assert [(row["doc_id"], row["item"], row["matched_runs"]) for row in table.to_pylist()] == [
        ("001", 0, 7),
        ("001", 2, 2),
    ]
    assert table["covered_words"].to_pylist() == [19, 14]


def test_the_verdict_names_the_set_of_the_best_item(tmp_path: Path) -> None:
    one = EvalSet(str(_write(tmp_path / "a.jsonl", [{"q": QUESTIONS[0][:72]}])), ("q",))
    two = EvalSet(str(_write(tmp_path / "b.jsonl", [{"q": QUESTIONS[0]}])), ("q",))
    step = Decontaminate(against=(one, two))

    assert _decided(step, [QUESTIONS[0]])[0][1] == "decontaminate.b"
    sets = step.report(*_signed(step, [QUESTIONS[0]])).sets
    assert [one.documents_hit for one in sets] == [1, 1]


def test_flagged_documents_are_kept_with_rule_and_score(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,), action="flag")

    (row,) = step.decide(*_signed(step, [QUESTIONS[0]])).to_pylist()

    assert (row["verdict"], row["rule"], row["score"]) == ("kept", "decontaminate.quiz", 7.0)


def test_a_report_without_hits_says_what_was_looked_for(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))

    report = step.report(*_signed(step, ["No.", "No!"]))

    (one,) = report.sets
    assert (report.documents, report.documents_hit, report.runs) == (2, 0, 7 + 8 + 7 + 1)
    assert (one.items, one.items_whole, one.items_too_short) == (5, 1, 1)
    assert (one.planted, one.runs, one.documents_hit) == (4, 23, 0)
    assert json.loads(report.to_json())["sets"][0]["items"] == 5
    assert "2 documents scanned, 0 hold an item" in report.to_text()
    assert "4 of 4 planted items found" in report.to_text()


def test_the_first_use_raises_where_the_search_finds_nothing(
    quiz: EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(index: overlap.Index, text: pa.Array) -> Any:
        return (np.zeros(0, np.int64),) * 3

    monkeypatch.setattr(overlap_checks, "matched_runs", nothing)

    with pytest.raises(PenstockError, match="planted 4 items of 'quiz' and missed 4"):
        _signed(Decontaminate(against=(quiz,)), ["a"])


@pytest.mark.parametrize(
    ("packed", "write"),
    [
        pytest.param("q.jsonl", lambda path, data: path.write_bytes(data), id="lines"),
        pytest.param(
            "q.jsonl.gz", lambda path, data: path.write_bytes(gzip.compress(data)), id="gz"
        ),
        pytest.param(
            "q.jsonl.zst", lambda path, data: path.write_bytes(zstandard.compress(data)), id="zst"
        ),
        pytest.param("q.json", lambda path, data: path.write_bytes(data), id="lines-named-json"),
        pytest.param(
            "q.json",
            lambda path, data: path.write_text(
                json.dumps([json.loads(s) for s in data.split(b"\n")])
            ),
            id="list",
        ),
        pytest.param(
            "q.json",
            lambda path, data: path.write_text(
                json.dumps({"name": "x", "rows": [json.loads(s) for s in data.split(b"\n")]})
            ),
            id="object-with-a-list",
        ),
        pytest.param(
            "q.parquet",
            lambda path, data: pq.write_table(
                pa.Table.from_pylist([json.loads(s) for s in data.split(b"\n")]), path
            ),
            id="parquet",
        ),
    ],
)
def test_reads_columns_of_every_format(tmp_path: Path, packed: str, write: Any) -> None:
    rows = [
        {"q": {"stem": "One é?", "of": [{"t": "a"}, {"t": "b"}]}, "n": 7, "id": 1},
        {"q": {"stem": None, "of": []}, "n": None, "id": 2},
    ]
    write(tmp_path / packed, "\n".join(json.dumps(row) for row in rows).encode())

    one = EvalSet(tmp_path / packed, ["q.stem", "q.of.t", "n"])

    assert one.title == "q"
    assert one.read() == ["One é?\na\nb\n7", ""]


@pytest.mark.parametrize(
    ("name", "data", "columns", "says"),
    [
        pytest.param("a.jsonl", '{"q": "x"}', ("question",), "column 'question'", id="column"),
        pytest.param("a.jsonl", '{"q": null}', ("q",), "anything in a column", id="only-nulls"),
        pytest.param("a.jsonl", '{"q": " "}', ("q",), "no item has text", id="no-text"),
        pytest.param("a.jsonl", '{"q": {"r": ""}}', ("q",), "column.r", id="an-object"),
        pytest.param("a.jsonl", "", ("q",), "no items", id="empty"),
        pytest.param("a.json", "[]", ("q",), "no items", id="empty-list"),
        pytest.param("a.json", "7", ("q",), "a list of objects", id="a-number"),
        pytest.param("a.json", '{"a": 1}', ("q",), "hold one such list", id="no-list"),
        pytest.param("a.json", '["text"]', ("q",), "item 0 is not an object", id="texts"),
        pytest.param("a.jsonl", '{"q": "x"}\n{"q', ("q",), "line 2", id="broken-line"),
        pytest.param("a.parquet", "no", ("q",), "cannot be read as .parquet", id="no-parquet"),
        pytest.param("a.jsonl.gz", "no", ("q",), "cannot be read", id="not-gzip"),
        pytest.param("a.jsonl", None, ("q",), "does not exist", id="no-file"),
    ],
)
def test_a_set_that_holds_nothing_to_look_for_is_an_error(
    tmp_path: Path, name: str, data: str | None, columns: tuple[str, ...], says: str
) -> None:
    if data is not None:
        (tmp_path / name).write_text(data)

    with pytest.raises(SourceError, match=says):
        Decontaminate(against=(EvalSet(str(tmp_path / name), columns),))


def test_a_column_that_parquet_lacks_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")

    with pytest.raises(SourceError, match="no column 'q', but text"):
        Decontaminate(against=(EvalSet(str(tmp_path / "a.parquet"), ("q",)),))


def test_a_set_of_items_that_are_all_too_short_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"q": "one two three"}])
    step = Decontaminate(against=(EvalSet(str(path), ("q",)),))

    with pytest.raises(ConfigError, match="3 words at most; lower min_words"):
        _signed(step, ["a"])


def test_a_set_that_changes_after_construction_is_an_error(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))
    Path(quiz.path).write_text(json.dumps({"question": QUESTIONS[0] + " Or so, on the whole."}))

    with pytest.raises(SourceError, match="has changed"):
        _signed(step, ["a"])


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"against": ()}, id="no-set"),
        pytest.param({"against": ("a.jsonl",)}, id="a-path"),
        pytest.param({"method": "ngram12"}, id="method"),
        pytest.param({"action": "keep"}, id="action"),
        pytest.param({"words": 0}, id="no-words"),
        pytest.param({"words": 65}, id="too-many-words"),
        pytest.param({"min_words": 14}, id="min-words-above-words"),
        pytest.param({"min_words": True}, id="a-bool"),
        pytest.param({"min_coverage": 1.0}, id="coverage-of-1"),
        pytest.param({"min_coverage": -0.1}, id="coverage-below-0"),
        pytest.param({"max_documents": 0}, id="no-documents"),
    ],
)
def test_refuses_wrong_settings(quiz: EvalSet, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Decontaminate(**{"against": (quiz,), **given})


def test_refuses_two_sets_of_one_name(quiz: EvalSet) -> None:
    with pytest.raises(ConfigError, match="two sets"):
        Decontaminate(against=(quiz, quiz))


@pytest.mark.parametrize(
    ("path", "columns", "name"),
    [
        pytest.param("a.txt", ("q",), None, id="ending"),
        pytest.param("a.parquet.gz", ("q",), None, id="packed-parquet"),
        pytest.param(7, ("q",), None, id="no-path"),
        pytest.param("a.jsonl", "q", None, id="one-text-for-columns"),
        pytest.param("a.jsonl", (), None, id="no-columns"),
        pytest.param("a.jsonl", ("q",), " ", id="empty-name"),
    ],
)
def test_an_eval_set_refuses_wrong_settings(path: Any, columns: Any, name: Any) -> None:
    with pytest.raises(ConfigError):
        EvalSet(path, columns, name)


def test_the_fingerprint_covers_the_items_and_not_what_decides(
    quiz: EvalSet, tmp_path: Path
) -> None:
    step = Decontaminate(against=(quiz,))
    copy = EvalSet(str(tmp_path / "copy.json"), ("question",), "other name")
    Path(copy.path).write_bytes(Path(quiz.path).read_bytes())
    same = [
        Decontaminate(against=(copy,)),
        Decontaminate(against=(quiz,), max_documents=3, action="flag"),
        pickle.loads(pickle.dumps(step)),
    ]
    other = [
        Decontaminate(against=(EvalSet(quiz.path, ("question", "answer")),)),
        Decontaminate(against=(quiz,), words=12),
        Decontaminate(against=(quiz,), min_words=7),
        Decontaminate(against=(quiz,), method="coverage8"),
    ]

    assert {fingerprint(one) for one in same} == {fingerprint(step)}
    assert fingerprint(step) not in {fingerprint(one) for one in other}
    # The decision itself tells them apart, for a run that asks what to decide anew.
    assert len({repr(one) for one in [step, *same[:2], *other]}) == 7


def test_signatures_do_not_depend_on_the_batch(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))
    texts = ["", QUESTIONS[0], None, "x" * 100_000, QUESTIONS[1] * 3]

    whole = step.signature(pa.record_batch({"text": pa.array(texts, pa.large_string())}))

    column = pa.array(["padding", *texts], pa.large_string())[1:]
    parts = [step.signature(pa.record_batch({"text": column[i : i + 1]})) for i in range(5)]
    assert pa.concat_arrays(parts).equals(whole)
    assert whole.value_lengths().to_pylist() == [0, 7, 0, 0, 8]


def test_no_documents_have_no_hits(quiz: EvalSet) -> None:
    step = Decontaminate(against=(quiz,))
    none = pa.chunked_array([], pa.string()), pa.chunked_array([], step.signature_type)

    assert step.decide(*none).num_rows == step.hits(*none).num_rows == 0
    assert step.report(*none).documents == 0


@pytest.mark.parametrize(
    "item",
    [
        pytest.param("早上船回来了，码头上没有人对此说一句话。", id="chinese"),
        pytest.param("عادت القوارب في الصباح ولم يقل أحد على الرصيف كلمة عنه", id="arabic"),
        pytest.param("เรือกลับมาในตอนเช้า และไม่มีใครพูดอะไร", id="thai"),
    ],
)
@pytest.mark.parametrize("method", ["ngram13", "coverage8"])
def test_finds_items_of_any_script(tmp_path: Path, item: str, method: Any) -> None:
    path = _write(tmp_path / "a.jsonl", [{"q": item}])
    step = Decontaminate(against=(EvalSet(str(path), ("q",)),), method=method)
    text = f"vor {item} nach"

    assert [row[0] for row in _decided(step, ["", text])] == ["001"]
    (span,) = step.evidence(text)[0].spans
    assert span.text == text[slice(*span.document)] == item.rstrip("。")


# What the kernels must equal: the same in plain Python


def _runs(words: list[str], size: int, least: int) -> list[tuple[int, tuple[str, ...]]]:
    length = min(size, len(words))
    if length < least:
        return []
    return [(i, tuple(words[i : i + length])) for i in range(len(words) - length + 1)]


def _twin(
    items: list[str], texts: list[str], size: int, least: int, above: float
) -> list[tuple[int, int, int, int]]:
    """Text, item, covered words and matched runs."""
    found = []
    for number, text in enumerate(texts):
        words = near_twins.words(text)
        has = {tuple(words[i : i + n]) for n in range(least, size + 1) for i in range(len(words))}
        for item, other in enumerate(items):
            places = [i for i, run in _runs(near_twins.words(other), size, least) if run in has]
            length = len(near_twins.words(other))
            covered = {w for i in places for w in range(i, min(i + size, length))}
            if places and len(covered) / length > above:
                found.append((number, item, len(covered), len(places)))
    return found


_TEXTS = st.lists(
    st.lists(st.sampled_from(["a", "B", "é", "船", "c1", "Ab"]), max_size=14).map(" ".join),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=150)
@given(
    items=_TEXTS,
    texts=_TEXTS,
    size=st.integers(1, 6),
    data=st.data(),
    above=st.sampled_from([-1.0, 0.0, 0.4, 0.5, 0.9]),
)
def test_equals_the_search_in_plain_python(
    items: list[str], texts: list[str], size: int, data: st.DataObject, above: float
) -> None:
    least = data.draw(st.integers(1, size))
    index = overlap.build([items], size, least)
    rows, keys, _ = overlap.matched_runs(index, pa.array(texts, pa.large_string()))
    runs_of = defaultdict(set)
    for row, key in zip(rows.tolist(), keys.tolist(), strict=True):
        runs_of[row].add(int(index.keys[key]))
    signature = pa.array([sorted(runs_of[i]) for i in range(len(texts))], pa.list_(pa.uint64()))

    found = index.cover(signature, np.zeros(len(index.keys), np.bool_), above)

    columns = (found.documents, found.items, found.covered, found.matched)
    rows_found = sorted(zip(*(column.tolist() for column in columns), strict=True))
    assert rows_found == _twin(items, texts, size, least, above)


@settings(deadline=None, max_examples=200)
@given(item=st.text(max_size=60))
def test_planting_keeps_the_words_of_any_text(item: str) -> None:
    filler = near_twins.words(overlap_checks._FILLER)

    words = near_twins.words(overlap_checks.planted(item))

    assert words == [*filler, *near_twins.words(item), *filler]


def test_finds_everything_where_there_is_more_than_room_for(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(9000)]
    path = _write(tmp_path / "a.jsonl", [{"q": " ".join(words)}] * 2)
    step = Decontaminate(against=(EvalSet(str(path), ("q",)),), method="coverage8")
    texts = [" ".join(words)]

    assert _decided(step, texts) == [("000", "decontaminate.a", 1.0)]
    assert step.evidence(texts[0])[1].spans[0].num_words == 9000
