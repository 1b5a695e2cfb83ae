"""`penstock eval` compares two ways to search; `penstock tune` says what it chose and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import penstock as ps
from penstock.cli.app import app
from penstock.errors import QueryError
from penstock.index.compare import Difference
from penstock.index.tune import SETTINGS, Setting, Tuned

_WORDS = ["apple", "banana", "cherry", "damson", "elder", "fig"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A store of two runs; in the first, the documents of the last two queries are not there."""
    docs, store = tmp_path / "docs", tmp_path / "store"
    docs.mkdir()
    flow = ps.Flow(source=ps.files(str(docs)), steps=[ps.Chunk()])
    for number in (4, 6):
        for word in _WORDS[:number]:
            (docs / f"{word}.md").write_text(f"# About\n\nThe {word} is a fruit.\n")
        flow.run(store)
    queries = [{"_id": word, "text": f"what is a {word}"} for word in _WORDS]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    qrels = "".join(f"{word}\t{word}.md\t1\n" for word in _WORDS)
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    return store


def _run(command: str, store: Path, *options: object) -> str:
    judged = ["--queries", store.parent / "queries.jsonl", "--qrels", store.parent / "qrels.tsv"]
    arguments = [command, store, *judged, *options]
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_eval_prints_the_measures(corpus: Path) -> None:
    lines = [line.split() for line in _run("eval", corpus).splitlines()]

    assert lines[0][:2] == ["6", "queries"]
    assert lines[1:] == [[name, "1.0000"] for name in ("ndcg@10", "recall@100", "mrr@10", "map")]


def test_eval_compares_two_runs(corpus: Path) -> None:
    text = _run("eval", corpus, "--against-run", "1")
    found = json.loads(_run("eval", corpus, "--against-run", "1", "--json"))

    assert "new  default" in text
    assert "old  run 1" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("mrr@10"))
    assert row[1:4] == ["1.0000", "0.6667", "+0.3333"]
    assert row[-3:] == ["2", "0", "4"]
    assert found["against"]["mrr@10"] == pytest.approx(2 / 3)
    assert found["difference"]["mrr@10"]["better"] == 2
    assert found["difference"]["mrr@10"]["low"] <= 1 / 3 <= found["difference"]["mrr@10"]["high"]


def test_eval_compares_modes_and_settings(corpus: Path) -> None:
    options = ["--mode", "words", "--against-run", "2", "--against-alpha", "0.3", "--json"]

    found = json.loads(_run("eval", corpus, *options))

    assert found["system"] == "words"
    assert found["against_system"] == "run 2, words"  # what it does not name is the same
    assert found["difference"]["map"]["mean"] == 0.0
    assert found["difference"]["map"]["p_value"] == 1.0


def test_eval_writes_each_query(corpus: Path, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone.jsonl", tmp_path / "both.jsonl"
    _run("eval", corpus, "--per-query", alone)
    _run("eval", corpus, "--against-run", "1", "--per-query", both)

    rows = [json.loads(line) for line in alone.read_text().splitlines()]
    assert [row["_id"] for row in rows] == _WORDS
    assert rows[0]["text"] == "what is a apple"
    assert rows[5]["ndcg@10"] == 1.0
    assert "against" not in rows[0]
    last = json.loads(both.read_text().splitlines()[-1])
    assert (last["map"], last["against"]["map"]) == (1.0, 0.0)


def test_eval_leaves_out_judgements_without_a_query(corpus: Path) -> None:
    with (corpus.parent / "qrels.tsv").open("a") as file:
        file.write("unknown\tapple.md\t1\n")

    assert json.loads(_run("eval", corpus, "--json"))["queries"] == 6


def test_files_that_do_not_belong_together_are_named(corpus: Path) -> None:
    (corpus.parent / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n9\tapple.md\t1\n")

    with pytest.raises(QueryError, match="belong together"):
        _run("eval", corpus)


def test_a_file_that_cannot_be_written_is_named(corpus: Path) -> None:
    with pytest.raises(QueryError, match="cannot be written"):
        _run("eval", corpus, "--per-query", corpus / "no" / "folder.jsonl")


def _tuned(**changes: Any) -> Tuned:
    gain = Difference(mean=0.07, low=0.05, high=0.1, p_value=0.001, better=200, worse=90, equal=210)
    tuned = Tuned(
        setting=Setting(alpha=0.85),
        improved=True,
        measure="ndcg@10",
        num_queries=500,
        default=Setting(),
        default_score=0.526,
        best=Setting(alpha=0.85),
        best_score=0.602,
        held_out_score=0.596,
        gain=gain,
        folds=10,
        chosen={"hybrid weighted 0.85": 100},
        scores={str(setting): number / 100 for number, setting in enumerate(SETTINGS)},
        seed=0,
    )
    return replace(tuned, **changes)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `Store.tune` was asked; it answers with `answer`."""
    seen: dict[str, Any] = {"answer": _tuned()}

    def tune(self: Any, queries: Any, qrels: Any, **settings: Any) -> Tuned:
        seen.update(settings, queries=queries, qrels=qrels)
        answer: Tuned = seen["answer"]
        return answer

    monkeypatch.setattr(ps.Store, "tune", tune, raising=False)
    return seen


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [
        pytest.param(_tuned(), [], "Searches use hybrid weighted 0.85 from now on.", id="better"),
        pytest.param(
            _tuned(),
            ["--dry-run"],
            "Without --dry-run, searches would use hybrid weighted 0.85.",
            id="dry-run",
        ),
        pytest.param(
            _tuned(improved=False, setting=Setting()),
            [],
            "The default stays: the gain is not sure on queries held out.",
            id="not-sure",
        ),
        pytest.param(
            _tuned(improved=False, setting=Setting(), best=Setting()),
            [],
            "The default stays: it is the best.",
            id="default-is-best",
        ),
    ],
)
def test_tune_says_what_it_chose(
    corpus: Path, asked: dict[str, Any], answer: Tuned, options: list[str], said: str
) -> None:
    asked["answer"] = answer

    text = _run("tune", corpus, *options)

    assert text.splitlines()[-1] == said
    assert "10 folds: 0.5960 against 0.5260, a gain of +0.0700" in text
    assert "interval +0.0500 to +0.1000" in text
    shown = [line.split("  ")[0] for line in text.splitlines() if line.startswith("hybrid")]
    assert {"hybrid weighted 0.5", "hybrid weighted per query", "hybrid rrf"} <= set(shown)
    assert str(answer.best) in shown


def test_tune_passes_on_what_was_asked(corpus: Path, asked: dict[str, Any]) -> None:
    found = json.loads(_run("tune", corpus, "--folds", 7, "--seed", 3, "--dry-run", "--json"))

    assert (asked["folds"], asked["seed"], asked["keep"]) == (7, 3, False)
    assert asked["qrels"]["fig"] == {"fig.md": 1}
    assert found["setting"] == {"mode": "hybrid", "fusion": "weighted", "alpha": 0.85}
    assert found["kept"] is False
    assert len(found["scores"]) == len(SETTINGS)
