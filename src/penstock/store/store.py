"""Read a store: its tables, its runs, and searches over it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError, QueryError, StoreError
from penstock.index import (
    Fusion,
    Measure,
    Mode,
    Setting,
    Tuned,
    tune,
)
from penstock.index import Hit as IndexHit
from penstock.records import CHUNKS, DOCUMENTS, EDITS, FAILURES, VERDICTS, content_hash
from penstock.store.attributes import Attributes, is_internal
from penstock.store.diff import Diff, diff_runs
from penstock.store.forget import forget, restore
from penstock.store.garbage import Garbage, collect_garbage
from penstock.store.life import document_life
from penstock.store.manifest import Manifest, current_run, read_manifest, run_names
from penstock.store.objects import ObjectPath
from penstock.store.places import Place, local_files, open_place
from penstock.store.receipts import Receipt, read_receipts
from penstock.store.rollback import roll_back
from penstock.store.search import RERANKED, Hits, Rerank, Searcher, reranked
from penstock.store.settings import change_settings
from penstock.store.tags import find_run, read_tags, remove_tag, set_tag
from penstock.tokens import StoredTokens, TokensManifest

if TYPE_CHECKING:
    from penstock.export import ExportReport
    from penstock.export.plan import Changed
    from penstock.loader import Loader
    from penstock.loader.formats.manifest import FormatName

TableName = Literal["documents", "verdicts", "edits", "chunks", "failures"]

_SCHEMAS = {
    "documents": DOCUMENTS,
    "verdicts": VERDICTS,
    "edits": EDITS,
    "chunks": CHUNKS,
    "failures": FAILURES,
}
_UNCUT = "uncut_text"
_SORTED_BY = {
    "documents": ("doc_id",),
    "verdicts": ("doc_id",),
    "edits": ("doc_id", "rule"),
    "chunks": ("doc_id", "ordinal"),
    "failures": ("doc_id", "step"),
}


class Store:
    """A store as one run left it.

    Reading takes no lock and is never blocked; what a `Store` shows does not
    change while it is open, whatever writers do, until `refresh` moves it on.
    Safe to use from many threads.

    Attributes:
        path: The store's folder, or prefix of an object store.
    """

    def __init__(self, path: Place, manifest: Manifest) -> None:
        self.path = path
        # All that is known of the run that is shown hangs on this one reference. Each
        # method takes it once, so that none mixes two runs when another thread refreshes.
        self._searcher = Searcher(path, manifest)
        self._moving = threading.Lock()
        self._others: dict[str | int, Store] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str] | ObjectPath, run: str | int | None = None) -> Store:
        """Open the last published run of a store, or the run named, by its number or a tag.

        Args:
            path: The store's folder, or a URL such as ``s3://bucket/corpus``.
            run: A run's number or a tag; None for the last one.

        Raises:
            StoreError: There is no store, or no such run.
            FormatError: A newer Penstock wrote it.
        """
        folder = open_place(path)
        current = current_run(folder)
        if current is None:
            what = "an unfinished build" if (folder / "runs").is_dir() else "no store"
            raise StoreError(
                str(folder), f"there is {what} here; build one: penstock build SOURCE {folder}"
            )
        return cls(folder, _manifest(folder, current if run is None else run))

    @property
    def manifest(self) -> Manifest:
        """The run that is shown."""
        return self._searcher.manifest

    @property
    def searcher(self) -> Searcher:
        """What searches this run: its index, its model, its settings."""
        return self._searcher

    def refresh(self) -> bool:
        """Move to the last published run, if it is another one than is shown.

        The model stays open unless it is another one, and so do the parts of
        the index that both runs share. Other threads may go on searching: each
        call is answered by one run or the other, and `Hits.run` says by which.

        Returns:
            Whether it moved.

        Raises:
            StoreError: The new run cannot be read; the one before stays.

        Cost: reads a file of 7 bytes where nothing is new; else some milliseconds.
        """
        with self._moving:
            before = self._searcher
            current = current_run(self.path)
            if current is None or current == before.manifest.run:
                return False
            self._searcher = before.moved_to(_manifest(self.path, current))
            return True

    def at(self, run: str | int) -> Store:
        """The store as an earlier run left it, by the run's number or a tag.

        Raises:
            StoreError: There is no such run.
        """
        return Store.open(self.path, run)

    def tags(self) -> dict[str, str]:
        """The run of each tag, by the tag's name."""
        return read_tags(self.path)

    def tag(self, name: str, run: str | int | None = None) -> None:
        """Give a run a name that stands for it everywhere, and keep it from being dropped.

        Args:
            name: A letter, then letters, digits, ``.``, ``_`` and ``-``. If it is
                another run's, it moves.
            run: The run; this one by default.
        """
        set_tag(self.path, name, self.manifest.run if run is None else run)

    def untag(self, name: str) -> None:
        """Forget a tag; its run is as any other then."""
        remove_tag(self.path, name)

    def diff(self, a: str | int, b: str | int | None = None) -> Diff:
        """What differs between two runs: documents, verdicts and why, counts by rule.

        Args:
            a: The run before: its number or a tag.
            b: The run after; the one that is shown by default.

        Returns:
            Documents added, changed and removed, and each changed verdict of those
            that stay with its reason: the document's own content, a step's setting,
            or a neighbour: another document that came, went or changed.

        Cost: reads what differs, and 8 bytes for each row of either run.
        """
        after = self.manifest if b is None else _manifest(self.path, b)
        return diff_runs(self.path, _manifest(self.path, a), after)

    def explain(self, doc_id: str) -> dict[str, Any]:
        """A document's life, in JSON types.

        Returns:
            Its ``source`` (item and version), what each of the kept ``runs`` has of it,
            its ``failures``; and, where this run has it, the ``document`` itself, its
            ``steps`` with signatures, outcomes and scores, its ``verdict``, the
            ``cluster`` of documents taken for one with it (the one kept first), its
            ``edits``, its ``chunks`` with their segments of the index, and its ``tokens``.

        Raises:
            QueryError: No run that is kept has it.
        """
        tokens = None if self.manifest.tokens is None else self.tokens()
        return document_life(self.path, self.searcher, doc_id, tokens)

    def rollback(self, run: str | int) -> Store:
        """Publish an earlier run's state again as the newest run; see `roll_back`.

        Returns:
            The store at the new run; this one still shows its own.
        """
        return Store.open(self.path, roll_back(self.path, run))

    def gc(self, *, keep: int = 1, dry_run: bool = False) -> Garbage:
        """Drop all but the newest runs and those with a tag, and every file that no run names.

        Args:
            keep: How many of the newest runs stay.
            dry_run: Only say what would go.

        Raises:
            LeaseError: Another process is writing the store.
        """
        return collect_garbage(self.path, keep=keep, dry_run=dry_run)

    def forget(
        self, doc_ids: str | Sequence[str] = (), *, where: str | None = None, reason: str = ""
    ) -> Receipt:
        """Take documents out although their source still lists them, and keep them out.

        A new run without them is published at once; this store shows its own run
        until `refresh`. The next build decides anew, so that a document which one
        of these had pushed out as a duplicate comes back. Files keep the bytes,
        for earlier runs, until `gc`. The progress of an interrupted build is lost.

        Args:
            doc_ids: A document's id, or several.
            where: In place of ids, a condition over the documents, as in `documents`.
            reason: Kept in the receipt.

        Returns:
            Where the documents had been; also stored, under ``receipts/``.

        Raises:
            ConfigError: Neither ids nor a condition, or both.
            QueryError: No run has one of the documents, or the condition cannot be understood.
            LeaseError: Another process is writing the store.

        Guarantees: no later build takes the documents in again, also after a
        rollback, until `restore`.
        """
        ids = [doc_ids] if isinstance(doc_ids, str) else list(doc_ids)
        return forget(self.path, ids, where=where, reason=reason)

    def restore(self, doc_ids: str | Sequence[str]) -> None:
        """Let documents in again that were forgotten: the next build reads the whole source.

        Raises:
            QueryError: The store was not told to forget one of them.
            LeaseError: Another process is writing the store.
        """
        restore(self.path, [doc_ids] if isinstance(doc_ids, str) else list(doc_ids))

    def receipts(self) -> list[Receipt]:
        """What was forgotten, the oldest first."""
        return read_receipts(self.path)

    def runs(self) -> list[Manifest]:
        """Every published run, oldest first."""
        return [_manifest(self.path, name) for name in run_names(self.path)]

    def documents(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per document, dropped ones too, sorted by `doc_id`.

        `text` is the final text: without what decisions cut out of it, see `edits`.

        Args:
            columns: Names of the columns wanted, also of metadata; all of the table by default.
                `uncut_text` is the text before decisions cut.
            where: A SQL condition over the columns and the metadata's fields, such as
                ``"extension = 'md' AND num_bytes > 1000"``. In it `text` is the uncut text.

        Raises:
            QueryError: The condition cannot be understood, or names an unknown column.
        """
        searcher = self._searcher
        if columns is None:
            return _final(searcher, _read(searcher, "documents", None, where))
        own = ["text" if name == _UNCUT else name for name in columns]
        if "text" not in own:
            return _read(searcher, "documents", own, where)
        before = _read(searcher, "documents", list(dict.fromkeys(["doc_id", *own])), where)
        after = _final(searcher, before)
        found = [(before if name == _UNCUT else after)[own[i]] for i, name in enumerate(columns)]
        fields = [before.schema.field(own[i]).with_name(name) for i, name in enumerate(columns)]
        return pa.Table.from_arrays(found, schema=pa.schema(fields))

    def verdicts(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per document: `verdict` (kept or dropped), `rule`, `score`, `duplicate_of`.

        A kept document with a `rule` is one that the rule only flagged, or cut.
        """
        return _read(self._searcher, "verdicts", columns, where)

    def edits(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """What decisions cut out of documents: a row for each document and rule.

        `spans` lists bytes `start` to `end` of the document's `uncut_text` in UTF-8, and in
        `duplicate_of` which document or item has the same; it is null where so little
        was left that the document was dropped.
        """
        return _read(self._searcher, "edits", columns, where)

    def chunks(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per chunk of a kept document, sorted by document and place in it."""
        return _read(self._searcher, "chunks", columns, where)

    def failures(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """One row per row that could not be processed: where, why, what to do, how often tried."""
        return _read(self._searcher, "failures", columns, where)

    def dataset(self, table: TableName) -> Any:
        """The `lance.LanceDataset` of a table at this run, for scans larger than memory.

        DuckDB, Polars and LanceDB read it as it is.

        Raises:
            StoreError: This run has no such table.
        """
        return self._searcher.dataset(table)

    def export(
        self,
        out: str | os.PathLike[str],
        *,
        format: FormatName = "mds",  # noqa: A002 - as the command names it
        shard_bytes: int = 64_000_000,
        where: str | None = None,
        changed: Changed = "rewrite",
        compression: str | None = None,
    ) -> ExportReport:
        """Write the kept documents into shards that `open_shards` and other libraries read.

        A row has `doc_id`, `text`, `metadata` and, where the run has them, `tokens`. Rows are
        in the order of `doc_id`. Into a folder that holds an export already only the
        difference is written: shards without a document that changed or went stay as
        they are, byte for byte, and documents that are new go into new shards. One
        that was killed goes on where it was.

        Args:
            out: The folder: a new or empty one, or that of an earlier export.
            format: ``"mds"`` (MosaicML Streaming), ``"webdataset"`` (tar, for
                WebDataset, Energon and DALI), ``"parquet"`` or ``"lance"``.
            shard_bytes: Most bytes of a shard before compression.
            where: A SQL condition over the documents' columns and the metadata's fields.
            changed: What becomes of a shard with documents that changed or went: it is written
                anew without them (``"rewrite"``), or stays and the manifest lists their
                rows, which our reader passes over and others do not (``"tombstone"``).
            compression: Of whole shards of MDS: ``"zstd"``, ``"gz"``, ``"br"``, ``"bz2"`` or
                ``"snappy"``, also with a level, as ``"zstd:6"``.

        Raises:
            ConfigError: An argument is wrong, or the folder holds something else.
            QueryError: The condition cannot be understood, or nothing satisfies it.
            LeaseError: Another export into this folder is under way.

        Guarantees: atomic and durable; every shard has a SHA-256 in the manifest.
        """
        from penstock.export import export

        return export(
            self,
            out,
            format=format,
            shard_bytes=shard_bytes,
            where=where,
            changed=changed,
            compression=compression,
        )

    def tokens(self, where: str | None = None) -> StoredTokens:
        """The tokens of the kept documents, as a loader reads them.

        Args:
            where: A SQL condition over the documents' columns and the metadata's fields.

        Raises:
            StoreError: This run has no tokens, or a file of theirs is damaged.
            QueryError: The condition cannot be understood, or no kept document satisfies it.
        """
        if self.manifest.tokens is None:
            raise StoreError(
                str(self.path),
                f"run {self.manifest.run} has no tokens; add ps.Tokenize(tokenizer=...) to its "
                "flow and build again",
            )
        manifest = TokensManifest.from_json(self.manifest.tokens)
        files = local_files(self.path / "tokens", manifest.names())
        tokens = StoredTokens(files.path, manifest, held=(files, self._searcher))
        if where is not None:
            tokens = tokens.only(self.documents(["doc_id"], where)["doc_id"].combine_chunks())
            if tokens.num_samples == 0:
                raise QueryError(f"where {where!r}", "no kept document satisfies it")
        return tokens

    def loader(
        self,
        *,
        seq_len: int | None = None,
        global_batch_size: int | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        block_size: int = 256,
        blocks_per_window: int = 256,
        last_step: str = "pad",
        pad_token: int = 0,
        doc_ids: bool = False,
        where: str | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
    ) -> Loader:
        """Batches of the kept documents' tokens; see `penstock.loader.Loader` for the arguments.

        Args:
            seq_len: Tokens of a row, which is packed; or the longest piece of a document.
            global_batch_size: Rows of a step over all ranks.
            max_tokens: In its place: tokens of a step over all ranks.
            seed: Chooses the order, with `epoch`.
            epoch: The first epoch to serve.
            rank: Which of the ranks this is.
            world_size: How many there are.
            block_size: Neighbours in storage order that stay in one shuffle window.
            blocks_per_window: Blocks that are shuffled and packed together.
            last_step: ``"pad"`` or ``"drop"`` what does not fill a whole step.
            pad_token: The token of padding.
            doc_ids: Name the documents in each batch.
            where: Only documents that satisfy this SQL condition.
            tokenizer: The tokenizer that training uses: another one than made the tokens is
                an error.

        Raises:
            ConfigError: An argument is wrong, or tokens were made by another tokenizer.
            StoreError: This run has no tokens, or a file of theirs is damaged.
            QueryError: The condition cannot be understood, or no kept document satisfies it.
        """
        from penstock.loader import Loader

        samples = self.tokens(where)
        if tokenizer is not None:
            _check_tokenizer(samples, tokenizer)
        return Loader(
            samples,
            seq_len=seq_len,
            global_batch_size=global_batch_size,
            max_tokens=max_tokens,
            seed=seed,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            block_size=block_size,
            blocks_per_window=blocks_per_window,
            last_step=last_step,
            pad_token=pad_token,
            doc_ids=doc_ids,
        )

    def search(
        self,
        query: str | None = None,
        k: int = 10,
        *,
        mode: Mode | None = None,
        where: str | None = None,
        vector: npt.ArrayLike | None = None,
        fusion: Fusion | None = None,
        alpha: float | None = None,
        typos: int = 0,
        offset: int = 0,
        per_document: int | None = None,
        rerank: Rerank | None = None,
        facets: Sequence[str] = (),
        highlight: bool = False,
        explain: bool = False,
        as_of: str | int | None = None,
    ) -> Hits:
        """The chunks that answer a query best.

        Args:
            query: Any text. A ``"quoted phrase"`` must occur as it is on the words' side,
                ``prefix*`` stands for the words that begin so; no other character is special.
            k: Hits wanted.
            mode: ``"hybrid"`` (default where chunks have embeddings), ``"vector"`` or ``"words"``.
            where: A SQL condition over the chunks' columns and the metadata's fields. It holds
                before the best `k` are taken, so `k` hits come back if `k` chunks satisfy it.
            vector: The query's vector, (dim,), in place of embedding the text; or alone.
            fusion: How hybrid search mixes its two sides: ``"weighted"``, a convex
                combination of normalised scores, or ``"rrf"``, reciprocal rank fusion.
            alpha: Weight of the vector side in ``"weighted"``, in [0, 1]. Mode, fusion and
                alpha have as defaults what `tune` found, else hybrid, weighted and a weight
                per query, less for the vectors the more a chunk has of the query's rare words.
            typos: Wrong letters forgiven in a word that the index does not know: 0, 1 or 2.
            offset: Better hits to leave out, for the next page. Pages of one run neither
                overlap nor leave a gap.
            per_document: Most hits of one document.
            rerank: Gives texts new scores for a query: a callable ``(query, texts) -> scores`` such
                as `ps.CrossEncoder`. It orders the best 50, or `offset + k` if that is more.
            facets: Columns whose values are counted over all matches, into ``.facets``.
            highlight: Whether to mark the words that were found, in each hit's ``highlights``.
            explain: Whether to say how it was searched, in ``.plan``.
            as_of: A run to search in place of this one: its number or a tag.

        Returns:
            A list of at most `k` hits, best first; the ids of the chunks decide between equals.

        Raises:
            QueryError: An argument or the condition cannot be understood.
            ModelError: The model that embedded the chunks is not at hand.
            StoreError: A file of the index is missing or damaged.
        """
        if as_of is not None:
            return self._as_of(as_of).search(
                query,
                k,
                mode=mode,
                where=where,
                vector=vector,
                fusion=fusion,
                alpha=alpha,
                typos=typos,
                offset=offset,
                per_document=per_document,
                rerank=rerank,
                facets=facets,
                highlight=highlight,
                explain=explain,
            )
        searcher = self.searcher
        asked = searcher.query(
            query, vector=vector, mode=mode, where=where, fusion=fusion, alpha=alpha, typos=typos
        )
        marked = query if highlight else None
        if rerank is None:
            found = searcher.rank(asked, k, offset=offset, per_document=per_document)
            hits = Hits(searcher.hits(found, highlight=marked), searcher.manifest.run)
        else:
            depth = max(RERANKED, offset + k)
            found = searcher.rank(asked, depth, per_document=per_document)
            best = reranked(query or "", searcher.hits(found, highlight=marked), rerank)
            hits = Hits(best[offset : offset + k], searcher.manifest.run)
        hits.facets = {column: searcher.facet(column, asked) for column in facets}
        if explain:
            hits.plan = searcher.index.explain(asked, offset + k)
        return hits

    def search_many(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        mode: Mode | None = None,
        where: str | None = None,
        fusion: Fusion | None = None,
        alpha: float | None = None,
    ) -> list[Hits]:
        """What `search` finds for each query, embedded in batches and searched on every core."""
        searcher = self.searcher
        texts = list(queries)
        vectors: Any = [None] * len(texts)
        if texts and (mode or searcher.default_mode) != "words":
            vectors = searcher.encoder.encode(texts)
        asked = [
            searcher.query(text, vector=vector, mode=mode, where=where, fusion=fusion, alpha=alpha)
            for text, vector in zip(texts, vectors, strict=True)
        ]
        found = searcher.index.search_many(asked, k)
        return [Hits(searcher.hits(each), searcher.manifest.run) for each in found]

    def more_like(
        self,
        chunk_id: str,
        k: int = 10,
        *,
        mode: Mode | None = None,
        where: str | None = None,
        per_document: int | None = None,
    ) -> Hits:
        """The chunks most like one that is here: by its vector and its words; itself left out.

        Raises:
            QueryError: No kept document has this chunk.
        """
        searcher = self.searcher
        row = (
            searcher.dataset("chunks")
            .to_table(columns=["text"], filter=pc.field("chunk_id") == chunk_id, with_row_id=True)
            .to_pylist()
        )
        position = searcher.index.position(row[0]["_rowid"]) if row else None
        if position is None:
            raise QueryError(
                f"chunk_id={chunk_id!r}", "there is no such chunk; see store.chunks(['chunk_id'])"
            )
        vector = None if mode == "words" else searcher.index.vector(position)
        asked = searcher.query(row[0]["text"], vector=vector, mode=mode, where=where)
        found = searcher.rank(asked, k, per_document=per_document, without=position)
        return Hits(searcher.hits(found), searcher.manifest.run)

    def facet(
        self, column: str, query: str | None = None, *, where: str | None = None
    ) -> list[tuple[Any, int]]:
        """Values of a column with their counts, most frequent first.

        Args:
            column: A column of the chunks or a field of the metadata; of a list, its elements.
            query: Count only chunks that have a word of it.
            where: Count only chunks that satisfy it.
        """
        searcher = self.searcher
        asked = searcher.query(query or "", mode="words", where=where)
        return searcher.facet(column, asked)

    def tune(
        self,
        queries: Mapping[str, str],
        qrels: Mapping[str, Mapping[str, int]],
        *,
        measure: Measure = "ndcg@10",
        folds: int = 10,
        seed: int = 0,
        keep: bool = True,
    ) -> Tuned:
        """Choose mode, fusion and alpha from judged queries, by cross-validation.

        Args:
            queries: Texts by query id, as `penstock.index.read_queries` reads them.
            qrels: Query id to the relevance of its judged documents; 1 or more is relevant.
            measure: What is to be high: ``"ndcg@10"``, ``"recall@100"``, ``"mrr@10"`` or ``"map"``.
            folds: How many times a part of the queries is held out.
            seed: Decides which queries are held out together.
            keep: Whether searches of this store use what was chosen, from the next opening on.

        Returns:
            What was chosen and what it gained on queries held out; the default
            stays unless that gain is more than luck.

        Raises:
            QueryError: Fewer than two queries have a text and a relevant document.
        """
        searcher = self.searcher
        tuned = tune(
            lambda text: searcher.index.sides(searcher.query(text, mode="hybrid")),
            searcher.attributes.doc_ids,
            queries,
            qrels,
            num_rows=searcher.index.num_rows,
            default=Setting(alpha=None),
            measure=measure,
            folds=folds,
            seed=seed,
        )
        if keep:
            change_settings(self.path, **asdict(tuned.setting), tuned=tuned.to_json())
        return tuned

    def rank(
        self,
        query: str,
        k: int,
        *,
        mode: Mode | None = None,
        where: str | None = None,
        fusion: Fusion | None = None,
        alpha: float | None = None,
    ) -> list[IndexHit]:
        """As `search`, but only the chunks' row ids and scores: no text is fetched."""
        searcher = self.searcher
        asked = searcher.query(query, mode=mode, where=where, fusion=fusion, alpha=alpha)
        return searcher.rank(asked, k)

    def doc_ids(self, hits: Sequence[IndexHit]) -> list[str]:
        """The documents of these hits, in their order."""
        ids = np.array([hit.row_id for hit in hits], np.uint64)
        return self.searcher.attributes.doc_ids(ids)

    def _as_of(self, run: str | int) -> Store:
        if run not in self._others:
            self._others[run] = self.at(run)
        return self._others[run]


def _check_tokenizer(tokens: StoredTokens, tokenizer: str | os.PathLike[str]) -> None:
    from penstock.models import tokenizer_json

    if content_hash(tokenizer_json(tokenizer)) != content_hash(tokens.tokenizer_json()):
        raise ConfigError(
            "tokenizer",
            os.fspath(tokenizer)[:80],
            "is not the one that made the store's tokens; use that, or build again with "
            "ps.Tokenize(tokenizer=...) of this one",
        )


def _plain(field: pa.Field) -> pa.Field:
    """A column as it is handed out: vectors as float32, no hints for the file format."""
    if pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float16():
        field = field.with_type(pa.list_(pa.float32(), field.type.list_size))
    return field.remove_metadata()


def _manifest(folder: Place, run: str | int) -> Manifest:
    return read_manifest(folder / "runs" / f"{find_run(folder, run)}.json")


def _read(
    searcher: Searcher, name: TableName, columns: Sequence[str] | None, where: str | None
) -> pa.Table:
    """Rows of a table in its order."""
    if name not in searcher.manifest.tables:
        rows = _SCHEMAS[name].empty_table()
        return rows if columns is None else rows.select(columns)
    dataset = searcher.dataset(name)
    rows_of = searcher.attributes if name == "chunks" else Attributes(dataset)
    names = dataset.schema.names
    wanted = [c for c in names if not is_internal(c)] if columns is None else list(columns)
    order = _SORTED_BY[name]
    rows = rows_of.table(list(dict.fromkeys([*wanted, *order])), where)
    rows = rows.sort_by([(key, "ascending") for key in order]).select(wanted)
    return rows.cast(pa.schema([_plain(field) for field in rows.schema]))


def _final(searcher: Searcher, documents: pa.Table) -> pa.Table:
    """The rows with their final texts; `text_hash` stays that of the uncut ones."""
    final = searcher.edits.final(documents.select(["doc_id", "text"]))
    where = documents.schema.get_field_index("text")
    return documents.set_column(where, documents.schema.field(where), final["text"])
