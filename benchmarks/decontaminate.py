"""Time and judge the search for evaluation items in a corpus, against datatrove.

    python benchmarks/decontaminate.py --eval-sets /path/to/sets
        --peer-python /path/to/python-with-datatrove

Both look for any run of 13 words of any item in texts that are in memory. datatrove's
NGramsDecontFilter runs as it does in a pipeline, a document at a time, over an index that
NGramsDecontIndexer's hashes fill; with 2 threads it gets 2 processes, for it holds the GIL. It is
told not to write every number as 0, by which tables of numbers match. The time is that of the
search; for Penstock with the decision over all documents.

The corpus is made of the text files of installed packages, cut into documents of about 5.8 kB
(the average of the corpus behind AI2 decon's figure, 34 us a document). In one document of 200
an item is planted: as it is, in capitals with other white space, without punctuation, or its
first half. Found: the planted documents that are found, of those where the plant has 13 words;
else: documents hit besides, which truly share a run of words with an item.

The folder of sets holds some of the files named in `SETS`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

RUN = 13
SETS = {
    "humaneval/HumanEval.jsonl": ("prompt", "canonical_solution"),
    "gsm8k/train.jsonl": ("question", "answer"),
    "gsm8k/test.jsonl": ("question", "answer"),
    "mbpp/mbpp.jsonl": ("text", "code"),
    "bbh/*.json": ("input",),
    "zero_shot_cot/AQuA/test.json": ("question", "options"),
    "zero_shot_cot/AddSub/AddSub.json": ("sQuestion",),
    "zero_shot_cot/CommonsenseQA/train_rand_split.jsonl": (
        "question.stem",
        "question.choices.text",
    ),
    "zero_shot_cot/CommonsenseQA/dev_rand_split.jsonl": ("question.stem", "question.choices.text"),
    "zero_shot_cot/MultiArith/MultiArith.json": ("sQuestion",),
    "zero_shot_cot/SVAMP/SVAMP.json": ("Body", "Question"),
    "zero_shot_cot/StrategyQA/task.json": ("input",),
}
_ENDINGS = {".py", ".pyi", ".pyx", ".txt", ".md", ".rst", ".html", ".h", ".hpp", ".c", ".js"}
_PLANTED = 200
_WORD = re.compile(r"\w+")


def main() -> None:
    options = _options()
    if options.worker:
        print(json.dumps(_search_datatrove(options)))
        return
    print_machine("pyarrow", "numba", "numpy")
    versions = peer_versions(options.peer_python, "datatrove", "spacy", "xxhash", "numpy")
    print(f"{'peers:':<11}" + ", ".join(f"{name} {value}" for name, value in versions.items()))
    started = time.perf_counter()
    decision = _decision(options)
    made = time.perf_counter() - started
    started = time.perf_counter()
    index = decision._index()
    print(
        f"{len(decision.against)} sets, {len(index.texts):,} items, {len(index.keys):,} runs; read "
        f"in {made:.1f} s, indexed and self-tested in {time.perf_counter() - started:.1f} s"
    )
    texts, plants = _corpus(options, index.texts)
    size = sum(len(text.encode()) for text in texts)
    print(
        f"{len(texts):,} documents, {size / len(texts):,.0f} bytes each, {len(plants):,} planted; "
        f"datatrove searches the first {options.peer_documents:,}"
    )
    print(f"{'':<16}{'us a document':>14}{'of CPU':>9}{'MB/s':>8}{'found':>14}{'else':>6}")
    ours: dict[int, list[float]] = {}
    for threads in (1, 2):
        seconds, hits = _search_penstock(decision, texts, threads, options.rounds)
        ours[threads] = [one / len(texts) for one in seconds]
        _print_row(f"penstock, {threads}", seconds, texts, hits, plants)
        some = {i for i in hits if i < options.peer_documents}
    if "datatrove" not in versions:
        print("datatrove is not installed there: no comparison")
        return
    _compare(options, texts, plants, index.texts, ours, some)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--eval-sets", type=Path, help="folder with evaluation sets")
    parser.add_argument("--peer-python", default=sys.executable, help="one that has datatrove")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--document-bytes", type=int, default=5800, help="their size, about")
    parser.add_argument("--peer-documents", type=int, default=2000, help="how many datatrove gets")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, the best counts")
    parser.add_argument("--quick", action="store_true", help="small and once, to see it work")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.documents, options.peer_documents, options.rounds = 2000, 400, 1
    if not options.worker and options.eval_sets is None:
        parser.error("--eval-sets is needed: a folder with evaluation sets")
    return options


def _decision(options: argparse.Namespace) -> Any:
    from penstock.decisions.decontaminate import Decontaminate
    from penstock.decisions.eval_sets import EvalSet

    sets = []
    for pattern, columns in SETS.items():
        for path in sorted(options.eval_sets.glob(pattern)):
            name = str(path.relative_to(options.eval_sets)).replace("/", "_")
            one = EvalSet(str(path), columns, name)
            if any(len(_WORD.findall(text)) >= RUN for text in one.read()):
                sets.append(one)
            else:
                print(f"{name} has no item of {RUN} words: left out")
    if not sets:
        raise SystemExit(f"{options.eval_sets} holds none of: {', '.join(SETS)}")
    # Like datatrove: every run counts, and items of fewer words are not looked for.
    return Decontaminate(against=tuple(sets), words=RUN, min_words=RUN, max_documents=None)


# The corpus


def _corpus(options: argparse.Namespace, items: list[str]) -> tuple[list[str], set[int]]:
    """Documents, and which of them hold a planted item of at least 13 words."""
    rng = random.Random(0)
    texts: list[str] = []
    for text in _files():
        texts += _pieces(text, options.document_bytes)
        if len(texts) >= options.documents * 2:
            break
    rng.shuffle(texts)
    texts = texts[: options.documents]
    plants = set()
    for i in range(0, len(texts), _PLANTED):
        plant = _changed(rng.choice(items), rng.randrange(4))
        at = texts[i].find("\n", len(texts[i]) // 2) + 1
        texts[i] = f"{texts[i][:at]}\n{plant}\n{texts[i][at:]}"
        if len(_WORD.findall(plant)) >= RUN:
            plants.add(i)
    return texts, plants


def _changed(item: str, how: int) -> str:
    if how == 1:
        return re.sub(r"\s+", "\n", item.upper())
    if how == 2:
        return re.sub(r"[.,;:?!]", "", item)
    return item[: len(item) // 2].rpartition(" ")[0] if how == 3 else item


def _files() -> Iterator[str]:
    for place in (Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib")):
        for path in sorted(place.rglob("*")):
            if path.suffix in _ENDINGS and path.is_file() and path.stat().st_size < 2_000_000:
                try:
                    text = path.read_text(encoding="utf-8")
                except (UnicodeDecodeError, OSError):
                    continue
                if "\0" not in text:
                    yield text


def _pieces(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text) - size, size):
        yield text[start : start + size]


# The search


def _search_penstock(
    decision: Any, texts: list[str], threads: int, rounds: int
) -> tuple[list[float], set[int]]:
    """Seconds, of the clock and of all processors, and the documents hit."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import pyarrow as pa

    column = pa.array(texts, pa.large_string())
    ids = pa.chunked_array([pa.array(np.char.mod("%09d", np.arange(len(texts))))])
    batches = [pa.record_batch({"text": column[i : i + 500]}) for i in range(0, len(texts), 500)]
    best = [float("inf")] * 2
    for _ in range(rounds):
        started = _clocks()
        with ThreadPoolExecutor(threads) as pool:
            signature = pa.chunked_array(list(pool.map(decision.signature, batches)))
        verdicts = decision.decide(ids, signature)
        best = [min(pair) for pair in zip(best, _since(started), strict=True)]
    return best, {int(name) for name in verdicts["doc_id"].to_pylist()}


def _search_datatrove(options: argparse.Namespace) -> dict[str, Any]:
    from datatrove.data import Document  # type: ignore[import-not-found, unused-ignore]
    from datatrove.pipeline.decont.n_grams import (  # type: ignore[import-not-found, unused-ignore]
        NGramsDecontConfig,
        NGramsDecontFilter,
        NGramsDecontIndexer,
    )
    from datatrove.utils.text import TextNormConfig  # type: ignore[import-not-found, unused-ignore]

    given = json.loads(Path(options.worker).read_text())
    config = NGramsDecontConfig(n_grams=RUN, norm_config=TextNormConfig(norm_numbers=False))
    NGramsDecontIndexer._requires_dependencies = []  # lighteval, which its hashes do not need
    search = NGramsDecontFilter(tempfile.gettempdir(), config)
    indexer = NGramsDecontIndexer(tempfile.gettempdir(), config=config)
    hashes = (found for item in given["items"] for found in indexer.compute_hashes(item))
    search._index_hashes = dict.fromkeys(hashes, "all")
    texts = given["texts"]
    search.filter(Document(text=texts[0], id="0"))
    started = _clocks()
    hits: list[int] = []
    children = []
    for part in range(options.threads):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            chosen = range(part, len(texts), options.threads)
            found = [
                i for i in chosen if search.filter(Document(text=texts[i], id=str(i))) is not True
            ]
            with os.fdopen(writer, "w") as file:
                file.write(json.dumps(found))
            os._exit(0)
        os.close(writer)
        children.append((child, reader))
    for child, reader in children:
        with os.fdopen(reader) as file:
            hits += json.loads(file.read())
        os.waitpid(child, 0)
    return {"seconds": _since(started), "hits": hits}


def _clocks() -> tuple[float, float]:
    """Seconds of the clock, and of all processors for this process and its children."""
    return time.perf_counter(), sum(os.times()[:4])


def _since(started: tuple[float, float]) -> list[float]:
    return [now - then for now, then in zip(_clocks(), started, strict=True)]


def _compare(
    options: argparse.Namespace,
    texts: list[str],
    plants: set[int],
    items: list[str],
    ours: dict[int, list[float]],
    our_hits: set[int],
) -> None:
    texts = texts[: options.peer_documents]
    plants = {i for i in plants if i < len(texts)}
    with tempfile.TemporaryDirectory(prefix="penstock-overlap-") as name:
        file = Path(name, "given.json")
        file.write_text(json.dumps({"texts": texts, "items": items}))
        for threads in (1, 2):
            command = [options.peer_python, __file__, "--worker", str(file)]
            command += ["--threads", str(threads)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            answer = json.loads(done.stdout.splitlines()[-1])
            hits = set(answer["hits"])
            _print_row(f"datatrove, {threads}", answer["seconds"], texts, hits, plants)
            pairs = zip(answer["seconds"], ours[threads], strict=True)
            wall, cpu = (theirs / len(texts) / our for theirs, our in pairs)
            print(f"{'':<16}penstock is {wall:.0f}x as fast, by CPU time {cpu:.0f}x")
    print(
        f"of these {len(texts):,} documents: both hit {len(hits & our_hits)}, penstock alone "
        f"{len(our_hits - hits)} ({len((our_hits - hits) & plants)} planted), datatrove alone "
        f"{len(hits - our_hits)} ({len((hits - our_hits) & plants)} planted)"
    )


def _print_row(
    name: str, seconds: list[float], texts: list[str], hits: set[int], plants: set[int]
) -> None:
    size = sum(len(text.encode()) for text in texts)
    found = f"{len(hits & plants)} of {len(plants)}"
    wall, cpu = (one / len(texts) * 1e6 for one in seconds)
    speed = size / seconds[0] / 1e6
    print(f"{name:<16}{wall:>14.1f}{cpu:>9.1f}{speed:>8.1f}{found:>14}{len(hits - plants):>6}")


if __name__ == "__main__":
    main()
