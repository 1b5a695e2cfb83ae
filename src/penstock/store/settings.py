"""What has been found best for searching a store; kept beside its runs, and changed at will."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from penstock.errors import StoreError
from penstock.index import Fusion, Mode
from penstock.store.places import Place, replace_file

_NAME = "search.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Defaults of a search in one store.

    Attributes:
        mode: Which sides count where chunks have vectors.
        fusion: How both sides are joined.
        alpha: Weight of the vector side; None for one per query.
        effort: Multiplies how much of large segments of vectors is read.
        tuned: What `Store.tune` said when it chose mode, fusion and alpha.
    """

    mode: Mode = "hybrid"
    fusion: Fusion = "weighted"
    alpha: float | None = None
    effort: float = 1.0
    tuned: dict[str, Any] | None = None


def read_settings(store: Place) -> SearchSettings:
    """The settings of a store; the defaults where nothing was tuned.

    Raises:
        StoreError: The file is not what was written.
    """
    path = store / _NAME
    try:
        values = json.loads(path.read_bytes())
        known = {field.name for field in fields(SearchSettings)}
        return SearchSettings(**{name: values[name] for name in values if name in known})
    except FileNotFoundError:
        return SearchSettings()
    except (OSError, ValueError, TypeError) as err:
        raise StoreError(
            str(path), f"cannot be read ({err}); delete it to search with the defaults"
        ) from err


def change_settings(store: Place, **values: Any) -> SearchSettings:
    """Keep these settings from now on; atomic and durable."""
    settings = replace(read_settings(store), **values)
    replace_file(store / _NAME, json.dumps(asdict(settings), indent=1).encode())
    return settings
