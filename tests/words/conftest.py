from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from penstock.words import Words, WordsSearcher, WordsSettings, WordsWriter

Write = Callable[..., Words]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows of (title, heading, text), or of text alone, into a new segment."""
    made = 0

    def write(
        rows: Sequence[str | tuple[str | None, str | None, str | None] | None],
        language: str = "english",
        batches: int = 1,
    ) -> Words:
        nonlocal made
        made += 1
        folder = tmp_path / f"segment{made}"
        full = [row if isinstance(row, tuple) else ("", "", row) for row in rows]
        columns = [pa.array([row[i] for row in full], pa.large_string()) for i in range(3)]
        step = max(1, -(-len(rows) // batches))
        with WordsWriter(folder, WordsSettings(language=language)) as writer:
            for first in range(0, len(rows), step):
                writer.add(*(column.slice(first, step) for column in columns))
        return Words.open(folder)

    return write


@pytest.fixture
def search(write: Write) -> Callable[..., list[int]]:
    """Places of rows, best first."""

    def search(rows: Sequence[str], query: str, k: int = 10, **options: object) -> list[int]:
        language = str(options.pop("language", "english"))
        settings = WordsSettings(language=language)
        searcher = WordsSearcher([write(rows, language)], None, settings)
        return [int(place) for place in searcher.search(query, k, **options)[2]]  # type: ignore[arg-type]

    return search
