"""Two states of a small folder, a store of the first, and a process that builds and is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from tests.guarantees.stores import Contents, read_all
from tests.guarantees.writer import steps
from tests.models.tiny_bert import write_model

import penstock as ps


@dataclass(frozen=True, kw_only=True)
class World:
    """What the tests of crashes start from.

    Attributes:
        root: A folder in memory, where there is one.
        tree: The source, as it is after the changes.
        model: A tiny model.
        before: A store of the source as it was before.
        old: What that store holds.
        new: What a store holds that is built afresh.
    """

    root: Path
    tree: Path
    model: Path
    before: Path
    old: Contents
    new: Contents

    def flow(self) -> ps.Flow:
        """What brings a store up to date."""
        return ps.Flow(source=ps.files(self.tree), steps=steps(str(self.model)))

    def copy(self) -> Path:
        """A store to be killed over."""
        store = self.root / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(self.before, store)
        return store


@pytest.fixture(scope="package")
def memory() -> Iterator[Path]:
    """A temporary folder, in memory where there is such a place: flushing is quick there."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=shared if shared.is_dir() else None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_CACHE", str(folder / "cache"))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def world(memory: Path) -> World:
    """Twelve documents, of which some change, go, come, move and double."""
    root = memory / "world"
    tree, model = root / "tree", root / "model"
    tree.mkdir(parents=True)
    write_model(model)
    for number in range(12):
        name, text = f"{number:02}.md", f"# w{number}\n\nw{number} w{number + 1} w3 w4\n\n## w7\n\n"
        (tree / name).write_text(text * (1 + number % 3))
    (tree / "11.md").write_bytes(b"w1 w2\r\nw3\r\n")
    flow = ps.Flow(source=ps.files(tree), steps=steps(str(model)))
    flow.run(root / "before")
    (tree / "00.md").write_text("# w0\n\nw5 w6 changed\n")
    (tree / "01.md").write_text((tree / "02.md").read_text())
    (tree / "03.md").unlink()
    (tree / "04.md").rename(tree / "40.md")
    (tree / "50.md").write_bytes(b"w9 w8\r\n w7\r\n")
    (tree / "11.md").write_text("w1 w2\nw3\n")
    flow.run(root / "after")
    return World(
        root=root,
        tree=tree,
        model=model,
        before=root / "before",
        old=read_all(root / "before"),
        new=read_all(root / "after"),
    )


class Writer:
    """A process that builds when told to; see `tests/guarantees/writer.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout

    def build(self, tree: Path, store: Path, model: Path, **how: Any) -> tuple[int, list[str]]:
        """The exit status, negative for a signal, and the calls made if it came to its end."""
        order = {"tree": str(tree), "store": str(store), "model": str(model), **how}
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        status, calls = json.loads(self._answers.readline())
        return status, calls


@pytest.fixture(scope="package")
def writer(memory: Path) -> Iterator[Writer]:
    """The process, ready."""
    command = [sys.executable, str(Path(__file__).with_name("writer.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Writer(process)
