from __future__ import annotations

import io
import json
import sqlite3
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loader.formats.rows import rows_of_tokens

from penstock.errors import ShardError
from penstock.export.folder import make_folders, publish
from penstock.export.writer import Writing, write_shards
from penstock.kernels.tar import COMPLETE, DATA, SIZE, tar_members, tar_samples
from penstock.loader import open_shards
from penstock.loader.formats import webdataset
from penstock.loader.formats.manifest import Manifest

ROWS = rows_of_tokens(60)
NAMES: list[str] = ROWS["doc_id"].to_pylist()
TOKENS: list[list[int]] = ROWS["tokens"].to_pylist()


def tar_of(members: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def npy(numbers: list[int], dtype: str = "<u2") -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(numbers, dtype))
    return file.getvalue()


def array(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8)


def grouped(data: bytes) -> list[tuple[str, dict[str, bytes]]]:
    """Samples as WebDataset groups them, by the kernels."""
    members, status, _ = tar_members(array(data))
    assert status == COMPLETE
    sample, keys, fields, sizes = tar_samples(array(data), members)
    found: list[tuple[str, dict[str, bytes]]] = []
    for m, number in enumerate(sample.tolist()):
        if number < 0:
            continue
        if number == len(found):
            name = webdataset._name(array(data), members[m])[: keys[m]]
            found.append((name.decode(), {}))
        content = data[members[m, DATA] : members[m, DATA] + members[m, SIZE]]
        found[number][1][data[fields[m] : fields[m] + sizes[m]].decode()] = content
    return found


LETTERS = st.text("abc./_é", min_size=1, max_size=12)
LONG = st.builds(lambda text, n: "d" * n + text, LETTERS, st.integers(90, 240))


@settings(deadline=None, max_examples=80)
@given(
    members=st.lists(st.tuples(LETTERS | LONG, st.binary(max_size=700)), max_size=8),
    kind=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_members_are_found_as_pythons_tarfile_finds_them(
    members: list[tuple[str, bytes]], kind: int
) -> None:
    data = tar_of(members, kind)

    table, status, _ = tar_members(array(data))

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name.rstrip("/"), m.offset_data, m.size) for m in tar if m.isreg()]
    names = [webdataset._name(array(data), row).decode().rstrip("/") for row in table]
    places = table[:, [DATA, SIZE]].tolist()
    assert status == COMPLETE
    assert [(n, *p) for n, p in zip(names, places, strict=True)] == expected


def test_a_name_in_two_parts_is_found() -> None:
    name = "folder/" * 20 + "key.field"
    data = tar_of([(name, b"x")])

    assert grouped(data) == [("folder/" * 20 + "key", {"field": b"x"})]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            ["dir.v1/s0.seg.png", "dir.v1/s0.cls"],
            [("dir.v1/s0", ["seg.png", "cls"])],
            id="first-dot-of-the-last-part",
        ),
        pytest.param(["readme", "a.txt"], [("a", ["txt"])], id="no-dot-is-no-field"),
        pytest.param(
            ["a.txt", "b.txt", "a.json"],
            [("a", ["txt"]), ("b", ["txt"]), ("a", ["json"])],
            id="neighbours-only",
        ),
        pytest.param(
            ["__meta__/x.json", "__x__", "a.txt"], [("a", ["txt"])], id="metadata-is-passed-over"
        ),
        pytest.param(["x/a.txt", "a.txt"], [("x/a", ["txt"]), ("a", ["txt"])], id="folders-count"),
    ],
)
def test_samples_are_neighbours_with_one_key(
    names: list[str], expected: list[tuple[str, list[str]]]
) -> None:
    found = grouped(tar_of([(name, b"x") for name in names]))

    assert [(key, list(fields)) for key, fields in found] == expected


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar_files_of_other_writers_are_read(tmp_path: Path, kind: int) -> None:
    members = []
    for name, tokens in zip(NAMES, TOKENS, strict=True):
        key = name.removesuffix(".md")
        members += [(f"{key}.Input_Ids.NPY", npy(tokens, "<i4")), (f"{key}.txt", name.encode())]
    (tmp_path / "a.tar").write_bytes(tar_of(members[:40], kind))
    (tmp_path / "b.tar").write_bytes(tar_of(members[40:], kind))

    shards = open_shards(tmp_path)

    found, offsets = shards.gather(np.arange(60)[::-1])
    assert [part.tolist() for part in np.split(found, offsets[1:-1])] == TOKENS[::-1]
    assert shards.doc_ids(np.array([0, 59])).to_pylist() == ["docs/0000", "docs/0059"]
    assert pa.concat_tables(shards.tables(["txt"]))["txt"].to_pylist() == NAMES


def test_a_tar_cut_between_members_is_noticed_without_a_manifest(tmp_path: Path) -> None:
    data = tar_of([(f"{i}.npy", npy([i])) for i in range(5)])
    members, _, _ = tar_members(array(data))
    for cut in [int(members[3, 0]), int(members[3, DATA]), int(members[3, DATA]) + 7]:
        (tmp_path / "a.tar").write_bytes(data[:cut])

        with pytest.raises(ShardError) as caught:
            open_shards(tmp_path)

        assert caught.value.path == "a.tar"
        assert caught.value.offset == members[3, 0]
    (tmp_path / "a.tar").write_bytes(data[: int(members[3, 0])])
    with pytest.raises(ShardError, match="two zero blocks that end a tar"):
        open_shards(tmp_path)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        pytest.param([("a.npy", npy([1])), ("a.npy", npy([1]))], "'npy' twice", id="twice"),
        pytest.param([("a.npy", npy([1])), ("b.npy", npy([1], "<u4"))], "one type", id="types"),
        pytest.param([("a.npy", b"x" * 99)], "version 1", id="no-array"),
        pytest.param([("a.npy", npy([1])), ("b.txt", b"")], "1 samples have no field", id="none"),
    ],
)
def test_what_is_wrong_with_a_sample_is_told(
    tmp_path: Path, members: list[tuple[str, bytes]], problem: str
) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(members))

    with pytest.raises(ShardError, match=problem):
        open_shards(tmp_path).check()


@settings(deadline=None, max_examples=200)
@given(where=st.integers(0, 10_239), bit=st.integers(0, 7))
def test_a_damaged_tar_is_an_error_or_other_rows_never_a_crash(where: int, bit: int) -> None:
    data = bytearray(tar_of([(f"{'k' * 120}/{i}.npy", npy([i])) for i in range(3)], 2))
    data[where] ^= 1 << bit

    members, status, _ = tar_members(array(bytes(data)))
    if status == COMPLETE:
        tar_samples(array(bytes(data)), members)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    make_folders(out)
    empty = Manifest(kind="webdataset", store="", run="")
    how = Writing(kind="webdataset", shard_bytes=60_000)
    publish(out, write_shards([ROWS], out, empty, how, lambda manifest: None))
    return out


def test_our_tar_is_plain_ustar_that_pythons_tarfile_reads(exported: Path) -> None:
    rows = []
    for path in sorted(exported.glob("*.tar")):
        assert path.stat().st_size % 10_240 == 0
        with tarfile.open(path) as tar:
            for info in tar:
                data = tar.extractfile(info)
                assert data is not None
                assert (info.mtime, info.mode, info.uname) == (0, 0o444, "bigdata")
                field = info.name.partition(".")[2]
                if field == "json":
                    rows.append(json.loads(data.read()))
                elif field == "tokens.npy":
                    rows[-1]["tokens"] = np.load(io.BytesIO(data.read())).tolist()
                else:
                    rows[-1]["text"] = data.read().decode()
    expected = [
        {**row, "metadata": json.loads(row["metadata"])}
        for row in ROWS.drop_columns(["row_hash"]).to_pylist()
    ]
    assert rows == expected


def test_indexes_of_other_libraries_name_the_right_bytes(exported: Path) -> None:
    info = json.loads((exported / ".nv-meta/.info.json").read_text())
    database = sqlite3.connect(exported / ".nv-meta/index.sqlite")
    parts = database.execute(
        "SELECT tar_file_id, sample_key, byte_offset, byte_size, part_name, content_byte_offset,"
        " content_byte_size FROM samples JOIN sample_parts USING (tar_file_id, sample_index)"
        " ORDER BY 1, 6"
    ).fetchall()
    database.close()
    tars = sorted(path.name for path in exported.glob("*.tar"))
    at = 0
    assert list(info["shard_counts"]) == tars
    for number, name in enumerate(tars):
        data = (exported / name).read_bytes()
        stem = name.removesuffix(".tar")
        lines = (exported / f"{stem}.idx").read_text().splitlines()
        starts = struct.unpack(f"<{info['shard_counts'][name] + 1}Q", _bytes(exported, stem))
        assert lines[0] == f"v1.2 {info['shard_counts'][name]}"
        with tarfile.open(exported / name) as tar:
            members = tar.getmembers()
            assert starts == (*(m.offset for m in members[::3]), tar.offset)
        for m, member in enumerate(members):
            key, _, field = member.name.partition(".")
            tar_id, sample_key, start, size, part, place, count = parts[at]
            assert (tar_id, sample_key, part) == (number, key, field)
            assert (place, count) == (member.offset_data, member.size)
            assert (start, start + size) == (starts[m // 3], starts[m // 3 + 1])
            words = lines[1 + m // 3].split(" ")[m % 3 * 4 :][:4]
            assert words == [field, str(place), str(count), member.name]
            at += 1
        assert starts[-1] <= len(data)
    wids = json.loads((exported / "wids.json").read_text())
    assert [shard["url"] for shard in wids["shardlist"]] == tars
    assert sum(shard["nsamples"] for shard in wids["shardlist"]) == 60


def _bytes(folder: Path, stem: str) -> bytes:
    return (folder / f"{stem}.tar.idx").read_bytes()
