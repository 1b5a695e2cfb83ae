"""Write rows into shards of one format: cut by size, hashed, durable before they are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.loader.formats import lance, mds, parquet, webdataset
from penstock.loader.formats.checks import digests
from penstock.loader.formats.compression import compress, extension
from penstock.loader.formats.manifest import (
    FOLDER,
    ROWS,
    FormatName,
    Manifest,
    Shard,
    named,
    rows_to_bytes,
)
from penstock.loader.formats.values import I64, U8
from penstock.store.files import fsync_folder, replace_file

_HASH = ("sha256",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How shards are written.

    Attributes:
        kind: The format.
        shard_bytes: Most bytes of a shard before compression, unless one row has more.
        compression: Of whole shards, in the words of MDS.
    """

    kind: FormatName
    shard_bytes: int
    compression: str | None = None


def write_shards(
    batches: Iterable[pa.Table],
    out: Path,
    manifest: Manifest,
    how: Writing,
    checkpoint: Callable[[Manifest], None],
) -> Manifest:
    """Write every row into new shards behind those that a manifest names.

    Args:
        batches: Rows in their order. The column `row_hash` goes into the manifest's own
            files alone; all others are the rows of the shards.
        out: The folder of the export.
        manifest: What there is already.
        how: The format and its settings.
        checkpoint: Told the manifest after each shard, once that is durable.

    Returns:
        The manifest with the new shards.
    """
    for rows in _cut(batches, how):
        shard = _write(rows, out, manifest.next_number, how)
        manifest = replace(
            manifest, shards=(*manifest.shards, shard), next_number=manifest.next_number + 1
        )
        checkpoint(manifest)
    return manifest


def _cut(batches: Iterable[pa.Table], how: Writing) -> Iterator[pa.Table]:
    """The rows again, as many a table as a shard has room for."""
    waiting: list[pa.Table] = []
    sizes = np.zeros(0, np.int64)
    for batch in batches:
        waiting.append(batch)
        sizes = np.concatenate([sizes, _row_bytes(batch.drop_columns(["row_hash"]), how)])
        room = how.shard_bytes - _head_bytes(batch, how)
        while sizes.sum() > room:
            rows = max(1, int(np.searchsorted(np.cumsum(sizes), room, side="right")))
            table = pa.concat_tables(waiting).combine_chunks()
            yield table.slice(0, rows)
            waiting, sizes = [table.slice(rows)], sizes[rows:]
    if len(sizes):
        yield pa.concat_tables(waiting).combine_chunks()


def _row_bytes(rows: pa.Table, how: Writing) -> I64:
    sizes = {"mds": mds.row_bytes, "webdataset": webdataset.row_bytes}
    return sizes.get(how.kind, parquet.row_bytes)(rows)


def _head_bytes(rows: pa.Table, how: Writing) -> int:
    if how.kind == "mds":
        return mds.head_bytes(_mds_config(rows.drop_columns(["row_hash"]).schema, how)[1])
    return webdataset.END_BYTES if how.kind == "webdataset" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoded:
    """A shard before it is written, and other files that belong to it."""

    name: str
    data: Any
    groups: tuple[int, ...] = ()
    entry: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)


def _write(rows: pa.Table, out: Path, number: int, how: Writing) -> Shard:
    hashes = rows["row_hash"]
    content = rows.drop_columns(["row_hash"])
    shard = _encode(content, hashes, number, how)
    documents = f"{FOLDER}/rows/{Path(shard.name).name}.arrow"
    listed = rows_to_bytes(_documents(content, hashes))
    for name, data in {shard.name: shard.data, **shard.beside, documents: listed}.items():
        path = out / name
        if not path.parent.exists():
            path.parent.mkdir()
            fsync_folder(out)
        replace_file(path, data)
    return Shard(
        name=shard.name,
        num_bytes=len(shard.data),
        sha256=digests(shard.data, _HASH)["sha256"],
        num_rows=rows.num_rows,
        rows=named(documents, listed),
        groups=shard.groups,
        entry=shard.entry,
        beside=tuple(shard.beside),
    )


def _encode(rows: pa.Table, hashes: pa.ChunkedArray, number: int, how: Writing) -> _Encoded:
    if how.kind == "mds":
        return _encode_mds(rows, number, how)
    if how.kind == "parquet":
        data, groups = parquet.encode(rows)
        return _Encoded(name=f"{number:06d}.parquet", data=data, groups=groups)
    if how.kind == "lance":
        name = f"data/{number:06d}.lance"
        content, entry = lance.encode(rows, name)
        return _Encoded(name=name, data=content, entry=entry)
    data, layout = webdataset.encode(rows, hashes)
    stem = f"{number:06d}"
    beside = {f"{stem}.idx": layout.dali(), f"{stem}.tar.idx": layout.energon()}
    return _Encoded(name=f"{stem}.tar", data=data, beside=beside)


def _documents(rows: pa.Table, hashes: pa.ChunkedArray) -> pa.Table:
    import pyarrow.compute as pc

    lengths = pa.nulls(rows.num_rows, pa.int32())
    if "tokens" in rows.column_names:
        lengths = pc.list_value_length(rows["tokens"]).cast(pa.int32())
    return pa.table([rows["doc_id"].cast(pa.string()), hashes, lengths], schema=ROWS)


def _encode_mds(rows: pa.Table, number: int, how: Writing) -> _Encoded:
    facts, config = _mds_config(rows.schema, how)
    raw = mds.encode(rows, config)
    name = f"shard.{number:05d}.mds"
    entry: dict[str, Any] = {"samples": rows.num_rows, "raw_data": _mds_file(name, raw)}
    entry |= {"zip_data": None, **facts}
    if how.compression is None:
        return _Encoded(name=name, data=raw, entry=entry)
    zipped = compress(how.compression, raw.tobytes())
    name = f"{name}.{extension(how.compression)}"
    return _Encoded(name=name, data=zipped, entry=entry | {"zip_data": _mds_file(name, zipped)})


def _mds_file(name: str, data: U8 | bytes) -> dict[str, Any]:
    return {"basename": name, "bytes": len(data), "hashes": digests(data, _HASH)}


def _mds_config(schema: pa.Schema, how: Writing) -> tuple[dict[str, Any], bytes]:
    facts = mds.config_json(
        mds.columns_of(schema),
        compression=how.compression,
        hashes=_HASH,
        size_limit=how.shard_bytes,
    )
    return facts, json.dumps(facts, sort_keys=True).encode()
