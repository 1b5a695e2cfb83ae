from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.export.folder import make_folders
from penstock.export.writer import Writing, write_shards
from penstock.loader import open_shards
from penstock.loader.formats import mds
from penstock.loader.formats.manifest import Manifest

# Written by MosaicML Streaming's own writer; see the README there.
THEIRS = Path(__file__).parents[2] / "data/mds"
ROWS: list[dict[str, Any]] = json.loads((THEIRS / "rows.json").read_text())
TYPES = {
    "blob": pa.binary(),
    "doc_id": pa.string(),
    "label": pa.int64(),
    "score": pa.float32(),
    "small": pa.uint8(),
    "text": pa.large_string(),
    "tokens": pa.list_(pa.uint16()),
}


def table() -> pa.Table:
    columns = {
        name: [bytes.fromhex(row[name]) if name == "blob" else row[name] for row in ROWS]
        for name in TYPES
    }
    fields = [pa.field(name, kind) for name, kind in TYPES.items()]
    fields.append(pa.field("metadata", pa.string(), metadata=mds.JSON))
    columns["metadata"] = [json.dumps(row["metadata"]) for row in ROWS]
    return pa.table(columns, schema=pa.schema(fields))


def test_our_writer_gives_the_bytes_of_theirs(tmp_path: Path) -> None:
    rows = table().append_column("row_hash", pa.array([bytes(16)] * 12, pa.binary(16)))
    manifest = Manifest(kind="mds", store="", run="")
    make_folders(tmp_path)

    how = Writing(kind="mds", shard_bytes=2500)
    written = write_shards([rows], tmp_path, manifest, how, lambda manifest: None)

    assert len(written.shards) == 3
    for shard in written.shards:
        assert (tmp_path / shard.name).read_bytes() == (THEIRS / "plain" / shard.name).read_bytes()
    index = mds.index_json([shard.entry for shard in written.shards])
    assert index == (THEIRS / "plain/index.json").read_bytes()


@pytest.mark.parametrize("folder", ["plain", "zstd", "gz", "br", "bz2", "snappy"])
def test_our_reader_reads_what_theirs_wrote(folder: str) -> None:
    shards = open_shards(THEIRS / folder, tokens="tokens")

    found, offsets = shards.gather(np.array([11, 0, 4]))

    assert shards.num_samples == 12
    assert shards.dtype == np.uint16
    assert np.split(found, offsets[1:-1])[0].tolist() == ROWS[11]["tokens"]
    assert found.tolist() == ROWS[11]["tokens"] + ROWS[0]["tokens"] + ROWS[4]["tokens"]
    assert shards.lengths(0, 12).tolist() == [len(row["tokens"]) for row in ROWS]
    assert shards.doc_ids(np.array([3, 10])).to_pylist() == [ROWS[3]["doc_id"], ROWS[10]["doc_id"]]


def test_columns_of_every_type_are_read() -> None:
    read = pa.concat_tables(open_shards(THEIRS / "zstd", tokens="tokens").tables()).to_pylist()

    for found, row in zip(read, ROWS, strict=True):
        assert found == {**row, "blob": bytes.fromhex(row["blob"]), "metadata": found["metadata"]}
        assert json.loads(found["metadata"]) == row["metadata"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        pytest.param("any", "uint32", id="type-in-each-row"),
        pytest.param("fixed", "uint32", id="shape-in-the-name"),
    ],
)
def test_arrays_of_other_types_are_tokens_too(column: str, expected: str) -> None:
    rows = np.array([i for i, row in enumerate(ROWS) if min(row[column]) >= 0])

    shards = open_shards(THEIRS / "zstd", tokens=column)

    assert shards.dtype == expected
    assert shards.gather(rows)[0].tolist() == [t for i in rows for t in ROWS[i][column]]


def test_bytes_are_tokens_where_their_type_is_told() -> None:
    with pytest.raises(ConfigError, match="what the bytes of 'blob' are"):
        open_shards(THEIRS / "plain", tokens="blob")

    shards = open_shards(THEIRS / "plain", tokens="blob", dtype="uint8")
    assert shards.lengths(0, 12).tolist() == list(range(12))


def test_a_column_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"among blob \(bytes\), doc_id \(text\)"):
        open_shards(THEIRS / "plain", tokens="ids")


TEXTS = st.text(max_size=8)
LISTS = st.lists(st.integers(0, 65535), max_size=300)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(TEXTS, st.binary(max_size=5), LISTS), min_size=1, max_size=6))
def test_a_shard_gives_back_the_rows_put_in(rows: list[tuple[str, bytes, list[int]]]) -> None:
    put = pa.table(
        {
            "a": pa.array([row[0] for row in rows], pa.large_string()),
            "b": pa.array([row[1] for row in rows], pa.large_binary()),
            "c": pa.array([row[2] for row in rows], pa.large_list(pa.uint16())),
            "d": pa.array(range(len(rows)), pa.int32()),
        }
    )

    shard = mds.encode(put, b"{}")

    assert len(shard) == mds.row_bytes(put).sum() + mds.head_bytes(b"{}")
    assert mds.read_table(shard, mds.columns_of(put.schema), list("abcd")).equals(put)


@settings(deadline=None, max_examples=300)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_shard_is_an_error_of_ours_or_other_rows_never_a_crash(
    where: float, bit: int
) -> None:
    put = table().select(["doc_id", "tokens", "label"])
    columns = mds.columns_of(put.schema)
    shard = mds.encode(put, b"{}")
    shard[int(where * len(shard))] ^= 1 << bit

    try:
        mds.read_values(shard, columns, "tokens").joined()
        mds.read_values(shard, columns, "label").joined()
    except ValueError:
        pass


def test_a_type_without_encoding_is_refused() -> None:
    with pytest.raises(ConfigError, match="MDS has no encoding"):
        mds.columns_of(pa.schema([("when", pa.timestamp("s"))]))
