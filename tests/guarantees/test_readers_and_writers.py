"""Readers in other processes see one run, whole; a second writer is told who is first."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.guarantees.stores import assert_same, read_all

import penstock as ps
from penstock.errors import LeaseError

pytestmark = pytest.mark.slow

_DOCUMENTS, _RUNS, _READERS = 6, 20, 4

# Every run writes its own word into every document; what does not fit together is a problem.
_READER = """
import json, sys, time
from pathlib import Path
import penstock as ps

path, stop, num = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
problems, seen, reads = [], set(), 0

def check(store):
    run = store.manifest.run
    word = "gen" + chr(96 + int(run))
    texts = store.documents(["text"])["text"].to_pylist()
    if len(texts) != num or not all(word in text for text in texts):
        problems.append(f"run {run}: documents {texts}")
    chunks = store.chunks(["text"])["text"].to_pylist()
    if len(chunks) != num or not all(word in text for text in chunks):
        problems.append(f"run {run}: chunks {chunks}")
    hits = store.search(word, 50)
    if hits.run == run and len(hits) != num:
        problems.append(f"run {run}: found {[hit.text for hit in hits]}")
    if not all("gen" + chr(96 + int(hits.run)) in hit.text for hit in hits):
        problems.append(f"{hits.run}: mixed {[hit.text for hit in hits]}")
    seen.add(run)

held = ps.Store.open(path)
check(held)
print("ready", flush=True)
while True:
    last = stop.exists()
    try:
        check(ps.Store.open(path))
        held.refresh()
        check(held)
    except Exception as err:
        problems.append(repr(err))
    reads += 1
    if last:
        break
    time.sleep(0.02)  # to leave the writer some of the machine
print(json.dumps([problems[:3], sorted(seen), reads]), flush=True)
"""

_HOLDER = """
import sys, time
from pathlib import Path
from penstock.store.lease import Lease
with Lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process, when it has said its first line."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def write_generation(tree: Path, number: int) -> None:
    for document in range(_DOCUMENTS):
        (tree / f"{document}.md").write_text(f"gen{chr(96 + number)} in document {document}.\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    return root


@pytest.fixture
def flow(tree: Path) -> ps.Flow:
    """Words alone: the model has no say in this."""
    return ps.Flow(source=ps.files(tree), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk()])


@pytest.mark.slow
def test_no_reader_sees_two_runs_mixed_an_error_or_a_missing_file(
    flow: ps.Flow, tree: Path, memory: Path, tmp_path: Path
) -> None:
    store, stop = memory / "read", tmp_path / "stop"
    write_generation(tree, 1)
    flow.run(store)
    readers = [start(_READER, store, stop, _DOCUMENTS) for _ in range(_READERS)]
    for number in range(2, _RUNS + 1):
        write_generation(tree, number)
        flow.run(store)
    stop.touch()
    told = [json.loads(reader.communicate(timeout=120)[0]) for reader in readers]

    assert [problems for problems, _, _ in told] == [[]] * _READERS
    assert all(seen[-1] == f"{_RUNS:06}" for _, seen, _ in told)
    assert sum(len(seen) for _, seen, _ in told) > 3 * _READERS
    assert all(reads > 3 for _, _, reads in told)


def test_a_second_writer_is_told_who_is_first_and_takes_over_when_it_is_dead(
    flow: ps.Flow, tree: Path, tmp_path: Path
) -> None:
    write_generation(tree, 1)
    flow.run(tmp_path / "store")
    write_generation(tree, 2)
    holder = start(_HOLDER, tmp_path / "store")
    try:
        with pytest.raises(LeaseError) as caught:
            flow.run(tmp_path / "store")
        last = ps.Store.open(tmp_path / "store").manifest.run
    finally:
        holder.kill()
        holder.communicate()
    flow.run(tmp_path / "store")
    flow.run(tmp_path / "fresh")

    told = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()}" in told
    assert re.search(r"for \d+ s", told)
    assert last == "000001"
    assert_same(read_all(tmp_path / "store"), read_all(tmp_path / "fresh"))
