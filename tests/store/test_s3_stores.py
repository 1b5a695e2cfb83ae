"""A store on an object store is like one on a disk, and two writers never both publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import penstock as ps


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(40):
        text = (
            f"# Page {number}\n\nWords {number % 7} of page {number}.\n\n## More\n\nSame in all.\n"
        )
        (folder / f"{number:02}.md").write_text(text)
    return folder


def flow(docs: Path, **chunk: Any) -> ps.Flow:
    return ps.Flow(
        source=ps.files(docs), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk(**chunk)]
    )


def contents(store: str | Path, run: str | int | None = None) -> dict[str, Any]:
    opened = ps.Store.open(store, run)
    return {
        "documents": opened.documents().to_pylist(),
        "verdicts": opened.verdicts().to_pylist(),
        "chunks": opened.chunks().to_pylist(),
        "failures": opened.failures().to_pylist(),
        "search": [hit.to_json() for hit in opened.search("words page 3 more", k=20)],
    }


def test_a_store_on_s3_holds_what_a_local_one_holds(s3: str, docs: Path, tmp_path: Path) -> None:
    flow(docs).run(s3)
    flow(docs).run(tmp_path / "local")

    assert contents(s3) == contents(tmp_path / "local")

    (docs / "03.md").unlink()
    (docs / "04.md").write_text("# Another page\n\nOf other words.\n")
    (docs / "new.md").write_text("# New\n\nMore words of page 3.\n")
    report = flow(docs).run(s3)
    flow(docs).run(tmp_path / "local")

    assert report.counts.items_read == 2
    assert contents(s3) == contents(tmp_path / "local")
    assert contents(s3, 1) == contents(tmp_path / "local", 1)
