"""Time a run over a source of which 1 % changed, against a fresh build, and its readers meanwhile.

    python benchmarks/increments.py --peer-python /path/to/python-with-cocoindex
    python benchmarks/increments.py --quick

Every document is a small file of its own. A fresh build is timed, then rounds of
rewriting 1 % of the files and running again; at last a fresh build of what is
there then, which the store that went through all rounds must equal, row by row.
All runs are in one process that has compiled its kernels before. The peer reads
and memoises the same files and writes rows of them to SQLite: no duplicates are
found, no chunks cut, nothing is indexed or embedded there.

`publish` is the last phase: every new file is flushed to the disk, and the
run's name is put in place. A reader in a process of its own refreshes and searches
by words all the time, once while nothing is written, and once during such runs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]
from rebuild import Peer  # type: ignore[import-not-found, unused-ignore]

_WORDS = 20_000
_PER_FOLDER = 200


def main() -> None:
    options = _options()
    if options.reader:
        _read(options.reader, options.seconds)
        return
    print_machine("pyarrow", "pylance", "onnxruntime")
    with tempfile.TemporaryDirectory(prefix="penstock-increments-", dir=options.folder) as name:
        folder = Path(name)
        _warm_up(folder / "warm")
        for embed, documents in ((False, options.documents), (True, options.embedded)):
            if documents:
                _increments(options, folder / f"embed-{embed}", documents, embed=embed)
        if options.peer_python:
            _peer(options, folder / "peer")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--embedded", type=int, default=100_000, help="with embeddings; 0 for none")
    parser.add_argument("--words", type=int, default=80, help="words in a document")
    parser.add_argument("--share", type=float, default=0.01, help="of documents that change")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="int8", help="of the model")
    parser.add_argument("--seconds", type=float, default=10.0, help="that a reader searches")
    parser.add_argument("--folder", help="where to work; the system's temporary folder by default")
    parser.add_argument("--peer-python", default="", help="a Python that has CocoIndex")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.documents, options.embedded, options.seconds = 2_000, 300, 2.0
    return options


class _Source:
    """A folder of documents, some of which can be rewritten."""

    def __init__(self, folder: Path, documents: int, words: int) -> None:
        self.folder, self._documents, self._words = folder, documents, words
        self._draw = random.Random(0)
        letters = "abcdefghijklmnopqrstuvwxyz"
        sizes = [self._draw.randint(3, 10) for _ in range(_WORDS)]
        self._vocabulary = ["".join(self._draw.choices(letters, k=size)) for size in sizes]
        self._weights = [1 / rank for rank in range(1, _WORDS + 1)]
        for number in range(documents):
            self._write(number)

    def change(self, share: float) -> int:
        """Rewrite this share of the documents; how many."""
        chosen = self._draw.sample(range(self._documents), max(1, int(self._documents * share)))
        for number in chosen:
            self._write(number)
        return len(chosen)

    def _write(self, number: int) -> None:
        path = self.folder / f"{number // _PER_FOLDER:04}" / f"{number:07}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = self._draw.choices(self._vocabulary, self._weights, k=self._words)
        path.write_text(f"# Document {number}\n\n{' '.join(words)}.\n")


def _flow(source: Path, *, embed: bool, precision: str = "int8") -> Any:
    import penstock as ps

    steps: list[Any] = [ps.Normalize(), ps.ExactDedup(), ps.Chunk()]
    if embed:
        steps.append(ps.Embed(precision=precision))  # type: ignore[arg-type, unused-ignore]
    return ps.Flow(source=ps.files(source), steps=steps)


def _warm_up(folder: Path) -> None:
    source = _Source(folder / "source", 20, 40)
    for _ in range(2):
        _flow(source.folder, embed=False).run(folder / "store")
        source.change(0.1)


def _increments(options: argparse.Namespace, folder: Path, documents: int, *, embed: bool) -> None:
    print(f"\n{documents:,} documents, {'with' if embed else 'without'} embedding", flush=True)
    source = _Source(folder / "source", documents, options.words)
    flow = _flow(source.folder, embed=embed, precision=options.precision)
    first, report = _timed(lambda: flow.run(folder / "store"))
    print(f"fresh        {first:9.2f} s, {report.chunks:,} chunks{_phases(report)}", flush=True)
    runs = []
    for _ in range(options.rounds):
        changed = source.change(options.share)
        seconds, report = _timed(lambda: flow.run(folder / "store"))
        runs.append((seconds, report.seconds["publish"]))
        print(f"{changed:6,} new    {seconds:9.2f} s{_phases(report)}", flush=True)
    again, _ = _timed(lambda: flow.run(folder / "fresh"))
    _check_equal(folder / "store", folder / "fresh")
    usual, publish = (statistics.median(each) for each in zip(*runs, strict=True))
    print(f"fresh again  {again:9.2f} s; the updated store equals it")
    print(f"ratio        {again / usual:9.1f} x; publish {publish * 1000:.0f} ms")
    _reader_overhead(options, flow, source, folder / "store")
    shutil.rmtree(folder)


def _phases(report: Any) -> str:
    shown = (f"{name} {seconds:.2f}" for name, seconds in report.seconds.items() if name != "total")
    return f" ({', '.join(shown)})"


def _check_equal(store: Path, fresh: Path) -> None:
    import penstock as ps

    one, other = ps.Store.open(store), ps.Store.open(fresh)
    for name in ("documents", "verdicts", "chunks", "failures"):
        tables = (getattr(one, name)(), getattr(other, name)())
        if not tables[0].equals(tables[1]):
            raise SystemExit(f"the table {name} of the updated store differs from a fresh one's")


def _reader_overhead(options: argparse.Namespace, flow: Any, source: _Source, store: Path) -> None:
    with _reader(options, store) as alone:
        pass
    with _reader(options, store) as beside:
        until = time.monotonic() + options.seconds
        runs = 0
        while time.monotonic() < until:
            source.change(options.share)
            flow.run(store)
            runs += 1
    for name, found in (("alone", alone), (f"{runs} runs", beside)):
        print(
            f"reader       {name:>8}: median {found['median_ms']:.2f} ms, 95 % within "
            f"{found['p95_ms']:.2f} ms, {found['searches']:,} searches, {found['moves']} moves"
        )


@contextmanager
def _reader(options: argparse.Namespace, store: Path) -> Iterator[dict[str, float]]:
    command = [sys.executable, __file__, "--reader", str(store), "--seconds", str(options.seconds)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = {}
    assert reader.stdout is not None
    reader.stdout.readline()  # its kernels are loaded
    yield found
    answer = reader.stdout.readline()
    if reader.wait() or not answer:
        raise SystemExit("a reader failed; see above")
    found.update(json.loads(answer))


def _read(path: str, seconds: float) -> None:
    """What the reader's process runs."""
    import penstock as ps

    store = ps.Store.open(path)
    texts = store.chunks(["text"])["text"].to_pylist()[:200]
    queries = [" ".join(text.split()[4:7]) for text in texts]
    for query in queries[:20]:
        store.search(query, mode="words")
    print("ready", flush=True)
    took: list[float] = []
    moves = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        started = time.perf_counter()
        moves += store.refresh()
        store.search(queries[len(took) % len(queries)], mode="words")
        took.append(1000 * (time.perf_counter() - started))
    took.sort()
    facts = {"median_ms": statistics.median(took), "p95_ms": took[int(0.95 * len(took))]}
    print(json.dumps({**facts, "searches": len(took), "moves": moves}), flush=True)


def _peer(options: argparse.Namespace, folder: Path) -> None:
    versions = peer_versions(options.peer_python, "cocoindex")
    if "cocoindex" not in versions:
        print("\nCocoIndex is not installed in --peer-python: no comparison")
        return
    print(f"\nCocoIndex {versions['cocoindex']}, {options.documents:,} documents into SQLite")
    source = _Source(folder / "source", options.documents, options.words)
    peer = Peer(options.peer_python, "sqlite", folder)
    fresh = peer.update()
    print(f"fresh        {fresh['seconds']:9.2f} s, {fresh['calls']:,} files")
    rounds = []
    for _ in range(options.rounds):
        changed = source.change(options.share)
        answer = peer.update()
        assert answer["calls"] == changed, "the peer processed other files than those that changed"
        rounds.append(answer["seconds"])
        print(f"{changed:6,} new    {answer['seconds']:9.2f} s")
    peer.close()
    print(f"ratio        {fresh['seconds'] / statistics.median(rounds):9.1f} x")


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
