"""Time and judge near-duplicate removal against rensa, datasketch, datatrove and text-dedup.

    python benchmarks/near_dedup.py --peer-python /path/to/python-with-the-peers
        --family docs=/path/to/folder --family licences=/path/to/other

Four parts, each of which `--only` chooses:

    signatures  14 x 8 hash functions of shingles of 5 words, texts in memory. rensa and datasketch
                get words from one regular expression; datatrove cuts words itself. One thread,
                then two (for the peers: processes, for they hold the GIL).
    run         JSON lines in, the kept documents out: penstock's Flow(MinHashDedup) into a fresh
                store, fsynced; datatrove's four stages with 2 tasks on 2 workers; text-dedup
                with 2 processes. All with 14 bands of 8 and shingles of 5 words. Recall and
                precision: of a sample of documents, the pairs in one cluster against the pairs
                of a true Jaccard similarity of at least 0.8, over words of one regular
                expression. Docs found: the share of the documents of such a pair that are in a
                cluster; right: of the documents in a cluster, those that have such a pair.
                "penstock, 0.8" links only pairs of an estimate of 0.8; "penstock, texts" pairs
                of a true similarity of 0.8, on texts in memory.
    accuracy    the same measure on folders of real versions (`--family`), over all pairs.
    scale       decisions over synthetic signatures: time and memory.

The corpus of `signatures` and `run` is made of the text files of installed packages, cut into
documents, and of versions of a third of these: each has one word in 200, 50, 20 or 8 replaced,
or loses its last tenth, or is repeated as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

BANDS, ROWS, SHINGLE = 14, 8, 5
PARTS = ("signatures", "run", "accuracy", "scale")
PEERS = ("rensa", "datasketch", "datatrove", "text-dedup", "spacy", "xxhash", "numpy")
_SHARDS = 2
_ENDINGS = {".py", ".pyi", ".pyx", ".txt", ".md", ".rst", ".html", ".h", ".hpp", ".c", ".js"}
_WORD = re.compile(r"\w+")
_SIMILAR = 0.8


def main() -> None:
    options = _options()
    if options.worker:
        _worker(options)
        return
    print_machine("pyarrow", "pylance", "numba", "numpy")
    versions = peer_versions(options.peer_python, *PEERS)
    print(f"{'peers:':<11}" + ", ".join(f"{name} {value}" for name, value in versions.items()))
    with tempfile.TemporaryDirectory(prefix="penstock-near-") as name:
        folder = Path(name)
        for part in options.only:
            print(f"\n== {part}")
            if part == "scale":
                _scale(options)
            elif part == "accuracy":
                for family in options.family:
                    _accuracy(family, options, versions, folder)
                if not options.family:
                    print("no --family given: nothing to judge")
            else:
                _write_corpus(options, folder / "jsonl")
                (_signatures if part == "signatures" else _run)(options, versions, folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--peer-python", default=sys.executable, help="one that has the peers")
    parser.add_argument("--documents", type=int, default=200_000, help="documents of `run`")
    parser.add_argument("--document-bytes", type=int, default=1800, help="their size, about")
    parser.add_argument(
        "--folders", type=Path, nargs="*", default=[], help="where else to look for text files"
    )
    parser.add_argument(
        "--family", action="append", default=[], help="NAME=FOLDER of versions to judge by"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, the best counts")
    parser.add_argument("--sample", type=int, default=5000, help="documents judged in `run`")
    parser.add_argument("--signatures", type=int, default=2_000_000, help="of `scale`")
    parser.add_argument("--skip", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--quick", action="store_true", help="small and once, to see it work")
    for name in ("worker", "source", "output"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.documents, options.signatures = min(options.documents, 4000), 200_000
        options.rounds, options.sample = 1, 500
    return options


# The corpus


def _write_corpus(options: argparse.Namespace, folder: Path) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True)
    shards = [(folder / f"{i}.jsonl").open("w", encoding="utf-8") for i in range(_SHARDS)]
    size = 0
    for number, text in enumerate(_documents(options)):
        row = {"id": f"{number:07d}", "text": text}
        # Shard by shard, so that every system sees the documents in the same order.
        shard = shards[number * _SHARDS // options.documents]
        shard.write(json.dumps(row, ensure_ascii=False) + "\n")
        size += len(text.encode())
    for file in shards:
        file.close()
    print(f"corpus: {number + 1:,} documents, {size / 1e6:.0f} MB of text")


def _documents(options: argparse.Namespace) -> Iterator[str]:
    """Pieces of files and versions of a third of them, shuffled."""
    rng = random.Random(0)
    wanted = options.documents * 3 // 4
    pieces: list[str] = []
    for text in _files(options.folders):
        pieces.extend(_pieces(text, options.document_bytes))
        if len(pieces) >= wanted:
            break
    found = list(pieces)
    while len(found) < options.documents:
        found.append(_version(pieces[rng.randrange(0, len(pieces), 3)], rng))
    rng.shuffle(found)
    yield from found[: options.documents]


def _files(folders: list[Path]) -> Iterator[str]:
    for place in [*folders, *(Path(sysconfig.get_path(n)) for n in ("purelib", "stdlib"))]:
        for path in sorted(place.rglob("*")):
            if path.suffix in _ENDINGS and path.is_file() and path.stat().st_size < 2_000_000:
                try:
                    text = path.read_text(encoding="utf-8")
                except (UnicodeDecodeError, OSError):
                    continue
                if "\0" not in text:
                    yield text


def _pieces(text: str, size: int) -> Iterator[str]:
    start = 0
    while len(text) - start > size:
        end = text.find("\n", start + size) + 1 or len(text)
        yield text[start:end]
        start = end


def _version(text: str, rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 4:
        return text[: len(text) * 9 // 10]
    if kind == 5:
        return text
    share = 1 / (200, 50, 20, 8)[kind]
    return _WORD.sub(lambda m: f"w{rng.randrange(10**6)}" if rng.random() < share else m[0], text)


def _read(source: Path) -> list[str]:
    return [
        json.loads(line)["text"]
        for path in sorted(source.glob("*.jsonl"))
        for line in path.open(encoding="utf-8")
    ]


# What runs in a process of its own


def _worker(options: argparse.Namespace) -> None:
    kind, _, name = options.worker.partition(":")
    source, output = Path(options.source), Path(options.output)
    if kind == "signatures":
        texts = _read(source)
        seconds = SIGNERS[name](texts, options.threads, options.rounds)
        print(json.dumps({"seconds": seconds, "bytes": sum(len(t.encode()) for t in texts)}))
        return
    started = time.perf_counter()
    RUNNERS[name](source, output)
    seconds = time.perf_counter() - started
    clusters = CLUSTERS[name](source, output)
    Path(options.output, "clusters.json").write_text(json.dumps(clusters))
    print(json.dumps({"seconds": seconds}))


def _ask(python: str, *arguments: str) -> Any:
    done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _sign_penstock(texts: list[str], threads: int, rounds: int) -> float:
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa

    from penstock.decisions.near import MinHashDedup

    decision = MinHashDedup(bands=BANDS, rows=ROWS, shingle=SHINGLE)
    column = pa.array(texts, pa.large_string())
    step = max(1, min(1000, len(texts) // (4 * threads)))
    batches = [pa.record_batch({"text": column[i : i + step]}) for i in range(0, len(texts), step)]
    decision.signature(batches[0])  # compiled, or loaded
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decision.signature, batches))
        best = min(best, time.perf_counter() - started)
    return best


def _in_processes(sign: Callable[[list[str]], Any]) -> Callable[[list[str], int, int], float]:
    def run(texts: list[str], threads: int, rounds: int) -> float:
        """Best wall time of `threads` forked processes, each with its share of the texts."""
        sign(texts[:20])
        best = float("inf")
        for _ in range(rounds):
            started = time.perf_counter()
            children = []
            for i in range(threads):
                child = os.fork()
                if not child:
                    sign(texts[i::threads])
                    os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
            best = min(best, time.perf_counter() - started)
        return best

    return run


def _shingle_texts(text: str) -> list[str]:
    words = _WORD.findall(text.lower())
    found = [" ".join(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)]
    return found or [" ".join(words)]


def _sign_rensa(texts: list[str]) -> list[Any]:
    from rensa import RMinHash  # type: ignore[import-not-found, unused-ignore]

    found = []
    for text in texts:
        one = RMinHash(num_perm=BANDS * ROWS, seed=0)
        one.update(_shingle_texts(text))
        found.append(one.digest())
    return found


def _sign_datasketch(texts: list[str]) -> list[Any]:
    from datasketch import MinHash  # type: ignore[import-not-found, unused-ignore]

    shingles = ([one.encode() for one in _shingle_texts(text)] for text in texts)
    return [one.digest() for one in MinHash.generator(shingles, num_perm=BANDS * ROWS)]


def _sign_datatrove(texts: list[str]) -> list[Any]:
    from datatrove.pipeline.dedup.minhash import (  # type: ignore[import-not-found, unused-ignore]
        MinhashConfig,
        MinhashDedupSignature,
    )

    config = MinhashConfig(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)
    stage = MinhashDedupSignature(tempfile.gettempdir(), config)
    found = []
    for text in texts:
        shingles = stage.get_shingles(text)
        found.append(stage.get_signature(shingles) if shingles.size else None)
    return found


SIGNERS: dict[str, Callable[[list[str], int, int], float]] = {
    "penstock": _sign_penstock,
    "rensa": _in_processes(_sign_rensa),
    "datasketch": _in_processes(_sign_datasketch),
    "datatrove": _in_processes(_sign_datatrove),
}


def _flow(threshold: float | None) -> Callable[[Path, Path], None]:
    def run(source: Path, output: Path) -> None:
        import penstock as ps
        from penstock.decisions.near import MinHashDedup

        decision = MinHashDedup(threshold=threshold, shingle=SHINGLE)
        flow = ps.Flow(source=ps.jsonl(str(source), id="id"), steps=[decision])
        flow.run(output / "store")

    return run


def _clusters_penstock(source: Path, output: Path) -> list[int]:
    import penstock as ps

    rows = ps.Store.open(output / "store").verdicts().to_pylist()
    number = {row["doc_id"]: i for i, row in enumerate(sorted(rows, key=lambda r: r["doc_id"]))}
    return [
        number[row["duplicate_of"] or row["doc_id"]]
        for row in sorted(rows, key=lambda r: r["doc_id"])
    ]


def _by_texts(source: Path, output: Path) -> None:
    """Pairs verified by their texts, which are in memory: 256 functions and a threshold."""
    import numpy as np
    import pyarrow as pa

    from penstock.decisions.near import MinHashDedup

    texts = pa.array(_read(source), pa.large_string())
    ids = pa.array(np.char.mod("%07d", np.arange(len(texts))))
    decision = MinHashDedup(threshold=_SIMILAR, verify="jaccard", num_hashes=256)
    table = decision.decide(
        pa.chunked_array([ids]),
        pa.chunked_array([decision.signature(pa.record_batch({"text": texts}))]),
        lambda names: texts.take(names.cast(pa.int64())),
    )
    labels = list(range(len(texts)))
    for row in table.to_pylist():
        labels[int(row["doc_id"])] = int(row["duplicate_of"])
    (output / "labels.json").write_text(json.dumps(labels))


def _clusters_by_texts(source: Path, output: Path) -> list[int]:
    labels: list[int] = json.loads((output / "labels.json").read_text())
    return labels


def _run_datatrove(source: Path, output: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found, unused-ignore]
    from datatrove.pipeline.dedup.minhash import (  # type: ignore[import-not-found, unused-ignore]
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader  # type: ignore[import-not-found, unused-ignore]
    from datatrove.pipeline.writers import JsonlWriter  # type: ignore[import-not-found, unused-ignore]

    config = MinhashConfig(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)
    places = {name: str(output / name) for name in ("signatures", "buckets", "remove", "kept")}
    reader = JsonlReader(str(source), glob_pattern="*.jsonl")
    stages: list[tuple[list[Any], int]] = [
        ([reader, MinhashDedupSignature(places["signatures"], config)], _SHARDS),
        ([MinhashDedupBuckets(places["signatures"], places["buckets"], config=config)], BANDS),
        (
            [
                MinhashDedupCluster(
                    places["buckets"], places["remove"], config=config, save_cluster_id=True
                )
            ],
            1,
        ),
        ([reader, MinhashDedupFilter(places["remove"]), JsonlWriter(places["kept"])], _SHARDS),
    ]
    for i, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=2, logging_dir=str(output / f"logs{i}")
        ).run()


def _clusters_datatrove(source: Path, output: Path) -> list[int]:
    labels: list[int] = []
    for shard, path in enumerate(sorted(source.glob("*.jsonl"))):
        first, size = len(labels), sum(1 for _ in path.open(encoding="utf-8"))
        labels += range(first, first + size)
        clusters = output / "remove" / f"{shard:06d}.clusters"
        if clusters.exists():
            for row, cluster in struct.iter_unpack("<2I", clusters.read_bytes()):
                labels[first + row] = -1 - cluster
    return labels


def _run_text_dedup(source: Path, output: Path) -> None:
    command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json"]
    command += ["--data_files", str(source / "*.jsonl"), "--split", "train", "--column", "text"]
    command += ["--cache_dir", str(output / "cache"), "--output", str(output / "kept")]
    command += ["--num_proc", "2", "--num_perm", str(BANDS * ROWS), "--ngram", str(SHINGLE)]
    command += ["--b", str(BANDS), "--r", str(ROWS), "--min_length", "1", "--debug"]
    command += ["--hash_func", "xxh3"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(output / "hf")}
    subprocess.run(command, env=os.environ | offline, check=True, stdout=sys.stderr)


def _clusters_text_dedup(source: Path, output: Path) -> list[int]:
    with (output / "kept" / "uf.pkl").open("rb") as file:
        found = pickle.load(file)  # written by the run above
    return [found.find(i) for i in range(len(_read(source)))]


RUNNERS: dict[str, Callable[[Path, Path], None]] = {
    "penstock": _flow(None),
    "penstock, 0.8": _flow(_SIMILAR),
    "penstock, texts": _by_texts,
    "datatrove": _run_datatrove,
    "text-dedup": _run_text_dedup,
}
CLUSTERS: dict[str, Callable[[Path, Path], list[int]]] = {
    "penstock": _clusters_penstock,
    "penstock, 0.8": _clusters_penstock,
    "penstock, texts": _clusters_by_texts,
    "datatrove": _clusters_datatrove,
    "text-dedup": _clusters_text_dedup,
}


# The parts


def _contenders(known: Any, options: argparse.Namespace, versions: dict[str, str]) -> list[str]:
    chosen = []
    for name in known:
        if name in options.skip:
            continue
        if name.startswith("penstock") or name in versions:
            chosen.append(name)
        else:
            print(f"{name} is not installed there: no comparison")
    return chosen


def _python(name: str, options: argparse.Namespace) -> str:
    return sys.executable if name.startswith("penstock") else str(options.peer_python)


def _signatures(options: argparse.Namespace, versions: dict[str, str], folder: Path) -> None:
    some = folder / "some"
    some.mkdir()
    with (some / "0.jsonl").open("w", encoding="utf-8") as file:
        for text in _read(folder / "jsonl")[: 4000 if options.quick else 20_000]:
            file.write(json.dumps({"text": text}) + "\n")
    print(f"{'MB/s':<14}{'1 thread':>12}{'2 threads':>12}{'penstock is':>22}")
    ours: list[float] = []
    for name in _contenders(SIGNERS, options, versions):
        speeds = []
        for threads in ("1", "2"):
            arguments = ["--worker", f"signatures:{name}", "--source", str(some)]
            arguments += ["--threads", threads, "--rounds", str(options.rounds)]
            answer = _ask(_python(name, options), *arguments)
            speeds.append(answer["bytes"] / answer["seconds"] / 1e6 if answer else float("nan"))
        ours = ours or speeds
        ratios = " and ".join(f"{a / b:.1f}x" for a, b in zip(ours, speeds, strict=True))
        print(f"{name:<14}{speeds[0]:>12.1f}{speeds[1]:>12.1f}{ratios:>22}")


def _labels(
    name: str, source: Path, folder: Path, options: argparse.Namespace
) -> tuple[Any, list[int]]:
    best: Any = None
    labels: list[int] = []
    for _ in range(options.rounds):
        output = folder / "output"
        output.mkdir()
        arguments = ["--worker", f"run:{name}", "--source", str(source), "--output", str(output)]
        answer = _ask(_python(name, options), *arguments)
        if answer:
            labels = json.loads((output / "clusters.json").read_text())
            if best is None or answer["seconds"] < best["seconds"]:
                best = answer
        shutil.rmtree(output)
    return best, labels


def _run(options: argparse.Namespace, versions: dict[str, str], folder: Path) -> None:
    source = folder / "jsonl"
    texts = _read(source)
    rng = random.Random(1)
    sample = sorted(rng.sample(range(len(texts)), min(options.sample, len(texts))))
    truth = true_pairs(texts, sample, _SIMILAR)
    print(f"{len(truth):,} true pairs of {len(sample):,} documents with any other")
    _judge(list(RUNNERS), source, truth, set(sample), options, versions)


def _accuracy(
    family: str, options: argparse.Namespace, versions: dict[str, str], folder: Path
) -> None:
    name, _, place = family.partition("=")
    if not Path(place).is_dir():
        print(f"{name}: there is no folder {place!r}: not judged")
        return
    source = folder / f"family-{name}"
    source.mkdir()
    paths = [path for path in sorted(Path(place).rglob("*")) if path.is_file()]
    texts = []
    for path in paths:
        data = path.read_bytes()
        if b"\0" not in data and len(data) < 2_000_000:
            texts.append(data.decode("utf-8", "replace"))
    for i in range(_SHARDS):
        with (source / f"{i}.jsonl").open("w", encoding="utf-8") as file:
            for k in range(i * len(texts) // _SHARDS, (i + 1) * len(texts) // _SHARDS):
                row = {"id": f"{k:07d}", "text": texts[k]}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    everyone = list(range(len(texts)))
    truth = true_pairs(texts, everyone, _SIMILAR)
    print(f"\n{name}: {len(texts):,} documents, {len(truth):,} true pairs")
    _judge(list(RUNNERS), source, truth, set(everyone), options, versions, texts)


def _judge(
    names: list[str],
    source: Path,
    truth: dict[tuple[int, int], float],
    sample: set[int],
    options: argparse.Namespace,
    versions: dict[str, str],
    texts: list[str] | None = None,
) -> None:
    """Run the contenders and print their time and what they found."""
    head = ("s", "dropped", "recall", "precision", "F1", "docs found", "docs right", "time ratio")
    print(f"{'':<16}" + "".join(f"{name:>11}" for name in head))
    alike = {row for pair in truth for row in pair if row in sample}
    first: float = 0.0
    found: dict[str, set[tuple[int, int]]] = {}
    for name in _contenders(names, options, versions):
        answer, labels = _labels(name, source, source.parent, options)
        if not answer:
            print(f"{name:<16} failed")
            continue
        first = first or answer["seconds"]
        found[name] = _pairs(labels, sample)
        hits = len(found[name] & truth.keys())
        recall, precision = hits / max(1, len(truth)), hits / max(1, len(found[name]))
        score = 2 * recall * precision / max(1e-9, recall + precision)
        dropped = len(labels) - len(set(labels))
        rows = {row for pair in found[name] for row in pair if row in sample}
        both = len(rows & alike)
        print(
            f"{name:<16}{answer['seconds']:>11.2f}{dropped:>11,}"
            f"{recall:>11.4f}{precision:>11.4f}{score:>11.4f}"
            f"{both / max(1, len(alike)):>11.4f}{both / max(1, len(rows)):>11.4f}"
            f"{answer['seconds'] / first:>10.1f}x",
            flush=True,
        )
    mine = found.get("penstock", set())
    for name, pairs in found.items():
        if not name.startswith("penstock"):
            missed = sorted(pairs & truth.keys() - mine)
            more = len(mine & truth.keys() - pairs)
            print(f"true pairs that {name} found and penstock did not: {len(missed)}", end="")
            print(f"; the other way round: {more}")
            for pair in missed[:3] if texts else []:
                print(f"    {pair}: {truth[pair]:.3f}, {texts and texts[pair[0]][:60]!r}")


def _pairs(labels: list[int], sample: set[int]) -> set[tuple[int, int]]:
    """Pairs in one cluster of which one at least is in the sample."""
    members = defaultdict(list)
    for row, label in enumerate(labels):
        members[label].append(row)
    return {
        (min(a, b), max(a, b))
        for cluster in members.values()
        if len(cluster) > 1
        for a in cluster
        if a in sample
        for b in cluster
        if a != b
    }


def true_pairs(
    texts: list[str], sample: list[int], threshold: float
) -> dict[tuple[int, int], float]:
    """Every pair of a sampled document with any other that is as similar, by an inverted index.

    Words are runs that one regular expression finds in the lower-cased text.
    """
    import numpy as np

    sets = []
    for text in texts:
        found = {hash(one) for one in _shingle_texts(text)} if _WORD.search(text) else set()
        sets.append(np.fromiter(found, np.int64, len(found)))
    sizes = np.array([len(one) for one in sets])
    rows = np.repeat(np.arange(len(sets)), sizes)
    flat = np.unique(np.concatenate(sets), return_inverse=True)[1]
    sets = np.split(flat, np.cumsum(sizes)[:-1])
    order = np.argsort(flat, kind="stable")
    postings, ends = rows[order], np.concatenate([[0], np.cumsum(np.bincount(flat))])
    pairs = {}
    for row in sample:
        if not sizes[row]:
            continue
        near = np.concatenate([postings[ends[one] : ends[one + 1]] for one in sets[row]])
        others, both = np.unique(near, return_counts=True)
        similarity = both / (sizes[row] + sizes[others] - both)
        for other, value in zip(others.tolist(), similarity.tolist(), strict=True):
            if value >= threshold and other != row:
                pairs[min(row, other), max(row, other)] = value
    return pairs


def _scale(options: argparse.Namespace) -> None:
    """Decide over signatures of which a fifth are versions of others."""
    import numpy as np
    import pyarrow as pa

    from penstock.decisions.near import MinHashDedup

    rng, num = np.random.default_rng(0), options.signatures
    data = rng.integers(0, 256, (num, 116), np.uint8)
    copies = np.arange(0, num, 5)
    data[copies] = data[rng.integers(0, num, len(copies))]
    changed = rng.random((len(copies), 112)) < rng.random((len(copies), 1)) * 0.3
    data[copies, 4:] ^= changed.astype(np.uint8)
    ids = pa.array(np.char.mod("document/%09d.txt", np.arange(num)))
    step = 250_000
    column = pa.chunked_array(
        [
            pa.Array.from_buffers(
                pa.binary(116), len(part), [None, pa.py_buffer(np.ascontiguousarray(part))]
            )
            for part in (data[i : i + step] for i in range(0, num, step))
        ]
    )
    del data
    for decision in (MinHashDedup(), MinHashDedup(threshold=0.8)):
        small = column.slice(0, 1000)
        decision.decide(pa.chunked_array([ids[:1000]]), small)  # compiled, or loaded
        before = _peak_bytes(reset=True)
        started, cpu = time.perf_counter(), time.process_time()
        table = decision.decide(pa.chunked_array([ids]), column)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        extra = _peak_bytes() - before
        print(
            f"{num:,} signatures, threshold {decision.threshold}: {took:.2f} s ({cpu:.2f} CPU), "
            f"{len(table):,} dropped, {extra / num:.0f} bytes a document beside the columns"
        )
    print(f"columns: {column.nbytes / num:.0f} bytes of signature, {ids.nbytes / num:.0f} of id")


def _peak_bytes(reset: bool = False) -> int:
    """Largest resident memory since the last reset; Linux only, elsewhere 0."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
