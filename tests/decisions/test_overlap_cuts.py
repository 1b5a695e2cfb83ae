from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import ConfigError
from penstock.fingerprint import fingerprint
from penstock.protocols import Cutting
from penstock.store.edits import without

ITEM = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
TIGHT: dict[str, Any] = {"around_chars": 0, "min_piece_chars": 0}


@pytest.fixture
def quiz(tmp_path: Path) -> ps.EvalSet:
    path = tmp_path / "quiz.jsonl"
    path.write_text(json.dumps({"q": "What?"}) + "\n" + json.dumps({"q": ITEM}) + "\n")
    return ps.EvalSet(path, ["q"])


def _cut(step: ps.Decontaminate, texts: list[str]) -> tuple[pa.Table, list[Any]]:
    """The verdicts, and what is left of each text that holds an item; None for nothing."""
    ids = pa.chunked_array([[f"{i:03d}" for i in range(len(texts))]], pa.string())
    column = pa.array(texts, pa.large_string())
    signature = pa.chunked_array([step.signature(pa.record_batch({"text": column}))])
    verdicts, cuts = step.cut(ids, signature)
    assert verdicts.equals(step.decide(ids, signature))
    assert cuts["doc_id"].to_pylist() == verdicts["doc_id"].to_pylist()
    held = [texts[int(name)] for name in cuts["doc_id"].to_pylist()]
    spans = step.spans(pa.array(held, pa.large_string()), cuts).to_pylist()
    left = [
        None if f is None else without(t.encode(), [(s["start"], s["end"]) for s in f]).decode()
        for t, f in zip(held, spans, strict=True)
    ]
    return verdicts, left


@pytest.mark.parametrize(
    ("text", "settings", "left"),
    [
        pytest.param(f"é{'a' * 9} {ITEM} {'b' * 9}", {}, f"é{'a' * 9}  {'b' * 9}", id="inside"),
        pytest.param(f"{ITEM.upper()}. The rest", {}, " The rest", id="at-the-start"),
        pytest.param(f"« {ITEM} »", {"min_piece_chars": 2}, None, id="nothing-left"),
        pytest.param(
            f"aaaa bbbb {ITEM} cccc dddd", {"around_chars": 3}, "aaaa  dddd", id="to-white-space"
        ),
        pytest.param(f"漢{'字' * 99}{ITEM}", {"around_chars": 2}, f"漢{'字' * 97}", id="no-space"),
        pytest.param(
            f"a long piece {ITEM} b", {"min_piece_chars": 2}, "a long piece ", id="short-piece"
        ),
        pytest.param(
            f"a long piece {ITEM} b {ITEM} another", {"min_piece_chars": 2},
            "a long piece  another", id="short-piece-between",
        ),
        pytest.param(f"a {ITEM} b {ITEM} c", {"max_pieces": 2}, None, id="too-many-pieces"),
        pytest.param(f"a {ITEM} b {ITEM} c", {"max_pieces": 3}, "a  b  c", id="three-pieces"),
    ],
)  # fmt: skip
def test_what_an_item_has_is_cut(
    quiz: ps.EvalSet, text: str, settings: dict[str, Any], left: str | None
) -> None:
    step = ps.Decontaminate(against=[quiz], action="cut", **TIGHT | settings)
    verdicts, found = _cut(step, ["No item.", text])

    assert isinstance(step, Cutting)
    assert found == [left]
    assert verdicts.to_pylist()[0]["rule"] == "decontaminate.quiz"
    assert verdicts["verdict"].to_pylist() == ["kept"]


def test_spans_name_the_item(quiz: ps.EvalSet) -> None:
    step = ps.Decontaminate(against=(quiz,), action="cut", **TIGHT)
    column = pa.array([f"Before {ITEM} after"], pa.large_string())
    signature = pa.chunked_array([step.signature(pa.record_batch({"text": column}))])
    _, cuts = step.cut(pa.chunked_array([["a"]]), signature)

    assert step.spans(column, cuts).to_pylist() == [
        [{"start": 7, "end": 7 + len(ITEM), "duplicate_of": "quiz#1"}]
    ]


def test_runs_that_too_many_documents_hold_stay(quiz: ps.EvalSet) -> None:
    head, tail = ITEM.rsplit(" ", 1)
    texts = [f"text {head} more"] * 3 + [f"text {head} {tail} more"]
    step = ps.Decontaminate(against=(quiz,), action="cut", max_documents=3, **TIGHT)
    _, left = _cut(step, texts)

    # The first 13 words are in four documents; the last 13 in one.
    assert left == ["text one  more"]


def test_nothing_is_found_in_what_is_left(tmp_path: Path) -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(60)]
    items = [" ".join(rng.choices(words, k=20)) for _ in range(9)]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps({"q": item}) + "\n" for item in items))
    texts = [
        " ".join(
            " ".join(item.split()[rng.randrange(5) :]) if rng.random() < 0.5 else filler
            for item in rng.choices(items, k=6)
            for filler in [" ".join(rng.choices(words, k=30)) + ".\n"]
        )
        for _ in range(30)
    ]
    for method in ("ngram13", "coverage8"):
        settings: dict[str, Any] = {"method": method, "max_documents": None}
        step = ps.Decontaminate(
            against=(ps.EvalSet(path, ["q"]),), action="cut", **settings, **TIGHT
        )
        _, left = _cut(step, texts)

        assert len(left) > 20
        assert not len(_cut(step, [text for text in left if text])[0])


def test_a_flow_cuts_and_drops_what_too_little_is_left_of(quiz: ps.EvalSet, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "clean.txt").write_text("Nothing of that kind.")
    (tree / "cut.txt").write_text(f"{'Some text. ' * 60}{ITEM} {'More text. ' * 60}")
    (tree / "gone.txt").write_text(f"Short. {ITEM} Short.")
    step = ps.Decontaminate(against=(quiz,), action="cut")
    report = ps.Flow(source=ps.files(tree), steps=[ps.Normalize(), step, ps.Chunk()]).run(
        tmp_path / "store"
    )
    store = ps.Store.open(tmp_path / "store")
    verdicts = {row["doc_id"]: row for row in store.verdicts().to_pylist()}
    (text,) = store.documents(["text"], where="doc_id = 'cut.txt'")["text"].to_pylist()

    assert verdicts["gone.txt"]["verdict"] == "dropped"
    assert verdicts["cut.txt"]["verdict"] == "kept"
    assert verdicts["cut.txt"]["rule"] == "decontaminate.quiz"
    assert "seven" not in text
    assert 840 < len(text) <= 920
    assert report.funnel[-1].dropped == 1
    assert not store.search("seven eight", 5)


def test_settings_of_cuts_are_no_part_of_signatures(quiz: ps.EvalSet) -> None:
    step = ps.Decontaminate(against=(quiz,), action="cut")
    other = ps.Decontaminate(against=(quiz,), action="cut", around_chars=1)

    assert fingerprint(step) == fingerprint(other) == fingerprint(ps.Decontaminate(against=[quiz]))
    assert step.cut_by != other.cut_by
    assert ps.Decontaminate(against=(quiz,), action="flag").cut_by is None


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"around_chars": -1}, id="around"),
        pytest.param({"min_piece_chars": 1.5}, id="piece"),
        pytest.param({"max_pieces": 0}, id="pieces"),
        pytest.param({"action": "remove"}, id="action"),
    ],
)
def test_invalid_settings_of_cuts_are_errors(quiz: ps.EvalSet, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        ps.Decontaminate(**{"against": (quiz,), **given})
