"""A store on an object store is like one on a disk: what it holds, earlier runs, searches."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.tiny_bert import write_model
from tests.tokens.tokenizers_json import byte_tokenizer
from typer.testing import CliRunner

import penstock as ps
from penstock.build.index import rebuild_index
from penstock.cli.app import app
from penstock.errors import MissingExtra, StoreError
from penstock.export import exported_shards
from penstock.store.files import all_files
from penstock.store.objects import ObjectPath
from penstock.store.places import file_sizes, open_place

pytestmark = pytest.mark.slow

Contents = Callable[..., dict[str, Any]]
Words = Callable[[Path], ps.Flow]


def test_a_store_on_s3_holds_what_a_local_one_holds(
    s3: str, docs: Path, tmp_path: Path, contents: Contents
) -> None:
    model = str(write_model(tmp_path / "model"))
    steps: list[Any] = [ps.Normalize(), ps.ExactDedup(), ps.Chunk(), ps.Embed(model=model)]
    flow = ps.Flow(source=ps.files(docs), steps=steps)
    flow.run(s3)
    flow.run(tmp_path / "local")

    assert contents(s3) == contents(tmp_path / "local")
    assert ps.Store.open(s3).search("page 3")[0].vector_score is not None

    (docs / "03.md").unlink()
    (docs / "04.md").write_text("# Another page\n\nOf other words.\n")
    (docs / "new.md").write_text("# New\n\nMore words of page 3.\n")
    report = flow.run(s3)
    flow.run(tmp_path / "local")

    assert report.counts.items_read == 2
    assert contents(s3) == contents(tmp_path / "local")
    assert contents(s3, 1) == contents(tmp_path / "local", 1)


def test_tokens_on_s3_are_those_of_a_local_store(s3: str, docs: Path, tmp_path: Path) -> None:
    flow = ps.Flow(source=ps.files(docs), steps=[ps.Tokenize(tokenizer=byte_tokenizer())])
    flow.run(s3)
    (docs / "03.md").unlink()
    (docs / "04.md").write_text("# Another page\n\nOf other words.\n")
    report = flow.run(s3)
    flow.run(tmp_path / "local")

    here, there = (ps.Store.open(place).tokens() for place in (tmp_path / "local", s3))
    every = np.arange(here.num_samples)
    assert report.counts.documents_tokenized == 1
    assert here.fingerprint == there.fingerprint
    assert here.gather(every)[0].tolist() == there.gather(every)[0].tolist()


def test_readers_never_see_half_a_run_while_a_writer_publishes(
    s3: str, docs: Path, words: Words
) -> None:
    def page(number: int) -> None:
        for name in ("03", "04"):
            (docs / f"{name}.md").write_text(f"# Version {number} of {name}\n\nIt has words.\n")

    page(0)
    words(docs).run(s3)
    seen: list[tuple[str, set[str]]] = []
    over = threading.Event()

    def look() -> None:
        following = ps.Store.open(s3)
        while not over.is_set():
            following.refresh()
            for store in (ps.Store.open(s3), following):
                titles = store.chunks(["heading_path"], where="heading_path LIKE 'Version %'")
                hits = store.search("version", k=5)
                found = {title.split()[1] for title in titles["heading_path"].to_pylist()}
                seen.append((store.manifest.run, found | {h.text.split()[2] for h in hits}))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 4):
        page(number)
        words(docs).run(s3)
    over.set()
    for reader in readers:
        reader.join()

    assert all(found == {str(int(run) - 1)} for run, found in seen)
    assert len({run for run, _ in seen}) > 1


def test_the_index_of_a_store_on_s3_can_be_rebuilt(
    s3: str, docs: Path, words: Words, contents: Contents
) -> None:
    words(docs).run(s3)
    (docs / "03.md").unlink()
    words(docs).run(s3)
    before = contents(s3)

    assert rebuild_index(s3) == len(before["chunks"])
    assert ps.Store.open(s3).manifest.run == "000003"
    assert contents(s3) == before


def test_the_commands_take_a_url(s3: str, docs: Path) -> None:
    def told(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    (docs.parent / "flow.py").write_text(
        "import penstock as ps\n\n\ndef flow(source: str) -> ps.Flow:\n"
        "    return ps.Flow(source=ps.files(source), steps=[ps.Chunk()])\n"
    )
    told("build", str(docs), s3, "--flow", str(docs.parent / "flow.py"), "-q")

    assert "07.md" in told("search", s3, "page 7", "-k", "3")
    assert "40 documents, 40 kept" in told("status", s3)
    assert "000001" in told("runs", s3)
    assert "published as run 000002" in told("index", "rebuild", s3)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        pytest.param("s3://no-such-bucket/store", "bucket is not there", id="no-bucket"),
        pytest.param("gs://bucket/store", "expected the folder of a store, or s3://", id="scheme"),
        pytest.param("s3:///store", "expected the folder of a store, or s3://", id="no-name"),
    ],
)
def test_a_place_that_holds_no_store_is_one_clear_error(
    s3: str, docs: Path, words: Words, url: str, problem: str
) -> None:
    with pytest.raises(StoreError, match=problem):
        words(docs).run(url)


def test_without_the_client_the_extra_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)

    with pytest.raises(MissingExtra, match=r"penstock\[s3\]"):
        ps.Store.open(s3)


def test_where_there_is_no_store_opening_says_how_to_build_one(s3: str) -> None:
    with pytest.raises(StoreError, match=f"no store here; build one: penstock build SOURCE {s3}"):
        ps.Store.open(s3)


def test_dropping_runs_on_s3_leaves_what_other_runs_are_made_of(
    s3: str,
    docs: Path,
    tmp_path: Path,
    words: Words,
    contents: Contents,
    elsewhere: Callable[[], Path],
) -> None:
    for number in range(4):
        (docs / "03.md").write_text(f"# Version {number}\n\nIt has words.\n")
        words(docs).run(s3)
        if number == 1:
            ps.Store.open(s3).tag("first")
    tagged, last = contents(s3, "first"), contents(s3)
    size = sum(file_sizes(open_place(s3)).values())
    dropped = ps.Store.open(s3).gc(keep=1).dropped
    elsewhere()

    assert dropped == ("000001", "000003")
    assert sum(file_sizes(open_place(s3)).values()) < size
    assert (contents(s3, "first"), contents(s3)) == (tagged, last)
    ps.Store.open(s3).rollback("first")
    assert contents(s3) == tagged
    words(docs).run(s3)
    assert contents(s3) == last


def test_no_object_and_no_copy_holds_what_was_forgotten(
    s3: str, docs: Path, tmp_path: Path, words: Words
) -> None:
    (docs / "secret.md").write_text("# Xyzzyq\n\nPlugh xyzzyq words.\n")
    words(docs).run(s3)
    (docs / "03.md").unlink()
    words(docs).run(s3)
    store = open_place(s3)
    assert isinstance(store, ObjectPath)

    def holding() -> list[str]:
        found = [k for k in store.bucket.sizes(store.key) if b"xyzzyq" in store.bucket.get(k)[0]]
        files = all_files(tmp_path / "cache" / "stores")
        return found + [file for file in files if b"xyzzyq" in Path(file).read_bytes()]

    assert holding()
    ps.Store.open(s3).forget("secret.md")
    words(docs).run(s3)
    assert "secret.md" not in ps.Store.open(s3).documents(["doc_id"])["doc_id"].to_pylist()
    ps.Store.open(s3).gc(keep=1)

    assert holding() == []


_READER = """
import json, sys
import penstock as ps

problems, seen, following = [], set(), None
for line in sys.stdin:
    following = following or ps.Store.open(sys.argv[1])
    following.refresh()
    for store in (ps.Store.open(sys.argv[1]), following):
        run = int(store.manifest.run)
        hits = store.search("version", k=5)
        texts = [*store.documents(["text"], "doc_id = '03.md'")["text"].to_pylist()]
        if {text.split()[2] for text in [*texts, *(hit.text for hit in hits)]} != {str(run)}:
            problems.append([run, texts, [hit.text for hit in hits]])
        seen.add(run)
    print(json.dumps([problems, sorted(seen)]), flush=True)
"""


@pytest.mark.slow
def test_no_reader_in_another_process_sees_half_a_run(s3: str, docs: Path, words: Words) -> None:
    (docs / "03.md").write_text("# Version 1\n\nIt has words.\n")
    words(docs).run(s3)
    command = [sys.executable, "-c", _READER, s3]
    pipe = subprocess.PIPE
    readers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) for _ in range(3)
    ]
    over = threading.Event()
    told: list[Any] = [None] * len(readers)

    def follow(number: int) -> None:
        ours = readers[number]
        assert ours.stdin is not None
        assert ours.stdout is not None
        while not over.is_set():
            ours.stdin.write("look\n")
            told[number] = json.loads(ours.stdout.readline())
        ours.communicate()

    watchers = [threading.Thread(target=follow, args=(number,)) for number in range(len(readers))]
    for watcher in watchers:
        watcher.start()
    while None in told:
        time.sleep(0.05)
    for number in range(2, 12):
        (docs / "03.md").write_text(f"# Version {number}\n\nIt has words.\n")
        words(docs).run(s3)
    over.set()
    for watcher in watchers:
        watcher.join()

    assert [problems for problems, _ in told] == [[]] * len(readers)
    assert all(len(seen) > 2 for _, seen in told)


def test_a_store_on_s3_is_exported_and_knows_it(s3: str, docs: Path, tmp_path: Path) -> None:
    ps.Flow(source=ps.files(docs), steps=[ps.Tokenize(tokenizer=byte_tokenizer())]).run(s3)
    store = ps.Store.open(s3)
    for name in ("one", "two"):
        store.export(tmp_path / name)

    assert ps.open_shards(tmp_path / "one").num_samples == 40
    assert [Path(h.path).name for h in exported_shards(store.path, ["03.md"])] == ["one", "two"]
