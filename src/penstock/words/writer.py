"""Write a segment's words: texts are inverted in batches, and the batches joined by term."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.cores import num_cores
from penstock.errors import ConfigError
from penstock.kernels import I64
from penstock.words.analysis import Analyzer, analysis_version
from penstock.words.files import PADDING_BYTES, Words
from penstock.words.merging import Run, join_vocabularies, packed, sort_terms, write_segment
from penstock.words.settings import DEFAULT, WordsSettings

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1 << 16
_MEMORY_BYTES = 256 << 20
"""Of inverted batches; beyond it they wait in a file."""


class WordsWriter:
    """Writes one segment's words into a new folder, whole when the `with` block ends.

    After an exception the folder is removed. What is written is a pure function
    of the rows: batches and cores leave no trace.

    Args:
        folder: New folder, made here.
        settings: Of which only `language` matters.

    Raises:
        FileExistsError: The folder exists.

    Cost: texts of some 12 MB a core and 50 bytes per distinct term, and what
        `merging.write_segment` takes. Large segments write a temporary file
        beside the result, of a quarter of the texts' size.
    """

    def __init__(self, folder: Path, settings: WordsSettings = DEFAULT) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True)
        self._analyzer = Analyzer(settings.language)
        self._runs: list[_Inverted] = []
        self._pending: list[tuple[pa.Array, pa.Array, pa.Array]] = []
        self._pending_bytes = self._pending_rows = self._memory_bytes = self._num_rows = 0
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: list[Future[_Inverted]] = []
        self._spill: IO[bytes] | None = None

    def add(
        self,
        titles: pa.Array | pa.ChunkedArray,
        headings: pa.Array | pa.ChunkedArray,
        texts: pa.Array | pa.ChunkedArray,
    ) -> None:
        """Add rows after those added before.

        Args:
            titles: Strings; a null is empty, as in the next two. Counts twice.
            headings: Of the same length.
            texts: Of the same length.
        """
        columns = [_strings(column) for column in (titles, headings, texts)]
        num_rows = len(columns[2])
        if any(len(column) != num_rows for column in columns):
            lengths = ", ".join(str(len(column)) for column in columns)
            raise ConfigError("rows", lengths, "titles, headings and texts must be as many")
        sizes = sum(_sizes(column) for column in columns)
        ends = np.cumsum(sizes)
        first = 0
        while first < num_rows:
            before = int(ends[first - 1]) if first else 0
            room = _BATCH_BYTES - self._pending_bytes
            end = int(np.searchsorted(ends, before + room, side="left")) + 1
            end = min(end, num_rows, first + _BATCH_ROWS - self._pending_rows)
            titles_, headings_, texts_ = (column[first:end] for column in columns)
            self._pending.append((titles_, headings_, texts_))
            self._pending_bytes += int(ends[end - 1]) - before
            self._pending_rows += end - first
            if self._pending_bytes >= _BATCH_BYTES or self._pending_rows >= _BATCH_ROWS:
                self._submit()
            first = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException:
            kind = BaseException
            raise
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
            if self._spill is not None:
                self._spill.close()
            if kind is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(self) -> None:
        columns = [pa.concat_arrays(pieces) for pieces in zip(*self._pending, strict=True)]
        first_row = self._num_rows
        self._num_rows += self._pending_rows
        self._pending, self._pending_bytes, self._pending_rows = [], 0, 0
        if self._pool is None:
            self._pool = ThreadPoolExecutor(num_cores())
        self._waiting.append(self._pool.submit(_invert, self._analyzer, first_row, columns))
        while len(self._waiting) > num_cores() + 1:
            self._keep(self._waiting.pop(0).result())

    def _keep(self, run: _Inverted) -> None:
        """Hold a batch until the end, in memory while there is not too much."""
        self._memory_bytes += run.data.nbytes
        if self._memory_bytes > _MEMORY_BYTES:
            if self._spill is None:
                self._spill = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            at = self._spill.seek(0, 2)
            self._spill.write(run.data.tobytes())
            self._spill.flush()
            mapped = np.memmap(self._spill, np.uint32, "r", at, run.data.shape)
            run = _Inverted(mapped.view(np.ndarray), run.records, run.terms, run.lengths)
        self._runs.append(run)

    def _finish(self) -> None:
        if self._pool is not None:
            if self._pending:
                self._submit()
            for future in self._waiting:
                self._keep(future.result())
        elif self._pending:  # few rows: a thread would only cost
            columns = [pa.concat_arrays(pieces) for pieces in zip(*self._pending, strict=True)]
            self._keep(_invert(self._analyzer, 0, columns))
        terms, ranks = sort_terms(self._analyzer.vocabulary())
        runs, first = [], 0
        for run in self._runs:
            rows = np.arange(first, first + run.lengths.shape[1], dtype=np.int32)
            first += len(rows)
            runs.append(Run(run.data, run.records, ranks[run.terms], rows))
        lengths = [np.empty((3, 0), np.int32), *(run.lengths for run in self._runs)]
        about = _about(self._analyzer.language, analysis_version(self._analyzer.language))
        write_segment(
            self._folder, about, terms, runs, np.concatenate(lengths, axis=1), ascending=True
        )


class _Inverted:
    """A batch of rows, inverted: `Run` without what is only known in the end."""

    __slots__ = ("data", "lengths", "records", "terms")

    def __init__(self, data: U32, records: I64, terms: I32, lengths: I32) -> None:
        self.data, self.records, self.terms, self.lengths = data, records, terms, lengths


def merge_words(
    folder: Path, parts: Sequence[tuple[Words, Mask | None]], order: I64 | None = None
) -> None:
    """Write a new segment of the kept rows of the parts, in that order; texts are not read.

    What is written is, byte for byte, what `WordsWriter` would write of the same rows.

    Args:
        folder: New folder, made here; removed after an exception.
        parts: Each with a mask of the rows to keep, (num_rows,); None for all.
        order: If given, a permutation: place i of the result is row `order[i]` of the
            kept rows of all parts, one after the other.

    Raises:
        FileExistsError: The folder exists.
        ConfigError: A mask or the order is not of the right length; parts differ in analysis.
        StoreError: A part's files are damaged.
    """
    folder = Path(folder)
    if len({words.analysis for words, _ in parts}) != 1:
        found = sorted({words.analysis for words, _ in parts})
        raise ConfigError("parts", found, "must be one or more of the same analysis")
    new_rows, lengths, num_rows = [], [], 0
    for words, keep in parts:
        kept = np.ones(words.num_rows, np.bool_) if keep is None else np.asarray(keep, np.bool_)
        if kept.shape != (words.num_rows,):
            raise ConfigError("keep", kept.shape, f"must be ({words.num_rows},), one per row")
        names = np.cumsum(kept, dtype=np.int64) - 1 + num_rows
        num_rows += int(kept.sum())
        new_rows.append(np.where(kept, names, -1))
        lengths.append(words.lengths[:, kept])
    all_lengths = np.concatenate(lengths, axis=1, dtype=np.int32, casting="unsafe")
    if order is not None:
        places = np.full(num_rows + 1, -1, np.int64)  # the last is that of rows left out
        order = np.asarray(order, np.int64)
        if order.shape == (num_rows,) and ((order >= 0) & (order < num_rows)).all():
            places[order] = np.arange(num_rows)
        if order.shape != (num_rows,) or (places[:-1] < 0).any():
            raise ConfigError("order", order.shape, f"must be a permutation of {num_rows} rows")
        new_rows = [places[rows] for rows in new_rows]
        all_lengths = all_lengths[:, order]
    terms, ranks = join_vocabularies([_vocabulary(words) for words, _ in parts])
    runs = [
        Run(words.postings, words.record_offsets, rank, rows.astype(np.int32))
        for (words, _), rank, rows in zip(parts, ranks, new_rows, strict=True)
    ]
    folder.mkdir(parents=True)
    try:
        about = _about(parts[0][0].language, parts[0][0].analysis)
        write_segment(
            folder, about, terms, runs, np.ascontiguousarray(all_lengths), ascending=order is None
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _invert(analyzer: Analyzer, first_row: int, columns: Sequence[pa.Array]) -> _Inverted:
    from penstock.kernels.words import invert

    analyzed = analyzer.analyze(*columns)
    titles, headings, texts = analyzed.columns
    terms, pointers, rows, positions, lengths = invert(
        titles.rows,
        titles.words,
        headings.rows,
        headings.words,
        texts.rows,
        texts.words,
        analyzed.word_ends,
        analyzed.word_terms,
        analyzed.num_terms,
    )
    data, records = packed(pointers, rows, positions, lengths[0])
    padded = np.zeros((len(data) + PADDING_BYTES + 3) // 4, np.uint32)
    padded.view(np.uint8)[: len(data)] = data
    padded.flags.writeable = False
    return _Inverted(padded, records, terms, lengths)


def _about(language: str, analysis: str) -> dict[str, str]:
    return {"language": language, "analysis": analysis}


def _vocabulary(words: Words) -> pa.Array:
    offsets = words.term_offsets.astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(words.terms))]
    return pa.Array.from_buffers(pa.large_binary(), words.num_terms, buffers)


def _strings(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.cast(pa.large_string())


def _sizes(column: pa.Array) -> I64:
    """Bytes of each row, and one for the row itself."""
    offsets = np.frombuffer(column.buffers()[1], np.int64) if len(column) else np.zeros(1, np.int64)
    return np.diff(offsets[column.offset : column.offset + len(column) + 1]) + 1
