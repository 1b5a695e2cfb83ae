"""The second build does only what changed, and ends where a fresh one would."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps

Check = Callable[[ps.Flow, Path], None]


def test_a_first_build_holds_every_readable_document(words_flow: ps.Flow, tmp_path: Path) -> None:
    report = words_flow.run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert store.documents()["doc_id"].to_pylist() == [
        "code/tool.py",
        "guide/again.md",
        "guide/start.md",
        "notes/a.txt",
        "notes/b.txt",
        "notes/latin.txt",
    ]
    assert store.failures(["doc_id", "step", "error"]).to_pylist() == [
        {"doc_id": "image.png", "step": "decode", "error": "binary-file"}
    ]
    assert (report.counts.items_listed, report.counts.items_read) == (7, 7)
    assert (report.documents, report.kept, report.failures) == (6, 5, 1)


def test_the_same_text_is_kept_once_under_the_smallest_name(
    words_flow: ps.Flow, tmp_path: Path
) -> None:
    words_flow.run(tmp_path / "store")

    assert ps.Store.open(tmp_path / "store").verdicts(where="verdict = 'dropped'").to_pylist() == [
        {
            "doc_id": "notes/b.txt",
            "verdict": "dropped",
            "rule": "exact_duplicate",
            "score": 1.0,
            "duplicate_of": "notes/a.txt",
        }
    ]


def test_an_unchanged_source_is_not_read(words_flow: ps.Flow, tmp_path: Path) -> None:
    words_flow.run(tmp_path / "store")
    before = ps.Store.open(tmp_path / "store").manifest
    report = words_flow.run(tmp_path / "store")
    after = ps.Store.open(tmp_path / "store").manifest

    assert report.counts.items_read == 0
    assert report.counts.items_unchanged == 7
    assert (after.run, after.tables, after.index) == ("000002", before.tables, before.index)


def _add(tree: Path) -> None:
    (tree / "new.md").write_text("# New\n\nA page.\n")


def _change(tree: Path) -> None:
    (tree / "guide/start.md").write_text("# Start\n\nInstall it twice.\n")


def _delete(tree: Path) -> None:
    (tree / "code/tool.py").unlink()


def _delete_survivor(tree: Path) -> None:
    (tree / "notes/a.txt").unlink()


def _rename(tree: Path) -> None:
    (tree / "guide/again.md").rename(tree / "guide/once-more.md")


def _touch(tree: Path) -> None:
    os.utime(tree / "guide/again.md", (1, 1))


def _swap(tree: Path) -> None:
    one, two = tree / "guide/again.md", tree / "guide/start.md"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _break_and_heal(tree: Path) -> None:
    (tree / "code/tool.py").write_bytes(b"\x00\x01\x02\x00 not text")
    (tree / "image.png").write_text("Now a text.\n")


def _grow_duplicate(tree: Path) -> None:
    (tree / "a-note.txt").write_text("The same note.\n")


def _empty(tree: Path) -> None:
    for path in tree.rglob("*.*"):
        path.unlink()


EDITS = [
    _add,
    _change,
    _delete,
    _delete_survivor,
    _rename,
    _touch,
    _swap,
    _break_and_heal,
    _grow_duplicate,
    _empty,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__.strip("_"))
def test_after_an_edit_the_store_equals_a_fresh_one(
    edit: Callable[[Path], None],
    words_flow: ps.Flow,
    tree: Path,
    tmp_path: Path,
    equals_fresh: Check,
) -> None:
    words_flow.run(tmp_path / "store")
    edit(tree)
    words_flow.run(tmp_path / "store")

    equals_fresh(words_flow, tmp_path / "store")


def test_only_the_changed_document_is_read_and_cut(
    words_flow: ps.Flow, tree: Path, tmp_path: Path
) -> None:
    words_flow.run(tmp_path / "store")
    _change(tree)
    counts = words_flow.run(tmp_path / "store").counts

    assert (counts.items_read, counts.documents_changed, counts.documents_new) == (1, 1, 0)
    assert (counts.chunks_cut, counts.chunks_removed) == (1, 1)


def test_a_touched_file_is_read_and_nothing_is_computed(
    words_flow: ps.Flow, tree: Path, tmp_path: Path
) -> None:
    words_flow.run(tmp_path / "store")
    _touch(tree)
    counts = words_flow.run(tmp_path / "store").counts

    assert (counts.items_read, counts.documents_unchanged) == (1, 1)
    assert (counts.documents_changed, counts.chunks_cut) == (0, 0)


def test_a_change_that_keeps_size_and_time_is_found_by_verify_only(
    words_flow: ps.Flow, tree: Path, tmp_path: Path, equals_fresh: Check
) -> None:
    path = tree / "notes/a.txt"
    words_flow.run(tmp_path / "store")
    stat = path.stat()
    path.write_text("The SAME note.\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    unseen = words_flow.run(tmp_path / "store").counts
    seen = words_flow.run(tmp_path / "store", verify=True).counts

    assert (unseen.items_read, unseen.documents_changed) == (0, 0)
    assert (seen.items_read, seen.documents_changed) == (7, 1)
    equals_fresh(words_flow, tmp_path / "store")


FLOW_CHANGES = [
    pytest.param([ps.Normalize(line_ends=False), ps.ExactDedup(), ps.Chunk()], id="setting"),
    pytest.param([ps.Normalize(), ps.Chunk()], id="decision-removed"),
    pytest.param(
        [
            ps.Normalize(),
            ps.Keep(lambda doc: "note" not in doc["text"], rule="notes"),
            ps.ExactDedup(),
            ps.Chunk(),
        ],
        id="decision-added",
    ),
    pytest.param(
        [ps.Normalize(), ps.Map(lambda doc: {"text": doc["text"].upper()}), ps.Chunk()],
        id="map-added",
    ),
    pytest.param(
        [
            ps.Map(lambda doc: {"metadata": {"words": len(doc["text"].split())}}),
            ps.ExactDedup(),
            ps.Chunk(),
        ],
        id="metadata-changed",
    ),
    pytest.param(
        [ps.Normalize(), ps.ExactDedup(), ps.Chunk(max_tokens=8, overlap_tokens=2)], id="chunk"
    ),
    pytest.param([ps.Normalize(), ps.ExactDedup()], id="no-chunks"),
    pytest.param([], id="nothing"),
]


@pytest.mark.parametrize("steps", FLOW_CHANGES)
def test_after_a_changed_flow_the_store_equals_a_fresh_one(
    steps: list[object], words_flow: ps.Flow, tmp_path: Path, equals_fresh: Check
) -> None:
    words_flow.run(tmp_path / "store")
    changed = ps.Flow(source=words_flow.source, steps=steps)  # type: ignore[arg-type]
    there = changed.run(tmp_path / "store")
    equals_fresh(changed, tmp_path / "store")
    words_flow.run(tmp_path / "store")

    assert there.counts.items_read <= 1  # the picture failed before, and may not now
    equals_fresh(words_flow, tmp_path / "store")


def test_an_earlier_run_stays_readable(words_flow: ps.Flow, tree: Path, tmp_path: Path) -> None:
    words_flow.run(tmp_path / "store")
    _delete(tree)
    words_flow.run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert "code/tool.py" not in store.documents()["doc_id"].to_pylist()
    assert "code/tool.py" in store.at(1).documents()["doc_id"].to_pylist()
    assert [hit.doc_id for hit in store.at("000001").search("hello", 1)] == ["code/tool.py"]
    assert store.search("hello", 1) == []
    assert [manifest.run for manifest in store.runs()] == ["000001", "000002"]


def test_searching_an_updated_store_finds_what_a_fresh_one_does(
    words_flow: ps.Flow, tree: Path, tmp_path: Path
) -> None:
    words_flow.run(tmp_path / "store")
    _change(tree)
    _add(tree)
    words_flow.run(tmp_path / "store")
    words_flow.run(tmp_path / "fresh")

    for query in ("install twice", "page", "same note", "hello"):
        found = ps.Store.open(tmp_path / "store").search(query, 3)
        assert [hit.chunk_id for hit in found] == [
            hit.chunk_id for hit in ps.Store.open(tmp_path / "fresh").search(query, 3)
        ]


def test_rows_in_are_kept_dropped_or_failed_at_every_step(
    words_flow: ps.Flow, tmp_path: Path
) -> None:
    funnel = words_flow.run(tmp_path / "store").funnel

    assert all(step.rows_in == step.kept + step.dropped + step.failed for step in funnel)
    assert [(step.step, step.dropped, step.failed) for step in funnel] == [
        ("list", 0, 0),
        ("read", 0, 0),
        ("decode", 0, 1),
        ("Normalize", 0, 0),
        ("ExactDedup", 1, 0),
    ]
    assert [step.rows_in for step in funnel[1:]] == [step.kept for step in funnel[:-1]]


def test_an_index_with_many_deleted_rows_is_built_anew(
    words_flow: ps.Flow, tree: Path, tmp_path: Path
) -> None:
    for number in range(4):
        (tree / "guide/start.md").write_text(f"# Start\n\nEdition {number} of the guide.\n")
        words_flow.run(tmp_path / "store")
    words_flow.run(tmp_path / "fresh")

    found = ps.Store.open(tmp_path / "store").search("edition note guide", 9)
    fresh = ps.Store.open(tmp_path / "fresh").search("edition note guide", 9)
    assert [hit.doc_id for hit in found] == [hit.doc_id for hit in fresh]
    assert "words-000001" not in str(ps.Store.open(tmp_path / "store").manifest.index)


def _counted(monkeypatch: pytest.MonkeyPatch, step: type) -> list[int]:
    """Sizes of the batches that a decision computes signatures of, from now on."""
    sizes: list[int] = []
    signature = step.signature  # type: ignore[attr-defined]

    def counted(self: Any, documents: Any) -> Any:
        sizes.append(documents.num_rows)
        return signature(self, documents)

    monkeypatch.setattr(step, "signature", counted)
    return sizes


def test_a_new_filter_computes_its_own_column_only(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ps.files(tree)
    first: list[Any] = [ps.Normalize(), ps.MinHashDedup(), ps.Chunk()]
    ps.Flow(source=source, steps=first).run(tmp_path / "store")
    near, gopher = _counted(monkeypatch, ps.MinHashDedup), _counted(monkeypatch, ps.GopherQuality)
    shaped = _counted(monkeypatch, ps.FineWebQuality)

    more: list[Any] = [ps.Normalize(), ps.GopherQuality(min_words=2), *first[1:]]
    report = ps.Flow(source=source, steps=more).run(tmp_path / "store")

    assert (sum(near), sum(gopher)) == (0, report.documents)
    # A threshold computes nothing at all.
    more[1] = ps.GopherQuality(min_words=4)
    report = ps.Flow(source=source, steps=more).run(tmp_path / "store")
    assert (sum(near), sum(gopher), report.counts.documents_recomputed) == (0, report.documents, 0)
    # Another normaliser: only the texts that it really changes are looked at again.
    rough: list[Any] = [ps.Normalize(trailing_blanks=False), *more[1:]]
    ps.Flow(source=source, steps=rough).run(tmp_path / "store")
    assert sum(near) == 1  # guide/start.md has trailing blanks
    assert shaped == []


def test_moving_a_threshold_there_and_back_restores_the_verdicts(
    tree: Path, tmp_path: Path, contents: Callable[[Path], Any]
) -> None:
    source, store = ps.files(tree), tmp_path / "store"

    def run(min_words: int) -> Any:
        steps: list[Any] = [ps.Normalize(), ps.GopherQuality(min_words=min_words), ps.Chunk()]
        ps.Flow(source=source, steps=steps).run(store)
        return contents(store)

    loose, strict, again = run(1), run(8), run(1)

    assert loose == again != strict
    rules = {row["rule"] for row in strict["verdicts"]}
    assert "gopher_quality.too_few_words" in rules


def test_a_decision_may_ask_for_texts(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    words = [f"w{i}" for i in range(40)]
    (tmp_path / "tree/a.txt").write_text(" ".join(words))
    (tmp_path / "tree/b.txt").write_text(" ".join([*words, "end"]))
    near = ps.MinHashDedup(threshold=0.8, verify="jaccard")

    ps.Flow(source=ps.files(tmp_path / "tree"), steps=[near]).run(tmp_path / "store")

    (row,) = ps.Store.open(tmp_path / "store").verdicts(where="verdict = 'dropped'").to_pylist()
    assert (row["doc_id"], row["duplicate_of"]) == ("b.txt", "a.txt")
    assert row["score"] == pytest.approx(36 / 37)  # runs of 5 words in common, of all


def test_a_flagged_document_stays_and_may_still_be_dropped_later(tmp_path: Path) -> None:
    question = "what is the third number in the very long sequence of wonderful numbers we know"
    (tmp_path / "set.jsonl").write_text(f'{{"question": "{question}"}}\n')
    (tmp_path / "tree").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "tree" / name).write_text(f"Quiz: {question}?")
    (tmp_path / "tree/c.txt").write_text("Nothing of the kind.")
    quiz = ps.EvalSet(str(tmp_path / "set.jsonl"), columns=("question",), name="quiz")
    flag = ps.Decontaminate(against=(quiz,), action="flag")

    ps.Flow(source=ps.files(tmp_path / "tree"), steps=[flag, ps.ExactDedup()]).run(tmp_path / "s")

    verdicts = ps.Store.open(tmp_path / "s").verdicts(["doc_id", "verdict", "rule"]).to_pylist()
    assert [tuple(row.values()) for row in verdicts] == [
        ("a.txt", "kept", "decontaminate.quiz"),
        ("b.txt", "dropped", "exact_duplicate"),
        ("c.txt", "kept", None),
    ]


def test_a_signature_of_metadata_follows_metadata(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for i in range(12):
        (tmp_path / f"tree/{i}.txt").write_text(f"Text number {i}.")
    source, mix = ps.files(tmp_path / "tree"), ps.Mix(weights={"en": 1.0}, field="lang")
    named = ps.Map(lambda doc: {"metadata": {**doc["metadata"], "lang": "en"}})

    flows: list[list[Any]] = [[mix], [named, mix]]
    for steps in flows:
        ps.Flow(source=source, steps=steps).run(tmp_path / "store")
    ps.Flow(source=source, steps=[named, mix]).run(tmp_path / "fresh")

    stores = [ps.Store.open(tmp_path / name).verdicts() for name in ("store", "fresh")]
    assert stores[0].equals(stores[1])
    assert set(stores[0]["verdict"].to_pylist()) == {"kept"}


def test_the_survivor_by_a_field_of_the_metadata_is_that_of_a_fresh_build(
    tmp_path: Path, equals_fresh: Any
) -> None:
    text = "a text of some words that two more documents have just as well as this one"
    source = tmp_path / "rows.jsonl"

    def build(stars: dict[str, int | None], keep: str) -> dict[str, str]:
        rows = [{"id": i, "text": text, "stars": n} for i, n in stars.items()]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flow = ps.Flow(source=ps.jsonl(source, id="id"), steps=[ps.MinHashDedup(keep=keep)])
        flow.run(tmp_path / "store")
        equals_fresh(flow, tmp_path / "store")
        dropped = ps.Store.open(tmp_path / "store").verdicts(where="verdict = 'dropped'")
        return dict(zip(*(dropped[n].to_pylist() for n in ("doc_id", "duplicate_of")), strict=True))

    assert build({"a": 1, "b": 5, "c": None}, "stars DESC") == {"a": "b", "c": "b"}
    assert build({"a": 7, "b": 5, "c": None}, "stars DESC") == {"b": "a", "c": "a"}
    assert build({"a": 7, "b": 5, "c": None}, "min(metadata.stars)") == {"a": "b", "c": "b"}
