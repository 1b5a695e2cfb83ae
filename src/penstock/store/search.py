"""Search one run of a store: from a question to passages with their scores."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.errors import ModelError, QueryError, StoreError
from penstock.index import (
    Filter,
    Fusion,
    Index,
    IndexManifest,
    Mode,
    Plan,
    Query,
)
from penstock.index import Hit as IndexHit
from penstock.index.segments import Segment
from penstock.models import open_encoder
from penstock.store.attributes import Attributes
from penstock.store.edits import Edits
from penstock.store.manifest import Manifest
from penstock.store.pins import pin
from penstock.store.places import Place, local_files
from penstock.store.settings import SearchSettings, read_settings
from penstock.store.tables import open_table

U64 = npt.NDArray[np.uint64]

Rerank = Callable[[str, list[str]], Sequence[float]]
"""Scores texts against a query; larger is better."""

RERANKED = 50
"""Hits that a re-ranker looks at, at least `offset + k`."""
_KEPT_FILTERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One chunk that a search found.

    Attributes:
        doc_id: Its document.
        chunk_id: `doc_id#ordinal`.
        score: What the hits are ordered by; larger is better. Comparable within one search only.
        vector_score: Cosine of query and chunk; None if that side was not asked or knows no score.
        words_score: BM25; None likewise.
        text: The chunk.
        start: First byte of the chunk in the document's text in UTF-8.
        end: Byte after its last.
        title: The document's title, or its file's name.
        heading_path: Headings above the chunk's start, joined by ` > `.
        media_type: The document's media type.
        metadata: The document's metadata.
        highlights: Spans of characters of `text` that answer the query's words, if asked for.
    """

    doc_id: str
    chunk_id: str
    score: float
    vector_score: float | None
    words_score: float | None
    text: str
    start: int
    end: int
    title: str
    heading_path: str
    media_type: str
    metadata: dict[str, Any]
    highlights: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The hit in JSON types."""
        return asdict(self)


class Hits(list[Hit]):
    """The hits of one search, best first: a list, with what else was asked for.

    Attributes:
        run: The run that was searched.
        plan: How it was searched, where `explain` was asked for.
        facets: Per column asked for, its values among the matches with their
            counts, most frequent first.
    """

    def __init__(self, hits: Sequence[Hit], run: str) -> None:
        super().__init__(hits)
        self.run = run
        self.plan: Plan | None = None
        self.facets: dict[str, list[tuple[Any, int]]] = {}


class Searcher:
    """Everything that searching one run needs, opened when first used; for many threads.

    Attributes:
        manifest: The run.
    """

    def __init__(self, path: Place, manifest: Manifest) -> None:
        self._path, self.manifest = path, manifest
        self._filters: dict[str, Filter] = {}
        self._opening = threading.Lock()
        self._encoder: Any = None
        self._known: dict[Path, Segment] = {}
        pin(self, path / "runs" / f"{manifest.run}.json")

    def moved_to(self, manifest: Manifest) -> Searcher:
        """The same store at another run, with what both share open as it is.

        Raises:
            StoreError: A file of that run's index is missing or damaged.
        """
        moved = Searcher(self._path, manifest)
        with self._opening:
            # A model is its folder, precision and fingerprint: another one is opened anew.
            if manifest.flow.get("embed") == self.manifest.flow.get("embed"):
                moved._encoder = self._encoder
        index = self.__dict__.get("index")
        if index is None:
            moved._known = self._known
        else:
            moved._known = {segment.folder: segment for segment in index.segments}
            if manifest.index is not None:
                _ = moved.index  # opened before anyone waits for it
        rows = self.__dict__.get("attributes")
        if rows is not None and manifest.tables.get("chunks") == self.manifest.tables["chunks"]:
            moved.__dict__["attributes"] = rows
        return moved

    @cached_property
    def index(self) -> Index:
        """The run's index.

        Raises:
            QueryError: The flow makes no chunks.
            StoreError: A file of the index is missing or damaged.
        """
        described = self.manifest.index
        if described is None:
            raise QueryError(
                "search",
                f"run {self.manifest.run} has no chunks to search; add Chunk() to its flow",
            )
        opened = IndexManifest.from_json(described)
        # Copies of an object store's files stay for as long as they are held here.
        self._files = local_files(self._path / "index", opened.names())
        index = Index.open(self._files.path, opened, self._known)
        self._known = {}
        return index

    @cached_property
    def attributes(self) -> Attributes:
        """The chunks' columns and metadata, for conditions and facets."""
        return Attributes(self.dataset("chunks"))

    @cached_property
    def edits(self) -> Edits:
        """What is cut out of the documents."""
        return Edits(self.dataset("edits") if "edits" in self.manifest.tables else None)

    def dataset(self, table: str) -> Any:
        """The `lance.LanceDataset` of a table at this run.

        Raises:
            StoreError: This run has no such table.
        """
        version = self.manifest.tables.get(table)
        if version is None:
            raise StoreError(str(self._path), f"run {self.manifest.run} has no table {table!r}")
        return open_table(self._path / f"{table}.lance", version)

    @cached_property
    def settings(self) -> SearchSettings:
        """What `tune` and `index check` have found to be best for this store."""
        return read_settings(self._path)

    @property
    def encoder(self) -> Any:
        """The model that embedded the chunks.

        Raises:
            ModelError: It is not at hand, or is another one by now.
        """
        with self._opening:
            if self._encoder is None:
                self._encoder = self._open_encoder()
            return self._encoder

    def _open_encoder(self) -> Any:
        embed = self.manifest.flow.get("embed")
        if embed is None:
            raise QueryError("mode", "this store has no embeddings; search it with mode 'words'")
        encoder = open_encoder(embed["model"], embed["precision"])
        if encoder.fingerprint != embed["fingerprint"]:
            raise ModelError(
                embed["model"],
                "it is not the model that embedded this store (its weights, tokenizer or "
                "settings differ), so its vectors cannot be compared. Build again, or put "
                "the earlier model back",
            )
        return encoder

    def query(
        self,
        text: str | None,
        *,
        vector: npt.ArrayLike | None = None,
        mode: Mode | None = None,
        where: str | None = None,
        fusion: Fusion | None = None,
        alpha: float | None = None,
        typos: int = 0,
    ) -> Query:
        """The question as the index takes it: defaults filled in, the text embedded."""
        if text is not None:  # half a character, as in an argument of broken bytes, is no text
            text = text.encode("utf-8", "replace").decode()
        if text is None and vector is None:
            raise QueryError("query", "expected a text, a vector, or both; found neither")
        if mode is None:
            mode = "vector" if text is None else self.default_mode
        if vector is None and mode in ("hybrid", "vector") and text is not None:
            vector = self.encoder.encode([text])[0]
        return Query(
            text=text,
            vector=None if mode == "words" else vector,
            mode=mode,
            allowed=None if where is None else self.filter(where),
            fusion=fusion or self.settings.fusion,
            alpha=self.settings.alpha if alpha is None else alpha,
            typos=typos,
            effort=self.settings.effort,
        )

    @property
    def default_mode(self) -> Mode:
        """What a search for a text does unless told."""
        return self.settings.mode if self.manifest.flow.get("embed") else "words"

    def filter(self, where: str) -> Filter:
        """The rows for which a condition holds."""
        if where not in self._filters:
            rows = self.attributes
            found = self.index.filter(rows.row_ids, rows.mask(where))
            if len(self._filters) >= _KEPT_FILTERS:
                self._filters.clear()
            self._filters[where] = found
        return self._filters[where]

    def rank(
        self,
        query: Query,
        k: int,
        *,
        offset: int = 0,
        per_document: int | None = None,
        without: int | None = None,
    ) -> list[IndexHit]:
        """Hits `offset` to `offset + k` of the ranking, with at most so many of each document.

        Args:
            query: The question.
            k: How many.
            offset: How many better ones to leave out.
            per_document: Most hits of one document; None for any number.
            without: Position of a row that is not to be found.
        """
        for name, value, least in (("k", k, 1), ("offset", offset, 0)):
            if value < least:
                raise QueryError(f"{name}={value!r}", f"expected at least {least}")
        if per_document is not None and per_document < 1:
            raise QueryError(f"per_document={per_document!r}", "expected at least 1, or None")
        wanted = offset + k
        ranking = self.index.ranking(query, wanted)
        if per_document is None and without is None:
            return list(islice(ranking, offset, wanted))
        found: list[IndexHit] = []
        seen: dict[int, int] = {}
        while len(found) < wanted and (some := list(islice(ranking, 4 * wanted))):
            some = [hit for hit in some if hit.position != without]
            if per_document is None:
                found += some
                continue
            for hit, document in zip(some, self._documents(some), strict=True):
                seen[document] = seen.get(document, 0) + 1
                if seen[document] <= per_document:
                    found.append(hit)
        return found[offset:wanted]

    def _documents(self, hits: Sequence[IndexHit]) -> list[int]:
        ids = np.array([hit.row_id for hit in hits], np.uint64)
        codes: list[int] = self.attributes.document_codes(ids).tolist()
        return codes

    def hits(self, found: Sequence[IndexHit], *, highlight: str | None = None) -> list[Hit]:
        """The passages of these hits, with the spans that answer the words of `highlight`."""
        hits = []
        rows = self.index.passages([hit.position for hit in found])
        for hit, row in zip(found, rows, strict=True):
            row["metadata"] = json.loads(row["metadata"])
            spans = self.index.highlights(row["text"], highlight) if highlight else ()
            hits.append(
                Hit(
                    score=hit.score,
                    vector_score=hit.vector_score,
                    words_score=hit.words_score,
                    highlights=tuple(spans),
                    **row,
                )
            )
        return hits

    def facet(self, column: str, query: Query) -> list[tuple[Any, int]]:
        """Values of a column with their counts, over the rows that match a query.

        A row matches if the condition holds for it and, but in mode "vector",
        it has a word of the query.
        """
        rows = self.attributes
        if query.mode == "vector" or not query.text:
            allowed = query.allowed
            if allowed is None:
                return rows.facet(column, None)
            pairs = zip(self.index.segments, allowed.masks, strict=True)
            found = [s.rows if mask is None else s.rows[mask] for s, mask in pairs]
            return rows.facet(column, np.sort(np.concatenate([np.empty(0, np.uint64), *found])))
        return rows.facet(column, self.index.matches(query.text, query.allowed))


def reranked(query: str, hits: Sequence[Hit], rerank: Rerank) -> list[Hit]:
    """Hits with the scores that a re-ranker gives them, best first; ties by former rank.

    Raises:
        QueryError: It gave another number of scores than it was given texts, or NaN.
    """
    scores = np.asarray(rerank(query, [hit.text for hit in hits]), np.float64).reshape(-1)
    if len(scores) != len(hits) or np.isnan(scores).any():
        raise QueryError(
            "rerank",
            f"expected {len(hits)} numbers for {len(hits)} texts, found "
            f"{len(scores)}{' with NaN' if np.isnan(scores).any() else ''}",
        )
    order = np.argsort(-scores, kind="stable").tolist()
    return [replace(hits[i], score=float(scores[i])) for i in order]
