"""What decisions cut: final texts everywhere, restored when a twin goes, found once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import ConfigError
from penstock.store.edits import Edits

NOTICE = "All rights are reserved by all the people who reserve rights.\n\n"
DOCUMENTS = {
    "a.txt": f"{NOTICE}Apples are round and red, and fall in autumn from trees, on heads too.\n",
    "b.txt": f"Bananas grow in the south, and they are bent a bit.\n\n{NOTICE}And yellow, say.\n",
    "c.txt": "Cherries come two by two, and hang over children's ears.\n",
}
CUT_B = "Bananas grow in the south, and they are bent a bit.\n\nAnd yellow, say.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "fruit"
    root.mkdir()
    for name, text in DOCUMENTS.items():
        (root / name).write_text(text)
    return root


def _flow(folder: Path, **settings: Any) -> ps.Flow:
    dedup = ps.ParagraphDedup(**{"action": "cut"} | settings)
    return ps.Flow(source=ps.files(folder), steps=[ps.Normalize(), dedup, ps.Chunk()])


def _texts(store: ps.Store, column: str = "text") -> dict[str, str]:
    rows = store.documents(["doc_id", column])
    return dict(zip(rows["doc_id"].to_pylist(), rows[column].to_pylist(), strict=True))


def test_the_final_text_is_what_is_shown_chunked_and_found(folder: Path, tmp_path: Path) -> None:
    _flow(folder).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert _texts(store) == DOCUMENTS | {"b.txt": CUT_B}
    assert _texts(store, "uncut_text") == DOCUMENTS
    assert {hit.doc_id for hit in store.search("people who reserve", 9)} == {"a.txt"}
    for chunk in store.chunks().to_pylist():
        whole = _texts(store)[chunk["doc_id"]].encode()
        assert whole[chunk["start"] : chunk["end"]].decode() == chunk["text"]


def test_an_edit_tells_what_was_cut_and_where_the_twin_is(folder: Path, tmp_path: Path) -> None:
    _flow(folder).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")
    (edit,) = store.edits().to_pylist()
    ((start, end, twin),) = ((s["start"], s["end"], s["duplicate_of"]) for s in edit["spans"])
    verdict = store.verdicts(where="doc_id = 'b.txt'").to_pylist()[0]

    assert (edit["doc_id"], edit["rule"], twin) == ("b.txt", "paragraph_duplicate", "a.txt")
    assert DOCUMENTS["b.txt"].encode()[start:end].decode() == NOTICE
    assert (verdict["verdict"], verdict["rule"]) == ("kept", "paragraph_duplicate")
    assert verdict["duplicate_of"] == "a.txt"


def test_a_removed_twin_restores_what_was_cut(
    folder: Path, tmp_path: Path, equals_fresh: Any
) -> None:
    _flow(folder).run(tmp_path / "store")
    (folder / "a.txt").unlink()
    _flow(folder).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")

    assert _texts(store)["b.txt"] == DOCUMENTS["b.txt"]
    assert not len(store.edits())
    assert {hit.doc_id for hit in store.search("people who reserve", 9)} == {"b.txt"}
    equals_fresh(_flow(folder), tmp_path / "store")


def test_an_earlier_twin_moves_the_cut(folder: Path, tmp_path: Path, equals_fresh: Any) -> None:
    _flow(folder).run(tmp_path / "store")
    (folder / "0.txt").write_text(
        f"{NOTICE}Naught comes first, is round, and can be read here, too, by all.\n"
    )
    _flow(folder).run(tmp_path / "store")

    edits = ps.Store.open(tmp_path / "store").edits().to_pylist()
    assert {e["doc_id"]: e["spans"][0]["duplicate_of"] for e in edits} == {
        "a.txt": "0.txt",
        "b.txt": "0.txt",
    }
    equals_fresh(_flow(folder), tmp_path / "store")


@pytest.mark.parametrize("action", ["drop", "flag"])
def test_an_action_that_does_not_cut_leaves_no_edits(
    folder: Path, tmp_path: Path, equals_fresh: Any, action: str
) -> None:
    _flow(folder).run(tmp_path / "store")
    report = _flow(folder, action=action).run(tmp_path / "store")

    assert report.counts.items_read == report.counts.documents_recomputed == 0
    assert not len(ps.Store.open(tmp_path / "store").edits())
    equals_fresh(_flow(folder, action=action), tmp_path / "store")


def test_spans_are_found_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    spans = ps.ParagraphDedup.spans

    def counted(self: ps.ParagraphDedup, text: pa.Array, cuts: pa.Table) -> pa.Array:
        seen.append(len(text))
        return spans(self, text, cuts)

    monkeypatch.setattr(ps.ParagraphDedup, "spans", counted)
    _flow(folder).run(tmp_path / "store")
    _flow(folder, max_share=0.8).run(tmp_path / "store")  # a threshold re-decides, no more
    (folder / "d.txt").write_text(
        f"Dates are sweet, come from palms, and keep long, or longer.\n\n{NOTICE}So!\n"
    )
    _flow(folder).run(tmp_path / "store")

    assert seen == [1, 1]


def test_a_step_that_changes_text_cannot_follow_a_cut(folder: Path) -> None:
    steps: list[Any] = [ps.ParagraphDedup(action="cut"), ps.Normalize(), ps.Chunk()]

    with pytest.raises(ConfigError, match="behind every document step"):
        ps.Flow(source=ps.files(folder), steps=steps)


def test_cuts_of_several_rules_are_joined(folder: Path, tmp_path: Path, equals_fresh: Any) -> None:
    (folder / "d.txt").write_text(f"Dates\nare sweet and big, and come from palms.\n\n{NOTICE}")
    (folder / "e.txt").write_text("Dates\nof another kind are in calendars, seven a week.\n")
    flow = ps.Flow(
        source=ps.files(folder),
        steps=[
            ps.ParagraphDedup(max_share=0.9, action="cut"),
            ps.LineDedup(max_documents=1, max_share=0.9, action="cut"),
        ],
    )
    flow.run(tmp_path / "store")
    texts = _texts(ps.Store.open(tmp_path / "store"))

    assert texts["a.txt"] == DOCUMENTS["a.txt"].removeprefix(NOTICE)  # a line of three documents
    assert texts["d.txt"] == "are sweet and big, and come from palms.\n\n"
    assert texts["e.txt"] == "of another kind are in calendars, seven a week.\n"
    equals_fresh(flow, tmp_path / "store")


def test_columns_are_given_in_the_order_asked_for(folder: Path, tmp_path: Path) -> None:
    _flow(folder).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")
    rows = store.documents(["uncut_text", "name", "text"], where="name = 'b.txt'")

    assert rows.to_pylist() == [{"uncut_text": DOCUMENTS["b.txt"], "name": "b.txt", "text": CUT_B}]
    assert store.documents().schema == store.documents(store.documents().column_names).schema


def test_a_hash_of_a_final_text_changes_with_what_is_cut(folder: Path, tmp_path: Path) -> None:
    _flow(folder).run(tmp_path / "store")
    store = ps.Store.open(tmp_path / "store")
    edits = Edits(store.dataset("edits"))
    rows = store.dataset("documents").to_table(columns=["doc_id", "text_hash"]).sort_by("doc_id")
    before = rows["text_hash"].to_pylist()
    after = edits.final(rows)["text_hash"].to_pylist()

    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert Edits(None).final(rows) is rows


def test_a_forgotten_twin_is_named_no_more(folder: Path, tmp_path: Path, equals_fresh: Any) -> None:
    _flow(folder).run(tmp_path / "store")
    ps.Store.open(tmp_path / "store").forget(["a.txt"])
    (edit,) = ps.Store.open(tmp_path / "store").edits().to_pylist()

    assert [span["duplicate_of"] for span in edit["spans"]] == [None]
    (folder / "a.txt").unlink()
    _flow(folder).run(tmp_path / "store")
    equals_fresh(_flow(folder), tmp_path / "store")
