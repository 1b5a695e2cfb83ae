"""What a published index consists of: plain facts that go into the run's manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from penstock.errors import StoreError
from penstock.index.settings import IndexSettings

FORMAT = 3
"""Raised when the files or the analysis of words change, so that an old index is built anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentManifest:
    """One immutable segment.

    Attributes:
        folder: Its folder inside the index's.
        deleted: File of its deleted rows, or None for none.
        num_rows: Rows in the files.
        num_deleted: Rows of those that are deleted.
    """

    folder: str
    deleted: str | None
    num_rows: int
    num_deleted: int

    @property
    def num_live(self) -> int:
        """Rows that are not deleted."""
        return self.num_rows - self.num_deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexManifest:
    """A whole index, by the names of its files.

    Attributes:
        dim: Width of the vectors; 0 for words only; None before the first row.
        segments: Its segments, the oldest first.
        settings: How they were made.
        analysis: Version of what cut their words; others do not compare.
    """

    dim: int | None = None
    segments: tuple[SegmentManifest, ...] = ()
    settings: IndexSettings = field(default_factory=IndexSettings)
    analysis: str = ""

    @property
    def num_rows(self) -> int:
        """Rows that can be found."""
        return sum(segment.num_live for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json.dumps` takes."""
        return {
            "format": FORMAT,
            "dim": self.dim,
            "segments": [asdict(segment) for segment in self.segments],
            "settings": asdict(self.settings),
            "analysis": self.analysis,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave.

        Raises:
            StoreError: It is of another format, so the index must be built anew.
        """
        if value.get("format") != FORMAT:
            raise StoreError(
                "index",
                f"expected format {FORMAT}, found {value.get('format')!r}; "
                "rebuild it: penstock index rebuild STORE",
            )
        segments = tuple(SegmentManifest(**segment) for segment in value["segments"])
        settings = IndexSettings(**value["settings"])
        return cls(
            dim=value["dim"], segments=segments, settings=settings, analysis=value["analysis"]
        )

    def names(self) -> Iterable[str]:
        """Every folder and file that the index consists of, relative to its folder."""
        for segment in self.segments:
            yield segment.folder
            if segment.deleted is not None:
                yield segment.deleted

    def files(self, folder: Path) -> list[Path]:
        """Every file that the index consists of, for fsync, copying or garbage collection.

        Each is written once and never changed after; files of an older
        manifest appear again as long as they are used.
        """
        found: list[Path] = []
        for name in self.names():
            path = folder / name
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            found += inside if path.is_dir() else [path]
        return found
