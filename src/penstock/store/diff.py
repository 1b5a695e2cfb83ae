"""What differs between two runs: documents, verdicts and why, counts by rule.

Rows are never changed in place and keep their ids, so rows with the same id in
both runs are the same rows: only the others are looked at. What that costs grows
with what changed, and by 8 bytes a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.records import VERDICTS
from penstock.store.manifest import Manifest
from penstock.store.places import Place
from penstock.store.tables import open_table, take_rows

Reason = Literal["content", "setting", "neighbour"]

_DOCUMENT = (
    "doc_id",
    "content_hash",
    "media_type",
    "metadata",
    "source_metadata",
    "text_hash",
)
_JUDGED = ("verdict", "rule", "score", "duplicate_of")

CHANGED_VERDICTS = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        *(VERDICTS.field(name).with_name(f"{name}_before") for name in _JUDGED),
        *VERDICTS.remove(0),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("neighbour", pa.string()),
    ]
)
"""A document that both runs have, and its verdict in each. `reason` is ``content`` where the
document itself changed, ``setting`` where a step that made its text or the verdict did, else
``neighbour``: another document came, went or changed; `neighbour` is the one that is or was
kept in its place, for duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """How many documents a rule drops in each run; `rule` is ``kept`` for those kept."""

    rule: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What differs between two runs.

    Attributes:
        a: The run before.
        b: The run after.
        added: Documents that only `b` has, sorted.
        changed: Documents whose bytes, kind or metadata differ at the source, sorted.
        removed: Documents that only `a` has, sorted.
        recomputed: Documents that are the same at the source, but that steps made
            another text or metadata of, sorted.
        verdicts: Table of `CHANGED_VERDICTS`, sorted by `doc_id`.
        rules: Documents by rule, those kept first.
    """

    a: str
    b: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    recomputed: tuple[str, ...]
    verdicts: pa.Table
    rules: tuple[RuleChange, ...]

    def reasons(self) -> dict[str, int]:
        """How many verdicts changed for each reason."""
        counts: dict[str, int] = {"content": 0, "setting": 0, "neighbour": 0}
        for row in pc.value_counts(self.verdicts["reason"]).to_pylist():
            counts[row["values"]] = row["counts"]
        return counts

    def to_json(self) -> dict[str, Any]:
        """The same in JSON types."""
        return {
            "a": self.a,
            "b": self.b,
            "documents": {
                name: list(getattr(self, name))
                for name in ("added", "changed", "removed", "recomputed")
            },
            "verdicts": self.verdicts.to_pylist(),
            "reasons": self.reasons(),
            "rules": [
                {"rule": each.rule, "before": each.before, "after": each.after}
                for each in self.rules
            ],
        }


def diff_runs(store: Place, a: Manifest, b: Manifest) -> Diff:
    """Compare two runs of a store; see `Store.diff`."""
    before, after = _rows_apart(store, "documents", a, b, _DOCUMENT)
    ids, other_ids = _one(before["doc_id"]), _one(after["doc_id"])
    there = pc.index_in(ids, value_set=other_ids)
    both = pc.is_valid(there)
    old, new = before.filter(both), after.take(there.drop_null())
    same = _same(old, new, ("content_hash", "media_type")) & _same_columns(
        pc.coalesce(old["source_metadata"], old["metadata"]),
        pc.coalesce(new["source_metadata"], new["metadata"]),
    )
    recomputed = same & ~_same(old, new, ("text_hash", "metadata"))
    changed, made_anew = old["doc_id"].filter(~same), old["doc_id"].filter(recomputed)
    return Diff(
        a=a.run,
        b=b.run,
        added=_sorted(other_ids.filter(pc.invert(pc.is_in(other_ids, value_set=ids)))),
        changed=_sorted(changed),
        removed=_sorted(ids.filter(pc.invert(both))),
        recomputed=_sorted(made_anew),
        verdicts=_changed_verdicts(store, a, b, _one(changed), _one(made_anew)),
        rules=_rules(store, a, b),
    )


def _rows_apart(
    store: Place, table: str, a: Manifest, b: Manifest, columns: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """The rows of each run that the other does not have."""
    versions = [manifest.tables.get(table) for manifest in (a, b)]
    if versions[0] == versions[1]:
        versions = [None, None]
    data = [None if v is None else open_table(store / f"{table}.lance", v) for v in versions]
    ids = [np.empty(0, np.uint64) if each is None else _row_ids(each) for each in data]
    found = []
    for each, mine, others in zip(data, ids, reversed(ids), strict=True):
        only = np.setdiff1d(mine, others, assume_unique=True)
        if each is None:
            found.append(_SCHEMAS[table].empty_table().select(list(columns)))
        else:
            found.append(take_rows(each, only, columns))
    return found[0], found[1]


_SCHEMAS = {
    "documents": pa.schema(
        [
            pa.field(name, pa.binary(16) if name.endswith("_hash") else pa.string())
            for name in _DOCUMENT
        ]
    ),
    "verdicts": VERDICTS,
}


def _row_ids(dataset: Any) -> Any:
    # Lance gives no row ids without a column; the smallest one does.
    column = "has_blob" if "has_blob" in dataset.schema.names else "verdict"
    return dataset.to_table(columns=[column], with_row_id=True)["_rowid"].to_numpy()


def _changed_verdicts(
    store: Place, a: Manifest, b: Manifest, changed: pa.Array, recomputed: pa.Array
) -> pa.Table:
    before, after = _rows_apart(store, "verdicts", a, b, VERDICTS.names)
    there = pc.index_in(_one(before["doc_id"]), value_set=_one(after["doc_id"]))
    old, new = before.filter(pc.is_valid(there)), after.take(there.drop_null())
    differ = ~_same(old, new, _JUDGED)
    old, new = old.filter(differ), new.filter(differ)
    settings = _rules_of_other_settings(a, b)
    by_setting = pc.or_(
        pc.or_(_of_rules(old["rule"], settings), _of_rules(new["rule"], settings)),
        pc.is_in(new["doc_id"], value_set=recomputed),
    )
    by_content = pc.is_in(new["doc_id"], value_set=changed)
    reason = pc.if_else(by_content, "content", pc.if_else(by_setting, "setting", "neighbour"))
    near = pc.coalesce(new["duplicate_of"], old["duplicate_of"])
    columns = [
        new["doc_id"],
        *(old[name] for name in _JUDGED),
        *(new[name] for name in _JUDGED),
        reason,
        near,
    ]
    return pa.table(columns, schema=CHANGED_VERDICTS).sort_by("doc_id")


def _rules_of_other_settings(a: Manifest, b: Manifest) -> set[str]:
    """Rules of decisions that only one run has, or that the runs have with other settings."""
    mine, other = (dict(_settings(manifest)) for manifest in (a, b))
    return {rule for rule in mine.keys() | other.keys() if mine.get(rule) != other.get(rule)}


def _settings(manifest: Manifest) -> Iterator[tuple[str, str]]:
    embedded = ""
    for step in manifest.flow.get("steps", []):
        facts = f"{step['settings']} {step['fingerprint']} {embedded}"
        if step["name"] in ("Chunk", "Embed"):
            embedded += facts  # a decision behind them sees what they made
        if step.get("rule") is not None:
            yield step.get("rule"), facts


def _of_rules(rules: pa.ChunkedArray, decisions: set[str]) -> pa.ChunkedArray:
    names = pc.list_element(pc.split_pattern(pc.fill_null(rules, ""), ".", max_splits=1), 0)
    return pc.is_in(names, value_set=pa.array(sorted(decisions), pa.string()))


def _rules(store: Place, a: Manifest, b: Manifest) -> tuple[RuleChange, ...]:
    before, after = (_counts(store, manifest) for manifest in (a, b))
    names = sorted(before.keys() | after.keys(), key=lambda name: (name != "kept", name))
    return tuple(
        RuleChange(rule=name, before=before.get(name, 0), after=after.get(name, 0))
        for name in names
    )


def _counts(store: Place, manifest: Manifest) -> dict[str, int]:
    version = manifest.tables.get("verdicts")
    if version is None:
        return {}
    rows = open_table(store / "verdicts.lance", version).to_table(columns=["verdict", "rule"])
    named = pc.if_else(pc.equal(rows["verdict"], "kept"), "kept", rows["rule"])
    return {row["values"]: row["counts"] for row in pc.value_counts(named).to_pylist()}


def _same(old: pa.Table, new: pa.Table, columns: Sequence[str]) -> Any:
    same = np.ones(len(old), bool)
    for name in columns:
        same &= _same_columns(old[name], new[name])
    return same


def _same_columns(old: pa.ChunkedArray, new: pa.ChunkedArray) -> Any:
    """Where two columns have the same value, (num_rows,) bool; nulls are equal."""
    equal = pc.fill_null(pc.equal(old, new), fill_value=False)
    both_null = pc.and_(pc.is_null(old), pc.is_null(new))
    return np.asarray(pc.or_(equal, both_null).combine_chunks().to_numpy(zero_copy_only=False))


def _sorted(ids: Any) -> tuple[str, ...]:
    return tuple(sorted(ids.to_pylist()))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
