"""Quality filters: Penstock's against datatrove's, for speed and for the same verdicts.

Documents are text files of this machine, cut at line ends. The chain is that of
FineWeb: Gopher's repetition and quality rules, C4's without its rule about
terminal punctuation, FineWeb's own. Both sides hold the documents in memory and
are timed from the first filter to the last verdict: Penstock with two threads,
which compute the counts of every document for every filter, and one pass of
decisions over all; datatrove with two processes of half the documents each,
where a filter sees what the one before it kept. Imports, loading and compiling
are not timed. Both must keep the same documents with the same text, but for
`--tolerance`.

    python benchmarks/quality.py --peer-python PEER            speed of the chain
    python benchmarks/quality.py --peer-python PEER --agreement verdicts filter by filter

PEER is an interpreter with datatrove and spacy installed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

_ENDINGS = {".py", ".pyi", ".txt", ".md", ".rst", ".html", ".h", ".c", ".js", ".json", ".po", ""}
_BATCH = 256


def main() -> None:
    options = _options()
    if options.worker:
        _peer(options.worker, options.agreement, options.tasks)
        return
    print_machine("pyarrow", "numba")
    versions = peer_versions(options.peer_python, "datatrove", "spacy", "numpy")
    print(f"{'peer:':<11}" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    texts = _texts(options)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{'documents:':<11}{len(texts):,}, {size:.1f} MB of text\n")
    with tempfile.TemporaryDirectory(prefix="penstock-quality-") as name:
        corpus = Path(name) / "texts.json"
        corpus.write_text(json.dumps(texts))
        if options.agreement:
            _print_agreement(texts, size, _ask(options, corpus))
        else:
            _print_speed(options, texts, size, corpus)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        action="append",
        help="folder of text files, may be given several times; by default the running "
        "Python's standard library and installed packages, and /usr/share/doc",
    )
    parser.add_argument("--documents", type=int, default=10_000, help="how many")
    parser.add_argument("--document-bytes", type=int, default=6000, help="largest size of one")
    parser.add_argument("--tasks", type=int, default=2, help="threads and processes")
    parser.add_argument("--rounds", type=int, default=3, help="runs; the best counts")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of files")
    parser.add_argument("--tolerance", type=float, default=0.005, help="share that may differ")
    parser.add_argument("--agreement", action="store_true", help="compare verdicts by filter")
    parser.add_argument("--quick", action="store_true", help="500 documents, one round")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has datatrove"
    )
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.documents, options.rounds = 500, 1
    return options


def _texts(options: argparse.Namespace) -> list[str]:
    """Pieces of text files, at most so many and so long, in an order that the seed picks."""
    places = [sysconfig.get_path(name) for name in ("stdlib", "purelib")] + ["/usr/share/doc"]
    folders = options.folder or [Path(place) for place in places]
    paths = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _ENDINGS and path.is_file() and path.stat().st_size < 2_000_000
    ]
    random.Random(options.seed).shuffle(paths)
    texts: list[str] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            continue
        start = 0
        # A few pieces of each file, so that no large one fills the corpus.
        for _ in range(4):
            end = text.rfind("\n", start, start + options.document_bytes) + 1
            piece = text[start : end or start + options.document_bytes]
            if piece.strip():
                texts.append(piece)
            start += max(len(piece), 1)
        if len(texts) >= options.documents:
            break
    return texts[: options.documents]


# Penstock


def _filters() -> dict[str, Any]:
    from penstock.decisions.c4 import C4Quality
    from penstock.decisions.fineweb import FineWebQuality
    from penstock.decisions.gopher import GopherQuality, GopherRepetition
    from penstock.steps.c4_lines import C4Lines

    return {
        "gopher_repetition": GopherRepetition(),
        "gopher_quality": GopherQuality(),
        "c4_quality": C4Quality(),
        "c4_quality, any end": C4Quality(lines=C4Lines(must_end=False)),
        "fineweb_quality": FineWebQuality(),
    }


def _batches(texts: list[str]) -> list[Any]:
    import pyarrow as pa

    ids = pa.array([f"{i:08d}" for i in range(len(texts))])
    column = pa.array(texts, pa.large_string())
    whole = pa.record_batch({"doc_id": ids, "text": column})
    return [whole.slice(i, _BATCH) for i in range(0, len(texts), _BATCH)]


def _chain(texts: list[str], tasks: int) -> tuple[float, float, dict[int, str]]:
    """Wall and CPU seconds of the chain, and what it kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    filters = _filters()
    quality = filters["c4_quality, any end"]
    chain = [filters["gopher_repetition"], filters["gopher_quality"], quality]
    chain += [quality.lines, filters["fineweb_quality"]]

    def signatures(batch: Any) -> tuple[Any, list[Any]]:
        found = []
        for step in chain:
            if hasattr(step, "apply"):
                batch = step.apply(batch)
            else:
                found.append(step.signature(batch))
        return batch, found

    batches = _batches(texts)
    signatures(batches[0].slice(0, 2))
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(tasks) as pool:
        done = list(pool.map(signatures, batches))
    table = pa.Table.from_batches([batch for batch, _ in done])
    decisions = [step for step in chain if hasattr(step, "decide")]
    for number in range(len(decisions)):
        table = table.append_column(
            str(number), pa.chunked_array([found[number] for _, found in done])
        )
    for number, step in enumerate(decisions):
        gone = step.decide(table["doc_id"], table[str(number)])["doc_id"].combine_chunks()
        table = table.filter(pc.invert(pc.is_in(table["doc_id"], value_set=gone)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    ids = [int(name) for name in table["doc_id"].to_pylist()]
    return wall, cpu, dict(zip(ids, table["text"].to_pylist(), strict=True))


def _verdicts(step: Any, texts: list[str]) -> tuple[float, list[str | None], list[str] | None]:
    """CPU seconds of one filter, its rule for each document, and the texts if it edits them."""
    import pyarrow as pa

    from penstock.decisions import _words

    batches = _batches(texts)
    step.signature(batches[0].slice(0, 2))
    _words.forget()
    cpu = time.process_time()
    signature = pa.chunked_array([step.signature(batch) for batch in batches])
    ids = pa.chunked_array([batch["doc_id"] for batch in batches])
    gone = step.decide(ids, signature)
    cpu = time.process_time() - cpu
    rules = dict(zip(gone["doc_id"].to_pylist(), gone["rule"].to_pylist(), strict=True))
    told = [rules.get(name) for name in ids.to_pylist()]
    edited = None
    if hasattr(step, "lines"):
        edited = [text for b in batches for text in step.lines.apply(b)["text"].to_pylist()]
    return cpu, told, edited


# The results


def _print_speed(options: argparse.Namespace, texts: list[str], size: float, corpus: Path) -> None:
    ours = [_chain(texts, options.tasks) for _ in range(options.rounds)]
    answer = _ask(options, corpus)
    wall, cpu = min(run[0] for run in ours), min(run[1] for run in ours)
    kept, peer_kept = ours[0][2], {int(i): text for i, text in answer["kept"].items()}
    print(f"{'':<12}{'seconds':>10}{'MB/s':>10}{'CPU, s':>10}{'kept':>10}")
    print(f"{'Penstock':<12}{wall:>10.2f}{size / wall:>10.1f}{cpu:>10.2f}{len(kept):>10,}")
    peer_wall, peer_cpu = answer["wall_s"], answer["cpu_s"]
    line = f"{peer_wall:>10.2f}{size / peer_wall:>10.2f}{peer_cpu:>10.2f}{len(peer_kept):>10,}"
    print(f"{'datatrove':<12}{line}")
    wrong = set(kept) ^ set(peer_kept)
    edits = sum(kept[i] != peer_kept[i] for i in set(kept) & set(peer_kept))
    print(f"\n{len(wrong)} documents are kept by one only; {edits} have another text.")
    if len(wrong) + edits > options.tolerance * len(texts):
        raise SystemExit("the two do not do the same: no comparison")
    print(f"Penstock is {peer_wall / wall:.0f}x datatrove, {peer_cpu / cpu:.0f}x by CPU time.")
    print("Aim: at least 10x.")


def _print_agreement(texts: list[str], size: float, answer: dict[str, Any]) -> None:
    print(f"{'':<22}{'same verdict':>14}{'differ':>8}{'ours, MB/s':>12}{'theirs':>9}{'dropped':>9}")
    for name, step in _filters().items():
        cpu, told, edited = _verdicts(step, texts)
        peer = answer["filters"][name]
        wrong = [i for i, rule in enumerate(told) if (rule is None) != peer["kept"][i]]
        share = 1 - len(wrong) / len(texts)
        dropped = sum(rule is not None for rule in told)
        print(
            f"{name:<22}{share:>14.3%}{len(wrong):>8}{size / cpu:>12.1f}"
            f"{size / peer['cpu_s']:>9.2f}{dropped:>9,}"
        )
        reasons = Counter(zip(told, peer["reason"], strict=True))
        for (ours, theirs), count in sorted(reasons.items(), key=lambda item: -item[1]):
            print(f"    {count:>7,}  {(ours or 'kept'):<44}{theirs or 'kept'}")
        if edited is not None:
            both = [i for i, rule in enumerate(told) if rule is None and peer["kept"][i]]
            differ = sum(edited[i] != peer["text"][i] for i in both)
            print(f"    {differ} of {len(both)} kept texts differ after the removal of lines")


# The peer


def _ask(options: argparse.Namespace, corpus: Path) -> dict[str, Any]:
    command = [options.peer_python, __file__, "--worker", str(corpus)]
    command += ["--tasks", str(options.tasks), *(["--agreement"] * options.agreement)]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise SystemExit(f"the peer failed:\n{asked.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return answer


def _peer(corpus: str, agreement: bool, tasks: int) -> None:
    texts = json.loads(Path(corpus).read_text())
    if agreement:
        answer: dict[str, Any] = {"filters": _peer_filters(texts)}
    else:
        from multiprocessing import Barrier, Pool

        parts = [list(enumerate(texts))[part::tasks] for part in range(tasks)]
        barrier = Barrier(tasks)
        with Pool(tasks, initializer=_remember, initargs=(barrier,)) as pool:
            done = pool.map(_peer_chain, parts, chunksize=1)
        kept = {i: text for part in done for i, text in part[2]}
        wall, cpu = max(part[0] for part in done), sum(part[1] for part in done)
        answer = {"wall_s": wall, "cpu_s": cpu, "kept": kept}
    print(json.dumps(answer))


_start: Any = None


def _remember(barrier: Any) -> None:
    global _start
    _start = barrier


def _made(names: list[str]) -> list[Any]:
    from datatrove.pipeline.filters import (  # type: ignore[import-not-found, unused-ignore]
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    makers = {
        "gopher_repetition": GopherRepetitionFilter,
        "gopher_quality": GopherQualityFilter,
        "c4_quality": C4QualityFilter,
        "c4_quality, any end": lambda: C4QualityFilter(filter_no_terminal_punct=False),
        "fineweb_quality": FineWebQualityFilter,
    }
    return [makers[name]() for name in names]


def _peer_chain(part: list[tuple[int, str]]) -> tuple[float, float, list[tuple[int, str]]]:
    from datatrove.data import Document  # type: ignore[import-not-found, unused-ignore]

    names = ["gopher_repetition", "gopher_quality", "c4_quality, any end", "fineweb_quality"]
    filters = _made(names)
    documents = [Document(text=text, id=str(i)) for i, text in part]
    warm = Document(text="One line is enough. Is it?\n" * 3, id="warm")
    for step in filters:
        step.filter(warm)
    _start.wait()  # so that both are measured beside each other
    wall, cpu = time.perf_counter(), time.process_time()
    kept = [
        (int(document.id), document.text)
        for document in documents
        if all(_keeps(step, document)[0] for step in filters)
    ]
    return time.perf_counter() - wall, time.process_time() - cpu, kept


def _peer_filters(texts: list[str]) -> dict[str, Any]:
    from datatrove.data import Document

    answer: dict[str, Any] = {}
    for name in _filters_by_name():
        (step,) = _made([name])
        documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
        cpu = time.process_time()
        told = [_keeps(step, document) for document in documents]
        cpu = time.process_time() - cpu
        answer[name] = {
            "cpu_s": cpu,
            "kept": [keeps for keeps, _ in told],
            "reason": [reason for _, reason in told],
            "text": [document.text for document in documents],
        }
    return answer


def _filters_by_name() -> list[str]:
    names = ["gopher_repetition", "gopher_quality", "c4_quality", "c4_quality, any end"]
    return [*names, "fineweb_quality"]


def _keeps(step: Any, document: Any) -> tuple[bool, str | None]:
    try:
        verdict = step.filter(document)
    except ZeroDivisionError:
        return False, "division by zero"
    return verdict if isinstance(verdict, tuple) else (bool(verdict), None)


if __name__ == "__main__":
    main()
