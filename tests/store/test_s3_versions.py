"""Tags, rollback, differences and the end of old runs, on an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import StoreError
from penstock.store.places import file_sizes, open_place

pytestmark = pytest.mark.slow

Contents = Callable[..., dict[str, Any]]


def test_runs_are_named_compared_rolled_back_and_dropped(
    s3: str, docs: Path, words: Callable[[Path], ps.Flow], contents: Contents
) -> None:
    flow = words(docs)
    for text in ("One", "Two", "Three"):
        (docs / "03.md").write_text(f"# {text}\n\nA page of words.\n")
        flow.run(s3)
    store = ps.Store.open(s3)
    before = {run: contents(s3, run) for run in (1, 2, 3)}
    store.tag("one", 1)
    size = sum(file_sizes(open_place(s3)).values())
    told = store.gc(dry_run=True)
    found = store.gc()

    assert store.tags() == {"one": "000001"}
    assert store.diff("one").changed == ("03.md",)
    assert (found, found.dropped) == (told, ("000002",))
    assert sum(file_sizes(open_place(s3)).values()) < size
    assert contents(s3, "one") == before[1]
    assert contents(s3) == before[3]
    with pytest.raises(StoreError, match="no run 000002"):
        store.at(2)
    assert contents(s3, store.rollback("one").manifest.run) == before[1]
    flow.run(s3)
    assert contents(s3) == before[3]
    assert contents(s3, 3) == before[3]
    store.untag("one")
    assert store.tags() == {}
