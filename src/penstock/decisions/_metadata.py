"""One field of the documents' metadata, as text."""

from __future__ import annotations

import json

import pyarrow as pa

from penstock.errors import ConfigError
from penstock.records import to_json


def check_field(setting: str, name: object) -> None:
    """Raise `ConfigError` unless this can be the name of a field."""
    if not isinstance(name, str) or not name:
        raise ConfigError(setting, name, "must be the name of a field of the metadata")


def field_values(metadata: pa.Array, name: str) -> list[str | None]:
    """The field of each row's JSON object: None where it is missing or null.

    What is no string is given as JSON: ``2024``, ``true``, ``["a","b"]``.

    Cost: 2 us a row that has the field, 0.2 a row that does not.
    """
    key = to_json(name)
    values: list[str | None] = []
    for row in metadata.to_pylist():
        # Canonical JSON spells a key in one way, so that a row without it need not be parsed.
        value = json.loads(row).get(name) if row is not None and key in row else None
        values.append(value if value is None or isinstance(value, str) else to_json(value))
    return values
