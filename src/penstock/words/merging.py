"""Join sorted runs of postings into the files of one segment, a range of terms at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.cores import num_cores
from penstock.errors import StoreError
from penstock.kernels import I64, U8, text_buffers
from penstock.words.files import PADDING_BYTES, ArrayFile, write_about

I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]

_RANGE_BYTES = 1 << 20
"""Of records that one task joins: some 20 MB while it works, if no single term has more."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Records of some terms over some rows.

    Attributes:
        data: Records, from `postings.pack`.
        records: (num_terms + 1,) byte where each starts.
        ranks: (num_terms,) the place of each term in the sorted vocabulary of the result.
        new_rows: The row of the result for each row, -1 if it is left out.
    """

    data: U32
    records: npt.NDArray[Any]
    ranks: I64
    new_rows: I32


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Records of a range of terms: of those that occur, by number, with where each ends."""

    terms: I64
    ends: I64
    data: U8


def sort_terms(terms: pa.Array) -> tuple[pa.Array, I64]:
    """Sort a vocabulary by its bytes: the sorted terms, and the rank of each."""
    order = pc.sort_indices(terms).to_numpy(zero_copy_only=False).astype(np.int64)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return terms.take(pa.array(order)), ranks


def join_vocabularies(vocabularies: Sequence[pa.Array]) -> tuple[pa.Array, list[I64]]:
    """The sorted union of some vocabularies, and the rank of each one's terms in it."""
    encoded = pa.chunked_array(vocabularies, pa.large_binary()).combine_chunks()
    encoded = encoded.dictionary_encode()
    terms, ranks = sort_terms(encoded.dictionary)
    all_ranks = ranks[encoded.indices.to_numpy()] if len(encoded) else np.empty(0, np.int64)
    ends = np.cumsum([len(vocabulary) for vocabulary in vocabularies])
    return terms, np.split(all_ranks, ends[:-1])


def write_segment(
    folder: Path,
    about: dict[str, str],
    terms: pa.Array,
    runs: Sequence[Run],
    lengths: I32,
    *,
    ascending: bool,
) -> None:
    """Write a segment's files into a folder.

    Args:
        folder: Exists.
        about: What `words.json` says beside sizes.
        terms: All terms that may occur, sorted.
        runs: Their records.
        lengths: (3, num_rows) of the result.
        ascending: Whether runs one after the other yield ascending rows.

    Cost: memory for the vocabulary, and per core for a range of terms or the
        most frequent term: 16 bytes an occurrence.
    """
    offsets, utf8 = text_buffers(terms)
    num_terms = num_bytes = num_term_bytes = 0
    files = {}
    term_ends, record_ends = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
    terms_file = ArrayFile(folder / "terms.npy", "|u1")
    postings_file = ArrayFile(folder / "postings.npy", "<u4")
    for piece in _pieces(runs, len(terms), lengths, ascending):
        starts, stops = offsets[piece.terms], offsets[piece.terms + 1]
        sizes = stops - starts
        terms_file.write(_gathered(utf8, starts, sizes))
        term_ends.append(num_term_bytes + np.cumsum(sizes))
        record_ends.append(num_bytes + piece.ends)
        postings_file.write(piece.data)
        num_terms += len(piece.terms)
        num_term_bytes += int(sizes.sum())
        num_bytes += len(piece.data)
    postings_file.write(np.zeros(PADDING_BYTES + -num_bytes % 4, np.uint8))
    dtype = "<u4" if max(num_bytes, num_term_bytes) < 1 << 32 else "<u8"
    offsets_file = ArrayFile(folder / "offsets.npy", dtype)
    for ends in (term_ends, record_ends):
        offsets_file.write(np.concatenate(ends).astype(dtype))
    dtype = "<u2" if lengths.max(initial=0) < 1 << 16 else "<i4"
    lengths_file = ArrayFile(folder / "lengths.npy", dtype)
    lengths_file.write(lengths.astype(dtype))
    files["terms.npy"], files["postings.npy"] = terms_file.close(), postings_file.close()
    files["offsets.npy"], files["lengths.npy"] = offsets_file.close(2), lengths_file.close(3)
    sizes_about = {"num_rows": lengths.shape[1], "num_terms": num_terms, "files": files}
    write_about(folder / "words.json", {**about, **sizes_about})


def _pieces(runs: Sequence[Run], num_terms: int, lengths: I32, ascending: bool) -> Iterator[_Piece]:
    """Join all runs, range by range of terms, on as many threads as there are cores."""
    sizes = np.zeros(num_terms, np.int64)
    by_rank = []
    for run in runs:
        np.add.at(sizes, run.ranks, np.diff(run.records.astype(np.int64)))
        order = np.argsort(run.ranks)
        by_rank.append((order, run.ranks[order]))
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if num_terms else 0
    cuts = np.searchsorted(ends, np.arange(0, total, _RANGE_BYTES), side="right")
    bounds = np.unique(np.append(cuts, num_terms)).tolist()
    if bounds[0] != 0:
        bounds.insert(0, 0)

    def join(first: int, end: int) -> _Piece:
        return _join(runs, by_rank, first, end, lengths, ascending)

    ranges = list(pairwise(bounds))
    if len(ranges) <= 1 or num_cores() == 1:
        for first, end in ranges:
            yield join(first, end)
        return
    with ThreadPoolExecutor(num_cores()) as pool:
        waiting: list[Future[_Piece]] = []
        for first, end in ranges:
            waiting.append(pool.submit(join, first, end))
            if len(waiting) > 2 * num_cores():
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _join(
    runs: Sequence[Run],
    by_rank: Sequence[tuple[I64, I64]],
    first: int,
    end: int,
    lengths: I32,
    ascending: bool,
) -> _Piece:
    from penstock.kernels.postings import unpack

    num_terms, num_rows = end - first, lengths.shape[1]
    selected = []
    for run, (order, ranks) in zip(runs, by_rank, strict=True):
        low, high = np.searchsorted(ranks, (first, end))
        if low == high:
            continue
        records = np.full(num_terms, -1, np.int64)
        records[ranks[low:high] - first] = run.records[order[low:high]].astype(np.int64) * 8
        selected.append((run.data, records, run.new_rows))
    counts, found = np.zeros(num_terms, np.int64), np.zeros(num_terms, np.int64)
    nothing = np.empty(0, np.int32)
    for data, records, new_rows in selected:
        if unpack(data, records, new_rows, len(new_rows), counts, found, nothing, nothing):
            raise StoreError("words", "a segment's postings make no sense; rebuild the index")
    pointers = np.append(0, np.cumsum(counts))
    rows, positions = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], np.int32)
    if len(rows):
        cursors = pointers[:-1].copy()
        for data, records, new_rows in selected:
            unpack(data, records, new_rows, len(new_rows), cursors, found, rows, positions)
    if not ascending:
        keys = np.repeat(np.arange(num_terms) * num_rows, counts) + rows
        order = np.argsort(keys, kind="stable")
        rows, positions = rows[order], positions[order]
    terms = np.flatnonzero(counts)
    ends = np.append(pointers[terms], pointers[-1])
    packed_bytes, record_ends = packed(ends, rows, positions, lengths[0])
    return _Piece(first + terms, record_ends[1:], packed_bytes)


def packed(pointers: I64, rows: I32, positions: I32, lengths: I32) -> tuple[U8, I64]:
    """Pack the occurrences of terms into records: bytes, and where each record starts and ends."""
    from penstock.kernels.postings import pack

    num_terms = len(pointers) - 1
    ends, pieces = np.zeros(num_terms + 1, np.int64), []
    lengths = np.ascontiguousarray(lengths)
    done = needed = 0
    while done < num_terms:
        # Untouched zeros cost nothing, so there is no need to guess well.
        words = max(len(rows) + 4 * num_terms, needed // 32) + 16
        data, starts = np.zeros(words, np.uint32), np.zeros(num_terms - done + 1, np.int64)
        n, needed = pack(pointers[done:], rows, positions, lengths, data, starts)
        pieces.append(data.view(np.uint8)[: starts[n]])
        ends[done + 1 : done + n + 1] = ends[done] + starts[1 : n + 1]
        done += n
    return (
        pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, np.empty(0, np.uint8)])
    ), ends


def _gathered(utf8: U8, starts: I64, sizes: I64) -> U8:
    """The bytes of some spans, end to end."""
    if len(starts) == 0:
        return utf8[:0]
    if int(starts[-1] + sizes[-1] - starts[0]) == int(sizes.sum()):
        return utf8[starts[0] : starts[-1] + sizes[-1]]
    before = np.cumsum(sizes) - sizes
    return utf8[np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))]
