"""Time a rebuild that finds nothing to do, against CocoIndex doing the same.

    python benchmarks/rebuild.py --peer-python /path/to/python-with-cocoindex

Both systems build once from the same folder of small files and are then asked
again and again, in turn, while nothing changes. The peer gets the lightest job
that it can be given: by default it keeps no output at all, so that a rebuild
has only the files to look at, and its pattern matching stays off, where
Penstock reads `.gitignore`.

`in process` is a second build in a program that is running already; `command`
is a whole process from start to end: `penstock build`, and for the peer a
script that imports it and updates once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

DOCUMENTED_MS = 1.0
"""What CocoIndex publishes for its Python SDK: 5.8 s for 5,632 unchanged files.

Source: its repository, `benchmarks/file_summarization/BENCHMARK_REPORT.md`.
"""

_FLOW = """import penstock as ps


def flow(source: str) -> ps.Flow:
    return ps.Flow(
        source=ps.files(source), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk()]
    )
"""


def main() -> None:
    options = _options()
    if options.peer_worker:
        _peer_worker(Path(options.peer_worker), options.peer_target)
        return
    print_machine("pyarrow", "pylance")
    with tempfile.TemporaryDirectory(prefix="penstock-rebuild-") as name:
        folder = Path(name)
        peer = _start_peer(options, folder)
        _compare(options, folder, peer)
        _growth(options, folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="files to compare over")
    parser.add_argument("--rounds", type=int, default=5, help="timed rebuilds of each kind")
    parser.add_argument("--command-rounds", type=int, default=3, help="timed commands of each kind")
    parser.add_argument(
        "--growth",
        default="1000,10000,50000",
        help="numbers of files for the table of Penstock's cost; '' to leave it out",
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has cocoindex"
    )
    parser.add_argument(
        "--peer-target",
        choices=("none", "sqlite", "files"),
        default="none",
        help="where the peer writes its outputs; none is the lightest",
    )
    parser.add_argument("--peer-worker", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_files(folder: Path, num_files: int) -> None:
    """Write small Markdown files, 20 to a folder, in two levels, and a `.gitignore`."""
    folder.mkdir()
    (folder / ".gitignore").write_text("*.log\nbuild/\n!keep.log\n/private/**\n")
    for start in range(0, num_files, 20):
        place = folder / f"part-{start // 1000:03d}" / f"section-{start // 20:05d}"
        place.mkdir(parents=True)
        for i in range(start, min(start + 20, num_files)):
            lines = [f"# Note {i}\n", *(f"Line {j} of note {i} says {i * j}.\n" for j in range(12))]
            (place / f"note-{i:06d}.md").write_text("\n".join(lines))


def _compare(options: argparse.Namespace, folder: Path, peer: Peer | None) -> None:
    source = folder / "source"
    make_files(source, options.files)
    (folder / "flow.py").write_text(_FLOW)
    store = folder / "store"
    first = _timed(partial(_build, source, store))
    print(f"\n{options.files:,} files; first build: Penstock {first:.1f} s", end="")
    first_peer = None if peer is None else peer.update()
    print("" if first_peer is None else f", CocoIndex {first_peer['seconds']:.1f} s")

    ours: dict[str, list[float]] = {"in process": [], "command": []}
    theirs: dict[str, list[float]] = {"in process": [], "command": []}
    for _ in range(options.rounds):
        ours["in process"].append(_timed(partial(_unchanged, source, store, options.files)))
        if peer is not None:
            theirs["in process"].append(_unchanged_peer(peer))
    if peer is not None:
        peer.close()
    for _ in range(options.command_rounds):
        ours["command"].append(_timed(partial(_command, folder)))
        if peer is not None:
            theirs["command"].append(_timed(partial(_unchanged_peer_command, options, folder)))
    _print_comparison(options.files, ours, theirs)


def _print_comparison(
    num_files: int, ours: dict[str, list[float]], theirs: dict[str, list[float]]
) -> None:
    print(f"\n{'rebuild, nothing changed':<26}{'Penstock':>24}{'CocoIndex':>24}{'ratio':>8}")
    print(f"{'':<26}{'median (best), ms/file':>24}{'median (best), ms/file':>24}")
    for kind, seconds in ours.items():
        if not seconds:
            continue
        mine = statistics.median(seconds) / num_files * 1e3
        text = f"{mine:.4f} ({min(seconds) / num_files * 1e3:.4f})"
        if theirs[kind]:
            other = statistics.median(theirs[kind]) / num_files * 1e3
            peer = f"{other:.4f} ({min(theirs[kind]) / num_files * 1e3:.4f})"
        else:
            other, peer = DOCUMENTED_MS, f"{DOCUMENTED_MS:.4f} (documented)"
        print(f"{kind:<26}{text:>24}{peer:>24}{other / mine:>7.1f}x")
    print("Aim: under 0.1 ms a file in process, and 10x faster than CocoIndex.")


def _growth(options: argparse.Namespace, folder: Path) -> None:
    sizes = [int(size) for size in options.growth.split(",") if size]
    if not sizes:
        return
    print(f"\n{'Penstock, files':<18}{'first build, s':>16}{'rebuild, s':>12}{'ms/file':>10}")
    for num_files in sizes:
        source, store = folder / f"source-{num_files}", folder / f"store-{num_files}"
        make_files(source, num_files)
        first = _timed(partial(_build, source, store))
        unchanged = partial(_unchanged, source, store, num_files)
        again = statistics.median(_timed(unchanged) for _ in range(options.rounds))
        print(f"{num_files:<18,}{first:>16.2f}{again:>12.3f}{again / num_files * 1e3:>10.4f}")
        shutil.rmtree(source)
        shutil.rmtree(store)


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _build(source: Path, store: Path) -> Any:
    import penstock as ps

    flow = ps.Flow(source=ps.files(source), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk()])
    return flow.run(store)


def _unchanged(source: Path, store: Path, num_files: int) -> None:
    counts = _build(source, store).counts
    assert counts.items_unchanged == counts.items_listed, "a file was read again"
    assert abs(counts.items_listed - num_files) <= 1, "not every file was listed"  # .gitignore


def _command(folder: Path) -> None:
    start = "from penstock.cli import main; main()"
    paths = [str(folder / name) for name in ("source", "store", "flow.py")]
    arguments = ["build", *paths[:2], "--flow", paths[2], "--json"]
    command = [sys.executable, "-c", start, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["counts"]["items_read"] == 0, "the command read a file again"


class Peer:
    """CocoIndex in a process of its own that makes one update for each line it is sent.

    Raises:
        RuntimeError: It cannot start; the message has the end of its errors.
    """

    def __init__(self, python: str, target: str, folder: Path) -> None:
        self._errors = folder / "peer-errors.txt"
        # Telemetry off: a release build reports its use over the network.
        environment = {**os.environ, "COCOINDEX_DISABLE_USAGE_TRACKING": "1"}
        command = [python, __file__, "--peer-worker", str(folder), "--peer-target", target]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self._answer()

    def update(self) -> dict[str, float]:
        """Update once; `seconds` it took and `calls` of the per-file function."""
        assert self._process.stdin is not None
        self._process.stdin.write("update\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let it end, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError("\n".join(self._errors.read_text().splitlines()[-5:]))
        answer: dict[str, float] = json.loads(line)
        return answer


def _start_peer(options: argparse.Namespace, folder: Path) -> Peer | None:
    versions = peer_versions(options.peer_python, "cocoindex")
    print(f"{'peer:':<11}" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    if "cocoindex" not in versions:
        print(
            "CocoIndex is not installed there: the comparison is with the "
            f"{DOCUMENTED_MS} ms a file that it documents."
        )
        return None
    try:
        return Peer(options.peer_python, options.peer_target, folder)
    except RuntimeError as err:
        print(f"CocoIndex does not run here; compared with what it documents. It said:\n{err}")
        return None


def _unchanged_peer(peer: Peer) -> float:
    answer = peer.update()
    assert answer["calls"] == 0, "the peer processed a file again"
    return answer["seconds"]


def _unchanged_peer_command(options: argparse.Namespace, folder: Path) -> None:
    peer = Peer(options.peer_python, options.peer_target, folder)
    _unchanged_peer(peer)
    peer.close()


def _peer_worker(folder: Path, target: str) -> None:
    """What the peer's process runs: one update for each line on standard input."""
    update = _peer_app(folder, target)
    print(json.dumps({"seconds": 0.0, "calls": 0}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(update()), flush=True)


def _peer_app(folder: Path, target: str) -> Callable[[], dict[str, float]]:
    """An app of one memoised function per file, as CocoIndex's own examples write it."""
    import cocoindex as coco  # type: ignore[import-not-found, unused-ignore]
    from cocoindex.connectors import (  # type: ignore[import-not-found, unused-ignore]
        localfs,
        sqlite,
    )

    calls = 0

    async def process(file: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        text = (await file.read_text()).strip()
        name = file.file_path.path.as_posix().replace("/", "__")
        if target == "files":
            localfs.declare_file(output / name, text, create_parent_dirs=True)
        elif target == "sqlite":
            output.declare_row(row={"name": name, "text": text})

    database = coco.ContextKey("database")
    per_file = coco.fn(memo=True)(process)

    async def everything(source: Any, output: Any) -> None:
        if target == "sqlite":
            text = sqlite.ColumnDef(type="TEXT")
            schema = sqlite.TableSchema({"name": text, "text": text}, primary_key=["name"])
            output = await sqlite.mount_table_target(database, "documents", schema)
        walker = localfs.walk_dir(source, recursive=True)
        await coco.mount_each(per_file, walker.items(), output)

    provider = coco.ContextProvider()
    provider.provide(database, sqlite.connect(folder / "peer.sqlite"))
    settings = coco.Settings.from_env(db_path=folder / "peer-state")
    environment = coco.Environment(settings, context_provider=provider)
    app = coco.App(
        coco.AppConfig(name="rebuild", environment=environment),
        coco.fn(everything),
        source=folder / "source",
        output=folder / "peer-output",
    )

    def update() -> dict[str, float]:
        nonlocal calls
        calls = 0
        seconds = _timed(app.update_blocking)
        return {"seconds": seconds, "calls": calls}

    return update


if __name__ == "__main__":
    main()
