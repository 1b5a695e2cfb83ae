"""Measure search side by side: Penstock, LanceDB, Qdrant Edge, zvec, bm25s and tantivy.

    python benchmarks/search.py --peer-python /path/to/python-with-peers
    python benchmarks/search.py --peer-python PATH --quick
    python benchmarks/search.py --peer-python PATH --contenders penstock,zvec:int8 --measure vector
    python benchmarks/search.py --store my.st --data search-bench --rebuild

Every contender gets the same chunks of real text and code, the same vectors
(MiniLM int8, 384 wide) and the same questions: first sentences of docstrings
and headings out of the documents themselves. Each is a process of its own and
all are asked in turn, round after round; the best round counts. The question's
vector is given to everyone, so the time to embed it is in no figure.

    vector   best 10 ids, unfiltered and filtered; a peer's search parameters are, for each filter,
             the fastest that reach recall@10 of 0.96 on other questions; Penstock has none to set
    words    best 10 ids by BM25, the question's analysis included
    hybrid   both sides fused, 10 hits with their texts; each at its default depth of candidates
    threads  questions a second from 8 threads, unfiltered vectors and hybrid
    upsert   replace 50 rows, flush, and find a new one by its vector; the median of 20 batches
    build    seconds to build the indexes, and bytes on the disk

Recall counts hits that satisfy the filter and score as well as the exact tenth.
`found` is the share of questions whose document is among the hits. CPU is of
all threads, per question, and stays comparable where others use the machine.
The first run embeds the chunks, 15 minutes for 200,000 on two cores; they, the
indexes that were built and the parameters chosen are kept in --data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]
from _search_data import (  # type: ignore[import-not-found, unused-ignore]
    Data,
    K,
    build_store,
    folder_bytes,
    prepare,
    vector_column,
    write_document,
)
from _search_peers import (  # type: ignore[import-not-found, unused-ignore]
    PEERS,
    VARIANTS,
    Contender,
    Setting,
    Where,
    open_peer,
)

_PENSTOCK = "penstock"
_DEFAULT = "penstock,lancedb:ivf-hnsw-sq,qdrant-edge:int8,zvec:int8,bm25s:numba,tantivy:english"
_MEASURES = ("vector", "words", "hybrid", "threads", "upsert", "build")
_ENOUGH_RECALL = 0.95
_TUNED_RECALL = 0.96
"""Asked for while tuning, as the sampled mean of other questions is off by up to 0.01."""
_BATCHES, _BATCH_ROWS = 20, 50
_FLOW_RUNS = 5
_THREADS, _THREADS_S = 8, 3.0


def main() -> None:
    options = _options()
    if options.worker:
        _serve(options.worker, Data(options.data))
        return
    print_machine("numpy", "pyarrow", "faiss-cpu", "tantivy", "pylance")
    versions = peer_versions(options.peer_python, *(package for package, _ in PEERS.values()))
    print(f"{'peers:':<11}" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    chunks, tune, measured = (20_000, 60, 100) if options.quick else (options.chunks, 200, 300)
    folder = options.data / f"{chunks}-chunks"
    data = prepare(folder, chunks, (tune, measured), options.store)
    print(
        f"\n{data.num_rows:,} chunks, {len(data.queries) - data.num_tune} "
        f"questions to measure with, {data.num_tune} others to tune with; for example:"
    )
    for question in data.queries[-3:]:
        print(f"  {question}")
    contenders = []
    for name in options.contenders:
        if name != _PENSTOCK and PEERS[name.partition(":")[0]][0] not in versions:
            print(f"{name} is left out: it is not installed in {options.peer_python}")
            continue
        python = sys.executable if name == _PENSTOCK else options.peer_python
        contenders.append(Process(name, python, folder))
    figures = _measure(contenders, data, options)
    for contender in contenders:
        contender.close()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=int, default=200_000, help="about how many chunks")
    parser.add_argument(
        "--quick", action="store_true", help="20,000 chunks and a third of the questions"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("search-bench"),
        help="folder that keeps chunks, vectors and built indexes",
    )
    parser.add_argument(
        "--store",
        type=Path,
        help="a Penstock store to take documents and embeddings from, in place of this machine's "
        "files; it is copied",
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has the peers"
    )
    parser.add_argument(
        "--contenders",
        default=_DEFAULT,
        help=f"which, by commas, or 'all'; known: {_PENSTOCK}, {', '.join(VARIANTS)}",
    )
    parser.add_argument(
        "--measure", default=",".join(_MEASURES), help=f"what, of {','.join(_MEASURES)}"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement of time")
    parser.add_argument("--rebuild", action="store_true", help="build and tune again")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contenders == "all":
        options.contenders = ",".join((_PENSTOCK, *VARIANTS))
    options.contenders = options.contenders.split(",")
    options.measure = options.measure.split(",")
    for given, known in (
        (options.contenders, (_PENSTOCK, *VARIANTS)),
        (options.measure, _MEASURES),
    ):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return options


# Asking everyone in turn


class Process:
    """A contender in a process of its own, which answers one request at a time."""

    def __init__(self, name: str, python: str, data: Path) -> None:
        self.name = name
        command = [python, __file__, "--worker", name, "--data", str(data)]
        self._errors = data / f"{name.replace(':', '-')}.log"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.facts = self._answer()
        self.can = frozenset(self.facts["can"])

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something; what it measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let it end, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early:\n{self._errors.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _measure(contenders: list[Process], data: Data, options: argparse.Namespace) -> dict[str, Any]:
    wanted = set(options.measure)
    figures: dict[str, Any] = {}
    print("\nSetup")
    for contender in contenders:
        print(f"  {contender.name:<24} {contender.facts['about']}", flush=True)
        figures[f"build, {contender.name}"] = contender.ask("build", rebuild=options.rebuild)
    _print_builds(figures, data) if "build" in wanted else None
    searches: list[tuple[str, str, str]] = []
    if wanted & {"vector", "hybrid", "threads", "upsert"}:
        filters = ["", *data.filters] if "vector" in wanted else [""]
        for contender in (c for c in contenders if "vector" in c.can):
            contender.ask("tune", filters=filters, again=options.rebuild)
    if "vector" in wanted:
        shares = {"": "vector, unfiltered"} | {
            name: f"vector, {name} ({value.share:.2%} of rows)"
            for name, value in data.filters.items()
        }
        searches += [(title, "vector", name) for name, title in shares.items()]
    searches += [(do, do, "") for do in ("words", "hybrid") if do in wanted]
    for title, do, name in searches:
        asked = [contender for contender in contenders if do in contender.can]
        rounds: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in asked}
        for _ in range(options.rounds):
            for contender in asked:
                rounds[contender.name].append(contender.ask("search", kind=do, filter=name))
        best = {who: _best(found) for who, found in rounds.items()}
        figures[title] = best
        _print_search(title, best)
    if "threads" in wanted:
        _print_threads(figures, contenders)
    if "upsert" in wanted:
        _print_upserts(figures, contenders)
    return figures


def _best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The best round of each time; what was found is the same in all."""
    times = ("p50_ms", "p99_ms", "cpu_ms")
    return rounds[-1] | {name: min(found[name] for found in rounds) for name in times}


def _print_search(title: str, best: dict[str, dict[str, Any]]) -> None:
    right = "recall@10" if title.startswith("vector") else "found@10"
    print(f"\n{title:<46}{'p50, ms':>9}{'p99, ms':>9}{'CPU, ms':>9}{right:>11}  parameters")
    for name, found in best.items():
        setting = ", ".join(f"{key} {value}" for key, value in found["setting"].items())
        cells = "".join(f"{found[key]:>9.3f}" for key in ("p50_ms", "p99_ms", "cpu_ms"))
        low = title.startswith("vector") and found["right"] < _ENOUGH_RECALL
        short = " (short of 0.95)" if low else ""
        print(f"  {name:<44}{cells}{found['right']:>11.3f}  {setting}{short}", flush=True)


def _print_builds(figures: dict[str, Any], data: Data) -> None:
    title = f"build, {data.num_rows:,} rows"
    head = ("load, s", "vectors, s", "words, s", "disk, MB")
    print(f"\n{title:<46}" + "".join(f"{name:>11}" for name in head))
    for name, found in figures.items():
        cells = "".join(
            f"{found['seconds'][part]:>11.1f}" if part in found["seconds"] else f"{'-':>11}"
            for part in ("load", "vectors", "words")
        )
        when = "  built in an earlier run" if found["cached"] else ""
        print(f"  {name.partition(', ')[2]:<44}{cells}{found['bytes'] / 1e6:>11.0f}{when}")


def _print_threads(figures: dict[str, Any], contenders: list[Process]) -> None:
    print(f"\n{f'questions a second, {_THREADS} threads':<46}{'vector':>9}{'hybrid':>9}")
    for contender in (c for c in contenders if "hybrid" in c.can):
        found = contender.ask("threads")
        figures[f"threads, {contender.name}"] = found
        print(f"  {contender.name:<44}{found['vector']:>9.0f}{found['hybrid']:>9.0f}", flush=True)


def _print_upserts(figures: dict[str, Any], contenders: list[Process]) -> None:
    title = f"upsert of {_BATCH_ROWS} rows until one is found"
    print(f"\n{title:<46}{'p50, ms':>9}{'p99, ms':>9}  what it does")
    for contender in (c for c in contenders if "upsert" in c.can):
        for found in contender.ask("upsert")["ways"]:
            name = f"{contender.name}, {found['what']}"
            figures[f"upsert, {name}"] = found
            cells = f"{found['p50_ms']:>9.1f}{found['p99_ms']:>9.1f}"
            print(f"  {contender.name:<44}{cells}  {found['what']}", flush=True)


# What a contender's process runs


def _serve(name: str, data: Data) -> None:
    """Answer requests on standard input until it ends."""
    # Libraries print what they like; answers go where only answers go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = _Worker(name, data)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer({"can": sorted(worker.contender.can), "about": worker.contender.about})
    for line in sys.stdin:
        request = json.loads(line)
        answer(getattr(worker, request.pop("do"))(**request))


class _Worker:
    """One contender and its settings; each public method is a request."""

    def __init__(self, name: str, data: Data) -> None:
        self.data = data
        if name == _PENSTOCK:
            self.contender: Contender = Penstock(data)
            version = _penstock_version()
        else:
            self.contender, version = open_peer(name)
        self.folder = data.folder / "indexes" / f"{name.replace(':', '-')}-{version}"
        self.settings: dict[str, Setting] = {}

    def build(self, rebuild: bool) -> dict[str, Any]:
        """Build unless it was built, and open."""
        record = self.folder.with_name(f"{self.folder.name}.json")
        cached = record.exists() and not rebuild
        if not cached:
            record.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.parent.mkdir(exist_ok=True)
            seconds = self.contender.build(self.data, self.folder)
            facts = {"seconds": seconds, "bytes": folder_bytes(self.folder)}
            record.write_text(json.dumps(facts))
        self.contender.open(self.folder)
        known: dict[str, Any] = json.loads(record.read_text())
        return known | {"cached": cached}

    def tune(self, filters: list[str], again: bool) -> dict[str, Any]:
        """For each filter the fastest setting that finds enough, unless an earlier run chose."""
        record = self.folder.with_name(f"{self.folder.name}-tuned.json")
        known: dict[str, Setting] = {}
        if record.exists() and not again:
            known = json.loads(record.read_text())
        for name in filters:
            if name not in known:
                known[name] = self._tuned(name)
                record.write_text(json.dumps(known, indent=1))
        self.settings = known
        return {}

    def _tuned(self, name: str) -> Setting:
        """Of each list the first setting that finds enough; of these the fastest."""
        tried: list[tuple[bool, float, int, Setting]] = []
        for settings in self.contender.settings:
            for setting in settings:
                self.settings[name] = setting
                found = self._timed("vector", name, range(self.data.num_tune))
                short = found["right"] < _TUNED_RECALL
                # Where nothing finds enough, what finds most.
                cost = -found["right"] if short else found["p50_ms"]
                tried.append((short, cost, len(tried), setting))
                if not short:
                    break
        return min(tried)[-1]

    def search(self, kind: str, filter: str) -> dict[str, Any]:  # noqa: A002 - the request's word
        """One round over the questions to measure with."""
        self._timed(kind, filter, range(min(20, self.data.num_tune)))  # warm
        return self._timed(kind, filter, range(self.data.num_tune, len(self.data.queries)))

    def threads(self) -> dict[str, Any]:
        """Questions a second from several threads."""
        return {kind: self._per_second(kind) for kind in ("vector", "hybrid")}

    def upsert(self) -> dict[str, Any]:
        """Replace rows on a copy; each batch ends when a new row is found by its vector."""
        self.contender.close()
        copy = self.folder.with_name(f"{self.folder.name}-upserted")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy)
        ways = _upserts(self.contender, self.data, copy, self.settings[""])
        shutil.rmtree(copy)
        if isinstance(self.contender, Penstock):
            ways += self.contender.flow_runs(self.data)
        self.contender.open(self.folder)
        return {"ways": ways}

    def _call(self, kind: str, filter_name: str, query: int) -> list[int]:
        data, contender = self.data, self.contender
        setting = self.settings.get(filter_name, {})
        if kind == "vector":
            chosen = data.filters.get(filter_name)
            where = None if chosen is None else (chosen.column, chosen.values[query])
            return contender.vector(data.query_vectors[query], where, setting)
        if kind == "words":
            return contender.words(data.queries[query])
        hits = contender.hybrid(data.queries[query], data.query_vectors[query], setting)
        assert all(text for _, text in hits), "a hit came without its text"
        return [number for number, _ in hits]

    def _timed(self, kind: str, filter_name: str, queries: range) -> dict[str, Any]:
        seconds, found = [], []
        cpu = time.process_time()
        for query in queries:
            started = time.perf_counter()
            hits = self._call(kind, filter_name, query)
            seconds.append(time.perf_counter() - started)
            found.append(hits)
        cpu = time.process_time() - cpu
        judge = self._recall if kind == "vector" else self._found
        right = [
            judge(filter_name, query, hits) for query, hits in zip(queries, found, strict=True)
        ]
        return {
            "p50_ms": 1e3 * float(np.median(seconds)),
            "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
            "cpu_ms": 1e3 * cpu / len(queries),
            "right": statistics.mean(right),
            "setting": {} if kind == "words" else self.settings.get(filter_name, {}),
        }

    def _recall(self, filter_name: str, query: int, hits: list[int]) -> float:
        chosen = self.data.filters.get(filter_name)
        where = None if chosen is None else (chosen.column, chosen.values[query])
        allowed = self.data.allowed(where)
        assert len(set(hits)) == len(hits) <= K, "a hit came twice, or too many came"
        assert allowed is None or allowed[hits].all(), f"a hit does not satisfy {where}"
        scores = self.data.vectors[hits] @ self.data.query_vectors[query]
        tenth = self.data.tenth_scores[filter_name or "unfiltered"][query]
        wanted = K if allowed is None else min(K, int(allowed.sum()))
        return float(np.sum(scores >= tenth - 1e-5)) / wanted

    def _found(self, _: str, query: int, hits: list[int]) -> float:
        return float(self.data.answers[query] in self._owners[hits].tolist())

    @property
    def _owners(self) -> Any:
        if not hasattr(self, "_owner_names"):
            self._owner_names = np.array(self.data.rows["doc_id"].to_pylist(), object)
        return self._owner_names

    def _per_second(self, kind: str) -> float:
        queries = range(self.data.num_tune, len(self.data.queries))
        counts, barrier = [0] * _THREADS, threading.Barrier(_THREADS + 1)
        ended = threading.Event()

        def work(number: int) -> None:
            self._call(kind, "", queries[number])  # what a thread's first search sets up
            barrier.wait()
            while not ended.is_set():
                self._call(kind, "", queries[(number * 37 + counts[number]) % len(queries)])
                counts[number] += 1

        workers = [threading.Thread(target=work, args=(number,)) for number in range(_THREADS)]
        for worker in workers:
            worker.start()
        barrier.wait()
        started = time.perf_counter()
        time.sleep(_THREADS_S)
        ended.set()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - started)


def _upserts(
    contender: Contender, data: Data, folder: Path, setting: Setting
) -> list[dict[str, Any]]:
    contender.open(folder, writable=True)
    syncs = not contender.durable.startswith("no fsync")
    plain, synced = [], []
    for rows in data.revised(_BATCHES, _BATCH_ROWS):
        batch, known = contender.batch(rows), _files(folder)
        vector = np.array(rows["vector"][-1].as_py(), np.float32)
        started = time.perf_counter()
        contender.upsert(batch)
        hits = contender.vector(vector, None, setting)
        plain.append(time.perf_counter() - started)
        assert hits[0] == rows["id"][-1].as_py(), "the new row was not found"
        if not syncs:
            begun = time.perf_counter()
            _fsync(folder, _files(folder) - known)
            synced.append(plain[-1] + time.perf_counter() - begun)
    contender.close()
    ways = [_upsert_figures(contender.durable, plain)]
    if not syncs:
        ways.append(_upsert_figures("the same, then fsync of its new files by us", synced))
    return ways


def _upsert_figures(what: str, seconds: list[float]) -> dict[str, Any]:
    ms = 1e3 * np.array(seconds)
    return {"what": what, "p50_ms": float(np.median(ms)), "p99_ms": float(np.percentile(ms, 99))}


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _fsync(folder: Path, files: set[Path]) -> None:
    folders = {parent for path in files for parent in path.parents if parent.is_relative_to(folder)}
    for path in sorted(files | folders):
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.close(number)


# Penstock behind the methods of a peer


def _penstock_version() -> str:
    import penstock

    return penstock.__version__


class Penstock:
    """Penstock as it is: no search parameter is set."""

    can = frozenset({"vector", "words", "hybrid", "upsert"})
    settings: Sequence[list[Setting]] = ([{}],)
    about = "defaults, and no parameter to choose; ids are row ids; weighted fusion of 50 a side"
    durable = "update of the index, fsync, its manifest published atomically, opened afresh"

    def __init__(self, data: Data) -> None:
        self._data = data

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        """Index the chunks: texts (words, and what hits show) without vectors, and the reverse."""
        from penstock.build.index import rebuild_index

        self._build(data, folder, {"text", "vector"}, num_rows=4096)  # compiles, loads, warms
        words = self._build(data, folder, {"text"})
        vectors = self._build(data, folder, {"vector"})
        self._build(data, folder, {"text", "vector"})
        rebuild_index(data.folder / "store")  # another version may have left it
        return {"vectors": vectors, "words": words}

    def open(self, folder: Path, writable: bool = False) -> None:
        """The store; or, to be written to, the index in this folder."""
        import penstock as ps
        from penstock.index import IndexManifest

        self._folder, self._num_runs = folder, 0
        self._writable = writable
        if writable:
            value = json.loads((folder / "manifest.json").read_text())
            self._manifest = IndexManifest.from_json(value)
            self._publish()
            return
        self._store = ps.Store.open(self._data.folder / "store")
        rows = self._store.dataset("chunks").to_table(columns=["chunk_id"], with_row_id=True)
        numbers = {name: n for n, name in enumerate(self._data.rows["chunk_id"].to_pylist())}
        self._by_name = numbers
        names = rows["chunk_id"].to_pylist()
        ids = rows["_rowid"].to_pylist()
        self._by_row = {row: numbers[name] for row, name in zip(ids, names, strict=True)}

    def vector(self, query: Any, where: Where, setting: Setting) -> list[int]:
        """Row ids of the nearest, as numbers of the benchmark."""
        if self._writable:
            from penstock.index import Query

            found = self._index.search(Query(vector=query, mode="vector"), K)
            return [hit.row_id for hit in found]
        return self._rank(None, vector=query, mode="vector", where=_condition(where))

    def words(self, text: str) -> list[int]:
        """Row ids of the best by BM25."""
        return self._rank(text, mode="words")

    def hybrid(self, text: str, query: Any, setting: Setting) -> list[tuple[int, str]]:
        """What a user gets: hits with their texts and metadata."""
        hits = self._store.search(text, K, vector=query, mode="hybrid")
        return [(self._by_name[hit.chunk_id], hit.text) for hit in hits]

    def batch(self, rows: pa.Table) -> Any:
        """Rows as the index takes them."""
        return _index_rows(rows)

    def upsert(self, batch: Any) -> None:
        """What a run does once chunks are cut and embedded."""
        from penstock.index import update_index

        self._num_runs += 1
        name, gone = f"run-{self._num_runs}", batch["row_id"].to_numpy()
        self._manifest = update_index(
            self._folder, self._manifest, name, gone, batch.to_batches(), self._manifest.settings
        )
        self._publish()

    def close(self) -> None:
        """Nothing is held."""

    def flow_runs(self, data: Data) -> list[dict[str, Any]]:
        """Whole runs over 50 documents that changed: read, cut, embed, index, publish, search."""
        import penstock as ps

        copy = data.folder / "upserted"
        shutil.rmtree(copy, ignore_errors=True)
        for name in ("corpus", "store"):
            shutil.copytree(data.folder / name, copy / name)
        paths = sorted((copy / "corpus").rglob("*.parquet"))
        places = np.random.default_rng(0).permutation(len(paths))
        build_store(copy / "corpus", copy / "store")  # copies are new files to it
        seconds, embedded = [], 0
        for number in range(_FLOW_RUNS):
            first = number * _BATCH_ROWS
            for place in places.take(range(first, first + _BATCH_ROWS), mode="wrap"):
                row = pq.read_table(paths[place]).to_pylist()[0]
                marked = f"revised{number}of{place} in a run.\n\n{row['text']}"
                write_document(paths[place], row["id"], marked, row["lot"])
            started = time.perf_counter()
            report = build_store(copy / "corpus", copy / "store")
            text = f"revised{number}of{place} in a run"
            hits = ps.Store.open(copy / "store").search(text, 3, mode="words")
            seconds.append(time.perf_counter() - started)
            assert any(text in hit.text for hit in hits), "the last document was not found"
            embedded += report.counts.chunks_embedded
        shutil.rmtree(copy)
        what = (
            f"Flow.run: list {len(paths):,} files, read {_BATCH_ROWS} changed ones, cut, embed "
            f"{embedded // _FLOW_RUNS} chunks, index, fsync, publish, search ({_FLOW_RUNS} runs)"
        )
        return [_upsert_figures(what, seconds)]

    def _rank(self, text: str | None, **asked: Any) -> list[int]:
        """As `Store.rank`, with the question's vector given."""
        searcher = self._store.searcher
        found = searcher.rank(searcher.query(text, **asked), K)
        return [self._by_row[hit.row_id] for hit in found]

    def _build(
        self, data: Data, folder: Path, parts: set[str], num_rows: int | None = None
    ) -> float:
        from penstock.index import update_index

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder = folder
        started = time.perf_counter()
        batches = _batches(data, parts, num_rows or data.num_rows)
        self._manifest = update_index(folder, None, "run-0", [], batches)
        self._publish()
        return time.perf_counter() - started

    def _publish(self) -> None:
        """What a run does in the end: flush new files, name them in one step, open them."""
        from penstock.index import Index
        from penstock.store.files import fsync_new, replace_file

        self._durable_files = fsync_new(self._folder, getattr(self, "_durable_files", set()))
        value = json.dumps(self._manifest.to_json()).encode()
        replace_file(self._folder / "manifest.json", value)
        self._index = Index.open(self._folder, self._manifest)


def _condition(where: Where) -> str | None:
    if where is None:
        return None
    column, value = where
    return f"lot < {value}" if column == "lot" else f"{column} = '{value}'"


def _batches(data: Data, parts: set[str], num_rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, num_rows, 4096):
        rows = data.rows.slice(start, 4096)
        if "vector" in parts:
            vectors = vector_column(data.vectors[start : start + 4096])
            rows = rows.append_column("vector", vectors)
        yield from _index_rows(rows, "text" in parts).to_batches()


def _index_rows(rows: pa.Table, with_text: bool = True) -> pa.Table:
    """The columns that an index keeps of a chunk."""
    blank = pa.array([""] * rows.num_rows)
    length = pc.binary_length(rows["text"]).cast(pa.int64())
    columns = {
        "row_id": rows["id"].cast(pa.uint64()),
        "doc_id": rows["doc_id"],
        "chunk_id": rows["chunk_id"],
        "title": rows["doc_id"] if with_text else blank,
        "heading_path": blank,
        "media_type": blank,
        "metadata": pa.array(
            [json.dumps(row) for row in rows.select(["extension", "lot"]).to_pylist()]
        ),
        "text": rows["text"] if with_text else blank,
        "start": pc.subtract(length, length),
        "end": length,
    }
    if "vector" in rows.column_names:
        columns["embedding"] = rows["vector"]
    return pa.table(columns).combine_chunks()


if __name__ == "__main__":
    main()
