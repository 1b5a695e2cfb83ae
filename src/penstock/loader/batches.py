"""A rank's share of a step, as a dict of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from penstock.loader.array_samples import ArraySamples
from penstock.loader.memory import Memory
from penstock.loader.plan import Plan, Rules, Step
from penstock.loader.samples import I32, I64, Samples, Tokens

Batch = dict[str, Any]


class Share(NamedTuple):
    """The pieces that one rank has in a step, row after row."""

    sources: I32 | None
    positions: I64
    starts: I64
    lengths: I32
    rows: I64
    """Where each row's pieces begin, and the end."""


def share(step: Step, rank: int, world_size: int, wanted: int | None) -> Share:
    """Every `world_size`-th of a step's rows, from the one of this rank's number on.

    Args:
        step: The step.
        rank: From 0.
        world_size: How many ranks there are.
        wanted: Rows of a whole step, to fill up to with empty ones; None: a rank
            that would have none gets one.
    """
    if world_size == 1 and len(step.parts) == 1 and step.num_rows >= (wanted or 1):
        return _whole(*step.parts[0])
    pieces: list[tuple[Plan, I64]] = []
    row_sizes, before = [np.zeros(1, np.int64)], 0
    for plan, first, last in step.parts:
        # The first row of these whose number in the step is this rank's, modulo world_size.
        rows = np.arange(first + (rank - before) % world_size, last, world_size)
        sizes = plan.rows[rows + 1] - plan.rows[rows]
        pieces.append((plan, _pieces(plan, rows, sizes)))
        row_sizes.append(sizes)
        before += last - first
    num_rows = sum(map(len, row_sizes)) - 1
    full = 1 if wanted is None else len(range(rank, wanted, world_size))
    row_sizes.append(np.zeros(max(0, full - num_rows), np.int64))
    sources = None
    if pieces[0][0].sources is not None:
        sources = _joined([plan.sources[chosen] for plan, chosen in pieces])  # type: ignore[index]
    return Share(
        sources,
        _joined([plan.positions[chosen] for plan, chosen in pieces]),
        _joined([plan.starts[chosen] for plan, chosen in pieces]),
        _joined([plan.lengths[chosen] for plan, chosen in pieces]),
        np.cumsum(np.concatenate(row_sizes)),
    )


def _whole(plan: Plan, first: int, last: int) -> Share:
    """Neighbouring rows, without a copy."""
    rows = plan.rows[first : last + 1]
    chosen = slice(rows[0], rows[-1])
    sources = None if plan.sources is None else plan.sources[chosen]
    columns = plan.positions[chosen], plan.starts[chosen], plan.lengths[chosen]
    return Share(sources, *columns, rows - rows[0])


def _pieces(plan: Plan, rows: I64, sizes: I64) -> I64:
    """The places of these rows' pieces."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(plan.rows[rows] - before, sizes) + np.arange(int(sizes.sum()))


def _joined(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def read(
    kinds: Sequence[Samples],
    part: Share,
    rules: Rules,
    memory: Memory,
    *,
    pad_token: int,
    doc_ids: bool,
) -> Batch:
    """Read a share's tokens and lay them out; all but `num_label_tokens`."""
    from penstock.kernels.batching import fill

    flat, begins = _gather(kinds, part)
    flat = flat.view()
    flat.flags.writeable = False  # one kind of argument, so one compiled function
    num_rows = len(part.rows) - 1
    if rules.packed:
        assert rules.seq_len is not None
        width = rules.seq_len
    else:
        width = max(1, int(part.lengths.max(initial=0)))
    shape, most_ends = (num_rows, width), len(part.lengths) + num_rows + 1
    labels, tokens, positions, segments, ends = memory.arrays(
        *((shape, np.int64), (shape, np.int32), (shape, np.int32), (shape, np.int32)),
        ((most_ends,), np.int32),
    )
    used, longest = fill(
        *(flat, begins, part.lengths, part.rows, pad_token),
        *(tokens, labels, positions, segments, ends),
    )
    batch: Batch = {
        "tokens": tokens,
        "labels": labels,
        "position_ids": positions,
        "segment_ids": segments,
        "cu_seqlens": ends[:used],
        "max_seqlen": int(longest),
    }
    if not rules.packed:
        batch["lengths"] = np.zeros(num_rows, np.int32)
        batch["lengths"][: len(part.lengths)] = part.lengths
    if doc_ids:
        batch["doc_ids"] = _doc_ids(kinds, part)
    return batch


def _gather(kinds: Sequence[Samples], part: Share) -> tuple[Tokens, I64]:
    """An array that has the tokens of all pieces, and where each piece's begin."""
    if not len(part.positions):
        return np.empty(0, kinds[0].dtype), np.empty(0, np.int64)
    if part.sources is None:
        return _find(kinds[0], part.positions, part.starts, part.lengths)
    begins, flats, before = np.empty(len(part.positions), np.int64), [], 0
    for number, samples in enumerate(kinds):
        mine = np.flatnonzero(part.sources == number)
        if len(mine):
            flat, offsets = samples.gather(
                part.positions[mine], part.starts[mine], part.lengths[mine]
            )
            begins[mine] = offsets[:-1] + before
            flats.append(flat)
            before += len(flat)
    return np.concatenate(flats), begins


def _find(samples: Samples, positions: I64, starts: I64, lengths: I32) -> tuple[Tokens, I64]:
    """The pieces in place where all tokens are in one array, else gathered."""
    if isinstance(samples, ArraySamples):
        return samples.find(positions, starts, lengths)
    flat, offsets = samples.gather(positions, starts, lengths)
    return flat, offsets[:-1]


def _doc_ids(kinds: Sequence[Samples], part: Share) -> list[str]:
    if part.sources is None:
        ids: list[str] = kinds[0].doc_ids(part.positions).to_pylist()
        return ids
    named = np.empty(len(part.positions), object)
    for number, samples in enumerate(kinds):
        mine = np.flatnonzero(part.sources == number)
        named[mine] = samples.doc_ids(part.positions[mine]).to_pylist()
    return list(named)
