"""Which of several documents is best: an order by columns, as SQL's ORDER BY has it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConfigError, QueryError
from penstock.kernels import I64

Order: TypeAlias = tuple[tuple[str, bool], ...]
"""Columns, and whether the largest value comes first."""

Values: TypeAlias = Callable[[str, pa.Array], pa.Array]
"""Gives a column, or a field of the metadata, of documents by `doc_id`."""

_NAME = r'[^\W\d][\w.]*|"[^"]+"'
_KEY = re.compile(
    rf"\s*(?:(?P<best>max|min)\s*\(\s*(?P<in>{_NAME})\s*\)"
    rf"|(?P<name>{_NAME})\s+(?P<way>asc|desc))\s*",
    re.IGNORECASE,
)


def parse_order(setting: str, text: str) -> Order:
    """Columns and directions of ``"stars DESC, date ASC"``; ``max(stars)`` is ``stars DESC``.

    Raises:
        ConfigError: It is no such order.
    """
    keys = []
    for part in text.split(","):
        found = _KEY.fullmatch(part)
        if found is None:
            problem = (
                'must be "first", "longest", or columns with ASC or DESC, such as '
                '"metadata.stars DESC, date ASC", or max(column) or min(column)'
            )
            raise ConfigError(setting, text, problem)
        name = (found["in"] or found["name"]).strip('"')
        word = (found["best"] or found["way"]).lower()
        keys.append((name, word in ("max", "desc")))
    return tuple(keys)


def ranked(order: Order, doc_id: pa.Array, values: Values) -> I64:
    """Places of the documents, the best first; without a value last, equal ones in their order.

    Raises:
        QueryError: There is no such column, or it cannot be put in order.
    """
    columns = [values(name, doc_id) for name, _ in order]
    for (name, _), column in zip(order, columns, strict=True):
        if pa.types.is_nested(column.type):
            raise QueryError(
                f"keep by {name!r}", f"{column.type} has no order; name another column"
            )
    keys = {f"key_{i}": column for i, column in enumerate(columns)}
    keys["place"] = pa.array(np.arange(len(doc_id)))
    by: Sequence[tuple[str, str]] = [
        *((f"key_{i}", "descending" if largest else "ascending")
          for i, (_, largest) in enumerate(order)),
        ("place", "ascending"),
    ]  # fmt: skip
    places = pc.sort_indices(pa.table(keys), sort_keys=by)
    return np.asarray(places, np.int64)
