from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.loader.formats.rows import rows_of_tokens, write_folder

from penstock.errors import ConfigError, ShardError, SourceError
from penstock.loader import open_shards
from penstock.loader import places as places_module
from penstock.loader.cache import Fetched, NodeCache
from penstock.loader.formats.checks import Expected, digests
from penstock.loader.places import Remote

ROWS = rows_of_tokens()
NAMES: list[str] = ROWS["doc_id"].to_pylist()


@pytest.fixture
def url() -> Iterator[str]:
    """A prefix of fsspec's store in memory, unlike any other."""
    name = uuid.uuid4().hex
    yield f"memory://{name}"
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{name}"):
        memory.rm(f"/{name}", recursive=True)


@pytest.fixture
def gets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every object fetched whole; those whose name is in `spoilt` arrive damaged that often."""
    fetched: list[str] = []
    get = MemoryFileSystem.get_file

    def counting(self: Any, remote: str, local: str, **options: Any) -> Any:
        fetched.append(remote.rsplit("/", 1)[-1])
        return get(self, remote, local, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", counting)
    monkeypatch.setattr(places_module, "_FIRST_WAIT_S", 0.001)
    return fetched


def put(url: str, name: str, data: bytes) -> Expected:
    with fsspec.open(f"{url}/{name}", "wb") as file:
        file.write(data)
    return Expected(name, len(data), digests(data, ("sha256",)))


def upload(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            put(url, path.relative_to(folder).as_posix(), path.read_bytes())


def cached(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.shard"))


def test_shards_behind_a_url_are_fetched_once_and_read_as_local_ones(
    url: str, tmp_path: Path, gets: list[str]
) -> None:
    local = write_folder(tmp_path / "local", "mds", ROWS)
    upload(local, url)
    positions = np.arange(200)

    for _ in range(2):
        remote = open_shards(url, cache=tmp_path / "cache")
        found = remote.gather(positions)[0].tolist()
        assert found == open_shards(local).gather(positions)[0].tolist()
        assert remote.doc_ids(positions).to_pylist() == NAMES

    assert sorted(gets) == sorted({path.name for path in local.glob("*.mds")})
    assert len(cached(tmp_path / "cache")) == len(gets)


def test_many_readers_fetch_a_shard_once(url: str, tmp_path: Path, gets: list[str]) -> None:
    expected = put(url, "a", os.urandom(100_000))
    together = threading.Barrier(8)

    def fetch(_: int) -> Fetched:
        together.wait()
        return Remote(url, NodeCache(tmp_path, 1 << 20)).fetch(expected)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(fetch, range(8)))

    assert gets == ["a"]
    assert len({each.path for each in found}) == 1


def test_a_damaged_file_is_fetched_again(url: str, tmp_path: Path, gets: list[str]) -> None:
    expected = put(url, "a", b"x" * 5000)
    place = Remote(url, NodeCache(tmp_path, 1 << 20))
    place.fetch(expected)
    path = cached(tmp_path)[0]
    path.write_bytes(b"x" * 4999 + b"y")

    assert place.fetch(expected).path.read_bytes() == b"x" * 5000
    assert gets == ["a", "a"]


def test_a_remote_that_is_damaged_itself_is_an_error_after_some_tries(
    url: str, tmp_path: Path, gets: list[str]
) -> None:
    expected = put(url, "a", b"x" * 5000)
    put(url, "a", b"y" * 5000)

    with pytest.raises(ShardError, match="expected sha256") as caught:
        Remote(url, NodeCache(tmp_path, 1 << 20)).fetch(expected)

    assert caught.value.path == "a"
    assert len(gets) == 4
    assert not cached(tmp_path)


def test_what_may_heal_is_tried_again(
    url: str, tmp_path: Path, gets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(url, "a", b"x")
    get = MemoryFileSystem.get_file
    failures = iter([TimeoutError("slow"), OSError("reset")])

    def failing(self: Any, remote: str, local: str, **options: Any) -> Any:
        for failure in failures:
            raise failure
        return get(self, remote, local, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", failing)

    assert Remote(url, NodeCache(tmp_path, 1 << 20)).fetch(expected).path.read_bytes() == b"x"


def test_a_shard_that_is_gone_is_told_before_training_starts(url: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "local", "mds", ROWS)
    upload(folder, url)
    fsspec.filesystem("memory").rm(f"{url}/shard.00001.mds")

    with pytest.raises(ShardError, match="it is missing") as caught:
        open_shards(url, cache=tmp_path / "cache")

    assert caught.value.path == "shard.00001.mds"


def test_the_cache_stays_within_its_bound_and_evicts_what_was_used_longest_ago(
    url: str, tmp_path: Path, gets: list[str]
) -> None:
    place = Remote(url, NodeCache(tmp_path, 2500))
    files = [put(url, name, name.encode() * 1000) for name in "abc"]
    for file in files[:2]:
        place.fetch(file)
    place.fetch(files[0])

    place.fetch(files[2])
    place.fetch(files[0])

    assert gets == ["a", "b", "c"]
    assert sum(path.stat().st_size for path in cached(tmp_path)) <= 2500
    place.fetch(files[1])
    assert gets[-1] == "b"


def test_a_file_being_read_is_not_evicted(url: str, tmp_path: Path) -> None:
    place = Remote(url, NodeCache(tmp_path, 1500))
    files = [put(url, name, name.encode() * 1000) for name in "ab"]

    held = place.fetch(files[0])
    place.fetch(files[1])
    assert held.path.read_bytes() == b"a" * 1000

    del held
    place.fetch(put(url, "c", b"c" * 1000))
    assert [path.read_bytes()[:1] for path in cached(tmp_path)] == [b"c"]


def test_the_same_name_elsewhere_or_with_another_hash_is_another_file(
    url: str, tmp_path: Path
) -> None:
    place = Remote(url, NodeCache(tmp_path, 1 << 20))
    other = Remote(f"{url}/sub", NodeCache(tmp_path, 1 << 20))

    contents = [
        place.fetch(put(url, "a", b"1")).path.read_bytes(),
        place.fetch(put(url, "a", b"2")).path.read_bytes(),
        other.fetch(put(f"{url}/sub", "a", b"3")).path.read_bytes(),
    ]

    assert contents == [b"1", b"2", b"3"]
    assert len(cached(tmp_path)) == 3


def test_only_files_of_the_cache_are_ever_deleted(url: str, tmp_path: Path) -> None:
    keep = tmp_path / "shard.00000.mds"
    keep.write_bytes(b"mine")
    place = Remote(url, NodeCache(tmp_path, 1))

    for name in "abc":
        place.fetch(put(url, name, b"x" * 100))

    assert keep.read_bytes() == b"mine"


def test_what_a_killed_process_left_half_fetched_is_no_hindrance(url: str, tmp_path: Path) -> None:
    expected = put(url, "a", b"x" * 100)
    place = Remote(url, NodeCache(tmp_path, 1 << 20))
    place.fetch(expected)
    path = cached(tmp_path)[0]
    path.rename(path.with_suffix(".part"))
    path.with_suffix(".part").write_bytes(b"x" * 7)

    assert place.fetch(expected).path.read_bytes() == b"x" * 100


def test_wrong_places_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        open_shards(url, cache=tmp_path, cache_bytes=0)
    with pytest.raises(SourceError):
        open_shards("nosuch://x")


def test_of_many_processes_one_makes_a_file_and_one_that_is_killed_hands_it_on(
    tmp_path: Path,
) -> None:
    script = f"""
import os, signal, sys, time
from pathlib import Path
from penstock.errors import ShardError
from penstock.loader.cache import NodeCache

def check(path):
    if not path.exists() or path.read_bytes() != b"whole":
        raise ShardError(str(path), 0, "not there")

def make(path):
    with open({str(tmp_path / "log")!r}, "a") as log:
        log.write("made\\n")
    path.write_bytes(b"ha")
    time.sleep(0.3)
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_bytes(b"whole")

found = NodeCache(Path({str(tmp_path / "cache")!r}), 1 << 20).get("0" * 32, check, make)
print(found.path.read_bytes().decode())
"""
    first = subprocess.Popen([sys.executable, "-c", script, "dies"])
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    others = [
        subprocess.Popen([sys.executable, "-c", script, "lives"], stdout=subprocess.PIPE)
        for _ in range(3)
    ]

    outputs = [process.communicate(timeout=60)[0].decode().strip() for process in others]

    assert first.wait() == -signal.SIGKILL
    assert outputs == ["whole"] * 3
    assert (tmp_path / "log").read_text() == "made\n" * 2


def test_threads_fetch_different_shards_at_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(write_folder(tmp_path / "local", "mds", ROWS), url)
    shards = open_shards(url, cache=tmp_path / "cache")
    shards = pickle.loads(pickle.dumps(shards))  # with nothing at hand
    together = threading.Barrier(2, timeout=30)
    get = MemoryFileSystem.get_file

    def meeting(self: Any, remote: str, local: str, **options: Any) -> Any:
        together.wait()
        return get(self, remote, local, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", meeting)
    with ThreadPoolExecutor(2) as pool:
        ends = [np.array([60]), np.array([199])]

        found = [tokens.tolist() for tokens, _ in pool.map(shards.gather, ends)]

    assert found == [ROWS["tokens"][60].as_py(), ROWS["tokens"][199].as_py()]
