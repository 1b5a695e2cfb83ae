"""Show that the memory of a build stays flat as the corpus grows.

    python benchmarks/memory.py

Each build runs in a process of its own, over JSON lines that were written
before it: documents of words drawn by a seed, 1 to 2 kB each, one in fifty a
copy of an earlier one. Peak memory is the most that the process ever had
resident, as the kernel counted it.

The steps are Normalize, ExactDedup and Chunk: what grows with the corpus is
there, the model is not, for embedding 200,000 documents takes hours on two
cores. `--embed` adds the model over fewer documents.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

from _machine import print_machine  # type: ignore[import-not-found, unused-ignore]


def main() -> None:
    options = _options()
    if options.worker:
        _worker(Path(options.worker), Path(options.store), embed=options.embed)
        return
    print_machine("pyarrow", "pylance", "numba", *(["onnxruntime"] if options.embed else []))
    sizes = [int(size) for size in options.documents.split(",") if size]
    if not sizes:
        sizes = [500, 5_000] if options.embed else [10_000, 50_000, 200_000]
    measured = []
    head = ("documents", "text, MB", "chunks", "seconds", "documents/s", "peak, MB")
    print("\n" + "".join(f"{title:>13}" for title in head))
    for size in sizes:
        row = _measure(size, options)
        measured.append((size, row))
        cells = [f"{size:,}", f"{row['text_bytes'] / 1e6:.0f}", f"{row['chunks']:,.0f}"]
        cells += [f"{row['seconds']:.1f}", f"{size / row['seconds']:,.0f}"]
        cells += [f"{row['peak_bytes'] / 1e6:.0f}"]
        print("".join(f"{cell:>13}" for cell in cells), flush=True)
    # Queues and write buffers fill first: the later step shows what the corpus itself costs.
    for (fewer, before), (more, after) in pairwise(measured):
        growth = after["peak_bytes"] - before["peak_bytes"]
        chunks = after["chunks"] - before["chunks"]
        print(
            f"From {fewer:,} to {more:,} documents peak memory grows by {growth / 1e6:.0f} MB: "
            f"{growth / (more - fewer):,.0f} bytes a document with {chunks / (more - fewer):.1f} "
            "chunks."
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents",
        default="",
        help="sizes to build, with commas; default 10000,50000,200000, with --embed 500,5000",
    )
    parser.add_argument("--embed", action="store_true", help="embed with the default model")
    parser.add_argument("--seed", type=int, default=0, help="of the words")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--store", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(num_documents: int, options: argparse.Namespace) -> dict[str, float]:
    """Write the corpus, build from it in a process of its own, and delete both."""
    with tempfile.TemporaryDirectory(prefix="penstock-memory-") as name:
        source = Path(name) / "source"
        text_bytes = write_documents(source, num_documents, options.seed)
        command = [sys.executable, __file__, "--worker", str(source)]
        command += ["--store", str(Path(name) / "store"), *(["--embed"] if options.embed else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        answer: dict[str, float] = json.loads(done.stdout)
        assert answer["documents"] == num_documents
        return {**answer, "text_bytes": text_bytes}


def write_documents(folder: Path, num_documents: int, seed: int) -> int:
    """JSON lines in files of 10,000 documents; bytes of text in all.

    Memory does not depend on the number: each document is drawn by itself.
    """
    folder.mkdir()
    words, weights = _vocabulary(random.Random(seed))
    total = 0
    for start in range(0, num_documents, 10_000):
        with (folder / f"{start // 10_000:04d}.jsonl").open("w", encoding="utf-8") as lines:
            for i in range(start, min(start + 10_000, num_documents)):
                # A copy is drawn by the number of the document that it repeats.
                origin = i // 2 if i % 50 == 49 else i
                text = _document(random.Random(seed * 1_000_003 + origin), words, weights)
                total += len(text)
                row = {"_id": f"doc-{i:07d}", "title": f"Document {i}", "text": text}
                lines.write(json.dumps(row) + "\n")
    return total


def _vocabulary(rng: random.Random) -> tuple[list[str], list[float]]:
    """20,000 words of syllables and their cumulative weights, by rank as in natural text."""
    syllables = [c + v for c in "bcdfghklmnprstvw" for v in ("a", "e", "i", "o", "u", "ai", "er")]
    words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 4)))) for _ in range(20_000)]
    return words, list(accumulate(1 / (rank + 3) for rank in range(len(words))))


def _document(rng: random.Random, words: list[str], weights: list[float]) -> str:
    """Paragraphs of sentences, 1 to 2 kB."""
    drawn = rng.choices(words, cum_weights=weights, k=rng.randint(150, 300))
    return "".join(_paragraphs(rng, drawn))


def _paragraphs(rng: random.Random, drawn: list[str]) -> Iterator[str]:
    start, sentences = 0, 0
    while start < len(drawn):
        end = start + rng.randint(6, 20)
        yield " ".join(drawn[start:end]).capitalize()
        sentences += 1
        yield ".\n\n" if sentences % 5 == 0 else ". "
        start = end


def _worker(source: Path, store: Path, *, embed: bool) -> None:
    import penstock as ps

    last = [ps.Embed()] if embed else []
    flow = ps.Flow(
        source=ps.jsonl(source), steps=[ps.Normalize(), ps.ExactDedup(), ps.Chunk(), *last]
    )
    started = time.perf_counter()
    report = flow.run(store)
    answer = {
        "seconds": time.perf_counter() - started,
        "documents": report.documents,
        "chunks": report.chunks,
        "peak_bytes": _peak_bytes(),
    }
    print(json.dumps(answer))


def _peak_bytes() -> int:
    """Most memory that this process had resident."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    # Not on Linux, where it would count what the parent had when it forked. Bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
