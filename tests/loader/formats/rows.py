"""Rows to write and read, and folders of shards made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.export.folder import make_folders
from penstock.export.writer import Writing, write_shards
from penstock.loader.formats import mds
from penstock.loader.formats.manifest import MANIFEST, FormatName, Manifest


def rows_of_tokens(num_rows: int = 200, seed: int = 0) -> pa.Table:
    """Rows as an export has them, of 0 to 60 tokens each."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 60, num_rows)
    tokens = [rng.integers(0, 60_000, length).tolist() for length in lengths]
    fields = [
        pa.field("doc_id", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("metadata", pa.string(), metadata=mds.JSON),
        pa.field("tokens", pa.large_list(pa.uint16())),
        pa.field("row_hash", pa.binary(16)),
    ]
    columns = [
        [f"docs/{i:04}.md" for i in range(num_rows)],
        [f"text {i} äöü" for i in range(num_rows)],
        [json.dumps({"n": i}) for i in range(num_rows)],
        tokens,
        [bytes([i % 256]) * 16 for i in range(num_rows)],
    ]
    arrays = [pa.array(values, f.type) for values, f in zip(columns, fields, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


def write_folder(
    out: Path,
    kind: FormatName,
    rows: pa.Table,
    *,
    shard_bytes: int = 4_000,
    compression: str | None = None,
    dead: dict[int, tuple[int, ...]] | None = None,
) -> Path:
    """Write rows into a folder of shards with a manifest, as an export does."""
    make_folders(out)
    if kind == "webdataset":
        shard_bytes *= 8  # a row of a tar has three members, each with a header
    manifest = Manifest(kind=kind, store="", run="")
    how = Writing(kind=kind, shard_bytes=shard_bytes, compression=compression)
    manifest = write_shards([rows], out, manifest, how, lambda manifest: None)
    shards = [
        replace(shard, dead=(dead or {}).get(number, ()))
        for number, shard in enumerate(manifest.shards)
    ]
    (out / MANIFEST).write_bytes(replace(manifest, shards=tuple(shards)).to_bytes())
    return out
