"""The data of `search.py`: real chunks and vectors, questions, filters and exact answers.

Everything is made from the text files of the machine, so that anyone can make
it: a corpus of documents, a Penstock store of their chunks, and beside it the
same rows in plain files that every contender reads.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

F32 = npt.NDArray[np.float32]

K = 10
"""Hits wanted of every search."""

_ENDINGS = {".py", ".pyi", ".md", ".rst", ".txt", ".h"}
_BYTES_PER_CHUNK = 330
_LOTS = 1_000_000
_SEED = 0
_DOCSTRING = re.compile(r'(?:"""|\'\'\')\s*([A-Z][^"\'\n`<>|=:{}\[\]\\.]{15,120}?)[.!?](?:\s|""")')
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A condition on one column, and what it leaves.

    Attributes:
        name: Such as ``"10 %"``.
        column: `lot` (an integer drawn per document) or `extension`.
        values: One per query: rows with `lot` below it, or with this extension. All are
            the same but for "new each time", which no cache can answer.
        share: Of the rows that satisfy it.
    """

    name: str
    column: str
    values: list[Any]
    share: float


class Data:
    """The files that `prepare` made, as contenders read them.

    Attributes:
        folder: Where they are.
        rows: One row per chunk: `id` (its place), `chunk_id`, `doc_id`, `text`, `extension`, `lot`.
        vectors: (num_rows, dim) float32, rows of length 1.
        queries: Texts of the questions, first those to tune with, then those to measure with.
        query_vectors: (num_queries, dim) float32.
        answers: Per query, the documents in which its text was found.
        num_tune: How many are for tuning only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with pa.memory_map(str(folder / "rows.arrow")) as source:
            self.rows: pa.Table = pa.ipc.open_file(source).read_all()
        self.vectors: F32 = np.load(folder / "vectors.npy", mmap_mode="r")
        self.query_vectors: F32 = np.load(folder / "query_vectors.npy")
        facts = json.loads((folder / "queries.json").read_text())
        self.queries: list[str] = facts["queries"]
        self.answers: list[str] = facts["answers"]
        self.num_tune: int = facts["num_tune"]
        self.filters = {value["name"]: Filter(**value) for value in facts["filters"]}
        self.tenth_scores = np.load(folder / "tenth_scores.npz")

    @property
    def num_rows(self) -> int:
        return int(self.rows.num_rows)

    def allowed(self, where: tuple[str, Any] | None) -> npt.NDArray[np.bool_] | None:
        """Which rows a condition leaves."""
        return None if where is None else _mask(self.rows, *where)

    def revised(self, num_batches: int, size: int) -> Iterator[pa.Table]:
        """Batches of rows to replace, each with a new text and a new vector in `vector`."""
        rng = np.random.default_rng(_SEED)
        places = rng.permutation(self.num_rows)[: num_batches * size].reshape(num_batches, size)
        for number, batch in enumerate(places):
            rows = self.rows.take(np.sort(batch))
            noise = rng.standard_normal((len(batch), self.vectors.shape[1])).astype(np.float32)
            vectors = self.vectors[np.sort(batch)] + 0.05 * noise
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            texts = [f"Revised in batch {number}. {text}" for text in rows["text"].to_pylist()]
            rows = rows.set_column(rows.schema.get_field_index("text"), "text", pa.array(texts))
            yield rows.append_column("vector", vector_column(vectors))


def vector_column(vectors: F32) -> pa.FixedSizeListArray:
    """Vectors as a column of Arrow."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _mask(rows: pa.Table, column: str, value: Any) -> npt.NDArray[np.bool_]:
    compare = pc.less if column == "lot" else pc.equal
    return np.asarray(compare(rows[column], value).to_numpy(zero_copy_only=False), bool)


# Making them; what follows needs Penstock


def prepare(
    folder: Path, num_chunks: int, num_queries: tuple[int, int], source_store: Path | None
) -> Data:
    """The data in this folder, made if it is not there.

    Args:
        folder: Where to keep it: `corpus`, `store` and the plain files.
        num_chunks: About how many chunks.
        num_queries: Questions to tune with, and to measure with.
        source_store: A store to take documents (and embeddings) from.

    Cost: without a store, embedding: 15 minutes for 200,000 chunks on two cores.
    """
    if not (folder / "finished").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "corpus").exists():
            _write_corpus(folder, num_chunks, source_store)
        build_store(folder / "corpus", folder / "store", progress="plain")
        _export(folder, num_queries)
        (folder / "finished").touch()
    return Data(folder)


def build_store(corpus: Path, store: Path, progress: Any = "none") -> Any:
    """One run of the flow that the whole benchmark uses; the run's report."""
    import penstock as ps

    steps: Any = [
        ps.Normalize(),
        ps.ExactDedup(),
        ps.Chunk(max_tokens=128, overlap_tokens=16),
        ps.Embed(precision="int8"),
    ]
    source = ps.parquet(corpus, id="id", metadata=["extension", "lot"])
    return ps.Flow(source=source, steps=steps).run(store, progress=progress)


def _write_corpus(folder: Path, num_chunks: int, source_store: Path | None) -> None:
    """Documents of about that many chunks, with two attributes to filter by."""
    if source_store is None:
        documents = _take(_local_documents(), num_chunks * _BYTES_PER_CHUNK)
    else:
        documents = _stored_documents(source_store, num_chunks)
        # Its chunks keep their embeddings where they are cut alike.
        shutil.copytree(source_store, folder / "store", dirs_exist_ok=True)
    rng = random.Random(_SEED)
    unfinished = folder / "corpus-unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    for number, (name, text) in enumerate(documents):
        path = unfinished / f"{number % 64:02d}" / f"{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_document(path, name, text, rng.randrange(_LOTS))
    unfinished.rename(folder / "corpus")


def write_document(path: Path, name: str, text: str, lot: int) -> None:
    """A document in a file of its own, so that a change of it is one of nothing else."""
    extension = name.rsplit(".", 1)[-1].lower()
    row = {"id": name, "text": text, "extension": extension, "lot": lot}
    pq.write_table(pa.Table.from_pylist([row]), path)


def _local_documents() -> list[tuple[str, str]]:
    """Text files of the standard library, of installed packages and of the system's manuals."""
    places = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    found: dict[str, str] = {}
    for place in [*places, Path("/usr/share/doc")]:
        for path in sorted(place.rglob("*")):
            if path.suffix not in _ENDINGS or path.is_symlink() or not path.is_file():
                continue
            if 200 <= path.stat().st_size <= 400_000:
                try:
                    found.setdefault(path.read_text("utf-8"), str(path))
                except UnicodeDecodeError:
                    continue
    documents = [(name, text) for text, name in found.items()]
    random.Random(_SEED).shuffle(documents)
    return documents


def _stored_documents(path: Path, num_chunks: int) -> list[tuple[str, str]]:
    import penstock as ps

    store = ps.Store.open(path)
    owners = store.dataset("chunks").to_table(columns=["doc_id"])["doc_id"].combine_chunks()
    counts = {pair["values"]: pair["counts"] for pair in owners.value_counts().to_pylist()}
    texts = store.documents(["doc_id", "text"])
    documents = [
        pair for pair in zip(*texts.to_pydict().values(), strict=True) if pair[0] in counts
    ]
    random.Random(_SEED).shuffle(documents)
    wanted = itertools.takewhile(
        lambda total: total < num_chunks,
        itertools.accumulate((counts[name] for name, _ in documents), initial=0),
    )
    return sorted(documents[: sum(1 for _ in wanted)])


def _take(documents: list[tuple[str, str]], num_bytes: int) -> list[tuple[str, str]]:
    sizes = itertools.accumulate((len(text.encode()) for _, text in documents), initial=0)
    chosen = documents[: sum(1 for _ in itertools.takewhile(lambda size: size < num_bytes, sizes))]
    if sum(len(text.encode()) for _, text in chosen) < num_bytes:
        print("this machine has less text than asked for; all of it is used")
    return sorted(chosen)


def _export(folder: Path, num_queries: tuple[int, int]) -> None:
    """Write the store's chunks, and the questions, for contenders that know no Penstock."""
    import penstock as ps
    from penstock.models import open_encoder

    store = ps.Store.open(folder / "store")
    columns = ["chunk_id", "doc_id", "heading_path", "text", "embedding", "metadata"]
    table = store.dataset("chunks").to_table(columns=columns).sort_by("chunk_id")
    embedding = table["embedding"].combine_chunks()
    dim = embedding.type.list_size
    vectors = embedding.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    np.save(folder / "vectors.npy", np.ascontiguousarray(vectors, np.float32))
    metadata = [json.loads(value) for value in table["metadata"].to_pylist()]
    rows = pa.table(
        {
            "id": pa.array(np.arange(table.num_rows), pa.int64()),
            "chunk_id": table["chunk_id"],
            "doc_id": table["doc_id"],
            "text": table["text"].cast(pa.string()),
            "extension": pa.array([value["extension"] for value in metadata]),
            "lot": pa.array([value["lot"] for value in metadata], pa.int32()),
        }
    ).combine_chunks()
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, rows.schema) as w,
    ):
        w.write_table(rows)
    questions = _questions(table)[: sum(num_queries)]
    texts = [text for text, _ in questions]
    embed = store.manifest.flow["embed"]
    with open_encoder(embed["model"], embed["precision"]) as encoder:
        query_vectors = np.asarray(encoder.encode(texts), np.float32)
    np.save(folder / "query_vectors.npy", query_vectors)
    filters = _filters(rows, len(texts))
    scores = _tenth_scores(rows, vectors, query_vectors, filters)
    arrays: dict[str, Any] = {**scores}
    np.savez(folder / "tenth_scores.npz", **arrays)
    facts = {
        "queries": texts,
        "answers": [document for _, document in questions],
        "num_tune": min(num_queries[0], len(texts) // 4),
        "filters": [asdict(value) for value in filters],
    }
    (folder / "queries.json").write_text(json.dumps(facts, indent=1))


def _questions(table: pa.Table) -> list[tuple[str, str]]:
    """First sentences of docstrings and headings, with their documents, shuffled.

    They are what a person would look the place up by, of 4 to 12 words, at most
    three of a kind per document, half of either kind while there are both.
    """
    kinds: list[dict[str, str]] = [{}, {}]
    asked: Counter[tuple[int, str]] = Counter()
    columns = (table[name].to_pylist() for name in ("doc_id", "heading_path", "text"))
    for document, headings, text in zip(*columns, strict=True):
        found = _DOCSTRING.search(text)
        for number, line in enumerate((found[1] if found else "", headings.rpartition(" > ")[2])):
            question = _question(line)
            if question and question not in kinds[number] and asked[number, document] < 3:
                kinds[number][question] = document
                asked[number, document] += 1
    rng, chosen = random.Random(_SEED), []
    for kind in kinds:
        pairs = sorted(kind.items())
        rng.shuffle(pairs)
        chosen.append(pairs)
    paired = [pair for pairs in itertools.zip_longest(*chosen) for pair in pairs if pair]
    return list(dict(paired).items())


def _question(line: str) -> str:
    words = line.strip(" #*_=-.:!").split()
    plain = sum(bool(_WORD.match(word.strip(",;()?"))) for word in words)
    return " ".join(words) if 4 <= len(words) <= 12 and plain >= len(words) - 1 else ""


def _filters(rows: pa.Table, num_queries: int) -> list[Filter]:
    """Four shares by a random attribute, one renewed for each query, one natural attribute."""
    lots = np.sort(rows["lot"].to_numpy())
    made = []
    for percent in (50, 10, 1, 0.1):
        bound = int(lots[min(len(lots) - 1, round(len(lots) * percent / 100))])
        made.append((f"{percent:g} %", "lot", [max(bound, int(lots[0]) + 1)] * num_queries))
    ten = made[1][2][0]
    # Steps so small that the share hardly changes, and large enough that each is another condition.
    renewed = [
        ten + (query - num_queries // 2) * (ten // 4 // num_queries) for query in range(num_queries)
    ]
    made.append(("10 %, new each time", "lot", renewed))
    counts = rows["extension"].combine_chunks().value_counts().to_pylist()
    natural = min(counts, key=lambda pair: abs(pair["counts"] / rows.num_rows - 0.1))["values"]
    made.append((f"extension {natural}", "extension", [natural] * num_queries))
    return [
        Filter(
            name=name,
            column=column,
            values=values,
            share=float(_mask(rows, column, values[0]).mean()),
        )
        for name, column, values in made
    ]


def _tenth_scores(
    rows: pa.Table, vectors: F32, queries: F32, filters: Sequence[Filter]
) -> dict[str, F32]:
    """Exact score of each query's last wanted hit: what scores as much is a right answer."""
    names = ("unfiltered", *(value.name for value in filters))
    found = {name: np.zeros(len(queries), np.float32) for name in names}
    masks: dict[Any, Any] = {}
    for number, query in enumerate(queries):
        scores = vectors @ query
        for name in found:
            kept = scores
            for value in (f for f in filters if f.name == name):
                key = (value.column, value.values[number])
                if key not in masks:
                    masks[key] = _mask(rows, *key)
                kept = scores[masks[key]]
                if len({*value.values}) > 1:
                    del masks[key]
            k = min(K, len(kept))
            found[name][number] = np.partition(kept, -k)[-k] if k else 0
    return found


def folder_bytes(folder: Path) -> int:
    """What the files below a folder occupy on the disk; sparse ones only their blocks."""
    files = (os.lstat(path) for path in folder.rglob("*") if path.is_file())
    return sum(int(getattr(stat, "st_blocks", stat.st_size / 512)) * 512 for stat in files)
