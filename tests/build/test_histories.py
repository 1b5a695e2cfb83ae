"""Whatever happened before, a store equals what a fresh build gives: random histories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock as ps

# Few names and few texts, so that duplicates, swaps and returns happen often.
NAMES = ["a.md", "b.md", "sub/c.txt", "sub/d.py"]
TEXTS = [
    b"",
    b"One text.\n",
    b"One text.\r\n",
    b"# A title\n\nAnother text, with a second part.\n\n## Part\n\nMore of it.\n",
    b"Its own.\n\nAnother text, with a second part.\n\n\nOne text.\n",
    b"def f():\n    return 1\n",
    b"\x00\x01\x02 binary \x00",
    "Ein längerer Text mit Umlauten: ä, ö, ü.\n".encode(),
]
FLOWS: list[list[Any]] = [
    [ps.Normalize(), ps.ExactDedup(), ps.Chunk()],
    [ps.ExactDedup(), ps.Chunk(max_tokens=8, overlap_tokens=2)],
    [ps.Normalize(), ps.Keep(lambda doc: "Part" not in doc["text"], rule="no_parts"), ps.Chunk()],
    [ps.Normalize(), ps.Map(lambda doc: {"text": doc["text"][:20]}), ps.ExactDedup(), ps.Chunk()],
    [ps.Normalize(), ps.GopherQuality(min_words=3), ps.ExactDedup(), ps.Chunk()],
    [ps.Normalize(), ps.GopherQuality(min_words=9), ps.MinHashDedup(), ps.Chunk()],
    [
        ps.MinHashDedup(threshold=0.5),
        ps.GopherQuality(min_words=3),
        ps.Map(lambda doc: {"text": doc["text"][:20]}),
        ps.Chunk(),
    ],
    [ps.Normalize(), ps.ParagraphDedup(max_share=0.7, action="cut"), ps.Chunk()],
    [
        ps.ParagraphDedup(max_share=1.0, action="cut"),
        ps.LineDedup(max_documents=1, action="cut"),
        ps.ExactDedup(),
        ps.Chunk(max_tokens=8, overlap_tokens=2),
    ],
]

_write = st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from(TEXTS))
_remove = st.tuples(st.just("remove"), st.sampled_from(NAMES), st.none())
_flow = st.tuples(st.just("flow"), st.integers(0, len(FLOWS) - 1), st.none())
_build = st.tuples(st.just("build"), st.none(), st.none())
_break_off = st.tuples(
    st.just("break-off"),
    st.sampled_from(["decide", "write_edits", "write_verdicts", "bring_index"]),
    st.none(),
)


@pytest.mark.slow
@given(history=st.lists(st.one_of(_write, _write, _remove, _flow, _build, _break_off), max_size=14))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_after_any_history_the_store_equals_a_fresh_one(
    history: list[tuple[str, Any, Any]],
    tmp_path: Path,
    contents: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("tree", "store", "fresh"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    steps = FLOWS[0]
    for what, which, value in history:
        if what == "write":
            (tree / which).write_bytes(value)
        elif what == "remove":
            (tree / which).unlink(missing_ok=True)
        elif what == "flow":
            steps = FLOWS[which]
        elif what == "build":
            ps.Flow(source=ps.files(tree), steps=steps).run(tmp_path / "store")
        else:
            _broken_off(ps.Flow(source=ps.files(tree), steps=steps), tmp_path, which, monkeypatch)
    flow = ps.Flow(source=ps.files(tree), steps=steps)
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "fresh")

    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")
    assert _signatures(tmp_path / "store") == _signatures(tmp_path / "fresh")
    assert _found(tmp_path / "store") == _found(tmp_path / "fresh")


def _broken_off(flow: ps.Flow, folder: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class BrokenOffError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise BrokenOffError

    with monkeypatch.context() as patch:
        patch.setattr(f"penstock.build.run.{point}", stop)
        with suppress(BrokenOffError):
            flow.run(folder / "store")


def _found(store: Path) -> list[list[tuple[float, str]]]:
    """What each query finds, with scores to the last bit; ties go by age, which is history."""
    opened = ps.Store.open(store)
    queries = ("text", "part", "return")
    return [sorted((hit.score, hit.chunk_id) for hit in opened.search(q, 50)) for q in queries]


def _signatures(store: Path) -> list[dict[str, Any]]:
    documents = ps.Store.open(store).dataset("documents")
    names = [name for name in documents.schema.names if name.startswith("signature_")]
    rows: list[dict[str, Any]] = documents.to_table(columns=["doc_id", *names]).to_pylist()
    return sorted(rows, key=lambda row: str(row["doc_id"]))
