from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.errors import SourceError
from penstock.protocols import Source
from penstock.sources import files, jsonl, parquet

Everything = Callable[[Source], Any]


@pytest.fixture
def store() -> Iterator[str]:
    """A prefix of fsspec's store in memory, unlike any other."""
    name = uuid.uuid4().hex
    yield f"memory://{name}"
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{name}"):
        memory.rm(f"/{name}", recursive=True)


def put(url: str, data: bytes = b"x") -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def test_objects_are_files(store: str, everything: Everything) -> None:
    for name in ("b.md", "a/c.py", "a/skip.log", ".git/config", "out/x"):
        put(f"{store}/{name}")
    put(f"{store}/a/.gitignore", b"*.log\n")
    put(f"{store}/.gitignore", b"/out/\n")

    found = everything(files(store))

    assert found.ids == [".gitignore", "a/.gitignore", "a/c.py", "b.md"]
    assert found.finished == found.listed
    assert everything(files(f"{store}/", gitignore=False, include="*.log")).ids == ["a/skip.log"]


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        pytest.param("**/*.md", ["a/b.md", "c.md"], id="two-stars"),
        pytest.param("*.md", ["c.md"], id="one-star"),
        pytest.param("a/*", ["b.md"], id="one-folder"),
    ],
)
def test_a_glob_chooses_objects(
    store: str, everything: Everything, glob: str, taken: list[str]
) -> None:
    for name in ("a/b.md", "c.md", "d.py"):
        put(f"{store}/{name}")

    assert everything(files(f"{store}/{glob}")).ids == taken


def test_one_object_is_named_by_its_name(store: str, everything: Everything) -> None:
    put(f"{store}/a/b.md", b"text")

    assert everything(files(f"{store}/a/b.md")).raw == {"b.md": b"text"}


def test_a_replaced_object_has_another_version(store: str) -> None:
    put(f"{store}/a", b"1")
    source = files(store)
    before = source.list().items["version"].to_pylist()
    put(f"{store}/a", b"2")

    assert source.list().items["version"].to_pylist() != before


def test_an_object_that_is_gone_is_a_failure(store: str) -> None:
    put(f"{store}/a")
    put(f"{store}/b")
    source = files(store)
    task = next(source.tasks(["a", "b"]))
    fsspec.filesystem("memory").rm(f"{store}/a")

    read = source.read(task)

    assert [(f.error, f.transient) for f in read.failures] == [("vanished", True)]
    assert [item for item, _ in read.finished] == ["b"]


def test_many_objects_are_asked_for_at_once(store: str, everything: Everything) -> None:
    for n in range(20):
        put(f"{store}/{n:02}", b"x" * n)

    found = everything(files(store))

    assert [len(row["raw"]) for row in found.rows] == list(range(20))
    assert found.finished == found.listed


def test_lines_and_rows_are_read_from_objects(store: str, everything: Everything) -> None:
    line = json.dumps({"_id": "1", "text": "one"}).encode()
    put(f"{store}/lines/a.jsonl.gz", gzip.compress(line))
    with fsspec.open(f"{store}/rows/a.parquet", "wb") as file:
        pq.write_table(pa.table({"id": [7], "text": ["seven"]}), file)

    assert everything(jsonl(f"{store}/lines")).raw == {"1": b"one"}
    assert everything(parquet(f"{store}/rows/*.parquet")).raw == {"7": b"seven"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("memory://nothing-is-here", "found nothing", id="no-prefix"),
        pytest.param("memory://nothing-is-here/*.md", "found nothing", id="no-prefix-for-a-glob"),
        pytest.param("nonsense://bucket/a", "fsspec or Arrow can open", id="no-scheme"),
    ],
)
def test_a_wrong_url_is_one_clear_error(url: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        files(url).list()


def test_arrow_opens_what_fsspec_cannot(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    from penstock.sources import _objects

    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    (tmp_path / "a.md").write_text("x")
    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    _objects._connect.cache_clear()

    system, path = _objects.connect(f"file://{tmp_path}/*.md")

    assert path == f"{tmp_path}/*.md"
    assert system.cat_file(f"{tmp_path}/a.md") == b"x"
    _objects._connect.cache_clear()
