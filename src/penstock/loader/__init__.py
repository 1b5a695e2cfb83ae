"""Feed training: one order of all samples, packed, cut into equal shares, resumable."""

from __future__ import annotations

from penstock.loader.array_samples import ArraySamples
from penstock.loader.audit import Audit
from penstock.loader.batches import Batch
from penstock.loader.loader import Loader
from penstock.loader.mixing import Mixture, Part
from penstock.loader.samples import Samples
from penstock.loader.shards import Shards, open_shards

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
