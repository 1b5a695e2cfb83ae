"""Time reading, decoding, normalising, hashing, exact dedup and writing, against datatrove.

    python benchmarks/ingest.py --peer-python /path/to/python-with-datatrove

Both systems get the same text and must keep the same documents. Each round runs
every contender once, in a process of its own, into an empty folder:

    penstock, JSON lines    Flow(Normalize, ExactDedup) into a fresh store, fsynced and published
    penstock, files         the same documents as a folder of files
    datatrove, JSON lines   2 tasks on 2 workers: read, the same normalisation written with
                            string operations in a step, exact dedup in its three stages,
                            Parquet with zstd

Both write text compressed by zstd at level 1, Penstock each document by itself,
datatrove a page of many. What they do not have in common is left as a user
would have it: Penstock fsyncs, hashes with 128 bits of SHA-256, and keeps the
duplicates, a verdict on each document and the raw bytes that normalising
changed. datatrove fsyncs nothing, hashes with 64 bits of xxHash, and keeps the
kept documents alone; for those it reads and normalises twice, as its stages
have no memory but files.

MB/s are of the documents' text in UTF-8, which is less than the bytes in the
JSON lines. `run` is from the call to its return, with the imports of each
system, `process` from start to end. Memory is the peak of what all processes
together occupy (PSS) during the run. A first small run of each contender is not
counted: it leaves behind compiled kernels and Python's bytecode, as any use on
the machine does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _machine import peer_versions, print_machine  # type: ignore[import-not-found, unused-ignore]

_SHARDS = 16
_ENDINGS = {".py", ".pyi", ".pyx", ".txt", ".md", ".rst", ".html", ".h", ".hpp", ".c", ".js"}
_DUPLICATE_SHARE = 0.04
_WARM_UP_DOCUMENTS = 2000


def main() -> None:
    options = _options()
    if options.worker:
        _worker(options.worker, Path(options.source), Path(options.output))
        return
    print_machine("pyarrow", "pylance", "numba")
    with tempfile.TemporaryDirectory(prefix="penstock-ingest-") as name:
        folder = Path(name)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        write_corpus(itertools.islice(_texts(options), _WARM_UP_DOCUMENTS), folder / "warm-up")
        corpus = write_corpus(_texts(options), folder / "corpus")
        contenders = _contenders(options)
        for contender in contenders:
            contender.run(folder / "warm-up", folder / "output")
            contender.forget()
        for _ in range(options.rounds):
            for contender in contenders:
                contender.run(folder / "corpus", folder / "output")
        _print_results(corpus, contenders)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of text files to make the corpus of; by default the running Python's "
        "standard library and installed packages",
    )
    parser.add_argument("--megabytes", type=int, default=300, help="size of the corpus")
    parser.add_argument(
        "--document-bytes",
        type=int,
        default=0,
        help="cut texts into documents of about this size, such as 3000 for web pages; "
        "by default a document is a file",
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender")
    parser.add_argument("--seed", type=int, default=0, help="of the variations and duplicates")
    parser.add_argument("--no-files", action="store_true", help="leave the folder of files out")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has datatrove"
    )
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--source", default="", help=argparse.SUPPRESS)
    parser.add_argument("--output", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


# The corpus


@dataclass(slots=True)
class Corpus:
    """What was written: number of documents, their text in bytes, and how many are copies."""

    documents: int = 0
    text_bytes: int = 0
    copies: int = 0


def _texts(options: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    """Texts up to the wanted size, and whether each is a copy of an earlier one.

    When the files are used up they come again, each with another first line.
    """
    rng = random.Random(options.seed)
    files = _text_files(options.folder)
    left = options.megabytes * 1_000_000
    again = 0
    while left > 0:
        for path in files:
            for text in _pieces(path.read_text(encoding="utf-8"), options.document_bytes):
                if again:
                    text = f"# Edition {again} of {path.name}\n{text}"
                text = _varied(text, rng)
                copies = 1 + (rng.random() < _DUPLICATE_SHARE)
                for copy in range(copies):
                    yield text, copy > 0
                    left -= len(text.encode())
                if left <= 0:
                    return
        again += 1


def _pieces(text: str, size: int) -> Iterator[str]:
    """The text cut at line ends into pieces of at least `size` characters; whole if it is 0."""
    start = 0
    while size and len(text) - start > 2 * size:
        end = text.find("\n", start + size) + 1
        if end == 0:
            break
        if text[start:end].strip():
            yield text[start:end]
        start = end
    if text[start:].strip():
        yield text[start:]


def _text_files(folder: Path | None) -> list[Path]:
    """Files with text in UTF-8, of at least a few words, in a fixed order."""
    folders = [folder] if folder else [Path(sysconfig.get_path(n)) for n in ("stdlib", "purelib")]
    found = []
    for place in folders:
        for path in sorted(place.rglob("*")):
            if (folder is None and path.suffix not in _ENDINGS) or not path.is_file():
                continue
            data = path.read_bytes()
            if 200 <= len(data) <= 2_000_000 and _is_plain(data):
                found.append(path)
    if not found:
        raise SystemExit(f"no text files in {folders}")
    return found


def _is_plain(data: bytes) -> bool:
    """Whether these bytes are text in UTF-8 beyond doubt, so that nobody refuses them."""
    if b"\0" in data or len(data.translate(None, _ASCII_CONTROLS)) < 0.99 * len(data):
        return False
    try:
        return bool(data.decode().strip())
    except UnicodeDecodeError:
        return False


def _varied(text: str, rng: random.Random) -> str:
    """Now and then what a normaliser is for: CRLF, trailing blanks, a mark, split accents."""
    chance = rng.random()
    if chance < 0.03:
        return text.replace("\n", "\r\n")
    if chance < 0.06:
        return text.replace("\n", "  \n") + "\n\n"
    if chance < 0.07:
        return "\ufeff" + text
    if chance < 0.08:
        return text.replace("e", "e\u0301", 5)
    return text


def write_corpus(texts: Iterator[tuple[str, bool]], folder: Path) -> Corpus:
    """The texts as JSON lines in `jsonl/` and as files in `files/`."""
    corpus = Corpus()
    (folder / "jsonl").mkdir(parents=True)
    shards = [(folder / f"jsonl/{i:03d}.jsonl").open("w", encoding="utf-8") for i in range(_SHARDS)]
    for number, (text, is_copy) in enumerate(texts):
        name = f"{number % 97:02d}/{number:06d}.txt"
        row = json.dumps({"id": name, "text": text}, ensure_ascii=False)
        shards[number % _SHARDS].write(row + "\n")
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        path.write_bytes(data)
        corpus.documents += 1
        corpus.text_bytes += len(data)
        corpus.copies += is_copy
    for shard in shards:
        shard.close()
    return corpus


# The contenders


@dataclass(slots=True)
class Contender:
    """One system on one form of the corpus (`jsonl` or `files`), and what its runs measured."""

    name: str
    python: str
    worker: str
    form: str
    run_s: list[float] = field(default_factory=list)
    process_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    kept: tuple[int, int] = (0, 0)
    written_bytes: int = 0
    detail: str = ""

    def run(self, corpus: Path, output: Path) -> None:
        """One run in a process of its own, into an empty folder."""
        output.mkdir()
        command = [self.python, __file__, "--worker", self.worker]
        command += ["--source", str(corpus / self.form), "--output", str(output)]
        started = time.perf_counter()
        errors = output.with_name("errors.txt")
        with (
            errors.open("w") as stderr,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ):
            watch = _Memory(process.pid)
            assert process.stdout is not None
            measured = json.loads(process.stdout.readline() or "null")
            self.peak_bytes.append(watch.stop())  # the check that follows takes more
            checked = json.loads(process.stdout.readline() or "null")
            process.wait()
        if checked is None:
            raise SystemExit(f"{self.name} failed:\n{errors.read_text()[-2000:]}")
        answer = measured | checked
        self.process_s.append(time.perf_counter() - started - answer["checked_s"])
        self.run_s.append(answer["run_s"])
        self.cpu_s.append(answer["cpu_s"])
        self.kept = (answer["kept"], answer["kept_bytes"])
        self.detail = answer["detail"]
        self.written_bytes = sum(p.stat().st_size for p in output.rglob("*") if p.is_file())
        shutil.rmtree(output)

    def forget(self) -> None:
        """Drop what the runs so far measured."""
        for figures in (self.run_s, self.process_s, self.cpu_s, self.peak_bytes):
            figures.clear()


class _Memory:
    """The largest memory of a process and its children, looked at ten times a second.

    PSS counts a page that two processes share once, so that a forked worker is
    not charged for what it inherited. Linux only; elsewhere it says 0.
    """

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._ended = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        """End the watch; peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._peak = max(self._peak, sum(map(_pss, _family(self._pid))))


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        for task in tasks:
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _family(int(child))
    except OSError:  # it ended meanwhile
        return


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _contenders(options: argparse.Namespace) -> list[Contender]:
    chosen = [Contender("Penstock, JSON lines", sys.executable, "penstock-jsonl", "jsonl")]
    if not options.no_files:
        chosen.append(Contender("Penstock, files", sys.executable, "penstock-files", "files"))
    versions = peer_versions(options.peer_python, "datatrove", "orjson", "xxhash", "zstandard")
    print(f"{'peer:':<11}" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    if "datatrove" in versions:
        peer = options.peer_python
        chosen.append(Contender("datatrove, JSON lines", peer, "datatrove", "jsonl"))
    else:
        print("datatrove is not installed there: no comparison")
    return chosen


def _print_results(corpus: Corpus, contenders: list[Contender]) -> None:
    size = corpus.text_bytes / 1e6
    print(
        f"\n{corpus.documents:,} documents, {size:.0f} MB of text, "
        f"{corpus.copies / corpus.documents:.1%} of them copies\n"
    )
    head = ("best, s", "median, s", "MB/s best", "MB/s median", "process, s", "CPU, s", "peak, MB")
    print(f"{'':<23}" + "".join(f"{title:>13}" for title in head) + f"{'written, MB':>13}")
    for c in contenders:
        best, median = min(c.run_s), statistics.median(c.run_s)
        cells = [f"{best:.2f}", f"{median:.2f}", f"{size / best:.0f}", f"{size / median:.0f}"]
        cells += [f"{statistics.median(c.process_s):.2f}", f"{statistics.median(c.cpu_s):.2f}"]
        cells += [f"{max(c.peak_bytes) / 1e6:.0f}", f"{c.written_bytes / 1e6:.0f}"]
        print(f"{c.name:<23}" + "".join(f"{cell:>13}" for cell in cells))
    for c in contenders:
        print(f"{c.name:<23}kept {c.kept[0]:,} documents, {c.kept[1]:,} bytes. {c.detail}")
    if len({c.kept for c in contenders}) > 1:
        raise SystemExit("the contenders did not keep the same documents: no comparison")
    ours, peer = contenders[0], contenders[-1]
    if peer.worker == "datatrove":
        best = min(peer.run_s) / min(ours.run_s)
        median = statistics.median(peer.run_s) / statistics.median(ours.run_s)
        cpu = statistics.median(peer.cpu_s) / statistics.median(ours.cpu_s)
        print(
            f"\nPenstock is {best:.1f}x datatrove by the best run, {median:.1f}x by the median, "
            f"{cpu:.1f}x by CPU time, which other work on the machine disturbs least."
        )
    print("Aim: at least 100 MB/s on 2 cores, and 10x datatrove.")


# What a contender's process runs


def _worker(name: str, source: Path, output: Path) -> None:
    measure = _run_datatrove if name == "datatrove" else _run_penstock
    started = time.perf_counter()
    detail = measure(name, source, output)
    run_s = time.perf_counter() - started
    cpu_s = sum(os.times()[:4])  # with the children that have ended
    print(json.dumps({"run_s": run_s, "cpu_s": cpu_s, "detail": detail}), flush=True)
    started = time.perf_counter()
    kept, kept_bytes = (_kept_datatrove if name == "datatrove" else _kept_penstock)(output)
    checked_s = time.perf_counter() - started
    print(json.dumps({"kept": kept, "kept_bytes": kept_bytes, "checked_s": checked_s}), flush=True)


def _run_penstock(name: str, source: Path, output: Path) -> str:
    import penstock as ps

    read = ps.files(source) if name.endswith("files") else ps.jsonl(source, id="id", text="text")
    report = ps.Flow(source=read, steps=[ps.Normalize(), ps.ExactDedup()]).run(output / "store")
    assert report.failures == 0, f"{report.failures} documents failed"
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in report.seconds.items())
    return f"Seconds: {phases}. {report.bottleneck}"


def _kept_penstock(output: Path) -> tuple[int, int]:
    import pyarrow.compute as pc

    import penstock as ps

    store = ps.Store.open(output / "store")
    verdicts = store.verdicts(columns=["doc_id", "verdict"])
    kept = verdicts.filter(pc.equal(verdicts["verdict"], "kept"))["doc_id"]
    documents = store.documents(columns=["doc_id", "text"])
    texts = documents.filter(pc.is_in(documents["doc_id"], value_set=kept.combine_chunks()))["text"]
    return len(texts), int(pc.sum(pc.binary_length(texts)).as_py())


def _run_datatrove(name: str, source: Path, output: Path) -> str:
    """Its exact dedup is three pipelines; the last reads and normalises once more."""
    from datatrove.executor import (  # type: ignore[import-not-found, unused-ignore]
        LocalPipelineExecutor,
    )
    from datatrove.pipeline.dedup import (  # type: ignore[import-not-found, unused-ignore]
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.readers import (  # type: ignore[import-not-found, unused-ignore]
        JsonlReader,
    )
    from datatrove.pipeline.writers import (  # type: ignore[import-not-found, unused-ignore]
        ParquetWriter,
    )

    config = ExactDedupConfig(content_getter=_content)
    signatures, found = str(output / "signatures"), str(output / "duplicates")
    read = [JsonlReader(str(source), compression=None), _normalized]
    # Parquet took it a third less CPU time than JSON lines with the same compression.
    write = ParquetWriter(str(output / "kept"), compression="zstd")
    pipelines = [
        [*read, ExactDedupSignature(signatures, config, finder_workers=2)],
        [ExactFindDedups(signatures, found, config, lines_to_buffer=1000)],
        [*read, ExactDedupFilter(found, config), write],
    ]
    seconds = []
    for number, pipeline in enumerate(pipelines):
        logs = str(output / "logs" / str(number))
        started = time.perf_counter()
        # Forked workers have their imports already, which its default has not.
        LocalPipelineExecutor(
            pipeline, tasks=2, workers=2, logging_dir=logs, start_method="fork"
        ).run()
        seconds.append(f"{time.perf_counter() - started:.2f}")
    return "Seconds: " + ", ".join(seconds) + "."


def _content(document: Any) -> bytes:
    return bytes(document.text, "utf-8")  # newer versions of xxhash take bytes only


def _normalized(data: Any, rank: int = 0, world_size: int = 1) -> Any:
    """A step of datatrove's that does what `Normalize` does, as fast as Python's strings go."""
    for document in data:
        document.text = _normalize(document.text)
        yield document


_ASCII_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r")) + b"\x7f"
_OTHER_CONTROLS = re.compile("[\x80-\x84\x86-\x9f\ufeff]+")
_OTHER_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _normalize(text: str) -> str:
    """Each part looks first, in C, whether there is anything for it to do.

    Deleting from bytes is ten times as fast as a regular expression over the text.
    """
    data = text.encode().translate(None, _ASCII_CONTROLS)
    text = data.decode()
    is_ascii = text.isascii()
    if b"\xc2" in data or b"\xef\xbb\xbf" in data:
        text = _OTHER_CONTROLS.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if b"\xc2\x85" in data or b"\xe2\x80" in data:
        text = _OTHER_LINE_ENDS.sub("\n", text)
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    body = text.rstrip(" \t\n")
    if len(body) < len(text):
        text = f"{body}\n" if body and "\n" in text[len(body) :] else body
    return text if is_ascii else unicodedata.normalize("NFC", text)


def _kept_datatrove(output: Path) -> tuple[int, int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    texts = pq.read_table(output / "kept", columns=["text"])["text"]
    return len(texts), int(pc.sum(pc.binary_length(texts)).as_py())


if __name__ == "__main__":
    main()
