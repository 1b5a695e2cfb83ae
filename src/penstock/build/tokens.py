"""Bring the token store in step with the kept documents: tokenize, take over, forget.

The rows that the segments hold are compared with those that are wanted, a document's name and
text each by their hashes. What is there stands, whichever run wrote it; what is not is taken over
from a row of the same text, or tokenized.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.build.chunks import text_batches
from penstock.build.decide import kept_documents
from penstock.build.documents import CHECKPOINT_S
from penstock.build.memory import give_back
from penstock.build.rebuild import rebuild
from penstock.build.report import Counts
from penstock.cores import num_cores
from penstock.engine import Stage, run_stages
from penstock.errors import StoreError
from penstock.steps.tokenize import DocumentTokenizer, Tokenize
from penstock.store.edits import Edits
from penstock.store.manifest import Manifest
from penstock.store.places import Place, local_files
from penstock.store.tables import Table, open_table, take_rows
from penstock.tokens.manifest import TokensManifest
from penstock.tokens.ragged import gather
from penstock.tokens.segments import Segment, rows_among
from penstock.tokens.update import TokensUpdate, new_name
from penstock.tokens.write import Rows, name_hashes, row_hashes, row_order

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_WINDOW_BYTES = 256 << 10
"""Text tokenized at a time: a tenth of a second, so that Ctrl-C is answered soon."""

_TAKEN_ROWS = 4096

_FLUSH_BYTES = 64 << 20
"""Tokens gathered before they are written as a segment. Bounds memory."""


@dataclass(kw_only=True)
class Tokens:
    """The token store and what is gathered for it.

    Attributes:
        step: How tokens are made.
        documents: The documents, as of this run.
        edits: What is cut out of them.
        place: Of the token store.
        previous: The manifest to start from; None to begin afresh.
        name: What to name its new files by, from `attempt_name`.
        counts: Updated as the phase goes.
        tell: Told when what is there is of no use.
    """

    step: Tokenize
    documents: Table | _Rows
    edits: Edits
    place: Place
    previous: dict[str, Any] | None
    name: str
    counts: Counts
    tell: Callable[[str], None]
    _update: TokensUpdate | None = None
    _missing: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    _rows: list[Rows] = field(default_factory=list)
    _gathered_bytes: int = 0

    def prepare(self, kept: pa.Array) -> int:
        """Find the documents that need tokenizing, and how many they are."""
        update = self._update = self._opened() or self._afresh()
        hashes, row_ids = self._wanted(kept)
        found = np.zeros(len(row_ids), np.bool_)
        for number in reversed(range(len(update.segments))):
            live = rows_among(update.segments[number].hashes, hashes, found)
            self.counts.tokens_removed += update.keep(number, live)
        missing = np.flatnonzero(~found)
        missing = missing[np.argsort(row_ids[missing])]  # as the table has them
        rest = self._take_over(hashes[2:, missing], row_ids[missing])
        self._missing = row_ids[missing][rest]
        return len(self._missing)

    def _opened(self) -> TokensUpdate | None:
        """The token store as it is, unless it is damaged or of another kind."""
        if self.previous is None:
            return None
        try:
            before = TokensManifest.from_json(self.previous)
            if before.made_by != self.step.fingerprint():
                return None
            files = local_files(self.place, before.names())
            return TokensUpdate(files.path, before, self.name)
        except StoreError as err:
            self.tell(f"making all tokens afresh: {err}")
            return None

    def _afresh(self) -> TokensUpdate:
        folder, step = local_files(self.place).path, self.step
        folder.mkdir(exist_ok=True)
        tokenizer = new_name(folder, "tokenizer", self.name) + ".json"
        (folder / tokenizer).write_bytes(step.json)
        before = TokensManifest(
            made_by=step.fingerprint(),
            tokenizer=tokenizer,
            settings={
                "start_of_document": step.start_of_document,
                "end_of_document": step.end_of_document,
            },
            dtype=self.tokenizer.dtype.name,
        )
        return TokensUpdate(folder, before, self.name)

    @property
    def update(self) -> TokensUpdate:
        """The update that is under way."""
        assert self._update is not None
        return self._update

    def _wanted(self, kept: pa.Array) -> tuple[U64, U64]:
        """Hashes, as a segment has them, and row ids of the kept documents, in the store's order.

        Cost: some 100 bytes a document.
        """
        parts, ids = [np.empty((4, 0), np.uint64)], [np.empty(0, np.uint64)]
        for batch in self.documents.batches(["doc_id", "text_hash"]):
            final = self.edits.final(pa.Table.from_batches([batch]))
            parts.append(row_hashes(batch["doc_id"], _one(final["text_hash"])))
            ids.append(batch["_rowid"].to_numpy().copy())
        hashes = np.concatenate(parts, axis=1)
        order = row_order(hashes)
        hashes = np.ascontiguousarray(hashes[:, order])
        wanted = name_hashes(kept)
        stays = rows_among(hashes, np.ascontiguousarray(wanted[:, row_order(wanted)]))
        return np.ascontiguousarray(hashes[:, stays]), np.concatenate(ids)[order][stays]

    def _take_over(self, texts: U64, row_ids: U64) -> npt.NDArray[np.bool_]:
        """Add the documents whose text has tokens already; which of them are left."""
        segments = tuple(self.update.segments)
        owner, place = _known_texts(segments, texts)
        known = np.flatnonzero(owner >= 0)
        parts = [(segment.tokens, segment.offsets) for segment in segments]
        for start in range(0, len(known), _TAKEN_ROWS):
            some = known[start : start + _TAKEN_ROWS]
            rows = self.edits.final(self.documents.take(row_ids[some], ["doc_id", "text_hash"]))
            tokens, offsets = gather(parts, owner[some], place[some])
            self._gather(Rows(_one(rows["doc_id"]), _one(rows["text_hash"]), tokens, offsets))
        self.counts.tokens_reused += len(known)
        return owner < 0

    @cached_property
    def tokenizer(self) -> DocumentTokenizer:
        """What makes the tokens."""
        return self.step.open()

    def work(self) -> Iterator[pa.Table]:
        """Batches of documents to tokenize."""
        columns = ["doc_id", "text_hash", "text"]
        return text_batches(self.documents, self.edits, self._missing, columns, _WINDOW_BYTES)

    def stages(self) -> list[Stage]:
        """Tokenize."""
        if not len(self._missing):
            return []
        function = _Tokenizing(self.tokenizer)
        return [Stage(name="Tokenize", function=function, width=num_cores(), count=_num_rows)]

    def add(self, rows: Rows) -> None:
        """Take in one batch that was tokenized, in order."""
        self.counts.documents_tokenized += rows.num_rows
        self._gather(rows)

    def _gather(self, rows: Rows) -> None:
        self._rows.append(rows)
        self._gathered_bytes += rows.tokens.nbytes + rows.doc_id.nbytes
        if self._gathered_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered."""
        if self._rows:
            self.update.write(self._rows)
            self._rows, self._gathered_bytes = [], 0

    def progress(self) -> dict[str, Any]:
        """The manifest of what is written so far, for a run to go on from."""
        return self.update.progress().to_json()

    def finish(self) -> dict[str, Any]:
        """Write the rest; the manifest to publish."""
        self.flush()
        manifest = self.update.finish()
        give_back()
        return manifest.to_json()


@dataclass(frozen=True)
class _Tokenizing:
    tokenizer: DocumentTokenizer

    def __call__(self, documents: pa.Table) -> Rows:
        tokens, offsets = self.tokenizer.encode(_one(documents["text"]))
        # Copied, for columns from Lance keep all columns of their batch alive.
        every = pa.array(np.arange(len(documents)))
        names, texts = (_one(documents[name]).take(every) for name in ("doc_id", "text_hash"))
        return Rows(names, texts, tokens, offsets)


def run_tokens(
    phase: Tokens,
    run: Callable[[Iterator[Any], list[Stage]], Iterator[Any]],
    checkpoint: Callable[[], None],
) -> None:
    """Pull every batch through the pipeline, saving progress at intervals."""
    saved = time.monotonic()
    for rows in run(phase.work(), phase.stages()):
        phase.add(rows)
        if time.monotonic() - saved > CHECKPOINT_S:
            phase.flush()
            checkpoint()
            saved = time.monotonic()


def rebuild_tokens(
    store: str | os.PathLike[str], tell: Callable[[str], None] = lambda message: None
) -> int:
    """Make a store's tokens anew from its documents, and publish them as a new run.

    Nothing else of the run changes. Readers of earlier runs go on as they can.

    Returns:
        How many documents were tokenized.

    Raises:
        StoreError: There is no store, it holds no tokens, or its tokenizer is damaged.
        LeaseError: Another process is writing the store.
    """

    def make(place: Place, last: Manifest, name: str) -> tuple[dict[str, Any], int]:
        assert last.tokens is not None, "`rebuild` looks"
        tables = {
            table: open_table(place / f"{table}.lance", version)
            for table, version in last.tables.items()
        }
        counts = Counts()
        phase = Tokens(
            step=_step_of(place / "tokens", TokensManifest.from_json(last.tokens)),
            documents=_Rows(tables["documents"]),
            edits=Edits(tables.get("edits")),
            place=place / "tokens",
            previous=None,
            name=name,
            counts=counts,
            tell=tell,
        )
        verdicts = tables["verdicts"].to_table(columns=["doc_id", "verdict"]).sort_by("doc_id")
        phase.prepare(kept_documents(verdicts))
        run_tokens(phase, run_stages, lambda: None)
        return phase.finish(), counts.documents_tokenized

    missing = "its last run has no tokens; add Tokenize() to its flow"
    return rebuild(store, "tokens", missing, make)


@dataclass(frozen=True)
class _Rows:
    """A table at one version, read as `Table` reads."""

    dataset: Any

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """As `Table.batches`."""
        scanner = self.dataset.scanner(columns=list(columns), with_row_id=True, batch_size=4096)
        yield from scanner.to_batches()

    def take(self, row_ids: U64, columns: Sequence[str]) -> pa.Table:
        """As `Table.take`."""
        return take_rows(self.dataset, row_ids, columns)


def _step_of(folder: Place, manifest: TokensManifest) -> Tokenize:
    """The step that made these tokens."""
    files = local_files(folder, [manifest.tokenizer])
    try:
        text = (files.path / manifest.tokenizer).read_text()
    except (OSError, ValueError) as err:
        raise StoreError(str(folder), f"its tokenizer is lost ({err}); build again") from err
    step = Tokenize(tokenizer=text, **manifest.settings)
    if step.fingerprint() != manifest.made_by:
        raise StoreError(str(folder), "its tokenizer is damaged; build again with its flow")
    return step


def _known_texts(segments: tuple[Segment, ...], texts: U64) -> tuple[I64, I64]:
    """Where some row, deleted or not, has each text: its segment, -1 for none, and its place."""
    distinct, back = np.unique(texts[0], return_inverse=True)
    owner = np.full(len(distinct), -1, np.int64)
    place = np.zeros(len(distinct), np.int64)
    for number, segment in enumerate(segments):
        if len(distinct) == 0:
            break
        at = np.searchsorted(distinct, segment.hashes[2])
        at[at == len(distinct)] = 0
        hits = np.flatnonzero(distinct[at] == segment.hashes[2])
        owner[at[hits]], place[at[hits]] = number, hits
    owner, place = owner[back], place[back]
    for number, segment in enumerate(segments):
        # Another text may have the same first half of its hash.
        mine = np.flatnonzero(owner == number)
        owner[mine[segment.hashes[3][place[mine]] != texts[1][mine]]] = -1
    return owner, place


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def _num_rows(rows: Rows) -> int:
    return rows.num_rows
