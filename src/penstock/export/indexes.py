"""The indexes that other libraries read, written when an export is published.

    index.json       MosaicML Streaming
    wids.json        WIDS, the random access of WebDataset
    _versions/       Lance, as a new version of the data set
    .nv-meta/        Megatron-Energon 7: counts, splits, and every member's place in SQLite

What belongs to one tar file is written with it: `.idx` for DALI, `.tar.idx` for Energon.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from penstock.loader.formats import mds
from penstock.loader.formats.lance import LanceReader
from penstock.loader.formats.manifest import Manifest, named
from penstock.loader.formats.mds_reader import INDEX
from penstock.loader.places import Folder
from penstock.store.files import all_files, fsync_file, fsync_folder, fsync_new, replace_file

_ENERGON = ".nv-meta"
_ENERGON_VERSION = "7.4.0"

_TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER, sample_index INTEGER, part_name TEXT,
    content_byte_offset INTEGER, content_byte_size INTEGER
);
"""
_INDEXES = """
CREATE INDEX idx_samples_sample_key ON samples(sample_key);
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts(
    tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size
);
"""


def write_indexes(out: Path, manifest: Manifest) -> Iterator[tuple[str, int, str]]:
    """Write the indexes of a manifest's format, each whole or not at all; name, bytes, SHA-256."""
    files: dict[str, bytes] = {}
    if manifest.kind == "mds":
        files[INDEX] = mds.index_json([shard.entry for shard in manifest.shards])
    if manifest.kind == "webdataset":
        (out / _ENERGON).mkdir(exist_ok=True)
        fsync_folder(out)
        yield _write_energon_samples(out, manifest)
        files |= _tar_indexes(manifest)
    if manifest.kind == "lance":
        _commit_lance(out, manifest)
    for name, data in files.items():
        replace_file(out / name, data)
        yield named(name, data)


def _tar_indexes(manifest: Manifest) -> dict[str, bytes]:
    shards = manifest.shards
    wids = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": s.name, "nsamples": s.num_rows, "filesize": s.num_bytes} for s in shards
        ],
    }
    counts = {shard.name: shard.num_rows for shard in shards}
    info = {"energon_version": _ENERGON_VERSION, "shard_counts": counts}
    train = "".join(f"  - {shard.name}\n" for shard in shards)
    content = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
    return {
        "wids.json": json.dumps(wids).encode(),
        f"{_ENERGON}/.info.json": json.dumps(info).encode(),
        f"{_ENERGON}/split.yaml": (
            f"exclude: []\nsplit_parts:\n  train:\n{train}  val: []\n  test: []\n"
        ).encode(),
        f"{_ENERGON}/dataset.yaml": (b"__module__: megatron.energon\n__class__: CrudeWebdataset\n"),
        f"{_ENERGON}/index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, content)).encode(),
    }


def _write_energon_samples(out: Path, manifest: Manifest) -> tuple[str, int, str]:
    """Every sample's and member's place, out of the indexes that lie beside the shards."""
    name = f"{_ENERGON}/index.sqlite"
    temporary = out / f"{name}.tmp"
    temporary.unlink(missing_ok=True)
    with sqlite3.connect(temporary) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
        for number, shard in enumerate(manifest.shards):
            stem = shard.name.removesuffix(".tar")
            samples, parts = _places(out / f"{stem}.idx", number)
            database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", samples)
            database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", parts)
        database.executescript(_INDEXES)
    database.close()
    fsync_file(temporary)
    os.replace(temporary, out / name)
    with open(out / name, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return name, (out / name).stat().st_size, digest


def _commit_lance(out: Path, manifest: Manifest) -> None:
    """Make the shards the newest version of the data set, without their dead rows."""
    import lance
    from lance.fragment import FragmentMetadata

    known = all_files(out)
    fragments = [FragmentMetadata.from_json(json.dumps(shard.entry)) for shard in manifest.shards]
    before = lance.dataset(str(out)) if (out / "_versions").is_dir() else None
    if before is not None and _is_current(before, manifest):
        return
    if manifest.shards:
        schema = LanceReader(Folder(out)).schema(manifest.shards[0].file)
    else:
        assert before is not None  # an export begins with a document
        schema = before.schema
    dataset = lance.LanceDataset.commit(
        str(out),
        lance.LanceOperation.Overwrite(schema, fragments),
        read_version=None if before is None else before.version,
    )
    # Each version numbers its fragments on from the one before.
    numbers = {_data_file(each): each.fragment_id for each in dataset.get_fragments()}
    dead = [(numbers[s.name] << 32) + row for s in manifest.shards for row in s.dead]
    for first in range(0, len(dead), 50_000):
        dataset.delete(f"_rowaddr IN ({','.join(map(str, dead[first : first + 50_000]))})")
    fsync_new(out, known)


def _is_current(dataset: Any, manifest: Manifest) -> bool:
    found = [_data_file(fragment) for fragment in dataset.get_fragments()]
    wanted = [shard.name for shard in manifest.shards]
    return found == wanted and dataset.count_rows() == manifest.num_rows


def _data_file(fragment: Any) -> str:
    return f"data/{fragment.data_files()[0].path}"


def forget_old_versions(out: Path) -> None:
    """Delete versions of a Lance data set that name files which are gone."""
    import lance

    lance.dataset(str(out)).cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


_Sample = tuple[int, str, int, int, int]
_Part = tuple[int, int, str, int, int]


def _places(index: Path, number: int) -> tuple[list[_Sample], list[_Part]]:
    samples: list[_Sample] = []
    parts: list[_Part] = []
    for row, line in enumerate(index.read_text().splitlines()[1:]):
        words = line.split(" ")
        members = list(zip(words[::4], words[1::4], words[2::4], strict=True))
        start = int(members[0][1]) - 512
        last_place, last_size = int(members[-1][1]), int(members[-1][2])
        size = last_place + -(-last_size // 512) * 512 - start
        samples.append((number, words[3].partition(".")[0], row, start, size))
        parts += [(number, row, name, int(place), int(count)) for name, place, count in members]
    return samples, parts
