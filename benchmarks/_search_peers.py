"""The peers of `search.py`, each behind the same few methods and set up as its makers advise.

This file runs in the peers' environment, which has no Penstock. A name such as
`lancedb:ivf-pq` is a peer and a variant of its index.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from _search_data import Data, K, vector_column  # type: ignore[import-not-found, unused-ignore]

Where = tuple[str, Any] | None
Setting = dict[str, Any]

_STOP_WORDS = frozenset(
    """a an and are as at be but by for if in into is it no not of on or such that the their then
    there these they this to was will with""".split()  # noqa: SIM905 - easier to read
)
"""English stop words of Lucene, tantivy and LanceDB, taken out of queries where a peer cannot."""


class Contender(Protocol):
    """One system with one kind of index.

    Attributes:
        can: What it can do, of "vector", "words", "hybrid" and "upsert".
        settings: Ways to search its vectors, in lists of which each goes from cheap to dear.
        about: How it is set up, in a line.
        durable: What its upsert does, in a line; starts with "no fsync" where it syncs nothing.
    """

    can: frozenset[str]
    settings: Sequence[list[Setting]]
    about: str
    durable: str

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        """Write everything durably; seconds for `load`, `vectors` and `words`."""
        ...

    def open(self, folder: Path, writable: bool = False) -> None: ...

    def vector(self, query: Any, where: Where, setting: Setting) -> list[int]: ...

    def words(self, text: str) -> list[int]: ...

    def hybrid(self, text: str, query: Any, setting: Setting) -> list[tuple[int, str]]: ...

    def batch(self, rows: pa.Table) -> Any:
        """Rows with `vector` in the form that it takes."""
        ...

    def upsert(self, batch: Any) -> None:
        """Replace rows by id, as durably as it can."""
        ...

    def close(self) -> None: ...


_ALL = frozenset({"vector", "words", "hybrid", "upsert"})


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _slices(data: Data, size: int = 1000) -> Iterator[tuple[dict[str, list[Any]], Any]]:
    for start in range(0, data.num_rows, size):
        yield data.rows.slice(start, size).to_pydict(), data.vectors[start : start + size]


class LanceDB:
    """LanceDB through its asynchronous API, which answers sooner than the other one."""

    can = _ALL
    durable = "no fsync: merge_insert by id, with a B-tree on it"

    def __init__(self, variant: str) -> None:
        # Before its import: else it writes a warning for every search.
        os.environ.update(LANCE_LOG="error", LANCEDB_LOG="error", RUST_LOG="error")
        self._variant = variant
        self._local = threading.local()
        if variant == "ivf-hnsw-sq":
            # It wants ef of at least the candidates that are refined.
            efs = (16, 24, 32, 48, 64, 96, 128, 256)
            ways = [
                [{"nprobes": 1, "ef": ef, "refine": r} for ef in efs if ef >= K * r]
                for r in (0, 1, 2, 5)
            ]
        else:
            probes = (1, 2, 4, 8, 16, 32, 64, 128)
            refines = (0, 3, 5, 10, 20, 40)
            ways = [[{"nprobes": n, "refine": r} for n in probes] for r in refines]
        self.settings: Sequence[list[Setting]] = ways
        kind = {
            "ivf-hnsw-sq": "IVF_HNSW_SQ of 1 partition, m 20, ef_construction 300",
            "ivf-pq": "IVF_PQ, 8 bits for 4 dimensions",
            "ivf-rq": "IVF_RQ, 1 bit",
        }[variant]
        self.about = (
            f"{kind}; asynchronous API, B-tree on lot, bitmap on extension, prefilter; "
            f"RRF k 60 over {K} of each side, as its API does it"
        )

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        import lancedb  # type: ignore[import-not-found, unused-ignore]
        from lancedb.index import FTS, Bitmap, BTree, HnswSq, IvfPq, IvfRq  # type: ignore[import-not-found, unused-ignore]

        dim = data.vectors.shape[1]
        config = {
            "ivf-hnsw-sq": HnswSq(num_partitions=1),
            "ivf-pq": IvfPq(num_sub_vectors=dim // 4),
            "ivf-rq": IvfRq(),
        }[self._variant]
        rows = data.rows.append_column("vector", vector_column(data.vectors))
        started = time.perf_counter()
        table = lancedb.connect(folder).create_table("chunks", rows)
        table.create_index("id", config=BTree())
        table.create_index("lot", config=BTree())
        table.create_index("extension", config=Bitmap())
        load = time.perf_counter() - started
        vectors = _seconds(lambda: table.create_index("vector", config=config))
        words = _seconds(lambda: table.create_index("text", config=FTS()))
        return {"load": load, "vectors": vectors, "words": words}

    def open(self, folder: Path, writable: bool = False) -> None:
        import lancedb
        from lancedb.rerankers import RRFReranker  # type: ignore[import-not-found, unused-ignore]

        self._folder, self._reranker = folder, RRFReranker()
        # Row ids spare it a look-up per hit, but an upsert gives a row another one.
        self._by_row = not writable
        rows = lancedb.connect(folder).open_table("chunks").search().select(["id"])
        found = rows.with_row_id(True).limit(None).to_arrow()
        self._ids = dict(zip(found["_rowid"].to_pylist(), found["id"].to_pylist(), strict=True))

    def vector(self, query: Any, where: Where, setting: Setting) -> list[int]:
        search = self._nearest(query, setting)
        if where is not None:
            column, value = where
            search = search.where(f"lot < {value}" if column == "lot" else f"{column} = '{value}'")
        return self._found(search, "_distance")

    def words(self, text: str) -> list[int]:
        search = self._table.query().nearest_to_text(text, columns=["text"]).limit(K)
        return self._found(search, "_score")

    def hybrid(self, text: str, query: Any, setting: Setting) -> list[tuple[int, str]]:
        search = self._nearest(query, setting).nearest_to_text(text, columns=["text"])
        search = search.rerank(self._reranker).select(["id", "text"])
        found = self._loop.run_until_complete(search.to_arrow())
        return list(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True))

    def batch(self, rows: pa.Table) -> Any:
        return rows

    def upsert(self, batch: Any) -> None:
        merge = self._table.merge_insert("id").when_matched_update_all()
        self._loop.run_until_complete(merge.when_not_matched_insert_all().execute(batch))

    def close(self) -> None:
        self._local = threading.local()

    def _nearest(self, query: Any, setting: Setting) -> Any:
        search = self._table.query().nearest_to(query).column("vector").distance_type("l2").limit(K)
        search = search.nprobes(setting["nprobes"])
        if "ef" in setting:
            search = search.ef(setting["ef"])
        return search.refine_factor(setting["refine"]) if setting["refine"] else search

    def _found(self, search: Any, score: str) -> list[int]:
        if not self._by_row:
            found = self._loop.run_until_complete(search.select(["id", score]).to_arrow())
            return list(found["id"].to_pylist())
        search = search.with_row_id().select(["_rowid", score])
        found = self._loop.run_until_complete(search.to_arrow())
        return [self._ids[row] for row in found["_rowid"].to_pylist()]

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """This thread's own loop, and with it `_local.table`."""
        import lancedb

        if not hasattr(self._local, "loop"):
            loop = asyncio.new_event_loop()
            database = loop.run_until_complete(lancedb.connect_async(str(self._folder)))
            self._local.table = loop.run_until_complete(database.open_table("chunks"))
            self._local.loop = loop
        return self._local.loop  # type: ignore[no-any-return]

    @property
    def _table(self) -> Any:
        assert self._loop
        return self._local.table


class QdrantEdge:
    """Qdrant Edge: filterable HNSW, words by its text index or by sparse BM25 vectors."""

    can = _ALL
    durable = "upsert_points, then flush(), which syncs"
    _PREFETCH = 20

    def __init__(self, variant: str) -> None:
        self._quantized, self._sparse = "int8" in variant, "sparse" in variant
        efs = (16, 24, 32, 48, 64, 96, 128, 192, 256)
        rescored = ((False, 1.0), (True, 1.0), (True, 2.0)) if self._quantized else ((False, 1.0),)
        self.settings: Sequence[list[Setting]] = [
            [{"ef": ef, "rescore": rescore, "oversampling": more} for ef in efs]
            for rescore, more in rescored
        ]
        kind = "int8 codes and float32 vectors" if self._quantized else "float32 vectors"
        words = "sparse BM25 vectors with idf" if self._sparse else "its text index with BM25"
        self.about = (
            f"HNSW m 16, ef_construct 100 over {kind}, all in memory, optimize() called; words by "
            f"{words}, Snowball, stop words; RRF k 60 over {self._PREFETCH} of each side"
        )

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        import qdrant_edge as qd  # type: ignore[import-not-found, unused-ignore]

        pinned = qd.Memory.Pinned
        quantization = qd.ScalarQuantizationConfig(type=qd.ScalarType.Int8, memory=pinned)
        params = qd.EdgeVectorParams(
            size=data.vectors.shape[1],
            distance=qd.Distance.Dot,
            memory=pinned,
            quantization_config=quantization if self._quantized else None,
            hnsw_config=qd.HnswIndexConfig(16, 100, 10_000, memory=pinned),
        )
        sparse = {"words": qd.EdgeSparseVectorParams(modifier=qd.Modifier.Idf)}
        config = qd.EdgeConfig(
            vectors={"vector": params},
            sparse_vectors=sparse if self._sparse else None,
            payload_memory=qd.Memory.Cached,
        )
        folder.mkdir()
        bm25 = self._bm25(data)
        started = time.perf_counter()
        shard = qd.EdgeShard.create(str(folder), config)
        integer = qd.IntegerIndexParams(lookup=False, range=True)
        # Before the graph is built, so that it gets the links that filters need.
        shard.update(qd.UpdateOperation.create_field_index("lot", integer))
        shard.update(
            qd.UpdateOperation.create_field_index("extension", qd.PayloadSchemaType.Keyword)
        )
        for rows, vectors in _slices(data):
            shard.update(qd.UpdateOperation.upsert_points(self._points(rows, vectors, bm25)))
        shard.flush()
        load = time.perf_counter() - started
        graph = _seconds(lambda: (shard.optimize(), shard.flush()))
        words = 0.0 if self._sparse else _seconds(lambda: self._index_words(shard))
        shard.close()
        return {"load": load, "vectors": graph, "words": words}

    def open(self, folder: Path, writable: bool = False) -> None:
        import qdrant_edge as qd

        self._qd, self._shard = qd, qd.EdgeShard.load(str(folder))
        self._fusion = qd.Fusion.Rrf(k=60)
        if self._sparse:
            self._encoder = qd.Bm25(qd.Bm25Config(language="english"))

    def vector(self, query: Any, where: Where, setting: Setting) -> list[int]:
        qd = self._qd
        request = qd.QueryRequest(
            limit=K,
            query=qd.Query.Nearest(query, using="vector"),
            filter=self._filter(where),
            params=self._params(setting),
            with_payload=False,
        )
        return [point.id for point in self._shard.query(request)]

    def words(self, text: str) -> list[int]:
        query, params = self._words(text)
        request = self._qd.QueryRequest(limit=K, query=query, params=params, with_payload=False)
        return [point.id for point in self._shard.query(request)]

    def hybrid(self, text: str, query: Any, setting: Setting) -> list[tuple[int, str]]:
        qd = self._qd
        nearest, (words, params) = qd.Query.Nearest(query, using="vector"), self._words(text)
        sides = [
            qd.Prefetch(limit=self._PREFETCH, query=nearest, params=self._params(setting)),
            qd.Prefetch(limit=self._PREFETCH, query=words, params=params),
        ]
        request = qd.QueryRequest(
            limit=K, prefetches=sides, query=self._fusion, with_payload=["text"]
        )
        return [(point.id, point.payload["text"]) for point in self._shard.query(request)]

    def batch(self, rows: pa.Table) -> Any:
        columns = rows.to_pydict()
        vectors = np.array(columns.pop("vector"), np.float32)
        bm25 = self._encoder if self._sparse else None
        return self._qd.UpdateOperation.upsert_points(self._points(columns, vectors, bm25))

    def upsert(self, batch: Any) -> None:
        self._shard.update(batch)
        self._shard.flush()

    def close(self) -> None:
        self._shard.close()

    def _bm25(self, data: Data) -> Any:
        """Its encoder, told the true average length: it cannot count."""
        import qdrant_edge as qd

        if not self._sparse:
            return None
        words = [len(text.split()) for text in data.rows["text"].to_pylist()]
        return qd.Bm25(qd.Bm25Config(language="english", avg_len=float(np.mean(words))))

    def _points(self, rows: dict[str, list[Any]], vectors: Any, bm25: Any) -> list[Any]:
        import qdrant_edge as qd

        points = []
        for place, number in enumerate(rows["id"]):
            payload = {name: rows[name][place] for name in ("text", "extension", "lot")}
            named = {"vector": vectors[place]}
            if bm25 is not None:
                named["words"] = bm25.embed_document(payload["text"])
            points.append(qd.Point(number, named, payload))
        return points

    def _index_words(self, shard: Any) -> None:
        import qdrant_edge as qd

        english = qd.SnowballParams(qd.SnowballLanguage.English)
        params = qd.TextIndexParams(
            tokenizer=qd.TokenizerType.Word,
            lowercase=True,
            stopwords=qd.Language.English,
            stemmer=english,
            scoring=True,
        )
        shard.update(qd.UpdateOperation.create_field_index("text", params))
        shard.flush()

    def _words(self, text: str) -> tuple[Any, Any]:
        if not self._sparse:
            return self._qd.TextQuery("text", text), None
        query = self._encoder.embed_query(text)
        return self._qd.Query.Nearest(query, using="words"), None

    def _params(self, setting: Setting) -> Any:
        qd = self._qd
        quantization = None
        if self._quantized:
            quantization = qd.QuantizationSearchParams(
                rescore=setting["rescore"], oversampling=setting["oversampling"]
            )
        return qd.SearchParams(hnsw_ef=setting["ef"], quantization=quantization)

    def _filter(self, where: Where) -> Any:
        if where is None:
            return None
        qd, (column, value) = self._qd, where
        if column == "lot":
            return qd.Filter(must=[qd.FieldCondition("lot", range=qd.RangeFloat(lt=value))])
        return qd.Filter(must=[qd.FieldCondition(column, match=qd.MatchValue(value))])


class Zvec:
    """zvec: HNSW over int8 codes or float32, inverted indexes, its own full-text index."""

    can = _ALL
    durable = "upsert, then flush(), which syncs"

    def __init__(self, variant: str) -> None:
        self._quantized = variant == "int8"
        efs = (16, 24, 32, 48, 64, 96, 128, 192, 256)
        refined = (False, True) if self._quantized else (False,)
        self.settings: Sequence[list[Setting]] = [
            [{"ef": ef, "refine": refine} for ef in efs] for refine in refined
        ]
        kind = "int8 codes" if self._quantized else "float32"
        self.about = (
            f"HNSW m 15, ef_construction 200 over {kind} in contiguous memory, optimize() called; "
            "read-only fast path for ids; words stemmed, stop words taken out of queries; RRF k 60 "
            f"over {K} of each side, which its API fixes"
        )

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        import zvec  # type: ignore[import-not-found, unused-ignore]

        self._start()
        kind = zvec.DataType
        by_range = zvec.InvertIndexParam(enable_range_optimization=True)
        quantized = zvec.QuantizeType.INT8 if self._quantized else zvec.QuantizeType.UNDEFINED
        graph = zvec.HnswIndexParam(
            metric_type=zvec.MetricType.IP,
            m=15,
            ef_construction=200,
            quantize_type=quantized,
            use_contiguous_memory=True,
        )
        dim = data.vectors.shape[1]
        fields = [
            zvec.FieldSchema("text", kind.STRING),
            zvec.FieldSchema("extension", kind.STRING, index_param=zvec.InvertIndexParam()),
            zvec.FieldSchema("lot", kind.INT32, index_param=by_range),
        ]
        vector = zvec.VectorSchema("vector", kind.VECTOR_FP32, dim, index_param=graph)
        schema = zvec.CollectionSchema("chunks", fields=fields, vectors=[vector])
        started = time.perf_counter()
        collection = zvec.create_and_open(str(folder), schema)
        for rows, vectors in _slices(data):
            for status in collection.insert(self._docs(rows, vectors)):
                assert status.ok(), status
        collection.flush()
        load = time.perf_counter() - started
        built = _seconds(lambda: (collection.optimize(), collection.flush()))
        filters = ["lowercase", "ascii_folding", "stemmer"]
        index = zvec.FtsIndexParam(tokenizer_name="standard", filters=filters)
        words = _seconds(lambda: (collection.create_index("text", index), collection.flush()))
        collection.close()
        return {"load": load, "vectors": built, "words": words}

    def open(self, folder: Path, writable: bool = False) -> None:
        import zvec

        self._start()
        self._zvec, self._fast = zvec, not writable
        self._chunks = zvec.open(str(folder), zvec.CollectionOption(read_only=not writable))
        self._fusion = zvec.RrfReRanker(60)

    def vector(self, query: Any, where: Where, setting: Setting) -> list[int]:
        condition = None
        if where is not None:
            column, value = where
            condition = f"lot < {value}" if column == "lot" else f"{column} = '{value}'"
        return self._ids(self._nearest(query, setting), condition)

    def words(self, text: str) -> list[int]:
        return self._ids(self._match(text), None)

    def hybrid(self, text: str, query: Any, setting: Setting) -> list[tuple[int, str]]:
        found = self._chunks.query(
            [self._nearest(query, setting), self._match(text)],
            topk=K,
            output_fields=["text"],
            reranker=self._fusion,
        )
        return [(int(doc.id), doc.fields["text"]) for doc in found]

    def batch(self, rows: pa.Table) -> Any:
        columns = rows.to_pydict()
        return self._docs(columns, np.array(columns.pop("vector"), np.float32))

    def upsert(self, batch: Any) -> None:
        for status in self._chunks.upsert(batch):
            assert status.ok(), status
        self._chunks.flush()

    def close(self) -> None:
        self._chunks.close()

    def _start(self) -> None:
        import zvec

        with contextlib.suppress(RuntimeError):  # it was started before
            zvec.init(log_level=zvec.LogLevel.ERROR)

    def _docs(self, rows: dict[str, list[Any]], vectors: Any) -> list[Any]:
        import zvec

        names = ("text", "extension", "lot")
        return [
            zvec.Doc(
                id=str(number),
                vectors={"vector": vectors[place]},
                fields={name: rows[name][place] for name in names},
            )
            for place, number in enumerate(rows["id"])
        ]

    def _ids(self, query: Any, condition: str | None) -> list[int]:
        if not self._fast:
            found = self._chunks.query(query, topk=K, filter=condition, output_fields=[])
            return [int(doc.id) for doc in found]
        numbers = self._chunks.query_internal_ids(query, topk=K, filter=condition)
        return [
            int(name) for name in self._chunks.resolve_internal_ids(numbers) if name is not None
        ]

    def _nearest(self, query: Any, setting: Setting) -> Any:
        param = self._zvec.HnswQueryParam(ef=setting["ef"], is_using_refiner=setting["refine"])
        return self._zvec.Query("vector", vector=query, param=param)

    def _match(self, text: str) -> Any:
        kept = [word for word in text.split() if word.lower() not in _STOP_WORDS]
        match = self._zvec.Fts(match_string=" ".join(kept) or text)
        return self._zvec.Query("text", fts=match)


class _WordsOnly:
    """What a peer without vectors does with them: nothing."""

    can = frozenset({"words"})
    durable = ""
    settings: Sequence[list[Setting]] = ()

    def vector(self, query: Any, where: Where, setting: Setting) -> list[int]:
        raise NotImplementedError

    def hybrid(self, text: str, query: Any, setting: Setting) -> list[tuple[int, str]]:
        raise NotImplementedError

    def batch(self, rows: pa.Table) -> Any:
        raise NotImplementedError

    def upsert(self, batch: Any) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Bm25s(_WordsOnly):
    """bm25s, all in memory; it scores with numba or numpy, and cannot be updated."""

    def __init__(self, variant: str) -> None:
        self._backend = variant
        self.about = f"backend {variant}, Lucene's BM25, Snowball, stop words; static"

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        import bm25s  # type: ignore[import-not-found, unused-ignore]

        started = time.perf_counter()
        retriever = bm25s.BM25(backend=self._backend)
        tokens = self._tokens(data.rows["text"].to_pylist())
        retriever.index(tokens, show_progress=False)
        retriever.save(str(folder))
        return {"words": time.perf_counter() - started}

    def open(self, folder: Path, writable: bool = False) -> None:
        import bm25s

        self._retriever = bm25s.BM25.load(str(folder))
        self._retriever.backend = self._backend
        if self._backend == "numba":
            self._retriever.activate_numba_scorer()

    def words(self, text: str) -> list[int]:
        found = self._retriever.retrieve(
            self._tokens([text]), k=K, show_progress=False, return_as="documents"
        )
        return [int(number) for number in found[0]]

    def _tokens(self, texts: list[str]) -> Any:
        import bm25s
        import Stemmer  # type: ignore[import-not-found, unused-ignore]

        if not hasattr(self, "_local"):
            self._local = threading.local()
        if not hasattr(self._local, "stemmer"):
            self._local.stemmer = Stemmer.Stemmer("english")
        return bm25s.tokenize(
            texts, stopwords="en", stemmer=self._local.stemmer, show_progress=False
        )


class Tantivy(_WordsOnly):
    """tantivy alone, with the English analyser that its filters make."""

    about = "tantivy-py: simple tokenizer, lower case, stop words, Snowball; ids from a fast field"

    def __init__(self, variant: str) -> None:
        del variant

    def build(self, data: Data, folder: Path) -> dict[str, float]:
        import tantivy  # type: ignore[import-not-found, unused-ignore]

        folder.mkdir()
        schema = tantivy.SchemaBuilder()
        schema.add_text_field("text", tokenizer_name="english", index_option="freq")
        schema.add_integer_field("id", fast=True)
        started = time.perf_counter()
        index = tantivy.Index(schema.build(), path=str(folder))
        index.register_tokenizer("english", self._analyzer())
        writer = index.writer(heap_size=1 << 30)
        for rows, _ in _slices(data):
            for number, text in zip(rows["id"], rows["text"], strict=True):
                document = tantivy.Document()
                document.add_text("text", text)
                document.add_integer("id", number)
                writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        return {"words": time.perf_counter() - started}

    def open(self, folder: Path, writable: bool = False) -> None:
        import tantivy

        self._index = tantivy.Index.open(str(folder))
        self._english = self._analyzer()
        self._index.register_tokenizer("english", self._english)
        self._searcher = self._index.searcher()
        self._tantivy = tantivy

    def words(self, text: str) -> list[int]:
        schema, make = self._index.schema, self._tantivy.Query
        should = self._tantivy.Occur.Should
        terms = [(should, make.term_query(schema, "text", t)) for t in self._english.analyze(text)]
        hits = self._searcher.search(make.boolean_query(terms), limit=K, count=False).hits
        found: Any = self._searcher.fast_field_values("id", [address for _, address in hits])
        return list(found)

    def _analyzer(self) -> Any:
        import tantivy

        chain = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        for each in (
            tantivy.Filter.remove_long(40),
            tantivy.Filter.lowercase(),
            tantivy.Filter.stopword("english"),
            tantivy.Filter.stemmer("english"),
        ):
            chain = chain.filter(each)
        return chain.build()


PEERS: dict[str, tuple[str, Callable[[str], Contender]]] = {
    "lancedb": ("lancedb", LanceDB),
    "qdrant-edge": ("qdrant-edge-py", QdrantEdge),
    "zvec": ("zvec", Zvec),
    "bm25s": ("bm25s", Bm25s),
    "tantivy": ("tantivy", Tantivy),
}
"""Distribution to install, and the class, of each peer."""

VARIANTS = (
    "lancedb:ivf-hnsw-sq",
    "lancedb:ivf-pq",
    "lancedb:ivf-rq",
    "qdrant-edge:int8",
    "qdrant-edge:float32",
    "qdrant-edge:int8-sparse",
    "zvec:int8",
    "zvec:float32",
    "bm25s:numba",
    "bm25s:numpy",
    "tantivy:english",
)


def open_peer(name: str) -> tuple[Contender, str]:
    """The peer of such a name, and its version."""
    peer, _, variant = name.partition(":")
    distribution, make = PEERS[peer]
    return make(variant), metadata.version(distribution)
