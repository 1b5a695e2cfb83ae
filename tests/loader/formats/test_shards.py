"""What every format must do alike: give back what was written, and notice all damage."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.loader.formats.rows import rows_of_tokens, write_folder
from tests.tokens.tokenizers_json import END, byte_tokenizer

from penstock.errors import ConfigError, ShardError
from penstock.loader import Samples, open_shards
from penstock.loader.formats.manifest import MANIFEST, FormatName
from penstock.steps.tokenize import DocumentTokenizer, Tokenize

FORMATS = ["mds", "mds-zstd", "parquet", "webdataset", "lance"]
ROWS = rows_of_tokens()
NAMES: list[str] = ROWS["doc_id"].to_pylist()
NUM_FLIPS = 220  # a format: more than a thousand in all
TOKENS: list[list[int]] = ROWS["tokens"].to_pylist()


@pytest.fixture(params=FORMATS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind, _, compression = request.param.partition("-")
    return write_folder(tmp_path / "out", kind, ROWS, compression=compression or None)


def test_rows_come_back_in_any_order_whole_and_in_pieces(folder: Path) -> None:
    shards = open_shards(folder)
    positions = np.random.default_rng(1).integers(0, len(TOKENS), 300)
    lengths = shards.lengths(0, len(TOKENS))
    starts = lengths[positions].astype(np.int64) // 3

    whole, offsets = shards.gather(positions)
    pieces, places = shards.gather(
        positions, starts, (lengths[positions] - starts).astype(np.int32)
    )

    assert isinstance(shards, Samples)
    assert shards.dtype == np.uint16
    assert lengths.tolist() == [len(each) for each in TOKENS]
    assert [part.tolist() for part in np.split(whole, offsets[1:-1])] == [
        TOKENS[i] for i in positions
    ]
    assert [part.tolist() for part in np.split(pieces, places[1:-1])] == [
        TOKENS[i][len(TOKENS[i]) // 3 :] for i in positions
    ]
    names = ROWS["doc_id"].take(pa.array(positions)).to_pylist()
    assert shards.doc_ids(positions).to_pylist() == names


def test_lengths_of_a_part_are_those_of_the_whole(folder: Path) -> None:
    shards = open_shards(folder)

    for first, last in [(0, 0), (0, 1), (57, 143), (199, 200)]:
        assert shards.lengths(first, last).tolist() == [len(t) for t in TOKENS[first:last]]


def test_all_columns_can_be_read_again(folder: Path) -> None:
    read = pa.concat_tables(open_shards(folder).tables(["doc_id", "text", "metadata"]))

    assert read.to_pylist() == ROWS.select(["doc_id", "text", "metadata"]).to_pylist()


def test_a_loader_serves_every_sample_once(folder: Path) -> None:
    shards = open_shards(folder)
    loader = shards.loader(seq_len=64, global_batch_size=4, seed=3, doc_ids=True)

    served = [name for batch in loader for name in batch["doc_ids"]]

    assert loader.audit().digest == loader.audit().total
    filled = {name for name, tokens in zip(NAMES, TOKENS, strict=True) if tokens}
    assert set(served) - {None, ""} == filled


def test_nothing_asked_for_is_nothing(folder: Path) -> None:
    shards = open_shards(folder)

    found, offsets = shards.gather(np.zeros(0, np.int64))

    assert (len(found), offsets.tolist()) == (0, [0])
    assert shards.doc_ids(np.zeros(0, np.int64)).to_pylist() == []


def test_a_copy_in_another_process_reads_the_same(folder: Path) -> None:
    shards = open_shards(folder)
    positions = np.arange(50)
    shards.gather(positions)

    copy = pickle.loads(pickle.dumps(shards))

    assert copy.fingerprint == shards.fingerprint
    assert copy.gather(positions)[0].tolist() == shards.gather(positions)[0].tolist()


@pytest.mark.parametrize("kind", ["mds", "parquet", "webdataset", "lance"])
def test_rows_that_count_no_longer_are_passed_over(kind: FormatName, tmp_path: Path) -> None:
    dead = {0: (0, 3), 2: (1,)}
    before = open_shards(write_folder(tmp_path / "a", kind, ROWS)).fingerprint
    shards = open_shards(write_folder(tmp_path / "b", kind, ROWS, dead=dead))

    names = shards.doc_ids(np.arange(shards.num_samples)).to_pylist()
    tokens, offsets = shards.gather(np.arange(shards.num_samples))

    by_name = dict(zip(ROWS["doc_id"].to_pylist(), TOKENS, strict=True))
    assert shards.num_samples == len(TOKENS) - 3
    assert len(set(by_name) - set(names)) == 3
    assert {"docs/0000.md", "docs/0003.md"}.isdisjoint(names)
    found = [part.tolist() for part in np.split(tokens, offsets[1:-1])]
    assert found == [by_name[name] for name in names]
    assert shards.lengths(0, shards.num_samples).tolist() == [len(t) for t in found]
    assert pa.concat_tables(shards.tables(["doc_id"]))["doc_id"].to_pylist() == names
    assert shards.fingerprint != before


def _shards(folder: Path) -> list[Path]:
    endings = {".mds", ".zstd", ".parquet", ".tar", ".lance"}
    return sorted(path for path in folder.rglob("*") if path.suffix in endings)


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_all(folder: Path) -> None:
    shards = open_shards(folder)
    shards.check()
    shards.lengths(0, shards.num_samples)
    shards.doc_ids(np.arange(shards.num_samples))


@pytest.mark.parametrize(
    ("kind", "compression"),
    [("mds", None), ("mds", "zstd"), ("parquet", None), ("webdataset", None), ("lance", None)],
)
def test_every_flipped_bit_is_noticed(
    kind: FormatName, compression: str | None, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    write_folder(good, kind, ROWS, shard_bytes=12_000, compression=compression)
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    files = [path for path in _all_files(bad) if path.suffix != ".idx"]
    sizes = [path.stat().st_size for path in files]
    chance = random.Random(7)

    for _ in range(NUM_FLIPS):
        path = chance.choices(files, sizes)[0]
        data = path.read_bytes()
        place = chance.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ShardError) as caught:
            _read_all(bad)
        assert caught.value.path == path.relative_to(bad).as_posix()
        path.write_bytes(data)
    _read_all(bad)


def test_a_missing_shard_is_told_before_training_starts(folder: Path) -> None:
    victim = _shards(folder)[1]
    victim.unlink()

    with pytest.raises(ShardError, match="it is missing") as caught:
        open_shards(folder)

    assert caught.value.path == victim.relative_to(folder).as_posix()


def test_a_truncated_shard_is_told_before_training_starts(folder: Path) -> None:
    victim = _shards(folder)[1]
    data = victim.read_bytes()
    victim.write_bytes(data[:-7])

    with pytest.raises(ShardError) as caught:
        open_shards(folder)

    assert caught.value.path == victim.relative_to(folder).as_posix()
    assert caught.value.offset == len(data) - 7
    assert f"expected {len(data)} bytes, found {len(data) - 7}" in str(caught.value)


def test_a_folder_without_shards_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")

    with pytest.raises(ConfigError, match=r"must be a folder with shards: .* found notes\.txt"):
        open_shards(tmp_path)


def test_a_manifest_of_a_newer_penstock_is_refused(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))

    with pytest.raises(ShardError, match="reads up to 1"):
        open_shards(folder)


def test_parquet_of_another_library_is_read(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for part in (0, 1):
        rows = ROWS.slice(part * 100, 100)
        ids = rows["tokens"].cast(pa.list_(pa.int64()))
        pq.write_table(
            pa.table({"id": rows["doc_id"], "input_ids": ids}),
            tmp_path / f"part-{part}.parquet",
            row_group_size=30,
        )

    shards = open_shards(tmp_path)

    assert shards.dtype == np.uint32
    found, offsets = shards.gather(np.arange(200)[::-1])
    assert [part.tolist() for part in np.split(found, offsets[1:-1])] == TOKENS[::-1]
    assert shards.doc_ids(np.array([7, 150])).to_pylist() == ["docs/0007.md", "docs/0150.md"]


@pytest.mark.parametrize("kind", ["mds", "parquet", "webdataset", "lance"])
def test_shards_of_text_are_tokenized_once(
    kind: FormatName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_folder(tmp_path / "out", kind, ROWS.drop_columns(["tokens"]))
    with pytest.raises(ConfigError, match="give a tokenizer for the text"):
        open_shards(out)
    texts = [text.encode() + b"." for text in ROWS["text"].to_pylist()]
    step = Tokenize(tokenizer=byte_tokenizer(), end_of_document=END)
    fingerprints = set()
    for again in (False, True):
        shards = open_shards(out, tokenizer=step, cache=tmp_path / "cache")
        if again:
            monkeypatch.setattr(DocumentTokenizer, "encode", None)
        found, offsets = shards.gather(np.arange(200))
        assert shards.lengths(0, 200).tolist() == [len(text) for text in texts]
        assert np.diff(offsets).tolist() == [len(text) for text in texts]
        assert len(set(found[offsets[1:] - 1].tolist())) == 1
        assert pickle.loads(pickle.dumps(shards)).fingerprint == shards.fingerprint
        fingerprints.add(shards.fingerprint)
    assert len(fingerprints) == 1
    monkeypatch.undo()
    other = open_shards(out, tokenizer=byte_tokenizer(), text="text", cache=tmp_path / "cache")
    assert other.fingerprint not in fingerprints
    with pytest.raises(ConfigError, match="must name a column of text; there are"):
        open_shards(out, tokenizer=step, text="body")


def test_lance_of_another_library_is_read(tmp_path: Path) -> None:
    import lance

    table = pa.table({"doc_id": ROWS["doc_id"], "tokens": ROWS["tokens"]})
    lance.write_dataset(table, str(tmp_path / "a.lance"), max_rows_per_file=70)
    lance.dataset(str(tmp_path / "a.lance")).delete("doc_id = 'docs/0007.md'")

    shards = open_shards(tmp_path / "a.lance")

    names = shards.doc_ids(np.arange(shards.num_samples)).to_pylist()
    found, offsets = shards.gather(np.arange(shards.num_samples))
    assert names == [name for name in NAMES if name != "docs/0007.md"]
    assert [part.tolist() for part in np.split(found, offsets[1:-1])] == TOKENS[:7] + TOKENS[8:]


def test_ids_that_no_tokenizer_gives_are_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"tokens": [[1, -100]]}), tmp_path / "a.parquet")

    with pytest.raises(ShardError, match="token ids of 32 bits"):
        open_shards(tmp_path).gather(np.array([0]))
