"""Bring the token store in step with the kept documents: tokenize, take over, forget.

The rows that the segments hold are compared with those that are wanted, a document's name and
text each by their hashes. What is there stands, whichever run wrote it; what is not is taken over
from a row of the same text, or tokenized.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.arrays import save_mask
from penstock.build.chunks import text_batches
from penstock.build.documents import CHECKPOINT_S
from penstock.build.memory import give_back
from penstock.build.plan import Plan
from penstock.build.report import Counts
from penstock.cores import num_cores
from penstock.engine import Stage
from penstock.errors import StoreError
from penstock.steps.tokenize import DocumentTokenizer
from penstock.store.edits import Edits
from penstock.store.places import LocalFiles, Place, local_files
from penstock.store.tables import Table
from penstock.tiers import first_merged
from penstock.tokens.manifest import SegmentManifest, TokensManifest
from penstock.tokens.order import Order
from penstock.tokens.ragged import gather
from penstock.tokens.segments import Segment, rows_among
from penstock.tokens.stored import count_tokens, samples_fingerprint
from penstock.tokens.write import (
    Rows,
    merge_segments,
    name_hashes,
    row_hashes,
    row_order,
    write_segment,
)

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
        plan: The flow, which has a `Tokenize`.
        documents: The documents, as of this run.
        edits: What is cut out of them.
        place: Of the token store.
        previous: The manifest to start from; None to begin afresh.
        name: What to name its new files by, from `attempt_name`.
        counts: Updated as the phase goes.
        tell: Told when what is there is of no use.
    """

    plan: Plan
    documents: Table
    edits: Edits
    place: Place
    previous: dict[str, Any] | None
    name: str
    counts: Counts
    tell: Callable[[str], None]
    _files: LocalFiles | None = None
    _before: TokensManifest | None = None
    _tokenizer_file: str = ""
    _deleted_files: dict[str, str] = field(default_factory=dict)
    _segments: list[Segment] = field(default_factory=list)
    _missing: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    _rows: list[Rows] = field(default_factory=list)
    _gathered_bytes: int = 0
    _changed: bool = False

    def prepare(self, kept: pa.Array) -> int:
        """Find the documents that need tokenizing, and how many they are."""
        self._open_previous()
        self.clear()
        hashes, row_ids = self._wanted(kept)
        found = np.zeros(len(row_ids), np.bool_)
        for number in reversed(range(len(self._segments))):
            was = self._segments[number]
            now = was.with_live(rows_among(was.hashes, hashes, found))
            self.counts.tokens_removed += int((was.live & ~now.live).sum())
            self._changed |= bool((was.live != now.live).any())
            self._segments[number] = now
        missing = np.flatnonzero(~found)
        missing = missing[np.argsort(row_ids[missing])]  # as the table has them
        rest = self._take_over(hashes[2:, missing], row_ids[missing])
        self._missing = row_ids[missing][rest]
        return len(self._missing)

    def _open_previous(self) -> None:
        if self.previous is None:
            return
        try:
            before = TokensManifest.from_json(self.previous)
            if before.made_by != self.plan.tokenized_by:
                return
            files = local_files(self.place, before.names())
            segments = [Segment.open(files.path, s, before.dtype) for s in before.segments]
        except StoreError as err:
            self.tell(f"making all tokens afresh: {err}")
            return
        self._files, self._before, self._segments = files, before, segments
        self._tokenizer_file = before.tokenizer
        self._deleted_files = {s.folder: s.deleted for s in before.segments if s.deleted}

    @cached_property
    def folder(self) -> Path:
        """Where the files are written and read."""
        folder = (self._files or local_files(self.place)).path
        folder.mkdir(exist_ok=True)
        return folder

    def clear(self) -> None:
        """Delete what this run has written, also in an earlier attempt, and nothing names."""
        kept = set() if self._before is None else set(self._before.names())
        for path in self._of_this_run():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

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
        segments = tuple(self._segments)
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
        assert self.plan.tokenize is not None
        return self.plan.tokenize.open()

    @property
    def _dtype(self) -> str:
        return self.tokenizer.dtype.name if self._before is None else self._before.dtype

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
        """Write what is gathered as a segment, with the older ones that it takes over."""
        if self._rows:
            name = self._new_name("segment")
            write_segment(self.folder / name, self._rows)
            self._rows, self._gathered_bytes = [], 0
            self._settle(self._open(name))

    def _settle(self, new: Segment | None) -> None:
        old = self._segments
        num_new = 0 if new is None else new.num_live
        live, rows = [each.num_live for each in old], [each.num_rows for each in old]
        first = first_merged(live, rows, num_new)
        if first == len(old) and new is None:
            return
        self._changed = True
        parts = [part for part in (*old[first:], new) if part is not None and part.num_live]
        if len(parts) > 1 or (parts and parts[0] is not new):
            name = self._new_name("segment")
            merge_segments(self.folder / name, parts)
            parts = [self._open(name)]
            if new is not None:
                shutil.rmtree(self.folder / new.name)
        self._segments = [*old[:first], *parts]

    def _open(self, name: str) -> Segment:
        num_rows = len(np.load(self.folder / name / "offsets.npy", mmap_mode="r")) - 1
        facts = SegmentManifest(folder=name, deleted=None, num_rows=num_rows, num_deleted=0)
        return Segment.open(self.folder, facts, self._dtype)

    def _new_name(self, kind: str) -> str:
        numbers = [int(path.stem.rpartition("-")[2]) for path in self._of_this_run()]
        return f"{kind}-{self.name}-{max(numbers, default=0) + 1}"

    def _of_this_run(self) -> list[Path]:
        return sorted(self.folder.glob(f"*-{self.name}-*"))

    def progress(self) -> dict[str, Any]:
        """The manifest of what is written so far, for a run to go on from.

        It need not tell what is deleted: the next run finds out.
        """
        return self._manifest([self._facts(each, None) for each in self._segments]).to_json()

    def finish(self) -> dict[str, Any]:
        """Write the rest; the manifest to publish."""
        self.flush()
        self._settle(None)
        if self._before is not None and self._before.fingerprint and not self._changed:
            return self._before.to_json()
        segments = [self._facts(each, self._deleted_file(each)) for each in self._segments]
        order = Order.of(self._segments)
        name = None
        if order.starts is not None:
            name = self._new_name("order")
            order.save(self.folder / name)
        give_back()
        self._before = self._manifest(
            segments,
            order=name,
            num_samples=order.num_samples,
            num_tokens=count_tokens(self._segments),
            fingerprint=samples_fingerprint(self.plan.tokenized_by, self._segments),
        )
        return self._before.to_json()

    def _manifest(self, segments: list[SegmentManifest], **facts: Any) -> TokensManifest:
        step = self.plan.tokenize
        assert step is not None
        if not self._tokenizer_file:
            self._tokenizer_file = self._new_name("tokenizer") + ".json"
            (self.folder / self._tokenizer_file).write_bytes(step.json)
        return TokensManifest(
            made_by=self.plan.tokenized_by,
            tokenizer=self._tokenizer_file,
            settings={
                "start_of_document": step.start_of_document,
                "end_of_document": step.end_of_document,
            },
            dtype=self._dtype,
            segments=tuple(segments),
            **facts,
        )

    def _facts(self, segment: Segment, deleted: str | None) -> SegmentManifest:
        return SegmentManifest(
            folder=segment.name,
            deleted=deleted,
            num_rows=segment.num_rows,
            num_deleted=0 if deleted is None else segment.num_rows - segment.num_live,
        )

    def _deleted_file(self, segment: Segment) -> str | None:
        """The file of a segment's deleted rows, written unless an earlier run's is the same."""
        if segment.deleted is None:
            return None
        name = self._new_name("deleted") + ".npy"
        save_mask(self.folder / name, segment.deleted)
        earlier = self._deleted_files.get(segment.name)
        if earlier is not None:
            new = self.folder / name
            if new.read_bytes() == (self.folder / earlier).read_bytes():
                new.unlink()
                return earlier
        return name


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
