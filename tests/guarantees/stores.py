"""All that a store holds and answers, as plain values that two stores can be compared by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import penstock as ps
from penstock.errors import QueryError

Contents = dict[str, Any]

QUERIES = ("w1 w2", "w7 part", "Capital w13", "w1*", '"w5 w6"', "wapital", "")
"""Words, a beginning, a phrase, one mistyped, and nothing."""


_OF_TIME = {"items": ("version",), "failures": ("tries",)}
"""Columns that tell of when, not of what."""


def assert_stores_equal(one: Path, other: Path, queries: Sequence[str] = QUERIES) -> None:
    """Everything of two stores is the same, to the last bit: rows, vectors, what searches find."""
    assert_same(read_all(one, queries), read_all(other, queries))


def assert_same(found: Contents, expected: Contents) -> None:
    """As `==`, telling which parts differ, and of the first of them what only one side has."""
    parts = dict.fromkeys([*expected, *found])
    # An empty table is as good as none.
    differs = [part for part in parts if found.get(part, []) != expected.get(part, [])]
    if differs:
        one, other = (_listed(contents.get(differs[0])) for contents in (found, expected))
        raise AssertionError(
            f"these differ: {', '.join(differs)}\nof {differs[0]} only found:\n"
            + "\n".join(f"  {row}" for row in one if row not in other)
            + "\nonly expected:\n"
            + "\n".join(f"  {row}" for row in other if row not in one)
        )


def _listed(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return [(*where, value) for where, value in _leaves(part)]
    return list(part or ())


def _leaves(part: Any, where: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(part, (dict, list)):
        pairs = part.items() if isinstance(part, dict) else enumerate(part)
        return [leaf for key, value in pairs for leaf in _leaves(value, (*where, key))]
    return [(where, part)]


def read_all(path: Path, queries: Sequence[str] = QUERIES) -> Contents:
    """Every row of every table, hidden columns too, the funnel, and what searches find."""
    return read_run(ps.Store.open(path), queries)


def read_run(store: ps.Store, queries: Sequence[str] = QUERIES) -> Contents:
    """As `read_all`, of the run that a `Store` shows."""
    counts = store.manifest.counts
    contents: Contents = {name: _rows(store, name) for name in sorted(store.manifest.tables)}
    contents["funnel"] = counts["funnel"]
    contents["totals"] = [counts[of] for of in ("documents", "kept", "chunks", "failures")]
    if store.manifest.index is not None:
        contents["found"] = {query: _found(store, query) for query in queries}
    contents["tokens"] = [] if store.manifest.tokens is None else samples_of(store)
    return contents


def samples_of(store: ps.Store) -> list[Any]:
    """What names all samples, and each in its order."""
    tokens = store.tokens()
    every = np.arange(tokens.num_samples)
    values, begins = tokens.gather(every)
    rows = [values[low:high].tolist() for low, high in pairwise(begins)]
    names = tokens.doc_ids(every).to_pylist()
    facts = [tokens.fingerprint, tokens.num_tokens, tokens.lengths(0, len(every)).tolist()]
    return [*facts, *zip(names, rows, strict=True)]


def _rows(store: ps.Store, table: Any) -> list[dict[str, Any]]:
    rows = store.dataset(table).to_table()
    if "embedding" in rows.schema.names:
        rows = _with_bits(rows)
    names = sorted(set(rows.schema.names) - set(_OF_TIME.get(table, ())))
    return sorted(rows.select(names).to_pylist(), key=repr)


def _with_bits(rows: pa.Table) -> pa.Table:
    """Vectors as whole numbers: NaN equals itself then, and 0.0 is not -0.0."""
    column = rows["embedding"].combine_chunks()
    dim = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    flat = flat.view(f"uint{8 * flat.itemsize}")
    bits = pa.FixedSizeListArray.from_arrays(pa.array(flat), dim)
    return rows.set_column(rows.schema.get_field_index("embedding"), "embedding", bits)


def _found(store: ps.Store, query: str) -> dict[str, Any]:
    """What a query finds in every way of asking, in order and with scores."""
    found: dict[str, Any] = {}
    modes = ("words", "vector", "hybrid") if store.manifest.flow.get("embed") else ("words",)
    for mode in modes:
        few = store.search(query, 3, mode=mode)  # type: ignore[arg-type]
        many = store.search(query, 1000, mode=mode, typos=1, facets=["media_type"])  # type: ignore[arg-type]
        found[mode] = [list(few), list(many), many.facets]
        with suppress(QueryError):  # a store without chunks knows no field of the metadata
            some = store.search(query, 5, mode=mode, where="num_bytes > 20", per_document=1)  # type: ignore[arg-type]
            found[mode].append(list(some))
    if "hybrid" in found:
        found["rrf"] = list(store.search(query, 5, fusion="rrf"))
    return found
