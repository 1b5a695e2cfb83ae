"""Chunking against the `tokenizers` library alone, on the same text and threads.

    python benchmarks/chunking.py [--folder FOLDER] [--megabytes 20] [--threads 2]

The text is Python's standard library and the documents of installed packages,
or `--folder`. The library encodes whole documents in one batch per thread,
which is the least that a chunker built on it does: without offsets, which
count but do not say where to cut, and with them. `Chunk.cut` is measured as a
run uses it, in batches of about a megabyte: cold, when every word is new, and
warm. The figure of each is the best of three runs.
"""

from __future__ import annotations

import argparse
import platform
import sysconfig
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.cores import num_cores
from penstock.models import load_tokenizer
from penstock.steps import chunk

_MEDIA_TYPES = {
    ".py": "text/x-python",
    ".md": "text/markdown",
    ".rst": "text/x-rst",
    ".txt": "text/plain",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="read these files instead")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokenizer", default="all-MiniLM-L6-v2")
    options = parser.parse_args()
    folders = [options.folder] if options.folder else _installed()
    batches = list(_batches(folders, options.megabytes * 1e6))
    megabytes = sum(batch["text"].nbytes for batch in batches) / 1e6
    names = ["numba", "numpy", "penstock", "pyarrow", "tokenizers"]
    print(platform.platform(), f"{num_cores()} cores, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in names if name != "penstock"))
    print(f"{megabytes:.1f} MB in {len(batches)} batches, {options.threads} threads")

    tokenizer = load_tokenizer(options.tokenizer)
    step = chunk.Chunk(tokenizer=options.tokenizer)

    def counted(batch: pa.RecordBatch) -> int:
        texts = batch["text"].to_pylist()
        return sum(map(len, tokenizer.encode_batch_fast(texts, add_special_tokens=False)))

    def with_offsets(batch: pa.RecordBatch) -> int:
        encoded = tokenizer.encode_batch(batch["text"].to_pylist(), add_special_tokens=False)
        return sum(len(each.offsets) for each in encoded)

    def cut(batch: pa.RecordBatch) -> int:
        return int(step.cut(batch).num_rows)

    def forget() -> None:
        chunk._counters.clear()
        chunk._counter(options.tokenizer)

    def nothing() -> None:
        pass

    cut(batches[0])  # compiles the kernels, once per machine
    baseline = 0.0
    for name, function, before in (
        ("tokenizers, encode_batch_fast", counted, nothing),
        ("tokenizers, encode_batch with offsets", with_offsets, nothing),
        ("Chunk.cut, cold", cut, forget),
        ("Chunk.cut, warm", cut, nothing),
    ):
        took = min(_time(function, batches, options.threads, before) for _ in range(3))
        baseline = baseline or took
        print(f"{name:40} {megabytes / took:8.1f} MB/s  {baseline / took:6.2f}x")


def _time(
    function: Callable[[pa.RecordBatch], int],
    batches: list[pa.RecordBatch],
    threads: int,
    before: Callable[[], None],
) -> float:
    before()
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(function, batches))
        return time.perf_counter() - start


def _installed() -> list[Path]:
    return [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]


def _batches(folders: list[Path], limit: float) -> Iterable[pa.RecordBatch]:
    """Documents in batches of about a megabyte, until there are `limit` bytes."""
    rows: list[dict[str, Any]] = []
    size = total = 0
    for path in (path for folder in folders for path in sorted(folder.rglob("*"))):
        kind = _MEDIA_TYPES.get(path.suffix)
        if kind is None or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        rows.append({"doc_id": str(path), "media_type": kind, "text": text})
        size, total = size + len(text), total + len(text)
        if size >= 1e6 or total >= limit:
            yield _batch(rows)
            rows, size = [], 0
        if total >= limit:
            return
    if rows:
        yield _batch(rows)


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    types = {"doc_id": pa.string(), "media_type": pa.string(), "text": pa.large_string()}
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema(types.items()))


if __name__ == "__main__":
    main()
