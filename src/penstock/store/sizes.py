"""What each part of a store takes on the disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.store.garbage import named_files
from penstock.store.manifest import Manifest
from penstock.store.places import Place, file_sizes
from penstock.store.tables import open_table

_OF_INDEX = ("words", "vectors", "passages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes on the disk, by part.

    Attributes:
        parts: What the run names: ``documents``, ``chunks: vectors``, ``index: words`` and so on.
        old: What only other runs name, and garbage.
        text: UTF-8 bytes of the documents' texts.
        vectors: Four bytes for each number of the chunks' vectors.
    """

    parts: dict[str, int]
    old: int
    text: int
    vectors: int

    @property
    def run(self) -> int:
        """Bytes of all that the run names."""
        return sum(self.parts.values())

    @property
    def ratio(self) -> float | None:
        """What the run takes, in terms of its text and vectors; None without any."""
        plain = self.text + self.vectors
        return self.run / plain if plain else None

    def to_json(self) -> dict[str, Any]:
        """The same in JSON types."""
        return asdict(self) | {"run": self.run, "ratio": self.ratio}


def store_sizes(store: Place, manifest: Manifest) -> Sizes:
    """Measure a run of a store.

    Cost: reads every text once, for its length.
    """
    sizes = file_sizes(store)
    (named,) = named_files(store, [manifest], sizes)
    parts: Counter[str] = Counter()
    for name in named & sizes.keys():
        parts[_part(name)] += sizes[name]
    vectors = _split_chunks(store, manifest, parts)
    return Sizes(
        parts=dict(sorted(parts.items(), key=lambda part: -part[1])),
        old=sum(sizes.values()) - sum(sizes[name] for name in named & sizes.keys()),
        text=_text_bytes(store, manifest),
        vectors=vectors,
    )


def _part(name: str) -> str:
    top, *below = name.split("/")
    if top == "index":
        inside = below[1] if len(below) > 2 else ""
        return f"index: {inside}" if inside in _OF_INDEX else "index: rows"
    return top.removesuffix(".lance")


def _split_chunks(store: Place, manifest: Manifest, parts: Counter[str]) -> int:
    """Tell a table's vectors from its texts; four bytes for each number of the vectors."""
    version = manifest.tables.get("chunks")
    if version is None:
        return 0
    chunks = open_table(store / "chunks.lance", version)
    fields = chunks.lance_schema.fields()
    kept = {each.id: each.bytes_on_disk for each in chunks.stats.data_stats().fields}
    mine = Counter({each.name(): kept.get(each.id(), 0) for each in fields})
    for name in ("text", "embedding"):
        if mine[name]:
            shown = "vectors" if name == "embedding" else name
            parts[f"chunks: {shown}"] = mine[name]
            parts["chunks"] -= mine[name]
    parts["chunks: ids, metadata"] = parts.pop("chunks")
    if "embedding" not in chunks.schema.names:
        return 0
    dim = int(chunks.schema.field("embedding").type.list_size)
    return 4 * dim * int(chunks.count_rows())


def _text_bytes(store: Place, manifest: Manifest) -> int:
    version = manifest.tables.get("documents")
    if version is None:
        return 0
    documents = open_table(store / "documents.lance", version)
    batches = documents.scanner(columns=["text"], batch_readahead=2).to_batches()
    lengths = (pc.sum(pc.binary_length(batch["text"])) for batch in batches)
    return sum(length.cast(pa.int64()).as_py() or 0 for length in lengths)
