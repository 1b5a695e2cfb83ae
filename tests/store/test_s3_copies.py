"""Local copies of what an object store holds: made once, checked, kept while in use, bounded."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import StoreError
from penstock.store import copies, objects
from penstock.store.files import all_files
from penstock.store.objects import ObjectPath
from penstock.store.places import local_files, open_place

pytestmark = pytest.mark.slow

Words = Callable[[Path], ps.Flow]


@pytest.fixture
def entries(s3: str, tmp_path: Path) -> Callable[..., ObjectPath]:
    """Put entries of 10 kB as a writer would, and forget their copies."""

    def put(*names: str) -> ObjectPath:
        store = open_place(s3)
        assert isinstance(store, ObjectPath)
        store.bucket.token = "token"
        here = local_files(store / "index").path
        for name in names:
            (here / name / "part").mkdir(parents=True)
            (here / name / "part/a.npy").write_bytes(name.encode() * 1000)
            (here / name / "empty").touch()
        copies.upload_new(store, set())
        return store / "index"

    return put


@pytest.fixture
def requests(s3_server: Any) -> Iterator[list[str]]:
    """The keys that are asked for from now on."""
    made: list[str] = []
    s3_server.before = lambda method, key: made.append(f"{method} {key.rpartition('/')[2]}")
    yield made
    s3_server.before = lambda method, key: None


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("stores/*/index/[!.]*")}


def test_what_a_writer_put_is_read_elsewhere_and_fetched_once(
    entries: Callable[..., ObjectPath], elsewhere: Callable[[], Path], requests: list[str]
) -> None:
    index = entries("one-token")
    cache = elsewhere()
    requests.clear()
    found = local_files(index, ["one-token"])
    again = local_files(index, ["one-token"])

    assert (found.path / "one-token/part/a.npy").read_bytes() == b"one-token" * 1000
    assert (found.path / "one-token/empty").read_bytes() == b""
    assert again.path == found.path
    assert sorted(requests) == ["GET a.npy", "GET empty", "GET one-token.files"]
    assert names(cache) == {"one-token"}


def test_many_readers_of_one_machine_fetch_once(
    entries: Callable[..., ObjectPath], elsewhere: Callable[[], Path], requests: list[str]
) -> None:
    index = entries("one-token")
    elsewhere()
    requests.clear()
    readers = [threading.Thread(target=lambda: local_files(index, ["one-token"])) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert requests.count("GET a.npy") == 1


def test_copies_used_longest_ago_make_room_but_never_those_in_use(
    entries: Callable[..., ObjectPath],
    elsewhere: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = ["a-token", "b-token", "c-token", "d-token"]
    index = entries(*wanted)
    cache = elsewhere()
    monkeypatch.setenv("PENSTOCK_CACHE_GB", "22e-6")
    held = [local_files(index, ["a-token"])]
    for name in wanted[1:3]:
        local_files(index, [name])
    for age, name in enumerate(reversed(wanted[:3])):
        os.utime(held[0].path / f".{name}.lock", (1e9 - age, 1e9 - age))
    local_files(index, ["d-token"])

    # `a` was used longest ago, and still is; then comes `b`.
    assert names(cache) == {"a-token", "c-token", "d-token"}
    held.clear()


def test_a_copy_in_use_stays_also_where_that_is_more_than_the_bound(
    entries: Callable[..., ObjectPath],
    elsewhere: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = entries("a-token", "b-token")
    cache = elsewhere()
    monkeypatch.setenv("PENSTOCK_CACHE_GB", "0")
    held = local_files(index, ["a-token", "b-token"])

    assert names(cache) == {"a-token", "b-token"}
    del held


@pytest.mark.parametrize("damage", [b"", b"x" * 9000], ids=["cut-short", "other-bytes"])
def test_a_damaged_object_is_one_clear_error_and_leaves_no_copy(
    entries: Callable[..., ObjectPath], elsewhere: Callable[[], Path], damage: bytes
) -> None:
    index = entries("a-token")
    (index / "a-token/part/a.npy").bucket.put(f"{index.key}/a-token/part/a.npy", damage)
    cache = elsewhere()

    with pytest.raises(StoreError, match=r"a\.npy: it is not what was written.*index rebuild"):
        local_files(index, ["a-token"])

    assert not any(not path.endswith(".lock") for path in all_files(cache))


def test_an_entry_that_is_gone_is_one_clear_error(
    entries: Callable[..., ObjectPath], elsewhere: Callable[[], Path]
) -> None:
    index = entries("a-token")
    elsewhere()

    with pytest.raises(StoreError, match="index/b-token: it is not there"):
        local_files(index, ["b-token"])


def test_another_machine_goes_on_with_a_store(
    s3: str,
    docs: Path,
    tmp_path: Path,
    words: Words,
    contents: Callable[..., Any],
    elsewhere: Callable[[], Path],
) -> None:
    words(docs).run(s3)
    elsewhere()
    (docs / "05.md").unlink()
    words(docs).run(s3)
    words(docs).run(tmp_path / "local")
    elsewhere()

    assert contents(s3) == contents(tmp_path / "local")


def test_an_index_that_is_damaged_on_s3_is_built_anew(
    s3: str,
    docs: Path,
    tmp_path: Path,
    words: Words,
    contents: Callable[..., Any],
    elsewhere: Callable[[], Path],
) -> None:
    words(docs).run(s3)
    store = open_place(s3)
    assert isinstance(store, ObjectPath)
    for key in store.bucket.sizes(f"{store.key}/index"):
        if key.endswith("rows.npy"):
            store.bucket.put(key, b"nothing")
    elsewhere()
    with pytest.raises(StoreError, match="not what was written"):
        ps.Store.open(s3).search("words")
    (docs / "05.md").unlink()
    words(docs).run(s3)
    words(docs).run(tmp_path / "local")

    assert contents(s3) == contents(tmp_path / "local")


def test_an_open_store_keeps_its_copies_until_it_is_gone(
    s3: str, docs: Path, tmp_path: Path, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    words(docs).run(s3)
    monkeypatch.setenv("PENSTOCK_CACHE_GB", "0")
    store = ps.Store.open(s3)
    store.search("words")
    copies.make_room(1)
    while_open = names(tmp_path / "cache")
    del store
    copies.make_room(1)

    assert len(while_open) == 1
    assert names(tmp_path / "cache") == set()


def test_large_files_go_up_in_parts(
    s3: str, tmp_path: Path, elsewhere: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_PART_BYTES", 5 << 20)
    store = open_place(s3)
    assert isinstance(store, ObjectPath)
    store.bucket.token = "token"
    content = bytes(range(256)) * 50_000
    (local_files(store / "index").path / "a-token").write_bytes(content)
    copies.upload_new(store, set())
    elsewhere()

    assert (local_files(store / "index", ["a-token"]).path / "a-token").read_bytes() == content


def test_a_cache_that_cannot_be_written_is_one_clear_error(
    entries: Callable[..., ObjectPath], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = entries("a-token")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "file"))

    with pytest.raises(StoreError, match=r"cannot be kept here.*set PENSTOCK_CACHE"):
        local_files(index, ["a-token"])


def test_a_place_survives_pickling_as_a_readers(entries: Callable[..., ObjectPath]) -> None:
    index = entries("a-token")
    again = pickle.loads(pickle.dumps(index))

    assert (str(again), again.bucket.token) == (str(index), "")
    assert (again / "a-token/part/a.npy").read_bytes() == b"a-token" * 1000
