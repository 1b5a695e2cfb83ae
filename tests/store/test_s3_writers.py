"""On an object store any number of writers may try; one at a time publishes, others say why."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import penstock as ps
from penstock.errors import LeaseError
from penstock.store import object_lease
from penstock.store.lease import take_lease
from penstock.store.manifest import Manifest, current_run, publish, starting_point
from penstock.store.object_lease import ObjectLease
from penstock.store.objects import ObjectPath
from penstock.store.places import attempt_name, open_place
from penstock.store.tables import Table, open_table

pytestmark = pytest.mark.slow

Contents = Callable[..., dict[str, Any]]


def place(url: str) -> ObjectPath:
    """A connection of its own, as another writer has."""
    found = open_place(url)
    assert isinstance(found, ObjectPath)
    return found


def hold(url: str) -> ObjectLease:
    found = take_lease(place(url))
    assert isinstance(found, ObjectLease)
    return found


def lock_of(url: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((place(url) / "writer.lock").read_bytes())
    return facts


def expire(url: str, **changes: Any) -> None:
    """Make the lease look as if it was not renewed for long, on another machine."""
    lock = place(url) / "writer.lock"
    facts = {**lock_of(url), "renewed": time.time() - 1e4, "host": "far-away", **changes}
    lock.bucket.put(lock.key, json.dumps(facts).encode())


def test_a_second_writer_on_s3_is_told_who_holds_the_store(s3: str) -> None:
    with (
        hold(s3),
        pytest.raises(
            LeaseError, match=rf"process {os.getpid()} on .* has been writing it for .*said so 0 s"
        ),
        hold(s3),
    ):
        pass


def test_of_writers_that_race_each_publishes_a_run_of_its_own_or_nothing(
    s3: str, docs: Path, tmp_path: Path, words: Callable[[Path], ps.Flow], contents: Contents
) -> None:
    words(docs).run(s3)
    (docs / "03.md").unlink()
    published: list[str] = []
    refused: list[LeaseError] = []
    together = threading.Barrier(4)

    def race() -> None:
        together.wait()
        for _ in range(3):
            try:
                published.append(words(docs).run(s3).run)
            except LeaseError as err:
                refused.append(err)

    writers = [threading.Thread(target=race) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    words(docs).run(tmp_path / "fresh")

    runs = [manifest.run for manifest in ps.Store.open(s3).runs()]
    assert sorted(["000001", *published]) == runs
    assert len(published) + len(refused) == 12
    assert all(f"process {os.getpid()} on" in str(err) for err in refused)
    assert contents(s3) == contents(tmp_path / "fresh")


def test_a_second_writer_of_the_same_connection_changes_nothing_for_the_first(s3: str) -> None:
    store = place(s3)
    with take_lease(store) as lease:
        name = attempt_name(store, "000001")
        with pytest.raises(LeaseError), take_lease(store):
            pass

        assert attempt_name(store, "000001") == name
        lease.check()
        publish(store, Manifest(run="000001"))


def test_a_lease_that_could_not_begin_is_given_back(s3: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_lease, "next_run", lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError), hold(s3):
            pass

    with hold(s3) as lease:
        lease.check()


def test_the_lease_on_s3_is_free_again_after_use(s3: str) -> None:
    for _ in range(2):
        with hold(s3) as lease:
            lease.check()


def test_a_lease_that_was_not_renewed_is_taken_over_and_its_holder_notices(s3: str) -> None:
    with hold(s3) as lease:
        lease.check()
        expire(s3)
        with hold(s3), pytest.raises(LeaseError, match=rf"process {os.getpid()} on .* took it"):
            lease.check()


def test_a_lease_that_somebody_removed_is_lost(s3: str) -> None:
    with hold(s3) as lease:
        (place(s3) / "writer.lock").unlink()
        with pytest.raises(LeaseError, match="another writer took it over, or removed it"):
            lease.check()


def test_a_living_holder_renews_its_lease(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_lease, "LASTS_S", 0.4)
    with hold(s3):
        time.sleep(1.0)
        with pytest.raises(LeaseError), hold(s3):
            pass


def test_a_writer_killed_on_this_machine_loses_its_lease_at_once(s3: str) -> None:
    code = (
        "import sys, time\nfrom penstock.store.places import open_place\n"
        "from penstock.store.lease import take_lease\n"
        "with take_lease(open_place(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, s3], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LeaseError, match=f"process {holder.pid} "), hold(s3):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()

    with hold(s3) as lease:
        lease.check()


def test_a_writer_that_is_not_of_this_machine_keeps_its_lease_until_it_expires(s3: str) -> None:
    # The same host's name and no such process here: another container, say.
    with hold(s3):
        expire(s3, renewed=time.time(), host=socket.gethostname(), machine="another", pid=2**22 + 1)
        with pytest.raises(LeaseError, match=f"process {2**22 + 1} on"), hold(s3):
            pass
        expire(s3, renewed=time.time(), machine=object_lease._machine(), pid=2**22 + 1)
        with hold(s3) as second:
            second.check()


def test_of_two_writers_with_the_same_start_one_publishes(s3: str) -> None:
    first, second = place(s3), place(s3)
    with take_lease(first):
        expire(s3)
        with take_lease(second):
            publish(second, Manifest(run="000001", tables={"documents": 2}))
            with pytest.raises(LeaseError, match=rf"runs/000001\.json: process {os.getpid()} "):
                publish(first, Manifest(run="000001", tables={"documents": 1}))

    assert current_run(place(s3)) == "000001"
    assert starting_point(place(s3)).tables == {"documents": 2}


def test_taking_the_lease_keeps_an_earlier_writer_from_publishing(s3: str) -> None:
    first = place(s3)
    with take_lease(first):
        # Its manifest is put; before it comes to the pointer, another one takes over.
        manifest = first / "runs/000001.json"
        manifest.bucket.put(manifest.key, Manifest(run="000001").to_bytes())
        expire(s3)
        with hold(s3):
            pointer = first / "runs/current"
            with pytest.raises(LeaseError, match=rf"runs/current: process {os.getpid()} on "):
                pointer.bucket.put(pointer.key, b"000001\n")

    assert current_run(place(s3)) is None


def test_a_manifest_that_a_killed_writer_left_does_not_stand_in_the_way(s3: str) -> None:
    with take_lease(store := place(s3)):
        left = store / "runs/000001.json"
        left.bucket.put(left.key, b"{}")
    expire(s3)
    with take_lease(store := place(s3)):
        publish(store, Manifest(run="000001", tables={"documents": 2}))

    assert starting_point(place(s3)).tables == {"documents": 2}


def test_a_put_whose_answer_was_lost_counts_as_done(s3: str) -> None:
    store = place(s3)
    bucket, key = store.bucket, (store / "x").key
    tag = bucket.swap(key, b"mine", None)

    # What a client that tries again sees of its own put.
    assert bucket.swap(key, b"mine", None) == tag
    assert bucket.swap(key, b"other", None) is None
    assert bucket.swap(key, b"newer", "no such tag") is None


_POINTS = [
    pytest.param("PUT", r"documents\.lance/_versions/", id="documents", marks=pytest.mark.slow),
    pytest.param("PUT", r"documents\.lance/data/", id="data"),
    pytest.param("PUT", r"chunks\.lance/_versions/", id="chunks", marks=pytest.mark.slow),
    pytest.param("PUT", r"index/segment.*\.files$", id="index"),
    pytest.param("PUT", r"runs/000002\.json$", id="manifest", marks=pytest.mark.slow),
    pytest.param("PUT", r"runs/current$", id="pointer"),
    pytest.param("DELETE|POST", r"", id="after-the-pointer", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("method", "key"), _POINTS)
def test_a_writer_that_stood_still_and_was_robbed_harms_nothing(
    s3: str,
    s3_server: Any,
    docs: Path,
    tmp_path: Path,
    words: Callable[[Path], ps.Flow],
    contents: Contents,
    method: str,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words(docs).run(s3)
    (docs / "03.md").write_text("# Of the slow one\n\nWords of page 3.\n")
    monkeypatch.setattr(object_lease, "_RENEWALS", 0.001)  # it stands still
    frozen, thaw = threading.Event(), threading.Event()
    ended: list[BaseException | None] = []
    fence = iter([True])

    def freeze(did: str, what: str) -> None:
        # The first put of the pointer is the one that takes the lease.
        if not re.fullmatch(method, did) or not re.search(key, what) or frozen.is_set():
            return
        if "current" in key and next(fence, False):
            return
        frozen.set()
        thaw.wait(60)

    def slow() -> None:
        try:
            words(docs).run(s3)
            ended.append(None)
        except LeaseError as err:
            ended.append(err)

    s3_server.before = freeze
    writer = threading.Thread(target=slow)
    writer.start()
    assert frozen.wait(60)
    expire(s3)
    (docs / "04.md").write_text("# Of the quick one\n\nWords of page 4.\n")
    words(docs).run(s3)
    words(docs).run(tmp_path / "fresh")
    thaw.set()
    writer.join()

    # It had published before, or never will.
    assert (ended[0] is None) == (method != "PUT")
    assert contents(s3) == contents(tmp_path / "fresh")
    words(docs).run(s3)
    assert contents(s3) == contents(tmp_path / "fresh")


_SCHEMA = pa.schema([pa.field("a", pa.string(), nullable=False), pa.field("b", pa.int64())])


def rows(*names: str) -> pa.Table:
    return pa.table({"a": list(names), "b": list(range(len(names)))}, schema=_SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda table: table.append(rows("n")), id="append"),
        pytest.param(lambda table: table.delete([0]), id="delete"),
        pytest.param(lambda table: table.replace(rows("x")), id="replace"),
        pytest.param(lambda table: table.purge(), id="purge"),
        pytest.param(
            lambda table: table.require(pa.schema([_SCHEMA.field("a")]), keep_rows=True), id="drop"
        ),
        pytest.param(
            lambda table: table.require(
                pa.schema([*_SCHEMA, pa.field("c", pa.int64())]), keep_rows=True
            ),
            id="add",
        ),
    ],
)
def test_a_table_that_somebody_else_changed_is_not_gone_on_with(
    s3: str, change: Callable[[Table], None]
) -> None:
    first = Table(place(s3) / "t.lance", None)
    first.require(_SCHEMA, keep_rows=False)
    first.append(rows("x", "y", "z"))
    first.delete([2])
    second = Table(place(s3) / "t.lance", first.version)
    second.append(rows("w"))
    version = second.version

    with pytest.raises(LeaseError, match=r"t\.lance: another writer wrote to this table"):
        change(first)

    assert version is not None
    assert open_table(place(s3) / "t.lance", version).count_rows() == 3


def test_a_table_on_s3_starts_from_the_version_that_is_wanted(s3: str) -> None:
    table = Table(place(s3) / "t.lance", None)
    table.require(_SCHEMA, keep_rows=False)
    table.append(rows("x", "y"))
    published = table.version
    table.append(rows("lost"))
    again = Table(place(s3) / "t.lance", published)
    again.append(rows("kept"))
    again.delete([0])

    assert again.scan(["a"])["a"].to_pylist() == ["y", "kept"]
    assert published is not None
    assert open_table(place(s3) / "t.lance", published).count_rows() == 2
