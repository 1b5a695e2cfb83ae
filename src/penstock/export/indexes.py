"""The indexes that other libraries read, made of a manifest when it is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.loader.formats import mds
from penstock.loader.formats.manifest import Manifest
from penstock.loader.formats.mds_reader import INDEX


def index_files(out: Path, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each, below the folder of the export."""
    if manifest.kind == "mds":
        yield INDEX, mds.index_json([shard.entry for shard in manifest.shards])
