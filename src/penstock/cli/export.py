"""The command that writes shards."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from penstock.errors import ConfigError
from penstock.store import Store

_UNITS = {"": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_UNITS |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def export_shards(
    store: str,
    out: Path,
    run: str | None,
    kind: Any,
    shard_size: str,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Export and say what was done."""
    opened = Store.open(store, run)
    report = opened.export(out, format=kind, shard_bytes=num_bytes(shard_size), **options)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
        return
    typer.echo(
        f"Run {report.run}: {report.documents:,} documents in {report.shards:,} shards, "
        f"{report.num_bytes / 1e6:,.1f} MB, {report.format}\n"
        f"{report.written:,} documents written into {report.shards_written:,} new shards; "
        f"{report.shards_removed:,} shards removed; {report.tombstones:,} tombstones"
    )


def num_bytes(text: str) -> int:
    """Bytes that a size such as ``64MB`` or ``1.5GiB`` names.

    Raises:
        ConfigError: It names none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS:
        raise ConfigError("--shard-size", text, "must be bytes, or a size such as 64MB or 64MiB")
    return int(float(found[1]) * _UNITS[found[2]])
