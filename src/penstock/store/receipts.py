"""Receipts: what was forgotten, where it had been, and whether a trace is left on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from penstock.errors import StoreError
from penstock.store.places import Place, replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one call of `forget` took out. It holds no content, and of ids their hashes alone.

    Attributes:
        run: The run that was published without the documents; the receipt's name.
        at: When, in UTC, as ``2026-11-21T06:30:00Z``.
        reason: As given.
        documents: The first 16 bytes of SHA-256 of each `doc_id`, in hexadecimal.
        rows: Rows taken out, by table.
        versions: By table, the versions whose files hold rows of theirs, deleted ones too.
        runs: Earlier runs that name a file which holds anything of theirs.
        segments: By segment of index and tokens, how many of its rows are theirs.
        exports: What was exported with them, and into which shards.
        same_content: How many documents with the same bytes stay under other ids.
        purged: The run since which no file of the store holds a trace; None until `gc`.
    """

    run: str
    at: str
    reason: str = ""
    documents: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    versions: dict[str, list[int]] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    segments: dict[str, int] = field(default_factory=dict)
    exports: list[dict[str, Any]] = field(default_factory=list)
    same_content: int = 0
    purged: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The receipt in JSON types."""
        return asdict(self)


def write_receipt(store: Place, receipt: Receipt) -> Place:
    """Keep a receipt under ``receipts/``; atomic and durable."""
    (store / "receipts").mkdir(exist_ok=True)
    path = store / "receipts" / f"{receipt.run}.json"
    replace_file(path, json.dumps(receipt.to_json(), indent=1).encode() + b"\n")
    return path


def read_receipts(store: Place) -> list[Receipt]:
    """Every receipt of a store, the oldest first.

    Raises:
        StoreError: One is damaged.
    """
    known = {each.name for each in fields(Receipt)}
    found = []
    names = {path.name for path in (store / "receipts").glob("*.json")}
    for name in sorted(names, key=lambda name: (len(name), name)):
        path = store / "receipts" / name
        try:
            facts = json.loads(path.read_bytes())
            values = {name: value for name, value in facts.items() if name in known}
            found.append(Receipt(**values))
        except (OSError, ValueError, TypeError, AttributeError) as err:
            raise StoreError(str(path), f"the receipt is damaged ({err})") from err
    return found
