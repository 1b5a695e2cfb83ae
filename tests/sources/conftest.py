from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.protocols import Source
from penstock.records import RAW, Failure


@dataclass
class Everything:
    """What one pass over a source gives."""

    rows: list[dict[str, Any]]
    failures: list[Failure]
    finished: list[tuple[str, str]]
    listed: list[tuple[str, str]]

    @property
    def ids(self) -> list[str]:
        return [row["doc_id"] for row in self.rows]

    @property
    def raw(self) -> dict[str, bytes]:
        return {row["doc_id"]: row["raw"] for row in self.rows}

    @property
    def metadata(self) -> dict[str, dict[str, Any]]:
        return {row["doc_id"]: json.loads(row["metadata"]) for row in self.rows}

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(failure.doc_id, failure.error) for failure in self.failures]


def _everything(source: Source) -> Everything:
    listing = source.list()
    items = listing.items["item"].to_pylist()
    versions = listing.items["version"].to_pylist()
    found = Everything([], list(listing.failures), [], list(zip(items, versions, strict=True)))
    for task in source.tasks(items):
        read = source.read(task)
        assert read.rows.schema.equals(RAW)
        read.rows.validate(full=True)
        found.rows += read.rows.to_pylist()
        found.failures += read.failures
        found.finished += read.finished
    return found


@pytest.fixture
def everything() -> Callable[[Source], Everything]:
    return _everything
