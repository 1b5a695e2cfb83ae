"""Everything that a manifest names is on the disk before the manifest is: by the trace of a run.

`strace` tells every system call of a build that changes or flushes files. From
it follows what a power cut would leave at the moment of publishing: the bytes of
files that were flushed after their last change, under names whose folder was
flushed after they came. The store is then cut down to that, and read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.guarantees.conftest import World
from tests.guarantees.stores import assert_same, read_all

from penstock.store.files import all_files
from penstock.store.garbage import named_files
from penstock.store.manifest import read_manifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

_BUILD = """
import sys
sys.path.insert(0, sys.argv[4])
from tests.guarantees.writer import steps
import penstock as ps
ps.Flow(source=ps.files(sys.argv[1]), steps=steps(sys.argv[3])).run(sys.argv[2])
"""
_CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,copy_file_range,"
    "sendfile,fsync,fdatasync,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,unlink,unlinkat"
)
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
_FD = re.compile(r"\d+<([^>]*)>")
_NAME = re.compile(r'"([^"]*)"')


@dataclass
class Disk:
    """What is on the disk, as far as the calls so far tell.

    Attributes:
        unflushed: Files whose last change was not flushed.
        unnamed: Files and folders whose name was not flushed with their folder.
    """

    unflushed: set[str] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)

    def take(self, call: str, arguments: str) -> None:
        """Follow one call that succeeded."""
        names = [os.path.normpath(name) for name in _NAME.findall(arguments)]
        held = _FD.findall(arguments)
        if call in ("open", "openat", "creat"):
            if "O_CREAT" in arguments or "O_TRUNC" in arguments or call == "creat":
                self.unflushed.add(names[0])
                self.unnamed.add(names[0])
        elif call in ("fsync", "fdatasync"):
            self.unflushed.discard(held[0])
            self.unnamed = {name for name in self.unnamed if os.path.dirname(name) != held[0]}
        elif call in ("mkdir", "mkdirat"):
            self.unnamed.add(names[0])
        elif call.startswith(("rename", "link")):
            old, new = names
            self.unnamed.add(new)
            self.unflushed.discard(new)
            if old in self.unflushed:
                self.unflushed.add(new)
            # What was in a folder that moved is as durable as it was before.
            for state in (self.unflushed, self.unnamed):
                inside = {name for name in state if name.startswith(old + "/")}
                state |= {new + name[len(old) :] for name in inside}
        elif call.startswith("unlink"):
            self.unflushed.discard(names[0])
        elif held:  # some way of writing
            self.unflushed.add(held[-1] if call == "copy_file_range" else held[0])

    def lacks(self, path: str, top: str) -> bool:
        """Whether a power cut now might take a file or its bytes."""
        if path in self.unflushed:
            return True
        while path != top:
            if path in self.unnamed:
                return True
            path = os.path.dirname(path)
        return False


def calls_of(log: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The calls that succeeded and tell of a folder, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>")
            continue
        if rest.startswith("<... "):
            rest = begun.pop(pid, "") + rest.partition(" resumed>")[2]
        found = _CALL.match(rest)
        if found and int(found[3]) >= 0 and str(folder.parent) in rest:
            yield found[1], found[2]


def trace_a_build(world: World, store: Path, log: Path) -> None:
    command = ["strace", "-f", "-y", "-s", "0", "-e", f"trace={_CALLS}", "-o", str(log)]
    root = Path(__file__).parents[2]
    build = [sys.executable, "-c", _BUILD, *map(str, (world.tree, store, world.model, root))]
    subprocess.run([*command, *build], check=True, timeout=300)


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_power_cut_right_after_publishing_loses_nothing_that_is_named(
    which: str, world: World, memory: Path, tmp_path: Path
) -> None:
    store = memory / "world" / "cut"
    shutil.rmtree(store, ignore_errors=True)
    if which == "second":
        shutil.copytree(world.before, store)
    log = tmp_path / "trace"
    trace_a_build(world, store, log)
    top = str(store.parent)

    disk, manifest_was_safe, published = Disk(), False, False
    for call, arguments in calls_of(log, store):
        if (
            published
            and call in ("fsync", "fdatasync")
            and _FD.findall(arguments) == [str(store / "runs")]
        ):
            break  # its name is on the disk, and the run cannot be lost any more
        disk.take(call, arguments)
        if call.startswith("rename") and arguments.endswith(f'{store}/runs/current"'):
            number = "000001" if which == "first" else "000002"
            manifest_was_safe = not disk.lacks(str(store / f"runs/{number}.json"), top)
            published = True
            left = {path for path in all_files(store) if disk.lacks(path, top)}
    else:
        raise AssertionError("the folder of the pointer was not flushed after it was put in place")
    manifest = read_manifest(store / f"runs/{number}.json")
    names = {str(Path(path).relative_to(store)) for path in all_files(store)}
    (named,) = named_files(store, [manifest], names)
    lost = {str(Path(path).relative_to(store)) for path in left}

    assert manifest_was_safe
    assert len(named) > 20
    assert lost & named == set()
    assert "runs/current" in lost  # the trace does tell what is not flushed yet
    for name in lost - {"runs/current"}:
        (store / name).unlink()
    assert_same(read_all(store), world.new)
    world.flow().run(store)
    assert_same(read_all(store), world.new)
