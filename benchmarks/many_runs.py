"""How searching fares after hundreds of small runs, against an index built afresh.

    python benchmarks/many_runs.py STORE
    python benchmarks/many_runs.py STORE --rows 1000000 --runs 300 --documents 50

STORE is a store with embeddings; nothing in it is changed. Its chunks are indexed in a temporary
folder, over and over under new ids if more rows are asked for than it has. Then every run
replaces all chunks of 50 documents and publishes: files fsynced, then a manifest. After every
50th run the same searches are timed on the updated index and on one built afresh from the same
rows, and their results compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from _machine import print_machine  # type: ignore[import-not-found, unused-ignore]

from penstock import Store
from penstock.index import Index, IndexManifest, Query, update_index
from penstock.index.passages import COLUMNS
from penstock.store.files import fsync_new, replace_file

_BATCH = 4096


def main() -> None:
    options = _options()
    print_machine("faiss-cpu", "numba", "pyarrow", "pylance")
    chunks = _chunks(options.store)
    questions = _questions(chunks, options.queries)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        # Row i of the index is chunk sources[i]; documents are runs of rows.
        sources = np.arange(options.rows) % chunks.num_rows
        owners = _owners(chunks, options.rows)
        live = np.arange(options.rows)
        started = time.perf_counter()
        manifest = update_index(folder / "runs", None, "0", [], _rows(chunks, sources, live))
        print(f"\n{options.rows:,} chunks indexed in {time.perf_counter() - started:.1f} s")
        known = fsync_new(folder / "runs", set())
        heads = ("run", "ms a run", "segments", "p50 ms", "fresh", "ratio", "same")
        print("".join(f"{head:>10}" for head in heads))
        seconds: list[float] = []
        for run in range(1, options.runs + 1):
            chosen = random.choice(np.unique(owners[live]), options.documents, replace=False)
            gone = live[np.isin(owners[live], chosen)]
            added = len(sources) + np.arange(len(gone))
            sources = np.append(sources, random.permutation(sources[gone]))
            owners = np.append(owners, owners[gone])
            rows = list(_rows(chunks, sources, added))
            started = time.perf_counter()
            manifest = update_index(folder / "runs", manifest, str(run), gone, rows)
            known = fsync_new(folder / "runs", known)
            replace_file(folder / "current", json.dumps(manifest.to_json()).encode())
            seconds.append(time.perf_counter() - started)
            live = np.append(np.setdiff1d(live, gone, assume_unique=True), added)
            if run % options.every == 0 or run == options.runs:
                _compare(folder, run, seconds, manifest, chunks, sources, live, questions)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="a store with embeddings")
    parser.add_argument("--rows", type=int, default=200_000, help="chunks in the index")
    parser.add_argument("--runs", type=int, default=300, help="small runs")
    parser.add_argument("--documents", type=int, default=50, help="documents changed in each")
    parser.add_argument("--every", type=int, default=50, help="compare after so many runs")
    parser.add_argument("--queries", type=int, default=100, help="searches timed, three times each")
    parser.add_argument("--folder", type=Path, help="where the indexes go; the system's by default")
    return parser.parse_args()


def _chunks(store: Path) -> pa.Table:
    columns = [*COLUMNS, "embedding"]
    table = Store.open(store).dataset("chunks").to_table(columns=columns)
    return table.combine_chunks()


def _owners(chunks: pa.Table, num_rows: int) -> np.ndarray:
    codes = chunks["doc_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    turns = np.arange(num_rows) // len(codes)
    owners: np.ndarray = codes[np.arange(num_rows) % len(codes)] + turns * (codes.max() + 1)
    return owners


def _rows(chunks: pa.Table, sources: np.ndarray, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        batch = chunks.take(pa.array(sources[part])).combine_chunks().to_batches()[0]
        yield batch.append_column("row_id", pa.array(part.astype(np.uint64)))


def _questions(chunks: pa.Table, num_queries: int) -> list[tuple[str, np.ndarray]]:
    """Words in a row out of some chunks, each with the vector of another chunk that is like it."""
    random = np.random.default_rng(1)
    dim = chunks.schema.field("embedding").type.list_size
    questions = []
    for place in random.choice(chunks.num_rows, num_queries, replace=False).tolist():
        words = chunks["text"][place].as_py().split()[:8]
        vector = np.asarray(chunks["embedding"][place].as_py(), np.float32)
        noise = random.standard_normal(dim).astype(np.float32)
        vector = vector + 0.5 * noise / np.linalg.norm(noise)
        questions.append((" ".join(words), vector / np.linalg.norm(vector)))
    return questions


def _compare(
    folder: Path,
    run: int,
    seconds: list[float],
    manifest: IndexManifest,
    chunks: pa.Table,
    sources: np.ndarray,
    live: np.ndarray,
    questions: list[tuple[str, np.ndarray]],
) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        updated = Index.open(folder / "runs", manifest)
        made = update_index(Path(fresh), None, "0", [], _rows(chunks, sources, np.sort(live)))
        anew = Index.open(Path(fresh), made)
        ours, theirs, same = [], [], 0
        for turn in range(3):
            for words, vector in questions:
                query = Query(text=words, vector=vector)
                started = time.perf_counter()
                found = updated.search(query, 10)
                between = time.perf_counter()
                expected = anew.search(query, 10)
                ours.append(between - started)
                theirs.append(time.perf_counter() - between)
                if turn == 0:
                    same += [h.row_id for h in found] == [h.row_id for h in expected]
        p50, fresh_p50 = float(np.median(ours)) * 1e3, float(np.median(theirs)) * 1e3
        cells = [f"{run}", f"{np.median(seconds[-50:]) * 1e3:.1f}", f"{len(manifest.segments)}"]
        cells += [f"{p50:.2f}", f"{fresh_p50:.2f}", f"{p50 / fresh_p50:.2f}"]
        cells += [f"{same / len(questions):.0%}"]
        print("".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
