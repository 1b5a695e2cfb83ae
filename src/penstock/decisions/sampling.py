"""Keep a part of the corpus: a share, a budget, or a mixture of groups.

All of these go by a hash of each document's identifier (or of a field), never
by chance or by order of arrival: the documents that stay are a function of the
set of documents, and a larger share keeps all that a smaller one kept.

Tokens are estimated as a quarter of the text's bytes in UTF-8, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as setting  # a setting of ours is called field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.decisions._metadata import check_field, field_values
from penstock.errors import ConfigError
from penstock.kernels import I64, text_buffers
from penstock.records import VERDICTS, hash_column

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

BYTES_PER_TOKEN = 4
"""What a token takes in the estimate."""

_DECIDES = {"fingerprint": False}
_SIZED = pa.struct(
    [pa.field("key", pa.uint64()), pa.field("tokens", pa.int64()), pa.field("group", pa.string())]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Keep about this share of the documents, chosen by a hash of their identifiers.

    With a `field`, documents of the same value there stay or go together, and
    those without the field go by their identifiers. The score of a dropped
    document is its number in [0, 1): a share above it would keep it.
    """

    share: float = setting(metadata=_DECIDES)
    """Share of the documents that stay, in [0, 1]."""
    seed: int = setting(default=0, metadata=_DECIDES)
    """Picks the sample. Samples of two seeds are independent."""
    field: str | None = None
    """Field of the metadata whose values are sampled instead of documents."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not _is_number(self.share) or not 0 <= self.share <= 1:
            raise ConfigError("Sample.share", self.share, "must be a share between 0 and 1")
        _check_seed("Sample.seed", self.seed)
        if self.field is not None:
            check_field("Sample.field", self.field)

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "sample"

    @property
    def signature_type(self) -> pa.DataType:
        """8 bytes of a hash."""
        return pa.uint64()

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """A hash of each identifier or value; (num_rows,) uint64."""
        names = documents["doc_id"].cast(pa.large_string())
        if self.field is not None:
            values = field_values(documents["metadata"], self.field)
            marked = [None if v is None else "\0" + v for v in values]  # no identifier begins so
            names = pc.coalesce(pa.array(marked, pa.large_string()), names)
        return pa.array(_hashes(names))

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents are not in the sample; `VERDICTS`, sorted by `doc_id`."""
        numbers = _numbers(signature.to_numpy(), self.seed)
        return _dropped(self.rule, doc_id, numbers >= self.share, numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Keep documents, in an order by hash, while they fit into a budget for each group.

    A document that does not fit is passed over and smaller ones behind it may
    stay, so no budget is ever exceeded, nor left unused because of one large
    document. Tokens are estimated: see the module. The score of a dropped
    document is its number in [0, 1) by which the order goes.
    """

    max_tokens: int | None = setting(default=None, metadata=_DECIDES)
    """Most tokens of a group."""
    max_documents: int | None = setting(default=None, metadata=_DECIDES)
    """Most documents of a group."""
    per: str | None = None
    """Field of the metadata whose values are the groups; None: the corpus is one.

    Documents without it are a group of their own.
    """
    seed: int = setting(default=0, metadata=_DECIDES)
    """Picks the order."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_documents"):
            value = getattr(self, name)
            if value is not None and not (_is_whole(value) and value >= 0):
                problem = "must be a whole number from 0 on, or None for any"
                raise ConfigError(f"Limit.{name}", value, problem)
        if self.max_tokens is None and self.max_documents is None:
            raise ConfigError("Limit.max_tokens", None, "must be given, or max_documents")
        _check_seed("Limit.seed", self.seed)
        if self.per is not None:
            check_field("Limit.per", self.per)

    @property
    def rule(self) -> str:
        """The rule's name in the verdicts."""
        return "limit"

    @property
    def signature_type(self) -> pa.DataType:
        """A hash, the tokens and the group."""
        return _SIZED

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Hash of the identifier, tokens and group; (num_rows,) struct."""
        return _sized(documents, self.per)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents do not fit; `VERDICTS`, sorted by `doc_id`."""
        numbers, order, tokens, groups, names = _unpacked(doc_id, signature, self.seed)
        most = np.iinfo(np.int64).max
        budgets = np.full(len(names), most if self.max_tokens is None else self.max_tokens)
        max_documents = most if self.max_documents is None else self.max_documents
        stays = _fill(order, tokens, groups, budgets, max_documents)
        return _dropped(self.rule, doc_id, ~stays, numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Keep the groups in these shares of all tokens, and as many tokens as that leaves.

    Weights need not sum to 1. Groups without a weight, or of weight 0, are
    dropped as ``mix.no_weight``; a weight whose group the corpus lacks does not
    count. Within a group documents are chosen as by `Limit`, so that a group's
    tokens fall short of its share by less than its smallest dropped document.
    """

    weights: Mapping[str, float] = setting(metadata=_DECIDES)
    """Share of the total's tokens by value of the field."""
    field: str
    """Field of the metadata whose values are the groups."""
    seed: int = setting(default=0, metadata=_DECIDES)
    """Picks the order."""

    revision: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_field("Mix.field", self.field)
        _check_seed("Mix.seed", self.seed)
        if not isinstance(self.weights, Mapping) or not self.weights:
            problem = "must be a mapping of the field's values to shares"
            raise ConfigError("Mix.weights", self.weights, problem)
        for value, weight in self.weights.items():
            if not isinstance(value, str):
                raise ConfigError("Mix.weights", value, "must have strings as keys")
            if not _is_number(weight) or not 0 <= weight < math.inf:
                raise ConfigError(f"Mix.weights[{value!r}]", weight, "must be a number from 0 on")
        if not any(self.weights.values()):
            raise ConfigError("Mix.weights", self.weights, "must have a weight above 0")
        object.__setattr__(self, "weights", dict(self.weights))

    @property
    def rule(self) -> str:
        """The first part of the rules' names in the verdicts."""
        return "mix"

    @property
    def signature_type(self) -> pa.DataType:
        """A hash, the tokens and the group."""
        return _SIZED

    def signature(self, documents: pa.RecordBatch) -> pa.Array:
        """Hash of the identifier, tokens and group; (num_rows,) struct."""
        return _sized(documents, self.field)

    def decide(self, doc_id: pa.ChunkedArray, signature: pa.ChunkedArray) -> pa.Table:
        """Which documents are too many; `VERDICTS`, sorted by `doc_id`."""
        numbers, order, tokens, groups, names = _unpacked(doc_id, signature, self.seed)
        weights = np.array(
            [self.weights.get(name, 0) if name is not None else 0 for name in names], np.float64
        )
        available = np.zeros(len(names), np.int64)
        np.add.at(available, groups, tokens)
        wanted = (weights > 0) & (available > 0)
        budgets = np.zeros(len(names), np.int64)
        if wanted.any():
            # The group that is scarcest for its weight says how large the total can be.
            scale = (available[wanted] / weights[wanted]).min()
            shares = np.floor(scale * weights[wanted] * (1 + 1e-12)).astype(np.int64)
            budgets[wanted] = np.minimum(shares, available[wanted])
        stays = _fill(order, tokens, groups, budgets, np.iinfo(np.int64).max)
        stays &= weights[groups] > 0  # a document of no tokens fits into any budget
        reasons = np.where(weights[groups] > 0, "over_share", "no_weight")
        return _dropped(self.rule, doc_id, ~stays, numbers, reasons)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_seed(name: str, seed: object) -> None:
    if not _is_whole(seed) or not 0 <= seed < 1 << 64:  # type: ignore[operator]
        raise ConfigError(name, seed, "must be a whole number from 0 to 2**64 - 1")


def _hashes(names: pa.Array) -> U64:
    digests = np.frombuffer(hash_column(names).buffers()[1], np.uint64)
    return np.ascontiguousarray(digests[::2])


def _sized(documents: pa.RecordBatch, field: str | None) -> pa.Array:
    offsets, _ = text_buffers(documents["text"])
    tokens = -(-np.diff(offsets) // BYTES_PER_TOKEN)
    groups = [None] * documents.num_rows
    if field is not None:
        groups = field_values(documents["metadata"], field)  # type: ignore[assignment]
    keys = _hashes(documents["doc_id"].cast(pa.large_string()))
    arrays = [pa.array(keys), pa.array(tokens, pa.int64()), pa.array(groups, pa.string())]
    return pa.StructArray.from_arrays(arrays, fields=list(_SIZED))


def _numbers(keys: U64, seed: int) -> F64:
    """A number in [0, 1) for each key, unlike those of other seeds (splitmix64's mixing)."""
    values = keys.astype(np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % (1 << 64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    values ^= values >> np.uint64(31)
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _unpacked(
    doc_id: pa.ChunkedArray, signature: pa.ChunkedArray, seed: int
) -> tuple[F64, I64, I64, I64, list[str | None]]:
    """Numbers, their order (ties by identifier), tokens, groups, and the groups' values."""
    whole = _whole(signature)
    numbers = _numbers(whole.field("key").to_numpy(), seed)
    order = np.argsort(numbers, kind="stable")
    if len(np.unique(numbers)) < len(numbers):
        ids = np.array(doc_id.to_pylist(), object)
        order = np.lexsort((np.argsort(np.argsort(ids)), numbers))
    coded = whole.field("group").dictionary_encode(null_encoding="encode")
    groups = coded.indices.to_numpy().astype(np.int64)
    return numbers, order, whole.field("tokens").to_numpy(), groups, coded.dictionary.to_pylist()


def _fill(
    order: I64, tokens: I64, groups: I64, budgets: I64, max_documents: int
) -> npt.NDArray[np.bool_]:
    """Which documents fit into the budgets of their groups, taken in this order."""
    stays = np.zeros(len(order), np.bool_)
    left = budgets.tolist()
    room = [max_documents] * len(left)
    rows = zip(order.tolist(), tokens[order].tolist(), groups[order].tolist(), strict=True)
    for row, size, place in rows:
        if size <= left[place] and room[place] > 0:
            left[place] -= size
            room[place] -= 1
            stays[row] = True
    return stays


def _dropped(
    rule: str,
    doc_id: pa.ChunkedArray,
    gone: npt.NDArray[np.bool_],
    scores: F64,
    reasons: npt.NDArray[np.str_] | None = None,
) -> pa.Table:
    ids = _whole(doc_id)
    dropped = np.flatnonzero(gone)
    rules = pa.repeat(rule, len(dropped))
    if reasons is not None:
        rules = pa.array([f"{rule}.{reason}" for reason in reasons[dropped]], pa.string())
    table = pa.table(
        {
            "doc_id": ids.take(pa.array(dropped)).cast(pa.string()),
            "verdict": pa.repeat("dropped", len(dropped)),
            "rule": rules,
            "score": pa.array(scores[dropped], pa.float64()),
            "duplicate_of": pa.nulls(len(dropped), pa.string()),
        },
        schema=VERDICTS,
    )
    return table.sort_by("doc_id")


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
