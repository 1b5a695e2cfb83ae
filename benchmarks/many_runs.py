"""How a store fares after hundreds of small runs, against one that was built at once.

    python benchmarks/many_runs.py
    python benchmarks/many_runs.py --documents 100000 --runs 300 --changed 50 --svg curve.svg
    python benchmarks/many_runs.py --quick

Documents are pieces of the source code of this Python's libraries, a file each. Every run changes
50 of them (a piece of another file takes their place) and is a whole build: listing, reading,
duplicates, chunks, index, publishing, dropping of old runs. After every 50th run the same
searches are timed in turn on the store and on one built afresh from the same files, their hits
compared, and the bytes on the disk: as they are, and after `gc` (of a copy, so that what the runs
do to the store is all that happens to it).

`--embed` embeds the chunks too, with the default model: much slower.
"""

from __future__ import annotations

import argparse
import shutil
import site
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _machine import print_machine  # type: ignore[import-not-found, unused-ignore]

import penstock as ps
from penstock.store.places import file_sizes

_PIECE = 1_500
"""Characters of a document."""
_HEADS = (
    "run",
    "s a run",
    "fragments",
    "segments",
    "p50 ms",
    "fresh",
    "ratio",
    "same",
    "runs kept",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured after a run; times in milliseconds, sizes in bytes."""

    run: int
    seconds: float
    fragments: int
    segments: int
    p50: float
    fresh_p50: float
    same: float
    runs_kept: int
    disk: int
    collected: int
    fresh_disk: int


def main() -> None:
    options = _options()
    print_machine("numba", "pyarrow", "pylance")
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="penstock-runs-", dir=options.folder) as name:
        folder = Path(name)
        pieces = _pieces()
        texts = [next(pieces) for _ in range(options.documents)]
        for number, text in enumerate(texts):
            _write(folder / "docs", number, text)
        flow = _flow(folder / "docs", embed=options.embed)
        started = time.perf_counter()
        report = flow.run(folder / "store")
        seconds = time.perf_counter() - started
        print(f"\n{report.documents:,} documents, {report.chunks:,} chunks in {seconds:.1f} s")
        heads = [*_HEADS, "disk", "after gc"]
        print("".join(f"{head:>11}" for head in heads))
        times: list[float] = []
        points: list[Point] = []
        for run in range(1, options.runs + 1):
            for number in random.choice(options.documents, options.changed, replace=False).tolist():
                text = next(pieces, None) or texts[int(random.integers(len(texts)))][::-1]
                _write(folder / "docs", number, text)
            started = time.perf_counter()
            flow.run(folder / "store")
            times.append(time.perf_counter() - started)
            if run % options.every == 0 or run == options.runs:
                points.append(_measure(folder, flow, run, times[-options.every :], options.queries))
                _print(points[-1])
    if options.svg:
        options.svg.write_text(_svg(points))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--changed", type=int, default=50, help="documents changed in each run")
    parser.add_argument("--every", type=int, default=50, help="measure after so many runs")
    parser.add_argument("--queries", type=int, default=100, help="searches timed, three times each")
    parser.add_argument("--embed", action="store_true", help="embed the chunks")
    parser.add_argument("--folder", type=Path, help="where all goes; the system's by default")
    parser.add_argument("--svg", type=Path, help="draw the curve into this file")
    parser.add_argument("--quick", action="store_true", help="1,000 documents, 30 runs")
    options = parser.parse_args()
    if options.quick:
        options.documents, options.runs, options.every, options.queries = 1_000, 30, 10, 20
    return options


def _pieces() -> Iterator[str]:
    """Pieces of source code, each once, in an order that mixes files."""
    folders = [sysconfig.get_path("stdlib"), *site.getsitepackages()]
    paths = sorted({path for folder in folders for path in Path(folder).rglob("*.py")})
    for place in np.random.default_rng(1).permutation(len(paths)).tolist():
        text = paths[place].read_text(encoding="utf-8", errors="replace")
        for start in range(0, len(text), _PIECE):
            if text[start : start + _PIECE].strip():
                yield text[start : start + _PIECE]


def _write(folder: Path, number: int, text: str) -> None:
    path = folder / f"{number % 100:02d}" / f"{number}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _flow(docs: Path, *, embed: bool) -> ps.Flow:
    last = [ps.Chunk(), ps.Embed()] if embed else [ps.Chunk()]
    return ps.Flow(source=ps.files(docs), steps=[ps.Normalize(), ps.ExactDedup(), *last])


def _measure(folder: Path, flow: ps.Flow, run: int, times: list[float], num_queries: int) -> Point:
    fresh, copy = folder / "fresh", folder / "copy"
    flow.run(fresh)
    shutil.copytree(folder / "store", copy)
    ps.Store.open(copy).gc()
    ours, theirs = ps.Store.open(folder / "store"), ps.Store.open(fresh)
    queries = _queries(ours, num_queries)
    mine: list[float] = []
    anew: list[float] = []
    same = 0
    for turn in range(4):
        for query in queries:
            started = time.perf_counter()
            found = ours.search(query, 10)
            between = time.perf_counter()
            expected = theirs.search(query, 10)
            if turn == 0:  # opens files and models
                same += [h.chunk_id for h in found] == [h.chunk_id for h in expected]
                continue
            mine.append(between - started)
            anew.append(time.perf_counter() - between)
    index = ours.manifest.index or {}
    point = Point(
        run=run,
        seconds=float(np.median(times)),
        fragments=max(
            len(ours.dataset(table).get_fragments())
            for table in ("documents", "verdicts", "chunks")
        ),
        segments=len(index["segments"]),
        p50=float(np.median(mine)) * 1e3,
        fresh_p50=float(np.median(anew)) * 1e3,
        same=same / len(queries),
        runs_kept=len(ours.runs()),
        disk=_size(folder / "store"),
        collected=_size(copy),
        fresh_disk=_size(fresh),
    )
    shutil.rmtree(fresh)
    shutil.rmtree(copy)
    return point


def _queries(store: ps.Store, num_queries: int) -> list[str]:
    """Words in a row out of some chunks."""
    texts = store.chunks(["text"])["text"].to_pylist()
    chosen = np.random.default_rng(2).choice(len(texts), num_queries, replace=False).tolist()
    return [" ".join(texts[place].replace('"', " ").split()[:8]) or "import" for place in chosen]


def _size(store: Path) -> int:
    return sum(file_sizes(store).values())


def _print(point: Point) -> None:
    cells = [f"{point.run}", f"{point.seconds:.2f}", f"{point.fragments}", f"{point.segments}"]
    cells += [f"{point.p50:.2f}", f"{point.fresh_p50:.2f}", f"{point.p50 / point.fresh_p50:.2f}"]
    cells += [f"{point.same:.0%}", f"{point.runs_kept}"]
    sizes = (point.disk / point.fresh_disk, point.collected / point.fresh_disk)
    cells += [f"{size:.2f}x" for size in sizes]
    print("".join(f"{cell:>11}" for cell in cells), flush=True)


def _svg(points: list[Point]) -> str:
    """Ratios to a fresh build over the runs, as a picture."""
    curves = {
        "latency": ("#06c", [point.p50 / point.fresh_p50 for point in points]),
        "disk": ("#c60", [point.disk / point.fresh_disk for point in points]),
        "disk after gc": ("#393", [point.collected / point.fresh_disk for point in points]),
    }
    runs = [point.run for point in points]
    top = max(2.2, *(value for _, values in curves.values() for value in values))
    lines = []
    for height in (1.0, 1.5, 2.0):
        y = 280 - 240 * height / top
        lines.append(
            f'<path d="M50 {y:.1f}H560" stroke="#ddd"/><text x="20" y="{y:.1f}">{height}</text>'
        )
    for place, (name, (colour, values)) in enumerate(curves.items()):
        dots = " ".join(
            f"{50 + 500 * run / runs[-1]:.1f},{280 - 240 * value / top:.1f}"
            for run, value in zip(runs, values, strict=True)
        )
        lines.append(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{60 + 140 * place}" y="20" fill="{colour}">{name}</text>')
    lines.append(f'<text x="540" y="298">{runs[-1]}</text><text x="300" y="298">runs</text>')
    body = "\n".join(lines)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 310" '
        f'font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
