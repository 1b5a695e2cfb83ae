"""Feed training: one order of all samples, packed, cut into equal shares, resumable."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.loader.array_samples import ArraySamples
    from penstock.loader.audit import Audit
    from penstock.loader.batches import Batch
    from penstock.loader.loader import Loader
    from penstock.loader.mixing import Mixture, Part
    from penstock.loader.opening import open_shards
    from penstock.loader.samples import Samples
    from penstock.loader.shards import Shards

# They load when first used: a store names the formats of its exports, and needs no kernels for it.
_HOMES = {
    "ArraySamples": "array_samples",
    "Audit": "audit",
    "Batch": "batches",
    "Loader": "loader",
    "Mixture": "mixing",
    "Part": "mixing",
    "Samples": "samples",
    "Shards": "shards",
    "open_shards": "opening",
}

__all__ = [
    "ArraySamples",
    "Audit",
    "Batch",
    "Loader",
    "Mixture",
    "Part",
    "Samples",
    "Shards",
    "open_shards",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'penstock.loader' has no attribute {name!r}")
    return getattr(import_module(f"penstock.loader.{home}"), name)
