"""Write the kept documents of a run as shards, and keep such an export in step with the store."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, QueryError
from penstock.export.folder import make_folders, publish, save_checkpoint, starting_point
from penstock.export.plan import Changed, Wanted, compare
from penstock.export.writer import Writing, write_shards
from penstock.loader.formats.compression import checked_compression
from penstock.loader.formats.manifest import (
    FOLDER,
    FORMATS,
    TOKENIZER,
    FormatName,
    Manifest,
    named,
)
from penstock.store.exports import record_export
from penstock.store.files import replace_file
from penstock.store.lease import Lease
from penstock.tokens import StoredTokens

if TYPE_CHECKING:
    from penstock.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export did.

    Attributes:
        path: Its folder.
        format: Of its shards.
        run: The run of the store that it holds now.
        documents: Documents in it.
        written: Documents written by this export.
        tombstones: Rows in its shards that count no longer.
        shards: Shards in it.
        shards_written: New ones among them.
        shards_removed: Shards that were in it before and are gone.
        num_bytes: Of all its shards.
    """

    path: str
    format: str
    run: str
    documents: int
    written: int
    tombstones: int
    shards: int
    shards_written: int
    shards_removed: int
    num_bytes: int


def export(
    store: Store,
    out: str | os.PathLike[str],
    *,
    format: FormatName = "mds",  # noqa: A002 - as the command names it
    shard_bytes: int = 64_000_000,
    where: str | None = None,
    changed: Changed = "rewrite",
    compression: str | None = None,
) -> ExportReport:
    """Write the kept documents of a run into shards; `Store.export` says more."""
    folder = _checked(out, format, shard_bytes, changed, compression)
    searcher = store.searcher
    tokens = None if store.manifest.tokens is None else store.tokens()
    wanted = Wanted.of(searcher, tokens, where)
    make_folders(folder)
    with Lease(folder / FOLDER):
        base = starting_point(folder)
        _check_base(folder, base, format)
        if base is None and not wanted.rows.num_rows:
            raise QueryError(f"where {where!r}", "no kept document satisfies it: nothing to export")
        manifest = _manifest(store, wanted, format, where, base)
        before = manifest.shards
        stay, go, missing = compare(wanted, manifest, folder, changed)
        manifest = replace(manifest, shards=stay, retired=tuple(sorted({*manifest.retired, *go})))
        how = Writing(kind=format, shard_bytes=shard_bytes, compression=compression)
        manifest = write_shards(
            wanted.batches(missing),
            folder,
            manifest,
            how,
            lambda each: save_checkpoint(folder, each),
        )
        if tokens is not None:
            manifest = replace(manifest, tokenizer=_save_tokenizer(folder, tokens))
        publish(folder, manifest)
    record_export(store.path, folder, manifest, where)
    return _report(folder, manifest, {shard.name for shard in before}, int(missing.sum()))


def _checked(
    out: str | os.PathLike[str],
    kind: str,
    shard_bytes: int,
    changed: str,
    compression: str | None,
) -> Path:
    if kind not in FORMATS:
        raise ConfigError("format", kind, f"must be one of {', '.join(FORMATS)}")
    if not 1 <= shard_bytes < 1 << 32:
        raise ConfigError("shard_bytes", shard_bytes, "must be from 1 to 4 GiB")
    if changed not in ("tombstone", "rewrite"):
        raise ConfigError("changed", changed, "must be 'tombstone' or 'rewrite'")
    if checked_compression(compression) is not None and kind != "mds":
        raise ConfigError("compression", compression, "is of shards of MDS alone")
    text = os.fspath(out)
    if "://" in text:
        raise ConfigError("out", text, "must be a folder of this machine; copy it to the URL after")
    return Path(text).absolute()


def _check_base(folder: Path, base: Manifest | None, kind: str) -> None:
    if base is not None and base.kind != kind:
        raise ConfigError(
            "format", kind, f"must be {base.kind!r}, as {folder} is; or choose another folder"
        )


def _save_tokenizer(folder: Path, tokens: StoredTokens) -> tuple[str, int, str]:
    data = tokens.tokenizer_json()
    replace_file(folder / TOKENIZER, data)
    return named(TOKENIZER, data)


def _manifest(
    store: Store, wanted: Wanted, kind: FormatName, where: str | None, base: Manifest | None
) -> Manifest:
    facts: dict[str, Any] = {
        "store": str(store.path),
        "run": store.manifest.run,
        "where": where,
        "tokens": None if wanted.tokens is None else wanted.tokens.manifest.made_by,
    }
    return Manifest(kind=kind, **facts) if base is None else replace(base, **facts)


def _report(folder: Path, manifest: Manifest, before: set[str], written: int) -> ExportReport:
    names = {shard.name for shard in manifest.shards}
    return ExportReport(
        path=str(folder),
        format=manifest.kind,
        run=manifest.run,
        documents=manifest.num_rows,
        written=written,
        tombstones=sum(len(shard.dead) for shard in manifest.shards),
        shards=len(names),
        shards_written=len(names - before),
        shards_removed=len(before - names),
        num_bytes=sum(shard.num_bytes for shard in manifest.shards),
    )
